// What one block of threads of a GPU does. It is written for any team of threads, so that tests run it on the CPU.
//
// Nothing is added by two threads into one place: the transpose collects, for every fine pixel, the points that look
// at it, and for every pixel its reflections. Results are the same bits every time, and no shape depends on a draw.
#pragma once

#include "plan.h"

namespace ada {

// A square of pixels that a block makes, and the points or fine pixels behind it.
template <typename W>
constexpr int kSide = sizeof(W) == 4 ? 16 : 8;
template <typename W>
constexpr int kWide = 2 * kSide<W> + 10;

// What a block shares: points or fine pixels, then their columns sampled, then sums.
template <typename W>
struct Shared {
  W wide[kMostChannels][kWide<W> * kWide<W>];
  W lines[kMostChannels][kWide<W> * kSide<W>];
  W sums[kMostChannels][kSide<W> * kSide<W>];
};

// Extended pixels that a place sees through the two fine pixels about it, and with what weights.
template <typename W>
struct Window {
  int first;
  W weights[7];

  GAN_HD Window(const Place<W>& place, const Axis& axis) {
    constexpr auto up = lowpass<W>(2);
    bool odd = place.index & 1;
    W near = place.index >= 0 ? 1 - place.share : W(0);
    W far = place.index + 1 < axis.fine() ? place.share : W(0);
    first = (place.index >> 1) - 3;
    auto tap = [&](int k) { return k >= 0 && k < kTaps ? up[k] : W(0); };
    for (int i = 0; i < 7; ++i) {
      // The tap of a fine pixel f on the extended pixel e is f + 5 - 2 e.
      W of_near = odd ? tap(12 - 2 * i) : tap(11 - 2 * i), of_far = odd ? tap(13 - 2 * i) : tap(12 - 2 * i);
      weights[i] = near * of_near + far * of_far;
      if (first + i < 0 || first + i >= axis.extended()) weights[i] = 0;
    }
  }
};

// Lay a pixel down, for images that are not transposed.
template <typename T, typename W>
GAN_HD void finish(const Problem& problem, const Plan<W>& plan, T* out, int64_t b, int y, int x, W* pixel) {
  plan.recolour(problem, pixel);
  bool hidden = plan.is_hidden(problem, y, x);
  problem.each_channel([&](int c) {
    out[problem.at(b, c, y, x)] = gancore::Number<T>::store(hidden ? W(0) : pixel[c]);
  });
}

// Square (square_y, square_x) of image b. Team: runs a function for every index below a number, then waits for all.
template <typename T, typename Team>
GAN_HD void forward_block(const Problem& problem, const T* in, const Draws<typename gancore::Number<T>::Wide>& draws,
                          T* out, int64_t b, int square_y, int square_x,
                          Shared<typename gancore::Number<T>::Wide>& shared, Team team) {
  using N = gancore::Number<T>;
  using W = typename N::Wide;
  constexpr int side = kSide<W>, wide = kWide<W>;
  constexpr auto down = lowpass<W>(1);
  Plan<W> plan(problem, draws, b);
  int top = square_y * side, left = square_x * side;
  bool resampled = plan.way == Way::kResample;

  if (resampled) {
    team.each(wide * wide, [&](int i) {
      W pixel[kMostChannels] = {};
      int point_y = 2 * top + 1 + i / wide, point_x = 2 * left + 1 + i % wide;
      if (point_y <= problem.points_y() && point_x <= problem.points_x()) {
        W u = W(problem.columns.point(point_x)), v = W(problem.rows.point(point_y));
        Window<W> across(place_of(plan.look.x(u, v), problem.columns), problem.columns);
        Window<W> along(place_of(plan.look.y(u, v), problem.rows), problem.rows);
        for (int r = 0; r < 7; ++r) {
          if (along.weights[r] == W(0)) continue;
          int y = problem.rows.pixel(along.first + r);
          W line[kMostChannels] = {};
          for (int s = 0; s < 7; ++s) {
            if (across.weights[s] == W(0)) continue;
            int x = problem.columns.pixel(across.first + s);
            problem.each_channel([&](int c) { line[c] += across.weights[s] * N::load(in[problem.at(b, c, y, x)]); });
          }
          problem.each_channel([&](int c) { pixel[c] += along.weights[r] * line[c]; });
        }
      }
      problem.each_channel([&](int c) { shared.wide[c][i] = pixel[c]; });
    });
    team.each(wide * side, [&](int i) {
      problem.each_channel([&](int c) {
        W total = 0;
        for (int k = 0; k < kTaps; ++k) total += down[k] * shared.wide[c][i / side * wide + 2 * (i % side) + k];
        shared.lines[c][i] = total;
      });
    });
  }
  team.each(side * side, [&](int i) {
    int y = top + i / side, x = left + i % side;
    if (y >= problem.rows.size || x >= problem.columns.size) return;
    W pixel[kMostChannels] = {};
    problem.each_channel([&](int c) {
      if (resampled) {
        for (int k = 0; k < kTaps; ++k) pixel[c] += down[k] * shared.lines[c][(2 * (i / side) + k) * side + i % side];
      } else if (plan.way == Way::kSpoil) {
        pixel[c] = W(NAN);
      } else {
        int by_y = plan.way == Way::kShift ? int(plan.look.y0 / 2) : 0;
        int by_x = plan.way == Way::kShift ? int(plan.look.x0 / 2) : 0;
        int from_y = problem.rows.pixel(y + by_y + problem.rows.size - 1);
        int from_x = problem.columns.pixel(x + by_x + problem.columns.size - 1);
        pixel[c] = N::load(in[problem.at(b, c, from_y, from_x)]);
      }
    });
    finish(problem, plan, out, b, y, x, pixel);
  });
}

// The transpose of cutout, of sampling down and of colour at one point (1 + i, 1 + j) of image b.
template <typename T>
GAN_HD void spread_point(const Problem& problem, const T* in,
                         const Draws<typename gancore::Number<T>::Wide>& draws,
                         typename gancore::Number<T>::Wide* points, int64_t b, int i, int j) {
  using N = gancore::Number<T>;
  using W = typename N::Wide;
  constexpr auto down = lowpass<W>(1);
  Plan<W> plan(problem, draws, b);
  if (plan.way != Way::kResample) return;
  W pixel[kMostChannels] = {};
  for (int q = 0; q < kTaps / 2; ++q) {
    int y = i / 2 - q;
    if (y < 0 || y >= problem.rows.size) continue;
    W along = i % 2 ? down[2 * q + 1] : down[2 * q];
    W line[kMostChannels] = {};
    for (int r = 0; r < kTaps / 2; ++r) {
      int x = j / 2 - r;
      if (x < 0 || x >= problem.columns.size || plan.is_hidden(problem, y, x)) continue;
      W across = j % 2 ? down[2 * r + 1] : down[2 * r];
      problem.each_channel([&](int c) { line[c] += across * N::load(in[problem.at(b, c, y, x)]); });
    }
    problem.each_channel([&](int c) { pixel[c] += along * line[c]; });
  }
  plan.recolour(problem, pixel);
  problem.each_channel([&](int c) { points[problem.point_at(b, c, i, j)] = pixel[c]; });
}

// A range of points, both ends included, at most all of an axis.
struct Range {
  double low, high;

