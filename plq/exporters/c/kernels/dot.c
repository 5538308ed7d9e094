/* Products of integers of up to eight bits, unsigned times signed, in fours of channels.

   Weights: for each block of 16 features and each segment, 64 bytes per four channels: [feature][channel]. What is
   stored may be the weight's integer less something: `step` and `shift` of the part bring it back.

   AVX2 adds pairs of products in 16 bits and these up to `limit` times before it widens them; with a `limit` of 0 not
   even one pair fits, and all is done in 32 bits. AVX-512 VNNI and ARM's dot products add four products in 32 bits. */

FN void dot_pack(const struct window *w, const unsigned char *row, unsigned char *line, const void *how)
{
    size_t cell = (size_t)w->cell, left = cell * (size_t)w->left, inner = cell * (size_t)w->width;
    (void)how;
    if (row && w->pitch == w->cell && w->left + w->width <= w->cells) {
        fill_bytes(line, w->pad, left);
        copy_bytes(line + left, row, inner);
        fill_bytes(line + left + inner, w->pad, cell * (size_t)w->cells - left - inner);
    } else {
        fill_bytes(line, w->pad, cell * (size_t)w->cells);
        for (int x = 0; row && x < w->width && x + w->left < w->cells; x++)
            copy_bytes(line + cell * (size_t)(x + w->left), row + (size_t)x * (size_t)w->pitch, cell);
    }
    if (w->sums)
        sum_channels(w, row, line);
}

#if defined(PLQ_AVX2) && defined(__AVX512VNNI__) && defined(__AVX512BW__) && defined(__AVX512VL__)
INLINE void dot_tile(int pixels, const struct part *part, const unsigned char *const *x, const int8_t *weights,
                     int32_t *const *sums)
{
    __m512i acc[PIXELS];
    for (int p = 0; p < pixels; p++)
        acc[p] = _mm512_setzero_si512();
    for (int s = 0; s < part->segments; s++) {
        size_t offset = (size_t)part->offsets[s];
        for (int q = 0; q < part->length; q++, offset += 4, weights += 64) {
            __m512i w = _mm512_loadu_si512((const void *)weights);
            for (int p = 0; p < pixels; p++) {
                int32_t four;
                __builtin_memcpy(&four, x[p] + offset, 4);
                acc[p] = _mm512_dpbusd_epi32(acc[p], _mm512_set1_epi32(four), w);
            }
        }
    }
    for (int p = 0; p < pixels; p++)
        _mm512_storeu_si512((void *)sums[p], acc[p]);
}

#elif defined(PLQ_AVX2)
INLINE __m256i four_of(const unsigned char *x)
{
    int32_t four;
    __builtin_memcpy(&four, x, 4);
    return _mm256_set1_epi32(four);
}

/* Pairs of products of `length` fours of channels, added in 16 bits. */
INLINE const int8_t *dot_run(int pixels, const unsigned char *const *x, size_t offset, int length,
                             const int8_t *weights, __m256i acc[PIXELS][2])
{
    for (int q = 0; q < length; q++, offset += 4, weights += 64) {
        __m256i a = _mm256_loadu_si256((const __m256i *)(const void *)weights);
        __m256i b = _mm256_loadu_si256((const __m256i *)(const void *)(weights + 32));
        for (int p = 0; p < pixels; p++) {
            __m256i four = four_of(x[p] + offset);
            acc[p][0] = _mm256_add_epi16(acc[p][0], _mm256_maddubs_epi16(four, a));
            acc[p][1] = _mm256_add_epi16(acc[p][1], _mm256_maddubs_epi16(four, b));
        }
    }
    return weights;
}

/* In 16 bits, `limit` times. */
INLINE void dot_narrow(int pixels, const struct part *part, const unsigned char *const *x, const int8_t *weights,
                       int32_t *const *sums)
{
    __m256i acc[PIXELS][2], wide[PIXELS][2];
    int full = 0;
    for (int p = 0; p < pixels; p++)
        acc[p][0] = acc[p][1] = wide[p][0] = wide[p][1] = _mm256_setzero_si256();
    for (int s = 0; s < part->segments; s++) {
        size_t offset = (size_t)part->offsets[s];
        for (int left = part->length; left;) {
            int now = left < part->limit - full ? left : part->limit - full;
            left -= now;
            full += now;
            weights = dot_run(pixels, x, offset, now, weights, acc);
            offset += 4 * (size_t)now;
            if (full < part->limit && (left || s + 1 < part->segments))
                continue;
            for (int p = 0; p < pixels; p++)
                for (int h = 0; h < 2; h++) {
                    __m256i pairs = _mm256_madd_epi16(acc[p][h], _mm256_set1_epi16(1));
                    wide[p][h] = _mm256_add_epi32(wide[p][h], pairs);
                    acc[p][h] = _mm256_setzero_si256();
                }
            full = 0;
        }
    }
    for (int p = 0; p < pixels; p++) {
        _mm256_storeu_si256((__m256i *)(void *)sums[p], wide[p][0]);
        _mm256_storeu_si256((__m256i *)(void *)(sums[p] + 8), wide[p][1]);
    }
}

