/* ---- The arithmetic, the same for every net -------------------------------- */

enum { NONE, RELU, LEAKY_RELU, HARDSWISH, SILU }; /* activation in fixed point */
enum { LANES = 4 };                               /* channels summed at a time */

/* One convolution and what follows it. Feature maps are [height][width][channels]
   (the image: [channels][height][width]), weights [out][kernel_h][kernel_w][in], of
   depthwise ones [kernel_h][kernel_w][channels]. All sizes are in numbers. */
struct layer {
    const int8_t *weight;
    const int32_t *bias;
    const int32_t *multiplier;
#if NET_HAS_ACTIVATION
    const int32_t *second; /* multiplier and offset of what the activation gives */
    const int64_t *offset;
#endif
    const uint8_t *zero; /* what a value of 0 is in the input */
    uint16_t in_h, in_w, in_c, out_h, out_w, out_c;
    uint16_t out_step; /* channels of the output that this is a part of */
    uint16_t kernel_h, kernel_w, window_h, window_w;
    uint8_t stride, pad;
    uint8_t depthwise, shared; /* shared: one bias and one multiplier for all */
    uint8_t planes;            /* the input is [channels][height][width] */
    uint8_t average, late;     /* pooling: mean or maximum; after the activation */
    uint8_t out_zero, logits;
    uint8_t shift;
#if NET_HAS_ACTIVATION
    uint8_t activation, fraction, second_shift, second_shared;
#endif
};

/* Divides by 2**shift, rounding down; C leaves >> of negative numbers open. */
static inline int64_t scaled_down(int64_t value, int shift)
{
    return value < 0 ? ~(~value >> shift) : value >> shift;
}

static inline int32_t clamp(int64_t value, int32_t low, int32_t high)
{
    return value < low ? low : value > high ? high : (int32_t)value;
}

#if NET_HAS_SILU
/* 2**16 / (1 + exp(-i / 16)) */
static const uint32_t sigmoids[129] = {
@SIGMOIDS@
};

static int32_t sigmoid(int32_t value, int fraction)
{
    const int bits = fraction - 4;
    const int32_t magnitude = value < 0 ? -value : value;
    const int32_t place = magnitude >> bits;
    int32_t result = 65536;
    if (place < 128) {
        const int32_t low = (int32_t)sigmoids[place];
        const int64_t rise = (int32_t)sigmoids[place + 1] - low;
        const int32_t rest = magnitude - place * ((int32_t)1 << bits);
        result = low + (int32_t)((rise * rest) >> bits);
    }
    return value < 0 ? 65536 - result : result;
}
#endif

#if NET_HAS_ACTIVATION
static int32_t activated(const struct layer *p, int32_t value)
{
    switch (p->activation) {
    case RELU:
        return value < 0 ? 0 : value;
    case LEAKY_RELU: /* 0.01 of it */
        if (value >= 0)
            return value;
        return (int32_t)scaled_down((int64_t)value * 10486 + (1 << 19), 20);
#if NET_HAS_HARDSWISH
    case HARDSWISH: { /* six times as much */
        const int32_t three = (int32_t)3 << p->fraction;
        const int32_t gate = clamp((int64_t)value + three, 0, 2 * three);
        return (int32_t)scaled_down((int64_t)value * gate, p->fraction);
    }
#endif
#if NET_HAS_SILU
    case SILU:
        return (int32_t)scaled_down((int64_t)value * sigmoid(value, p->fraction), 16);
#endif
    default:
        return value;
    }
}
#endif

/* From a sum, with its bias, to what the layer gives for channel c. */
static int32_t finished(const struct layer *p, int32_t sum, int c)
{
    const int64_t half = (int64_t)1 << (p->shift - 1);
    int64_t value = (int64_t)sum * p->multiplier[p->shared ? 0 : c];
    value = scaled_down(value + half, p->shift);
    if (p->logits)
        return clamp(value, -INT32_MAX - 1, INT32_MAX);
#if NET_HAS_ACTIVATION
    if (p->activation != NONE) {
        const int32_t limit = (int32_t)1 << 27;
        const int64_t fine = activated(p, clamp(value, -limit, limit));
        const int place = p->second_shared ? 0 : c;
        value = fine * p->second[place] + p->offset[place];
        return clamp(scaled_down(value, p->second_shift), 0, 255);
    }
#endif
    return clamp(value + p->out_zero, 0, 255);
}

/* Adds the products of count inputs and weights to the sums of some channels, whose
   weights are step apart. */
static inline void multiply(const uint8_t *in, const int8_t *weight, int count,
                            int step, int lanes, int32_t *sums)
{
    if (lanes == LANES) {
        const int8_t *const second = weight + step;
        const int8_t *const third = second + step;
        const int8_t *const fourth = third + step;
        int32_t a = sums[0], b = sums[1], c = sums[2], d = sums[3];
        for (int i = 0; i < count; i++) {
            const int32_t value = in[i];
            a += value * weight[i];
            b += value * second[i];
            c += value * third[i];
            d += value * fourth[i];
        }
        sums[0] = a, sums[1] = b, sums[2] = c, sums[3] = d;
        return;
    }
    for (int lane = 0; lane < lanes; lane++, weight += step)
        for (int i = 0; i < count; i++)
            sums[lane] += (int32_t)in[i] * weight[i];
}

