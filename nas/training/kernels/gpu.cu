/* One launch trains a tiny network for many steps on a GPU.

   A step of such a network is some fifty operations of a few microseconds. Started one by
   one, even from a CUDA graph, they cost more than they compute, and the GPU can start
   only so many a second for all processes together. So one kernel of a few blocks, `run`,
   goes through a list of operations, and its blocks wait for one another in between.

   Feature maps are laid out as in kernels.c, [G][C][H][W][32]: the 32 images of a group
   lie side by side, one in each thread of a warp. What a thread of a warp does is what a
   lane of a vector register does there; the oracle is torch again
   (tests/test_gpu_kernels.py, which runs this file on a CPU, too).

   Sums do not depend on which block is first: parts of a sum are written to places of
   their own and added in order by the operation that needs the sum. */

typedef long long i64;
typedef unsigned int u32;
typedef unsigned char u8;

enum { LANES = 32, WARPS = 8, THREADS = LANES * WARPS, COLUMNS = 7 };
enum { ROOM = 4096 }; /* floats that the threads of a block have in common */
enum { BATCH = 4 };   /* reads of a thread that are on their way at the same time */
#ifndef MOST_TRIES
#define MOST_TRIES (1 << 24) /* some seconds of waiting */
#endif
#define GAVE_UP 0x80000000u
enum { POINTERS = 12, INTEGERS = 18, FLOATS = 4 };

/* One operation, of so many virtual blocks. What the fields mean is up to each. */
struct Op {
  int code, blocks_x, blocks_y, unused;
  float *p[POINTERS];
  int n[INTEGERS];
  float f[FLOATS];
};

/* One convolution, the first integers of its operation, as in kernels.c. */
struct Shape {
  int groups, in_channels, height, width;  /* of the input */
  int out_channels, out_height, out_width; /* of the output */
  int kernel_height, kernel_width, stride, above, beside, dilation, apart;
};
enum { AFTER_SHAPE = 14 };

/* What a thread reads and writes at once where each value stands for itself. */
struct __align__(16) Four { float of[4]; };
struct __align__(4) Bytes { u8 of[4]; };

/* Read a thread's next values, `stride` apart, as far as there are `count`. */
__device__ void fetch(Four *to, const float *from, int i, int stride, int count) {
#pragma unroll
  for (int u = 0; u < BATCH; u++)
    to[u] = i + u * stride < count ? ((const Four *)from)[i + u * stride] : Four{};
}

template <class T>
__device__ T least(T a, T b) { return a < b ? a : b; }

__device__ float warp_sum(float a) {
  for (int far = LANES / 2; far; far /= 2) a += __shfl_xor_sync(~0u, a, far);
  return a;
}

/* `a` where `by` is positive, else 0; a NaN stays one, so that the loss tells. */
__device__ float rectify(float a, float by) { return by <= 0 ? 0 : a; }

__device__ float activated(float x, float bias, int before) {
  float value = x + bias;
  return before ? rectify(value, value) : value;
}

/* The sum of what all threads have, in each of them. */
__device__ float block_sum(float a, float *shared) {
  a = warp_sum(a);
  __syncthreads();
  if (threadIdx.x % LANES == 0) shared[threadIdx.x / LANES] = a;
  __syncthreads();
  float sum = 0;
  for (int w = 0; w < WARPS; w++) sum += shared[w];
  __syncthreads();
  return sum;
}

/* ---- dropout ----------------------------------------------------------------- */

/* As in kernels.c; the two random numbers are those of the step, and each layer mixes in
   a number of its own. */
struct Dropped {
  u32 first, second, threshold;
  float scale;
};

/* Pointers `at` seeds [steps][2] and the place of the step; integers: layer, threshold. */
__device__ Dropped dropped(const Op &o, int p, int n, float scale) {
  Dropped d = {0, 0, (u32)o.n[n + 1], scale};
  if (d.threshold) {
    const u32 *seeds = (const u32 *)o.p[p] + 2 * *(const int *)o.p[p + 1];
    d.first = seeds[0] ^ (u32)o.n[n] * 0x9e3779b9U;
    d.second = seeds[1] + (u32)o.n[n] * 0x85ebca6bU;
  }
  return d;
}

__device__ float kept(float x, int place, const Dropped &d) {
  if (!d.threshold) return x;
  u32 random = (u32)place ^ d.first;
  random ^= random >> 16;
  random *= 0x7feb352dU;
  random ^= d.second;
  random ^= random >> 15;
  random *= 0x846ca68bU;
  random ^= random >> 16;
  return random >= d.threshold ? x * d.scale : 0;
}

/* p: x, y, seeds, place; n: count, layer, threshold; f: scale */
__device__ void dropout(const Op &o, int bx) {
  Dropped d = dropped(o, 2, 1, o.f[0]);
  for (int i = bx * THREADS + threadIdx.x; i < o.n[0]; i += o.blocks_x * THREADS)
    o.p[1][i] = kept(o.p[0][i], i, d);
}

/* ---- convolution ------------------------------------------------------------- */

/* The weights of a tap for R output channels, read at once. */
template <int R>
struct __align__(R < 4 ? 4 * R : 16) Weights { float of[R]; };

/* p: x, w, y, and where batch norm follows: sums, running_mean, middle, bias
   n: shape, transposed, before, together

   y = x * w: w [out][in][kh][kw], or `transposed`, for the input's gradient,
   [in][out][kh][kw] turned by half a circle; depthwise ones [C][kh][kw]. A warp makes R
   output channels at COLUMNS neighbouring places; so many warps `together` make others at
   the same places, of the same input. K is the kernel's side where stride and taps are 1
   apart, 0 for any other. */
