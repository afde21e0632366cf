// What the binding of bias_act calls: kernels behind plain pointers.
#pragma once

#include "activation.h"
#include <gancore/kind.h>
#include "split.h"

namespace core {

using gancore::Kind;

struct Epilogue {
  Kind kind;
  int64_t act;  // a value of kPiecewise, ...
  Split split;
  Settings<double> settings;
};

// Partial sums of one channel, or of one element of a period where that is shorter than a row of threads.
int64_t parts_for(const Split& split);
int64_t columns_for(const Split& split);

// Asynchronous on `stream`; returns the error of the launches, 0 where there is none. bias: (channels,) in float or
// double, or null.
int launch_forward(const Epilogue& problem, const void* in, const void* bias, void* out, void* stream);

// partial: (parts_for, columns_for) doubles, written first, and sums: (channels,); or both null.
int launch_backward(const Epilogue& problem, const void* gradient, const void* saved, const void* bias, void* out,
                    double* partial, void* sums, void* stream);

}  // namespace core
