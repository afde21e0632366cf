// The inner loops in numbers of type W. Included once a type, since only plain functions are compiled for several
// processors. Images are pixels of four numbers (three channels and one that is unused), or of one (grey).

typedef W Four __attribute__((vector_size(4 * sizeof(W))));

// even = sum of evens[t] * in[t], odd = sum of odds[t] * in[t] over six lines of n numbers.
GAN_CLONES void combine6(W* __restrict even, W* __restrict odd, const W* const* in, const W* evens, const W* odds,
                         int64_t n) {
  const W *a = in[0], *b = in[1], *c = in[2], *d = in[3], *e = in[4], *f = in[5];
  W ea = evens[0], eb = evens[1], ec = evens[2], ed = evens[3], ee = evens[4], ef = evens[5];
  W oa = odds[0], ob = odds[1], oc = odds[2], od = odds[3], oe = odds[4], of = odds[5];
  for (int64_t i = 0; i < n; ++i) {
    even[i] = (ea * a[i] + eb * b[i]) + (ec * c[i] + ed * d[i]) + (ee * e[i] + ef * f[i]);
    odd[i] = (oa * a[i] + ob * b[i]) + (oc * c[i] + od * d[i]) + (oe * e[i] + of * f[i]);
  }
}

// The same over seven lines, of which even takes the last six and odd the first.
GAN_CLONES void combine7(W* __restrict even, W* __restrict odd, const W* const* in, const W* evens, const W* odds,
                         int64_t n) {
  const W *a = in[0], *b = in[1], *c = in[2], *d = in[3], *e = in[4], *f = in[5], *g = in[6];
  W ea = evens[0], eb = evens[1], ec = evens[2], ed = evens[3], ee = evens[4], ef = evens[5];
  W oa = odds[0], ob = odds[1], oc = odds[2], od = odds[3], oe = odds[4], of = odds[5];
  for (int64_t i = 0; i < n; ++i) {
    even[i] = (ea * b[i] + eb * c[i]) + (ec * d[i] + ed * e[i]) + (ee * f[i] + ef * g[i]);
    odd[i] = (oa * a[i] + ob * b[i]) + (oc * c[i] + od * d[i]) + (oe * e[i] + of * f[i]);
  }
}

// out = sum of weights[t] * in[t] over twelve lines.
GAN_CLONES void combine12(W* __restrict out, const W* const* in, const W* weights, int64_t n) {
  const W *a = in[0], *b = in[1], *c = in[2], *d = in[3], *e = in[4], *f = in[5];
  const W *g = in[6], *h = in[7], *j = in[8], *k = in[9], *l = in[10], *m = in[11];
  W wa = weights[0], wb = weights[1], wc = weights[2], wd = weights[3], we = weights[4], wf = weights[5];
  W wg = weights[6], wh = weights[7], wj = weights[8], wk = weights[9], wl = weights[10], wm = weights[11];
  for (int64_t i = 0; i < n; ++i)
    out[i] = ((wa * a[i] + wb * b[i]) + (wc * c[i] + wd * d[i]) + (we * e[i] + wf * f[i])) +
             ((wg * g[i] + wh * h[i]) + (wj * j[i] + wk * k[i]) + (wl * l[i] + wm * m[i]));
}

// Where the points u, u + 1, ... of a row look, see place_of: x = across.step * u + across.start, y likewise.
// at: the first of the four fine pixels, where rows of `stride` begin at fine pixel (top, left).
GAN_CLONES void locate(int32_t* __restrict at, W* __restrict share_x, W* __restrict share_y, const Line<W>& across,
                       const Line<W>& along, W u, int32_t top, int32_t left, int32_t stride, int64_t n) {
  W step_x = across.step, start_x = across.start, low_x = across.low, high_x = across.high, top_x = high_x - 1;
  W step_y = along.step, start_y = along.start, low_y = along.low, high_y = along.high, top_y = high_y - 1;
  int32_t offset = (along.centre - top) * stride + across.centre - left;
  for (int64_t i = 0; i < n; ++i) {
    W point = u + static_cast<W>(static_cast<int32_t>(i));
    W x = step_x * point + start_x, y = step_y * point + start_y;
    x = x > low_x ? x : low_x;
    y = y > low_y ? y : low_y;
    x = x < high_x ? x : high_x;
    y = y < high_y ? y : high_y;
    W whole_x = std::floor(x), whole_y = std::floor(y);
    whole_x = whole_x < top_x ? whole_x : top_x;
    whole_y = whole_y < top_y ? whole_y : top_y;
    at[i] = static_cast<int32_t>(whole_y) * stride + static_cast<int32_t>(whole_x) + offset;
    share_x[i] = x - whole_x;
    share_y[i] = y - whole_y;
  }
}

// out[i] = pixel from[i] of a row, 0 where that is negative; and the transpose, which adds.
GAN_CLONES void pick4(W* __restrict out, const W* __restrict row, const int32_t* from, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    Four value = {};
    if (from[i] >= 0) value = reinterpret_cast<const Four*>(row)[from[i]];
    reinterpret_cast<Four*>(out)[i] = value;
  }
}

GAN_CLONES void pick1(W* __restrict out, const W* __restrict row, const int32_t* from, int64_t n) {
  for (int64_t i = 0; i < n; ++i) out[i] = from[i] < 0 ? W(0) : row[from[i]];
}

