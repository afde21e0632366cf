// ADA's parameters of one image, for every processor: uniform and normal numbers become gated values, these the
// matrices of geometry and colour. As sampling.py, geometry.py and color.py do it for a batch, op after op.
#pragma once

#include <cmath>
#include <cstdint>

#include <gancore/number.h>

namespace ada {

constexpr int kUniforms = 29, kNormals = 12, kOps = 15, kStrengths = 16;

// Columns of the uniform numbers: values first, then the gate. See UNIFORMS in sampling.py.
enum : int {
  kUXflip = 0,
  kURotate90 = 2,
  kUXint = 4,
  kUScale = 7,
  kUPreRotation = 8,
  kUAniso = 10,
  kUPostRotation = 11,
  kUXfrac = 13,
  kUBrightness = 14,
  kUContrast = 15,
  kULumaflip = 16,
  kUHue = 18,
  kUSaturation = 20,
  kUBands = 21,
  kUSigma = 25,
  kUCutout = 26,
};

// Columns of the normal numbers. See NORMALS.
enum : int {
  kNScale = 0,
  kNAniso = 1,
  kNXfrac = 2,
  kNBrightness = 4,
  kNContrast = 5,
  kNSaturation = 6,
  kNBands = 7,
  kNSigma = 11,
};

// What all images of a batch share. Multipliers are those of OPS, in that order, 0 where an op takes no part.
struct Settings {
  struct {
    float xflip, rotate90, xint, scale, rotate, aniso, xfrac, brightness, contrast, lumaflip, hue, saturation,
        imgfilter, noise, cutout;
  } multiplier;
  // Strengths in the order of the class, angles in radians.
  struct {
    float xint, scale, rotate, aniso, xfrac, brightness, contrast, hue, saturation, bands[4], imgfilter, noise,
        cutout;
  } strength;
  float width, height;
  bool exact;  // flips, quarter turns and whole shifts in a matrix of their own
};

// Where the results of a batch go: (B, 3, 3), (B, 3, 3), (B, 4, 4), (B, 4), (B,), (B, 4).
template <typename W>
struct Results {
  W *blit, *geometry, *colour, *bands, *sigma, *cutout;
};

// The upper two rows of a homogeneous matrix (3, 3).
template <typename W>
struct Plane {
  W a = 1, b = 0, c = 0, d = 0, e = 1, f = 0;

  GAN_HD Plane then(const Plane& o) const {
    return {a * o.a + b * o.d, a * o.b + b * o.e, a * o.c + b * o.f + c,
            d * o.a + e * o.d, d * o.b + e * o.e, d * o.c + e * o.f + f};
  }
  GAN_HD void write(W* to) const {
    W all[9] = {a, b, c, d, e, f, 0, 0, 1};
    for (int i = 0; i < 9; ++i) to[i] = all[i];
  }
};

template <typename W>
GAN_HD Plane<W> scaling(W x, W y) {
  return {x, 0, 0, 0, y, 0};
}

template <typename W>
GAN_HD Plane<W> turning(W cosine, W sine) {
  return {cosine, -sine, 0, sine, cosine, 0};
}

template <typename W>
GAN_HD Plane<W> shifting(W x, W y) {
  return {1, 0, x, 0, 1, y};
}

// The upper three rows of a homogeneous matrix (4, 4).
template <typename W>
struct Space {
  W m[3][4] = {{1, 0, 0, 0}, {0, 1, 0, 0}, {0, 0, 1, 0}};

