// What both bindings check of their arguments.
#pragma once

#include <optional>

#include <gancore/tensor.h>

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include "adaptivemix.h"

namespace adaptivemix {

using gancore::is_channels_last;
using torch::headeronly::MemoryFormat;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline Tensor laid_out(const Tensor& x, bool channels_last) {
  return torch::stable::contiguous(x, channels_last ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous);
}

inline void check_mix(const Tensor& values, const Tensor& order, const Tensor& own, const Tensor& other) {
  STD_TORCH_CHECK(values.dim() > 0, "values: expected (B, ...)");
  int64_t count = values.size(0);
  STD_TORCH_CHECK(order.dim() == 1 && order.size(0) == count && order.scalar_type() == ScalarType::Long,
                  "order: expected (B,) int64");
  for (const Tensor* weights : {&own, &other})
    STD_TORCH_CHECK(weights->dim() == 1 && weights->size(0) == count && weights->scalar_type() == ScalarType::Double,
                    "own, other: expected (B,) float64");
}

inline void check_distances(const Tensor& features, const Tensor& of_mixed, const std::optional<Tensor>& noise,
                            int64_t kind) {
  STD_TORCH_CHECK(kind >= kAbsolute && kind <= kCosine, "kind = ", kind, ": no such distance");
  bool alike = of_mixed.numel() == features.numel() && of_mixed.scalar_type() == features.scalar_type();
  if (noise) alike = alike && noise->numel() == features.numel() && noise->scalar_type() == features.scalar_type();
  STD_TORCH_CHECK(alike, "features, of_mixed and noise: expected one shape and type");
}

inline void check_gradient(const Tensor& gradient, const Tensor& features, int64_t kind) {
  STD_TORCH_CHECK(gradient.dim() == 2 && gradient.size(0) == features.size(0) && gradient.size(1) == sums_of(kind) &&
                      gradient.scalar_type() == ScalarType::Double,
                  "gradient: expected (B, ", sums_of(kind), ") float64");
}

}  // namespace adaptivemix
