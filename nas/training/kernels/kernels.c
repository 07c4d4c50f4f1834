/* Convolution, pooling, batch norm and dropout for training tiny networks on one core.

   Every feature map is [G][C][H][W][V]: the V images of a group lie side by side, one
   in each lane of a vector register. So every loop reads as if for one image and is
   as fast with 3 channels as with 64. The oracle of each function is torch's own
   (tests/test_kernels.py). A function that needs memory of its own returns whether it
   found none, and then has computed nothing. Gradients of weights are added to what is
   there, as layers may share their weights; `y` or `gx` may be the tensor that it is
   made of where each value follows from that at its own place. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef __AVX2__
#include <immintrin.h>
#endif

/* A tile of 4 x COLUMNS sums fills the registers of the machine. */
#ifdef __AVX512F__
enum { V = 16, COLUMNS = 6 };
#else
enum { V = 8, COLUMNS = 3 };
#endif
typedef float vec __attribute__((vector_size(4 * V), aligned(4), may_alias));
typedef int32_t mask __attribute__((vector_size(4 * V), aligned(4), may_alias));
typedef uint8_t bytes __attribute__((vector_size(V), aligned(1), may_alias));
typedef uint32_t words __attribute__((vector_size(4 * V)));
#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 8")

int lanes(void) { return V; }

static int least(int a, int b) { return a < b ? a : b; }
static int most(int a, int b) { return a > b ? a : b; }

INLINE vec where(mask m, vec a) { return (vec)((mask)a & m); }

/* `a` where `by` is positive, else 0; a NaN stays one, so that the loss tells. */
INLINE vec rectify(vec a, vec by) { return where(~(by <= 0), a); }

static double lane_sum(vec a) {
  double sum = 0;
  for (int v = 0; v < V; v++) sum += a[v];
  return sum;
}

/* ---- convolution ------------------------------------------------------------- */

/* One convolution, its taps `apart`; the gradient of the input is one, too, of an input
   whose values are `dilation` apart. */
typedef struct {
  int groups, in_channels, height, width;  /* of the input */
  int out_channels, out_height, out_width; /* of the output */
  int kernel_height, kernel_width, stride, above, beside, dilation, apart;
} shape;

static int padded_size(int size, int out, int kernel, int padding, const shape *s) {
  return most((out - 1) * s->stride + (kernel - 1) * s->apart + 1,
              padding + (size - 1) * s->dilation + 1);
}
static int padded_height(const shape *s) {
  return padded_size(s->height, s->out_height, s->kernel_height, s->above, s);
}
static int padded_width(const shape *s) {
  return padded_size(s->width, s->out_width, s->kernel_width, s->beside, s);
}

/* Copy [C][H][W] into zeros [C][Hp][Wp], its rows and columns `dilation` apart; what it
   leaves out stays 0 when the next one is copied over it. */
static void pad(const vec *x, vec *out, int C, int Hp, int Wp, const shape *s) {
  for (int c = 0; c < C; c++)
    for (int i = 0; i < s->height; i++, x += s->width) {
      vec *row = out + ((long)c * Hp + s->above + i * s->dilation) * Wp + s->beside;
      if (s->dilation == 1)
        memcpy(row, x, sizeof(vec) * s->width);
      else
        for (int j = 0; j < s->width; j++) row[j * s->dilation] = x[j];
    }
}

/* Where each tap of the kernel lies in the padded input; NULL without memory. */
static int *tap_offsets(int C, const shape *s, int Hp, int Wp) {
  int high = s->kernel_height, wide = s->kernel_width, apart = s->apart;
  int *offset = malloc(sizeof(int) * C * high * wide), *at = offset;
  for (int c = 0; offset && c < C; c++)
    for (int i = 0; i < high; i++)
      for (int j = 0; j < wide; j++) *at++ = (c * Hp + i * apart) * Wp + j * apart;
  return offset;
}

/* `rows` output channels at `columns` neighbouring places, summed over all taps. */
INLINE void output_tile(const vec *x, const int *offset, int taps, int stride,
                        const float *w, vec *y, long plane, int rows, int columns) {
  vec sum[4][COLUMNS];
  UNROLL for (int i = 0; i < rows; i++)
    UNROLL for (int j = 0; j < columns; j++) sum[i][j] = (vec){0};
  for (int t = 0; t < taps; t++) {
    const vec *at = x + offset[t];
    UNROLL for (int i = 0; i < rows; i++)
      UNROLL for (int j = 0; j < columns; j++)
        sum[i][j] += w[4 * t + i] * at[j * stride];
  }
  UNROLL for (int i = 0; i < rows; i++)
    UNROLL for (int j = 0; j < columns; j++) y[i * plane + j] = sum[i][j];
}

