// AdaptiveMix on a GPU: an element a thread; sums of a row in parts, the same threads in the same order every time.
#include "adaptivemix.h"
#include "cuda.h"

#include <gancore/number.cuh>

namespace adaptivemix {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kMostRows = 65535;  // of a grid

template <typename T>
using WideOf = typename gancore::Number<T>::Wide;

template <typename W>
__device__ W not_a_number() {
  return W(nan(""));
}

template <typename T>
__device__ WideOf<T> mixed_at(const Problem& p, int64_t row, int64_t at) {
  using N = gancore::Number<T>;
  using W = typename N::Wide;
  const T* values = static_cast<const T*>(p.features);
  int64_t partner = p.order[row];
  if (partner < 0 || partner >= p.count) return not_a_number<W>();
  return mixed(W(p.own[row]), N::load(values[row * p.size + at]), W(p.other[row]),
               N::load(values[partner * p.size + at]));
}

template <typename T>
__device__ Pull<WideOf<T>> pair_at(const Problem& p, int64_t row, int64_t at) {
  using N = gancore::Number<T>;
  using W = typename N::Wide;
  Pull<W> found{N::load(static_cast<const T*>(p.of_mixed)[row * p.size + at]), mixed_at<T>(p, row, at)};
  if (p.noise) {
    W noise = N::load(static_cast<const T*>(p.noise)[row * p.size + at]);
    (p.noisy_target ? found.t : found.a) += noise;
  }
  return found;
}

template <typename T>
__global__ void mix_kernel(Problem p, T* out) {
  for (int64_t row = blockIdx.y; row < p.count; row += gridDim.y)
    for (int64_t at = int64_t(blockIdx.x) * kThreads + threadIdx.x; at < p.size; at += int64_t(gridDim.x) * kThreads)
      out[row * p.size + at] = gancore::Number<T>::store(mixed_at<T>(p, row, at));
}

template <typename T, int64_t kKind>
__global__ void distances_kernel(Problem p, double* partial) {
  __shared__ double shared[kThreads];
  int sums = sums_of(kKind);
  for (int64_t row = blockIdx.y; row < p.count; row += gridDim.y) {
    double totals[kMostSums] = {};
    for (int64_t at = int64_t(blockIdx.x) * kThreads + threadIdx.x; at < p.size; at += int64_t(kParts) * kThreads) {
      Pull<WideOf<T>> found = pair_at<T>(p, row, at);
      for (int s = 0; s < sums; ++s) totals[s] += term<kKind>(s, found.a, found.t);
    }
    for (int s = 0; s < sums; ++s) {
      shared[threadIdx.x] = totals[s];
      for (int half = kThreads / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) shared[threadIdx.x] += shared[threadIdx.x + half];
      }
      if (threadIdx.x == 0) partial[(row * kParts + blockIdx.x) * sums + s] = shared[0];
      __syncthreads();
    }
  }
}

__global__ void sum_kernel(int64_t count, int sums, const double* partial, double* out) {
  int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= count * sums) return;
  double total = 0;
  for (int part = 0; part < kParts; ++part) total += partial[(i / sums * kParts + part) * sums + i % sums];
  out[i] = total;
}

template <typename T, int64_t kKind>
__device__ Pull<WideOf<T>> pull_at(const Problem& p, const double* gradient, int64_t row, int64_t at) {
  using W = WideOf<T>;
  int sums = sums_of(kKind);
  W by[kMostSums] = {};
  for (int s = 0; s < sums; ++s) by[s] = W(gradient[row * sums + s]);
  Pull<W> found = pair_at<T>(p, row, at);
  return pull<kKind>(found.a, found.t, by);
}

// Every element gathers what flows into it: from its own row, and from the row that it is mixed into.
template <typename T, int64_t kKind>
__global__ void gradient_kernel(Problem p, const double* gradient, T* of_features, T* of_mixed) {
  using N = gancore::Number<T>;
  using W = typename N::Wide;
  for (int64_t row = blockIdx.y; row < p.count; row += gridDim.y) {
    for (int64_t at = int64_t(blockIdx.x) * kThreads + threadIdx.x; at < p.size;
         at += int64_t(gridDim.x) * kThreads) {
      Pull<W> found = pull_at<T, kKind>(p, gradient, row, at);
      of_mixed[row * p.size + at] = N::store(found.a);
      if (!of_features) continue;
      int64_t into = p.inverse[row];
      Pull<W> other = pull_at<T, kKind>(p, gradient, into, at);
      of_features[row * p.size + at] = N::store(mixed(W(p.own[row]), found.t, W(p.other[into]), other.t));
    }
  }
}

dim3 grid_for(const Problem& p, int64_t most) {
  int64_t blocks = (p.size + kThreads - 1) / kThreads;
  return dim3(unsigned(blocks < most ? blocks : most), unsigned(p.count < kMostRows ? p.count : kMostRows), 1);
}

template <typename T, typename F>
void with_kind(int64_t kind, const F& run) {
  if (kind == kAbsolute) {
    run.template operator()<T, kAbsolute>();
  } else if (kind == kSquare) {
    run.template operator()<T, kSquare>();
  } else {
    run.template operator()<T, kCosine>();
  }
}

template <typename F>
int with_type(const Problem& p, const F& run) {
  switch (p.type) {
    case Kind::kFloat: with_kind<float>(p.kind, run); break;
    case Kind::kDouble: with_kind<double>(p.kind, run); break;
    case Kind::kBFloat16: with_kind<__nv_bfloat16>(p.kind, run); break;
    case Kind::kHalf: with_kind<__half>(p.kind, run); break;
  }
  return static_cast<int>(cudaGetLastError());
}

struct Mix {
  const Problem& p;
  void* out;
  cudaStream_t stream;
  template <typename T, int64_t kKind>
  void operator()() const {
    mix_kernel<T><<<grid_for(p, 1024), kThreads, 0, stream>>>(p, static_cast<T*>(out));
  }
};

struct Distances {
  const Problem& p;
  double* partial;
  cudaStream_t stream;
  template <typename T, int64_t kKind>
  void operator()() const {
    dim3 grid(kParts, grid_for(p, 1).y, 1);
    distances_kernel<T, kKind><<<grid, kThreads, 0, stream>>>(p, partial);
  }
};

struct Gradient {
  const Problem& p;
  const double* gradient;
  void *of_features, *of_mixed;
  cudaStream_t stream;
  template <typename T, int64_t kKind>
  void operator()() const {
    gradient_kernel<T, kKind><<<grid_for(p, 1024), kThreads, 0, stream>>>(
        p, gradient, static_cast<T*>(of_features), static_cast<T*>(of_mixed));
  }
};

}  // namespace

int launch_mix(const Problem& problem, void* out, void* stream) {
  return with_type(problem, Mix{problem, out, static_cast<cudaStream_t>(stream)});
}

int launch_distances(const Problem& problem, double* partial, double* sums, void* stream) {
  auto on = static_cast<cudaStream_t>(stream);
  int error = with_type(problem, Distances{problem, partial, on});
  if (error != 0) return error;
  int each = sums_of(problem.kind);
  auto blocks = unsigned((problem.count * each + kThreads - 1) / kThreads);
  sum_kernel<<<blocks, kThreads, 0, on>>>(problem.count, each, partial, sums);
  return static_cast<int>(cudaGetLastError());
}

int launch_gradient(const Problem& problem, const double* gradient, void* of_features, void* of_mixed,
                    void* stream) {
  return with_type(problem, Gradient{problem, gradient, of_features, of_mixed, static_cast<cudaStream_t>(stream)});
}

}  // namespace adaptivemix
