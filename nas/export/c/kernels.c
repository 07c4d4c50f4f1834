/* ---- The arithmetic, the same for every net -------------------------------- */

/* The activation, in fixed point. */
enum { NONE, RELU, LEAKY_RELU, HARDSWISH, SILU, RELU6, SIGMOID, TANH, GELU, ELU };
enum { LANES = 4 }; /* channels summed at a time */

/* One convolution and what follows it. Feature maps are [height][width][channels], the
   image [channels][height][width]. Weights are [out / 4][kernel_h][kernel_w][in][4], so
   that those of four output channels lie side by side (the last group has what is left),
   of the image's layer [out / 4][in][kernel_h][kernel_w][4], and of a depthwise layer
   [kernel_h][kernel_w][channels]. In a grouped convolution in is what a group takes, and
   each group begins anew with four channels. All sizes are in numbers. */
struct layer {
    const int8_t *weight;
    const int32_t *bias;
    const int32_t *multiplier;
#if NET_HAS_ACTIVATION
    const int32_t *second; /* multiplier and offset of what the activation gives */
    const int64_t *offset;
#endif
#if NET_HAS_ADDITION
    int64_t added_multiplier;
    const uint8_t *added; /* what is added to the sums, of the output's shape, or NULL */
    uint8_t added_zero;
#endif
#if NET_HAS_GATES
    const uint8_t *gates; /* what each channel's sums are multiplied with, or NULL */
#endif
    const uint8_t *zero; /* what a value of 0 is in the input */
    uint16_t in_h, in_w, in_c, out_h, out_w, out_c;
    uint16_t out_step; /* channels of the output that this is a part of; 0: logits */
    uint16_t kernel_h, kernel_w, window_h, window_w;
#if NET_HAS_OVERLAPS
    uint16_t step_h, step_w;  /* how far apart the windows are */
    uint8_t inset_h, inset_w; /* how far the first one lies outside */
#endif
    uint8_t stride, pad;
#if NET_HAS_SHAPES
    uint8_t pad_w, dilation; /* pad is above and below then, pad_w beside */
#endif
#if NET_HAS_GROUPS
    uint16_t taken, given; /* channels that each group takes and gives */
#endif
    uint8_t depthwise, shared; /* shared: one bias and one multiplier for all */
    uint8_t planes;            /* the input is [channels][height][width] */
    uint8_t average, late;     /* pooling: mean or maximum; after the activation */
    uint8_t out_zero;
    uint8_t up, shift; /* a sum is doubled so many times, multiplied, halved so many */
#if NET_HAS_ACTIVATION
    uint8_t activation, fraction, second_shift, second_shared;
#endif
};

/* Divides by 2**shift, rounding down. C leaves >> of a negative number to the compiler;
   all that are known do this, and the others get the long way. */
static inline int64_t halved(int64_t value, int shift)
{
    if (-1 >> 1 == -1 || value >= 0)
        return value >> shift;
    return ~(~value >> shift);
}

static inline int32_t clamp(int32_t value, int32_t low, int32_t high)
{
    return value < low ? low : value > high ? high : value;
}

/* The same into 31 bits. Most shifts are of more than 32, where the upper half of the
   number is enough. */
static inline int32_t scaled_down(int64_t value, int shift)
{
    const int64_t limit = (int64_t)1 << 30;
    if (shift >= 32) {
        const int32_t high = (int32_t)halved(value, 32);
        if (-1 >> 1 == -1 || high >= 0)
            return high >> (shift - 32);
        return ~(~high >> (shift - 32));
    }
    value = halved(value, shift);
    return (int32_t)(value < -limit ? -limit : value > limit ? limit : value);
}

/* Tables of what rises to 1, in units of 2**-16 and for 0, 1 / 16, 2 / 16, ... 8. */
#if NET_HAS_SIGMOIDAL
static const uint32_t sigmoids[129] = { /* 1 / (1 + exp(-x)) */
@sigmoid@
};
#endif
#if NET_HAS_GELU
static const uint32_t normals[129] = { /* (1 + erf(x / sqrt(2))) / 2 */
@normal@
};
#endif
#if NET_HAS_ELU
static const uint32_t decays[129] = { /* 1 - exp(-x) */
@decay@
};
#endif