/* `rows` output channels at `columns` taps, summed over a band of the output. */
INLINE void weight_tile(const vec *x, const int *offset, int stride, int Wp,
                        const vec *g, long plane, int height, int width, vec *gw,
                        long taps, int rows, int columns) {
  vec sum[4][COLUMNS];
  UNROLL for (int i = 0; i < rows; i++)
    UNROLL for (int j = 0; j < columns; j++) sum[i][j] = gw[i * taps + j];
  for (int y = 0; y < height; y++)
    for (int k = 0; k < width; k++, g++) {
      const vec *at = x + ((long)y * Wp + k) * stride;
      UNROLL for (int i = 0; i < rows; i++)
        UNROLL for (int j = 0; j < columns; j++)
          sum[i][j] += g[i * plane] * at[offset[j]];
    }
  UNROLL for (int i = 0; i < rows; i++)
    UNROLL for (int j = 0; j < columns; j++) gw[i * taps + j] = sum[i][j];
}

/* Call a tile function with `rows` and `columns` as constants. */
#define COLUMNS_OF(function, rows, ...)                              \
  switch (columns) {                                                 \
    case 1: function(__VA_ARGS__, rows, 1); break;                   \
    case 2: function(__VA_ARGS__, rows, 2); break;                   \
    case 3: function(__VA_ARGS__, rows, 3); break;                   \
    case 4: function(__VA_ARGS__, rows, COLUMNS < 4 ? 1 : 4); break; \
    case 5: function(__VA_ARGS__, rows, COLUMNS < 5 ? 1 : 5); break; \
    case 6: function(__VA_ARGS__, rows, COLUMNS < 6 ? 1 : 6); break; \
  }
#define ROWS_OF(function, ...)                             \
  switch (rows) {                                          \
    case 1: COLUMNS_OF(function, 1, __VA_ARGS__) break;    \
    case 2: COLUMNS_OF(function, 2, __VA_ARGS__) break;    \
    case 3: COLUMNS_OF(function, 3, __VA_ARGS__) break;    \
    case 4: COLUMNS_OF(function, 4, __VA_ARGS__) break;    \
  }

/* The same convolution of images of one row, if it is 1x1 and has neither stride nor
   padding: long rows have fewer tiles that are not full. */
static shape in_one_row(const shape *s) {
  shape flat = *s;
  int same = s->height == s->out_height && s->width == s->out_width;
  if (s->kernel_height == 1 && s->kernel_width == 1 && s->stride == 1 && same) {
    flat.height = flat.out_height = 1;
    flat.width = flat.out_width = s->height * s->width;
  }
  return flat;
}

/* y = x * w: w [out][in][kh][kw], or with `transposed`, for the input's gradient,
   [in][out][kh][kw] turned by half a circle. */
int conv(const vec *x, const float *w, vec *y, const shape *given, int transposed) {
  const shape in_rows = in_one_row(given), *s = &in_rows;
  int Ci = s->in_channels, Co = s->out_channels, Ho = s->out_height, Wo = s->out_width;
  int area = s->kernel_height * s->kernel_width, taps = Ci * area;
  int Hp = padded_height(s), Wp = padded_width(s);
  int blocks = (Wo + COLUMNS - 1) / COLUMNS;
  int *offset = tap_offsets(Ci, s, Hp, Wp);
  float *packed = calloc((Co + 3) / 4 * 4 * taps, sizeof(float)); /* [Co/4][taps][4] */
  int frame = Hp != s->height || Wp != s->width || s->above || s->beside;
  vec *padded = frame ? calloc((long)Ci * Hp * Wp, sizeof(vec)) : NULL;
  int ready = offset && packed && (padded || !frame);
  for (int o = 0; ready && o < Co; o++)
    for (int c = 0; c < Ci; c++)
      for (int t = 0; t < area; t++)
        packed[(o / 4 * taps + c * area + t) * 4 + o % 4] =
            transposed ? w[(c * Co + o) * area + area - 1 - t]
                       : w[(o * Ci + c) * area + t];
  for (int g = 0; ready && g < s->groups; g++) {
    if (padded) pad(x, padded, Ci, Hp, Wp, s);
    const vec *in = padded ? padded : x;
    for (int i = 0; i < Ho; i++)
      for (int b = 0; b < blocks; b++) {
        int start = b * Wo / blocks, columns = (b + 1) * Wo / blocks - start;
        const vec *at = in + ((long)i * Wp + start) * s->stride;
        /* The processor follows some 32 maps by itself, not more. */
        for (int t = 0; area == 1 && Ci > 32 && t < Ci; t++)
          UNROLL for (int j = 0; j < COLUMNS; j++)
            __builtin_prefetch(at + offset[t] + columns + j);
        for (int c = 0; c < Co; c += 4) {
          int rows = least(4, Co - c);
          vec *to = y + ((long)c * Ho + i) * Wo + start;
          ROWS_OF(output_tile, at, offset, taps, s->stride, packed + (long)c * taps, to,
                  (long)Ho * Wo)
        }
      }
    x += (long)Ci * s->height * s->width;
    y += (long)Co * Ho * Wo;
  }
  free(padded);
  free(packed);
  free(offset);
  return !ready;
}

