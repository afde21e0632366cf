// Bias and activation on a GPU: the binding.
#include "bias_act_binding.h"
#include "bias_act_cuda.h"
#include "binding.h"

#include <gancore/gpu.h>

#include <torch/csrc/stable/library.h>

#include <tuple>

using gancore::Bf16;
using torch::headeronly::Half;

namespace core {
namespace {

using gancore::kind_of;
using gancore::stream_of;

template <typename T>
Settings<double> widened(double alpha, double gain, double clamp) {
  auto s = settings_of<T>(alpha, gain, clamp);
  return {double(s.alpha), double(s.gain), double(s.limit), double(s.edge)};
}

Epilogue problem_for(const Tensor& x, bool last, int64_t act, double alpha, double gain, double clamp, int64_t dim) {
  STD_TORCH_CHECK(act >= kPiecewise && act <= kSwish, "kind = ", act, ": no such activation");
  Epilogue problem{kind_of(x), act, split(x, dim, last), {}};
  switch (problem.kind) {
    case Kind::kFloat: problem.settings = widened<float>(alpha, gain, clamp); break;
    case Kind::kDouble: problem.settings = widened<double>(alpha, gain, clamp); break;
    case Kind::kBFloat16: problem.settings = widened<Bf16>(alpha, gain, clamp); break;
    case Kind::kHalf: problem.settings = widened<Half>(alpha, gain, clamp); break;
  }
  return problem;
}

Tensor bias_act(const Tensor& x, std::optional<Tensor> bias, int64_t kind, double alpha, double gain, double clamp,
                int64_t dim) {
  check(x, bias, dim);
  torch::stable::accelerator::DeviceGuard guard(x.get_device_index());
  bool last = is_channels_last(x);
  Tensor in = laid_out(x, last), out = torch::stable::empty_like(in);
  if (x.numel() == 0) return out;
  std::optional<Tensor> held;
  if (bias) held = torch::stable::contiguous(*bias);
  int error = launch_forward(problem_for(x, last, kind, alpha, gain, clamp, dim), in.data_ptr(),
                             held ? held->data_ptr() : nullptr, out.data_ptr(), stream_of(x));
  STD_TORCH_CHECK(error == 0, "bias_act: CUDA error ", error);
  return out;
}

std::tuple<Tensor, Tensor> bias_act_grad(const Tensor& gradient, const Tensor& saved, std::optional<Tensor> bias,
                                         bool summed, int64_t kind, double alpha, double gain, double clamp,
                                         int64_t dim) {
  check(saved, bias, dim);
  STD_TORCH_CHECK(gradient.scalar_type() == saved.scalar_type(), "gradient: expected the type of the values");
  torch::stable::accelerator::DeviceGuard guard(saved.get_device_index());
  bool last = is_channels_last(saved);
  Tensor known = laid_out(saved, last), from = laid_out(gradient, last), out = torch::stable::empty_like(known);
  Tensor sums = torch::stable::new_zeros(saved, {summed ? saved.size(dim) : 0}, wide_of(saved));
  if (saved.numel() == 0) return {out, sums};
  std::optional<Tensor> held;
  if (bias) held = torch::stable::contiguous(*bias);
  Epilogue problem = problem_for(saved, last, kind, alpha, gain, clamp, dim);
  int64_t parts = summed ? parts_for(problem.split) * columns_for(problem.split) : 0;
  Tensor partial = torch::stable::new_empty(saved, {parts}, ScalarType::Double);
  int error = launch_backward(problem, from.data_ptr(), known.data_ptr(), held ? held->data_ptr() : nullptr,
                              out.data_ptr(), static_cast<double*>(partial.data_ptr()),
                              summed ? sums.data_ptr() : nullptr, stream_of(saved));
  STD_TORCH_CHECK(error == 0, "bias_act: CUDA error ", error);
  return {out, sums};
}

}  // namespace
}  // namespace core

STABLE_TORCH_LIBRARY_IMPL(gancore, CUDA, m) {
  m.impl("bias_act", TORCH_BOX(&core::bias_act));
  m.impl("bias_act_grad", TORCH_BOX(&core::bias_act_grad));
}
