/* A few float32 numbers at once: as many as a register holds (v_..., LANES), or one (s_...). Both give the same bits. */

#define s_real float
INLINE float s_load(const float *x) { return *x; }
INLINE float s_all(float x) { return x; }
INLINE float s_from_integers(const int32_t *x) { return (float)*x; }
INLINE float s_from_bytes(const uint8_t *x, int32_t base) { return (float)((int32_t)*x + base); }
INLINE float s_add(float a, float b) { return a + b; }
INLINE float s_mul(float a, float b) { return a * b; }
INLINE float s_div(float a, float b) { return a / b; }
INLINE float s_max(float a, float b) { return a > b ? a : b; }
INLINE float s_min(float a, float b) { return a < b ? a : b; }
INLINE float s_abs(float a) { return a < 0.0f ? -a : a + 0.0f; }
/* To the nearest integer, ties to even; |x| below 2**22. */
INLINE float s_half_even(float x)
{
    float big = x + 12582912.0f;
    return big - 12582912.0f;
}
/* floor(x + 1/2); |x| below 2**22. */
INLINE float s_half_up(float x)
{
    float moved = x + 0.5f;
    float whole = (float)(int32_t)moved;
    return whole - (whole > moved ? 1.0f : 0.0f);
}
/* `rise` where x has reached `at`, else 0. */
INLINE float s_reached(float x, float at, float rise) { return x >= at ? rise : 0.0f; }
INLINE void s_to_reals(float *y, float x) { *y = x; }
INLINE void s_to_integers(int32_t *y, float x) { *y = (int32_t)x; }
INLINE void s_to_bytes(uint8_t *y, float x, int32_t base) { *y = (uint8_t)((int32_t)x - base); }

#if defined(PLQ_AVX2)
#define LANES 8
#define v_real __m256
#define v_load _mm256_loadu_ps
#define v_all _mm256_set1_ps
#define v_add _mm256_add_ps
#define v_mul _mm256_mul_ps
#define v_div _mm256_div_ps
#define v_max _mm256_max_ps
#define v_min _mm256_min_ps
#define v_to_reals _mm256_storeu_ps
INLINE __m256 v_from_integers(const int32_t *x)
{
    return _mm256_cvtepi32_ps(_mm256_loadu_si256((const __m256i *)(const void *)x));
}
INLINE __m256 v_from_bytes(const uint8_t *x, int32_t base)
{
    __m256i wide = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)x));
    return _mm256_cvtepi32_ps(_mm256_add_epi32(wide, _mm256_set1_epi32(base)));
}
INLINE __m256 v_abs(__m256 x) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x); }
INLINE __m256 v_half_even(__m256 x)
{
    return _mm256_sub_ps(_mm256_add_ps(x, _mm256_set1_ps(12582912.0f)), _mm256_set1_ps(12582912.0f));
}
INLINE __m256 v_half_up(__m256 x)
{
    __m256 moved = _mm256_add_ps(x, _mm256_set1_ps(0.5f));
    __m256 whole = _mm256_cvtepi32_ps(_mm256_cvttps_epi32(moved));
    return _mm256_sub_ps(whole, _mm256_and_ps(_mm256_cmp_ps(whole, moved, _CMP_GT_OQ), _mm256_set1_ps(1.0f)));
}
INLINE __m256 v_reached(__m256 x, __m256 at, __m256 rise)
{
    return _mm256_and_ps(_mm256_cmp_ps(x, at, _CMP_GE_OQ), rise);
}
INLINE void v_to_integers(int32_t *y, __m256 x)
{
    _mm256_storeu_si256((__m256i *)(void *)y, _mm256_cvttps_epi32(x));
}
INLINE void v_to_bytes(uint8_t *y, __m256 x, int32_t base)
{
    __m256i whole = _mm256_sub_epi32(_mm256_cvttps_epi32(x), _mm256_set1_epi32(base));
    __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(whole), _mm256_extracti128_si256(whole, 1));
    _mm_storel_epi64((__m128i *)(void *)y, _mm_packus_epi16(words, words));
}

#elif defined(PLQ_NEON)
#define LANES 4
#define v_real float32x4_t
#define v_load vld1q_f32
#define v_all vdupq_n_f32
#define v_add vaddq_f32
#define v_mul vmulq_f32
#define v_div vdivq_f32
#define v_abs vabsq_f32
#define v_to_reals vst1q_f32
INLINE float32x4_t v_max(float32x4_t a, float32x4_t b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
INLINE float32x4_t v_min(float32x4_t a, float32x4_t b) { return vbslq_f32(vcltq_f32(a, b), a, b); }
INLINE float32x4_t v_from_integers(const int32_t *x) { return vcvtq_f32_s32(vld1q_s32(x)); }
INLINE float32x4_t v_from_bytes(const uint8_t *x, int32_t base)
{
    int32x4_t wide = {x[0], x[1], x[2], x[3]};
    return vcvtq_f32_s32(vaddq_s32(wide, vdupq_n_s32(base)));
}
INLINE float32x4_t v_half_even(float32x4_t x) { return vrndnq_f32(x); }
INLINE float32x4_t v_half_up(float32x4_t x) { return vrndmq_f32(vaddq_f32(x, vdupq_n_f32(0.5f))); }
INLINE float32x4_t v_reached(float32x4_t x, float32x4_t at, float32x4_t rise)
{
    return vbslq_f32(vcgeq_f32(x, at), rise, vdupq_n_f32(0.0f));
}
INLINE void v_to_integers(int32_t *y, float32x4_t x) { vst1q_s32(y, vcvtq_s32_f32(x)); }
INLINE void v_to_bytes(uint8_t *y, float32x4_t x, int32_t base)
{
    int32x4_t whole = vsubq_s32(vcvtq_s32_f32(x), vdupq_n_s32(base));
    y[0] = (uint8_t)vgetq_lane_s32(whole, 0);
    y[1] = (uint8_t)vgetq_lane_s32(whole, 1);
    y[2] = (uint8_t)vgetq_lane_s32(whole, 2);
    y[3] = (uint8_t)vgetq_lane_s32(whole, 3);
}

#else
#define LANES 1
#define v_real s_real
#define v_load s_load
#define v_all s_all
#define v_from_integers s_from_integers
#define v_from_bytes s_from_bytes
#define v_add s_add
#define v_mul s_mul
#define v_div s_div
#define v_max s_max
#define v_min s_min
#define v_abs s_abs
#define v_half_even s_half_even
#define v_half_up s_half_up
#define v_reached s_reached
#define v_to_reals s_to_reals
#define v_to_integers s_to_integers
#define v_to_bytes s_to_bytes
#endif
