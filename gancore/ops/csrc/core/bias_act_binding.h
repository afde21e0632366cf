// What both bindings of bias_act check and compute of their arguments.
#pragma once

#include "activation.h"
#include "binding.h"
#include "split.h"

#include <gancore/half.h>

#include <cmath>
#include <optional>

namespace core {

inline Split split(const Tensor& x, int64_t dim, bool channels_last) {
  Split found;
  int64_t dims = x.dim();
  bool after = false;
  for (int64_t place = 0; place < dims; ++place) {
    int64_t d = !channels_last || place == 0 ? place : place == dims - 1 ? 1 : place + 1;  // order in memory
    if (d == dim) {
      found.channels = x.size(d);
      after = true;
    } else {
      (after ? found.inner : found.outer) *= x.size(d);
    }
  }
  return found;
}

inline void check(const Tensor& x, const std::optional<Tensor>& bias, int64_t dim) {
  STD_TORCH_CHECK(dim >= 0 && dim < x.dim(), "dim = ", dim, " for a tensor of ", x.dim(), " dimensions");
  if (!bias) return;
  STD_TORCH_CHECK(bias->dim() == 1 && bias->size(0) == x.size(dim), "bias: expected (", x.size(dim), ",)");
  STD_TORCH_CHECK(bias->scalar_type() == wide_of(x), "bias: expected float32, or float64 with float64 values");
}

// The least number that is stored as `limit`: half way from the number before it, or the next one.
template <typename T>
typename gancore::Number<T>::Wide edge_of(typename gancore::Number<T>::Wide limit) {
  using N = gancore::Number<T>;
  using W = typename N::Wide;
  if constexpr (sizeof(T) == sizeof(W)) {
    return limit;
  } else {
    static_assert(sizeof(T) == 2, "a type of 16 bits");
    if (!(limit > W(0))) return limit;
    T before = N::store(limit);
    uint16_t bits;
    memcpy(&bits, &before, sizeof bits);
    --bits;
    memcpy(&before, &bits, sizeof bits);
    W middle = N::load(before) + (limit - N::load(before)) / W(2);
    return N::load(N::store(middle)) >= limit ? middle : std::nextafter(middle, limit);
  }
}

template <typename T>
Settings<typename gancore::Number<T>::Wide> settings_of(double alpha, double gain, double clamp) {
  using N = gancore::Number<T>;
  using W = typename N::Wide;
  W nan = std::numeric_limits<W>::quiet_NaN();
  W limit = clamp < 0 ? nan : N::load(N::store(W(clamp)));
  return {W(alpha), W(gain), limit, clamp < 0 ? nan : edge_of<T>(limit)};
}

}  // namespace core
