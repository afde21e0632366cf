// What the binding of upfirdn2d calls: kernels behind plain pointers.
#pragma once

#include <gancore/kind.h>
#include "upfirdn2d.h"

namespace core {

using gancore::Kind;

struct Resampling {
  Kind kind;
  Axis x, y;
  int64_t planes, inner;
  bool separable, flip;
  double gain;

  // Whether filtering the rows first, into memory of its own, spares most of the work.
  bool in_two_passes() const { return separable && (x.taps / x.up) * (y.taps / y.up) > 16; }
};

// taps: (x.taps,), or (y.taps, x.taps), in float or double. rows: for two passes, (planes, y.in, x.out, inner) in
// float or double; else null. Asynchronous on `stream`; returns the error of the launches, 0 where there is none.
int launch(const Resampling& problem, const void* in, const void* taps, void* rows, void* out, void* stream);

}  // namespace core