template <int K, int R, bool DEPTHWISE>
__device__ void conv(const Op &o, int bx, int by, float *shared) {
  const Shape &s = *(const Shape *)o.n;
  const float *x = o.p[0], *w = o.p[1];
  int transposed = o.n[AFTER_SHAPE], before = o.n[AFTER_SHAPE + 1];
  int together = o.n[AFTER_SHAPE + 2];
  int Ci = DEPTHWISE ? 1 : s.in_channels, Co = s.out_channels;
  int H = s.height, W = s.width, Ho = s.out_height, Wo = s.out_width;
  int high = K ? K : s.kernel_height, wide = K ? K : s.kernel_width, area = high * wide;
  int lane = threadIdx.x % LANES, warp = threadIdx.x / LANES;
  int tiles = (Wo + COLUMNS - 1) / COLUMNS;
  int item = bx * (WARPS / together) + warp / together;
  int first = item % tiles * COLUMNS, i = item / tiles % Ho, g = item / tiles / Ho;
  int block = by * together * R, out = block + warp % together * R;
  bool active = item < s.groups * Ho * tiles && out < Co;
  int chunk = ROOM / (R * together * area);
  Weights<R> *packed = (Weights<R> *)shared; /* [channels][taps][together] */
  float sum[R][COLUMNS] = {};
  for (int from = 0; from < Ci; from += chunk) {
    int count = least(chunk, Ci - from);
    __syncthreads();
    for (int t = threadIdx.x; t < count * area * together; t += THREADS) {
      int at = t / together, c = from + at / area, mine = block + t % together * R;
      int tap = transposed ? area - 1 - at % area : at % area;
#pragma unroll
      for (int r = 0; r < R; r++) {
        int of = DEPTHWISE    ? mine
                 : transposed ? c * Co + mine + r
                              : (mine + r) * Ci + c;
        packed[t].of[r] = mine + r < Co ? w[of * area + tap] : 0;
      }
    }
    __syncthreads();
    if (!active) continue;
    const float *plane =
        x + (i64)(g * (DEPTHWISE ? Co : Ci) + (DEPTHWISE ? out : from)) * H * W * LANES +
        lane;
    const Weights<R> *at = packed + warp % together;
    if (K == 1) {
      constexpr int DEPTH = 4; /* channels whose values are on their way together */
      for (int c = 0; c < count; c += DEPTH) {
        float v[DEPTH][COLUMNS];
#pragma unroll
        for (int d = 0; d < DEPTH; d++)
#pragma unroll
          for (int q = 0; q < COLUMNS; q++) {
            int column = first + q - s.beside, row = i - s.above;
            bool there = c + d < count && row >= 0 && row < H;
            there = there && column >= 0 && column < W;
            v[d][q] = there ? plane[((c + d) * H * W + row * W + column) * LANES] : 0;
          }
#pragma unroll
        for (int d = 0; d < DEPTH; d++) {
          if (c + d >= count) break;
          Weights<R> by_tap = at[(c + d) * together];
#pragma unroll
          for (int r = 0; r < R; r++)
#pragma unroll
            for (int q = 0; q < COLUMNS; q++) sum[r][q] += by_tap.of[r] * v[d][q];
        }
      }
      continue;
    }
    for (int c = 0; c < count; c++, plane += H * W * LANES, at += area * together)
      if (K) {
#pragma unroll
        for (int a = 0; a < K; a++) {
          int row = i + a - s.above;
          bool there = row >= 0 && row < H;
          const float *line = plane + row * W * LANES;
          float v[COLUMNS + (K ? K : 1) - 1];
#pragma unroll
          for (int q = 0; q < COLUMNS + K - 1; q++) {
            int column = first + q - s.beside;
            v[q] = there && column >= 0 && column < W ? line[column * LANES] : 0;
          }
#pragma unroll
          for (int b = 0; b < K; b++) {
            Weights<R> by_tap = at[(a * K + b) * together];
#pragma unroll
            for (int r = 0; r < R; r++)
#pragma unroll
              for (int q = 0; q < COLUMNS; q++) sum[r][q] += by_tap.of[r] * v[q + b];
          }
        }
      } else {
        for (int a = 0; a < high; a++) {
          int row = i * s.stride + a * s.apart - s.above;
          if (row < 0 || row % s.dilation || row / s.dilation >= H) continue;
          const float *line = plane + row / s.dilation * W * LANES;
          for (int b = 0; b < wide; b++) {
            Weights<R> by_tap = at[(a * wide + b) * together];
#pragma unroll
            for (int q = 0; q < COLUMNS; q++) {
              int column = (first + q) * s.stride + b * s.apart - s.beside;
              bool there = column >= 0 && column % s.dilation == 0;
              column /= s.dilation;
              float v = there && column < W ? line[column * LANES] : 0;
#pragma unroll
              for (int r = 0; r < R; r++) sum[r][q] += by_tap.of[r] * v;
            }
          }
        }
      }
  }
#pragma unroll
  for (int r = 0; r < R; r++) {
    if (!active || out + r >= Co) continue;
    float *y = o.p[2] + ((i64)((g * Co + out + r) * Ho + i) * Wo + first) * LANES + lane;
#pragma unroll
    for (int q = 0; q < COLUMNS; q++)
      if (first + q < Wo) y[q * LANES] = sum[r][q];
  }
  float *sums = o.p[3]; /* [blocks_x][C][2], around the running mean */
  if (!sums) return;
  __syncthreads();
#pragma unroll
  for (int r = 0; r < R; r++) {
    float plain = 0, squares = 0;
    if (out + r < Co) {
      float bias = o.p[6] ? o.p[6][out + r] : 0, middle = o.p[4][out + r];
#pragma unroll
      for (int q = 0; q < COLUMNS; q++) {
        float d = activated(sum[r][q], bias, before) - middle;
        if (active && first + q < Wo) {
          plain += d;
          squares += d * d;
        }
      }
      if (item == 0 && lane == 0) o.p[5][out + r] = middle;
    }
    plain = warp_sum(plain);
    squares = warp_sum(squares);
    if (lane == 0) {
      shared[(warp * R + r) * 2] = plain;
      shared[(warp * R + r) * 2 + 1] = squares;
    }
  }
  __syncthreads();
  int k = threadIdx.x; /* of [together][R][2] */
  if (k < together * R * 2 && block + k / 2 < Co) {
    float total = 0;
    for (int v = 0; v < WARPS / together; v++) total += shared[v * together * R * 2 + k];
    sums[((i64)bx * Co + block) * 2 + k] = total;
  }
}

