// Convolutions of signs with signs: 3x3, stride S, one row of zeros around. See binary_conv.py.
//
// Maps are bfloat16, channels last: of I channels before, (images, height, width, I), of O after;
// weights (O, I, 3, 3) floats +-1. Heights and widths are those of the map before.
// Forward: XNOR and popcount, exact. Back: gradients are rounded to 8 bits per image, at random so
// that their expectation stays, and multiplied with signs in sums of 32 bits.

#pragma once

#include "walks.h"

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VBMI__) && \
    defined(__AVX512VNNI__) && defined(__AVX512VPOPCNTDQ__) && defined(__AVX512BF16__)
#include <immintrin.h>
#define HAVE_CONVOLUTIONS 1

namespace {

using byte = uint8_t;
constexpr int V = 16;  // channels to a vector
constexpr uint32_t GOLDEN = 0x9E3779B9;  // of 2^32: multiples of it are spread evenly

struct Extent {
  int height, width;
  int pixels() const { return height * width; }
  int padded() const { return (height + 2) * (width + 2); }
  Extent after(int stride) const { return {height / stride, width / stride}; }
};

inline int32_t word_at(const void* p) {
  int32_t x;
  std::memcpy(&x, p, 4);
  return x;
}

inline void store_bf16(bf16* to, __m512 x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to),
                      reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(x)));
}

// Signs as bits, 1 for +1: rows of (width + 2) * C bits, and a word more to read beyond the end.
template <int C>
struct Bits {
  Extent at;
  int row;  // bytes
  std::vector<byte> bits;

  explicit Bits(Extent at) : at(at), row((at.width + 2) * C / 8 + 4), bits(row * (at.height + 2)) {}

  void fill(const bf16* x) {
    for (int h = 0; h < at.height; h++)
      for (int k = 0; k < at.width * C; k += 32) {
        const uint32_t negative = _mm512_movepi16_mask(_mm512_loadu_si512(x));
        const uint32_t positive = ~negative;
        std::memcpy(&bits[(h + 1) * row + (C + k) / 8], &positive, 4);
        x += 32;
      }
  }
};

template <int I, int O, int S>
struct Signs {
  static constexpr int VECTORS = O / V;
  static constexpr int WORDS = (3 * I + 31) / 32;  // of a row of three taps
  static constexpr int PIXELS = 4;

  alignas(64) uint32_t weights[3][WORDS][O] = {};  // [row][word][output]
  alignas(64) int32_t base[9][O];  // sums of the taps inside, by the place of the pixel

  explicit Signs(const float* w) {
    int32_t of_tap[9][O] = {};
    for (int o = 0; o < O; o++)
      for (int i = 0; i < I; i++)
        for (int tap = 0; tap < 9; tap++) {
          const bool one = *w++ > 0;
          const int bit = tap % 3 * I + i;
          weights[tap / 3][bit / 32][o] |= uint32_t(one) << (bit % 32);
          of_tap[tap][o] += one ? 1 : -1;
        }
    // A tap outside reads bits 0, which is -1: it adds -of_tap, taken away here.
    for (int place = 0; place < 9; place++)
      for (int o = 0; o < O; o++) {
        base[place][o] = 9 * I;
        for (int tap = 0; tap < 9; tap++)
          if (outside(place / 3, tap / 3) || outside(place % 3, tap % 3))
            base[place][o] += of_tap[tap][o];
      }
  }

  // place 0: first row or column, 2: last, 1: between; a tap of the last is outside if S is 1
  static bool outside(int place, int tap) { return place != 1 && place == tap; }
  static int place(int k, int count) { return k == 0 ? 0 : S == 1 && k == count - 1 ? 2 : 1; }