/* Add to gw [out][in][kh][kw] what the input x and the output's gradient g give. */
int conv_weight(const vec *x, const vec *g, float *gw, const shape *s) {
  int Ci = s->in_channels, Co = s->out_channels, Ho = s->out_height, Wo = s->out_width;
  int taps = Ci * s->kernel_height * s->kernel_width;
  int Hp = padded_height(s), Wp = padded_width(s);
  int blocks = (taps + COLUMNS - 1) / COLUMNS;
  int band = 1 + 64 / Wo; /* so many rows at a time stay in the cache */
  int *offset = tap_offsets(Ci, s, Hp, Wp);
  int frame = Hp != s->height || Wp != s->width || s->above || s->beside;
  vec *padded = frame ? calloc((long)Ci * Hp * Wp, sizeof(vec)) : NULL;
  vec *sums = calloc((long)Co * taps, sizeof(vec));
  int ready = offset && sums && (padded || !frame);
  for (int n = 0; ready && n < s->groups; n++) {
    if (padded) pad(x, padded, Ci, Hp, Wp, s);
    const vec *in = padded ? padded : x;
    for (int i = 0; i < Ho; i += band)
      for (int c = 0; c < Co; c += 4)
        for (int b = 0; b < blocks; b++) {
          int start = b * taps / blocks, columns = (b + 1) * taps / blocks - start;
          int rows = least(4, Co - c);
          const vec *at = in + (long)i * s->stride * Wp;
          const vec *from = g + ((long)c * Ho + i) * Wo;
          ROWS_OF(weight_tile, at, offset + start, s->stride, Wp, from, (long)Ho * Wo,
                  least(band, Ho - i), Wo, sums + (long)c * taps + start, (long)taps)
        }
    x += (long)Ci * s->height * s->width;
    g += (long)Co * Ho * Wo;
  }
  for (long i = 0; ready && i < (long)Co * taps; i++) gw[i] += lane_sum(sums[i]);
  free(sums);
  free(padded);
  free(offset);
  return !ready;
}

/* One channel at `rows` x `columns` places; the sums of several rows keep the processor
   busy, and a kernel of known size lets them share what they load. */
INLINE void depthwise_tile(const vec *x, int Wp, const float *w, vec *y, int Wo,
                           int kernel, int rows, int columns) {
  vec sum[2][COLUMNS];
  UNROLL for (int r = 0; r < rows; r++)
    UNROLL for (int j = 0; j < columns; j++) sum[r][j] = (vec){0};
  UNROLL for (int a = 0; a < kernel; a++)
    UNROLL for (int b = 0; b < kernel; b++)
      UNROLL for (int r = 0; r < rows; r++)
        UNROLL for (int j = 0; j < columns; j++)
          sum[r][j] += w[a * kernel + b] * x[(r + a) * Wp + j + b];
  UNROLL for (int r = 0; r < rows; r++)
    UNROLL for (int j = 0; j < columns; j++) y[r * Wo + j] = sum[r][j];
}

INLINE void depthwise_plane(const vec *x, int Wp, const float *w, vec *y, int Ho,
                            int Wo, int kernel) {
  int blocks = (Wo + COLUMNS - 1) / COLUMNS;
  for (int i = 0; i < Ho; i += 2)
    for (int b = 0; b < blocks; b++) {
      int start = b * Wo / blocks, columns = (b + 1) * Wo / blocks - start;
      const vec *at = x + (long)i * Wp + start;
      vec *to = y + (long)i * Wo + start;
      if (i + 1 < Ho)
        COLUMNS_OF(depthwise_tile, 2, at, Wp, w, to, Wo, kernel)
      else
        COLUMNS_OF(depthwise_tile, 1, at, Wp, w, to, Wo, kernel)
    }
}

/* As weight_tile, of one channel and all taps of a kernel of known size. */
INLINE void depthwise_weight_plane(const vec *x, int Wp, const vec *g, vec *gw, int Ho,
                                   int Wo, int kernel) {
  vec sum[5][5];
  UNROLL for (int a = 0; a < kernel; a++)
    UNROLL for (int b = 0; b < kernel; b++) sum[a][b] = gw[a * kernel + b];
  for (int i = 0; i < Ho; i++)
    for (int j = 0; j < Wo; j++, g++)
      UNROLL for (int a = 0; a < kernel; a++)
        UNROLL for (int b = 0; b < kernel; b++)
          sum[a][b] += *g * x[(i + a) * Wp + j + b];
  UNROLL for (int a = 0; a < kernel; a++)
    UNROLL for (int b = 0; b < kernel; b++) gw[a * kernel + b] = sum[a][b];
}

/* The size of a square kernel without stride that there is a function for, else 0. */
static int known_kernel(const shape *s) {
  int size = s->kernel_height;
  int plain = s->stride == 1 && s->apart == 1 && size == s->kernel_width;
  return plain && (size == 3 || size == 5) ? size : 0;
}

