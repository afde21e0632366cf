// AdaptiveMix on the CPU: a block of elements at a time, in the cache, so that the mixed target is never stored.
#include "adaptivemix.h"
#include "binding.h"

#include <gancore/half.h>
#include <gancore/memory.h>
#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <tuple>
#include <vector>

using gancore::Bf16;
using torch::headeronly::Half;

namespace adaptivemix {
namespace {

constexpr int64_t kBlock = 512;
constexpr int kLanes = 32;

// The loops over a block. They are functions of their own, one a type, so that each is compiled for several
// processors.
#define STORED(T, NAME)                                                                                           \
  using W_##NAME = gancore::Number<T>::Wide;                                                                      \
  GAN_CLONES void mix_##NAME(W_##NAME* __restrict out, const T* __restrict in, const T* __restrict partner,       \
                             W_##NAME own, W_##NAME other, int64_t n) {                                           \
    using N = gancore::Number<T>;                                                                                 \
    for (int64_t i = 0; i < n; ++i) out[i] = mixed(own, N::load(in[i]), other, N::load(partner[i]));              \
  }                                                                                                               \
  GAN_CLONES void add_##NAME(W_##NAME* __restrict out, const T* __restrict in, int64_t n) {                       \
    for (int64_t i = 0; i < n; ++i) out[i] += gancore::Number<T>::load(in[i]);                                    \
  }                                                                                                               \
  GAN_CLONES void load_##NAME(W_##NAME* __restrict out, const T* __restrict in, int64_t n) {                      \
    for (int64_t i = 0; i < n; ++i) out[i] = gancore::Number<T>::load(in[i]);                                     \
  }                                                                                                               \
  GAN_CLONES void store_##NAME(T* __restrict out, const W_##NAME* __restrict in, int64_t n) {                     \
    for (int64_t i = 0; i < n; ++i) out[i] = gancore::Number<T>::store(in[i]);                                    \
  }                                                                                                               \
  GAN_CLONES void mix_and_store_##NAME(T* __restrict out, const W_##NAME* __restrict in,                          \
                                       const W_##NAME* __restrict partner, W_##NAME own, W_##NAME other,          \
                                       int64_t n) {                                                               \
    for (int64_t i = 0; i < n; ++i) out[i] = gancore::Number<T>::store(mixed(own, in[i], other, partner[i]));     \
  }                                                                                                               \
  GAN_CLONES void mix_stored_##NAME(T* __restrict out, const T* __restrict in, const T* __restrict partner,       \
                                    W_##NAME own, W_##NAME other, int64_t n) {                                    \
    using N = gancore::Number<T>;                                                                                 \
    for (int64_t i = 0; i < n; ++i) out[i] = N::store(mixed(own, N::load(in[i]), other, N::load(partner[i])));    \
  }                                                                                                               \
  struct Type_##NAME {                                                                                            \
    using T_ = T;                                                                                                 \
    using W = W_##NAME;                                                                                           \
    static constexpr auto mix = mix_##NAME;                                                                       \
    static constexpr auto add = add_##NAME;                                                                       \
    static constexpr auto load = load_##NAME;                                                                     \
    static constexpr auto store = store_##NAME;                                                                   \
    static constexpr auto mix_and_store = mix_and_store_##NAME;                                                   \
    static constexpr auto mix_stored = mix_stored_##NAME;                                                         \
  };

STORED(float, f32)
STORED(double, f64)
STORED(Bf16, bf16)
STORED(Half, f16)

template <int64_t kKind, typename W>
struct Loops;

#define LOOPS(W, NAME, KIND)                                                                                      \
  GAN_CLONES double sum_##NAME##KIND(int index, const W* __restrict a, const W* __restrict t, int64_t n) {        \
    W parts[kLanes] = {};                                                                                         \
    int64_t i = 0;                                                                                                \
    for (; i + kLanes <= n; i += kLanes)                                                                          \
      for (int l = 0; l < kLanes; ++l) parts[l] += term<KIND>(index, a[i + l], t[i + l]);                         \
    double total = 0;                                                                                             \
    for (int l = 0; l < kLanes; ++l) total += parts[l];                                                           \
    for (; i < n; ++i) total += term<KIND>(index, a[i], t[i]);                                                    \
    return total;                                                                                                 \
  }                                                                                                               \
  /* a and t become their gradients. */                                                                           \
  GAN_CLONES void pull_##NAME##KIND(W* __restrict a, W* __restrict t, const W* by, int64_t n) {                   \
    W held[kMostSums] = {by[0], by[1], by[2]};                                                                    \
    for (int64_t i = 0; i < n; ++i) {                                                                             \
      Pull<W> found = pull<KIND>(a[i], t[i], held);                                                               \
      a[i] = found.a;                                                                                             \
      t[i] = found.t;                                                                                             \
    }                                                                                                             \
  }                                                                                                               \
  template <>                                                                                                     \
  struct Loops<KIND, W> {                                                                                         \
    static constexpr auto sum = sum_##NAME##KIND;                                                                 \
    static constexpr auto pull = pull_##NAME##KIND;                                                               \
  };