  void convolve(const Bits<I>& x, bf16* y) const {
    const Extent to = x.at.after(S);
    const __m512i half = _mm512_set1_epi32(0xffff);
    for (int h = 0; h < to.height; h++)
      for (int w = 0; w < to.width; w += PIXELS)
        for (int v = 0; v < VECTORS; v++) {
          __m512i differ[PIXELS] = {};
          for (int r = 0; r < 3; r++) {
            const byte* from = &x.bits[(S * h + r) * x.row + S * w * I / 8];
#pragma GCC unroll 6
            for (int k = 0; k < WORDS; k++) {
              const __m512i weight = _mm512_load_si512(&weights[r][k][v * V]);
#pragma GCC unroll 4
              for (int p = 0; p < PIXELS; p++) {
                const __m512i word = _mm512_set1_epi32(word_at(from + S * p * I / 8 + 4 * k));
                const bool partial = 32 * (k + 1) > 3 * I;
                const __m512i other = partial
                    ? _mm512_ternarylogic_epi32(word, weight, half, 0x28)  // (a ^ b) & c
                    : _mm512_xor_si512(word, weight);
                differ[p] = _mm512_add_epi32(differ[p], _mm512_popcnt_epi32(other));
              }
            }
          }
#pragma GCC unroll 4
          for (int p = 0; p < PIXELS; p++) {
            const int where = 3 * place(h, to.height) + place(w + p, to.width);
            const __m512i sum = _mm512_sub_epi32(_mm512_load_si512(&base[where][v * V]),
                                                 _mm512_slli_epi32(differ[p], 1));
            store_bf16(y + ((h * to.width + w + p) * O + v * V), _mm512_cvtepi32_ps(sum));
          }
        }
  }
};

// The gradient of an image in 8 bits: value = scale * byte.
template <int C, int S>
struct Gradient {
  Extent before, at;
  float scale = 0;
  std::vector<int8_t> bytes;   // (height, width, C)
  std::vector<byte> padded;    // the same + 128, S apart, with 128 between and around

  explicit Gradient(Extent before)
      : before(before), at(before.after(S)), bytes(at.pixels() * C),
        padded(before.padded() * C, 128) {}

  void fill(const bf16* g, uint32_t seed) {
    const int count = at.pixels() * C;
    __m512i most = _mm512_setzero_si512();
    for (int k = 0; k < count; k += 32)
      most = _mm512_max_epu16(most, _mm512_and_si512(_mm512_loadu_si512(g + k),
                                                     _mm512_set1_epi16(0x7fff)));
    alignas(64) bf16 each[32];
    _mm512_store_si512(each, most);
    uint32_t greatest = 0;
    for (bf16 x : each) greatest = x > greatest ? x : greatest;
    greatest <<= 16;
    float limit;
    std::memcpy(&limit, &greatest, 4);
    scale = limit / 127;
    const float inverse = limit > 1e-30f ? 127 / limit : 0.0f;
    alignas(64) uint32_t first[V];
    for (int k = 0; k < V; k++) first[k] = seed + k * GOLDEN;
    __m512i random = _mm512_load_si512(first);
    const __m512i step = _mm512_set1_epi32(V * GOLDEN);
    const __m512 factor = _mm512_set1_ps(inverse * 65536);
    const __m128i middle = _mm_set1_epi8(-128);
    int8_t* plain = bytes.data();
    for (int h = 0; h < at.height; h++) {
      byte* row = &padded[((S * h + 1) * (before.width + 2) + 1) * C];
      for (int k = 0; k < at.width * C; k += V, g += V, plain += V) {
        byte* inside = row + (S == 1 ? k : S * (k / C) * C + k % C);
        const __m256i narrow = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(g));
        const __m512 wide = reinterpret_cast<__m512>(
            _mm512_slli_epi32(_mm512_cvtepu16_epi32(narrow), 16));
        const __m512i fixed = _mm512_cvtps_epi32(_mm512_mul_ps(wide, factor));
        const __m512i up = _mm512_add_epi32(fixed, _mm512_srli_epi32(random, 16));
        const __m128i rounded = _mm512_cvtepi32_epi8(_mm512_srai_epi32(up, 16));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(plain), rounded);
        _mm_storeu_si128(reinterpret_cast<__m128i*>(inside), _mm_xor_si128(rounded, middle));
        random = _mm512_add_epi32(random, step);
      }
    }
  }
};

// Gradient of the features: the convolution of the gradient with the weights turned round.
template <int I, int O, int S>
struct OfFeatures {
  static constexpr int VECTORS = I / V;
  static constexpr int PIXELS = I == 16 && S == 1 ? 8 : 4;

