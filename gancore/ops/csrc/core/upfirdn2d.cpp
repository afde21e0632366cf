// Resampling on the CPU, plane by plane and row by row; every row is in the cache when it is read.
//
// Outputs that lie up / gcd(up, down) apart meet samples with the same taps: a phase. Samples that lie
// down / gcd(up, down) apart are brought together when a row is read. A phase of a row then is a weighted sum of
// stretches of memory, and so is an output row of filtered rows: one loop does all arithmetic.
#include "upfirdn2d_binding.h"

#include <gancore/half.h>
#include <gancore/memory.h>
#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <numeric>
#include <type_traits>
#include <vector>

using gancore::Bf16;
using torch::headeronly::Half;

namespace core {
namespace {

constexpr int64_t kTogether = 8;  // stretches that one loop adds up

#define ALWAYS inline __attribute__((always_inline))

template <int N, typename W>
ALWAYS W dot(const W* const* in, const W* weights, int64_t i) {
  if constexpr (N == 1) {
    return weights[0] * in[0][i];
  } else {
    return dot<N - 1>(in, weights, i) + weights[N - 1] * in[N - 1][i];
  }
}

template <int N, typename W>
ALWAYS void weigh_n(W* __restrict out, const W* const* in, const W* weights, int64_t n, bool add) {
  const W* from[N];
  W by[N];
  for (int j = 0; j < N; ++j) {
    from[j] = in[j];
    by[j] = weights[j];
  }
  if (add) {
    for (int64_t i = 0; i < n; ++i) out[i] += dot<N>(from, by, i);
  } else {
    for (int64_t i = 0; i < n; ++i) out[i] = dot<N>(from, by, i);
  }
}

// out = sum_j weights[j] * in[j], for up to kTogether stretches, in order.
#define WEIGH(W, NAME)                                                                                       \
  GAN_CLONES void weigh_##NAME(W* out, const W* const* in, const W* weights, int64_t count, int64_t n,       \
                               bool add) {                                                                   \
    switch (count) {                                                                                         \
      case 1: return weigh_n<1>(out, in, weights, n, add);                                                   \
      case 2: return weigh_n<2>(out, in, weights, n, add);                                                   \
      case 3: return weigh_n<3>(out, in, weights, n, add);                                                   \
      case 4: return weigh_n<4>(out, in, weights, n, add);                                                   \
      case 5: return weigh_n<5>(out, in, weights, n, add);                                                   \
      case 6: return weigh_n<6>(out, in, weights, n, add);                                                   \
      case 7: return weigh_n<7>(out, in, weights, n, add);                                                   \
      default: return weigh_n<8>(out, in, weights, n, add);                                                  \
    }                                                                                                        \
  }                                                                                                          \
  GAN_CLONES void interleave_##NAME(W* __restrict out, const W* __restrict even, const W* __restrict odd,    \
                                    int64_t n) {                                                             \
    for (int64_t i = 0; i < n; ++i) {                                                                        \
      out[2 * i] = even[i];                                                                                  \
      out[2 * i + 1] = odd[i];                                                                               \
    }                                                                                                        \
  }                                                                                                          \
  inline void weigh_some(W* out, const W* const* in, const W* by, int64_t count, int64_t n, bool add) {      \
    weigh_##NAME(out, in, by, count, n, add);                                                                \
  }                                                                                                          \
  inline void interleave(W* out, const W* even, const W* odd, int64_t n) { interleave_##NAME(out, even, odd, n); }

WEIGH(float, f32)
WEIGH(double, f64)

#define CONVERT(T, NAME)                                                                                      \
  GAN_CLONES void load_##NAME(gancore::Number<T>::Wide* __restrict out, const T* __restrict in, int64_t n) {  \
    for (int64_t i = 0; i < n; ++i) out[i] = gancore::Number<T>::load(in[i]);                                 \
  }                                                                                                           \
  GAN_CLONES void split_##NAME(gancore::Number<T>::Wide* __restrict even,                                     \
                               gancore::Number<T>::Wide* __restrict odd, const T* __restrict in, int64_t n) { \
    for (int64_t i = 0; i < n; ++i) {                                                                         \
      even[i] = gancore::Number<T>::load(in[2 * i]);                                                          \
      odd[i] = gancore::Number<T>::load(in[2 * i + 1]);                                                       \
    }                                                                                                         \
  }                                                                                                           \
  GAN_CLONES void store_##NAME(T* __restrict out, const gancore::Number<T>::Wide* __restrict in, int64_t n) { \
    for (int64_t i = 0; i < n; ++i) out[i] = gancore::Number<T>::store(in[i]);                                \
  }                                                                                                           \
  struct Type_##NAME {                                                                                        \
    using T_ = T;                                                                                             \
    static constexpr auto load = load_##NAME;                                                                 \
    static constexpr auto split = split_##NAME;                                                               \
    static constexpr auto store = store_##NAME;                                                               \
  };

