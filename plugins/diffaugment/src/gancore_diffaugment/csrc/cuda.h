// What the binding calls: kernels behind plain pointers.
#pragma once

#include <gancore/kind.h>

#include <cstdint>

namespace diffaugment {

using gancore::Kind;

struct Problem {
  Kind kind;
  int64_t count, channels, height, width;
  bool last;  // channels last in memory
  double brightness, saturation, contrast;
  int64_t cut_rows, cut_columns, spatial;
  bool transposed, offset;
};

// Partial sums of the mean of one image.
constexpr int kParts = 16;

// in, out: (B, C, H, W). colour: (B, 3). place: (B, 4). sums: (B, kParts), written first. Asynchronous on `stream`;
// returns the error of the launches, 0 where there is none.
int launch(const Problem& problem, const void* in, void* out, const double* colour, const int64_t* place,
           double* sums, void* stream);

}  // namespace diffaugment
