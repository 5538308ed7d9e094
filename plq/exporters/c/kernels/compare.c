/* Codes by comparing integer sums with the steps of each channel: how many it has reached, above `lowest`. */

struct steps {
    int count, stride;           /* steps per channel; channels of all groups */
    const int32_t *sums, *flips; /* [count][stride]; what sums are XORed with first, or NULL */
    int lowest;
};

/* From sums [pixels][pitch] to codes [pixels][step], `width` channels of each. */
KERNEL void compare(const struct steps *s, const int32_t *x, uint8_t *y, int pixels, int width, int pitch, int step,
                    int first)
{
    const int32_t *sums = s->sums + first, *flips = s->flips ? s->flips + first : NULL;
    for (int p = 0; p < pixels; p++, x += pitch, y += step) {
        int f = 0;
#if defined(PLQ_AVX2)
        for (; f + 16 <= width; f += 16) {
            __m256i a = _mm256_loadu_si256((const __m256i *)(const void *)(x + f));
            __m256i b = _mm256_loadu_si256((const __m256i *)(const void *)(x + f + 8));
            __m256i u = _mm256_set1_epi32(s->lowest), v = u, words;
            if (flips) {
                a = _mm256_xor_si256(a, _mm256_loadu_si256((const __m256i *)(const void *)(flips + f)));
                b = _mm256_xor_si256(b, _mm256_loadu_si256((const __m256i *)(const void *)(flips + f + 8)));
            }
            for (int k = 0; k < s->count; k++) { /* one more than all those that are above the sum lie below it */
                const int32_t *at = sums + (size_t)k * (size_t)s->stride + f;
                u = _mm256_add_epi32(u, _mm256_cmpgt_epi32(_mm256_loadu_si256((const __m256i *)(const void *)at), a));
                v = _mm256_add_epi32(
                    v, _mm256_cmpgt_epi32(_mm256_loadu_si256((const __m256i *)(const void *)(at + 8)), b));
            }
            words = _mm256_permute4x64_epi64(_mm256_packs_epi32(u, v), 0xd8);
            words = _mm256_add_epi16(words, _mm256_set1_epi16((short)s->count));
            _mm_storeu_si128((__m128i *)(void *)(y + f),
                             _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1)));
        }
#endif
        for (; f < width; f++) {
            int32_t v = flips ? x[f] ^ flips[f] : x[f];
            int code = s->lowest;
            for (int k = 0; k < s->count; k++)
                code += v >= sums[(size_t)k * (size_t)s->stride + (size_t)f];
            y[f] = (uint8_t)code;
        }
    }
}

/* The largest of each 2x2 windows of sums [rows][columns][features], XORed with `flips` (or NULL), in their place: at the
   beginning, one after the other. An odd last row or column is dropped. */
KERNEL void halve_sums(int32_t *x, const int32_t *flips, int rows, int columns, int features)
{
    int32_t *y = x;
    for (int r = 0; r + 1 < rows; r += 2)
        for (int c = 0; c + 1 < columns; c += 2, y += features) {
            const int32_t *above = x + ((size_t)r * (size_t)columns + (size_t)c) * (size_t)features;
            const int32_t *below = above + (size_t)columns * (size_t)features;
            for (int f = 0; f < features; f += 8) {
#if defined(PLQ_AVX2)
                const __m256i *at[4] = {(const void *)(above + f), (const void *)(above + features + f),
                                        (const void *)(below + f), (const void *)(below + features + f)};
                __m256i flip = flips ? _mm256_loadu_si256((const __m256i *)(const void *)(flips + f))
                                     : _mm256_setzero_si256();
                __m256i best = _mm256_xor_si256(_mm256_loadu_si256(at[0]), flip);
                for (int i = 1; i < 4; i++)
                    best = _mm256_max_epi32(best, _mm256_xor_si256(_mm256_loadu_si256(at[i]), flip));
                _mm256_storeu_si256((__m256i *)(void *)(y + f), best);
#else
                for (int g = f; g < f + 8; g++) {
                    int32_t flip = flips ? flips[g] : 0, best = above[g] ^ flip;
                    int32_t rest[3] = {above[features + g] ^ flip, below[g] ^ flip, below[features + g] ^ flip};
                    for (int i = 0; i < 3; i++)
                        best = rest[i] > best ? rest[i] : best;
                    y[g] = best;
                }
#endif
            }
        }
}