  GAN_HD void meet(double a, double b) {
    low = low > a ? low : a;
    high = high < b ? high : b;
  }
  // Numbers about `middle` as far as `reach`, and some more for the rounding of places.
  GAN_HD void about(double middle, double reach) {
    double more = reach + 0.01 * (reach + 1);
    meet(middle - more, middle + more);
  }
};

// The points that look at a fine pixel: rows of them, and in a row a stretch of columns. In double, since it must
// hold for matrices that shrink; which points look indeed, their places tell.
template <typename W>
struct Lookers {
  double xx, xy, x0, yx, yy, y0, by_xx, by_yx, by_determinant;

  GAN_HD explicit Lookers(const Lookup<W>& look)
      : xx(look.xx), xy(look.xy), x0(look.x0), yx(look.yx), yy(look.yy), y0(look.y0) {
    double determinant = xx * yy - xy * yx;
    double size = std::fabs(xx * yy) + std::fabs(xy * yx);
    by_xx = std::fabs(xx) > 1e-12 ? 1 / xx : 0;
    by_yx = std::fabs(yx) > 1e-12 ? 1 / yx : 0;
    by_determinant = std::fabs(determinant) > 1e-9 * size ? 1 / determinant : 0;
  }

  // Of the fine pixel (x, y), from the centre.
  GAN_HD Range rows(double x, double y, Range all) const {
    if (by_determinant != 0)
      all.about((xx * (y - y0) - yx * (x - x0)) * by_determinant,
                (std::fabs(xx) + std::fabs(yx)) * std::fabs(by_determinant));
    return all;
  }

