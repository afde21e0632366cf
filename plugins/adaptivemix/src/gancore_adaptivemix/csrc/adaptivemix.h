// AdaptiveMix of one element, for every processor.
//
// A row i of values is mixed with row order[i]: own[i] v_i + other[i] v_order[i]. The target t is such a mix of the
// features of the unmixed batch, a is a feature of the mixed sample; noise is on one of them.
#pragma once

#include <cstdint>

#include <gancore/number.h>

namespace adaptivemix {

// Values of `kind`: what is summed over a row.
enum : int64_t { kAbsolute, kSquare, kCosine };

constexpr int kMostSums = 3;

GAN_HD int sums_of(int64_t kind) { return kind == kCosine ? 3 : 1; }

template <typename W>
GAN_HD W mixed(W own, W value, W other, W partner) {
  return own * value + other * partner;
}

// Sum `index` of a row gains this: |a - t|; (a - t)^2; or a t, a a, t t.
template <int64_t kKind, typename W>
GAN_HD W term(int index, W a, W t) {
  W d = a - t;
  if (kKind == kAbsolute) return d < W(0) ? -d : d;
  if (kKind == kSquare) return d * d;
  return index == 0 ? a * t : index == 1 ? a * a : t * t;
}

// The gradient for a and for t, from that of the sums of the row.
template <typename W>
struct Pull {
  W a, t;
};

template <int64_t kKind, typename W>
GAN_HD Pull<W> pull(W a, W t, const W* by) {
  if (kKind == kCosine) return {by[0] * t + W(2) * by[1] * a, by[0] * a + W(2) * by[2] * t};
  W d = a - t;
  W slope = kKind == kSquare ? W(2) * d : d > W(0) ? W(1) : d < W(0) ? W(-1) : W(0);
  return {by[0] * slope, -(by[0] * slope)};
}

}  // namespace adaptivemix