/* p: x, g, parts [blocks_x * 8 / together][out][in][kh][kw]; n: shape, together, items

   What the input x and the output's gradient g give for the weights. A warp sums up an
   item, R output channels by T input channels by all taps (with K = 0 one tap), over rows
   of the output; so many warps `together` do different items over the same rows. */
template <int K, int R, int T, bool DEPTHWISE>
__device__ void conv_weight(const Op &o, int bx, int by) {
  const Shape &s = *(const Shape *)o.n;
  const float *x = o.p[0], *from = o.p[1];
  int Ci = DEPTHWISE ? 1 : s.in_channels, Co = s.out_channels;
  int planes = DEPTHWISE ? Co : Ci; /* of the input */
  int H = s.height, W = s.width, Ho = s.out_height, Wo = s.out_width;
  int area = s.kernel_height * s.kernel_width, together = o.n[AFTER_SHAPE];
  int lane = threadIdx.x % LANES, warp = threadIdx.x / LANES;
  int item = by * together + warp % together;
  if (item >= o.n[AFTER_SHAPE + 1]) return;
  int part = bx * (WARPS / together) + warp / together;
  int parts = o.blocks_x * (WARPS / together);
  int tap = K ? 0 : item % area, rest = K ? item : item / area;
  int blocks = (Ci + T - 1) / T, out = rest / blocks * R, in = rest % blocks * T;
  int above = tap / s.kernel_width * s.apart - s.above;
  int beside = tap % s.kernel_width * s.apart - s.beside;
  constexpr int SIDE = K ? K : 1, WIDE = R * T > 32 ? 2 : COLUMNS;
  float sum[R][T][SIDE][SIDE] = {};
  for (int n = part; n < s.groups * Ho; n += parts) {
    int g = n / Ho, i = n % Ho;
    for (int first = 0; first < Wo; first += WIDE) {
      float d[R][WIDE];
#pragma unroll
      for (int r = 0; r < R; r++)
#pragma unroll
        for (int q = 0; q < WIDE; q++)
          d[r][q] = out + r < Co && first + q < Wo
                        ? from[((i64)((g * Co + out + r) * Ho + i) * Wo + first + q) *
                                   LANES + lane]
                        : 0;
#pragma unroll
      for (int t = 0; t < T; t++) {
        int channel = DEPTHWISE ? out : in + t;
        const float *plane = x + (i64)(g * planes + channel) * H * W * LANES + lane;
#pragma unroll
        for (int a = 0; a < SIDE; a++) {
          int row = i * s.stride + a + above;
          bool there = row >= 0 && row < H && (DEPTHWISE || channel < Ci);
          const float *line = plane + row * W * LANES;
          float v[WIDE + SIDE - 1];
#pragma unroll
          for (int q = 0; q < WIDE + SIDE - 1; q++) {
            int column = (first + q) * s.stride + beside;
            v[q] = there && column >= 0 && column < W ? line[column * LANES] : 0;
          }
#pragma unroll
          for (int b = 0; b < SIDE; b++)
#pragma unroll
            for (int r = 0; r < R; r++)
#pragma unroll
              for (int q = 0; q < WIDE; q++) sum[r][t][a][b] += d[r][q] * v[q + b];
        }
      }
    }
  }
  float *to = o.p[2] + (i64)part * Co * Ci * area;
#pragma unroll
  for (int r = 0; r < R; r++)
#pragma unroll
    for (int t = 0; t < T; t++)
#pragma unroll
      for (int k = 0; k < SIDE * SIDE; k++) {
        float total = warp_sum(sum[r][t][k / SIDE][k % SIDE]);
        if (lane || out + r >= Co || in + t >= Ci) continue;
        int of = DEPTHWISE ? out : (out + r) * Ci + in + t;
        to[of * area + (K ? k : tap)] = total;
      }
}

/* p: x, bias; n: planes, channels, area. The bias of a convolution, added in place. */
__device__ void add_bias(const Op &o, int bx, int by) {
  int L = o.n[2] * LANES;
  float bias = o.p[1][by % o.n[1]], *x = o.p[0] + (i64)by * L;
  for (int i = bx * THREADS + threadIdx.x; i < L; i += o.blocks_x * THREADS) x[i] += bias;
}

/* p: g, parts [groups][channels]; n: planes, channels, area */
__device__ void add_bias_back(const Op &o, int by, float *shared) {
  int L = o.n[2] * LANES;
  const float *g = o.p[0] + (i64)by * L;
  float sum = 0;
  for (int i = threadIdx.x; i < L; i += THREADS) sum += g[i];
  sum = block_sum(sum, shared);
  if (threadIdx.x == 0) o.p[1][by] = sum;
}

