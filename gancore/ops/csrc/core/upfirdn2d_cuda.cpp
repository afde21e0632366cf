// Resampling on a GPU: the binding.
#include "binding.h"

#include <gancore/gpu.h>
#include "upfirdn2d_binding.h"
#include "upfirdn2d_cuda.h"

#include <torch/csrc/stable/library.h>

namespace core {
namespace {

using gancore::kind_of;
using gancore::stream_of;

Tensor upfirdn2d(const Tensor& x, const Tensor& taps, int64_t up_x, int64_t up_y, int64_t down_x, int64_t down_y,
                 int64_t left, int64_t top, int64_t width, int64_t height, bool flip, double gain) {
  check(x, taps, up_x, up_y, down_x, down_y, width, height);
  torch::stable::accelerator::DeviceGuard guard(x.get_device_index());
  bool last = is_channels_last(x);
  Tensor in = laid_out(x, last), filter = torch::stable::contiguous(taps);
  Tensor out = result_for(x, height, width, last);
  if (x.numel() == 0) return torch::stable::zero_(out);
  int64_t inner = last ? x.size(1) : 1, planes = x.size(0) * x.size(1) / inner;
  Axis columns{x.size(3), width, up_x, down_x, left, taps.size(taps.dim() - 1)};
  Axis rows{x.size(2), height, up_y, down_y, top, taps.size(0)};
  Resampling problem{kind_of(x), columns, rows, planes, inner, taps.dim() == 1, flip, gain};
  bool twice = problem.in_two_passes();
  Tensor middle = torch::stable::new_empty(taps, {twice ? planes * rows.in * columns.out * inner : 0});
  int error = launch(problem, in.data_ptr(), filter.data_ptr(), twice ? middle.data_ptr() : nullptr, out.data_ptr(),
                     stream_of(x));
  STD_TORCH_CHECK(error == 0, "upfirdn2d: CUDA error ", error);
  return out;
}

}  // namespace
}  // namespace core

STABLE_TORCH_LIBRARY_IMPL(gancore, CUDA, m) { m.impl("upfirdn2d", TORCH_BOX(&core::upfirdn2d)); }
