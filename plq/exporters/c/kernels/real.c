/* Float products. Each feature adds its products in the order of rows, columns and channels, each rounded by itself.

   Weights: for each block of 16 features and each segment, [channel][feature]. */

/* Where float numbers come from. `kind`: 0: float32; 1: uint8, of which `base` must be added; 4: int32; and times
   `scale`; 2: pixels, whose normalized values stand in `table`, 256 for each channel or (`shared`) for all. */
struct reals {
    int kind, base, shared;
    float scale;
    const float *table;
};

INLINE float real_at(const struct reals *r, const unsigned char *x, int c)
{
    if (r->kind == 0)
        return ((const float *)(const void *)x)[c];
    if (r->kind == 1)
        return (float)((int32_t)x[c] + r->base) * r->scale;
    if (r->kind == 4)
        return (float)((const int32_t *)(const void *)x)[c] * r->scale;
    return r->table[(r->shared ? 0 : 256 * c) + x[c]];
}

FN void real_pack(const struct window *w, const unsigned char *row, unsigned char *line, const void *how)
{
    for (int x = 0; x < w->cells; x++) {
        int from = x - w->left;
        float *cell = (float *)(void *)(line + (size_t)x * (size_t)w->cell);
        if (!row || from < 0 || from >= w->width)
            for (int c = 0; c < w->channels; c++)
                cell[c] = 0.0f;
        else
            for (int c = 0; c < w->channels; c++)
                cell[c] = real_at((const struct reals *)how, row + (size_t)from * (size_t)w->pitch, c);
    }
}

#if defined(PLQ_AVX2)
INLINE void real_tile(int pixels, const struct part *part, const unsigned char *const *x, const float *weights,
                      float *const *sums)
{
    __m256 acc[PIXELS][2];
    for (int p = 0; p < pixels; p++)
        acc[p][0] = acc[p][1] = _mm256_setzero_ps();
    for (int s = 0; s < part->segments; s++) {
        size_t offset = (size_t)part->offsets[s];
        for (int c = 0; c < part->length; c++, offset += 4, weights += FEATURES) {
            __m256 a = _mm256_loadu_ps(weights), b = _mm256_loadu_ps(weights + 8);
            for (int p = 0; p < pixels; p++) {
                __m256 v = _mm256_broadcast_ss((const float *)(const void *)(x[p] + offset));
                acc[p][0] = _mm256_add_ps(acc[p][0], _mm256_mul_ps(v, a));
                acc[p][1] = _mm256_add_ps(acc[p][1], _mm256_mul_ps(v, b));
            }
        }
    }
    for (int p = 0; p < pixels; p++) {
        _mm256_storeu_ps(sums[p], acc[p][0]);
        _mm256_storeu_ps(sums[p] + 8, acc[p][1]);
    }
}

#elif defined(PLQ_NEON)
INLINE void real_tile(int pixels, const struct part *part, const unsigned char *const *x, const float *weights,
                      float *const *sums)
{
    float32x4_t acc[PIXELS][4];
    for (int p = 0; p < pixels; p++)
        for (int h = 0; h < 4; h++)
            acc[p][h] = vdupq_n_f32(0.0f);
    for (int s = 0; s < part->segments; s++) {
        size_t offset = (size_t)part->offsets[s];
        for (int c = 0; c < part->length; c++, offset += 4, weights += FEATURES)
            for (int p = 0; p < pixels; p++) {
                float32x4_t v = vld1q_dup_f32((const float *)(const void *)(x[p] + offset));
                for (int h = 0; h < 4; h++)
                    acc[p][h] = vaddq_f32(acc[p][h], vmulq_f32(v, vld1q_f32(weights + 4 * h)));
            }
    }
    for (int p = 0; p < pixels; p++)
        for (int h = 0; h < 4; h++)
            vst1q_f32(sums[p] + 4 * h, acc[p][h]);
}

#else
INLINE void real_tile(int pixels, const struct part *part, const unsigned char *const *x, const float *weights,
                      float *const *sums)
{
    for (int p = 0; p < pixels; p++)
        for (int f = 0; f < FEATURES; f++) {
            const float *w = weights + f;
            float total = 0.0f;
            for (int s = 0; s < part->segments; s++) {
                const float *a = (const float *)(const void *)(x[p] + part->offsets[s]);
                for (int c = 0; c < part->length; c++, w += FEATURES) {
                    float product = a[c] * *w;
                    total = total + product;
                }
            }
            sums[p][f] = total;
        }
}
#endif

/* Float sums [window][features] of a band of windows. */
KERNEL void real_band(const struct window *w, const struct part *part, const unsigned char *lines, int rows,
                  const float *weights, float *sums)
{
    int count = rows * w->out_width;
    size_t block = FEATURES * (size_t)part->segments * (size_t)part->length;
    struct tile t;
    t.x = t.y = 0;
    for (int i = 0; i < count; i += PIXELS) {
        float *to[PIXELS];
        next_tile(w, lines, count - i, &t);
        for (int p = 0; p < PIXELS; p++)
            to[p] = sums + (size_t)(i + (p < t.windows ? p : t.windows - 1)) * (size_t)w->features;
        for (int f = 0; f < w->features; f += FEATURES) {
            const float *at = weights + block * (size_t)(f / FEATURES);
            if (t.windows == 1)
                real_tile(1, part, t.cells, at, to);
            else
                real_tile(PIXELS, part, t.cells, at, to);
            for (int p = 0; p < PIXELS; p++)
                to[p] += FEATURES;
        }
    }
}
