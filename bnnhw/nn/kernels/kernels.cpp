// The kernels as functions of C. See kernels.py, binary_conv.py and fused.py.

#include <memory>

#include "binary_conv.h"
#include "walks.h"

#if HAVE_CONVOLUTIONS
namespace {

// The walks of a map of C channels.
template <int C>
struct Walk {
  Rows rows;
  std::vector<float> threshold;
  std::vector<bf16> signs;

  Walk(Extent at, const float* given) : rows(at.pixels(), C) {
    if (!given) return;
    threshold = rows.spread(given, 1);
    signs.resize(at.pixels() * C);
  }

  const bf16* signs_of(const bf16* x) {
    if (threshold.empty()) return x;
    dispatch<Above>(rows.width, x, signs.data(), rows.count, threshold.data());
    return signs.data();
  }
};

template <int I, int O, int S>
void convolve_all(const bf16* x, const float* threshold, const float* w, bf16* y, double* sums,
                  long images, Extent at) {
  const Extent after = at.after(S);
  const Signs<I, O, S> weights(w);
  Bits<I> bits(at);
  Walk<I> walk(at, threshold);
  const Rows rows(after.pixels(), O);
  std::vector<double> wide_sums(2 * rows.width);
  for (long n = 0; n < images; n++, x += at.pixels() * I, y += after.pixels() * O) {
    bits.fill(walk.signs_of(x));
    weights.convolve(bits, y);
    if (sums) dispatch<Moments>(rows.width, y, rows.count, wide_sums.data());
  }
  if (sums) rows.gather(wide_sums, sums, 2);
}

// What goes back into a convolution: g, or where there is a batch norm g * k[0] + y * k[1] + k[2].
// `around`: g is a gradient of x, too, by the shortcut.
struct Grad {
  const bf16 *g, *y;
  const float* norm;
  bool around;
};

template <int I, int O, int S>
void back_all(Grad grad, const bf16* x, const float* threshold, bool triangle, const float* w,
              bf16* of_x, float* of_w, double* of_threshold, long images, Extent at,
              uint32_t seed) {
  const Extent after = at.after(S);
  const long before = at.pixels() * I, count = after.pixels() * O;
  std::unique_ptr<const OfFeatures<I, O, S>> of_features;
  if (of_x) of_features = std::make_unique<const OfFeatures<I, O, S>>(w);
  Gradient<O, S> gradient(at);
  OfWeights<I, O, S> of_weights(at);
  Walk<I> walk(at, threshold);
  const Rows rows(after.pixels(), O);
  const auto norm = grad.norm ? rows.spread(grad.norm, 3) : std::vector<float>();
  std::vector<bf16> of_sums(count), of_signs(before);
  std::vector<double> wide_sums(walk.rows.width);
  for (long n = 0; n < images; n++, x += before) {
    const bf16* g = grad.g + n * count;
    if (grad.norm)
      dispatch<Affine>(rows.width, g, grad.y + n * count, of_sums.data(), rows.count,
                       norm.data());
    gradient.fill(grad.norm ? of_sums.data() : g, seed + uint32_t(n) * 0x85EBCA6B);
    of_weights.add(walk.signs_of(x), gradient);
    if (!of_x) continue;
    of_features->convolve(gradient, threshold ? of_signs.data() : of_x);
    if (threshold)
      dispatch<AboveBack>(walk.rows.width, of_signs.data(), x, grad.around ? g : nullptr, of_x,
                          walk.rows.count, walk.threshold.data(), triangle, wide_sums.data());
    of_x += before;
  }
  of_weights.finish(of_w);
  if (threshold) walk.rows.gather(wide_sums, of_threshold, 1);
}

// The template's instance for these channels and stride; nullptr for others.
#define INSTANCE(name, before, after, stride)                        \
  (stride == 1 && before == 16 && after == 16   ? name<16, 16, 1>    \
   : stride == 1 && before == 48 && after == 16 ? name<48, 16, 1>    \
   : stride == 1 && before == 96 && after == 16 ? name<96, 16, 1>    \
   : stride == 1 && before == 32 && after == 32 ? name<32, 32, 1>    \
   : stride == 1 && before == 64 && after == 64 ? name<64, 64, 1>    \
   : stride == 2 && before == 16 && after == 32 ? name<16, 32, 2>    \
   : stride == 2 && before == 32 && after == 64 ? name<32, 64, 2>    \
                                                : nullptr)

}  // namespace
#endif

