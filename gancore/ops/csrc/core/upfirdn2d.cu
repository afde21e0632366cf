// Resampling on a GPU: one thread an output; for long separable filters rows first, then columns.
#include "upfirdn2d_cuda.h"

#include <gancore/number.cuh>

namespace core {
namespace {

constexpr int kThreads = 256;

template <typename In, typename Out, typename W>
__global__ void resample_kernel(Axis x, Axis y, int64_t planes, int64_t inner, const In* in, Out* out,
                                const W* across, const W* down, bool separable, bool flip, W gain) {
  int64_t count = planes * y.out * x.out * inner, step = int64_t(gridDim.x) * kThreads;
  for (int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x; i < count; i += step) {
    int64_t c = i % inner, pixel = i / inner;
    int64_t column = pixel % x.out, row = pixel / x.out % y.out, plane = pixel / x.out / y.out;
    W value = resampled(in + plane * y.in * x.in * inner + c, x, y, inner, row, column, across, down, separable, flip);
    out[i] = gancore::Number<Out>::store(gain * value);
  }
}

unsigned blocks_for(int64_t count) {
  int64_t blocks = (count + kThreads - 1) / kThreads;
  return unsigned(blocks < 65536 ? blocks : 65536);
}

template <typename T>
int run(const Resampling& p, const void* in, const void* taps, void* rows, void* out, cudaStream_t stream) {
  using W = typename gancore::Number<T>::Wide;
  const T* from = static_cast<const T*>(in);
  const W* f = static_cast<const W*>(taps);
  T* to = static_cast<T*>(out);
  unsigned blocks = blocks_for(p.planes * p.y.out * p.x.out * p.inner);
  if (!rows) {
    resample_kernel<T, T, W><<<blocks, kThreads, 0, stream>>>(p.x, p.y, p.planes, p.inner, from, to, f,
                                                              p.separable ? f : nullptr, p.separable, p.flip,
                                                              W(p.gain));
    return static_cast<int>(cudaGetLastError());
  }
  W* middle = static_cast<W*>(rows);
  const W* one = nullptr;
  Axis all_rows{p.y.in, p.y.in, 1, 1, 0, 1}, all_columns{p.x.out, p.x.out, 1, 1, 0, 1};
  unsigned first = blocks_for(p.planes * p.y.in * p.x.out * p.inner);
  resample_kernel<T, W, W><<<first, kThreads, 0, stream>>>(p.x, all_rows, p.planes, p.inner, from, middle, f, one,
                                                           true, p.flip, W(1));
  resample_kernel<W, T, W><<<blocks, kThreads, 0, stream>>>(all_columns, p.y, p.planes, p.inner, middle, to, one, f,
                                                            true, p.flip, W(p.gain));
  return static_cast<int>(cudaGetLastError());
}

}  // namespace

int launch(const Resampling& problem, const void* in, const void* taps, void* rows, void* out, void* stream) {
  auto on = static_cast<cudaStream_t>(stream);
  switch (problem.kind) {
    case Kind::kFloat: return run<float>(problem, in, taps, rows, out, on);
    case Kind::kDouble: return run<double>(problem, in, taps, rows, out, on);
    case Kind::kBFloat16: return run<__nv_bfloat16>(problem, in, taps, rows, out, on);
    default: return run<__half>(problem, in, taps, rows, out, on);
  }
}

}  // namespace core
