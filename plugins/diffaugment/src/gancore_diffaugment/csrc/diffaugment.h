// DiffAugment of one image as an affine map, for every processor.
//
// Brightness, saturation and contrast commute, since saturation keeps the mean of a pixel, contrast that of the
// image, and brightness adds the same to all channels. Together they are
//
//   y_c = k s x_c + k (1 - s) m + (1 - k) mu + b
//
// with m the mean of the pixel over channels, mu that of the image. Translation and cutout are a gather with zeros
// before them, after them, or one on each side. The transpose of such a map has the same form: the colour map is
// symmetric, and a gather by t transposed is a gather by -t.
#pragma once

#include <cstdint>

#include <gancore/number.h>

namespace diffaugment {

// Bits of `spatial`.
enum : int64_t {
  kShiftBefore = 1,  // translation, then colour
  kShiftAfter = 2,
  kCutBefore = 4,  // cutout, then colour
  kCutAfter = 8,
  kCutFirst = 16,  // cutout, then translation, where both are on one side of colour
};

// A gather: out[p] = in[p + shift], 0 outside of the image and in the rectangle, which is tested at p (cut_out) or
// at p + shift (cut_in).
struct Stage {
  int64_t rows = 0, columns = 0;
  bool cut_out = false, cut_in = false;
  int64_t top = 0, left = 0, bottom = 0, right = 0;

  GAN_HD Stage transposed() const {
    Stage other = *this;
    other.rows = -rows;
    other.columns = -columns;
    other.cut_out = cut_in;
    other.cut_in = cut_out;
    return other;
  }

  GAN_HD bool keeps_all() const { return rows == 0 && columns == 0 && !cut_out && !cut_in; }

  GAN_HD bool cuts_row(int64_t row) const {
    return (cut_out && row >= top && row < bottom) || (cut_in && row + rows >= top && row + rows < bottom);
  }

  // Whether out[row, column] comes from an element of the image.
  GAN_HD bool holds(int64_t row, int64_t column, int64_t height, int64_t width) const {
    int64_t from_row = row + rows, from_column = column + columns;
    if (from_row < 0 || from_row >= height || from_column < 0 || from_column >= width) return false;
    if (!cuts_row(row)) return true;
    int64_t tested = cut_out ? column : from_column;
    return tested < left || tested >= right;
  }
};

// What is done to one image. W is float or double.
template <typename W>
struct Map {
  Stage first, second;
  W own, grey, mean, offset;  // y_c = own x_c + grey m + mean mu + offset
};

// `colour`: uniforms of brightness, saturation, contrast. `place`: shift in rows and columns, centre of the cut.
template <typename W>
GAN_HD Map<W> map_of(const W* colour, const int64_t* place, W brightness, W saturation, W contrast,
                     int64_t cut_rows, int64_t cut_columns, int64_t spatial, bool transposed, bool offset) {
  Map<W> map;
  W s = (2 * colour[1] - 1) * saturation + 1;
  W k = (colour[2] - W(0.5)) * contrast + 1;
  map.own = k * s;
  map.grey = k * (1 - s);
  map.mean = 1 - k;
  map.offset = offset ? (colour[0] - W(0.5)) * brightness : W(0);
  for (int side = 0; side < 2; ++side) {
    Stage& stage = side == 0 ? map.first : map.second;
    bool shifts = spatial & (side == 0 ? kShiftBefore : kShiftAfter);
    bool cuts = spatial & (side == 0 ? kCutBefore : kCutAfter);
    if (shifts) {
      stage.rows = place[0];
      stage.columns = place[1];
    }
    if (cuts) {
      stage.cut_in = shifts && (spatial & kCutFirst);
      stage.cut_out = !stage.cut_in;
      stage.top = place[2] - cut_rows / 2;
      stage.left = place[3] - cut_columns / 2;
      stage.bottom = stage.top + cut_rows;
      stage.right = stage.left + cut_columns;
    }
  }
  if (transposed) {
    Stage first = map.second.transposed();
    map.second = map.first.transposed();
    map.first = first;
  }
  return map;
}

}  // namespace diffaugment
