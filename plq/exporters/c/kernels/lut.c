/* Products of few-bit integers and weights of one or two bits, by lookup.

   For each pixel and four channels a table is made: the sums of every subset of the four numbers, 16 bytes. The weights
   of four channels, one bit each, are the index. A shuffle of bytes looks up 16 features at once, and no multiplication
   is left. Bytes are widened before they are full. Weights are bits: the sum of the numbers whose bit is set is
   multiplied by `step`, and `shift` times the sum of all numbers is added.

   Weights: for each block of features and each segment, 32 bytes per four tables and half: byte 2 i is feature i, byte
   2 i + 1 feature 8 + i, first 16 bytes for tables 0 (low four bits) and 2 (high), then 16 for tables 1 and 3. A block
   has two halves: 16 features more, or (planes) the second bit of the same ones; or one. */

INLINE void subsets(uint8_t table[16], unsigned a, unsigned b, unsigned c, unsigned d)
{
    for (unsigned i = 0; i < 16; i++)
        table[i] = (uint8_t)((i & 1 ? a : 0) + (i & 2 ? b : 0) + (i & 4 ? c : 0) + (i & 8 ? d : 0));
}

/* The tables of one cell. */
INLINE void tables_of(const uint8_t *x, int channels, uint8_t *to)
{
    int c = 0;
#if defined(PLQ_AVX2)
    const __m256i low = _mm256_setr_epi8(-1, 0, 1, 4, -1, 0, 1, 4, -1, 0, 1, 4, -1, 0, 1, 4,
                                         -1, 8, 9, 12, -1, 8, 9, 12, -1, 8, 9, 12, -1, 8, 9, 12);
    const __m256i high = _mm256_setr_epi8(-1, -1, -1, -1, 2, 2, 2, 2, 3, 3, 3, 3, 6, 6, 6, 6,
                                          -1, -1, -1, -1, 10, 10, 10, 10, 11, 11, 11, 11, 14, 14, 14, 14);
    for (; c + 16 <= channels; c += 16, to += 64) {
        __m128i v = _mm_loadu_si128((const __m128i *)(const void *)(x + c));
        __m128i pairs = _mm_add_epi8(v, _mm_srli_epi16(v, 8));
        __m256i two = _mm256_broadcastsi128_si256(_mm_unpacklo_epi32(v, pairs));
        __m256i next = _mm256_broadcastsi128_si256(_mm_unpackhi_epi32(v, pairs));
        _mm256_storeu_si256((__m256i *)(void *)to,
                            _mm256_add_epi8(_mm256_shuffle_epi8(two, low), _mm256_shuffle_epi8(two, high)));
        _mm256_storeu_si256((__m256i *)(void *)(to + 32),
                            _mm256_add_epi8(_mm256_shuffle_epi8(next, low), _mm256_shuffle_epi8(next, high)));
    }
#endif
    for (; c + 4 <= channels; c += 4, to += 16)
        subsets(to, x[c], x[c + 1], x[c + 2], x[c + 3]);
    if (c < channels)
        subsets(to, x[c], c + 1 < channels ? x[c + 1] : 0, c + 2 < channels ? x[c + 2] : 0, 0);
}

/* A line of tables, and three of zeros: a segment is looked up in fours of tables. */
FN void lut_pack(const struct window *w, const unsigned char *row, unsigned char *line, const void *how)
{
    (void)how;
    for (int x = 0; x < w->cells; x++) {
        int from = x - w->left;
        unsigned char *cell = line + (size_t)x * (size_t)w->cell;
        if (row && from >= 0 && from < w->width) {
            tables_of(row + (size_t)from * (size_t)w->pitch, w->channels, cell);
        } else if (w->pad == 0) {
            fill_bytes(cell, 0, (size_t)w->cell);
        } else {
            unsigned a = (unsigned)w->pad;
            for (int c = 0; c < w->channels; c += 4)
                subsets(cell + 4 * c, a, c + 1 < w->channels ? a : 0, c + 2 < w->channels ? a : 0,
                        c + 3 < w->channels ? a : 0);
        }
    }
    fill_bytes(line + (size_t)w->cells * (size_t)w->cell, 0, 48);
    if (w->sums)
        sum_channels(w, row, line);
}

#if defined(PLQ_AVX2)
/* step * sum + all, of sums whose 16-bit lanes are whole = low + 256 * high (mod 2**16), and high apart. */
INLINE void lut_store(__m256i whole, __m256i high, __m256i step, __m256i all, int32_t *to, int add)
{
    __m256i low = _mm256_sub_epi16(whole, _mm256_slli_epi16(high, 8));
    __m128i even = _mm_add_epi16(_mm256_castsi256_si128(low), _mm256_extracti128_si256(low, 1));
    __m128i odd = _mm_add_epi16(_mm256_castsi256_si128(high), _mm256_extracti128_si256(high, 1));
    __m256i *at = (__m256i *)(void *)to;
    __m256i a = _mm256_mullo_epi32(_mm256_cvtepu16_epi32(even), step);
    __m256i b = _mm256_mullo_epi32(_mm256_cvtepu16_epi32(odd), step);
    a = _mm256_add_epi32(a, add ? _mm256_loadu_si256(at) : all);
    b = _mm256_add_epi32(b, add ? _mm256_loadu_si256(at + 1) : all);
    _mm256_storeu_si256(at, a);
    _mm256_storeu_si256(at + 1, b);
}