CONVERT(float, f32)
CONVERT(double, f64)
CONVERT(Bf16, bf16)
CONVERT(Half, f16)

template <typename W>
void weigh(W* out, const W* const* in, const W* weights, int64_t count, int64_t n) {
  if (count == 0) std::fill_n(out, n, W(0));
  for (int64_t j = 0; j < count; j += kTogether)
    weigh_some(out, in + j, weights + j, std::min(kTogether, count - j), n, j > 0);
}

int64_t floor_div(int64_t a, int64_t b) { return a >= 0 ? a / b : -((b - 1 - a) / b); }

// What all rows have in common. `inner` is 1, or the channels where they are last in memory.
template <typename W>
struct Plan {
  struct Phase {
    int64_t tap, sample, count, outputs;  // the first tap and sample, and how many, of its first output
    std::vector<int64_t> places;          // of these samples in a row that was read
    std::vector<W> weights;               // of these taps, where taps are separable
  };

  Plan(const Axis& columns, const Axis& rows, int64_t inner_, const W* taps, bool separable_, bool flip, W gain)
      : x(columns), y(rows), inner(inner_), separable(separable_) {
    int64_t common = std::gcd(x.up, x.down);
    step = x.down / common;
    stride = x.up / common;
    low = 0;
    int64_t high = 0;
    for (int64_t o = 0; o < std::min(stride, x.out); ++o) {
      Phase p{x.first_tap(o), x.first_sample(o), x.count(o), (x.out - o + stride - 1) / stride, {}, {}};
      if (p.count > 0) {
        low = std::min(low, floor_div(p.sample, step));
        high = std::max(high, floor_div(p.sample + p.count - 1, step) + p.outputs - 1);
      }
      phases.push_back(p);
    }
    length = high - low + 1;
    for (int64_t o = 0; o < y.out; ++o) deepest = std::max(deepest, y.count(o));
    for (int64_t k = 0; k < y.taps; ++k)
      for (int64_t l = 0; l < (separable ? 1 : x.taps); ++l)
        down_taps.push_back(gain * taps[separable ? tap_at(k, y.taps, flip)
                                                  : tap_at(k, y.taps, flip) * x.taps + tap_at(l, x.taps, flip)]);
    for (Phase& p : phases) {
      for (int64_t j = 0; j < p.count; ++j) {
        int64_t q = floor_div(p.sample + j, step), d = p.sample + j - q * step;
        p.places.push_back((d * length + q - low) * inner);
        if (separable) p.weights.push_back(taps[tap_at(p.tap + j * x.up, x.taps, flip)]);
      }
    }
  }

  // Elements of a row as it is read: `step` stretches, each from sample step * low on.
  int64_t read_size() const { return step * length * inner; }
  int64_t row_size() const { return x.out * inner; }
  int64_t held_size() const { return separable ? row_size() : read_size(); }

