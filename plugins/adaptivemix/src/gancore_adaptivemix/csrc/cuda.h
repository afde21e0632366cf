// What the binding calls: kernels behind plain pointers.
#pragma once

#include <gancore/kind.h>

#include <cstdint>

namespace adaptivemix {

using gancore::Kind;

// Values of a batch, each (count, size); `noise` may be null. Where an index of `order` lies outside of the batch,
// results are NaN.
struct Problem {
  Kind type;
  int64_t count, size;
  const void *features, *of_mixed, *noise;
  const int64_t *order, *inverse;
  const double *own, *other;
  int64_t kind;
  bool noisy_target;
};

// Partial sums of one row.
constexpr int kParts = 32;

// All are asynchronous on `stream` and return the error of the launches, 0 where there is none.

// out: (count, size), of `features`.
int launch_mix(const Problem& problem, void* out, void* stream);

// partial: (count, kParts, sums), written first. sums: (count, sums).
int launch_distances(const Problem& problem, double* partial, double* sums, void* stream);

// gradient: (count, sums). of_features may be null.
int launch_gradient(const Problem& problem, const double* gradient, void* of_features, void* of_mixed,
                    void* stream);

}  // namespace adaptivemix
