// The blocks of the CUDA kernels, run by a team of one thread: tests call this by name.
#include "block.h"

#include <memory>

namespace {

struct Alone {
  template <typename F>
  void each(int count, F function) const {
    for (int i = 0; i < count; ++i) function(i);
  }
};

template <typename T>
void run(ada::Problem problem, const T* in, T* out, ada::Draws<T> draws) {
  constexpr int side = ada::kSide<T>;
  auto shared = std::make_unique<ada::Shared<T>>();
  std::unique_ptr<T[]> points;
  if (problem.transposed) {
    points.reset(new T[problem.count * problem.channels * problem.points_y() * problem.points_x()]);
    for (int64_t b = 0; b < problem.count; ++b)
      for (int i = 0; i < problem.points_y(); ++i)
        for (int j = 0; j < problem.points_x(); ++j) ada::spread_point(problem, in, draws, points.get(), b, i, j);
  }
  for (int64_t b = 0; b < problem.count; ++b)
    for (int y = 0; y < problem.squares_y(side); ++y)
      for (int x = 0; x < problem.squares_x(side); ++x) {
        if (problem.transposed) {
          ada::transposed_block(problem, in, draws, points.get(), out, b, y, x, *shared, Alone());
        } else {
          ada::forward_block(problem, in, draws, out, b, y, x, *shared, Alone());
        }
      }
}

}  // namespace

#define RUN(NAME, T)                                                                                              \
  extern "C" __attribute__((visibility("default"))) void NAME(                                                    \
      int64_t count, int channels, int height, int width, int last, int transposed, int offset, const T* in,     \
      T* out, const T* geometry, const T* colour, const T* cutout) {                                             \
    run<T>({count, channels, {height}, {width}, last != 0, transposed != 0, offset != 0}, in, out,                \
           {geometry, colour, cutout});                                                                           \
  }

RUN(run_float, float)
RUN(run_double, double)
