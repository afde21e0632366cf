// Indices of resampling along one side, for every processor.
//
// Output o covers the positions o * down - before + k, k = 0 ... taps - 1, of the input with zeros between the
// samples: sample i lies at i * up. Only every up-th tap meets a sample.
#pragma once

#include <cstdint>

#include <gancore/number.h>

namespace core {

struct Axis {
  int64_t in, out, up, down, before, taps;

  // The first tap of output o that meets a sample (or padding where one would be).
  GAN_HD int64_t first_tap(int64_t o) const {
    int64_t rest = (before - o * down) % up;
    return rest < 0 ? rest + up : rest;
  }

  // The sample that this tap meets: below 0 or beyond the input in the padding. The next taps, up apart, meet the
  // next samples.
  GAN_HD int64_t first_sample(int64_t o) const { return (o * down - before + first_tap(o)) / up; }

  // How many taps meet samples, padding included.
  GAN_HD int64_t count(int64_t o) const {
    int64_t first = first_tap(o);
    return first < taps ? (taps - first - 1) / up + 1 : 0;
  }
};

// Where tap k of a filter lies, for a convolution or a correlation.
GAN_HD int64_t tap_at(int64_t k, int64_t taps, bool flip) { return flip ? k : taps - 1 - k; }

// The taps of one output that meet samples of the image, in order: samples [begin, end), taps from `tap` on.
struct Met {
  int64_t begin, end, tap;

  GAN_HD Met(const Axis& axis, int64_t o) {
    int64_t first = axis.first_sample(o);
    begin = first < 0 ? 0 : first;
    end = first + axis.count(o);
    if (end > axis.in) end = axis.in;
    tap = axis.first_tap(o) + (begin - first) * axis.up;
  }
};

// One output of a plane, without the gain. Element (i, j) of the plane is plane[(i * x.in + j) * inner]. Taps that
// are separable: `across` has x.taps and `down` y.taps of them, null for the number 1. Else `down` is null and
// `across` has y.taps * x.taps.
template <typename T, typename W>
GAN_HD W resampled(const T* plane, const Axis& x, const Axis& y, int64_t inner, int64_t row, int64_t column,
                   const W* across, const W* down, bool separable, bool flip) {
  Met rows(y, row), columns(x, column);
  W total = 0;
  for (int64_t i = rows.begin, k = rows.tap; i < rows.end; ++i, k += y.up) {
    W sum = 0;
    const W* taps = separable ? across : across + tap_at(k, y.taps, flip) * x.taps;
    for (int64_t j = columns.begin, l = columns.tap; j < columns.end; ++j, l += x.up) {
      W value = gancore::Number<T>::load(plane[(i * x.in + j) * inner]);
      sum += taps ? taps[tap_at(l, x.taps, flip)] * value : value;
    }
    total += separable && down ? down[tap_at(k, y.taps, flip)] * sum : sum;
  }
  return total;
}

}  // namespace core
