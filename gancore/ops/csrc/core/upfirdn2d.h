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

}  // namespace core
