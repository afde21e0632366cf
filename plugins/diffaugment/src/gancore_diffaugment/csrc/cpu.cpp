// DiffAugment on the CPU: image by image, one pass for the mean and one for the result, both in the cache.
#include "binding.h"
#include "diffaugment.h"

#include <gancore/half.h>
#include <gancore/memory.h>
#include <torch/csrc/stable/library.h>

#include <algorithm>

using torch::headeronly::Half;

namespace diffaugment {
namespace {

constexpr int kLanes = 32;
constexpr int64_t kBlock = 4096;  // elements summed in float before they join a sum in double

// The loops over a stretch of a row. They are functions of their own, one a type, so that each is compiled for
// several processors.
#define STRETCHES(T, NAME)                                                                                        \
  using W_##NAME = gancore::Number<T>::Wide;                                                                      \
  GAN_CLONES double sum_##NAME(const T* __restrict in, int64_t n) {                                               \
    using N = gancore::Number<T>;                                                                                 \
    W_##NAME parts[kLanes] = {};                                                                                  \
    int64_t i = 0;                                                                                                \
    for (; i + kLanes <= n; i += kLanes)                                                                          \
      for (int l = 0; l < kLanes; ++l) parts[l] += N::load(in[i + l]);                                            \
    double total = 0;                                                                                             \
    for (int l = 0; l < kLanes; ++l) total += parts[l];                                                           \
    for (; i < n; ++i) total += N::load(in[i]);                                                                   \
    return total;                                                                                                 \
  }                                                                                                               \
  GAN_CLONES void scale_##NAME(T* __restrict out, const T* __restrict in, int64_t n, W_##NAME own,                \
                               W_##NAME constant) {                                                               \
    using N = gancore::Number<T>;                                                                                 \
    for (int64_t i = 0; i < n; ++i) out[i] = N::store(own * N::load(in[i]) + constant);                           \
  }                                                                                                               \
  GAN_CLONES void pixels3_##NAME(T* __restrict out, const T* __restrict in, int64_t n, W_##NAME own,              \
                                 W_##NAME share, W_##NAME constant) {                                             \
    using N = gancore::Number<T>;                                                                                 \
    for (int64_t i = 0; i < n; ++i) {                                                                             \
      W_##NAME a = N::load(in[3 * i]), b = N::load(in[3 * i + 1]), c = N::load(in[3 * i + 2]);                    \
      W_##NAME rest = share * (a + b + c) + constant;                                                             \
      out[3 * i] = N::store(own * a + rest);                                                                      \
      out[3 * i + 1] = N::store(own * b + rest);                                                                  \
      out[3 * i + 2] = N::store(own * c + rest);                                                                  \
    }                                                                                                             \
  }                                                                                                               \
  GAN_CLONES void planes3_##NAME(T* __restrict out, const T* __restrict in, int64_t plane, int64_t n,             \
                               W_##NAME own, W_##NAME share, W_##NAME constant) {                                 \
    using N = gancore::Number<T>;                                                                                 \
    for (int64_t i = 0; i < n; ++i) {                                                                             \
      W_##NAME a = N::load(in[i]), b = N::load(in[i + plane]), c = N::load(in[i + 2 * plane]);                    \
      W_##NAME rest = share * (a + b + c) + constant;                                                             \
      out[i] = N::store(own * a + rest);                                                                          \
      out[i + plane] = N::store(own * b + rest);                                                                  \
      out[i + 2 * plane] = N::store(own * c + rest);                                                              \
    }                                                                                                             \
  }                                                                                                               \
  struct Type_##NAME {                                                                                            \
    using T_ = T;                                                                                                 \
    using W = W_##NAME;                                                                                           \
    static constexpr auto sum = sum_##NAME;                                                                       \
    static constexpr auto scale = scale_##NAME;                                                                   \
    static constexpr auto pixels3 = pixels3_##NAME;                                                               \
    static constexpr auto planes3 = planes3_##NAME;                                                               \
  };

STRETCHES(float, f32)
STRETCHES(double, f64)
STRETCHES(gancore::Bf16, bf16)
STRETCHES(Half, f16)

