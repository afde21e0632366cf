// What is done to a batch and to each of its images, for kernels.
#pragma once

#include "geometry.h"

namespace ada {

constexpr int kMostChannels = 3;

struct Problem {
  int64_t count;
  int channels;
  Axis rows, columns;
  bool last;  // channels last in memory
  bool transposed, offset;

  GAN_HD int64_t at(int64_t b, int c, int y, int x) const {
    int64_t pixel = int64_t(y) * columns.size + x, pixels = int64_t(rows.size) * columns.size;
    return last ? (b * pixels + pixel) * channels + c : (b * channels + c) * pixels + pixel;
  }
  // Points that taps see: 1 … 2 N + 10 of each axis.
  GAN_HD int points_y() const { return 2 * rows.size + 10; }
  GAN_HD int points_x() const { return 2 * columns.size + 10; }
  GAN_HD int64_t point_at(int64_t b, int c, int i, int j) const {
    return ((b * channels + c) * points_y() + i) * points_x() + j;
  }
  // Numbers of a pixel stay in registers when loops over channels are of known length.
  template <typename F>
  GAN_HD void each_channel(F function) const {
    for (int c = 0; c < kMostChannels; ++c)
      if (c < channels) function(c);
  }
  GAN_HD int squares_x(int side) const { return (columns.size + side - 1) / side; }
  GAN_HD int squares_y(int side) const { return (rows.size + side - 1) / side; }
};

// One entry an image; null for what is left out.
template <typename W>
struct Draws {
  const W *geometry, *colour, *cutout;
};

enum class Way { kStay, kShift, kResample, kSpoil };

// What is done to one image.
template <typename W>
struct Plan {
  Way way = Way::kStay;
  Lookup<W> look{};
  bool coloured = false, cuts = false;
  Colour<W> colour{};
  W cutout[4] = {};

  GAN_HD Plan(const Problem& problem, const Draws<W>& draws, int64_t b) {
    if (draws.geometry) {
      look = lookup_of(draws.geometry + 9 * b);
      way = is_shift(look, problem.rows, problem.columns) ? Way::kShift : Way::kResample;
      if (!look.finite) way = Way::kSpoil;
    }
    coloured = draws.colour != nullptr;
    if (coloured)
      colour = colour_of(draws.colour + 16 * b, problem.channels == 1, problem.transposed, problem.offset);
    cuts = draws.cutout != nullptr;
    for (int i = 0; cuts && i < 4; ++i) cutout[i] = draws.cutout[4 * b + i];
  }

  GAN_HD bool is_hidden(const Problem& problem, int y, int x) const {
    return cuts && is_cut(x, problem.columns, cutout[0], cutout[2]) && is_cut(y, problem.rows, cutout[1], cutout[3]);
  }

  GAN_HD void recolour(const Problem& problem, W* pixel) const {
    if (!coloured) return;
    W in[kMostChannels] = {pixel[0], pixel[1], pixel[2]};
    problem.each_channel([&](int i) {
      W total = colour.offset[i];
      problem.each_channel([&](int j) { total += colour.linear[i][j] * in[j]; });
      pixel[i] = total;
    });
  }
};

}  // namespace ada
