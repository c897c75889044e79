// What a layer does beside its convolution, each in one walk over memory. See kernels.py.
//
// Maps are bfloat16, channels last: `pixels` rows of `channels`. Numbers of a channel are float.
// Sums are of float over at most RUN pixels, and of double over these.

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

template <int C>
struct Moments {
  static void run(int width, const bf16* y, long rows, double* sums) {
    const int n = C ? C : width;
    std::vector<float> part(2 * n);
    float* __restrict first = part.data();
    float* __restrict second = first + n;
    for (long start = 0; start < rows; start += RUN) {
      std::fill(part.begin(), part.end(), 0.0f);
      const long end = std::min(rows, start + RUN);
      for (long p = start; p < end; p++)
        for (int c = 0; c < n; c++) {
          const float value = widen(y[p * n + c]);
          first[c] += value;
          second[c] += value * value;
        }
      for (int c = 0; c < 2 * n; c++) sums[c] += part[c];
    }
  }
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
                  bf16* __restrict result, long rows, Channel k) {
    const int n = C ? C : width;
    for (long p = 0; p < rows; p++)
      for (int c = 0; c < n; c++) {
        float u = widen(y[p * n + c]) * k.slope[c] + k.offset[c];
        if (stream) u += widen(stream[p * n + c]);
        u -= k.in[c];
        const float v = std::min(u, 0.0f) * k.below[c] + std::max(u, 0.0f) * k.above[c];
        result[p * n + c] = narrow(v + k.out[c]);
      }
  }
};

// grad: of the result. inner: of what goes into the activation, the shortcut's too.
// sums (5, channels): of inner, of inner * y, of grad * min(u, 0), of grad * max(u, 0), of grad.
template <int C>
struct Backward {
  static void run(int width, const bf16* __restrict grad, const bf16* __restrict y,
                  const bf16* __restrict stream, bf16* __restrict inner, long rows, Channel k,
                  double* sums) {
    const int n = C ? C : width;
    std::vector<float> part(5 * n);
    float* __restrict s = part.data();
    for (long start = 0; start < rows; start += RUN) {
      std::fill(part.begin(), part.end(), 0.0f);
      const long end = std::min(rows, start + RUN);
      for (long p = start; p < end; p++)
        for (int c = 0; c < n; c++) {
          const float g = widen(grad[p * n + c]), value = widen(y[p * n + c]);
          float u = value * k.slope[c] + k.offset[c];
          if (stream) u += widen(stream[p * n + c]);
          u -= k.in[c];
          const float du = g * (u > 0.0f ? k.above[c] : k.below[c]);
          inner[p * n + c] = narrow(du);
          s[c] += du;
          s[n + c] += du * value;
          s[2 * n + c] += g * std::min(u, 0.0f);
          s[3 * n + c] += g * std::max(u, 0.0f);
          s[4 * n + c] += g;
        }
      for (int c = 0; c < 5 * n; c++) sums[c] += s[c];
    }
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

template <int C>
struct AboveBack {
  static void run(int width, const bf16* __restrict grad, const bf16* __restrict x,
                  bf16* __restrict y, long rows, const float* __restrict threshold,
                  double* sums) {
    const int n = C ? C : width;
    std::vector<float> part(n);
    float* __restrict s = part.data();
    for (long start = 0; start < rows; start += RUN) {
      std::fill(part.begin(), part.end(), 0.0f);
      const long end = std::min(rows, start + RUN);
      for (long p = start; p < end; p++)
        for (int c = 0; c < n; c++) {
          const float distance = std::abs(widen(x[p * n + c]) - threshold[c]);
          const float g = widen(grad[p * n + c]) * std::max(0.0f, 2.0f - 2.0f * distance);
          y[p * n + c] = narrow(g);
          s[c] += g;
        }
      for (int c = 0; c < n; c++) sums[c] += s[c];
    }
  }
};

}  // namespace

extern "C" {

// sums (2, channels): of y and of its squares.
void moments(const bf16* y, long pixels, int channels, double* sums) {
  const Rows rows(pixels, channels);
  std::vector<double> wide(2 * rows.width);
  dispatch<Moments>(rows.width, y, rows.count, wide.data());
  rows.gather(wide, sums, 2);
}

void forward(const bf16* y, const bf16* stream, bf16* result, long pixels, int channels,
             const float* k) {
  const Rows rows(pixels, channels);
  const auto wide = rows.spread(k, 6);
  dispatch<Forward>(rows.width, y, stream, result, rows.count, Channel(wide.data(), rows.width));
}

void backward(const bf16* grad, const bf16* y, const bf16* stream, bf16* inner, long pixels,
              int channels, const float* k, double* sums) {
  const Rows rows(pixels, channels);
  const auto wide = rows.spread(k, 6);
  std::vector<double> wide_sums(5 * rows.width);
  dispatch<Backward>(rows.width, grad, y, stream, inner, rows.count,
                     Channel(wide.data(), rows.width), wide_sums.data());
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
  const float inverse = 1.0f / step;
  for (long i = 0; i < count; i++) {
    const float whole = __builtin_floorf(widen(x[i]) * inverse + 0.5f);
    y[i] = narrow(std::min(std::max(whole, low), high) * step);
  }
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
  dispatch<AboveBack>(rows.width, grad, x, y, rows.count, wide.data(), wide_sums.data());
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
}
