// float16 and bfloat16 in CUDA.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <gancore/number.h>

namespace gancore {

template <>
struct Number<__half> {
  using Wide = float;
  static __device__ __forceinline__ float load(__half value) { return __half2float(value); }
  static __device__ __forceinline__ __half store(float value) { return __float2half_rn(value); }
};

template <>
struct Number<__nv_bfloat16> {
  using Wide = float;
  static __device__ __forceinline__ float load(__nv_bfloat16 value) { return __bfloat162float(value); }
  static __device__ __forceinline__ __nv_bfloat16 store(float value) { return __float2bfloat16_rn(value); }
};

}  // namespace gancore