  alignas(64) int8_t weights[9][O / 4][I][4];  // [tap of the gradient][outputs / 4][input][output]
  alignas(64) int32_t base[S * S][I];  // takes the 128 away that every byte has too much

  explicit OfFeatures(const float* w) {
    std::memset(base, 0, sizeof base);
    for (int o = 0; o < O; o++)
      for (int i = 0; i < I; i++)
        for (int tap = 0; tap < 9; tap++) {
          const int one = *w++ > 0 ? 1 : -1;
          weights[8 - tap][o / 4][i][o % 4] = int8_t(one);
          for (int place = 0; place < S * S; place++)
            if (!between(place / S, place % S, 8 - tap)) base[place][i] -= 128 * one;
        }
  }

  void convolve(const Gradient<O, S>& g, bf16* result) const {
    const int height = g.before.height, width = g.before.width;
    const __m512 scale = _mm512_set1_ps(g.scale);
    for (int h = 0; h < height; h++)
      for (int w = 0; w < width; w += S * PIXELS)
        for (int phase = 0; phase < S; phase++) block(g, h, w + phase, scale, result);
  }

  // Whether this tap of a pixel has no gradient: they are S apart.
  static bool between(int h, int w, int tap) {
    return (h + tap / 3 + 1) % S || (w + tap % 3 + 1) % S;
  }

  // PIXELS of a row from w on, S apart; so taps between two gradients are the same for all.
  void block(const Gradient<O, S>& g, int h, int w, __m512 scale, bf16* result) const {
    const int width = g.before.width;
    __m512i sum[PIXELS][VECTORS];
#pragma GCC unroll 8
    for (int p = 0; p < PIXELS; p++)
#pragma GCC unroll 4
      for (int v = 0; v < VECTORS; v++)
        sum[p][v] = _mm512_load_si512(&base[h % S * S + w % S][v * V]);
    for (int tap = 0; tap < 9; tap++) {
      const byte* from = &g.padded[((h + tap / 3) * (width + 2) + w + tap % 3) * O];
      for (int k = 0; k < (between(h, w, tap) ? 0 : O / 4); k++) {
        __m512i weight[VECTORS];
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; v++) weight[v] = _mm512_load_si512(&weights[tap][k][v * V]);
#pragma GCC unroll 8
        for (int p = 0; p < PIXELS; p++) {
          const __m512i four = _mm512_set1_epi32(word_at(from + S * p * O + 4 * k));
#pragma GCC unroll 4
          for (int v = 0; v < VECTORS; v++)
            sum[p][v] = _mm512_dpbusd_epi32(sum[p][v], four, weight[v]);
        }
      }
    }
#pragma GCC unroll 8
    for (int p = 0; p < PIXELS; p++)
#pragma GCC unroll 4
      for (int v = 0; v < VECTORS; v++)
        store_bf16(result + ((h * width + w + S * p) * I + v * V),
                   _mm512_mul_ps(scale, _mm512_cvtepi32_ps(sum[p][v])));
  }
};

// Four bytes of each channel in a row: from[k * C + c] -> result[4 * c + k], of V channels.
inline __m512i interleaved(const void* first, int stride) {
  alignas(64) static constexpr struct Order {
    byte at[64];
    constexpr Order() : at() {
      for (int k = 0; k < 64; k++) at[k] = byte(k % 4 * V + k / 4);
    }
  } order;
  const byte* from = static_cast<const byte*>(first);
  const auto four = [&](int k) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + k * stride));
  };
  __m512i all = _mm512_castsi128_si512(four(0));
  all = _mm512_inserti32x4(all, four(1), 1);
  all = _mm512_inserti32x4(all, four(2), 2);
  all = _mm512_inserti32x4(all, four(3), 3);
  return _mm512_permutexvar_epi8(_mm512_load_si512(order.at), all);
}

// Gradient of the weights, in sums over four pixels of a row at a time.
template <int I, int O, int S>
struct OfWeights {
  static constexpr int VECTORS = O / V;
  static constexpr int INPUTS = 8 / VECTORS;  // at a time

