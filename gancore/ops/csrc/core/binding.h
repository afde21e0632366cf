// What the bindings of the core's operations share.
#pragma once

#include <cstdint>
#include <limits>

#include <gancore/tensor.h>

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

namespace core {

using gancore::is_channels_last;
using torch::headeronly::MemoryFormat;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// `x` in memory as `like` is: channels last, or contiguous.
inline Tensor laid_out(const Tensor& x, bool channels_last) {
  if (!channels_last) return torch::stable::contiguous(x);
  return torch::stable::contiguous(x, x.dim() == 4 ? MemoryFormat::ChannelsLast : MemoryFormat::ChannelsLast3d);
}

inline ScalarType wide_of(const Tensor& x) {
  return x.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

}  // namespace core
