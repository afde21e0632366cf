// ADA on a GPU. Forward one kernel, each block a square of one image: the points behind it look at the image through
// the 7 x 7 taps of sampling up and looking up in one, so that fine pixels need no memory. It is bound by arithmetic
// and by loads from the first cache, about 1000 products a pixel and channel, not by memory. The transpose takes two:
// points, then squares of the image.
#include "cuda.h"

#include <gancore/number.cuh>

namespace ada {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kMostRows = 65535;  // of a grid

struct Team {
  template <typename F>
  __device__ void each(int count, F function) const {
    for (int i = threadIdx.x; i < count; i += kThreads) function(i);
    __syncthreads();
  }
};

template <typename T>
using Wide = typename gancore::Number<T>::Wide;

template <typename T>
__global__ void __launch_bounds__(kThreads) forward_kernel(Problem problem, const T* in, Draws<Wide<T>> draws,
                                                           T* out) {
  __shared__ Shared<Wide<T>> shared;
  int across = problem.squares_x(kSide<Wide<T>>);
  for (int64_t b = blockIdx.y; b < problem.count; b += gridDim.y)
    forward_block(problem, in, draws, out, b, blockIdx.x / across, blockIdx.x % across, shared, Team());
}

template <typename T>
__global__ void __launch_bounds__(kThreads) points_kernel(Problem problem, const T* in, Draws<Wide<T>> draws,
                                                          Wide<T>* points) {
  int64_t each = int64_t(problem.points_y()) * problem.points_x();
  for (int64_t b = blockIdx.y; b < problem.count; b += gridDim.y)
    for (int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x; i < each; i += int64_t(gridDim.x) * kThreads)
      spread_point(problem, in, draws, points, b, int(i / problem.points_x()), int(i % problem.points_x()));
}

template <typename T>
__global__ void __launch_bounds__(kThreads) transposed_kernel(Problem problem, const T* in, Draws<Wide<T>> draws,
                                                              const Wide<T>* points, T* out) {
  __shared__ Shared<Wide<T>> shared;
  int across = problem.squares_x(kSide<Wide<T>>);
  for (int64_t b = blockIdx.y; b < problem.count; b += gridDim.y)
    transposed_block(problem, in, draws, points, out, b, blockIdx.x / across, blockIdx.x % across, shared, Team());
}

template <typename T>
int warp(const Problem& problem, const void* in, void* out, const void* geometry, const void* colour,
         const void* cutout, void* points, cudaStream_t stream) {
  using W = Wide<T>;
  Draws<W> draws{static_cast<const W*>(geometry), static_cast<const W*>(colour), static_cast<const W*>(cutout)};
  const T* from = static_cast<const T*>(in);
  T* to = static_cast<T*>(out);
  auto images = unsigned(problem.count < kMostRows ? problem.count : kMostRows);
  dim3 squares(unsigned(problem.squares_y(kSide<W>)) * unsigned(problem.squares_x(kSide<W>)), images);
  if (!problem.transposed) {
    forward_kernel<T><<<squares, kThreads, 0, stream>>>(problem, from, draws, to);
    return static_cast<int>(cudaGetLastError());
  }
  W* spread = static_cast<W*>(points);
  if (geometry) {
    int64_t each = int64_t(problem.points_y()) * problem.points_x(), blocks = (each + kThreads - 1) / kThreads;
    dim3 grid(unsigned(blocks < 65536 ? blocks : 65536), images);
    points_kernel<T><<<grid, kThreads, 0, stream>>>(problem, from, draws, spread);
  }
  transposed_kernel<T><<<squares, kThreads, 0, stream>>>(problem, from, draws, spread, to);
  return static_cast<int>(cudaGetLastError());
}

template <typename W>
__global__ void compose_kernel(Settings settings, int64_t count, const float* uniforms, const float* normals,
                               const float* p, Results<W> results) {
  for (int64_t b = int64_t(blockIdx.x) * kThreads + threadIdx.x; b < count; b += int64_t(gridDim.x) * kThreads)
    compose_image(settings, uniforms, normals, *p, b, results);
}

template <typename W>
int compose(const Settings& settings, int64_t count, const float* uniforms, const float* normals, const float* p,
            const Results<W>& results, void* stream) {
  int64_t blocks = (count + kThreads - 1) / kThreads;
  compose_kernel<W><<<unsigned(blocks < 1024 ? blocks : 1024), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(
      settings, count, uniforms, normals, p, results);
  return static_cast<int>(cudaGetLastError());
}

}  // namespace

int launch_warp(Kind kind, const Problem& problem, const void* in, void* out, const void* geometry,
                const void* colour, const void* cutout, void* points, void* stream) {
  auto on = static_cast<cudaStream_t>(stream);
  switch (kind) {
    case Kind::kFloat: return warp<float>(problem, in, out, geometry, colour, cutout, points, on);
    case Kind::kDouble: return warp<double>(problem, in, out, geometry, colour, cutout, points, on);
    case Kind::kBFloat16: return warp<__nv_bfloat16>(problem, in, out, geometry, colour, cutout, points, on);
    default: return warp<__half>(problem, in, out, geometry, colour, cutout, points, on);
  }
}

int launch_compose(const Settings& settings, int64_t count, const float* uniforms, const float* normals,
                   const float* p, const Results<float>& results, void* stream) {
  return compose(settings, count, uniforms, normals, p, results, stream);
}

int launch_compose(const Settings& settings, int64_t count, const float* uniforms, const float* normals,
                   const float* p, const Results<double>& results, void* stream) {
  return compose(settings, count, uniforms, normals, p, results, stream);
}

}  // namespace ada