extern "C" {

// sums (2, channels): of y and of its squares.
void moments(const bf16* y, long pixels, int channels, double* sums) {
  const Rows rows(pixels, channels);
  std::vector<double> wide(2 * rows.width);
  dispatch<Moments>(rows.width, y, rows.count, wide.data());
  rows.gather(wide, sums, 2);
}

void forward(const bf16* y, const bf16* stream, bf16* result, long pixels, int channels,
             const float* k, float step, float low, float high) {
  const Rows rows(pixels, channels);
  const auto wide = rows.spread(k, 6);
  dispatch<Forward>(rows.width, y, stream, result, rows.count, Channel(wide.data(), rows.width),
                    Rounding(step, low, high));
}

void backward(const bf16* grad, const bf16* y, const bf16* stream, bf16* inner, long pixels,
              int channels, const float* k, double* sums, float step, float low, float high) {
  const Rows rows(pixels, channels);
  const auto wide = rows.spread(k, 6);
  std::vector<double> wide_sums(5 * rows.width);
  dispatch<Backward>(rows.width, grad, y, stream, inner, rows.count,
                     Channel(wide.data(), rows.width), Rounding(step, low, high),
                     wide_sums.data());
  rows.gather(wide_sums, sums, 5);
}

// a * of_a + b * of_b + constant, each of a channel.
void affine(const bf16* a, const bf16* b, bf16* result, long pixels, int channels,
            const float* k) {
  const Rows rows(pixels, channels);
  const auto wide = rows.spread(k, 3);
  dispatch<Affine>(rows.width, a, b, result, rows.count, wide.data());
}

// clamp(floor(x / step + 1/2), low, high) * step, of any map.
void quantise(const bf16* __restrict x, bf16* __restrict y, long count, float step, float low,
              float high) {
  const Rounding round(step, low, high);
  for (long i = 0; i < count; i++) y[i] = narrow(round(widen(x[i])));
}

void sign(const bf16* __restrict x, bf16* __restrict y, long count) {
  for (long i = 0; i < count; i++) y[i] = (x[i] > 0x8000 ? 0xbf80 : 0x3f80);  // -0 is +1
}

// +1 where x is not below its channel's threshold, -1 elsewhere
void above(const bf16* x, bf16* y, long pixels, int channels, const float* threshold) {
  const Rows rows(pixels, channels);
  const auto wide = rows.spread(threshold, 1);
  dispatch<Above>(rows.width, x, y, rows.count, wide.data());
}

// grad * max(0, 2 - 2 |x - threshold|), and its sums (channels)
void above_back(const bf16* grad, const bf16* x, bf16* y, long pixels, int channels,
                const float* threshold, double* sums) {
  const Rows rows(pixels, channels);
  const auto wide = rows.spread(threshold, 1);
  std::vector<double> wide_sums(rows.width);
  const bf16* none = nullptr;
  dispatch<AboveBack>(rows.width, grad, x, none, y, rows.count, wide.data(), true,
                      wide_sums.data());
  rows.gather(wide_sums, sums, 1);
}

// grad where low <= x <= high, else 0
void between(const bf16* __restrict grad, const bf16* __restrict x, bf16* __restrict y,
             long count, float low, float high) {
  for (long i = 0; i < count; i++) {
    const float value = widen(x[i]);
    y[i] = value >= low && value <= high ? grad[i] : bf16(0);
  }
}

// grad * max(0, 2 - 2 |x|)
void triangle(const bf16* __restrict grad, const bf16* __restrict x, bf16* __restrict y,
              long count) {
  for (long i = 0; i < count; i++)
    y[i] = narrow(widen(grad[i]) * std::max(0.0f, 2.0f - 2.0f * widen(x[i] & 0x7fff)));
}

#if HAVE_CONVOLUTIONS
// Shapes for which there are convolutions.
int convolves(long before, long after, long stride) {
  return INSTANCE(convolve_all, before, after, stride) != nullptr;
}

// y: the convolution of x's signs, of its signs above thresholds where there are any.
// sums (2, channels), if any: of y and of its squares. before, after: channels; height, width: of x
void convolve(const bf16* x, const float* threshold, const float* w, bf16* y, double* sums,
              long images, long before, long height, long width, long after, long stride) {
  const Extent at{int(height), int(width)};
  INSTANCE(convolve_all, before, after, stride)(x, threshold, w, y, sums, images, at);
}

// Gradients of the features (unless of_x is null), the weights, and where there are any the
// thresholds: then of x, with the slope of the triangle or of ste. g, y, norm, around: see Grad.
// seed: of the rounding.
void convolve_back(const bf16* g, const bf16* y, const float* norm, long around, const bf16* x,
                   const float* threshold, long triangle, const float* w, bf16* of_x, float* of_w,
                   double* of_threshold, long images, long before, long height, long width,
                   long after, long stride, long seed) {
  const Extent at{int(height), int(width)};
  INSTANCE(back_all, before, after, stride)
  ({g, y, norm, around != 0}, x, threshold, triangle != 0, w, of_x, of_w, of_threshold, images, at,
   uint32_t(seed));
}
#else
int convolves(long, long, long) { return 0; }
#endif
}
