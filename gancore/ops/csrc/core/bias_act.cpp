// Bias and activation on the CPU: one pass forwards, one backwards with the sums over the bias's dimension.
//
// Memory is (outer, channels, inner). Where inner is long, a row has one bias; where it is short, as with channels
// last, the biases of many elements are laid out once and a stretch of memory goes along them.
#include "bias_act_binding.h"
#include "bias_act_loops.h"

#include <gancore/memory.h>
#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <tuple>
#include <vector>

namespace core {
namespace {

constexpr int64_t kRounds = 64;     // tiles summed in float before they join sums in double
constexpr int64_t kLongRow = 64;
constexpr int64_t kWidest = 32768;  // channels * inner, for a tile
constexpr int64_t kUnits = 64;      // parts of a tensor: sums do not depend on the number of threads

// The loops of one type and activation, chosen once a call.
template <typename T>
struct Chosen {
  using W = typename gancore::Number<T>::Wide;
  decltype(&Loops<T, Piecewise>::tile) tile;
  decltype(&Loops<T, Piecewise>::tile_back) tile_back;
  decltype(&Loops<T, Piecewise>::row) row;
  decltype(&Loops<T, Piecewise>::row_back) row_back;
};

template <typename T, template <typename> class Act>
Chosen<T> of() {
  using L = Loops<T, Act>;
  return {L::tile, L::tile_back, L::row, L::row_back};
}

template <typename T>
Chosen<T> choose(int64_t kind) {
  switch (kind) {
    case kPiecewise: return of<T, Piecewise>();
    case kTanh: return of<T, Tanh>();
    case kSigmoid: return of<T, Sigmoid>();
    case kElu: return of<T, Elu>();
    case kSoftplus: return of<T, Softplus>();
    case kSwish: return of<T, Swish>();
    default: STD_TORCH_CHECK(false, "kind = ", kind, ": no such activation");
  }
  return {};
}

// How a tensor is gone through: rows of one bias each, or tiles; in units that threads share out.
class Walk {
 public:
  explicit Walk(const Split& split) : shape_(split) {
    period_ = shape_.period();
    tiled_ = shape_.channels > 1 && (shape_.inner == 1 || (shape_.inner < kLongRow && period_ <= kWidest));
    tile_ = std::max<int64_t>(1, kBlock / std::max<int64_t>(period_, 1)) * period_;
    units_ = std::min(shape_.outer, kUnits);
  }

  bool tiled() const { return tiled_; }
  int64_t units() const { return units_; }
  int64_t tile() const { return tile_; }
  int64_t first(int64_t unit) const { return unit * shape_.outer / units_; }

  // The biases of a tile, or one a channel.
  template <typename W>
  std::vector<W> biases(const W* bias) const {
    std::vector<W> found(static_cast<size_t>(tiled_ ? tile_ : shape_.channels), W(0));
    if (bias)
      for (size_t i = 0; i < found.size(); ++i) found[i] = bias[tiled_ ? shape_.channel(static_cast<int64_t>(i)) : i];
    return found;
  }

  // Sums of the elements of a tile, added to those of their channels.
  template <typename W>
  void join(const std::vector<W>& lanes, double* sums) const {
    for (size_t i = 0; i < lanes.size();)
      for (int64_t c = 0; c < shape_.channels; ++c)
        for (int64_t r = 0; r < shape_.inner; ++r) sums[c] += lanes[i++];
  }

  // call(place in memory, elements, place in biases), in order.
  template <typename F>
  void each(int64_t unit, const F& call) const {
    int64_t begin = first(unit) * period_, end = first(unit + 1) * period_;
    int64_t stretch = tiled_ ? tile_ : kBlock;
    if (tiled_ || shape_.channels == 1) {
      for (int64_t at = begin; at < end; at += stretch) call(at, std::min(stretch, end - at), int64_t(0));
      return;
    }
    for (int64_t row = begin; row < end; row += shape_.inner) {
      int64_t c = shape_.channel(row);
      for (int64_t at = 0; at < shape_.inner; at += kBlock) call(row + at, std::min(kBlock, shape_.inner - at), c);
    }
  }