#if NET_HAS_SIGMOIDAL || NET_HAS_GELU || NET_HAS_ELU
static int32_t curve(const uint32_t *table, int32_t magnitude, int fraction)
{
    const int bits = fraction - 4;
    const int32_t place = magnitude >> bits;
    int32_t result = 65536;
    if (place < 128) {
        const int32_t low = (int32_t)table[place];
        const int64_t rise = (int32_t)table[place + 1] - low;
        const int32_t rest = magnitude - place * ((int32_t)1 << bits);
        result = low + (int32_t)((rise * rest) >> bits);
    }
    return result;
}
#endif

#if NET_HAS_SIGMOIDAL || NET_HAS_GELU
/* The same below 0, too, where the sum for x and -x is 1. */
static int32_t gate(const uint32_t *table, int32_t value, int fraction)
{
    const int32_t result = curve(table, value < 0 ? -value : value, fraction);
    return value < 0 ? 65536 - result : result;
}
#endif

#if NET_HAS_ACTIVATION
static int32_t activated(const struct layer *p, int32_t value)
{
    switch (p->activation) {
    case RELU:
        return value < 0 ? 0 : value;
#if NET_HAS_RELU6
    case RELU6:
        return clamp(value, 0, (int32_t)6 << p->fraction);
#endif
    case LEAKY_RELU: /* 0.01 of it */
        if (value >= 0)
            return value;
        return (int32_t)halved((int64_t)value * 10486 + (1 << 19), 20);
#if NET_HAS_HARDSWISH
    case HARDSWISH: { /* six times as much */
        const int32_t three = (int32_t)3 << p->fraction;
        const int32_t gate = clamp(value + three, 0, 2 * three) << (28 - p->fraction);
        return (int32_t)halved((int64_t)value * gate, 28);
    }
#endif
#if NET_HAS_SIGMOID
    case SIGMOID:
        return gate(sigmoids, value, p->fraction);
#endif
#if NET_HAS_TANH
    case TANH:
        return 2 * gate(sigmoids, 2 * value, p->fraction) - 65536;
#endif
#if NET_HAS_SILU
    case SILU:
        return (int32_t)halved((int64_t)value * gate(sigmoids, value, p->fraction), 16);
#endif
#if NET_HAS_GELU
    case GELU:
        return (int32_t)halved((int64_t)value * gate(normals, value, p->fraction), 16);
#endif
#if NET_HAS_ELU
    case ELU:
        if (value >= 0)
            return value;
        return -(curve(decays, -value, p->fraction) >> (16 - p->fraction));
#endif
    default:
        return value;
    }
}
#endif

/* From a sum to what the layer gives for channel c; half is 2**(shift - 1). */
static int32_t finished(const struct layer *p, int64_t half, int32_t sum, int c)
{
    const int place = p->shared ? 0 : c;
    int32_t large = (sum + p->bias[place]) * ((int32_t)1 << p->up);
#if NET_HAS_GATES
    if (p->gates)
        large *= p->gates[c];
#endif
    const int64_t product = (int64_t)large * p->multiplier[place];
    const int32_t value = scaled_down(product + half, p->shift);
    if (p->out_step == 0)
        return value;
#if NET_HAS_ACTIVATION
    if (p->activation != NONE) {
        const int32_t limit = (int32_t)1 << 27;
        const int32_t fixed = activated(p, clamp(value, -limit, limit));
        const int own = p->second_shared ? 0 : c;
        return clamp(scaled_down((int64_t)fixed * p->second[own] + p->offset[own],
                                 p->second_shift),
                     0, 255);
    }
#endif
    return clamp(value + p->out_zero, 0, 255);
}

/* How far apart the kernel's taps are; how many such steps, rounded up, a distance is. */
#if NET_HAS_SHAPES
#define PAD_W(p) ((p)->pad_w)
#define APART(p) ((p)->dilation)
#define STEPS(p, distance) (((distance) + (p)->dilation - 1) / (p)->dilation)
#else
#define PAD_W(p) ((p)->pad)
#define APART(p) 1
#define STEPS(p, distance) (distance)
#endif