/* ---- pooling ----------------------------------------------------------------- */

/* The four lanes of one place of planes [H][W][32]. */
struct Place { int lane, column, row, plane; };

__device__ Place place_of(int four, int H, int W) {
  int at = four / (LANES / 4);
  return {four % (LANES / 4) * 4, at % W, at / W % H, at / W / H};
}

/* p: x, y, winner; n: count of y, height, width, largest. 2x2; `winner` keeps the place
   of the largest, 0 to 3. */
__device__ void pool(const Op &o, int bx) {
  int H = o.n[1], W = o.n[2], largest = o.n[3];
  for (int e = bx * THREADS + threadIdx.x; e < o.n[0] / 4; e += o.blocks_x * THREADS) {
    Place to = place_of(e, H / 2, W / 2);
    int corner = ((to.plane * H + 2 * to.row) * W + 2 * to.column) * LANES + to.lane;
    Four value = *(const Four *)(o.p[0] + corner);
    Bytes winner = {};
#pragma unroll
    for (int p = 1; p < 4; p++) {
      Four other = *(const Four *)(o.p[0] + corner + (p / 2 * W + p % 2) * LANES);
#pragma unroll
      for (int k = 0; k < 4; k++) {
        if (!largest) value.of[k] += other.of[k];
        else if (other.of[k] > value.of[k]) value.of[k] = other.of[k], winner.of[k] = p;
      }
    }
    if (largest)
      ((Bytes *)o.p[2])[e] = winner;
    else
      for (int k = 0; k < 4; k++) value.of[k] *= 0.25f;
    ((Four *)o.p[1])[e] = value;
  }
}

/* p: g, winner, gx; n: cells of 2x2 times lanes, height, width, largest. What is left
   over at an odd edge gets 0. */
__device__ void pool_back(const Op &o, int bx) {
  int H = o.n[1], W = o.n[2], largest = o.n[3];
  for (int e = bx * THREADS + threadIdx.x; e < o.n[0] / 4; e += o.blocks_x * THREADS) {
    Place at = place_of(e, (H + 1) / 2, (W + 1) / 2);
    Four value = {};
    Bytes winner = {};
    if (at.row < H / 2 && at.column < W / 2) {
      int row = at.plane * (H / 2) + at.row;
      int from = ((row * (W / 2) + at.column) * LANES + at.lane) / 4;
      value = ((const Four *)o.p[0])[from];
      if (largest) winner = ((const Bytes *)o.p[1])[from];
    }
    float *corner =
        o.p[2] + ((i64)(at.plane * H + 2 * at.row) * W + 2 * at.column) * LANES + at.lane;
#pragma unroll
    for (int p = 0; p < 4; p++) {
      if (2 * at.row + p / 2 >= H || 2 * at.column + p % 2 >= W) continue;
      Four part;
#pragma unroll
      for (int k = 0; k < 4; k++)
        part.of[k] = !largest ? value.of[k] * 0.25f
                              : winner.of[k] == p ? value.of[k] : 0;
      *(Four *)(corner + (p / 2 * W + p % 2) * LANES) = part;
    }
  }
}

/* The sum of each image of a plane [area][32], a product with `other` if that is given,
   in the threads of the first warp. */
__device__ float plane_sum(const float *x, const float *other, int area, float *shared) {
  int lane = threadIdx.x % LANES, warp = threadIdx.x / LANES;
  float sum = 0;
  for (int i = warp; i < area; i += WARPS)
    sum += x[i * LANES + lane] * (other ? other[i * LANES + lane] : 1);
  __syncthreads();
  shared[threadIdx.x] = sum;
  __syncthreads();
  sum = 0;
  if (warp == 0)
    for (int w = 0; w < WARPS; w++) sum += shared[w * LANES + lane];
  return sum;
}

/* p: x, y; n: area. The mean of each of the planes. */
__device__ void global_mean(const Op &o, int by, float *shared) {
  float sum = plane_sum(o.p[0] + (i64)by * o.n[0] * LANES, 0, o.n[0], shared);
  if (threadIdx.x < LANES) o.p[1][by * LANES + threadIdx.x] = sum / o.n[0];
}

/* p: g, gx; n: count, area, add. With `add`, to the gradient that is there. */
__device__ void global_mean_back(const Op &o, int bx) {
  for (int e = bx * THREADS + threadIdx.x; e < o.n[0]; e += o.blocks_x * THREADS) {
    float share = o.p[0][e / LANES / o.n[1] * LANES + e % LANES] / o.n[1];
    o.p[1][e] = o.n[2] ? o.p[1][e] + share : share;
  }
}

/* ---- activations and branches ------------------------------------------------ */

enum { RELU, LEAKY_RELU, RELU6, HARDSWISH, SILU, SIGMOID };

__device__ float activation(float v, float slope, int kind) {
  switch (kind) {
    case RELU: return rectify(v, v);
    case LEAKY_RELU: return v > 0 ? v : v * slope;
    case RELU6: return v > 6 ? 6 : rectify(v, v);
    case HARDSWISH: {
      float gate = rectify(v + 3, v + 3);
      return v * (gate > 6 ? 6 : gate) * (1 / 6.f);
    }
    case SILU: return v / (1 + expf(-v));
    default: return 1 / (1 + expf(-v));
  }
}

/* The gradient d of what the activation makes of v; of a sigmoid, v is what it made. */
__device__ float activation_back(float d, float v, float slope, int kind) {
  switch (kind) {
    case RELU: return rectify(d, v);
    case LEAKY_RELU: return v > 0 ? d : d * slope;
    case RELU6: return v <= 0 || v >= 6 ? 0 : d;
    case HARDSWISH: return v > 3 ? d : v < -3 ? 0 : d * (v * (1 / 3.f) + 0.5f);
    case SILU: {
      float gate = 1 / (1 + expf(-v));
      return d * gate * (1 + v * (1 - gate));
    }
    default: return d * v * (1 - v);
  }
}

