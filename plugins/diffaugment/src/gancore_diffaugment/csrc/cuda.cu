// DiffAugment on a GPU: partial sums of each image where contrast needs its mean, then one pass.
#include "cuda.h"
#include "diffaugment.h"

#include <gancore/number.cuh>

namespace diffaugment {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kMostRows = 65535;  // of a grid

template <typename T>
__device__ typename gancore::Number<T>::Wide value_at(const T* image, const Problem& problem, int64_t c,
                                                      int64_t row, int64_t column) {
  int64_t pixel = row * problem.width + column;
  int64_t at = problem.last ? pixel * problem.channels + c : c * problem.height * problem.width + pixel;
  return gancore::Number<T>::load(image[at]);
}

template <typename W>
__device__ Map<W> map_for(const Problem& problem, const double* colour, const int64_t* place, int64_t b) {
  W uniform[3] = {W(colour[3 * b]), W(colour[3 * b + 1]), W(colour[3 * b + 2])};
  return map_of<W>(uniform, place + 4 * b, W(problem.brightness), W(problem.saturation), W(problem.contrast),
                   problem.cut_rows, problem.cut_columns, problem.spatial, problem.transposed, problem.offset);
}

// sums[b, part]: the same threads add the same elements in the same order every time.
template <typename T>
__global__ void sum_kernel(Problem problem, const T* in, const double* colour, const int64_t* place, double* sums) {
  using W = typename gancore::Number<T>::Wide;
  __shared__ double shared[kThreads];
  int64_t pixels = problem.height * problem.width;
  for (int64_t b = blockIdx.y; b < problem.count; b += gridDim.y) {
    const T* image = in + b * problem.channels * pixels;
    Map<W> map = map_for<W>(problem, colour, place, b);
    double total = 0;
    for (int64_t p = int64_t(blockIdx.x) * kThreads + threadIdx.x; p < pixels; p += int64_t(gridDim.x) * kThreads) {
      int64_t row = p / problem.width, column = p % problem.width;
      if (!map.first.holds(row, column, problem.height, problem.width)) continue;
      for (int64_t c = 0; c < problem.channels; ++c)
        total += value_at(image, problem, c, row + map.first.rows, column + map.first.columns);
    }
    shared[threadIdx.x] = total;
    for (int half = kThreads / 2; half > 0; half /= 2) {
      __syncthreads();
      if (threadIdx.x < half) shared[threadIdx.x] += shared[threadIdx.x + half];
    }
    if (threadIdx.x == 0) sums[b * kParts + blockIdx.x] = shared[0];
    __syncthreads();
  }
}

template <typename T>
__device__ void affine_image(const Problem& problem, const T* in, T* out, const double* colour,
                             const int64_t* place, const double* sums, int64_t b) {
  using N = gancore::Number<T>;
  using W = typename N::Wide;
  int64_t pixels = problem.height * problem.width;
  const T* image = in + b * problem.channels * pixels;
  T* result = out + b * problem.channels * pixels;
  Map<W> map = map_for<W>(problem, colour, place, b);
  W constant = map.offset;
  if (map.mean != W(0)) {
    double total = 0;
    for (int part = 0; part < kParts; ++part) total += sums[b * kParts + part];
    constant += map.mean * W(total / double(problem.channels * pixels));
  }
  W share = map.grey / W(problem.channels);
  for (int64_t p = int64_t(blockIdx.x) * kThreads + threadIdx.x; p < pixels; p += int64_t(gridDim.x) * kThreads) {
    int64_t row = p / problem.width, column = p % problem.width;
    bool shown = map.second.holds(row, column, problem.height, problem.width);
    row += map.second.rows;
    column += map.second.columns;
    bool taken = shown && map.first.holds(row, column, problem.height, problem.width);
    row += map.first.rows;
    column += map.first.columns;
    W rest = shown ? constant : W(0);
    if (taken && map.grey != W(0)) {
      W total = 0;
      for (int64_t c = 0; c < problem.channels; ++c) total += value_at(image, problem, c, row, column);
      rest += share * total;
    }
    for (int64_t c = 0; c < problem.channels; ++c) {
      W value = taken ? map.own * value_at(image, problem, c, row, column) + rest : rest;
      result[problem.last ? p * problem.channels + c : c * pixels + p] = N::store(value);
    }
  }
}

template <typename T>
__global__ void affine_kernel(Problem problem, const T* in, T* out, const double* colour, const int64_t* place,
                              const double* sums) {
  for (int64_t b = blockIdx.y; b < problem.count; b += gridDim.y)
    affine_image(problem, in, out, colour, place, sums, b);
}

template <typename T>
int run(const Problem& problem, const void* in, void* out, const double* colour, const int64_t* place, double* sums,
        cudaStream_t stream) {
  int64_t blocks = (problem.height * problem.width + kThreads - 1) / kThreads;
  auto images = unsigned(problem.count < kMostRows ? problem.count : kMostRows);
  dim3 grid(unsigned(blocks < 1024 ? blocks : 1024), images);
  const T* from = static_cast<const T*>(in);
  if (problem.contrast != 0)
    sum_kernel<T><<<dim3(kParts, images), kThreads, 0, stream>>>(problem, from, colour, place, sums);
  affine_kernel<T><<<grid, kThreads, 0, stream>>>(problem, from, static_cast<T*>(out), colour, place, sums);
  return static_cast<int>(cudaGetLastError());
}

}  // namespace

int launch(const Problem& problem, const void* in, void* out, const double* colour, const int64_t* place,
           double* sums, void* stream) {
  auto on = static_cast<cudaStream_t>(stream);
  switch (problem.kind) {
    case Kind::kFloat: return run<float>(problem, in, out, colour, place, sums, on);
    case Kind::kDouble: return run<double>(problem, in, out, colour, place, sums, on);
    case Kind::kBFloat16: return run<__nv_bfloat16>(problem, in, out, colour, place, sums, on);
    default: return run<__half>(problem, in, out, colour, place, sums, on);
  }
}

}  // namespace diffaugment