  Axis x, y;
  int64_t inner;
  bool separable;
  int64_t step, stride, low, length, deepest = 1;
  std::vector<Phase> phases;
  std::vector<W> down_taps;
};

// One thread's work space, and one plane at a time.
template <typename K, typename W>
class Resampler {
  using T = typename K::T_;

 public:
  explicit Resampler(const Plan<W>& plan)
      : plan_(plan),
        read_(static_cast<size_t>(plan.read_size()), W(0)),
        held_(static_cast<size_t>(plan.held_size() * plan.deepest), W(0)),
        row_(static_cast<size_t>(plan.row_size())),
        parts_(static_cast<size_t>(plan.phases[0].outputs * plan.inner * plan.stride)),
        by_(static_cast<size_t>(plan.x.taps * plan.y.taps)),
        from_(by_.size()) {}

  void run(const T* in, T* out) {
    int64_t ready = 0;  // rows that were read
    for (int64_t o = 0; o < plan_.y.out; ++o) {
      Met rows(plan_.y, o);
      for (ready = std::max(ready, rows.begin); ready < rows.end; ++ready)
        hold(in + ready * plan_.x.in * plan_.inner, held(ready));
      T* to = out + o * plan_.row_size();
      W* made = row_.data();
      if constexpr (std::is_same_v<T, W>) made = to;
      plan_.separable ? add_rows(made, rows) : add_all(made, rows);
      if constexpr (!std::is_same_v<T, W>) K::store(to, made, plan_.row_size());
    }
  }

 private:
  W* held(int64_t row) { return held_.data() + row % plan_.deepest * plan_.held_size(); }

  // A row of the input as later steps take it: filtered along the row where taps are separable, else as read.
  void hold(const T* in, W* out) {
    if (!plan_.separable) return read(in, out);
    read(in, read_.data());
    across(out, [&](const typename Plan<W>::Phase& phase, W* made, int64_t n) {
      for (int64_t j = 0; j < phase.count; ++j) from_[size_t(j)] = read_.data() + phase.places[size_t(j)];
      weigh(made, from_.data(), phase.weights.data(), phase.count, n);
    });
  }

  // Separable: rows that were filtered already.
  void add_rows(W* out, const Met& rows) {
    int64_t count = 0;
    for (int64_t i = rows.begin, tap = rows.tap; i < rows.end; ++i, tap += plan_.y.up, ++count) {
      from_[size_t(count)] = held(i);
      by_[size_t(count)] = plan_.down_taps[size_t(tap)];
    }
    weigh(out, from_.data(), by_.data(), count, plan_.row_size());
  }

  void add_all(W* out, const Met& rows) {
    across(out, [&](const typename Plan<W>::Phase& phase, W* made, int64_t n) {
      int64_t count = 0;
      for (int64_t i = rows.begin, tap = rows.tap; i < rows.end; ++i, tap += plan_.y.up) {
        for (int64_t j = 0; j < phase.count; ++j, ++count) {
          from_[size_t(count)] = held(i) + phase.places[size_t(j)];
          by_[size_t(count)] = plan_.down_taps[size_t(tap * plan_.x.taps + phase.tap + j * plan_.x.up)];
        }
      }
      weigh(made, from_.data(), by_.data(), count, n);
    });
  }

  // A row, phase by phase: call(phase, where its outputs go, elements).
  template <typename F>
  void across(W* out, const F& call) {
    int64_t phases = static_cast<int64_t>(plan_.phases.size()), inner = plan_.inner;
    for (int64_t p = 0; p < phases; ++p) {
      const auto& phase = plan_.phases[size_t(p)];
      call(phase, plan_.stride == 1 ? out : part(p), phase.outputs * inner);
    }
    if (plan_.stride == 1) return;
    int64_t pairs = plan_.stride == 2 && inner == 1 ? plan_.x.out / 2 : 0;
    if (pairs > 0) interleave(out, part(0), part(1), pairs);
    for (int64_t o = 2 * pairs; o < plan_.x.out; ++o)
      std::copy_n(part(o % plan_.stride) + o / plan_.stride * inner, inner, out + o * inner);
  }