// The columns of an output row that come from the image: up to two stretches.
struct Columns {
  int64_t begin[2], end[2];
  int count = 0;

  void add(int64_t from, int64_t to) {
    if (from < to) {
      begin[count] = from;
      end[count++] = to;
    }
  }
};

Columns columns_of(const Stage& stage, int64_t row, int64_t height, int64_t width) {
  Columns found;
  if (row + stage.rows < 0 || row + stage.rows >= height) return found;
  int64_t from = std::max<int64_t>(0, -stage.columns), to = std::min(width, width - stage.columns);
  if (!stage.cuts_row(row)) {
    found.add(from, to);
    return found;
  }
  int64_t moved = stage.cut_out ? 0 : stage.columns;
  found.add(from, std::min(to, stage.left - moved));
  found.add(std::max(from, stage.right - moved), to);
  return found;
}

struct Shape {
  int64_t channels, height, width;
  bool last;  // channels last in memory
};

template <typename K>
class Image {
  using T = typename K::T_;
  using W = typename K::W;

 public:
  Image(const T* in, T* out, const Shape& shape, const Map<W>& map)
      : in_(in), out_(out), shape_(shape), map_(map) {}

  void run() {
    constant_ = map_.offset;
    if (map_.mean != W(0)) constant_ += map_.mean * mean();
    for (int64_t row = 0; row < shape_.height; ++row) run_row(row);
  }

 private:
  W mean() const {
    int64_t size = shape_.channels * shape_.height * shape_.width;
    double total = 0;
    if (map_.first.keeps_all()) {
      for (int64_t i = 0; i < size; i += kBlock) total += K::sum(in_ + i, std::min(kBlock, size - i));
      return static_cast<W>(total / static_cast<double>(size));
    }
    for (int64_t row = 0; row < shape_.height; ++row) {
      Columns kept = columns_of(map_.first, row, shape_.height, shape_.width);
      for (int i = 0; i < kept.count; ++i) {
        int64_t column = kept.begin[i] + map_.first.columns, n = kept.end[i] - kept.begin[i];
        if (shape_.last) {
          total += K::sum(in_ + at(0, row + map_.first.rows, column), n * shape_.channels);
        } else {
          for (int64_t c = 0; c < shape_.channels; ++c)
            total += K::sum(in_ + at(c, row + map_.first.rows, column), n);
        }
      }
    }
    return static_cast<W>(total / static_cast<double>(size));
  }

  void run_row(int64_t row) {
    Columns kept = columns_of(map_.second, row, shape_.height, shape_.width);
    int64_t done = 0;
    for (int i = 0; i < kept.count; ++i) {
      fill(row, done, kept.begin[i], W(0));
      colour(row, kept.begin[i], kept.end[i]);
      done = kept.end[i];
    }
    fill(row, done, shape_.width, W(0));
  }

  // Output columns [begin, end) of a row, which lie in the image after colour.
  void colour(int64_t row, int64_t begin, int64_t end) {
    int64_t middle = row + map_.second.rows, moved = map_.second.columns;
    Columns kept = columns_of(map_.first, middle, shape_.height, shape_.width);
    int64_t done = begin;
    for (int i = 0; i < kept.count; ++i) {
      int64_t from = std::max(begin, kept.begin[i] - moved), to = std::min(end, kept.end[i] - moved);
      if (from >= to) continue;
      fill(row, done, from, constant_);
      stretch(row, from, to - from, middle + map_.first.rows, from + moved + map_.first.columns);
      done = to;
    }
    fill(row, done, end, constant_);
  }

  void stretch(int64_t row, int64_t column, int64_t n, int64_t from_row, int64_t from_column) {
    const T* in = in_ + at(0, from_row, from_column);
    T* out = out_ + at(0, row, column);
    int64_t channels = shape_.channels, plane = shape_.height * shape_.width;
    W share = map_.grey / static_cast<W>(channels);
    if (map_.grey == W(0)) {
      int64_t runs = shape_.last ? 1 : channels, length = shape_.last ? n * channels : n;
      for (int64_t c = 0; c < runs; ++c) K::scale(out + c * plane, in + c * plane, length, map_.own, constant_);
    } else if (channels != 3) {
      pixels(out, in, n, share);
    } else if (shape_.last) {
      K::pixels3(out, in, n, map_.own, share, constant_);
    } else {
      K::planes3(out, in, plane, n, map_.own, share, constant_);
    }
  }

