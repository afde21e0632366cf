// The geometry of one image on the CPU, tile by tile, so that the fine pixels of a tile stay in the cache. One
// thread owns an image: whatever is added up, is so in one order.
#pragma once

#include "geometry.h"

#include <gancore/memory.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <new>

namespace ada {

// Memory that grows, and is not cleared.
template <typename W>
class Buffer {
 public:
  W* take(int64_t count) {
    if (count > held_) {
      size_t bytes = (static_cast<size_t>(count) * sizeof(W) + 63) & ~size_t(63);
      data_.reset();
      data_.reset(static_cast<W*>(std::aligned_alloc(64, bytes)));
      if (!data_) throw std::bad_alloc();
      gancore::advise_huge_pages(data_.get(), bytes);
      held_ = count;
    }
    return data_.get();
  }
  W* zeros(int64_t count) { return std::fill_n(take(count), count, W(0)) - count; }

 private:
  struct Free {
    void operator()(W* data) const { std::free(data); }
  };
  std::unique_ptr<W, Free> data_;
  int64_t held_ = 0;
};

// What a thread keeps from image to image.
template <typename W>
struct Scratch {
  Buffer<W> in, out;              // an image in numbers
  Buffer<W> fine;                 // of a tile
  Buffer<W> ring, line, even, odd, zero, turned;
  Buffer<W> share_x, share_y;
  Buffer<int32_t> at, from;
};

// Along an axis, the place of point u is step * u + start, held from low to high; the centre is a fine pixel.
template <typename W>
struct Line {
  W step, start, low, high;
  int32_t centre;
};

constexpr int kTile = 64;  // pixels a side

// K: loops for numbers of a type and pixels of kLanes of them.
template <typename K>
class Resampler {
  using W = typename K::W;
  static constexpr int64_t L = K::kLanes;

 public:
  Resampler(const Lookup<W>& look, const Axis& rows, const Axis& columns, Scratch<W>& scratch)
      : look_(look), rows_(rows), columns_(columns), s_(scratch) {
    constexpr auto once = lowpass<W>(1), twice = lowpass<W>(2);
    for (int k = 0; k < kTaps; ++k) {
      down_[k] = once[k];
      up_[k] = twice[k];
    }
    for (int q = 0; q < kTaps / 2; ++q) {
      for (int odd = 0; odd < 2; ++odd) {
        down_half_[odd][q] = once[2 * q + odd];
        up_half_[odd][q] = twice[2 * q + odd];
      }
    }
  }

  // out = G in, or with `transposed` out += G^T in; both (H, W) pixels.
  void run(const W* in, W* out, bool transposed) {
    if (!look_.finite) {
      std::fill_n(out, int64_t(rows_.size) * columns_.size * L, W(NAN));
    } else if (is_shift(look_, rows_, columns_)) {
      shift(in, out, transposed);
    } else {
      for (int y = 0; y < rows_.size; y += kTile)
        for (int x = 0; x < columns_.size; x += kTile) {
          Tile tile = tile_at(y, x);
          if (transposed) {
            spread(tile, in);
            drain(tile, out);
          } else {
            fill(tile, in);
            look(tile, out);
          }
        }
    }
  }

 private:
  // Pixels [y, y + height) x [x, x + width) of the output, and the fine pixels top … bottom, left … right that
  // their points look at, kept in pairs: columns from 2 pair on, rows from the even one at or before top.
  struct Tile {
    int y, x, height, width;
    int top, bottom, left, right, pair, pairs;
    int points_y() const { return 2 * (height + 5); }
    int halves() const { return width + 5; }  // points of even or odd number in a row
    int64_t stride() const { return 2 * int64_t(pairs); }
    int lines() const { return (bottom | 1) - (top & ~1) + 1; }
  };

  Tile tile_at(int y, int x) const {
    Tile t{y, x, std::min(kTile, rows_.size - y), std::min(kTile, columns_.size - x), 0, 0, 0, 0, 0, 0};
    // Places are monotonous along both axes, rounding included: the corners reach farthest.
    W u[2] = {W(first_u(t)), W(first_u(t) + 2 * t.halves() - 1)};
    W v[2] = {W(first_v(t)), W(first_v(t) + t.points_y() - 1)};
    t.left = t.top = INT32_MAX;
    t.right = t.bottom = INT32_MIN;
    for (int i = 0; i < 4; ++i) {
      int column = place_of(look_.x(u[i % 2], v[i / 2]), columns_).index;
      int row = place_of(look_.y(u[i % 2], v[i / 2]), rows_).index;
      t.left = std::min(t.left, column);
      t.right = std::max(t.right, column + 1);
      t.top = std::min(t.top, row);
      t.bottom = std::max(t.bottom, row + 1);
    }
    t.pair = t.left >> 1;
    t.pairs = (t.right >> 1) - t.pair + 1;
    return t;
  }

