// What the bindings of the core's operations share.
#pragma once

#include <cstdint>
#include <limits>

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

namespace core {

using torch::headeronly::MemoryFormat;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// Channels last in memory and in no other way: a batch of one channel is contiguous.
inline bool is_channels_last(const Tensor& x) {
  int64_t dims = x.dim();
  if (x.is_contiguous() || (dims != 4 && dims != 5) || x.stride(1) != 1) return false;
  int64_t expected = x.size(1);
  for (int64_t d = dims - 1; d >= 2; --d) {
    if (x.size(d) != 1 && x.stride(d) != expected) return false;
    expected *= x.size(d);
  }
  return x.size(0) == 1 || x.stride(0) == expected;
}

// `x` in memory as `like` is: channels last, or contiguous.
inline Tensor laid_out(const Tensor& x, bool channels_last) {
  if (!channels_last) return torch::stable::contiguous(x);
  return torch::stable::contiguous(x, x.dim() == 4 ? MemoryFormat::ChannelsLast : MemoryFormat::ChannelsLast3d);
}

inline ScalarType wide_of(const Tensor& x) {
  return x.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

}  // namespace core
