// A tensor as the bias sees it, for every processor.
#pragma once

#include <cstdint>

#include <gancore/number.h>

namespace core {

// Memory as (outer, channels, inner), channels being the dimension of the bias.
struct Split {
  int64_t outer = 1, channels = 1, inner = 1;

  GAN_HD int64_t period() const { return channels * inner; }

  // The channel of a place in memory.
  GAN_HD int64_t channel(int64_t place) const { return place / inner % channels; }

  // The place of element `e` of outer * inner of one channel.
  GAN_HD int64_t place(int64_t channel, int64_t e) const {
    int64_t row = e / inner;
    return (row * channels + channel) * inner + (e - row * inner);
  }
};

}  // namespace core