LOOPS(float, f32, kAbsolute)
LOOPS(float, f32, kSquare)
LOOPS(float, f32, kCosine)
LOOPS(double, f64, kAbsolute)
LOOPS(double, f64, kSquare)
LOOPS(double, f64, kCosine)

// The permutation and its inverse; the transpose of a mix that is no permutation would be another one.
struct Order {
  explicit Order(const Tensor& order) : held(torch::stable::contiguous(order)), inverse(size_t(order.size(0)), -1) {
    to = reinterpret_cast<const int64_t*>(held.data_ptr());
    for (int64_t i = 0; i < order.size(0); ++i) {
      STD_TORCH_CHECK(to[i] >= 0 && to[i] < order.size(0) && inverse[size_t(to[i])] < 0,
                      "order: expected a permutation of 0 to B - 1");
      inverse[size_t(to[i])] = i;
    }
  }

  Tensor held;
  const int64_t* to;
  std::vector<int64_t> inverse;
};

// What a target and a feature of a mixed sample are made of.
template <typename K>
struct Rows {
  using T = typename K::T_;
  using W = typename K::W;

  // a and t of n elements of a row, from column `at` on.
  void read(W* a, W* t, int64_t row, int64_t at, int64_t n) const {
    K::mix(t, features + row * size + at, features + order->to[row] * size + at, W(own[row]), W(other[row]), n);
    K::load(a, of_mixed + row * size + at, n);
    if (noise) K::add(noisy_target ? t : a, noise + row * size + at, n);
  }

  const T *features, *of_mixed, *noise;
  const double *own, *other;
  const Order* order;
  int64_t count, size;
  bool noisy_target;
};

template <typename F>
void with_type(ScalarType type, const F& run) {
  switch (type) {
    case ScalarType::Float: return run(Type_f32{});
    case ScalarType::Double: return run(Type_f64{});
    case ScalarType::BFloat16: return run(Type_bf16{});
    case ScalarType::Half: return run(Type_f16{});
    default: STD_TORCH_CHECK(false, "expected float32, float64, bfloat16 or float16");
  }
}

template <typename W, typename F>
void with_kind(int64_t kind, const F& run) {
  if (kind == kAbsolute) return run(Loops<kAbsolute, W>{});
  if (kind == kSquare) return run(Loops<kSquare, W>{});
  run(Loops<kCosine, W>{});
}

Tensor mix(const Tensor& values, const Tensor& order, const Tensor& own, const Tensor& other) {
  check_mix(values, order, own, other);
  Tensor in = laid_out(values, is_channels_last(values)), out = torch::stable::empty_like(in);
  Tensor first = torch::stable::contiguous(own), second = torch::stable::contiguous(other);
  Order places(order);
  if (values.numel() == 0) return out;
  int64_t count = values.size(0), size = values.numel() / count;
  with_type(values.scalar_type(), [&](auto kind) {
    using K = decltype(kind);
    using T = typename K::T_;
    using W = typename K::W;
    const T* from = reinterpret_cast<const T*>(in.data_ptr());
    T* to = reinterpret_cast<T*>(out.data_ptr());
    const double* a = reinterpret_cast<const double*>(first.data_ptr());
    const double* b = reinterpret_cast<const double*>(second.data_ptr());
    gancore::advise_huge_pages(to, static_cast<size_t>(count * size) * sizeof(T));
    torch::stable::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i)
        K::mix_stored(to + i * size, from + i * size, from + places.to[i] * size, W(a[i]), W(b[i]), size);
    });
  });
  return out;
}

// Calls run(rows, a kind of loops) with everything in one layout.
template <typename F>
void with_rows(const Tensor& features, const Tensor& of_mixed, const std::optional<Tensor>& noise,
               const Order& order, const Tensor& own, const Tensor& other, int64_t kind, bool noisy_target,
               const F& run) {
  bool last = is_channels_last(features);
  Tensor first = laid_out(features, last), second = laid_out(of_mixed, last);
  Tensor third = noise ? laid_out(*noise, last) : first;
  Tensor weights = torch::stable::contiguous(own), others = torch::stable::contiguous(other);
  int64_t count = features.size(0);
  with_type(features.scalar_type(), [&](auto type) {
    using K = decltype(type);
    using T = typename K::T_;
    Rows<K> rows{reinterpret_cast<const T*>(first.data_ptr()),
                 reinterpret_cast<const T*>(second.data_ptr()),
                 noise ? reinterpret_cast<const T*>(third.data_ptr()) : nullptr,
                 reinterpret_cast<const double*>(weights.data_ptr()),
                 reinterpret_cast<const double*>(others.data_ptr()),
                 &order,
                 count,
                 features.numel() / count,
                 noisy_target};
    with_kind<typename K::W>(kind, [&](auto loops) { run(type, rows, loops); });
  });
}