/* The channels that an output channel is made of: how many, and the first of them. */
#if NET_HAS_GROUPS
#define TAKEN(p) ((p)->taken)
#define FIRST(p, c) ((c) / (p)->given * (p)->taken)
#else
#define TAKEN(p) ((p)->in_c)
#define FIRST(p, c) 0
#endif

/* What of the input the kernel covers at one place: rows and columns of the kernel that
   are inside, and the input under its first one. */
struct view {
    const uint8_t *in;
    int first_row, end_row, first, end;
};

static struct view view_at(const struct layer *p, const uint8_t *in, int y, int x)
{
    const int top = y * p->stride - p->pad, left = x * p->stride - PAD_W(p);
    const int below = STEPS(p, p->in_h - top), right = STEPS(p, p->in_w - left);
    struct view v;
    v.first_row = top < 0 ? STEPS(p, -top) : 0;
    v.end_row = below < p->kernel_h ? below : p->kernel_h;
    v.first = left < 0 ? STEPS(p, -left) : 0;
    v.end = right < p->kernel_w ? right : p->kernel_w;
    v.in = in + ((int32_t)(top + v.first_row * APART(p)) * p->in_w + left +
                 v.first * APART(p)) *
                    (p->planes ? 1 : p->in_c);
    return v;
}

/* Adds to the sums of up to four channels the products of count inputs and weights. */
static inline void multiply(const uint8_t *in, const int8_t *weight, int count,
                            int lanes, int32_t *sums)
{
    int32_t a = sums[0], b = sums[1], c = sums[2], d = sums[3];
    const uint8_t *const end = in + count;
    if (lanes == 4)
        for (; in < end; weight += 4) {
            const int32_t value = *in++;
            a += value * weight[0];
            b += value * weight[1];
            c += value * weight[2];
            d += value * weight[3];
        }
    else if (lanes == 3)
        for (; in < end; weight += 3) {
            const int32_t value = *in++;
            a += value * weight[0];
            b += value * weight[1];
            c += value * weight[2];
        }
    else if (lanes == 2)
        for (; in < end; weight += 2) {
            const int32_t value = *in++;
            a += value * weight[0];
            b += value * weight[1];
        }
    else
        for (; in < end; weight++)
            a += *in++ * *weight;
    sums[0] = a, sums[1] = b, sums[2] = c, sums[3] = d;
}

/* The same for count places outside the image, where every input is zero. */
static void add_padding(int32_t zero, const int8_t *weight, int count, int lanes,
                        int32_t *sums)
{
    if (zero == 0)
        return;
    for (int i = 0; i < count; i++)
        for (int lane = 0; lane < lanes; lane++)
            sums[lane] += zero * *weight++;
}

/* The convolution's sums for the channels from c on, without bias. */
static void convolve(const struct layer *p, const struct view *v, int c, int lanes,
                     int32_t *sums)
{
    const int planes = p->planes ? TAKEN(p) : 1, in_c = p->planes ? 1 : TAKEN(p);
    const int column = p->planes ? 1 : p->in_c, step = column * APART(p);
    const int origin = FIRST(p, c);
    const int high = p->kernel_h, row = p->kernel_w * in_c;
    const int before = v->first * in_c, inside = (v->end - v->first) * in_c;
    const int after = row - before - inside;
    const int32_t in_step = (int32_t)p->in_w * step;
    const int8_t *weight = p->weight + (int32_t)c * high * row * planes;
    sums[0] = sums[1] = sums[2] = sums[3] = 0;
    for (int plane = 0; plane < planes; plane++) {
        const int32_t area = (int32_t)p->in_h * p->in_w;
        const uint8_t *in = v->in + plane * area + origin * (p->planes ? area : 1);
        const int32_t zero = p->zero[plane + (p->planes ? origin : 0)];
        for (int ky = 0; ky < high; ky++, weight += row * lanes) {
            if (ky < v->first_row || ky >= v->end_row) {
                add_padding(zero, weight, row, lanes, sums);
                continue;
            }
            if (before)
                add_padding(zero, weight, before, lanes, sums);
#if NET_HAS_SHAPES || NET_HAS_GROUPS
            for (int x = 0, at = 0; step > in_c && x < inside; x += in_c, at += step)
                multiply(in + at, weight + (before + x) * lanes, in_c, lanes, sums);
            if (step == in_c)
#endif
                multiply(in, weight + before * lanes, inside, lanes, sums);
            if (after)
                add_padding(zero, weight + (row - after) * lanes, after, lanes, sums);
            in += in_step;
        }
    }
}

