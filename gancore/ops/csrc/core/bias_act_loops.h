// The loops of bias_act on the CPU over a stretch of memory, for every type and activation.
#pragma once

#include "activation.h"

#include <gancore/half.h>

#include <algorithm>
#include <type_traits>

namespace core {
namespace {

using gancore::Bf16;
using torch::headeronly::Half;

constexpr int64_t kBlock = 1024;  // elements that biases are laid out for, or that are converted at once
constexpr int kLanes = 32;

// Loops over a stretch of memory as functions of their own, so that each is compiled for several processors. A tile
// has a bias an element, a row has one for all. `sums` gains the gradient of every element, before it is rounded; in
// a loop of its own, which is faster than one that does both.
template <typename T, template <typename> class Act>
struct Tile {
  static constexpr bool kThere = false;
};

#define TILE(T, NAME, ACT)                                                                                        \
  GAN_CLONES void tile_##NAME##ACT(T* __restrict out, const T* __restrict in,                                     \
                                   const gancore::Number<T>::Wide* __restrict bias, int64_t n,                    \
                                   Settings<gancore::Number<T>::Wide> s) {                                        \
    for (int64_t i = 0; i < n; ++i) out[i] = forward<T, ACT>(in[i], bias[i], s);                                  \
  }                                                                                                               \
  GAN_CLONES void tile_back_##NAME##ACT(gancore::Number<T>::Wide* __restrict out, const T* __restrict gradient,   \
                                        const T* __restrict saved,                                                \
                                        const gancore::Number<T>::Wide* __restrict bias, int64_t n,               \
                                        Settings<gancore::Number<T>::Wide> s) {                                   \
    for (int64_t i = 0; i < n; ++i) out[i] = backward<T, ACT>(gradient[i], saved[i], bias[i], s);                 \
  }                                                                                                               \
  template <>                                                                                                     \
  struct Tile<T, ACT> {                                                                                           \
    static constexpr bool kThere = true;                                                                          \
    static constexpr auto forward = tile_##NAME##ACT;                                                             \
    static constexpr auto backward = tile_back_##NAME##ACT;                                                       \
  };

#define TILES(ACT)       \
  TILE(float, f32, ACT)  \
  TILE(double, f64, ACT)

TILES(Piecewise)
TILES(Tanh)
TILES(Sigmoid)
TILES(Elu)
TILES(Softplus)
TILES(Swish)
TILE(Bf16, bf16, Piecewise)

// Rows, where memory and not arithmetic is what takes time.
template <typename T>
struct Row {
  static constexpr bool kThere = false;
};

#define ROW(T, NAME)                                                                                              \
  GAN_CLONES void row_##NAME(T* __restrict out, const T* __restrict in, gancore::Number<T>::Wide bias, int64_t n, \
                             Settings<gancore::Number<T>::Wide> s) {                                              \
    for (int64_t i = 0; i < n; ++i) out[i] = forward<T, Piecewise>(in[i], bias, s);                               \
  }                                                                                                               \
  GAN_CLONES double row_back_##NAME(T* __restrict out, const T* __restrict gradient, const T* __restrict saved,   \
                                    int64_t n, Settings<gancore::Number<T>::Wide> s) {                            \
    using W = gancore::Number<T>::Wide;                                                                           \
    W parts[kLanes] = {};                                                                                         \
    int64_t i = 0;                                                                                                \
    for (; i + kLanes <= n; i += kLanes) {                                                                        \
      for (int l = 0; l < kLanes; ++l) {                                                                          \
        W value = backward<T, Piecewise>(gradient[i + l], saved[i + l], W(0), s);                                 \
        parts[l] += value;                                                                                        \
        out[i + l] = gancore::Number<T>::store(value);                                                            \
      }                                                                                                           \
    }                                                                                                             \
    double total = 0;                                                                                             \
    for (int l = 0; l < kLanes; ++l) total += parts[l];                                                           \
    for (; i < n; ++i) {                                                                                          \
      W value = backward<T, Piecewise>(gradient[i], saved[i], W(0), s);                                           \
      total += value;                                                                                             \
      out[i] = gancore::Number<T>::store(value);                                                                  \
    }                                                                                                             \
    return total;                                                                                                 \
  }                                                                                                               \
  template <>                                                                                                     \
  struct Row<T> {                                                                                                 \
    static constexpr bool kThere = true;                                                                          \
    static constexpr auto forward = row_##NAME;                                                                   \
    static constexpr auto backward = row_back_##NAME;                                                             \
  };