  // first, then this.
  GAN_HD Space after(const Space& first) const {
    Space total;
    for (int i = 0; i < 3; ++i)
      for (int j = 0; j < 4; ++j)
        total.m[i][j] = m[i][0] * first.m[0][j] + m[i][1] * first.m[1][j] + m[i][2] * first.m[2][j] +
                        (j == 3 ? m[i][3] : W(0));
    return total;
  }
  GAN_HD void write(W* to) const {
    for (int i = 0; i < 16; ++i) to[i] = i < 12 ? m[i / 4][i % 4] : W(i == 15);
  }
};

// along * v v^T + across * (I - v v^T) + turned * [v]_x with v the grey axis.
template <typename W>
GAN_HD Space<W> about_grey(W along, W across, W turned) {
  W diagonal = (along + 2 * across) / 3, other = (along - across) / 3;
  W twist = turned * W(0.57735026918962576451);
  Space<W> s;
  for (int i = 0; i < 3; ++i)
    for (int j = 0; j < 3; ++j)
      s.m[i][j] = i == j ? diagonal : ((j - i + 3) % 3 == 1 ? other - twist : other + twist);
  return s;
}

// Image b of the batch. uniforms: (B, kUniforms), normals: (B, kNormals). p: the strength.
template <typename W>
GAN_HD void compose_image(const Settings& settings, const float* uniforms, const float* normals, float p, int64_t b,
                          const Results<W>& results) {
  const auto& by = settings.multiplier;
  const auto& strength = settings.strength;
  const float* u = uniforms + b * kUniforms;
  const float* n = normals + b * kNormals;

  bool moved = u[kUXint + 2] < p * by.xint, nudged = u[kUXfrac] < p * by.xfrac;
  float either = 1 - p * by.rotate;
  either = 1 - std::sqrt(either < 0 ? 0.0f : (either > 1 ? 1.0f : either));

  W mirror = u[kUXflip + 1] < p * by.xflip ? W(1 - 2 * std::floor(u[kUXflip] * 2)) : W(1);
  W turns = u[kURotate90 + 1] < p * by.rotate90 ? W(std::floor(u[kURotate90] * 4)) : W(0);
  W right = moved ? W(std::rint((u[kUXint] * 2 - 1) * strength.xint * settings.width)) : W(0);
  W down = moved ? W(std::rint((u[kUXint + 1] * 2 - 1) * strength.xint * settings.height)) : W(0);
  W scale = u[kUScale] < p * by.scale ? W(std::exp2(n[kNScale] * strength.scale)) : W(1);
  W before = u[kUPreRotation + 1] < either ? W((u[kUPreRotation] * 2 - 1) * strength.rotate) : W(0);
  W aniso = u[kUAniso] < p * by.aniso ? W(std::exp2(n[kNAniso] * strength.aniso)) : W(1);
  W after = u[kUPostRotation + 1] < either ? W((u[kUPostRotation] * 2 - 1) * strength.rotate) : W(0);
  W along_x = nudged ? W(n[kNXfrac] * strength.xfrac * settings.width) : W(0);
  W along_y = nudged ? W(n[kNXfrac + 1] * strength.xfrac * settings.height) : W(0);

  Plane<W> blit = scaling(mirror, W(1))
                      .then(turning(std::fabs(turns - 2) - 1, 1 - std::fabs(turns - 1)))
                      .then(shifting(-right, -down));
  Plane<W> geometry = scaling(1 / scale, 1 / scale)
                          .then(turning(std::cos(before), std::sin(before)))
                          .then(scaling(1 / aniso, aniso))
                          .then(turning(std::cos(after), std::sin(after)))
                          .then(shifting(-along_x, -along_y));
  blit.write(results.blit + 9 * b);
  (settings.exact ? geometry : blit.then(geometry)).write(results.geometry + 9 * b);

  W added = u[kUBrightness] < p * by.brightness ? W(n[kNBrightness] * strength.brightness) : W(0);
  W contrast = u[kUContrast] < p * by.contrast ? W(std::exp2(n[kNContrast] * strength.contrast)) : W(1);
  W flipped = u[kULumaflip + 1] < p * by.lumaflip ? W(std::floor(u[kULumaflip] * 2)) : W(0);
  W hue = u[kUHue + 1] < p * by.hue ? W((u[kUHue] * 2 - 1) * strength.hue) : W(0);
  W saturation = u[kUSaturation] < p * by.saturation ? W(std::exp2(n[kNSaturation] * strength.saturation)) : W(1);
  Space<W> colour;
  for (int i = 0; i < 3; ++i) {
    colour.m[i][i] = contrast;
    colour.m[i][3] = contrast * added;
  }
  colour = about_grey(1 - 2 * flipped, W(1), W(0)).after(colour);
  colour = about_grey(W(1), std::cos(hue), std::sin(hue)).after(colour);
  colour = about_grey(W(1), saturation, W(0)).after(colour);
  colour.write(results.colour + 16 * b);

  // Of an image with a spectrum of 1/f, the lowest band has 10/13 of the power and the others 1/13 each.
  float gains[4] = {1, 1, 1, 1};
  for (int band = 0; band < 4; ++band) {
    bool open = u[kUBands + band] < p * by.imgfilter * strength.bands[band];
    float gain = open ? std::exp2(n[kNBands + band] * strength.imgfilter) : 1.0f;
    float power = 0;
    for (int i = 0; i < 4; ++i) {
      float share = i == 0 ? float(10.0 / 13) : float(1.0 / 13);
      power += share * (i == band ? gain * gain : 1.0f);
    }
    for (int i = 0; i < 4; ++i) gains[i] *= (i == band ? gain : 1.0f) / std::sqrt(power);
  }
  for (int i = 0; i < 4; ++i) results.bands[4 * b + i] = W(gains[i]);

  results.sigma[b] = u[kUSigma] < p * by.noise ? W(std::fabs(n[kNSigma]) * strength.noise) : W(0);
  W size = u[kUCutout + 2] < p * by.cutout ? W(strength.cutout) : W(0);
  W cutout[4] = {W(u[kUCutout]), W(u[kUCutout + 1]), size, size};
  for (int i = 0; i < 4; ++i) results.cutout[4 * b + i] = cutout[i];
}

}  // namespace ada