#if NET_HAS_DEPTHWISE
/* The same for a depthwise convolution, whose outputs have one input channel each. */
static void convolve_depthwise(const struct layer *p, const struct view *v, int c,
                               int lanes, int32_t *sums)
{
    const int in_c = p->in_c, high = p->kernel_h, wide = p->kernel_w;
    const int column = p->planes ? 1 : in_c;
    const int32_t channel = p->planes ? (int32_t)p->in_h * p->in_w : 1;
    const int32_t in_step = (int32_t)p->in_w * column * APART(p);
    const int step = column * APART(p);
    const int columns = v->end - v->first;
    const uint8_t *in = v->in + c * channel;
    const int8_t *weight = p->weight + c;
    int32_t s0 = 0, s1 = 0, s2 = 0, s3 = 0;
    for (int ky = v->first_row; ky < v->end_row; ky++, in += in_step) {
        const int8_t *w = weight + (ky * wide + v->first) * in_c;
        const uint8_t *value = in;
        if (lanes == LANES && !p->planes)
            for (int kx = columns; kx > 0; kx--, value += step, w += in_c) {
                s0 += value[0] * w[0];
                s1 += value[1] * w[1];
                s2 += value[2] * w[2];
                s3 += value[3] * w[3];
            }
        else
            for (int kx = columns; kx > 0; kx--, value += step, w += in_c) {
                s0 += value[0] * w[0];
                if (lanes > 1)
                    s1 += value[channel] * w[1];
                if (lanes > 2)
                    s2 += value[2 * channel] * w[2];
                if (lanes > 3)
                    s3 += value[3 * channel] * w[3];
            }
    }
    sums[0] = s0, sums[1] = s1, sums[2] = s2, sums[3] = s3;
    if (v->end_row - v->first_row == high && columns == wide)
        return;
    for (int ky = 0; ky < high; ky++)
        for (int kx = 0; kx < wide; kx++) {
            const int rows = ky >= v->first_row && ky < v->end_row;
            if (!rows || kx < v->first || kx >= v->end)
                for (int lane = 0; lane < lanes; lane++)
                    sums[lane] += p->zero[p->planes ? c + lane : 0] *
                                  weight[(ky * wide + kx) * in_c + lane];
        }
}
#endif

static void convolve_any(const struct layer *p, const struct view *v, int c, int lanes,
                         int32_t *sums)
{
#if NET_HAS_DEPTHWISE
    if (p->depthwise) {
        convolve_depthwise(p, v, c, lanes, sums);
        return;
    }
#endif
    convolve(p, v, c, lanes, sums);
}

/* Where the window at (y, x) of the output starts, and what of it is inside. It is inside
   as a whole but where a layer pools alone. */
#if NET_HAS_OVERLAPS
#define TOP(p, y) ((y) * (p)->step_h - (p)->inset_h)
#define LEFT(p, x) ((x) * (p)->step_w - (p)->inset_w)
#define BEGIN(start) ((start) < 0 ? -(start) : 0)
#define END(start, window, size) ((size) - (start) < (window) ? (size) - (start) : (window))
#else
#define TOP(p, y) ((y) * (p)->window_h)
#define LEFT(p, x) ((x) * (p)->window_w)
#define BEGIN(start) 0
#define END(start, window, size) (window)
#endif