GAN_CLONES void add4(W* __restrict row, const W* __restrict added, const int32_t* to, int64_t n) {
  for (int64_t i = 0; i < n; ++i)
    if (to[i] >= 0) reinterpret_cast<Four*>(row)[to[i]] += reinterpret_cast<const Four*>(added)[i];
}

GAN_CLONES void add1(W* __restrict row, const W* __restrict added, const int32_t* to, int64_t n) {
  for (int64_t i = 0; i < n; ++i)
    if (to[i] >= 0) row[to[i]] += added[i];
}

// Points look up bilinearly: those of even number become `first`, the others `second`, n of each.
// at: the upper left of the four pixels. stride: pixels of a row.
GAN_CLONES void look4(W* __restrict first, W* __restrict second, const W* __restrict fine, const int32_t* at,
                      const W* x, const W* y, int64_t stride, int64_t n) {
  for (int64_t i = 0; i < 2 * n; ++i) {
    const Four* upper = reinterpret_cast<const Four*>(fine) + at[i];
    const Four* lower = upper + stride;
    Four left = upper[0] + (lower[0] - upper[0]) * y[i];
    Four right = upper[1] + (lower[1] - upper[1]) * y[i];
    Four* to = reinterpret_cast<Four*>(i % 2 == 0 ? first : second) + i / 2;
    *to = left + (right - left) * x[i];
  }
}

GAN_CLONES void look1(W* __restrict first, W* __restrict second, const W* __restrict fine, const int32_t* at,
                      const W* x, const W* y, int64_t stride, int64_t n) {
  for (int64_t half = 0; half < 2; ++half) {
    W* __restrict to = half == 0 ? first : second;
    for (int64_t k = 0; k < n; ++k) {
      int64_t i = 2 * k + half;
      const W* upper = fine + at[i];
      const W* lower = upper + stride;
      W left = upper[0] + (lower[0] - upper[0]) * y[i];
      W right = upper[1] + (lower[1] - upper[1]) * y[i];
      to[k] = left + (right - left) * x[i];
    }
  }
}

// The transpose: points are spread over the fine pixels that they look at.
GAN_CLONES void spread4(W* __restrict fine, const W* __restrict first, const W* __restrict second, const int32_t* at,
                        const W* x, const W* y, int64_t stride, int64_t n) {
  for (int64_t i = 0; i < 2 * n; ++i) {
    Four value = reinterpret_cast<const Four*>(i % 2 == 0 ? first : second)[i / 2];
    Four below = value * y[i], above = value - below;
    Four above_right = above * x[i], below_right = below * x[i];
    Four* upper = reinterpret_cast<Four*>(fine) + at[i];
    Four* lower = upper + stride;
    upper[0] += above - above_right;
    upper[1] += above_right;
    lower[0] += below - below_right;
    lower[1] += below_right;
  }
}

void spread1(W* __restrict fine, const W* __restrict first, const W* __restrict second, const int32_t* at,
             const W* x, const W* y, int64_t stride, int64_t n) {
  for (int64_t i = 0; i < 2 * n; ++i) {
    W value = (i % 2 == 0 ? first : second)[i / 2];
    W below = value * y[i], above = value - below;
    W above_right = above * x[i], below_right = below * x[i];
    W* upper = fine + at[i];
    W* lower = upper + stride;
    upper[0] += above - above_right;
    upper[1] += above_right;
    lower[0] += below - below_right;
    lower[1] += below_right;
  }
}

// Pixels in turns, and back.
GAN_CLONES void interleave4(W* __restrict out, const W* __restrict even, const W* __restrict odd, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    reinterpret_cast<Four*>(out)[2 * i] = reinterpret_cast<const Four*>(even)[i];
    reinterpret_cast<Four*>(out)[2 * i + 1] = reinterpret_cast<const Four*>(odd)[i];
  }
}

GAN_CLONES void interleave1(W* __restrict out, const W* __restrict even, const W* __restrict odd, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    out[2 * i] = even[i];
    out[2 * i + 1] = odd[i];
  }
}

GAN_CLONES void separate4(W* __restrict even, W* __restrict odd, const W* __restrict in, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    reinterpret_cast<Four*>(even)[i] = reinterpret_cast<const Four*>(in)[2 * i];
    reinterpret_cast<Four*>(odd)[i] = reinterpret_cast<const Four*>(in)[2 * i + 1];
  }
}

GAN_CLONES void separate1(W* __restrict even, W* __restrict odd, const W* __restrict in, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    even[i] = in[2 * i];
    odd[i] = in[2 * i + 1];
  }
}

// Colour of n pixels, in place.
GAN_CLONES void colour4(W* pixels, const Colour<W>& colour, int64_t n) {
  const auto& m = colour.linear;
  Four a = {m[0][0], m[1][0], m[2][0], 0}, b = {m[0][1], m[1][1], m[2][1], 0}, c = {m[0][2], m[1][2], m[2][2], 0};
  Four offset = {colour.offset[0], colour.offset[1], colour.offset[2], 0};
  Four* at = reinterpret_cast<Four*>(pixels);
  for (int64_t i = 0; i < n; ++i) {
    Four x = at[i];
    at[i] = (a * x[0] + b * x[1]) + (c * x[2] + offset);
  }
}

GAN_CLONES void colour1(W* pixels, const Colour<W>& colour, int64_t n) {
  for (int64_t i = 0; i < n; ++i) pixels[i] = colour.linear[0][0] * pixels[i] + colour.offset[0];
}