Tensor distances(const Tensor& features, const Tensor& of_mixed, std::optional<Tensor> noise, const Tensor& order,
                 const Tensor& own, const Tensor& other, int64_t kind, bool noisy_target) {
  check_mix(features, order, own, other);
  check_distances(features, of_mixed, noise, kind);
  Order places(order);
  int sums = sums_of(kind);
  Tensor out = torch::stable::new_zeros(features, {features.size(0), int64_t(sums)}, ScalarType::Double);
  if (features.numel() == 0) return out;
  double* to = reinterpret_cast<double*>(out.data_ptr());
  with_rows(features, of_mixed, noise, places, own, other, kind, noisy_target, [&](auto type, auto rows, auto loops) {
    using W = typename decltype(type)::W;
    torch::stable::parallel_for(0, rows.count, 1, [&](int64_t begin, int64_t end) {
      W a[kBlock], t[kBlock];
      for (int64_t i = begin; i < end; ++i) {
        for (int64_t at = 0; at < rows.size; at += kBlock) {
          int64_t n = std::min(kBlock, rows.size - at);
          rows.read(a, t, i, at, n);
          for (int s = 0; s < sums; ++s) to[i * sums + s] += loops.sum(s, a, t, n);
        }
      }
    });
  });
  return out;
}

std::tuple<Tensor, Tensor> distances_grad(const Tensor& gradient, const Tensor& features, const Tensor& of_mixed,
                                          std::optional<Tensor> noise, const Tensor& order, const Tensor& own,
                                          const Tensor& other, int64_t kind, bool noisy_target, bool target) {
  check_mix(features, order, own, other);
  check_distances(features, of_mixed, noise, kind);
  check_gradient(gradient, features, kind);
  Order places(order);
  bool last = is_channels_last(features);
  Tensor by = torch::stable::contiguous(gradient);
  Tensor of_a = torch::stable::empty_like(laid_out(features, last));
  Tensor of_features = target ? torch::stable::empty_like(of_a) : torch::stable::new_empty(features, {0});
  if (features.numel() == 0) return {of_features, of_a};
  int sums = sums_of(kind);
  const double* weights = reinterpret_cast<const double*>(by.data_ptr());
  with_rows(features, of_mixed, noise, places, own, other, kind, noisy_target, [&](auto type, auto rows, auto loops) {
    using K = decltype(type);
    using T = typename K::T_;
    using W = typename K::W;
    T* to_a = reinterpret_cast<T*>(of_a.data_ptr());
    T* to_features = target ? reinterpret_cast<T*>(of_features.data_ptr()) : nullptr;
    int64_t blocks = (rows.size + kBlock - 1) / kBlock;
    // All rows of a block of columns: the gradients of their targets stay in the cache until each is mixed.
    torch::stable::parallel_for(0, blocks, 1, [&](int64_t begin, int64_t end) {
      std::vector<W> targets(static_cast<size_t>(rows.count * kBlock));
      W a[kBlock];
      for (int64_t block = begin; block < end; ++block) {
        int64_t at = block * kBlock, n = std::min(kBlock, rows.size - at);
        for (int64_t i = 0; i < rows.count; ++i) {
          W* t = targets.data() + i * kBlock;
          W scale[kMostSums] = {};
          for (int s = 0; s < sums; ++s) scale[s] = W(weights[i * sums + s]);
          rows.read(a, t, i, at, n);
          loops.pull(a, t, scale, n);
          K::store(to_a + i * rows.size + at, a, n);
        }
        for (int64_t i = 0; to_features && i < rows.count; ++i) {
          int64_t from = places.inverse[size_t(i)];  // the row that row i is mixed into
          K::mix_and_store(to_features + i * rows.size + at, targets.data() + i * kBlock,
                           targets.data() + from * kBlock, W(rows.own[i]), W(rows.other[from]), n);
        }
      }
    });
  });
  return {of_features, of_a};
}

}  // namespace
}  // namespace adaptivemix

STABLE_TORCH_LIBRARY_IMPL(gancore_adaptivemix, CPU, m) {
  m.impl("mix", TORCH_BOX(&adaptivemix::mix));
  m.impl("distances", TORCH_BOX(&adaptivemix::distances));
  m.impl("distances_grad", TORCH_BOX(&adaptivemix::distances_grad));
}