/* Sums, finished or not, pooled over the window at (y, x) of the output. */
static void pool(const struct layer *p, const uint8_t *in, int64_t half, int y, int x,
                 int c, int lanes, int32_t *pooled)
{
    for (int wy = BEGIN(TOP(p, y)); wy < END(TOP(p, y), p->window_h, p->in_h); wy++)
        for (int wx = BEGIN(LEFT(p, x)); wx < END(LEFT(p, x), p->window_w, p->in_w); wx++) {
            int32_t sums[LANES];
            const struct view v =
                view_at(p, in, TOP(p, y) + wy, LEFT(p, x) + wx);
            convolve_any(p, &v, c, lanes, sums);
            for (int lane = 0; lane < lanes; lane++) {
                int32_t value = sums[lane];
                if (p->late)
                    value = finished(p, half, value, c + lane);
                if (wy == BEGIN(TOP(p, y)) && wx == BEGIN(LEFT(p, x)))
                    pooled[lane] = value;
                else if (p->average)
                    pooled[lane] += value;
                else if (value > pooled[lane])
                    pooled[lane] = value;
            }
        }
    for (int lane = 0; lane < lanes && p->late && p->average; lane++) {
        const int32_t sum = pooled[lane]; /* a quarter, halves to the even number */
        pooled[lane] = (sum + 1 + ((sum >> 2) & 1)) >> 2;
    }
}

static void run(const struct layer *p, const uint8_t *in, uint8_t *out, int32_t *logits)
{
    const int64_t half = (int64_t)1 << (p->shift - 1);
    const int pools = p->window_h * p->window_w > 1, out_c = p->out_c;
#if NET_HAS_ADDITION
    const uint8_t *added = p->added; /* it may be where the output goes */
#endif
    for (int y = 0; y < p->out_h; y++)
        for (int x = 0; x < p->out_w; x++, out += p->out_step) {
            const struct view v = view_at(p, in, y, x); /* without a window */
            for (int c = 0; c < out_c; c += LANES) {
#if NET_HAS_GROUPS
                const int left = p->depthwise ? out_c - c : p->given - c % p->given;
#else
                const int left = out_c - c;
#endif
                const int lanes = left < LANES ? left : LANES;
                int32_t values[LANES];
                if (pools)
                    pool(p, in, half, y, x, c, lanes, values);
                else
                    convolve_any(p, &v, c, lanes, values);
                for (int lane = 0; lane < lanes; lane++) {
                    int32_t value = values[lane];
                    int64_t start = half;
#if NET_HAS_ADDITION
                    if (p->added)
                        start += (added[c + lane] - p->added_zero) * p->added_multiplier;
#endif
                    if (!pools || !p->late)
                        value = finished(p, start, value, c + lane);
                    if (p->out_step == 0)
                        logits[c + lane] = value;
                    else
                        out[c + lane] = (uint8_t)value;
                }
#if NET_HAS_GROUPS
                c -= LANES - lanes; /* the next group begins behind these */
#endif
            }
#if NET_HAS_ADDITION
            if (p->added)
                added += p->out_step;
#endif
        }
}

#if NET_HAS_RESIZE
/* Averages images [channels][height][width] over areas to a lower resolution; neighbouring
   areas may overlap, and halves are rounded up. */
static void average(const uint8_t *in, uint8_t *out, int channels, int height, int width,
                    int out_height, int out_width)
{
    for (int c = 0; c < channels; c++, in += (int32_t)height * width)
        for (int y = 0; y < out_height; y++) {
            const int top = (int)((int32_t)y * height / out_height);
            const int end = (int)(((int32_t)(y + 1) * height + out_height - 1) / out_height);
            for (int x = 0; x < out_width; x++) {
                const int left = (int)((int32_t)x * width / out_width);
                const int right =
                    (int)(((int32_t)(x + 1) * width + out_width - 1) / out_width);
                const int32_t count = (int32_t)(end - top) * (right - left);
                int32_t sum = 0;
                for (int row = top; row < end; row++)
                    for (int column = left; column < right; column++)
                        sum += in[(int32_t)row * width + column];
                *out++ = (uint8_t)((2 * sum + count) / (2 * count));
            }
        }
}
#endif

#if NET_HAS_PAD
/* Takes every stride-th row and column; puts zeros before and behind the channels, or
   leaves some out where before is below 0. */
static void pad_channels(const uint8_t *in, uint8_t *out, int width, int channels,
                         int out_channels, int out_height, int out_width, int stride,
                         int before, uint8_t zero)
{
    for (int y = 0; y < out_height; y++)
        for (int x = 0; x < out_width; x++) {
            const uint8_t *pixel = in + ((int32_t)y * width + x) * stride * channels;
            for (int c = -before; c < out_channels - before; c++)
                *out++ = c < 0 || c >= channels ? zero : pixel[c];
        }
}
#endif