  int first_u(const Tile& t) const { return columns_.point(2 * t.x + 1); }
  int first_v(const Tile& t) const { return rows_.point(2 * t.y + 1); }

  void shift(const W* in, W* out, bool transposed) {
    int by_y = static_cast<int>(look_.y0 / 2), by_x = static_cast<int>(look_.x0 / 2);
    for (int y = 0; y < rows_.size; ++y) {
      int64_t row = rows_.pixel(y + by_y + rows_.size - 1);
      for (int x = 0; x < columns_.size; ++x) {
        int64_t there = (row * columns_.size + columns_.pixel(x + by_x + columns_.size - 1)) * L;
        int64_t here = (int64_t(y) * columns_.size + x) * L;
        for (int64_t c = 0; c < L; ++c) {
          if (transposed) {
            out[there + c] += in[here + c];
          } else {
            out[here + c] = in[there + c];
          }
        }
      }
    }
  }

  // Pixel of the image for each extended column that the tile's fine pixels see; -1 outside.
  const int32_t* columns_of(const Tile& t) {
    int32_t* from = s_.from.take(t.pairs + 6);
    for (int i = 0; i < t.pairs + 6; ++i) {
      int extended = t.pair - 3 + i;
      from[i] = extended >= 0 && extended < columns_.extended() ? columns_.pixel(extended) : -1;
    }
    return from;
  }

  // Zero in a line of fine pixels what lies outside of all of them.
  void clear_outside(const Tile& t, W* line) const {
    int before = std::clamp(-2 * t.pair, 0, 2 * t.pairs);
    int after = std::clamp(columns_.fine() - 2 * t.pair, 0, 2 * t.pairs);
    std::fill_n(line, before * L, W(0));
    std::fill_n(line + after * L, (2 * t.pairs - after) * L, W(0));
  }

  // U: the fine pixels of a tile. Columns first, in a ring of the last eight extended rows.
  void fill(const Tile& t, const W* in) {
    W* fine = s_.fine.take(t.lines() * t.stride() * L);
    int64_t length = t.stride() * L;
    W* ring = s_.ring.take(8 * length);
    W* line = s_.line.take((t.pairs + 6) * L);
    W* even = s_.even.take(t.pairs * L);
    W* odd = s_.odd.take(t.pairs * L);
    const int32_t* from = columns_of(t);
    for (int extended = (t.top >> 1) - 3; extended <= (t.bottom >> 1) + 3; ++extended) {
      W* lifted = ring + (extended & 7) * length;
      if (extended < 0 || extended >= rows_.extended()) {
        std::fill_n(lifted, length, W(0));
      } else {
        K::pick(line, in + int64_t(rows_.pixel(extended)) * columns_.size * L, from, t.pairs + 6);
        const W* parts[7];
        for (int q = 0; q < 7; ++q) parts[q] = line + (6 - q) * L;
        K::combine7(even, odd, parts, up_half_[1], up_half_[0], t.pairs * L);
        K::interleave(lifted, even, odd, t.pairs);
        clear_outside(t, lifted);
      }
      int middle = extended - 3;
      if (middle < t.top >> 1) continue;
      const W* rows[7];
      for (int q = 0; q < 7; ++q) rows[q] = ring + ((extended - q) & 7) * length;
      W* to = fine + (2 * middle - (t.top & ~1)) * length;
      K::combine7(to, to + length, rows, up_half_[1], up_half_[0], length);
      for (int row = 2 * middle; row < 2 * middle + 2; ++row, to += length)
        if (row < 0 || row >= rows_.fine()) std::fill_n(to, length, W(0));
    }
  }

  // U^T: what gathered on the fine pixels of a tile is added to the image.
  void drain(const Tile& t, W* out) {
    int64_t length = t.stride() * L;
    const W* fine = s_.fine.take(t.lines() * length);
    const W* zero = s_.zero.zeros(length);
    W* line = s_.line.take(length);
    W* even = s_.even.zeros((t.pairs + 12) * L);
    W* odd = s_.odd.zeros((t.pairs + 12) * L);
    W* added = s_.turned.take((t.pairs + 6) * L);
    const int32_t* from = columns_of(t);
    int last = std::min((t.bottom >> 1) + 3, rows_.extended() - 1);
    for (int extended = std::max((t.top >> 1) - 3, 0); extended <= last; ++extended) {
      const W* rows[kTaps];
      for (int k = 0; k < kTaps; ++k) {
        int row = 2 * extended - 5 + k;
        bool inside = row >= std::max(t.top, 0) && row <= std::min(t.bottom, rows_.fine() - 1);
        rows[k] = inside ? fine + (row - (t.top & ~1)) * length : zero;
      }
      K::combine12(line, rows, up_, length);
      clear_outside(t, line);
      K::separate(even + 6 * L, odd + 6 * L, line, t.pairs);
      const W* parts[kTaps];
      for (int q = 0; q < 6; ++q) {
        parts[2 * q] = odd + q * L;
        parts[2 * q + 1] = even + (q + 1) * L;
      }
      K::combine12(added, parts, up_, (t.pairs + 6) * L);
      K::add(out + int64_t(rows_.pixel(extended)) * columns_.size * L, added, from, t.pairs + 6);
    }
  }

