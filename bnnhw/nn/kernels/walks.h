// What a layer does beside its convolution, each in one walk over memory.
//
// Maps are bfloat16, channels last: `pixels` rows of `channels`. Numbers of a channel are float.
// Sums are of float over at most RUN pixels, and of double over these.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

using bf16 = uint16_t;
constexpr long RUN = 256;

inline float widen(bf16 x) {
  uint32_t bits = uint32_t(x) << 16;
  float y;
  std::memcpy(&y, &bits, 4);
  return y;
}

inline bf16 narrow(float x) {  // to nearest, ties to even; no NaN comes here that must stay one
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  return bf16((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

// Rows of LANES values are what registers hold best, so narrow maps are walked several pixels at a
// time: `Rows` says how many, and the numbers of channels are repeated, their sums added up.
constexpr int LANES = 64;

struct Rows {
  int repeats;
  long count;
  int width;

  Rows(long pixels, int channels) {
    const bool fits = LANES % channels == 0 && pixels % (LANES / channels) == 0;
    repeats = fits ? LANES / channels : 1;
    count = pixels / repeats;
    width = channels * repeats;
  }

  // `k` of `lists` times `channels` numbers
  std::vector<float> spread(const float* k, int lists) const {
    const int channels = width / repeats;
    std::vector<float> result(lists * width);
    for (int i = 0; i < lists * width; i++)
      result[i] = k[i / width * channels + i % width % channels];
    return result;
  }

  void gather(const std::vector<double>& sums, double* result, int lists) const {
    const int channels = width / repeats;
    for (int i = 0; i < lists * width; i++)
      result[i / width * channels + i % width % channels] += sums[i];
  }
};

template <template <int> class Kernel, typename... Args>
void dispatch(int width, Args... args) {
  if (width == LANES) return Kernel<LANES>::run(width, args...);
  Kernel<0>::run(width, args...);
}

// add(first, last, part) adds what these rows have to the `count` numbers at `part`; sums gets all.
template <typename Add>
void in_runs(long rows, int count, double* sums, Add add) {
  std::vector<float> part(count);
  for (long start = 0; start < rows; start += RUN) {
    std::fill(part.begin(), part.end(), 0.0f);
    add(start, std::min(rows, start + RUN), part.data());
    for (int c = 0; c < count; c++) sums[c] += part[c];
  }
}

template <int C>
struct Moments {
  static void run(int width, const bf16* y, long rows, double* sums) {
    const int n = C ? C : width;
    in_runs(rows, 2 * n, sums, [=](long start, long end, float* __restrict first) {
      float* __restrict second = first + n;
      for (long p = start; p < end; p++)
        for (int c = 0; c < n; c++) {
          const float value = widen(y[p * n + c]);
          first[c] += value;
          second[c] += value * value;
        }
    });
  }
};

// The stream's rounding, half up, and its limits in steps; no rounding where `inverse` is 0.
struct Rounding {
  float step, inverse, low, high;

  Rounding(float step, float low, float high)
      : step(step), inverse(step > 0 ? 1 / step : 0), low(low), high(high) {}

  float whole(float x) const { return __builtin_floorf(x * inverse + 0.5f); }
  float operator()(float x) const { return std::min(std::max(whole(x), low), high) * step; }
  bool within(float x) const { return whole(x) > low && whole(x) < high; }
};

// Per channel: slope, offset of batch norm; below, above, in, out of the activation.
struct Channel {
  const float *slope, *offset, *below, *above, *in, *out;

  Channel(const float* k, int n)
      : slope(k), offset(k + n), below(k + 2 * n), above(k + 3 * n), in(k + 4 * n),
        out(k + 5 * n) {}
};

template <int C>
struct Forward {
  static void run(int width, const bf16* __restrict y, const bf16* __restrict stream,
                  bf16* __restrict result, long rows, Channel k, Rounding round) {
    const int n = C ? C : width;
    for (long p = 0; p < rows; p++)
      for (int c = 0; c < n; c++) {
        float u = widen(y[p * n + c]) * k.slope[c] + k.offset[c];
        if (stream) u += widen(stream[p * n + c]);
        u -= k.in[c];
        const float v = std::min(u, 0.0f) * k.below[c] + std::max(u, 0.0f) * k.above[c];
        result[p * n + c] = narrow(round.inverse ? round(v + k.out[c]) : v + k.out[c]);
      }
  }
};

// grad: of the result. inner: of what goes into the activation, the shortcut's too.
// sums (5, channels): of inner, of inner * y, of grad * min(u, 0), of grad * max(u, 0), of grad.
template <int C>
struct Backward {
  static void run(int width, const bf16* __restrict grad, const bf16* __restrict y,
                  const bf16* __restrict stream, bf16* __restrict inner, long rows, Channel k,
                  Rounding round, double* sums) {
    const int n = C ? C : width;
    in_runs(rows, 5 * n, sums, [=](long start, long end, float* __restrict s) {
      for (long p = start; p < end; p++)
        for (int c = 0; c < n; c++) {
          const float value = widen(y[p * n + c]);
          float u = value * k.slope[c] + k.offset[c];
          if (stream) u += widen(stream[p * n + c]);
          u -= k.in[c];
          const float below = std::min(u, 0.0f), above = std::max(u, 0.0f);
          const float v = below * k.below[c] + above * k.above[c] + k.out[c];
          const bool passes = !round.inverse || round.within(v);
          const float g = passes ? widen(grad[p * n + c]) : 0.0f;
          const float du = g * (u > 0.0f ? k.above[c] : k.below[c]);
          inner[p * n + c] = narrow(du);
          s[c] += du;
          s[n + c] += du * value;
          s[2 * n + c] += g * below;
          s[3 * n + c] += g * above;
          s[4 * n + c] += g;
        }
    });
  }
};

template <int C>
struct Affine {
  static void run(int width, const bf16* __restrict a, const bf16* __restrict b,
                  bf16* __restrict result, long rows, const float* __restrict k) {
    const int n = C ? C : width;
    const float *of_a = k, *of_b = k + n, *constant = k + 2 * n;
    for (long p = 0; p < rows; p++)
      for (int c = 0; c < n; c++)
        result[p * n + c] =
            narrow(widen(a[p * n + c]) * of_a[c] + widen(b[p * n + c]) * of_b[c] + constant[c]);
  }
};

template <int C>
struct Above {
  static void run(int width, const bf16* __restrict x, bf16* __restrict y, long rows,
                  const float* __restrict threshold) {
    const int n = C ? C : width;
    for (long p = 0; p < rows; p++)
      for (int c = 0; c < n; c++)
        y[p * n + c] = widen(x[p * n + c]) >= threshold[c] ? 0x3f80 : 0xbf80;
  }
};

// The gradient of sign(x - threshold): that of `grad` times the surrogate's slope, to which `more`
// is added where there is any. sums (channels): of what was multiplied.
template <int C>
struct AboveBack {
  static void run(int width, const bf16* __restrict grad, const bf16* __restrict x,
                  const bf16* __restrict more, bf16* __restrict y, long rows,
                  const float* __restrict threshold, bool triangle, double* sums) {
    const int n = C ? C : width;
    in_runs(rows, n, sums, [=](long start, long end, float* __restrict s) {
      for (long p = start; p < end; p++)
        for (int c = 0; c < n; c++) {
          const float distance = std::abs(widen(x[p * n + c]) - threshold[c]);
          const float slope =
              triangle ? std::max(0.0f, 2.0f - 2.0f * distance) : distance <= 1.0f ? 1.0f : 0.0f;
          const float g = widen(grad[p * n + c]) * slope;
          y[p * n + c] = narrow(more ? g + widen(more[p * n + c]) : g);
          s[c] += g;
        }
    });
  }
};

}  // namespace
