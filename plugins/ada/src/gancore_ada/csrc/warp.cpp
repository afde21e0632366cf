// ADA on the CPU: geometry, colour and cutout of an image in one go, or their transpose.
#include "binding.h"
#include "resample.h"

#include <gancore/half.h>
#include <torch/csrc/stable/library.h>

namespace ada {
namespace {

namespace numbers_f32 {
using W = float;
#include "loops.h"
}  // namespace numbers_f32

namespace numbers_f64 {
using W = double;
#include "loops.h"
}  // namespace numbers_f64

namespace stored_f32 {
using T = float;
using W = float;
#include "rows.h"
}  // namespace stored_f32

namespace stored_f64 {
using T = double;
using W = double;
#include "rows.h"
}  // namespace stored_f64

namespace stored_bf16 {
using T = gancore::Bf16;
using W = float;
#include "rows.h"
}  // namespace stored_bf16

namespace stored_f16 {
using T = torch::headeronly::Half;
using W = float;
#include "rows.h"
}  // namespace stored_f16

// The loops in numbers of a type, for colours (4) or grey (1).
#define NUMBERS(NAME, FROM, LANES)                              \
  struct NAME {                                                 \
    using W = FROM::W;                                          \
    static constexpr int kLanes = LANES;                        \
    static constexpr auto combine6 = FROM::combine6;            \
    static constexpr auto combine7 = FROM::combine7;            \
    static constexpr auto combine12 = FROM::combine12;          \
    static constexpr auto pick = FROM::pick##LANES;             \
    static constexpr auto add = FROM::add##LANES;               \
    static constexpr auto locate = FROM::locate;                \
    static constexpr auto look = FROM::look##LANES;             \
    static constexpr auto spread = FROM::spread##LANES;         \
    static constexpr auto interleave = FROM::interleave##LANES; \
    static constexpr auto separate = FROM::separate##LANES;     \
    static constexpr auto colour = FROM::colour##LANES;         \
  };

NUMBERS(Colours32, numbers_f32, 4)
NUMBERS(Colours64, numbers_f64, 4)
NUMBERS(Greys32, numbers_f32, 1)
NUMBERS(Greys64, numbers_f64, 1)

// The loops for a stored type.
#define STORED(NAME, FROM, NUMBERS, LANES)            \
  struct NAME : NUMBERS {                             \
    using Numbers = NUMBERS;                          \
    using T = FROM::T;                                \
    static constexpr auto load = FROM::load##LANES;   \
    static constexpr auto store = FROM::store##LANES; \
  };

STORED(ColourF32, stored_f32, Colours32, 4)
STORED(ColourF64, stored_f64, Colours64, 4)
STORED(ColourBf16, stored_bf16, Colours32, 4)
STORED(ColourF16, stored_f16, Colours32, 4)
STORED(GreyF32, stored_f32, Greys32, 1)
STORED(GreyF64, stored_f64, Greys64, 1)
STORED(GreyBf16, stored_bf16, Greys32, 1)
STORED(GreyF16, stored_f16, Greys32, 1)

// What is done to one image; null for what is left out.
template <typename W>
struct Parts {
  const W *geometry, *colour, *cutout;
  bool transposed, offset;
};

template <typename K>
class Image {
  using T = typename K::T;
  using W = typename K::W;

 public:
  // last: channels last in memory.
  Image(int height, int width, bool last) : rows_{height}, columns_{width}, plane_(last ? 0 : pixels()) {}

  void run(const T* in, T* out, const Parts<W>& parts) {
    W* image = scratch_.in.take(pixels() * K::kLanes);
    K::load(image, in, plane_, pixels());
    if (parts.transposed) {
      cut(image, parts);
      colour(image, parts);
    }
    if (parts.geometry) {
      Lookup<W> look = lookup_of(parts.geometry);
      W* turned = parts.transposed ? scratch_.out.zeros(pixels() * K::kLanes)
                                   : scratch_.out.take(pixels() * K::kLanes);
      Resampler<typename K::Numbers>(look, rows_, columns_, scratch_).run(image, turned, parts.transposed);
      image = turned;
    }
    if (!parts.transposed) {
      colour(image, parts);
      cut(image, parts);
    }
    K::store(out, image, plane_, pixels());
  }

 private:
  int64_t pixels() const { return int64_t(rows_.size) * columns_.size; }

  void colour(W* image, const Parts<W>& parts) const {
    if (parts.colour)
      K::colour(image, colour_of(parts.colour, K::kLanes == 1, parts.transposed, parts.offset), pixels());
  }

  void cut(W* image, const Parts<W>& parts) const {
    if (!parts.cutout) return;
    const W* cutout = parts.cutout;
    int begin = columns_.size, end = 0;
    for (int x = 0; x < columns_.size; ++x) {
      if (!is_cut(x, columns_, cutout[0], cutout[2])) continue;
      begin = std::min(begin, x);
      end = x + 1;
    }
    if (begin >= end) return;
    for (int y = 0; y < rows_.size; ++y)
      if (is_cut(y, rows_, cutout[1], cutout[3]))
        std::fill_n(image + (int64_t(y) * columns_.size + begin) * K::kLanes, (end - begin) * K::kLanes, W(0));
  }

  Axis rows_, columns_;
  int64_t plane_;
  Scratch<W> scratch_;
};

Tensor warp(const Tensor& images, const Tensor& geometry, const Tensor& colour, const Tensor& cutout,
            bool transposed, bool offset) {
  check_warp(images, geometry, colour, cutout, transposed, offset);
  bool last = is_channels_last(images);
  Tensor in = last ? images : torch::stable::contiguous(images);
  Tensor matrices = torch::stable::contiguous(geometry), colours = torch::stable::contiguous(colour);
  Tensor cuts = torch::stable::contiguous(cutout);
  Tensor out = torch::stable::empty_like(in);
  int64_t count = images.size(0), size = images.size(1) * images.size(2) * images.size(3);
  if (count * size == 0) return out;

  auto run = [&](auto kind) {
    using K = decltype(kind);
    using T = typename K::T;
    using W = typename K::W;
    const T* from = reinterpret_cast<const T*>(in.data_ptr());
    T* to = reinterpret_cast<T*>(out.data_ptr());
    gancore::advise_huge_pages(to, static_cast<size_t>(count * size) * sizeof(T));
    auto part = [](const Tensor& given, int64_t b, int64_t length) {
      return given.numel() ? reinterpret_cast<const W*>(given.data_ptr()) + b * length : nullptr;
    };
    torch::stable::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
      Image<K> image(static_cast<int>(images.size(2)), static_cast<int>(images.size(3)), last);
      for (int64_t b = begin; b < end; ++b)
        image.run(from + b * size, to + b * size,
                  {part(matrices, b, 9), part(colours, b, 16), part(cuts, b, 4), transposed, offset});
    });
  };
  bool grey = images.size(1) == 1;
  switch (images.scalar_type()) {
    case ScalarType::Float: grey ? run(GreyF32{}) : run(ColourF32{}); break;
    case ScalarType::Double: grey ? run(GreyF64{}) : run(ColourF64{}); break;
    case ScalarType::BFloat16: grey ? run(GreyBf16{}) : run(ColourBf16{}); break;
    case ScalarType::Half: grey ? run(GreyF16{}) : run(ColourF16{}); break;
    default: STD_TORCH_CHECK(false, "images: expected float32, float64, bfloat16 or float16");
  }
  return out;
}

}  // namespace
}  // namespace ada

STABLE_TORCH_LIBRARY_IMPL(gancore_ada, CPU, m) { m.impl("warp", TORCH_BOX(&ada::warp)); }