ROW(float, f32)
ROW(double, f64)
ROW(Bf16, bf16)

#define ADD(W, NAME)                                                                             \
  GAN_CLONES void add_##NAME(W* __restrict sums, const W* __restrict in, int64_t n) {            \
    for (int64_t i = 0; i < n; ++i) sums[i] += in[i];                                            \
  }                                                                                              \
  inline void add(W* sums, const W* in, int64_t n) { add_##NAME(sums, in, n); }

ADD(float, f32)
ADD(double, f64)

#define CONVERT(T, NAME)                                                                         \
  GAN_CLONES void load_##NAME(float* __restrict out, const T* __restrict in, int64_t n) {        \
    for (int64_t i = 0; i < n; ++i) out[i] = gancore::Number<T>::load(in[i]);                    \
  }                                                                                              \
  GAN_CLONES void store_##NAME(T* __restrict out, const float* __restrict in, int64_t n) {       \
    for (int64_t i = 0; i < n; ++i) out[i] = gancore::Number<T>::store(in[i]);                   \
  }                                                                                              \
  inline void load(float* out, const T* in, int64_t n) { load_##NAME(out, in, n); }              \
  inline void store(T* out, const float* in, int64_t n) { store_##NAME(out, in, n); }

CONVERT(Bf16, bf16)
CONVERT(Half, f16)

// One type and activation: by its own loops, or by those of float and of tiles.
template <typename T, template <typename> class Act>
struct Loops {
  using T_ = T;
  using W = typename gancore::Number<T>::Wide;
  static constexpr bool kRows = Row<T>::kThere && Act<W>::kKeepsOutput;

  static void tile(T* out, const T* in, const W* bias, int64_t n, const Settings<W>& s) {
    if constexpr (Tile<T, Act>::kThere) {
      Tile<T, Act>::forward(out, in, bias, n, s);
    } else {
      float given[kBlock], made[kBlock];
      for (int64_t i = 0; i < n; i += kBlock) {
        int64_t m = std::min(kBlock, n - i);
        load(given, in + i, m);
        Tile<float, Act>::forward(made, given, bias + i, m, s);
        store(out + i, made, m);
      }
    }
  }

  // `sums` may be null.
  static void tile_back(T* out, W* sums, const T* gradient, const T* saved, const W* bias, int64_t n,
                        const Settings<W>& s) {
    for (int64_t i = 0; i < n; i += kBlock) {
      int64_t m = std::min(kBlock, n - i);
      if constexpr (std::is_same_v<T, W>) {
        Tile<T, Act>::backward(out + i, gradient + i, saved + i, bias + i, m, s);
        if (sums) add(sums + i, out + i, m);
      } else {
        float made[kBlock];
        if constexpr (Tile<T, Act>::kThere) {
          Tile<T, Act>::backward(made, gradient + i, saved + i, bias + i, m, s);
        } else {
          float given[kBlock], known[kBlock];
          load(given, gradient + i, m);
          load(known, saved + i, m);
          Tile<float, Act>::backward(made, given, known, bias + i, m, s);
        }
        if (sums) add(sums + i, made, m);
        store(out + i, made, m);
      }
    }
  }

  // At most kBlock elements.
  static void row(T* out, const T* in, W bias, int64_t n, const Settings<W>& s) {
    if constexpr (kRows) {
      Row<T>::forward(out, in, bias, n, s);
    } else {
      W biases[kBlock];
      std::fill_n(biases, n, bias);
      tile(out, in, biases, n, s);
    }
  }

  static double row_back(T* out, const T* gradient, const T* saved, W bias, int64_t n, const Settings<W>& s) {
    if constexpr (kRows) {
      return Row<T>::backward(out, gradient, saved, n, s);
    } else {
      W biases[kBlock], sums[kBlock] = {};
      std::fill_n(biases, n, bias);
      tile_back(out, sums, gradient, saved, biases, n, s);
      double total = 0;
      for (int64_t i = 0; i < n; ++i) total += sums[i];
      return total;
    }
  }
};

}  // namespace
}  // namespace core