/* As conv, each channel with its own filter w [C][kh][kw]. */
int depthwise(const vec *x, const float *w, vec *y, const shape *s, int transposed) {
  int C = s->out_channels, area = s->kernel_height * s->kernel_width;
  int Ho = s->out_height, Wo = s->out_width;
  int Hp = padded_height(s), Wp = padded_width(s);
  int blocks = (Wo + COLUMNS - 1) / COLUMNS;
  int known = known_kernel(s), step = known ? 1 : 4; /* output_tile reads four channels' */
  int *offset = tap_offsets(1, s, Hp, Wp);
  float *packed = calloc(4 * area, sizeof(float));
  vec *padded = calloc((long)Hp * Wp, sizeof(vec));
  int ready = offset && packed && padded;
  for (int n = 0; ready && n < s->groups * C; n++) {
    pad(x, padded, 1, Hp, Wp, s);
    for (int t = 0; t < area; t++)
      packed[step * t] = w[n % C * area + (transposed ? area - 1 - t : t)];
    if (known == 3) depthwise_plane(padded, Wp, packed, y, Ho, Wo, 3);
    if (known == 5) depthwise_plane(padded, Wp, packed, y, Ho, Wo, 5);
    for (int i = 0; !known && i < Ho; i++)
      for (int b = 0; b < blocks; b++) {
        int start = b * Wo / blocks, columns = (b + 1) * Wo / blocks - start;
        const vec *at = padded + ((long)i * Wp + start) * s->stride;
        COLUMNS_OF(output_tile, 1, at, offset, area, s->stride, packed,
                   y + (long)i * Wo + start, 0)
      }
    x += (long)s->height * s->width;
    y += (long)Ho * Wo;
  }
  free(padded);
  free(packed);
  free(offset);
  return !ready;
}

int depthwise_weight(const vec *x, const vec *g, float *gw, const shape *s) {
  int C = s->out_channels, area = s->kernel_height * s->kernel_width;
  int Ho = s->out_height, Wo = s->out_width;
  int Hp = padded_height(s), Wp = padded_width(s);
  int blocks = (area + COLUMNS - 1) / COLUMNS;
  int known = V == 16 || area == 9 ? known_kernel(s) : 0; /* 25 sums need 32 registers */
  int *offset = tap_offsets(1, s, Hp, Wp);
  vec *padded = calloc((long)Hp * Wp, sizeof(vec));
  vec *sums = calloc((long)C * area, sizeof(vec));
  int ready = offset && padded && sums;
  for (int n = 0; ready && n < s->groups * C; n++) {
    vec *sum = sums + n % C * area;
    pad(x, padded, 1, Hp, Wp, s);
    if (known == 3) depthwise_weight_plane(padded, Wp, g, sum, Ho, Wo, 3);
    if (known == 5) depthwise_weight_plane(padded, Wp, g, sum, Ho, Wo, 5);
    for (int b = 0; !known && b < blocks; b++) {
      int start = b * area / blocks, columns = (b + 1) * area / blocks - start;
      COLUMNS_OF(weight_tile, 1, padded, offset + start, s->stride, Wp, g, 0L, Ho, Wo,
                 sum + start, 0L)
    }
    x += (long)s->height * s->width;
    g += (long)Ho * Wo;
  }
  for (long i = 0; ready && i < (long)C * area; i++) gw[i] += lane_sum(sums[i]);
  free(sums);
  free(padded);
  free(offset);
  return !ready;
}

/* The bias of a convolution, added to its output. */
void add_bias(vec *x, const float *bias, int planes, int C, long L) {
  for (int n = 0; n < planes; n++, x += L)
    for (long i = 0; i < L; i++) x[i] += bias[n % C];
}

void add_bias_back(const vec *g, float *g_bias, int planes, int C, long L) {
  for (int n = 0; n < planes; n++, g += L) {
    vec sum = {0};
    for (long i = 0; i < L; i++) sum += g[i];
    g_bias[n % C] += lane_sum(sum);
  }
}

/* ---- pooling ----------------------------------------------------------------- */

/* Four bytes to one and back. GCC's own conversion takes them lane by lane. */
INLINE bytes narrowed(mask place) {
#ifdef __AVX512F__
  return (bytes)_mm512_cvtepi32_epi8((__m512i)place);
#else
  return __builtin_convertvector(place, bytes);
#endif
}

INLINE mask widened(bytes place) {
#if defined __AVX512F__
  return (mask)_mm512_cvtepu8_epi32((__m128i)place);
#elif defined __AVX2__
  uint64_t eight;
  memcpy(&eight, &place, sizeof eight);
  return (mask)_mm256_cvtepu8_epi32(_mm_cvtsi64_si128(eight));
#else
  return __builtin_convertvector(place, mask);
#endif
}