/* p: x, y; n: count, kind; f: slope */
__device__ void activate(const Op &o, int bx) {
  for (int i = bx * THREADS + threadIdx.x; i < o.n[0]; i += o.blocks_x * THREADS)
    o.p[1][i] = activation(o.p[0][i], o.f[0], o.n[1]);
}

/* p: g, x, gx; n: count, kind; f: slope */
__device__ void activate_back(const Op &o, int bx) {
  for (int i = bx * THREADS + threadIdx.x; i < o.n[0]; i += o.blocks_x * THREADS)
    o.p[2][i] = activation_back(o.p[0][i], o.p[1][i], o.f[0], o.n[1]);
}

/* p: x, y; n: count */
__device__ void add(const Op &o, int bx) {
  for (int i = bx * THREADS + threadIdx.x; i < o.n[0] / 4; i += o.blocks_x * THREADS) {
    Four a = ((Four *)o.p[0])[i], b = ((const Four *)o.p[1])[i];
#pragma unroll
    for (int k = 0; k < 4; k++) a.of[k] += b.of[k];
    ((Four *)o.p[0])[i] = a;
  }
}

/* p: to, from, and if the values of a step are copied: its place; n: count */
__device__ void copy(const Op &o, int bx) {
  const float *from = o.p[1];
  if (o.p[2]) from += (i64)o.n[0] * *(const int *)o.p[2];
  for (int i = bx * THREADS + threadIdx.x; i < o.n[0] / 4; i += o.blocks_x * THREADS)
    ((Four *)o.p[0])[i] = ((const Four *)from)[i];
}

/* p: x, y; n: count of x, channels of x, of y, first, area, back. As in kernels.c. */
__device__ void join(const Op &o, int bx) {
  int part = o.n[1] * o.n[4] * LANES, whole = o.n[2] * o.n[4] * LANES;
  for (int i = bx * THREADS + threadIdx.x; i < o.n[0]; i += o.blocks_x * THREADS) {
    i64 there = (i64)(i / part) * whole + o.n[3] * o.n[4] * LANES + i % part;
    if (o.n[5])
      o.p[0][i] = o.p[1][there];
    else
      o.p[1][there] = o.p[0][i];
  }
}

/* p: x, by, y; n: count, area. Each of the planes times a number of its own. */
__device__ void scale(const Op &o, int bx) {
  for (int i = bx * THREADS + threadIdx.x; i < o.n[0]; i += o.blocks_x * THREADS)
    o.p[2][i] = o.p[0][i] * o.p[1][i / LANES / o.n[1] * LANES + i % LANES];
}

/* p: g, x, by, gx, g_by; n: area */
__device__ void scale_back(const Op &o, int by, float *shared) {
  int L = o.n[0] * LANES;
  i64 at = (i64)by * L;
  float sum = plane_sum(o.p[0] + at, o.p[1] + at, o.n[0], shared);
  if (threadIdx.x < LANES) o.p[4][by * LANES + threadIdx.x] = sum;
  for (int i = threadIdx.x; i < L; i += THREADS)
    o.p[3][at + i] = o.p[0][at + i] * o.p[2][by * LANES + i % LANES];
}

/* ---- batch norm -------------------------------------------------------------- */

/* p: x, sums [blocks_x][C][2], running_mean, middle, bias; n: groups, channels, area,
   before. The sums that a convolution can also make itself. */
__device__ void statistics(const Op &o, int bx, int by, float *shared) {
  int C = o.n[1], L = o.n[2] * LANES;
  float bias = o.p[4] ? o.p[4][by] : 0, middle = o.p[2][by], plain = 0, squares = 0;
  for (int g = 0; g < o.n[0]; g++) {
    const float *x = o.p[0] + (i64)(g * C + by) * L;
    for (int i = bx * THREADS + threadIdx.x; i < L / 4; i += o.blocks_x * THREADS) {
      Four four = ((const Four *)x)[i];
#pragma unroll
      for (int k = 0; k < 4; k++) {
        float d = activated(four.of[k], bias, o.n[3]) - middle;
        plain += d;
        squares += d * d;
      }
    }
  }
  plain = block_sum(plain, shared);
  squares = block_sum(squares, shared);
  if (threadIdx.x) return;
  if (bx == 0) o.p[3][by] = middle;
  o.p[1][((i64)bx * C + by) * 2] = plain;
  o.p[1][((i64)bx * C + by) * 2 + 1] = squares;
}

/* The sum of the parts [count][C][2] for channel c, both numbers, in all threads. */
__device__ void added(const float *parts, int count, int C, int c, float *sums,
                      float *shared) {
  float a = 0, b = 0;
  for (int k = threadIdx.x; k < count; k += THREADS) {
    a += parts[((i64)k * C + c) * 2];
    b += parts[((i64)k * C + c) * 2 + 1];
  }
  sums[0] = block_sum(a, shared);
  sums[1] = block_sum(b, shared);
}

/* p: x, y, sums, middle, bias, weight, shift, running_mean, running_var, saved [4][C],
      seeds, place
   n: groups, channels, area, before, after, count of sums, layer, threshold
   f: momentum, eps, scale of dropout */