  GAN_HD Range columns(double x, double y, double v, Range all) const {
    narrow(all, by_xx, xy * v + x0 - x);
    narrow(all, by_yx, yy * v + y0 - y);
    return all;
  }

 private:
  // To where |slope u + rest| < 1.
  static GAN_HD void narrow(Range& range, double by_slope, double rest) {
    if (by_slope != 0) {
      range.about(-rest * by_slope, std::fabs(by_slope));
    } else if (std::fabs(rest) > 1.01) {
      range.high = range.low - 1;
    }
  }
};

// How much of a point at a place falls on a fine pixel.
template <typename W>
GAN_HD W share_of(const Place<W>& place, int fine) {
  return place.index == fine ? 1 - place.share : (place.index + 1 == fine ? place.share : W(0));
}

// Fine pixel (y, x) of the transpose of looking up.
template <typename W>
GAN_HD void collect(const Problem& problem, const Lookup<W>& look, const Lookers<W>& lookers, const W* points,
                    int64_t b, int y, int x, W* pixel) {
  const Axis &rows = problem.rows, &columns = problem.columns;
  Range all_v{double(rows.point(1)), double(rows.point(problem.points_y()))};
  Range all_u{double(columns.point(1)), double(columns.point(problem.points_x()))};
  double at_x = x - columns.centre(), at_y = y - rows.centre();
  Range v = lookers.rows(at_x, at_y, all_v);
  for (int row = int(std::ceil(v.low)); row <= v.high; ++row) {
    Range u = lookers.columns(at_x, at_y, row, all_u);
    for (int column = int(std::ceil(u.low)); column <= u.high; ++column) {
      W weight = share_of(place_of(look.x(W(column), W(row)), columns), x) *
                 share_of(place_of(look.y(W(column), W(row)), rows), y);
      if (weight == W(0)) continue;
      problem.each_channel([&](int c) {
        pixel[c] += weight * points[problem.point_at(b, c, row - rows.point(1), column - columns.point(1))];
      });
    }
  }
}

// The extended pixels at which a pixel stands: itself and its reflections at either border.
constexpr int kCopies = 3;

GAN_HD int copy_of(int pixel, int copy, const Axis& axis) {
  int last = axis.size - 1;
  return copy == 0 ? last + pixel : (copy == 1 ? last - pixel : 3 * last - pixel);
}

// Pixels on the border have no reflection there.
GAN_HD bool has_copy(int pixel, int copy, const Axis& axis) {
  return copy == 0 || (copy == 1 ? pixel > 0 : pixel < axis.size - 1);
}

// The first extended pixel of the copy of pixels begin … begin + side - 1.
GAN_HD int first_of(int begin, int side, int copy, const Axis& axis) {
  int end = begin + side < axis.size ? begin + side : axis.size;
  return copy_of(copy == 0 ? begin : end - 1, copy, axis);
}

// Fine pixels that any point looks at.
struct Box {
  int low, high;

