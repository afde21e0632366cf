// DiffAugment on a GPU: the binding.
#include "binding.h"
#include "cuda.h"
#include "diffaugment.h"

#include <gancore/gpu.h>

#include <torch/csrc/stable/library.h>

namespace diffaugment {
namespace {

using gancore::kind_of;
using gancore::stream_of;

Tensor affine(const Tensor& images, const Tensor& colour, const Tensor& place, double brightness, double saturation,
              double contrast, int64_t cut_rows, int64_t cut_columns, int64_t spatial, bool transposed,
              bool offset) {
  check(images, colour, place);
  int32_t device = images.get_device_index();
  torch::stable::accelerator::DeviceGuard guard(device);
  bool last = is_channels_last(images);
  Tensor in = last ? images : torch::stable::contiguous(images);
  Tensor values = torch::stable::contiguous(colour), places = torch::stable::contiguous(place);
  Tensor out = torch::stable::empty_like(in);
  if (images.numel() == 0) return out;
  Tensor sums = torch::stable::new_empty(values, {images.size(0), int64_t(kParts)});
  void* stream = stream_of(images);
  Problem problem{kind_of(images), images.size(0), images.size(1), images.size(2), images.size(3), last,
                  brightness,      saturation,     contrast,       cut_rows,       cut_columns,    spatial,
                  transposed,      offset};
  int error = launch(problem, in.data_ptr(), out.data_ptr(), static_cast<const double*>(values.data_ptr()),
                     static_cast<const int64_t*>(places.data_ptr()), static_cast<double*>(sums.data_ptr()), stream);
  STD_TORCH_CHECK(error == 0, "DiffAugment: CUDA error ", error);
  return out;
}

}  // namespace
}  // namespace diffaugment

STABLE_TORCH_LIBRARY_IMPL(gancore_diffaugment, CUDA, m) { m.impl("affine", TORCH_BOX(&diffaugment::affine)); }
