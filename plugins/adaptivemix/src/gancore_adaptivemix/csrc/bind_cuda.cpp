// AdaptiveMix on a GPU: the binding.
#include "binding.h"
#include "cuda.h"

#include <gancore/gpu.h>

#include <torch/csrc/stable/library.h>

#include <tuple>

namespace adaptivemix {
namespace {

using gancore::kind_of;
using gancore::stream_of;

// Tensors in one layout, held as long as kernels are being launched.
struct Held {
  Held(const Tensor& values, const Tensor& order_, const Tensor& own_, const Tensor& other_)
      : last(is_channels_last(values)),
        features(laid_out(values, last)),
        of_mixed(features),
        noise(features),
        order(torch::stable::contiguous(order_)),
        own(torch::stable::contiguous(own_)),
        other(torch::stable::contiguous(other_)) {
    problem.type = kind_of(values);
    problem.count = values.size(0);
    problem.size = values.numel() / problem.count;
    problem.features = features.data_ptr();
    problem.order = static_cast<const int64_t*>(order.data_ptr());
    problem.own = static_cast<const double*>(own.data_ptr());
    problem.other = static_cast<const double*>(other.data_ptr());
  }

  void add(const Tensor& mixed, const std::optional<Tensor>& given, int64_t kind, bool noisy_target) {
    of_mixed = laid_out(mixed, last);
    problem.of_mixed = of_mixed.data_ptr();
    if (given) {
      noise = laid_out(*given, last);
      problem.noise = noise.data_ptr();
    }
    problem.kind = kind;
    problem.noisy_target = noisy_target;
  }

  bool last;
  Tensor features, of_mixed, noise, order, own, other;
  Problem problem{};
};

Tensor mix(const Tensor& values, const Tensor& order, const Tensor& own, const Tensor& other) {
  check_mix(values, order, own, other);
  torch::stable::accelerator::DeviceGuard guard(values.get_device_index());
  Tensor out = torch::stable::empty_like(laid_out(values, is_channels_last(values)));
  if (values.numel() == 0) return out;
  Held held(values, order, own, other);
  int error = launch_mix(held.problem, out.data_ptr(), stream_of(values));
  STD_TORCH_CHECK(error == 0, "mix: CUDA error ", error);
  return out;
}

Tensor distances(const Tensor& features, const Tensor& of_mixed, std::optional<Tensor> noise, const Tensor& order,
                 const Tensor& own, const Tensor& other, int64_t kind, bool noisy_target) {
  check_mix(features, order, own, other);
  check_distances(features, of_mixed, noise, kind);
  torch::stable::accelerator::DeviceGuard guard(features.get_device_index());
  int64_t count = features.size(0), sums = sums_of(kind);
  Tensor out = torch::stable::new_zeros(features, {count, sums}, ScalarType::Double);
  if (features.numel() == 0) return out;
  Tensor partial = torch::stable::new_empty(features, {count, int64_t(kParts), sums}, ScalarType::Double);
  Held held(features, order, own, other);
  held.add(of_mixed, noise, kind, noisy_target);
  int error = launch_distances(held.problem, static_cast<double*>(partial.data_ptr()),
                               static_cast<double*>(out.data_ptr()), stream_of(features));
  STD_TORCH_CHECK(error == 0, "distances: CUDA error ", error);
  return out;
}

std::tuple<Tensor, Tensor> distances_grad(const Tensor& gradient, const Tensor& features, const Tensor& of_mixed,
                                          std::optional<Tensor> noise, const Tensor& order, const Tensor& own,
                                          const Tensor& other, int64_t kind, bool noisy_target, bool target) {
  check_mix(features, order, own, other);
  check_distances(features, of_mixed, noise, kind);
  check_gradient(gradient, features, kind);
  torch::stable::accelerator::DeviceGuard guard(features.get_device_index());
  Tensor of_a = torch::stable::empty_like(laid_out(features, is_channels_last(features)));
  Tensor of_features = target ? torch::stable::empty_like(of_a) : torch::stable::new_empty(features, {0});
  if (features.numel() == 0) return {of_features, of_a};
  Tensor by = torch::stable::contiguous(gradient), inverse = std::get<1>(torch::stable::sort(order, 0, false));
  Held held(features, order, own, other);
  held.add(of_mixed, noise, kind, noisy_target);
  held.problem.inverse = static_cast<const int64_t*>(inverse.data_ptr());
  int error = launch_gradient(held.problem, static_cast<const double*>(by.data_ptr()),
                              target ? of_features.data_ptr() : nullptr, of_a.data_ptr(), stream_of(features));
  STD_TORCH_CHECK(error == 0, "distances: CUDA error ", error);
  return {of_features, of_a};
}

}  // namespace
}  // namespace adaptivemix

STABLE_TORCH_LIBRARY_IMPL(gancore_adaptivemix, CUDA, m) {
  m.impl("mix", TORCH_BOX(&adaptivemix::mix));
  m.impl("distances", TORCH_BOX(&adaptivemix::distances));
  m.impl("distances_grad", TORCH_BOX(&adaptivemix::distances_grad));
}