  template <typename W, typename Look>
  static GAN_HD Box of(const Problem& problem, const Axis& axis, Look look) {
    Box box{axis.fine(), -1};
    for (int i = 0; i < 4; ++i) {
      W u = W(problem.columns.point(i % 2 ? problem.points_x() : 1));
      W v = W(problem.rows.point(i / 2 ? problem.points_y() : 1));
      int at = place_of(look(u, v), axis).index;
      box.low = at < box.low ? at : box.low;
      box.high = at + 1 > box.high ? at + 1 : box.high;
    }
    return box;
  }
  GAN_HD bool meets(int begin, int count) const { return begin <= high && begin + count > low; }
};

// The transpose, for a square of pixels. points: from spread_point.
template <typename T, typename Team>
GAN_HD void transposed_block(const Problem& problem, const T* in,
                             const Draws<typename gancore::Number<T>::Wide>& draws,
                             const typename gancore::Number<T>::Wide* points, T* out, int64_t b, int square_y,
                             int square_x, Shared<typename gancore::Number<T>::Wide>& shared, Team team) {
  using N = gancore::Number<T>;
  using W = typename N::Wide;
  constexpr int side = kSide<W>, wide = kWide<W>;
  constexpr auto up = lowpass<W>(2);
  const Axis &rows = problem.rows, &columns = problem.columns;
  Plan<W> plan(problem, draws, b);
  int top = square_y * side, left = square_x * side;
  bool resampled = plan.way == Way::kResample;

  team.each(side * side, [&](int i) {
    problem.each_channel([&](int c) { shared.sums[c][i] = 0; });
  });
  if (resampled) {
    Lookers<W> lookers(plan.look);
    Box box_x = Box::of<W>(problem, columns, [&](W u, W v) { return plan.look.x(u, v); });
    Box box_y = Box::of<W>(problem, rows, [&](W u, W v) { return plan.look.y(u, v); });
    for (int copy = 0; copy < kCopies * kCopies; ++copy) {
      int copy_y = copy / kCopies, copy_x = copy % kCopies;
      int first_y = first_of(top, side, copy_y, rows), first_x = first_of(left, side, copy_x, columns);
      int fine_y = 2 * first_y - 5, fine_x = 2 * first_x - 5;
      if (!box_y.meets(fine_y, wide) || !box_x.meets(fine_x, wide)) continue;
      team.each(wide * wide, [&](int i) {
        W pixel[kMostChannels] = {};
        int y = fine_y + i / wide, x = fine_x + i % wide;
        if (y >= 0 && y < rows.fine() && x >= 0 && x < columns.fine())
          collect(problem, plan.look, lookers, points, b, y, x, pixel);
        problem.each_channel([&](int c) { shared.wide[c][i] = pixel[c]; });
      });
      team.each(wide * side, [&](int i) {
        problem.each_channel([&](int c) {
          W total = 0;
          for (int k = 0; k < kTaps; ++k) total += up[k] * shared.wide[c][i / side * wide + 2 * (i % side) + k];
          shared.lines[c][i] = total;
        });
      });
      team.each(side * side, [&](int i) {
        int y = top + i / side, x = left + i % side;
        if (y >= rows.size || x >= columns.size || !has_copy(y, copy_y, rows) || !has_copy(x, copy_x, columns)) return;
        int line = copy_of(y, copy_y, rows) - first_y, column = copy_of(x, copy_x, columns) - first_x;
        problem.each_channel([&](int c) {
          W total = 0;
          for (int k = 0; k < kTaps; ++k) total += up[k] * shared.lines[c][(2 * line + k) * side + column];
          shared.sums[c][i] += total;
        });
      });
    }
  }
  team.each(side * side, [&](int i) {
    int y = top + i / side, x = left + i % side;
    if (y >= rows.size || x >= columns.size) return;
    W pixel[kMostChannels] = {};
    if (!resampled) {
      int by_y = plan.way == Way::kShift ? int(plan.look.y0 / 2) : 0;
      int by_x = plan.way == Way::kShift ? int(plan.look.x0 / 2) : 0;
      for (int copy = 0; copy < kCopies * kCopies; ++copy) {
        int copy_y = copy / kCopies, copy_x = copy % kCopies;
        if (!has_copy(y, copy_y, rows) || !has_copy(x, copy_x, columns)) continue;
        int to_y = copy_of(y, copy_y, rows) - (rows.size - 1) - by_y;
        int to_x = copy_of(x, copy_x, columns) - (columns.size - 1) - by_x;
        bool lies = to_y >= 0 && to_y < rows.size && to_x >= 0 && to_x < columns.size;
        if (!lies || plan.is_hidden(problem, to_y, to_x)) continue;
        problem.each_channel([&](int c) { pixel[c] += N::load(in[problem.at(b, c, to_y, to_x)]); });
      }
      plan.recolour(problem, pixel);
    }
    problem.each_channel([&](int c) {
      W value = resampled ? shared.sums[c][i] : (plan.way == Way::kSpoil ? W(NAN) : pixel[c]);
      out[problem.at(b, c, y, x)] = N::store(value);
    });
  });
}

}  // namespace ada
