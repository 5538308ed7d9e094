/* What all kernels share: the target, windows of an image, and lines of it ready to be multiplied.

   A product (convolution or dense layer) is computed in bands of output rows. For each band, the rows of the input
   that it needs are brought into "lines": padded on all sides, in the form that the kernel multiplies ("cells", one per
   pixel). A window then is a few "segments", each contiguous in memory, at fixed distances from its first cell.

   Float arithmetic is done in the order in which it is written, without contraction, so that results have the same bits
   on every target: products and sums are never fused. */

#if defined(__FAST_MATH__)
#error "results would depend on the compiler: leave out -ffast-math"
#endif
#if defined(__FLT_EVAL_METHOD__) && __FLT_EVAL_METHOD__ != 0 && __FLT_EVAL_METHOD__ != 16
#error "float arithmetic in another precision: on x86 compile with -msse2 -mfpmath=sse"
#endif
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "little-endian targets only"
#endif
#if defined(__clang__)
#pragma clang fp contract(off)
#elif defined(__GNUC__)
#pragma GCC optimize("fp-contract=off")
#ifdef PLQ_FREESTANDING
#pragma GCC optimize("no-tree-loop-distribute-patterns")
#endif
#endif

#include <stddef.h>
#include <stdint.h>
#ifndef PLQ_FREESTANDING
#include <string.h>
#endif
#if defined(PLQ_PORTABLE)
#elif defined(__AVX2__)
#include <immintrin.h>
#define PLQ_AVX2 1
#elif defined(__ARM_NEON) && defined(__aarch64__)
#include <arm_neon.h>
#define PLQ_NEON 1
#endif

#if defined(__clang__)
#define KERNEL __attribute__((unused, noinline)) static
#elif defined(__GNUC__)
#define KERNEL __attribute__((unused, noinline, noclone)) static /* one copy, not one per layer */
#else
#define KERNEL static
#endif
#if defined(__GNUC__)
#define FN __attribute__((unused)) static
#define INLINE __attribute__((unused, always_inline)) static inline
#define ALIGNED __attribute__((aligned(64)))
#else
#define FN static
#define INLINE static inline
#define ALIGNED
#endif

#define PIXELS 4    /* windows that a kernel computes at once */
#define FEATURES 16 /* a block of them: what weights are laid out for */

/* The geometry of one product; sizes of memory in bytes. */
struct window {
    int height, width, channels;         /* of the input; channels that this product reads */
    int pitch;                           /* bytes from one pixel of the input to the next */
    int stride_h, stride_w, top, left;   /* strides; padding above and on the left */
    int out_height, out_width, features; /* of the output; features in whole blocks */
    int span;                            /* rows of the input that a row of the output needs */
    int band;                            /* rows of the output that are computed at once */
    int cell, cells;                     /* bytes per cell of a line; cells per line, padded */
    int line;                            /* bytes per line */
    int sums;                            /* where in a line the sums of each cell's channels begin; 0: nowhere */
    int pad;                             /* the stored number that stands for zero */
};

/* The part of a window that one set of weights is multiplied with: `segments` of `length` units each, at `offsets`. */
struct part {
    int segments, length;
    const int32_t *offsets;
    int taps;             /* cells of the part, and where the sum of each one's channels lies, from the first one's */
    const int32_t *sums;
    int32_t step, shift;  /* integer = step * stored weight + shift */
    int limit;            /* units that can be added before a narrow accumulator is full */
};

FN void copy_bytes(unsigned char *to, const unsigned char *from, size_t count)
{
#ifdef PLQ_FREESTANDING
    for (size_t i = 0; i < count; i++)
        to[i] = from[i];
#else
    memcpy(to, from, count);
#endif
}

FN void fill_bytes(unsigned char *to, int value, size_t count)
{
#ifdef PLQ_FREESTANDING
    for (size_t i = 0; i < count; i++)
        to[i] = (unsigned char)value;
#else
    memset(to, value, count);
#endif
}