  // Any number of channels.
  void pixels(T* out, const T* in, int64_t n, W share) {
    using N = gancore::Number<T>;
    int64_t step = shape_.last ? shape_.channels : 1, next = shape_.last ? 1 : shape_.height * shape_.width;
    for (int64_t i = 0; i < n; ++i, in += step, out += step) {
      W total = 0;
      for (int64_t c = 0; c < shape_.channels; ++c) total += N::load(in[c * next]);
      for (int64_t c = 0; c < shape_.channels; ++c)
        out[c * next] = N::store(map_.own * N::load(in[c * next]) + share * total + constant_);
    }
  }

  void fill(int64_t row, int64_t begin, int64_t end, W value) {
    if (begin >= end) return;
    T stored = gancore::Number<T>::store(value);
    if (shape_.last) {
      std::fill_n(out_ + at(0, row, begin), (end - begin) * shape_.channels, stored);
    } else {
      for (int64_t c = 0; c < shape_.channels; ++c) std::fill_n(out_ + at(c, row, begin), end - begin, stored);
    }
  }

  int64_t at(int64_t c, int64_t row, int64_t column) const {
    int64_t pixel = row * shape_.width + column;
    return shape_.last ? pixel * shape_.channels + c : c * shape_.height * shape_.width + pixel;
  }

  const T* in_;
  T* out_;
  const Shape& shape_;
  const Map<W>& map_;
  W constant_ = 0;
};

Tensor affine(const Tensor& images, const Tensor& colour, const Tensor& place, double brightness, double saturation,
              double contrast, int64_t cut_rows, int64_t cut_columns, int64_t spatial, bool transposed,
              bool offset) {
  check(images, colour, place);
  int64_t count = images.size(0);
  bool last = is_channels_last(images);
  Tensor in = last ? images : torch::stable::contiguous(images);
  Tensor values = torch::stable::contiguous(colour), places = torch::stable::contiguous(place);
  Tensor out = torch::stable::empty_like(in);
  Shape shape{images.size(1), images.size(2), images.size(3), last};
  int64_t size = shape.channels * shape.height * shape.width;
  if (count * size == 0) return out;

  auto run = [&](auto kind) {
    using K = decltype(kind);
    using T = typename K::T_;
    using W = typename K::W;
    const T* from = reinterpret_cast<const T*>(in.data_ptr());
    T* to = reinterpret_cast<T*>(out.data_ptr());
    gancore::advise_huge_pages(to, static_cast<size_t>(count * size) * sizeof(T));
    const double* drawn = reinterpret_cast<const double*>(values.data_ptr());
    const int64_t* where = reinterpret_cast<const int64_t*>(places.data_ptr());
    torch::stable::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
      for (int64_t b = begin; b < end; ++b) {
        W uniform[3] = {W(drawn[3 * b]), W(drawn[3 * b + 1]), W(drawn[3 * b + 2])};
        Map<W> map = map_of<W>(uniform, where + 4 * b, W(brightness), W(saturation), W(contrast), cut_rows,
                               cut_columns, spatial, transposed, offset);
        Image<K>(from + b * size, to + b * size, shape, map).run();
      }
    });
  };
  switch (images.scalar_type()) {
    case ScalarType::Float: run(Type_f32{}); break;
    case ScalarType::Double: run(Type_f64{}); break;
    case ScalarType::BFloat16: run(Type_bf16{}); break;
    case ScalarType::Half: run(Type_f16{}); break;
    default: STD_TORCH_CHECK(false, "images: expected float32, float64, bfloat16 or float16");
  }
  return out;
}

}  // namespace
}  // namespace diffaugment

STABLE_TORCH_LIBRARY_IMPL(gancore_diffaugment, CPU, m) { m.impl("affine", TORCH_BOX(&diffaugment::affine)); }
