// What bindings ask of a tensor.
#pragma once

#include <cstdint>

#include <torch/csrc/stable/tensor.h>

namespace gancore {

// Channels last in memory and in no other way: a batch of one channel is contiguous. Sides of 1 may have any stride.
inline bool is_channels_last(const torch::stable::Tensor& x) {
  int64_t dims = x.dim();
  if (x.is_contiguous() || (dims != 4 && dims != 5) || x.stride(1) != 1) return false;
  int64_t expected = x.size(1);
  for (int64_t d = dims - 1; d >= 2; --d) {
    if (x.size(d) != 1 && x.stride(d) != expected) return false;
    expected *= x.size(d);
  }
  return x.size(0) == 1 || x.stride(0) == expected;
}

}  // namespace gancore
