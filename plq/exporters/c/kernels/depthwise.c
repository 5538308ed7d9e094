/* Integer products in which each channel is a group of its own: one weight per position and channel.

   Weights: int16 [position][channel]. A line has one number per channel of the output. */

/* Each channel as often as it has features. `how`: int, that number. */
FN void depthwise_pack(const struct window *w, const unsigned char *row, unsigned char *line, const void *how)
{
    int times = *(const int *)how;
    for (int x = 0; x < w->cells; x++) {
        int from = x - w->left;
        unsigned char *cell = line + (size_t)x * (size_t)w->cell;
        const unsigned char *pixel = row + (size_t)from * (size_t)w->pitch;
        if (!row || from < 0 || from >= w->width)
            fill_bytes(cell, w->pad, (size_t)w->cell);
        else if (times == 1)
            copy_bytes(cell, pixel, (size_t)w->cell);
        else
            for (int c = 0; c < w->cell; c++)
                cell[c] = pixel[c / times];
    }
}

#if defined(PLQ_AVX2)
INLINE __m256i sixteen(const int16_t *x)
{
    return _mm256_loadu_si256((const __m256i *)(const void *)x);
}

/* Sums of 16 channels; in 16 bits where `limit` says that they fit. */
INLINE void depthwise_block(const struct part *part, const unsigned char *x, const int16_t *weights, int pitch,
                            int32_t *sums)
{
    __m256i low = _mm256_setzero_si256(), high = low, narrow = low;
    for (int s = 0; s < part->segments; s++, weights += pitch) {
        __m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)(x + part->offsets[s]));
        __m256i w = sixteen(weights);
        if (part->limit) {
            narrow = _mm256_add_epi16(narrow, _mm256_mullo_epi16(_mm256_cvtepu8_epi16(bytes), w));
        } else { /* pairs of a number and 0 */
            __m256i a = _mm256_cvtepu8_epi32(bytes), b = _mm256_cvtepu8_epi32(_mm_srli_si128(bytes, 8));
            __m256i u = _mm256_cvtepi16_epi32(_mm256_castsi256_si128(w));
            __m256i v = _mm256_cvtepi16_epi32(_mm256_extracti128_si256(w, 1));
            low = _mm256_add_epi32(low, _mm256_madd_epi16(a, u));
            high = _mm256_add_epi32(high, _mm256_madd_epi16(b, v));
        }
    }
    if (part->limit) {
        low = _mm256_cvtepi16_epi32(_mm256_castsi256_si128(narrow));
        high = _mm256_cvtepi16_epi32(_mm256_extracti128_si256(narrow, 1));
    }
    _mm256_storeu_si256((__m256i *)(void *)sums, low);
    _mm256_storeu_si256((__m256i *)(void *)(sums + 8), high);
}
#endif

/* Integer sums [window][features] of a band of windows. */
KERNEL void depthwise_band(const struct window *w, const struct part *part, const unsigned char *lines, int rows,
                           const int16_t *weights, int32_t *sums)
{
    const int channels = w->cell, segments = part->segments;
    for (int y = 0; y < rows; y++)
        for (int x = 0; x < w->out_width; x++, sums += w->features) {
            const unsigned char *cell = lines + (size_t)y * (size_t)w->stride_h * (size_t)w->line +
                                        (size_t)x * (size_t)w->stride_w * (size_t)w->cell;
            int f = 0;
#if defined(PLQ_AVX2)
            for (; f + 16 <= channels; f += 16)
                depthwise_block(part, cell + f, weights + f, channels, sums + f);
#endif
            for (; f < channels; f++) {
                int32_t total = 0;
                for (int s = 0; s < segments; s++)
                    total += cell[part->offsets[s] + f] * weights[s * channels + f];
                sums[f] = total;
            }
        }
}