/* 2x2 max pooling of [planes][H][W]; `winner` keeps the place, 0 to 3. */
void max_pool(const vec *x, vec *y, bytes *winner, int planes, int H, int W) {
  for (int c = 0; c < planes; c++, x += (long)H * W)
    for (int i = 0; i < H / 2; i++)
      for (int j = 0; j < W / 2; j++) {
        const vec *at = x + 2 * (long)i * W + 2 * j;
        vec value = at[0];
        mask place = {0};
        int offset[4] = {0, 1, W, W + 1};
        UNROLL for (int p = 1; p < 4; p++) {
          mask more = at[offset[p]] > value;
          value = (vec)((mask)where(more, at[offset[p]]) | (mask)where(~more, value));
          place = (more & p) | (~more & place);
        }
        *y++ = value;
        *winner++ = narrowed(place);
      }
}

void max_pool_back(const vec *g, const bytes *winner, vec *gx, int planes, int H,
                   int W) {
  if (H % 2 || W % 2) memset(gx, 0, sizeof(vec) * planes * H * W);
  for (int c = 0; c < planes; c++, gx += (long)H * W)
    for (int i = 0; i < H / 2; i++)
      for (int j = 0; j < W / 2; j++, g++) {
        vec *to = gx + 2 * (long)i * W + 2 * j;
        mask place = widened(*winner++);
        int offset[4] = {0, 1, W, W + 1};
        UNROLL for (int p = 0; p < 4; p++) to[offset[p]] = where(place == p, *g);
      }
}

void avg_pool(const vec *x, vec *y, int planes, int H, int W) {
  for (int c = 0; c < planes; c++, x += (long)H * W)
    for (int i = 0; i < H / 2; i++)
      for (int j = 0; j < W / 2; j++) {
        const vec *at = x + 2 * (long)i * W + 2 * j;
        *y++ = (at[0] + at[1] + at[W] + at[W + 1]) * 0.25f;
      }
}

void avg_pool_back(const vec *g, vec *gx, int planes, int H, int W) {
  if (H % 2 || W % 2) memset(gx, 0, sizeof(vec) * planes * H * W);
  for (int c = 0; c < planes; c++, gx += (long)H * W)
    for (int i = 0; i < H / 2; i++)
      for (int j = 0; j < W / 2; j++, g++) {
        vec *to = gx + 2 * (long)i * W + 2 * j;
        to[0] = to[1] = to[W] = to[W + 1] = *g * 0.25f;
      }
}

/* Windows of any size over [planes][H][W], of which at least one place is inside. */
typedef struct {
  int planes, height, width, out_height, out_width;
  int high, wide, down, right, above, beside; /* the window, its steps, the padding */
} windows;

/* What of the window at (i, j) is inside: rows and columns. */
typedef struct { int top, below, left, right; } area;

INLINE area inside(const windows *s, int i, int j) {
  int top = i * s->down - s->above, left = j * s->right - s->beside;
  return (area){most(top, 0), least(top + s->high, s->height), most(left, 0),
                least(left + s->wide, s->width)};
}

/* The maximum of each window, or the mean, which has no padding. */
void pool(const vec *x, vec *y, const windows *s, int largest) {
  float share = largest ? 1 : 1.0f / (float)(s->high * s->wide);
  for (int c = 0; c < s->planes; c++, x += (long)s->height * s->width)
    for (int i = 0; i < s->out_height; i++)
      for (int j = 0; j < s->out_width; j++) {
        area a = inside(s, i, j);
        vec value = largest ? x[(long)a.top * s->width + a.left] : (vec){0};
        for (int row = a.top; row < a.below; row++)
          for (int column = a.left; column < a.right; column++) {
            vec at = x[(long)row * s->width + column];
            mask more = at > value;
            if (largest)
              value = (vec)((mask)where(more, at) | (mask)where(~more, value));
            else
              value += at;
          }
        *y++ = value * share;
      }
}

/* The gradient of a maximum goes to the first of its window that is as large. */
void pool_back(const vec *g, const vec *x, const vec *y, vec *gx, const windows *s,
               int largest) {
  float share = largest ? 1 : 1.0f / (float)(s->high * s->wide);
  memset(gx, 0, sizeof(vec) * s->planes * s->height * s->width);
  for (int c = 0; c < s->planes; c++) {
    for (int i = 0; i < s->out_height; i++)
      for (int j = 0; j < s->out_width; j++, g++, y++) {
        area a = inside(s, i, j);
        vec each = *g * share;
        mask left = ~(mask){0};
        for (int row = a.top; row < a.below; row++)
          for (int column = a.left; column < a.right; column++) {
            long at = (long)row * s->width + column;
            mask hit = left;
            if (largest) hit &= x[at] == *y, left &= ~hit;
            gx[at] += where(hit, each);
          }
      }
    x += (long)s->height * s->width;
    gx += (long)s->height * s->width;
  }
}