/* The sums of one segment, up to `length` fours of tables, for `pixels` windows and `halves` times 16 features. */
INLINE const uint8_t *lut_run(int pixels, int halves, const unsigned char *const *x, size_t offset, int length,
                              const uint8_t *weights, __m256i acc[PIXELS][2])
{
    const __m256i nibble = _mm256_set1_epi8(15);
    for (int g = 0; g < length; g++, offset += 64, weights += 32 * halves) {
        __m256i both[2], w[2];
        for (int h = 0; h < halves; h++) {
            both[h] = _mm256_loadu_si256((const __m256i *)(const void *)(weights + 32 * h));
            w[h] = _mm256_and_si256(both[h], nibble);
        }
        for (int p = 0; p < pixels; p++) {
            __m256i table = _mm256_loadu_si256((const __m256i *)(const void *)(x[p] + offset));
            for (int h = 0; h < halves; h++)
                acc[p][h] = _mm256_add_epi8(acc[p][h], _mm256_shuffle_epi8(table, w[h]));
        }
        for (int h = 0; h < halves; h++)
            w[h] = _mm256_and_si256(_mm256_srli_epi16(both[h], 4), nibble);
        for (int p = 0; p < pixels; p++) {
            __m256i table = _mm256_loadu_si256((const __m256i *)(const void *)(x[p] + offset + 32));
            for (int h = 0; h < halves; h++)
                acc[p][h] = _mm256_add_epi8(acc[p][h], _mm256_shuffle_epi8(table, w[h]));
        }
    }
    return weights;
}

INLINE const uint8_t *lut_tile(int pixels, int halves, int planes, const struct part *part,
                               const unsigned char *const *x, const int32_t *all, const uint8_t *weights,
                               int32_t *const *sums)
{
    __m256i whole[PIXELS][2], high[PIXELS][2], acc[PIXELS][2];
    int full = 0, limit = part->limit; /* fours of tables: two lookups each */
    for (int p = 0; p < pixels; p++)
        for (int h = 0; h < halves; h++)
            whole[p][h] = high[p][h] = acc[p][h] = _mm256_setzero_si256();
    for (int s = 0; s < part->segments; s++) {
        size_t offset = (size_t)part->offsets[s];
        for (int left = part->length; left;) {
            int now = left < limit - full ? left : limit - full;
            weights = lut_run(pixels, halves, x, offset, now, weights, acc);
            offset += 64 * (size_t)now;
            left -= now;
            full += now;
            if (full < limit && (left || s + 1 < part->segments))
                continue;
            for (int p = 0; p < pixels; p++)
                for (int h = 0; h < halves; h++) {
                    whole[p][h] = _mm256_add_epi16(whole[p][h], acc[p][h]);
                    high[p][h] = _mm256_add_epi16(high[p][h], _mm256_srli_epi16(acc[p][h], 8));
                    acc[p][h] = _mm256_setzero_si256();
                }
            full = 0;
        }
    }
    for (int p = 0; p < pixels; p++)
        for (int h = 0; h < halves; h++)
            lut_store(whole[p][h], high[p][h], _mm256_set1_epi32(part->step << (planes ? h : 0)),
                      _mm256_set1_epi32(all[p]), sums[p] + (planes ? 0 : FEATURES * h), planes && h);
    return weights;
}

