// What both bindings of upfirdn2d check and compute of their arguments.
#pragma once

#include "binding.h"
#include "upfirdn2d.h"

namespace core {

inline void check(const Tensor& x, const Tensor& taps, int64_t up_x, int64_t up_y, int64_t down_x, int64_t down_y,
                  int64_t width, int64_t height) {
  STD_TORCH_CHECK(x.dim() == 4, "x has ", x.dim(), " dimensions; expected (B, C, H, W)");
  STD_TORCH_CHECK(taps.dim() == 1 || taps.dim() == 2, "taps: expected (n,) or (rows, columns)");
  STD_TORCH_CHECK(taps.numel() > 0 && taps.scalar_type() == wide_of(x),
                  "taps: expected float32, or float64 with float64 images");
  STD_TORCH_CHECK(up_x > 0 && up_y > 0 && down_x > 0 && down_y > 0, "up, down: expected at least 1");
  STD_TORCH_CHECK(width > 0 && height > 0, "width, height: expected at least 1");
}

inline Tensor result_for(const Tensor& x, int64_t height, int64_t width, bool channels_last) {
  return torch::stable::empty({x.size(0), x.size(1), height, width}, x.scalar_type(), std::nullopt, x.device(),
                              std::nullopt,
                              channels_last ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous);
}

}  // namespace core