/* The mean of each of the planes. */
void global_mean(const vec *x, vec *y, int planes, long L) {
  for (int n = 0; n < planes; n++, x += L) {
    vec sum = {0};
    for (long i = 0; i < L; i++) sum += x[i];
    y[n] = sum / (float)L;
  }
}

/* With `add`, to the gradient that is there. */
void global_mean_back(const vec *g, vec *gx, int planes, long L, int add) {
  for (int n = 0; n < planes; n++, gx += L) {
    vec share = g[n] / (float)L;
    for (long i = 0; i < L; i++) {
      if (add)
        gx[i] += share;
      else
        gx[i] = share;
    }
  }
}

/* ---- activations ------------------------------------------------------------- */

enum { RELU, LEAKY_RELU, RELU6, HARDSWISH };

INLINE vec choose(mask m, vec a, vec b) { return (vec)(((mask)a & m) | ((mask)b & ~m)); }

INLINE void activate_tile(const vec *x, vec *y, long count, float slope, int kind) {
  for (long i = 0; i < count; i++) {
    vec v = x[i], six = v * 0 + 6;
    if (kind == RELU) y[i] = rectify(v, v);
    if (kind == LEAKY_RELU) y[i] = choose(v > 0, v, v * slope);
    if (kind == RELU6) y[i] = choose(v > 6, six, rectify(v, v));
    if (kind == HARDSWISH) {
      vec gate = rectify(v + 3, v + 3);
      y[i] = v * choose(gate > 6, six, gate) * (1 / 6.f);
    }
  }
}

INLINE void activate_back_tile(const vec *g, const vec *x, vec *gx, long count,
                               float slope, int kind) {
  for (long i = 0; i < count; i++) {
    vec v = x[i], d = g[i];
    if (kind == RELU) gx[i] = rectify(d, v);
    if (kind == LEAKY_RELU) gx[i] = choose(v > 0, d, d * slope);
    if (kind == RELU6) gx[i] = where(~((v <= 0) | (v >= 6)), d);
    if (kind == HARDSWISH) {
      vec between = where(~(v < -3), d * (v * (1 / 3.f) + 0.5f));
      gx[i] = choose(v > 3, d, between);
    }
  }
}

#define KIND_OF(function, ...)                                \
  switch (kind) {                                             \
    case RELU: function(__VA_ARGS__, RELU); break;            \
    case LEAKY_RELU: function(__VA_ARGS__, LEAKY_RELU); break; \
    case RELU6: function(__VA_ARGS__, RELU6); break;          \
    case HARDSWISH: function(__VA_ARGS__, HARDSWISH); break;  \
  }

/* `slope` is that of leaky ReLU below 0. */
void activate(const vec *x, vec *y, long count, float slope, int kind) {
  KIND_OF(activate_tile, x, y, count, slope)
}

void activate_back(const vec *g, const vec *x, vec *gx, long count, float slope,
                   int kind) {
  KIND_OF(activate_back_tile, g, x, gx, count, slope)
}

/* ---- branches ---------------------------------------------------------------- */

void add(vec *x, const vec *y, long count) {
  for (long i = 0; i < count; i++) x[i] += y[i];
}

/* Copy the C channels x [G][C][L] into the channels of y [G][Cy][L] from `first` on, or
   with `back` from there. */
void join(vec *x, vec *y, int G, int C, int Cy, int first, long L, int back) {
  for (int g = 0; g < G; g++) {
    vec *here = x + g * C * L, *there = y + ((long)g * Cy + first) * L;
    memcpy(back ? here : there, back ? there : here, sizeof(vec) * C * L);
  }
}

/* Each of the planes times a number of its own. */
void scale(const vec *x, const vec *by, vec *y, int planes, long L) {
  for (int n = 0; n < planes; n++)
    for (long i = n * L; i < (n + 1) * L; i++) y[i] = x[i] * by[n];
}

void scale_back(const vec *g, const vec *x, const vec *by, vec *gx, vec *g_by,
                int planes, long L) {
  for (int n = 0; n < planes; n++) {
    vec sum = {0};
    for (long i = n * L; i < (n + 1) * L; i++) {
      sum += g[i] * x[i];
      gx[i] = g[i] * by[n];
    }
    g_by[n] = sum;
  }
}

/* ---- batch norm, with or without ReLU ---------------------------------------- */

static void scale_shift(const vec *x, vec *y, int planes, int C, long L,
                        const float *scale, const float *shift, int relu) {
  for (int n = 0; n < planes; n++, x += L, y += L)
    for (long i = 0; i < L; i++) {
      vec value = x[i] * scale[n % C] + shift[n % C];
      y[i] = relu ? rectify(value, value) : value;
    }
}

/* With the running statistics, as in evaluation. */
void norm_eval(const vec *x, vec *y, int G, int C, long L, const float *weight,
               const float *bias, const float *running_mean, const float *running_var,
               float eps, int relu) {
  float scale[C], shift[C];
  for (int c = 0; c < C; c++) {
    scale[c] = weight[c] / sqrtf(running_var[c] + eps);
    shift[c] = bias[c] - running_mean[c] * scale[c];
  }
  scale_shift(x, y, G * C, C, L, scale, shift, relu);
}