  // Where the points of a row look.
  void locate(const Tile& t, int point) {
    int64_t count = 2 * t.halves();
    W v = W(first_v(t) + point);
    Line<W> across = line_of(columns_, look_.xx, look_.xy * v + look_.x0);
    Line<W> along = line_of(rows_, look_.yx, look_.yy * v + look_.y0);
    at_ = s_.at.take(count);
    share_x_ = s_.share_x.take(count);
    share_y_ = s_.share_y.take(count);
    K::locate(at_, share_x_, share_y_, across, along, W(first_u(t)), t.top & ~1, 2 * t.pair,
              static_cast<int32_t>(t.stride()), count);
  }

  static Line<W> line_of(const Axis& axis, W step, W start) {
    return {step, start, W(-1 - axis.centre()), W(axis.fine() - axis.centre()), axis.centre()};
  }

  // D L: points look at the fine pixels of a tile and are sampled down, columns first, in a ring of twelve rows.
  void look(const Tile& t, W* out) {
    const W* fine = s_.fine.take(t.lines() * t.stride() * L);
    int64_t length = t.width * L;
    W* ring = s_.ring.take(kTaps * length);
    W* odd = s_.odd.take(t.halves() * L);
    W* even = s_.even.take(t.halves() * L);
    for (int point = 0; point < t.points_y(); ++point) {
      locate(t, point);
      K::look(odd, even, fine, at_, share_x_, share_y_, t.stride(), t.halves());
      const W* parts[kTaps];
      for (int q = 0; q < 6; ++q) {
        parts[2 * q] = odd + q * L;
        parts[2 * q + 1] = even + q * L;
      }
      K::combine12(ring + (point % kTaps) * length, parts, down_, length);
      if (point < kTaps - 1 || point % 2 == 0) continue;
      int first = point - (kTaps - 1);
      for (int k = 0; k < kTaps; ++k) parts[k] = ring + ((first + k) % kTaps) * length;
      K::combine12(out + (int64_t(t.y + first / 2) * columns_.size + t.x) * L, parts, down_, length);
    }
  }

  // L^T D^T: the pixels of a tile are spread over its points, and these over its fine pixels.
  void spread(const Tile& t, const W* in) {
    W* fine = s_.fine.zeros(t.lines() * t.stride() * L);
    int64_t length = t.width * L;
    const W* zero = s_.zero.zeros(length);
    W* lines[2] = {s_.line.zeros(2 * (length + 10 * L)), nullptr};
    lines[1] = lines[0] + length + 10 * L;
    W* odd = s_.odd.take(t.halves() * L);
    W* even = s_.even.take(t.halves() * L);
    for (int pair = 0; pair < t.height + 5; ++pair) {
      const W* parts[6];
      for (int q = 0; q < 6; ++q) {
        int row = pair - q;
        bool inside = row >= 0 && row < t.height;
        parts[q] = inside ? in + (int64_t(t.y + row) * columns_.size + t.x) * L : zero;
      }
      K::combine6(lines[0] + 5 * L, lines[1] + 5 * L, parts, down_half_[0], down_half_[1], length);
      for (int side = 0; side < 2; ++side) {
        for (int q = 0; q < 6; ++q) parts[q] = lines[side] + (5 - q) * L;
        K::combine6(odd, even, parts, down_half_[0], down_half_[1], t.halves() * L);
        locate(t, 2 * pair + side);
        K::spread(fine, odd, even, at_, share_x_, share_y_, t.stride(), t.halves());
      }
    }
  }

  const Lookup<W>& look_;
  const Axis &rows_, &columns_;
  Scratch<W>& s_;
  int32_t* at_ = nullptr;
  W *share_x_ = nullptr, *share_y_ = nullptr;
  W down_[kTaps], up_[kTaps], down_half_[2][kTaps / 2], up_half_[2][kTaps / 2];
};

}  // namespace ada
