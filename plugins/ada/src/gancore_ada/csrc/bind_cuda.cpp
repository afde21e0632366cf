// ADA on a GPU: the binding.
#include "binding.h"
#include "cuda.h"

#include <gancore/gpu.h>

#include <torch/csrc/stable/library.h>

namespace ada {
namespace {

using gancore::kind_of;
using gancore::stream_of;

Tensor warp(const Tensor& images, const Tensor& geometry, const Tensor& colour, const Tensor& cutout,
            bool transposed, bool offset) {
  check_warp(images, geometry, colour, cutout, transposed, offset);
  int32_t device = images.get_device_index();
  torch::stable::accelerator::DeviceGuard guard(device);
  bool last = is_channels_last(images);
  Tensor in = last ? images : torch::stable::contiguous(images);
  Tensor matrices = torch::stable::contiguous(geometry), colours = torch::stable::contiguous(colour);
  Tensor cuts = torch::stable::contiguous(cutout);
  Tensor out = torch::stable::empty_like(in);
  if (images.numel() == 0) return out;
  Problem problem{images.size(0),
                  static_cast<int>(images.size(1)),
                  {static_cast<int>(images.size(2))},
                  {static_cast<int>(images.size(3))},
                  last,
                  transposed,
                  offset};
  bool spreads = transposed && geometry.numel() != 0;
  int64_t points_y = spreads ? problem.points_y() : 0, points_x = spreads ? problem.points_x() : 0;
  Tensor points = torch::stable::new_empty(matrices, {images.size(0), images.size(1), points_y, points_x});
  auto part = [](const Tensor& given) { return given.numel() ? given.data_ptr() : nullptr; };
  int error = launch_warp(kind_of(images), problem, in.data_ptr(), out.data_ptr(), part(matrices), part(colours),
                          part(cuts), part(points), stream_of(images));
  STD_TORCH_CHECK(error == 0, "ADA: CUDA error ", error);
  return out;
}

Composed compose(const Tensor& uniforms, const Tensor& normals, const Tensor& p, std::vector<double> multipliers,
                 std::vector<double> strengths, int64_t height, int64_t width, bool exact, bool doubles) {
  check_compose(uniforms, normals, p, multipliers, strengths);
  int32_t device = uniforms.get_device_index();
  torch::stable::accelerator::DeviceGuard guard(device);
  Tensor u = torch::stable::contiguous(uniforms), n = torch::stable::contiguous(normals);
  Settings settings = settings_of(multipliers, strengths, height, width, exact);
  Composed found = empty_results(uniforms, doubles);
  int64_t count = uniforms.size(0);
  if (count == 0) return found;
  auto run = [&](auto results) {
    return launch_compose(settings, count, static_cast<const float*>(u.data_ptr()),
                          static_cast<const float*>(n.data_ptr()), static_cast<const float*>(p.data_ptr()), results,
                          stream_of(uniforms));
  };
  int error = doubles ? run(pointers<double>(found)) : run(pointers<float>(found));
  STD_TORCH_CHECK(error == 0, "ADA: CUDA error ", error);
  return found;
}

}  // namespace
}  // namespace ada

STABLE_TORCH_LIBRARY_IMPL(gancore_ada, CUDA, m) {
  m.impl("warp", TORCH_BOX(&ada::warp));
  m.impl("compose", TORCH_BOX(&ada::compose));
}