 private:
  Split shape_;
  int64_t period_, tile_, units_;
  bool tiled_;
};

template <typename T>
void run_forward(const Walk& walk, const Chosen<T>& loops, const Tensor& in, const void* bias, Tensor& out,
                 const Settings<typename Chosen<T>::W>& s) {
  using W = typename Chosen<T>::W;
  const T* from = reinterpret_cast<const T*>(in.data_ptr());
  T* to = reinterpret_cast<T*>(out.data_ptr());
  gancore::advise_huge_pages(to, static_cast<size_t>(in.numel()) * sizeof(T));
  std::vector<W> biases = walk.biases(static_cast<const W*>(bias));
  torch::stable::parallel_for(0, walk.units(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t unit = begin; unit < end; ++unit) {
      walk.each(unit, [&](int64_t at, int64_t n, int64_t place) {
        const W* b = biases.data() + place;
        walk.tiled() ? loops.tile(to + at, from + at, b, n, s) : loops.row(to + at, from + at, *b, n, s);
      });
    }
  });
}

// `sums`: one a channel, or null.
template <typename T>
void run_backward(const Walk& walk, const Chosen<T>& loops, const Tensor& gradient, const Tensor& saved,
                  const void* bias, Tensor& out, void* sums, int64_t channels,
                  const Settings<typename Chosen<T>::W>& s) {
  using W = typename Chosen<T>::W;
  const T* g = reinterpret_cast<const T*>(gradient.data_ptr());
  const T* known = reinterpret_cast<const T*>(saved.data_ptr());
  T* to = reinterpret_cast<T*>(out.data_ptr());
  gancore::advise_huge_pages(to, static_cast<size_t>(gradient.numel()) * sizeof(T));
  std::vector<W> biases = walk.biases(static_cast<const W*>(bias));
  std::vector<double> parts(static_cast<size_t>(walk.units() * channels), 0.0);
  torch::stable::parallel_for(0, walk.units(), 1, [&](int64_t begin, int64_t end) {
    std::vector<W> lanes(static_cast<size_t>(walk.tiled() ? walk.tile() : 0));
    for (int64_t unit = begin; unit < end; ++unit) {
      double* part = parts.data() + unit * channels;
      int64_t rounds = 0;
      auto join = [&] {
        if (!sums) return;
        walk.join(lanes, part);
        std::fill(lanes.begin(), lanes.end(), W(0));
      };
      walk.each(unit, [&](int64_t at, int64_t n, int64_t place) {
        const W* b = biases.data() + place;
        if (!walk.tiled()) {
          part[place] += loops.row_back(to + at, g + at, known + at, *b, n, s);
          return;
        }
        loops.tile_back(to + at, sums ? lanes.data() : nullptr, g + at, known + at, b, n, s);
        if (++rounds % kRounds == 0) join();
      });
      if (walk.tiled()) join();
    }
  });
  if (!sums) return;
  for (int64_t c = 0; c < channels; ++c) {
    double total = 0;
    for (int64_t unit = 0; unit < walk.units(); ++unit) total += parts[static_cast<size_t>(unit * channels + c)];
    static_cast<W*>(sums)[c] = W(total);
  }
}

template <typename F>
void with_type(ScalarType type, const F& run) {
  switch (type) {
    case ScalarType::Float: return run(float());
    case ScalarType::Double: return run(double());
    case ScalarType::BFloat16: return run(Bf16());
    case ScalarType::Half: return run(Half());
    default: STD_TORCH_CHECK(false, "expected float32, float64, bfloat16 or float16");
  }
}

Split split_for(const Tensor& x, bool needed, int64_t dim, bool channels_last) {
  if (needed) return split(x, dim, channels_last);
  Split flat;
  flat.outer = x.numel();
  return flat;
}

Tensor bias_act(const Tensor& x, std::optional<Tensor> bias, int64_t kind, double alpha, double gain, double clamp,
                int64_t dim) {
  check(x, bias, dim);
  bool last = is_channels_last(x);
  Tensor in = laid_out(x, last), out = torch::stable::empty_like(in);
  if (x.numel() == 0) return out;
  std::optional<Tensor> held;
  if (bias) held = torch::stable::contiguous(*bias);
  Walk walk(split_for(x, bias.has_value(), dim, last));
  with_type(x.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    run_forward<T>(walk, choose<T>(kind), in, held ? held->data_ptr() : nullptr, out,
                   settings_of<T>(alpha, gain, clamp));
  });
  return out;
}

std::tuple<Tensor, Tensor> bias_act_grad(const Tensor& gradient, const Tensor& saved, std::optional<Tensor> bias,
                                         bool summed, int64_t kind, double alpha, double gain, double clamp,
                                         int64_t dim) {
  check(saved, bias, dim);
  STD_TORCH_CHECK(gradient.scalar_type() == saved.scalar_type(), "gradient: expected the type of the values");
  bool last = is_channels_last(saved);
  Tensor known = laid_out(saved, last), from = laid_out(gradient, last), out = torch::stable::empty_like(known);
  int64_t channels = summed ? saved.size(dim) : 0;
  Tensor sums = torch::stable::new_zeros(saved, {channels}, wide_of(saved));
  if (saved.numel() == 0) return {out, sums};
  std::optional<Tensor> held;
  if (bias) held = torch::stable::contiguous(*bias);
  Walk walk(split_for(saved, summed || bias, dim, last));
  with_type(saved.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    run_backward<T>(walk, choose<T>(kind), from, known, held ? held->data_ptr() : nullptr, out,
                    summed ? sums.data_ptr() : nullptr, summed || bias ? saved.size(dim) : 1,
                    settings_of<T>(alpha, gain, clamp));
  });
  return {out, sums};
}

}  // namespace
}  // namespace core

STABLE_TORCH_LIBRARY_IMPL(gancore, CPU, m) {
  m.impl("bias_act", TORCH_BOX(&core::bias_act));
  m.impl("bias_act_grad", TORCH_BOX(&core::bias_act_grad));
}
