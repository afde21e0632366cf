// Numbers of every type that operations take, as values that arithmetic is done in.
//
// On the CPU a bfloat16 is converted with integer operations, which compilers vectorise; the conversions of the
// class do not. Rounding is to nearest, ties to even, as torch rounds.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__CUDACC__)
#define GAN_HD __host__ __device__ __forceinline__
#else
#define GAN_HD inline
#endif

// The hot loops are compiled for several x86 processors, and the best one is taken when the library is loaded.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__CUDACC__)
#define GAN_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define GAN_CLONES
#endif

namespace gancore {

// A bfloat16 by its bits.
struct Bf16 {
  uint16_t bits;
};

// Value <-> number of arithmetic, for each stored type.
template <typename T>
struct Number {
  using Wide = T;
  static GAN_HD T load(T value) { return value; }
  static GAN_HD T store(T value) { return value; }
};

template <>
struct Number<Bf16> {
  using Wide = float;
  static GAN_HD float load(Bf16 value) {
    uint32_t bits = static_cast<uint32_t>(value.bits) << 16;
    float out;
    memcpy(&out, &bits, sizeof out);
    return out;
  }
  static GAN_HD Bf16 store(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    bool is_nan = (bits & 0x7fffffffu) > 0x7f800000u;
    return Bf16{static_cast<uint16_t>(is_nan ? 0x7fc0u : rounded)};
  }
};

}  // namespace gancore