__device__ void norm(const Op &o, int bx, int by, float *shared) {
  int C = o.n[1], L = o.n[2] * LANES, c = by % C;
  float sums[2], count = (float)o.n[0] * L, *saved = o.p[9];
  added(o.p[2], o.n[5], C, c, sums, shared);
  float off = sums[0] / count, var = sums[1] / count - off * off;
  float mean = o.p[3][c] + off, inverse = 1 / sqrtf(fmaxf(var, 0.f) + o.f[1]);
  if (var != var) inverse = var;
  float times = o.p[5][c] * inverse, plus = o.p[6][c] - mean * times;
  float bias = o.p[4] ? o.p[4][c] : 0;
  if (bx == 0 && by < C && threadIdx.x == 0) {
    saved[c] = mean;
    saved[C + c] = inverse;
    saved[2 * C + c] = times;
    saved[3 * C + c] = plus;
    o.p[7][c] += o.f[0] * (mean - o.p[7][c]);
    o.p[8][c] += o.f[0] * (var * (count / (count - 1)) - o.p[8][c]);
  }
  Dropped d = dropped(o, 10, 6, o.f[2]);
  int before = o.n[3], after = o.n[4], stride = o.blocks_x * THREADS;
  for (int i = bx * THREADS + threadIdx.x; i < L / 4; i += BATCH * stride) {
    Four x[BATCH];
    fetch(x, o.p[0] + by * L, i, stride, L / 4);
#pragma unroll
    for (int u = 0; u < BATCH; u++) {
      int at = by * L + 4 * (i + u * stride);
#pragma unroll
      for (int k = 0; k < 4; k++) {
        float value = activated(x[u].of[k], bias, before) * times + plus;
        if (after) value = rectify(value, value);
        x[u].of[k] = kept(value, at + k, d);
      }
      if (i + u * stride < L / 4) *(Four *)(o.p[1] + at) = x[u];
    }
  }
}

/* What comes back through dropout and the activation after batch norm. */
__device__ float through(float g, float value, int at, float times, float plus,
                         int after, const Dropped &d) {
  float back = kept(g, at, d);
  return after ? rectify(back, value * times + plus) : back;
}

/* p: g, x, sums [blocks_x][C][2], bias, saved, seeds, place
   n: groups, channels, area, before, after, -, layer, threshold
   f: scale of dropout */
__device__ void norm_back_sums(const Op &o, int bx, int by, float *shared) {
  int C = o.n[1], L = o.n[2] * LANES;
  float bias = o.p[3] ? o.p[3][by] : 0, mean = o.p[4][by];
  float times = o.p[4][2 * C + by], plus = o.p[4][3 * C + by], sum = 0, product = 0;
  Dropped d = dropped(o, 5, 6, o.f[0]);
  int before = o.n[3], after = o.n[4], stride = o.blocks_x * THREADS;
  for (int g = 0; g < o.n[0]; g++) {
    int start = (g * C + by) * L;
    for (int i = bx * THREADS + threadIdx.x; i < L / 4; i += BATCH * stride) {
      Four x[BATCH], came[BATCH];
      fetch(x, o.p[1] + start, i, stride, L / 4);
      fetch(came, o.p[0] + start, i, stride, L / 4);
#pragma unroll
      for (int u = 0; u < BATCH; u++) {
        if (i + u * stride >= L / 4) continue;
        int at = start + 4 * (i + u * stride);
#pragma unroll
        for (int k = 0; k < 4; k++) {
          float value = activated(x[u].of[k], bias, before);
          float back = through(came[u].of[k], value, at + k, times, plus, after, d);
          sum += back;
          product += back * (value - mean);
        }
      }
    }
  }
  sum = block_sum(sum, shared);
  product = block_sum(product, shared);
  if (threadIdx.x) return;
  o.p[2][((i64)bx * C + by) * 2] = sum;
  o.p[2][((i64)bx * C + by) * 2 + 1] = product;
}

/* p: g, x, sums, bias, saved, seeds, place, gx, g_weight, g_shift,
      g_bias [groups * blocks_x][C]
   n: groups, channels, area, before, after, count of sums, layer, threshold
   f: scale of dropout */
__device__ void norm_back(const Op &o, int bx, int by, float *shared) {
  int C = o.n[1], L = o.n[2] * LANES, c = by % C;
  float sums[2], count = (float)o.n[0] * L, bias = o.p[3] ? o.p[3][c] : 0;
  const float *saved = o.p[4];
  float mean = saved[c], inverse = saved[C + c], times = saved[2 * C + c];
  float plus = saved[3 * C + c];
  added(o.p[2], o.n[5], C, c, sums, shared);
  float by_weight = sums[1] * inverse;
  if (bx == 0 && by < C && threadIdx.x == 0) {
    o.p[8][c] = by_weight;
    o.p[9][c] = sums[0];
  }
  float by_x = -times * inverse * by_weight / count;
  float constant = -times * sums[0] / count - by_x * mean, biases = 0;
  Dropped d = dropped(o, 5, 6, o.f[0]);
  int before = o.n[3], after = o.n[4], stride = o.blocks_x * THREADS;
  for (int i = bx * THREADS + threadIdx.x; i < L / 4; i += BATCH * stride) {
    Four x[BATCH], came[BATCH];
    fetch(x, o.p[1] + by * L, i, stride, L / 4);
    fetch(came, o.p[0] + by * L, i, stride, L / 4);
#pragma unroll
    for (int u = 0; u < BATCH; u++) {
      if (i + u * stride >= L / 4) continue;
      int at = by * L + 4 * (i + u * stride);
#pragma unroll
      for (int k = 0; k < 4; k++) {
        float value = activated(x[u].of[k], bias, before);
        float back = through(came[u].of[k], value, at + k, times, plus, after, d);
        back = back * times + (value * by_x + constant);
        if (before) back = rectify(back, value);
        came[u].of[k] = back;
        biases += back;
      }
      *(Four *)(o.p[7] + at) = came[u];
    }
  }
  if (!o.p[10]) return;
  biases = block_sum(biases, shared);
  if (threadIdx.x == 0) o.p[10][(by / C * o.blocks_x + bx) * C + c] = biases;
}

