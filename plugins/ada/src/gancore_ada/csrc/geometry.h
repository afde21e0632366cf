// ADA's geometry for every processor: which pixels belong together, and with what weights.
//
// An image x becomes D L U x: U reflects it once on every side and samples up by 2 with sym6, L looks up bilinearly
// along a matrix, D samples down by 2 with sym6. On an axis of N pixels the reflected image has 3 N - 2 of them
// ("extended"), U makes 6 N - 4 "fine" ones, with 0 beyond, and L looks at 2 N + 12 "points". With t the lowpass,
//
//   fine[f]  = sum over k of 2 t[k] extended[(f + 5 - k) / 2], where that is whole
//   out[n]   = sum over k of t[k] point[2 n + 1 + k]
#pragma once

#include <cmath>
#include <cstdint>

#include <gancore/number.h>

namespace ada {

constexpr int kTaps = 12;

template <typename W>
struct Lowpass {
  W taps[kTaps];
  GAN_HD constexpr W operator[](int k) const { return taps[k]; }
};

// sym6, of sum `sum`.
template <typename W>
GAN_HD constexpr Lowpass<W> lowpass(double sum) {
  constexpr double sym6[kTaps] = {
      0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633,
      0.4910559419267466,   0.787641141030194,     0.3379294217276218,   -0.07263752278646252,
      -0.021060292512300564, 0.04472490177066578,  0.0017677118642428036, -0.007800708325034148,
  };
  double total = 0;
  for (int k = 0; k < kTaps; ++k) total += sym6[k];
  Lowpass<W> scaled{};
  for (int k = 0; k < kTaps; ++k) scaled.taps[k] = static_cast<W>(sym6[k] / total * sum);
  return scaled;
}

// One side of an image.
struct Axis {
  int size;

  GAN_HD int extended() const { return 3 * size - 2; }
  GAN_HD int fine() const { return 6 * size - 4; }
  GAN_HD int centre() const { return 3 * size - 3; }  // fine pixel on the centre of the image, to which places relate
  GAN_HD int point(int index) const { return index - size - 5; }  // points, from the centre

  // Pixel of the image at an extended one.
  GAN_HD int pixel(int extended) const {
    int last = size - 1, at = extended - last;
    at = at < 0 ? -at : at;
    at = last - at;
    return last - (at < 0 ? -at : at);
  }
};

// Fine pixel at or before a place, and how far the place lies beyond it.
template <typename W>
struct Place {
  int index;
  W share;
};

// A place, from the centre in fine pixels. Outside are zeros, so that the nearest place outside is as good as a far
// one; the first of both fine pixels is -1 … fine - 1.
template <typename W>
GAN_HD Place<W> place_of(W place, const Axis& axis) {
  W low = static_cast<W>(-1 - axis.centre()), high = static_cast<W>(axis.fine() - axis.centre());
  W held = place > low ? place : low;
  held = held < high ? held : high;
  W whole = std::floor(held);
  whole = whole < high - 1 ? whole : high - 1;
  return {static_cast<int>(whole) + axis.centre(), held - whole};
}

// Where points look: x = xx u + xy v + x0, the same for y, in fine pixels from the centre.
template <typename W>
struct Lookup {
  W xx, xy, x0, yx, yy, y0;
  bool finite;

  GAN_HD W x(W u, W v) const { return xx * u + (xy * v + x0); }
  GAN_HD W y(W u, W v) const { return yx * u + (yy * v + y0); }
};

// Of a matrix (3, 3) from output to input, in pixels. Entries are held so far within range that no product of them
// overflows; whoever looks that far sees zeros.
template <typename W>
GAN_HD Lookup<W> lookup_of(const W* matrix) {
  W held[6];
  bool finite = true;
  for (int i = 0; i < 6; ++i) {
    W value = matrix[i];
    finite = finite && value - value == W(0);
    held[i] = value > W(-1e30) ? (value < W(1e30) ? value : W(1e30)) : W(-1e30);
  }
  return {held[0], held[1], 2 * held[2], held[3], held[4], 2 * held[5], finite};
}

// A shift by whole pixels, small enough that no tap sees the end of the reflection: up and down are each other's
// inverse then, and pixels move.
template <typename W>
GAN_HD bool is_shift(const Lookup<W>& look, const Axis& rows, const Axis& columns) {
  W x = look.x0 / 2, y = look.y0 / 2;
  return look.xx == 1 && look.xy == 0 && look.yx == 0 && look.yy == 1 && std::floor(x) == x && std::floor(y) == y &&
         std::fabs(x) + 6 <= W(columns.size - 1) && std::fabs(y) + 6 <= W(rows.size - 1);
}

// Colour of one image: y_i = sum over j of linear[i][j] x_j + offset[i]. Of grey images entry [0][0] and [0].
template <typename W>
struct Colour {
  W linear[3][3];
  W offset[3];
};

// Of a homogeneous matrix (4, 4). A grey pixel g stands for (g, g, g) and becomes the mean of the result.
template <typename W>
GAN_HD Colour<W> colour_of(const W* matrix, bool grey, bool transposed, bool offset) {
  Colour<W> colour;
  for (int i = 0; i < 3; ++i) {
    for (int j = 0; j < 3; ++j) colour.linear[i][j] = transposed ? matrix[4 * j + i] : matrix[4 * i + j];
    colour.offset[i] = offset ? matrix[4 * i + 3] : W(0);
  }
  if (grey) {
    W total = 0;
    for (int j = 0; j < 3; ++j)
      total += (colour.linear[0][j] + colour.linear[1][j] + colour.linear[2][j]) / 3;
    colour.linear[0][0] = total;
    colour.offset[0] = (colour.offset[0] + colour.offset[1] + colour.offset[2]) / 3;
  }
  return colour;
}

// Whether the cut covers a pixel of an axis: `centre` and `part` are shares of the side.
template <typename W>
GAN_HD bool is_cut(int pixel, const Axis& axis, W centre, W part) {
  return !(std::fabs((static_cast<W>(pixel) + W(0.5)) / static_cast<W>(axis.size) - centre) >= part / 2);
}

}  // namespace ada