/* Dropout of probability threshold / 2^32, which scales what it keeps. What it drops
   follows from the seeds, so the gradient finds it again and nothing is remembered. */
typedef struct {
  uint32_t seed[2], threshold;
  float scale;
} dropped;

/* Keep and scale a lane of the vector at this place of its tensor where its random
   number is at least the threshold, else 0. The numbers are lowbias32, a bijective hash
   of 32 bits (Wellons, github.com/skeeto/hash-prospector), of the place and a seed, with
   another seed in its midst: two draws have no pattern in common. */
INLINE vec kept(vec x, long place, const dropped *d) {
  words random;
  for (int v = 0; v < V; v++) random[v] = v;
  random += (uint32_t)place * V;
  random ^= d->seed[0];
  random ^= random >> 16;
  random *= 0x7feb352dU;
  random ^= d->seed[1];
  random ^= random >> 15;
  random *= 0x846ca68bU;
  random ^= random >> 16;
  return where(random >= d->threshold, x * d->scale);
}

/* Batch norm with what stands around it: the bias and the ReLU `before`, the ReLU
   `after` and the dropout. */
typedef struct {
  int G, C;
  long L;
  const float *bias; /* [C], or NULL */
  dropped drop;      /* with threshold 0 there is none */
  int before, after;
} fused_norm;

INLINE vec activated(vec x, float bias, int before) {
  vec value = x + bias;
  return before ? rectify(value, value) : value;
}

INLINE void norm_tile(const vec *x, vec *y, const fused_norm *a, const float *weight,
                      const float *shift_by, float *running_mean, float *running_var,
                      float momentum, float eps, float *saved, int before, int after,
                      int drop) {
  int G = a->G, C = a->C;
  long L = a->L;
  float *mean = saved, *inverse = saved + C, *scale = inverse + C, *shift = scale + C;
  for (int c = 0; c < C; c++) {
    /* Sums around the running mean lose no digits where the mean is large. */
    double sum = 0, squares = 0, count = (double)G * L * V;
    float middle = running_mean[c], bias = a->bias ? a->bias[c] : 0;
    for (int g = 0; g < G; g++) {
      const vec *at = x + ((long)g * C + c) * L;
      vec s[2] = {{0}}, q[2] = {{0}};
      for (long i = 0; i < L; i++) {
        vec d = activated(at[i], bias, before) - middle;
        s[i % 2] += d;
        q[i % 2] += d * d;
      }
      sum += lane_sum(s[0] + s[1]);
      squares += lane_sum(q[0] + q[1]);
    }
    double var = squares / count - sum / count * (sum / count);
    mean[c] = middle + sum / count;
    inverse[c] = 1 / sqrt(var + eps);
    scale[c] = weight[c] * inverse[c];
    shift[c] = shift_by[c] - mean[c] * scale[c];
    running_mean[c] += momentum * (mean[c] - running_mean[c]);
    running_var[c] += momentum * (var * count / (count - 1) - running_var[c]);
    float by = scale[c], to = shift[c];
    for (int g = 0; g < G; g++) {
      long at = ((long)g * C + c) * L;
      for (long i = at; i < at + L; i++) {
        vec value = activated(x[i], bias, before) * by + to;
        if (after) value = rectify(value, value);
        y[i] = drop ? kept(value, i, &a->drop) : value;
      }
    }
  }
}

INLINE void norm_back_tile(const vec *g, const vec *x, vec *gx, const fused_norm *a,
                           const float *saved, float *g_weight, float *g_shift,
                           float *g_bias, int before, int after, int drop) {
  int G = a->G, C = a->C;
  long L = a->L;
  const float *mean = saved, *inverse = saved + C, *scale = inverse + C,
              *shift = scale + C;
  for (int c = 0; c < C; c++) {
    double sum = 0, product = 0, biases = 0, count = (double)G * L * V;
    float bias = a->bias ? a->bias[c] : 0, by = scale[c], to = shift[c];
    for (int n = 0; n < G; n++) {
      long at = ((long)n * C + c) * L;
      vec s = {0}, q = {0};
      for (long i = at; i < at + L; i++) {
        vec value = activated(x[i], bias, before);
        vec d = drop ? kept(g[i], i, &a->drop) : g[i];
        if (after) d = rectify(d, value * by + to);
        s += d;
        q += d * (value - mean[c]);
      }
      sum += lane_sum(s);
      product += lane_sum(q);
    }
    float by_weight = product * inverse[c];
    g_shift[c] += sum;
    g_weight[c] += by_weight;
    float by_x = -by * inverse[c] * by_weight / count;
    float constant = -by * sum / count - by_x * mean[c];
    for (int n = 0; n < G; n++) {
      long at = ((long)n * C + c) * L;
      vec s = {0};
      for (long i = at; i < at + L; i++) {
        vec value = activated(x[i], bias, before);
        vec d = drop ? kept(g[i], i, &a->drop) : g[i];
        if (after) d = rectify(d, value * by + to);
        d = d * by + (value * by_x + constant);
        if (before) d = rectify(d, value);
        gx[i] = d;
        s += d;
      }
      biases += lane_sum(s);
    }
    if (g_bias) g_bias[c] += biases;
  }
}