/* p: x, y, weight, bias, running_mean, running_var; n: channels, area; f: eps */
__device__ void norm_eval(const Op &o, int bx, int by) {
  int c = by % o.n[0], L = o.n[1] * LANES;
  float times = o.p[2][c] / sqrtf(o.p[5][c] + o.f[0]);
  float plus = o.p[3][c] - o.p[4][c] * times;
  i64 at = (i64)by * L;
  for (int i = bx * THREADS + threadIdx.x; i < L; i += o.blocks_x * THREADS)
    o.p[1][at + i] = o.p[0][at + i] * times + plus;
}

/* ---- the loss and the change of the weights ---------------------------------- */

/* p: logits [G][K][32], their gradient, labels [steps][images], place, class weights,
      losses
   n: groups, classes; f: label smoothing

   Adds the mean cross entropy to `losses`. One block: the images are few. */
__device__ void cross_entropy(const Op &o, float *shared) {
  int G = o.n[0], K = o.n[1], lane = threadIdx.x % LANES, warp = threadIdx.x / LANES;
  const i64 *labels = (const i64 *)o.p[2] + (i64)G * LANES * *(const int *)o.p[3];
  const float *weights = o.p[4];
  float smoothing = o.f[0], all = 0, divisor = 0, loss = 0;
  for (int k = 0; k < K; k++) all += weights ? weights[k] : 1;
  for (int g = warp; g < G; g += WARPS)
    divisor += weights ? weights[labels[g * LANES + lane]] : 1;
  divisor = block_sum(divisor, shared);
  for (int g = warp; g < G; g += WARPS) {
    const float *z = o.p[0] + g * K * LANES + lane;
    float *gz = o.p[1] + g * K * LANES + lane;
    int label = (int)labels[g * LANES + lane];
    float highest = z[0], sum = 0, smooth = 0;
    for (int k = 1; k < K; k++) highest = z[k * LANES] > highest ? z[k * LANES] : highest;
    for (int k = 0; k < K; k++) sum += expf(z[k * LANES] - highest);
    float log_sum = highest + logf(sum), own = (weights ? weights[label] : 1);
    for (int k = 0; k < K; k++) {
      float p = expf(z[k * LANES] - log_sum), by = weights ? weights[k] : 1;
      smooth += by * (log_sum - z[k * LANES]);
      gz[k * LANES] = ((1 - smoothing) * own * (p - (k == label)) +
                       smoothing / K * (all * p - by)) / divisor;
    }
    loss += (1 - smoothing) * own * (log_sum - z[label * LANES]) + smoothing / K * smooth;
  }
  loss = block_sum(loss, shared);
  if (threadIdx.x == 0) o.p[5][0] += loss / divisor;
}

/* Where the parts of a parameter's gradient lie: `parts` of them, [splits][count]. */
struct Part { const float *values; int splits, next; };
/* A parameter's values; `start` is where it begins among all. */
struct Parameter { float *values; int start, count, part; float decay; };

/* The one of `count` parameters that value i of all belongs to. */
__device__ const Parameter &parameter_of(const Parameter *parameters, int count, int i) {
  int low = 0, high = count - 1;
  while (low < high) {
    int middle = (low + high + 1) / 2;
    if (parameters[middle].start <= i)
      low = middle;
    else
      high = middle - 1;
  }
  return parameters[low];
}

/* p: parameters, parts, gradient, squares [blocks_x], place, step
   n: how many parameters, values

   Adds up the parts of each gradient, and the squares of all of them. This is where a
   step counts as done. */
__device__ void gather(const Op &o, int bx, float *shared) {
  const Parameter *parameters = (const Parameter *)o.p[0];
  const Part *parts = (const Part *)o.p[1];
  float squares = 0;
  for (int i = bx * THREADS + threadIdx.x; i < o.n[1]; i += o.blocks_x * THREADS) {
    const Parameter &own = parameter_of(parameters, o.n[0], i);
    float sum = 0;
    for (int p = own.part; p >= 0; p = parts[p].next)
      for (int s = 0; s < parts[p].splits; s++)
        sum += parts[p].values[(i64)s * own.count + i - own.start];
    o.p[2][i] = sum;
    squares += sum * sum;
  }
  squares = block_sum(squares, shared);
  if (threadIdx.x) return;
  o.p[3][bx] = squares;
  if (bx) return;
  *(int *)o.p[4] += 1;
  *o.p[5] += 1;
}

enum { SGD, ADAM, ADAMW };

/* p: parameters, gradient, squares, place, step, rates [steps], first and second moments
   n: how many parameters, values, count of squares, optimizer, nesterov
   f: clip_norm, momentum or the first beta, second beta, epsilon

   What torch.nn.utils.clip_grad_norm_ and torch.optim do. */
