// What the binding calls: kernels behind plain pointers. Asynchronous on `stream`; they return the error of the
// launch, 0 where there is none.
#pragma once

#include <gancore/kind.h>

#include "block.h"
#include "parameters.h"

namespace ada {

using gancore::Kind;

// in, out: (B, C, H, W). geometry, colour, cutout: of the type that the images are computed in; null for what is
// left out. points: memory of the transpose with geometry, (B, C, 2 H + 10, 2 W + 10), else null.
int launch_warp(Kind kind, const Problem& problem, const void* in, void* out, const void* geometry,
                const void* colour, const void* cutout, void* points, void* stream);

int launch_compose(const Settings& settings, int64_t count, const float* uniforms, const float* normals,
                   const float* p, const Results<float>& results, void* stream);
int launch_compose(const Settings& settings, int64_t count, const float* uniforms, const float* normals,
                   const float* p, const Results<double>& results, void* stream);

}  // namespace ada