/* One line from one row of the input; a row that is not there (NULL) is one of zeros. */
typedef void pack(const struct window *w, const unsigned char *row, unsigned char *line, const void *how);

/* The lines of the band of `count` output rows from row `first` on; those that the band before had are moved. */
FN void gather(const struct window *w, pack *into, const void *how, const unsigned char *x, unsigned char *lines,
               int first, int count)
{
    int kept = w->span > w->stride_h ? w->span - w->stride_h : 0;
    int rows = (count - 1) * w->stride_h + w->span, row = 0;
    if (first && kept) {
        const unsigned char *old = lines + (size_t)w->band * (size_t)w->stride_h * (size_t)w->line;
        for (; row < kept; row++)
            copy_bytes(lines + (size_t)row * (size_t)w->line, old + (size_t)row * (size_t)w->line, (size_t)w->line);
    }
    for (; row < rows; row++) {
        int y = first * w->stride_h - w->top + row;
        const unsigned char *from = x + (size_t)(y < 0 ? 0 : y) * (size_t)w->width * (size_t)w->pitch;
        into(w, y < 0 || y >= w->height ? NULL : from, lines + (size_t)row * (size_t)w->line, how);
    }
}

/* Up to PIXELS windows of a band, one after the other: their first cells, and where the sums of these lie. If there are
   fewer, the last one stands again. */
struct tile {
    int x, y, windows; /* where the next one is; how many there are */
    const unsigned char *cells[PIXELS], *sums[PIXELS];
};

INLINE void next_tile(const struct window *w, const unsigned char *lines, int left, struct tile *t)
{
    t->windows = left < PIXELS ? left : PIXELS;
    for (int p = 0; p < PIXELS; p++) {
        if (p < t->windows) {
            const unsigned char *line = lines + (size_t)t->y * (size_t)w->stride_h * (size_t)w->line;
            size_t column = (size_t)t->x * (size_t)w->stride_w;
            t->cells[p] = line + column * (size_t)w->cell;
            t->sums[p] = line + (size_t)w->sums + 4 * column;
            if (++t->x == w->out_width) {
                t->x = 0;
                t->y++;
            }
        } else {
            t->cells[p] = t->cells[t->windows - 1];
            t->sums[p] = t->sums[t->windows - 1];
        }
    }
}

/* The sum of the stored numbers under a part of a window, from the sums of each cell's channels. */
INLINE int32_t sum_of_cells(const struct part *part, const unsigned char *sums)
{
    int32_t total = 0;
    for (int t = 0; t < part->taps; t++)
        total += *(const int32_t *)(const void *)(sums + part->sums[t]);
    return total;
}

FN void sum_channels(const struct window *w, const unsigned char *row, unsigned char *line)
{
    int32_t *sums = (int32_t *)(void *)(line + w->sums);
    for (int x = 0; x < w->cells; x++) {
        int from = x - w->left;
        int32_t total = 0;
        if (!row || from < 0 || from >= w->width) {
            total = w->pad * w->channels;
        } else {
            const unsigned char *pixel = row + (size_t)from * (size_t)w->pitch;
            for (int c = 0; c < w->channels; c++)
                total += pixel[c];
        }
        sums[x] = total;
    }
}

FN void add_bias(int32_t *sums, const int32_t *bias, int pixels, int features)
{
    for (int p = 0; p < pixels; p++, sums += features)
        for (int f = 0; f < features; f++)
            sums[f] += bias[f];
}

/* Float sums of several parts, each worth something else: totals = [totals +] sums * worth. */
FN void weigh(float *totals, const int32_t *sums, const float *worth, int pixels, int features, int first)
{
    for (int p = 0; p < pixels; p++, totals += features, sums += features)
        for (int f = 0; f < features; f++) {
            float value = (float)sums[f] * worth[f];
            totals[f] = first ? value : totals[f] + value;
        }
}
