// float16 on the CPU, by torch's own conversions.
#pragma once

#include <gancore/number.h>
#include <torch/headeronly/util/Half.h>

namespace gancore {

template <>
struct Number<torch::headeronly::Half> {
  using Wide = float;
  static inline float load(torch::headeronly::Half value) { return static_cast<float>(value); }
  static inline torch::headeronly::Half store(float value) { return torch::headeronly::Half(value); }
};

}  // namespace gancore