/* In 32 bits: channels 0 and 2 of each four, then 1 and 3. */
INLINE void dot_wide(int pixels, const struct part *part, const unsigned char *const *x, const int8_t *weights,
                     int32_t *const *sums)
{
    __m256i acc[PIXELS][2];
    const __m256i byte = _mm256_set1_epi16(255);
    for (int p = 0; p < pixels; p++)
        acc[p][0] = acc[p][1] = _mm256_setzero_si256();
    for (int s = 0; s < part->segments; s++) {
        size_t offset = (size_t)part->offsets[s];
        for (int q = 0; q < part->length; q++, offset += 4, weights += 64) {
            __m256i even[2], odd[2];
            for (int h = 0; h < 2; h++) {
                __m256i w = _mm256_loadu_si256((const __m256i *)(const void *)(weights + 32 * h));
                even[h] = _mm256_srai_epi16(_mm256_slli_epi16(w, 8), 8);
                odd[h] = _mm256_srai_epi16(w, 8);
            }
            for (int p = 0; p < pixels; p++) {
                __m256i four = four_of(x[p] + offset);
                __m256i a = _mm256_and_si256(four, byte), b = _mm256_srli_epi16(four, 8);
                for (int h = 0; h < 2; h++) {
                    acc[p][h] = _mm256_add_epi32(acc[p][h], _mm256_madd_epi16(a, even[h]));
                    acc[p][h] = _mm256_add_epi32(acc[p][h], _mm256_madd_epi16(b, odd[h]));
                }
            }
        }
    }
    for (int p = 0; p < pixels; p++) {
        _mm256_storeu_si256((__m256i *)(void *)sums[p], acc[p][0]);
        _mm256_storeu_si256((__m256i *)(void *)(sums[p] + 8), acc[p][1]);
    }
}

INLINE void dot_tile(int pixels, const struct part *part, const unsigned char *const *x, const int8_t *weights,
                     int32_t *const *sums)
{
    if (part->limit)
        dot_narrow(pixels, part, x, weights, sums);
    else
        dot_wide(pixels, part, x, weights, sums);
}

#elif defined(PLQ_NEON)
INLINE void dot_tile(int pixels, const struct part *part, const unsigned char *const *x, const int8_t *weights,
                     int32_t *const *sums)
{
    int32x4_t acc[PIXELS][4];
    for (int p = 0; p < pixels; p++)
        for (int h = 0; h < 4; h++)
            acc[p][h] = vdupq_n_s32(0);
    for (int s = 0; s < part->segments; s++) {
        size_t offset = (size_t)part->offsets[s];
        for (int q = 0; q < part->length; q++, offset += 4, weights += 64)
            for (int p = 0; p < pixels; p++) {
                uint32_t four;
                __builtin_memcpy(&four, x[p] + offset, 4);
                for (int h = 0; h < 4; h++) {
                    int8x16_t w = vld1q_s8(weights + 16 * h);
#if defined(__ARM_FEATURE_MATMUL_INT8)
                    acc[p][h] = vusdotq_s32(acc[p][h], vreinterpretq_u8_u32(vdupq_n_u32(four)), w);
#else
                    uint8x8_t a = vreinterpret_u8_u32(vdup_n_u32(four));
                    int16x8_t a16 = vreinterpretq_s16_u16(vmovl_u8(a));
                    int16x8_t low = vmovl_s8(vget_low_s8(w)), high = vmovl_high_s8(w);
                    int32x4_t u = vmull_s16(vget_low_s16(a16), vget_low_s16(low));
                    int32x4_t v = vmull_high_s16(a16, low);
                    int32x4_t t = vmull_s16(vget_low_s16(a16), vget_low_s16(high));
                    int32x4_t r = vmull_high_s16(a16, high);
                    acc[p][h] = vaddq_s32(acc[p][h], vpaddq_s32(vpaddq_s32(u, v), vpaddq_s32(t, r)));
#endif
                }
            }
    }
    for (int p = 0; p < pixels; p++)
        for (int h = 0; h < 4; h++)
            vst1q_s32(sums[p] + 4 * h, acc[p][h]);
}

#else
INLINE void dot_tile(int pixels, const struct part *part, const unsigned char *const *x, const int8_t *weights,
                     int32_t *const *sums)
{
    for (int p = 0; p < pixels; p++)
        for (int f = 0; f < FEATURES; f++) {
            const int8_t *w = weights + 4 * f;
            int32_t total = 0;
            for (int s = 0; s < part->segments; s++) {
                const uint8_t *a = x[p] + part->offsets[s];
                for (int q = 0; q < part->length; q++, a += 4, w += 64)
                    total += a[0] * w[0] + a[1] * w[1] + a[2] * w[2] + a[3] * w[3];
            }
            sums[p][f] = total;
        }
}
#endif

/* Integer sums [window][features] of a band of windows. */
KERNEL void dot_band(const struct window *w, const struct part *part, const unsigned char *lines, int rows,
                 const uint8_t *weights, int32_t *sums)
{
    int count = rows * w->out_width;
    size_t block = 64 * (size_t)part->segments * (size_t)part->length;
    struct tile t;
    t.x = t.y = 0;
    for (int i = 0; i < count; i += PIXELS) {
        int32_t *to[PIXELS];
        next_tile(w, lines, count - i, &t);
        for (int p = 0; p < PIXELS; p++)
            to[p] = sums + (size_t)(i + (p < t.windows ? p : t.windows - 1)) * (size_t)w->features;
        for (int f = 0; f < w->features; f += FEATURES) {
            const int8_t *at = (const int8_t *)weights + block * (size_t)(f / FEATURES);
            if (t.windows == 1)
                dot_tile(1, part, t.cells, at, to);
            else
                dot_tile(PIXELS, part, t.cells, at, to);
            for (int p = 0; p < PIXELS; p++)
                to[p] += FEATURES;
        }
        for (int p = 0; part->shift && p < t.windows; p++) {
            int32_t *sum = sums + (size_t)(i + p) * (size_t)w->features;
            int32_t all = part->shift * sum_of_cells(part, t.sums[p]);
            for (int f = 0; f < w->features; f++)
                sum[f] = part->step * sum[f] + all;
        }
    }
}
