// What both bindings check of their arguments.
#pragma once

#include "parameters.h"

#include <gancore/tensor.h>

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <tuple>
#include <vector>

namespace ada {

using gancore::is_channels_last;
using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// The type that images of a type are computed in.
inline ScalarType wide(const Tensor& images) {
  return images.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

// (B, rows, columns), or (0, rows, columns) for what is left out; columns 0: (B, rows).
inline void check_part(const Tensor& part, const char* name, const Tensor& images, int64_t rows, int64_t columns) {
  bool fits = part.dim() == (columns ? 3 : 2) && part.size(1) == rows && (!columns || part.size(2) == columns);
  STD_TORCH_CHECK(fits && (part.size(0) == images.size(0) || part.size(0) == 0), name,
                  ": expected one an image, or none");
  STD_TORCH_CHECK(part.scalar_type() == wide(images), name, ": expected the type that the images are computed in");
}

inline void check_warp(const Tensor& images, const Tensor& geometry, const Tensor& colour, const Tensor& cutout,
                       bool transposed, bool offset) {
  STD_TORCH_CHECK(images.dim() == 4 && (images.size(1) == 1 || images.size(1) == 3),
                  "images: expected (B, C, H, W) with 1 or 3 channels");
  check_part(geometry, "geometry", images, 3, 3);
  check_part(colour, "colour", images, 4, 4);
  check_part(cutout, "cutout", images, 4, 0);
  STD_TORCH_CHECK(!(transposed && offset), "the transpose has no offset");
}

inline void check_compose(const Tensor& uniforms, const Tensor& normals, const Tensor& p,
                          const std::vector<double>& multipliers, const std::vector<double>& strengths) {
  bool fits = uniforms.dim() == 2 && normals.dim() == 2 && uniforms.size(0) == normals.size(0) &&
              uniforms.size(1) == kUniforms && normals.size(1) == kNormals && p.numel() == 1;
  STD_TORCH_CHECK(fits, "expected uniforms (B, ", kUniforms, "), normals (B, ", kNormals, "), p ()");
  for (const Tensor* each : {&uniforms, &normals, &p})
    STD_TORCH_CHECK(each->scalar_type() == ScalarType::Float, "uniforms, normals, p: expected float32");
  STD_TORCH_CHECK(multipliers.size() == kOps && strengths.size() == kStrengths, "expected ", kOps,
                  " multipliers and ", kStrengths, " strengths");
}

// The settings of a batch as they come from Python: in the order of their struct.
inline Settings settings_of(const std::vector<double>& multipliers, const std::vector<double>& strengths,
                            int64_t height, int64_t width, bool exact) {
  Settings settings;
  static_assert(sizeof settings.multiplier == kOps * sizeof(float));
  static_assert(sizeof settings.strength == kStrengths * sizeof(float));
  auto* multiplier = reinterpret_cast<float*>(&settings.multiplier);
  auto* strength = reinterpret_cast<float*>(&settings.strength);
  for (int i = 0; i < kOps; ++i) multiplier[i] = static_cast<float>(multipliers[i]);
  for (int i = 0; i < kStrengths; ++i) strength[i] = static_cast<float>(strengths[i]);
  settings.height = static_cast<float>(height);
  settings.width = static_cast<float>(width);
  settings.exact = exact;
  return settings;
}

using Composed = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

inline Composed empty_results(const Tensor& uniforms, bool doubles) {
  ScalarType type = doubles ? ScalarType::Double : ScalarType::Float;
  int64_t count = uniforms.size(0);
  auto make = [&](std::vector<int64_t> shape) { return torch::stable::new_empty(uniforms, shape, type); };
  return {make({count, 3, 3}), make({count, 3, 3}), make({count, 4, 4}),
          make({count, 4}),    make({count}),       make({count, 4})};
}

template <typename W>
Results<W> pointers(const Composed& found) {
  auto at = [](const Tensor& tensor) { return reinterpret_cast<W*>(tensor.data_ptr()); };
  return {at(std::get<0>(found)), at(std::get<1>(found)), at(std::get<2>(found)),
          at(std::get<3>(found)), at(std::get<4>(found)), at(std::get<5>(found))};
}

}  // namespace ada