/* Call a tile function with `before`, `after` and dropout or not as constants. */
#define AROUND_OF(function, ...)                                              \
  switch (4 * !!a->before + 2 * !!a->after + !!a->drop.threshold) {                \
    case 0: function(__VA_ARGS__, 0, 0, 0); break;                            \
    case 1: function(__VA_ARGS__, 0, 0, 1); break;                            \
    case 2: function(__VA_ARGS__, 0, 1, 0); break;                            \
    case 3: function(__VA_ARGS__, 0, 1, 1); break;                            \
    case 4: function(__VA_ARGS__, 1, 0, 0); break;                            \
    case 5: function(__VA_ARGS__, 1, 0, 1); break;                            \
    case 6: function(__VA_ARGS__, 1, 1, 0); break;                            \
    case 7: function(__VA_ARGS__, 1, 1, 1); break;                            \
  }

/* With the batch's statistics of x [G][C][L]; `saved` [4][C] is for batch_norm_back. */
void batch_norm(const vec *x, vec *y, const fused_norm *a, const float *weight,
                const float *shift, float *running_mean, float *running_var,
                float momentum, float eps, float *saved) {
  AROUND_OF(norm_tile, x, y, a, weight, shift, running_mean, running_var, momentum, eps,
            saved)
}

void batch_norm_back(const vec *g, const vec *x, vec *gx, const fused_norm *a,
                     const float *saved, float *g_weight, float *g_shift,
                     float *g_bias) {
  AROUND_OF(norm_back_tile, g, x, gx, a, saved, g_weight, g_shift, g_bias)
}

/* ---- augmentation ------------------------------------------------------------ */

/* Give the frame the values of the edge that it is around. */
static void repeat_edge(float *framed, int H, int W, int Wp) {
  for (int i = 1; i <= H; i++) {
    float *row = framed + i * Wp;
    row[0] = row[1];
    row[W + 1] = row[W + 2] = row[W];
  }
  memcpy(framed, framed + Wp, sizeof(float) * Wp);
  for (int i = H + 1; i < H + 3; i++)
    memcpy(framed + i * Wp, framed + H * Wp, sizeof(float) * Wp);
}

/* Sample each image [C][H][W] of x at the places that its matrix [2][3] gives, in
   coordinates of -1 to 1, between pixels by their distance; beyond the edge is 0 or,
   with `repeat`, the edge again. */
int warp(const float *x, const float *matrix, float *y, int N, int C, int H, int W,
         int repeat) {
  int Wp = W + 3;
  /* A frame of zeros, one wide before and two behind, needs no case for the edge. */
  float *framed = calloc((long)(H + 3) * Wp, sizeof(float));
  for (int n = 0; framed && n < N * C; n++, x += H * W, y += H * W) {
    const float *m = matrix + n / C * 6;
    for (int i = 0; i < H; i++)
      memcpy(framed + (i + 1) * Wp + 1, x + i * W, sizeof(float) * W);
    if (repeat) repeat_edge(framed, H, W, Wp);
    for (int i = 0; i < H; i++) {
      /* In pixels of the frame, from the row's first place on. */
      float right = 1.0f / W - 1, down = (2 * i + 1.0f) / H - 1;
      float first_column = ((m[0] * right + m[1] * down + m[2] + 1) * W + 1) / 2;
      float first_row = ((m[3] * right + m[4] * down + m[5] + 1) * H + 1) / 2;
      float row_step = m[3] * H / W;
      for (int j = 0; j < W; j++) {
        float column = first_column + j * m[0];
        float row = first_row + j * row_step;
        column = column > 0 ? (column < W + 1 ? column : W + 1) : 0;
        row = row > 0 ? (row < H + 1 ? row : H + 1) : 0;
        int left = (int)column, top = (int)row;
        float to_right = column - left, to_low = row - top;
        const float *at = framed + top * Wp + left;
        float upper = at[0] + to_right * (at[1] - at[0]);
        float lower = at[Wp] + to_right * (at[Wp + 1] - at[Wp]);
        y[i * W + j] = upper + to_low * (lower - upper);
      }
    }
  }
  int failed = !framed;
  free(framed);
  return failed;
}

/* ---- dropout ----------------------------------------------------------------- */

void dropout(const vec *x, vec *y, long count, const dropped *drop) {
  for (long i = 0; i < count; i++) y[i] = kept(x[i], i, drop);
}
