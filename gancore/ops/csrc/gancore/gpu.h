// What bindings for a GPU share: the type of a tensor for its kernel, and the stream to launch on.
#pragma once

#include <gancore/kind.h>

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/tensor.h>

namespace gancore {

inline Kind kind_of(const torch::stable::Tensor& x) {
  using torch::headeronly::ScalarType;
  switch (x.scalar_type()) {
    case ScalarType::Float: return Kind::kFloat;
    case ScalarType::Double: return Kind::kDouble;
    case ScalarType::BFloat16: return Kind::kBFloat16;
    case ScalarType::Half: return Kind::kHalf;
    default: STD_TORCH_CHECK(false, "expected float32, float64, bfloat16 or float16");
  }
  return Kind::kFloat;
}

inline void* stream_of(const torch::stable::Tensor& x) {
  void* stream = nullptr;
  STD_TORCH_CHECK(aoti_torch_get_current_cuda_stream(x.get_device_index(), &stream) == 0, "no current CUDA stream");
  return stream;
}

}  // namespace gancore
