// Bias and activation on a GPU: an element a thread, or with sums a column of threads a channel.
#include "bias_act_cuda.h"

#include <gancore/number.cuh>

namespace core {
namespace {

constexpr int kThreads = 256;
constexpr int kColumns = 32;  // threads side by side where channels change from element to element
constexpr int kRows = kThreads / kColumns;
constexpr int64_t kMostParts = 64;

// Whether a channel's elements stand together, so that a block reads one channel.
bool in_rows(const Split& split) { return split.inner >= kColumns; }

template <typename T, template <typename> class Act, typename W>
__global__ void forward_kernel(Split split, Settings<W> s, const T* in, const W* bias, T* out) {
  int64_t count = split.outer * split.period(), step = int64_t(gridDim.x) * kThreads;
  for (int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x; i < count; i += step)
    out[i] = forward<T, Act>(in[i], bias ? bias[split.channel(i)] : W(0), s);
}

template <typename T, template <typename> class Act, typename W>
__device__ W backward_at(int64_t i, const Settings<W>& s, const T* gradient, const T* saved, W bias, T* out) {
  W value = backward<T, Act>(gradient[i], saved[i], bias, s);
  out[i] = gancore::Number<T>::store(value);
  return value;
}

template <typename T, template <typename> class Act, typename W>
__global__ void backward_kernel(Split split, Settings<W> s, const T* gradient, const T* saved, const W* bias,
                                T* out) {
  int64_t count = split.outer * split.period(), step = int64_t(gridDim.x) * kThreads;
  for (int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x; i < count; i += step)
    backward_at<T, Act>(i, s, gradient, saved, bias ? bias[split.channel(i)] : W(0), out);
}

// partial[part, channel]: a block goes along the elements of one channel.
template <typename T, template <typename> class Act, typename W>
__global__ void backward_rows_kernel(Split split, Settings<W> s, const T* gradient, const T* saved, const W* bias,
                                     T* out, double* partial) {
  __shared__ double shared[kThreads];
  int64_t c = blockIdx.x, count = split.outer * split.inner, step = int64_t(gridDim.y) * kThreads;
  W b = bias ? bias[c] : W(0);
  double total = 0;
  for (int64_t e = int64_t(blockIdx.y) * kThreads + threadIdx.x; e < count; e += step)
    total += backward_at<T, Act>(split.place(c, e), s, gradient, saved, b, out);
  shared[threadIdx.x] = total;
  for (int half = kThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.x < half) shared[threadIdx.x] += shared[threadIdx.x + half];
  }
  if (threadIdx.x == 0) partial[int64_t(blockIdx.y) * gridDim.x + c] = shared[0];
}

// partial[part, column]: a thread goes down one element of the period.
template <typename T, template <typename> class Act, typename W>
__global__ void backward_columns_kernel(Split split, Settings<W> s, const T* gradient, const T* saved,
                                        const W* bias, T* out, double* partial) {
  __shared__ double shared[kRows][kColumns];
  int64_t period = split.period(), column = int64_t(blockIdx.x) * kColumns + threadIdx.x;
  double total = 0;
  if (column < period) {
    W b = bias ? bias[split.channel(column)] : W(0);
    int64_t step = int64_t(gridDim.y) * kRows;
    for (int64_t row = int64_t(blockIdx.y) * kRows + threadIdx.y; row < split.outer; row += step)
      total += backward_at<T, Act>(row * period + column, s, gradient, saved, b, out);
  }
  shared[threadIdx.y][threadIdx.x] = total;
  __syncthreads();
  if (threadIdx.y != 0 || column >= period) return;
  total = 0;
  for (int row = 0; row < kRows; ++row) total += shared[row][threadIdx.x];
  partial[int64_t(blockIdx.y) * period + column] = total;
}

// One thread a channel: the same partial sums in the same order every time.
template <typename W>
__global__ void sum_kernel(int64_t channels, int64_t columns, int64_t parts, const double* partial, W* sums) {
  int64_t c = int64_t(blockIdx.x) * kThreads + threadIdx.x, each = columns / channels;
  if (c >= channels) return;
  double total = 0;
  for (int64_t part = 0; part < parts; ++part)
    for (int64_t r = 0; r < each; ++r) total += partial[part * columns + c * each + r];
  sums[c] = W(total);
}

unsigned blocks_for(int64_t count) {
  int64_t blocks = (count + kThreads - 1) / kThreads;
  return unsigned(blocks < 65536 ? blocks : 65536);
}

template <typename T, template <typename> class Act>
int run(const Epilogue& problem, const void* first, const void* saved, const void* bias, void* out, double* partial,
        void* sums, cudaStream_t stream) {
  using W = typename gancore::Number<T>::Wide;
  const Split& split = problem.split;
  Settings<W> s{W(problem.settings.alpha), W(problem.settings.gain), W(problem.settings.limit),
                W(problem.settings.edge)};
  const T* in = static_cast<const T*>(first);
  const T* known = static_cast<const T*>(saved);
  const W* b = static_cast<const W*>(bias);
  T* to = static_cast<T*>(out);
  unsigned blocks = blocks_for(split.outer * split.period());
  if (!known) {
    forward_kernel<T, Act><<<blocks, kThreads, 0, stream>>>(split, s, in, b, to);
  } else if (!sums) {
    backward_kernel<T, Act><<<blocks, kThreads, 0, stream>>>(split, s, in, known, b, to);
  } else {
    int64_t columns = columns_for(split), parts = parts_for(split);
    if (in_rows(split)) {
      dim3 grid(unsigned(columns), unsigned(parts), 1);
      backward_rows_kernel<T, Act><<<grid, kThreads, 0, stream>>>(split, s, in, known, b, to, partial);
    } else {
      dim3 grid(unsigned((columns + kColumns - 1) / kColumns), unsigned(parts), 1);
      dim3 block(kColumns, kRows, 1);
      backward_columns_kernel<T, Act><<<grid, block, 0, stream>>>(split, s, in, known, b, to, partial);
    }
    sum_kernel<<<blocks_for(split.channels), kThreads, 0, stream>>>(split.channels, columns, parts, partial,
                                                                     static_cast<W*>(sums));
  }
  return static_cast<int>(cudaGetLastError());
}

template <typename T>
int with_act(const Epilogue& problem, const void* first, const void* saved, const void* bias, void* out,
             double* partial, void* sums, cudaStream_t stream) {
  switch (problem.act) {
    case kPiecewise: return run<T, Piecewise>(problem, first, saved, bias, out, partial, sums, stream);
    case kTanh: return run<T, Tanh>(problem, first, saved, bias, out, partial, sums, stream);
    case kSigmoid: return run<T, Sigmoid>(problem, first, saved, bias, out, partial, sums, stream);
    case kElu: return run<T, Elu>(problem, first, saved, bias, out, partial, sums, stream);
    case kSoftplus: return run<T, Softplus>(problem, first, saved, bias, out, partial, sums, stream);
    default: return run<T, Swish>(problem, first, saved, bias, out, partial, sums, stream);
  }
}

int with_type(const Epilogue& problem, const void* first, const void* saved, const void* bias, void* out,
              double* partial, void* sums, void* stream) {
  auto on = static_cast<cudaStream_t>(stream);
  switch (problem.kind) {
    case Kind::kFloat: return with_act<float>(problem, first, saved, bias, out, partial, sums, on);
    case Kind::kDouble: return with_act<double>(problem, first, saved, bias, out, partial, sums, on);
    case Kind::kBFloat16: return with_act<__nv_bfloat16>(problem, first, saved, bias, out, partial, sums, on);
    default: return with_act<__half>(problem, first, saved, bias, out, partial, sums, on);
  }
}

}  // namespace

int64_t columns_for(const Split& split) { return in_rows(split) ? split.channels : split.period(); }

int64_t parts_for(const Split& split) {
  int64_t threads = in_rows(split) ? split.outer * split.inner / kThreads : split.outer / kRows;
  int64_t parts = (threads + 7) / 8;  // about eight elements a thread at least
  return parts < 1 ? 1 : parts < kMostParts ? parts : kMostParts;
}

int launch_forward(const Epilogue& problem, const void* in, const void* bias, void* out, void* stream) {
  return with_type(problem, in, nullptr, bias, out, nullptr, nullptr, stream);
}

int launch_backward(const Epilogue& problem, const void* gradient, const void* saved, const void* bias, void* out,
                    double* partial, void* sums, void* stream) {
  return with_type(problem, gradient, saved, bias, out, partial, sums, stream);
}

}  // namespace core
