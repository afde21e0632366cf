// What both bindings check of their arguments.
#pragma once

#include <gancore/tensor.h>

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

namespace diffaugment {

using gancore::is_channels_last;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline void check(const Tensor& images, const Tensor& colour, const Tensor& place) {
  STD_TORCH_CHECK(images.dim() == 4, "images have ", images.dim(), " dimensions; expected (B, C, H, W)");
  int64_t count = images.size(0);
  STD_TORCH_CHECK(colour.dim() == 2 && colour.size(0) == count && colour.size(1) == 3, "colour: expected (B, 3)");
  STD_TORCH_CHECK(place.dim() == 2 && place.size(0) == count && place.size(1) == 4, "place: expected (B, 4)");
  STD_TORCH_CHECK(colour.scalar_type() == ScalarType::Double, "colour: expected float64");
  STD_TORCH_CHECK(place.scalar_type() == ScalarType::Long, "place: expected int64");
}

}  // namespace diffaugment