  // Samples step * q + d of a row become element q - low of stretch d. What lies outside of the row stays 0.
  void read(const T* in, W* out) {
    int64_t step = plan_.step, inner = plan_.inner, width = plan_.x.in;
    if (step == 1) {
      int64_t begin = std::max<int64_t>(0, plan_.low), end = std::min(width, plan_.low + plan_.length);
      if (begin < end) K::load(out + (begin - plan_.low) * inner, in + begin * inner, (end - begin) * inner);
      return;
    }
    int64_t last = plan_.low + plan_.length;  // q beyond
    int64_t begin = std::max<int64_t>(0, plan_.low), pairs = 0;
    if (step == 2 && inner == 1) {
      pairs = std::max<int64_t>(0, std::min(width / 2, last) - begin);
      K::split(out + begin - plan_.low, out + plan_.length + begin - plan_.low, in + 2 * begin, pairs);
    }
    for (int64_t i = (begin + pairs) * step; i < std::min(width, last * step); ++i)
      K::load(out + (i % step * plan_.length + i / step - plan_.low) * inner, in + i * inner, inner);
  }

  W* part(int64_t phase) { return parts_.data() + phase * plan_.phases[0].outputs * plan_.inner; }

  const Plan<W>& plan_;
  std::vector<W> read_, held_, row_, parts_, by_;
  std::vector<const W*> from_;
};

Tensor upfirdn2d(const Tensor& x, const Tensor& taps, int64_t up_x, int64_t up_y, int64_t down_x, int64_t down_y,
                 int64_t left, int64_t top, int64_t width, int64_t height, bool flip, double gain) {
  check(x, taps, up_x, up_y, down_x, down_y, width, height);
  bool last = is_channels_last(x), separable = taps.dim() == 1;
  Tensor in = laid_out(x, last), filter = torch::stable::contiguous(taps);
  Tensor out = result_for(x, height, width, last);
  if (x.numel() == 0) return torch::stable::zero_(out);
  int64_t inner = last ? x.size(1) : 1, planes = x.size(0) * x.size(1) / inner;
  Axis columns{x.size(3), width, up_x, down_x, left, taps.size(taps.dim() - 1)};
  Axis rows{x.size(2), height, up_y, down_y, top, taps.size(0)};

  auto run = [&](auto kind) {
    using K = decltype(kind);
    using T = typename K::T_;
    using W = typename gancore::Number<T>::Wide;
    Plan<W> plan(columns, rows, inner, reinterpret_cast<const W*>(filter.data_ptr()), separable, flip, W(gain));
    const T* from = reinterpret_cast<const T*>(in.data_ptr());
    T* to = reinterpret_cast<T*>(out.data_ptr());
    gancore::advise_huge_pages(to, static_cast<size_t>(out.numel()) * sizeof(T));
    torch::stable::parallel_for(0, planes, 1, [&](int64_t begin, int64_t end) {
      Resampler<K, W> resampler(plan);
      for (int64_t p = begin; p < end; ++p)
        resampler.run(from + p * columns.in * rows.in * inner, to + p * columns.out * rows.out * inner);
    });
  };
  switch (x.scalar_type()) {
    case ScalarType::Float: run(Type_f32{}); break;
    case ScalarType::Double: run(Type_f64{}); break;
    case ScalarType::BFloat16: run(Type_bf16{}); break;
    case ScalarType::Half: run(Type_f16{}); break;
    default: STD_TORCH_CHECK(false, "x: expected float32, float64, bfloat16 or float16");
  }
  return out;
}

}  // namespace
}  // namespace core

STABLE_TORCH_LIBRARY_IMPL(gancore, CPU, m) { m.impl("upfirdn2d", TORCH_BOX(&core::upfirdn2d)); }
