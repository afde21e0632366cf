// Activations and their slopes, for every processor.
//
// The functions are their own, not those of the C library: they are loops' bodies without calls, which compilers
// vectorise, and give the same bits on a CPU and on a GPU. Errors are a few units in the last place.
#pragma once

#include <cstdint>
#include <cstring>

#include <gancore/number.h>

// Without this the inliner of g++ gives up on so many activations, and their loops are not vectorised.
#if defined(__CUDACC__)
#define CORE_HD GAN_HD
#else
#define CORE_HD GAN_HD __attribute__((always_inline))
#endif

namespace core {

template <typename W>
struct Format;

template <>
struct Format<float> {
  using Bits = int32_t;
  static constexpr int kMantissa = 23, kBias = 127, kExpTerms = 7, kLogTerms = 8;
  static constexpr float kShift = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  static constexpr float kRange = 80.0f;
  static constexpr float kLn2High = 0.693359375f, kLn2Low = -2.12194440e-4f;
};

template <>
struct Format<double> {
  using Bits = int64_t;
  static constexpr int kMantissa = 52, kBias = 1023, kExpTerms = 14, kLogTerms = 17;
  static constexpr double kShift = 6755399441055744.0;  // 1.5 * 2^52
  static constexpr double kRange = 700.0;
  static constexpr double kLn2High = 6.93147180369123816490e-01, kLn2Low = 1.90821492927058770002e-10;
};

// (e^r - 1) / r = 1 + r/2 (1 + r/3 (1 + ...)), from term K on. Series are written as recursions, since a loop inside
// of a loop keeps compilers from vectorising the outer one.
template <typename W, int K = 2>
CORE_HD W exponential_series(W r) {
  if constexpr (K > Format<W>::kExpTerms) {
    return W(1);
  } else {
    return W(1) + r * (W(1) / W(K)) * exponential_series<W, K + 1>(r);
  }
}

// artanh(z) / z = 1 + z^2/3 + z^4/5 + ..., from term K on.
template <typename W, int K = 0>
CORE_HD W artanh_series(W square) {
  if constexpr (K > Format<W>::kLogTerms) {
    return W(0);
  } else {
    return W(1) / W(2 * K + 1) + square * artanh_series<W, K + 1>(square);
  }
}

// e^x = scale * (1 + rest), with scale a power of two. x is limited, so that neither e^x nor its inverse comes near
// subnormal numbers, which are slow; NaN stays NaN.
template <typename W>
struct Power {
  W scale, rest;
};

template <typename W>
CORE_HD Power<W> power_of_e(W x) {
  using F = Format<W>;
  using Bits = typename F::Bits;
  x = x < -F::kRange ? -F::kRange : x > F::kRange ? F::kRange : x;
  W shifted = x * W(1.44269504088896340736) + F::kShift;
  W whole = shifted - F::kShift;
  W r = (x - whole * F::kLn2High) - whole * F::kLn2Low;  // in [-ln2 / 2, ln2 / 2]
  Bits bits, zero;
  W shift = F::kShift;
  memcpy(&bits, &shifted, sizeof bits);
  memcpy(&zero, &shift, sizeof zero);
  bits = static_cast<Bits>((bits - zero + F::kBias) << F::kMantissa);
  Power<W> found;
  memcpy(&found.scale, &bits, sizeof bits);
  found.rest = r * exponential_series(r);
  return found;
}

template <typename W>
CORE_HD W exponential(W x) {
  Power<W> e = power_of_e(x);
  return e.scale + e.scale * e.rest;
}

// e^x - 1 without loss near 0.
template <typename W>
CORE_HD W exponential_less_one(W x) {
  Power<W> e = power_of_e(x);
  return e.scale * e.rest + (e.scale - W(1));
}

// log(1 + e) for e in [0, 1]: 2 artanh(z) with z = e / (2 + e) <= 1/3.
template <typename W>
CORE_HD W log_one_plus(W e) {
  W z = e / (W(2) + e);
  return W(2) * z * artanh_series(z * z);
}

template <typename W>
CORE_HD W logistic(W u) {
  return W(1) / (W(1) + exponential(-u));
}

// What an operation is told. `edge` is the least number that is stored as `limit`, in the type of the values. Both
// are NaN where nothing is clamped: no comparison with NaN holds.
template <typename W>
struct Settings {
  W alpha, gain, limit, edge;
};

// An activation at u: its value and its slope.
template <typename W>
struct Point {
  W value, slope;
};

// u, below 0 alpha u: linear (alpha 1), relu (0), lrelu. It keeps the output y for the backward pass: for gain > 0
// and alpha >= 0 the sign of y is that of u. The others keep x.
template <typename W>
struct Piecewise {
  static constexpr bool kKeepsOutput = true;
  static CORE_HD Point<W> at(W u, const Settings<W>& s) {
    W below = s.alpha == W(0) ? W(0) : u * s.alpha;  // infinity times 0 is NaN
    return {u < W(0) ? below : u, u > W(0) ? W(1) : s.alpha};
  }
};

template <typename W>
struct Tanh {
  static constexpr bool kKeepsOutput = false;
  static CORE_HD Point<W> at(W u, const Settings<W>&) {
    W e = exponential_less_one(W(2) * u);
    W t = e / (e + W(2));
    return {t, W(1) - t * t};
  }
};

template <typename W>
struct Sigmoid {
  static constexpr bool kKeepsOutput = false;
  static CORE_HD Point<W> at(W u, const Settings<W>&) {
    W l = logistic(u);
    return {l, l * (W(1) - l)};
  }
};

// elu, and selu as one with its own alpha and gain.
template <typename W>
struct Elu {
  static constexpr bool kKeepsOutput = false;
  static CORE_HD Point<W> at(W u, const Settings<W>& s) {
    W below = s.alpha * exponential_less_one(u);
    return {u > W(0) ? u : below, u > W(0) ? W(1) : below + s.alpha};
  }
};

template <typename W>
struct Softplus {
  static constexpr bool kKeepsOutput = false;
  static CORE_HD Point<W> at(W u, const Settings<W>&) {
    W e = exponential(u < W(0) ? u : -u);
    W above = u > W(0) ? u : W(0);
    return {above + log_one_plus(e), (u > W(0) ? W(1) : e) / (W(1) + e)};
  }
};

template <typename W>
struct Swish {
  static constexpr bool kKeepsOutput = false;
  static CORE_HD Point<W> at(W u, const Settings<W>&) {
    W l = logistic(u);
    W y = (u < -Format<W>::kRange ? -Format<W>::kRange : u) * l;  // l is limited too, and y goes to 0
    return {y, l + y * (W(1) - l)};
  }
};

// One element forwards. The demodulation and the noise of StyleGAN2 would enter here: u = x * scale[b, c] + noise
// + bias, with their own sums backwards.
template <typename T, template <typename> class Act>
CORE_HD T forward(T x, typename gancore::Number<T>::Wide bias,
                 const Settings<typename gancore::Number<T>::Wide>& s) {
  using N = gancore::Number<T>;
  using W = typename N::Wide;
  W y = Act<W>::at(N::load(x) + bias, s).value * s.gain;
  y = y >= s.limit ? s.limit : y <= -s.limit ? -s.limit : y;
  return N::store(y);
}

// One element backwards: gradient * gain * slope, 0 where the output is clamped. `saved` is y or x.
template <typename T, template <typename> class Act>
CORE_HD typename gancore::Number<T>::Wide backward(T gradient, T saved, typename gancore::Number<T>::Wide bias,
                                                  const Settings<typename gancore::Number<T>::Wide>& s) {
  using N = gancore::Number<T>;
  using W = typename N::Wide;
  W u = N::load(saved) + (Act<W>::kKeepsOutput ? W(0) : bias);
  Point<W> found = Act<W>::at(u, s);
  W y = Act<W>::kKeepsOutput ? u : found.value * s.gain;
  W result = N::load(gradient) * s.gain * found.slope;
  bool clamped = (y >= s.edge) | (y <= -s.edge);  // both compared: a branch is not vectorised
  return clamped ? W(0) : result;
}

// Values of `kind`.
enum : int64_t { kPiecewise, kTanh, kSigmoid, kElu, kSoftplus, kSwish };

}  // namespace core