#elif defined(PLQ_NEON)
INLINE const uint8_t *lut_tile(int pixels, int halves, int planes, const struct part *part,
                               const unsigned char *const *x, const int32_t *all, const uint8_t *weights,
                               int32_t *const *sums)
{
    uint16x8_t low[PIXELS][2], high[PIXELS][2];
    uint8x16_t acc[PIXELS][2];
    const uint8x16_t nibble = vdupq_n_u8(15);
    int full = 0, limit = part->limit / 2; /* fours of tables: here four lookups each */
    for (int p = 0; p < pixels; p++)
        for (int h = 0; h < halves; h++) {
            low[p][h] = high[p][h] = vdupq_n_u16(0);
            acc[p][h] = vdupq_n_u8(0);
        }
    for (int s = 0; s < part->segments; s++) {
        size_t offset = (size_t)part->offsets[s];
        for (int g = 0; g < part->length; g++, offset += 64, weights += 32 * halves) {
            for (int h = 0; h < halves; h++) {
                uint8x16_t even = vld1q_u8(weights + 32 * h), odd = vld1q_u8(weights + 32 * h + 16);
                for (int p = 0; p < pixels; p++) {
                    const uint8_t *t = x[p] + offset;
                    uint8x16_t a = vaddq_u8(vqtbl1q_u8(vld1q_u8(t), vandq_u8(even, nibble)),
                                            vqtbl1q_u8(vld1q_u8(t + 32), vshrq_n_u8(even, 4)));
                    uint8x16_t b = vaddq_u8(vqtbl1q_u8(vld1q_u8(t + 16), vandq_u8(odd, nibble)),
                                            vqtbl1q_u8(vld1q_u8(t + 48), vshrq_n_u8(odd, 4)));
                    if (part->limit > 1) {
                        acc[p][h] = vaddq_u8(acc[p][h], vaddq_u8(a, b));
                    } else { /* four lookups do not fit into a byte, two do */
                        uint16x8_t u = vreinterpretq_u16_u8(a), v = vreinterpretq_u16_u8(b);
                        low[p][h] = vaddq_u16(low[p][h], vandq_u16(u, vdupq_n_u16(255)));
                        high[p][h] = vsraq_n_u16(high[p][h], u, 8);
                        low[p][h] = vaddq_u16(low[p][h], vandq_u16(v, vdupq_n_u16(255)));
                        high[p][h] = vsraq_n_u16(high[p][h], v, 8);
                    }
                }
            }
            if (++full < limit && (g + 1 < part->length || s + 1 < part->segments))
                continue;
            for (int p = 0; p < pixels; p++)
                for (int h = 0; h < halves; h++) {
                    uint16x8_t u = vreinterpretq_u16_u8(acc[p][h]);
                    low[p][h] = vaddq_u16(low[p][h], vandq_u16(u, vdupq_n_u16(255)));
                    high[p][h] = vsraq_n_u16(high[p][h], u, 8);
                    acc[p][h] = vdupq_n_u8(0);
                }
            full = 0;
        }
    }
    for (int p = 0; p < pixels; p++)
        for (int h = 0; h < halves; h++) {
            int32_t *to = sums[p] + (planes ? 0 : FEATURES * h);
            uint16_t part16[FEATURES];
            vst1q_u16(part16, low[p][h]);
            vst1q_u16(part16 + 8, high[p][h]);
            for (int f = 0; f < FEATURES; f++)
                to[f] = (part->step << (planes ? h : 0)) * (int32_t)part16[f] + (planes && h ? to[f] : all[p]);
        }
    return weights;
}

#else
/* One feature after the other, with the same tables and the same weights. */
INLINE const uint8_t *lut_tile(int pixels, int halves, int planes, const struct part *part,
                               const unsigned char *const *x, const int32_t *all, const uint8_t *weights,
                               int32_t *const *sums)
{
    for (int p = 0; p < pixels; p++)
        for (int h = 0; h < halves; h++)
            for (int f = 0; f < FEATURES; f++) {
                const uint8_t *w = weights + 32 * h + (f < 8 ? 2 * f : 2 * f - 15);
                int32_t total = 0, *to = sums[p] + (planes ? 0 : FEATURES * h) + f;
                for (int s = 0; s < part->segments; s++) {
                    const uint8_t *t = x[p] + part->offsets[s];
                    for (int g = 0; g < part->length; g++, t += 64, w += 32 * halves)
                        total += t[w[0] & 15] + t[16 + (w[16] & 15)] + t[32 + (w[0] >> 4)] + t[48 + (w[16] >> 4)];
                }
                *to = (part->step << (planes ? h : 0)) * total + (planes && h ? *to : all[p]);
            }
    return weights + 32 * (size_t)halves * (size_t)part->segments * (size_t)part->length;
}
#endif

/* Integer sums [window][features] of a band of windows. `planes`: weights have two bits. */
KERNEL void lut_band(const struct window *w, const struct part *part, int planes, const unsigned char *lines, int rows,
                 const uint8_t *weights, int32_t *sums)
{
    int count = rows * w->out_width;
    int pair = planes ? FEATURES : 2 * FEATURES;
    struct tile t;
    t.x = t.y = 0;
    for (int i = 0; i < count; i += PIXELS) {
        int32_t *to[PIXELS], all[PIXELS];
        const uint8_t *at = weights;
        next_tile(w, lines, count - i, &t);
        for (int p = 0; p < PIXELS; p++) {
            to[p] = sums + (size_t)(i + (p < t.windows ? p : t.windows - 1)) * (size_t)w->features;
            all[p] = part->shift ? part->shift * sum_of_cells(part, t.sums[p]) : 0;
        }
        for (int f = 0; f < w->features; f += pair) {
            int two = w->features - f > FEATURES;
            if (planes)
                at = t.windows == 1 ? lut_tile(1, 2, 1, part, t.cells, all, at, to)
                                    : lut_tile(PIXELS, 2, 1, part, t.cells, all, at, to);
            else if (two)
                at = t.windows == 1 ? lut_tile(1, 2, 0, part, t.cells, all, at, to)
                                    : lut_tile(PIXELS, 2, 0, part, t.cells, all, at, to);
            else
                at = t.windows == 1 ? lut_tile(1, 1, 0, part, t.cells, all, at, to)
                                    : lut_tile(PIXELS, 1, 0, part, t.cells, all, at, to);
            for (int p = 0; p < PIXELS; p++)
                to[p] += pair;
        }
    }
}