__device__ void update(const Op &o, int bx, float *shared) {
  const Parameter *parameters = (const Parameter *)o.p[0];
  float squares = 0, clip = 1, step = *o.p[4];
  for (int k = threadIdx.x; k < o.n[2]; k += THREADS) squares += o.p[2][k];
  squares = block_sum(squares, shared);
  if (o.f[0] > 0) {
    clip = o.f[0] / (sqrtf(squares) + 1e-6f);
    if (clip > 1) clip = 1;
  }
  float rate = o.p[5][*(const int *)o.p[3] - 1], beta = o.f[1], second = o.f[2];
  int kind = o.n[3];
  for (int i = bx * THREADS + threadIdx.x; i < o.n[1]; i += o.blocks_x * THREADS) {
    const Parameter &own = parameter_of(parameters, o.n[0], i);
    if (own.part < 0) continue; /* it takes no part in the model */
    float *value = own.values + (i - own.start), g = o.p[1][i] * clip;
    if (kind == ADAMW)
      *value *= 1 - rate * own.decay;
    else
      g += own.decay * *value;
    if (kind == SGD) {
      if (beta > 0) {
        float moment = o.p[6][i] = beta * o.p[6][i] + g;
        g = o.n[4] ? g + beta * moment : moment;
      }
      *value -= rate * g;
      continue;
    }
    float mean = o.p[6][i] = beta * o.p[6][i] + (1 - beta) * g;
    float square = o.p[7][i] = second * o.p[7][i] + (1 - second) * g * g;
    float unbiased = sqrtf(square) / sqrtf(1 - powf(second, step)) + o.f[3];
    *value -= rate / (1 - powf(beta, step)) * mean / unbiased;
  }
}

/* ---- going through the operations -------------------------------------------- */

/* The order is that of OPERATIONS in program.py. */
__device__ void execute(const Op &o, int bx, int by, float *shared) {
  switch (o.code) {
    case 0: conv<0, 4, false>(o, bx, by, shared); break;
    case 1: conv<1, 8, false>(o, bx, by, shared); break;
    case 2: conv<3, 4, false>(o, bx, by, shared); break;
    case 3: conv<5, 4, false>(o, bx, by, shared); break;
    case 4: conv<0, 1, true>(o, bx, by, shared); break;
    case 5: conv<3, 1, true>(o, bx, by, shared); break;
    case 6: conv<5, 1, true>(o, bx, by, shared); break;
    case 7: conv_weight<0, 4, 4, false>(o, bx, by); break;
    case 8: conv_weight<1, 8, 8, false>(o, bx, by); break;
    case 9: conv_weight<3, 4, 1, false>(o, bx, by); break;
    case 10: conv_weight<5, 2, 1, false>(o, bx, by); break;
    case 11: conv_weight<0, 1, 1, true>(o, bx, by); break;
    case 12: conv_weight<3, 1, 1, true>(o, bx, by); break;
    case 13: conv_weight<5, 1, 1, true>(o, bx, by); break;
    case 14: add_bias(o, bx, by); break;
    case 15: add_bias_back(o, by, shared); break;
    case 16: pool(o, bx); break;
    case 17: pool_back(o, bx); break;
    case 18: global_mean(o, by, shared); break;
    case 19: global_mean_back(o, bx); break;
    case 20: activate(o, bx); break;
    case 21: activate_back(o, bx); break;
    case 22: add(o, bx); break;
    case 23: copy(o, bx); break;
    case 24: join(o, bx); break;
    case 25: scale(o, bx); break;
    case 26: scale_back(o, by, shared); break;
    case 27: statistics(o, bx, by, shared); break;
    case 28: norm(o, bx, by, shared); break;
    case 29: norm_back_sums(o, bx, by, shared); break;
    case 30: norm_back(o, bx, by, shared); break;
    case 31: norm_eval(o, bx, by); break;
    case 32: dropout(o, bx); break;
    case 33: cross_entropy(o, shared); break;
    case 34: gather(o, bx, shared); break;
    case 35: update(o, bx, shared); break;
  }
}

/* Wait until all blocks are here, and see what they have written; say whether they came.
   `arrived[0]` is 0 at the start and counts all arrivals. Blocks that never came to run
   (the GPU is full) would leave the others waiting without end: these give up, and set
   `arrived[1]`, which stays until the host has seen it. */
__device__ bool wait_for_all(u32 *arrived) {
  __shared__ bool came;
  __syncthreads();
  if (threadIdx.x == 0) {
    __threadfence();
    u32 ticket = atomicAdd(arrived, 1u);
    u32 all = (ticket / gridDim.x + 1) * gridDim.x;
    u32 seen = 0;
    for (i64 tries = 0; (seen = *(volatile u32 *)arrived) < all; tries++)
      if (tries > MOST_TRIES) {
        atomicOr(arrived + 1, 1u);
        atomicOr(arrived, GAVE_UP);
      }
    came = seen < GAVE_UP;
    __threadfence();
  }
  __syncthreads();
  return came;
}

/* Copy an operation, byte by byte: only so may it be read as what it is. */
__device__ void take(Op *to, const Op *from) {
  for (int k = threadIdx.x; k < (int)sizeof(Op); k += THREADS)
    ((char *)to)[k] = ((const char *)from)[k];
}

/* Go through `count` operations, `times` times. All blocks have to run at once. */
extern "C" __global__ void __launch_bounds__(THREADS, 2)
    run(const Op *operations, int count, int times, u32 *arrived) {
  __shared__ __align__(16) float shared[ROOM];
  __shared__ Op ahead[2]; /* what comes next is read before it is waited for */
  int total = count * times;
  for (int n = 0; n <= total; n++) {
    if (n && !wait_for_all(arrived)) return;
    if (n == 0) take(&ahead[0], operations);
    if (n == 0) __syncthreads();
    if (n == total) break;
    const Op &o = ahead[n % 2];
    int blocks = o.blocks_x * o.blocks_y;
    for (int b = blockIdx.x; b < blocks; b += gridDim.x) {
      execute(o, b % o.blocks_x, b / o.blocks_x, shared);
      __syncthreads();
    }
    take(&ahead[(n + 1) % 2], operations + (n + 1) % count);
  }
}