/* The same for places outside the image, where every input is zero. */
static void add_padding(int32_t zero, const int8_t *weight, int count, int step,
                        int lanes, int32_t *sums)
{
    if (zero == 0)
        return;
    for (int lane = 0; lane < lanes; lane++, weight += step)
        for (int i = 0; i < count; i++)
            sums[lane] += zero * weight[i];
}

/* The convolution's sums at (y, x) for the channels from c on, without bias. */
static void convolve(const struct layer *p, const uint8_t *in, int y, int x, int c,
                     int lanes, int32_t *sums)
{
    const int top = y * p->stride - p->pad, left = x * p->stride - p->pad;
    const int first = left < 0 ? -left : 0; /* the columns inside the image */
    const int end = left + p->kernel_w > p->in_w ? p->in_w - left : p->kernel_w;
    const int in_c = p->planes ? 1 : p->in_c;
    const int row = p->kernel_w * in_c;
    const int step = p->kernel_h * p->kernel_w * p->in_c;
    const int8_t *weight = p->weight + (int32_t)c * step;
    for (int plane = 0; plane < (p->planes ? p->in_c : 1); plane++) {
        const int32_t zero = p->zero[plane];
        for (int ky = 0; ky < p->kernel_h; ky++, weight += row) {
            const int at = top + ky;
            if (at < 0 || at >= p->in_h) {
                add_padding(zero, weight, row, step, lanes, sums);
                continue;
            }
            if (first)
                add_padding(zero, weight, first * in_c, step, lanes, sums);
            multiply(in + ((int32_t)at * p->in_w + left + first) * in_c,
                     weight + first * in_c, (end - first) * in_c, step, lanes, sums);
            if (end < p->kernel_w)
                add_padding(zero, weight + end * in_c, row - end * in_c, step, lanes,
                            sums);
        }
        in += (int32_t)p->in_h * p->in_w;
    }
}

#if NET_HAS_DEPTHWISE
static void convolve_depthwise(const struct layer *p, const uint8_t *in, int y, int x,
                               int c, int lanes, int32_t *sums)
{
    const int top = y * p->stride - p->pad, left = x * p->stride - p->pad;
    const int32_t column = p->planes ? 1 : p->in_c;
    const int32_t channel = p->planes ? (int32_t)p->in_h * p->in_w : 1;
    const int8_t *weight = p->weight + c;
    in += c * channel;
    for (int ky = 0; ky < p->kernel_h; ky++) {
        const int row = top + ky;
        for (int kx = 0; kx < p->kernel_w; kx++, weight += p->in_c) {
            const int at = left + kx;
            if (row < 0 || row >= p->in_h || at < 0 || at >= p->in_w) {
                for (int lane = 0; lane < lanes; lane++)
                    sums[lane] += p->zero[p->planes ? c + lane : 0] * weight[lane];
                continue;
            }
            const uint8_t *const values = in + ((int32_t)row * p->in_w + at) * column;
            for (int lane = 0; lane < lanes; lane++)
                sums[lane] += (int32_t)values[lane * channel] * weight[lane];
        }
    }
}
#endif

static void run(const struct layer *p, const uint8_t *in, uint8_t *out, int32_t *logits)
{
    for (int y = 0; y < p->out_h; y++)
        for (int x = 0; x < p->out_w; x++)
            for (int c = 0; c < p->out_c; c += LANES) {
                const int lanes = p->out_c - c < LANES ? p->out_c - c : LANES;
                int32_t pooled[LANES] = {0};
                for (int wy = 0; wy < p->window_h; wy++)
                    for (int wx = 0; wx < p->window_w; wx++) {
                        const int at_y = y * p->window_h + wy;
                        const int at_x = x * p->window_w + wx;
                        int32_t sums[LANES] = {0};
#if NET_HAS_DEPTHWISE
                        if (p->depthwise)
                            convolve_depthwise(p, in, at_y, at_x, c, lanes, sums);
                        else
#endif
                            convolve(p, in, at_y, at_x, c, lanes, sums);
                        for (int lane = 0; lane < lanes; lane++) {
                            int32_t value = sums[lane];
                            if (p->late)
                                value = finished(p, value + p->bias[c + lane], c + lane);
                            if (p->average)
                                pooled[lane] += value;
                            else if ((wy == 0 && wx == 0) || value > pooled[lane])
                                pooled[lane] = value;
                        }
                    }
                for (int lane = 0; lane < lanes; lane++) {
                    const int32_t sum = pooled[lane];
                    int32_t value = sum;
                    if (!p->late)
                        value = finished(p, sum + p->bias[p->shared ? 0 : c + lane],
                                         c + lane);
                    else if (p->average) /* a quarter, halves to the even number */
                        value = (sum + 1 + ((sum >> 2) & 1)) >> 2;
                    if (p->logits)
                        logits[c + lane] = value;
                    else
                        out[((int32_t)y * p->out_w + x) * p->out_step + c + lane] =
                            (uint8_t)value;
                }
            }
}
