// ADA's parameters on the CPU.
#include "binding.h"

#include <torch/csrc/stable/library.h>

namespace ada {
namespace {

Composed compose(const Tensor& uniforms, const Tensor& normals, const Tensor& p, std::vector<double> multipliers,
                 std::vector<double> strengths, int64_t height, int64_t width, bool exact, bool doubles) {
  check_compose(uniforms, normals, p, multipliers, strengths);
  Tensor u = torch::stable::contiguous(uniforms), n = torch::stable::contiguous(normals);
  Settings settings = settings_of(multipliers, strengths, height, width, exact);
  Composed found = empty_results(uniforms, doubles);
  auto run = [&](auto results) {
    const auto* drawn_u = reinterpret_cast<const float*>(u.data_ptr());
    const auto* drawn_n = reinterpret_cast<const float*>(n.data_ptr());
    float strength = *reinterpret_cast<const float*>(p.data_ptr());
    for (int64_t b = 0; b < uniforms.size(0); ++b) compose_image(settings, drawn_u, drawn_n, strength, b, results);
  };
  if (doubles) {
    run(pointers<double>(found));
  } else {
    run(pointers<float>(found));
  }
  return found;
}

}  // namespace
}  // namespace ada

STABLE_TORCH_LIBRARY_IMPL(gancore_ada, CPU, m) { m.impl("compose", TORCH_BOX(&ada::compose)); }