  Extent at, after;
  int quads;                   // of a row after
  std::vector<byte> padded;    // signs + 1, with 1 around: (height + 2, width + 2, I)
  std::vector<byte> features;  // [row of padded][column tap][quad][input][pixel]
  std::vector<int8_t> grads;   // [row][quad][output][pixel]
  std::vector<float> sums;     // [tap][input][output]
  float excess[O] = {};        // of every sum, as each sign has one too much

  explicit OfWeights(Extent at)
      : at(at), after(at.after(S)), quads(after.width / 4), padded(at.padded() * I, 1),
        features((at.height + 2) * 3 * quads * I * 4), grads(after.pixels() * O), sums(9 * I * O) {
    for (int r : {0, at.height + 1}) arrange(r);
  }

  void arrange(int r) {
    byte* to = &features[r * 3 * quads * I * 4];
    for (int column = 0; column < 3; column++)
      for (int q = 0; q < quads; q++)
        for (int i = 0; i < I; i += V, to += 64) {
          const int first = r * (at.width + 2) + 4 * S * q + column;
          _mm512_storeu_si512(to, interleaved(&padded[first * I + i], S * I));
        }
  }

  void add(const bf16* x, const Gradient<O, S>& g) {
    for (int h = 0; h < at.height; h++) {
      byte* to = &padded[((h + 1) * (at.width + 2) + 1) * I];
      for (int k = 0; k < at.width * I; k += 32, x += 32) {
        const __mmask32 negative = _mm512_movepi16_mask(_mm512_loadu_si512(x));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + k),
                            _mm256_maskz_set1_epi8(~negative, 2));
      }
      arrange(h + 1);
    }
    __m512i total[VECTORS] = {};
    int8_t* to = grads.data();
    for (int p = 0; p < after.pixels(); p += 4)
#pragma GCC unroll 4
      for (int v = 0; v < VECTORS; v++, to += 64) {
        const __m512i four = interleaved(&g.bytes[p * O + v * V], O);
        _mm512_storeu_si512(to, four);
        total[v] = _mm512_dpbusd_epi32(total[v], _mm512_set1_epi8(1), four);
      }
    const __m512 scale = _mm512_set1_ps(g.scale);
    for (int v = 0; v < VECTORS; v++) accumulate(&excess[v * V], total[v], scale);
    for (int r = 0; r < 3; r++)
      for (int i = 0; i < I; i += INPUTS) products(r, i, scale);
  }

  static void accumulate(float* to, __m512i sum, __m512 scale) {
    _mm512_storeu_ps(to, _mm512_fmadd_ps(scale, _mm512_cvtepi32_ps(sum), _mm512_loadu_ps(to)));
  }

  void products(int r, int first, __m512 scale) {
    __m512i sum[3][INPUTS][VECTORS] = {};
    const int8_t* grad = grads.data();
    for (int h = 0; h < after.height; h++) {
      const byte* row = &features[(S * h + r) * 3 * quads * I * 4 + 4 * first];
      for (int q = 0; q < quads; q++, grad += 4 * O) {
        __m512i of_outputs[VECTORS];
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; v++) of_outputs[v] = _mm512_loadu_si512(grad + 64 * v);
#pragma GCC unroll 3
        for (int column = 0; column < 3; column++)
#pragma GCC unroll 8
          for (int i = 0; i < INPUTS; i++) {
            const byte* from = row + (column * quads + q) * I * 4 + 4 * i;
            const __m512i four = _mm512_set1_epi32(word_at(from));
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; v++)
              sum[column][i][v] = _mm512_dpbusd_epi32(sum[column][i][v], four, of_outputs[v]);
          }
      }
    }
#pragma GCC unroll 3
    for (int column = 0; column < 3; column++)
#pragma GCC unroll 8
      for (int i = 0; i < INPUTS; i++)
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; v++)
          accumulate(&sums[((3 * r + column) * I + first + i) * O + v * V], sum[column][i][v],
                     scale);
  }

  void finish(float* result) const {
    for (int o = 0; o < O; o++)
      for (int i = 0; i < I; i++)
        for (int tap = 0; tap < 9; tap++)
          *result++ = sums[(tap * I + i) * O + o] - excess[o];
  }
};

}  // namespace
#else
#define HAVE_CONVOLUTIONS 0
#endif
