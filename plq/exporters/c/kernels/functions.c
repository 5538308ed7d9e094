/* Elementary functions without a C library, in double precision: sums, products and quotients in a fixed order, so that
   the float32 results have the same bits on every target. */

typedef union {
    double number;
    uint64_t bits;
} plq_double;

/* exp(x): x = n ln 2 + r with |r| <= ln(2) / 2, a Taylor polynomial in r, and 2^n by its exponent. */
FN double d_exp(double x)
{
    double n, r, p = 1.0;
    plq_double power;
    if (!(x >= -700.0)) return x != x ? x : 0.0;
    if (x > 700.0) x = 700.0;
    n = (double)(int32_t)(x * 1.4426950408889634 + (x < 0.0 ? -0.5 : 0.5));
    r = (x - n * 0.693147180369123816490) - n * 1.90821492927058770002e-10;
    for (int k = 14; k > 0; k--) p = 1.0 + p * r / (double)k;
    power.bits = (uint64_t)(1023 + (int32_t)n) << 52;
    return p * power.number;
}

/* log(x) of a float: x = m 2^e with m in [0.7, 1.42), and the series of 2 atanh((m - 1) / (m + 1)). */
FN double d_log(double x)
{
    double s, square, sum = 0.0;
    int32_t exponent;
    plq_double parts;
    parts.number = x;
    if (!(x > 0.0) || x > 1e300) return x > 0.0 ? x : (x == 0.0 ? -1e300 * 1e300 : x - x + (x != x ? x : 0.0 / (x - x)));
    exponent = (int32_t)(parts.bits >> 52) - 1023;
    parts.bits = (parts.bits & 0xfffffffffffffULL) | (1023ULL << 52);
    if (parts.number > 1.4142135623730951) {
        parts.number = parts.number * 0.5;
        exponent = exponent + 1;
    }
    s = (parts.number - 1.0) / (parts.number + 1.0);
    square = s * s;
    for (int k = 25; k > 0; k -= 2) sum = sum * square + 1.0 / (double)k;
    return 2.0 * (s * sum) + (double)exponent * 0.6931471805599453;
}

/* The square root by Newton's method, from half the exponent. */
FN double d_sqrt(double x)
{
    plq_double guess;
    if (!(x > 0.0) || x > 1e300) return x == 0.0 || x > 0.0 ? x : (x - x) / (x - x);
    guess.number = x;
    guess.bits = (guess.bits >> 1) + (511ULL << 52) + (1ULL << 51);
    for (int k = 0; k < 6; k++) guess.number = 0.5 * (guess.number + x / guess.number);
    return guess.number;
}

FN float f_exp(float x) { return (float)d_exp((double)x); }
FN float f_expm1(float x) { return (float)(d_exp((double)x) - 1.0); }
FN float f_log(float x) { return (float)d_log((double)x); }
FN float f_log1p(float x) { return (float)d_log(1.0 + (double)x); }
FN float f_sqrt(float x) { return (float)d_sqrt((double)x); }
FN float f_rsqrt(float x) { return (float)(1.0 / d_sqrt((double)x)); }
FN float f_sigmoid(float x) { return (float)(1.0 / (1.0 + d_exp(-(double)x))); }

FN float f_tanh(float x)
{
    double e = d_exp(-2.0 * (x < 0.0f ? -(double)x : (double)x));
    double t = (1.0 - e) / (1.0 + e);
    return (float)(x < 0.0f ? -t : t);
}

/* erf(x) = 2 / sqrt(pi) exp(-x^2) x (1 + 2 x^2 / 3 (1 + 2 x^2 / 5 (...))); 1 in float32 from 4 on. */
FN float f_erf(float x)
{
    double v = x < 0.0f ? -(double)x : (double)x, sum = 1.0;
    if (v > 4.0) v = 4.0;
    for (int k = 60; k > 0; k--) sum = 1.0 + sum * (2.0 * v * v) / (double)(2 * k + 1);
    sum = 1.1283791670955126 * d_exp(-v * v) * v * sum;
    return (float)(x < 0.0f ? -sum : sum);
}

FN float f_sign(float x) { return x > 0.0f ? 1.0f : (x < 0.0f ? -1.0f : x); }
FN float f_round(float x)
{
    return x >= -4194304.0f && x <= 4194304.0f ? (float)(((double)x + 6755399441055744.0) - 6755399441055744.0) : x;
}
FN float f_floor(float x)
{
    float r = f_round(x);
    return r > x ? r - 1.0f : r;
}
FN float f_ceil(float x)
{
    float r = f_round(x);
    return r < x ? r + 1.0f : r;
}

/* a to the power of b for a above 0; 0 to a positive power is 0. */
FN float f_power(float a, float b)
{
    if (a == 0.0f) return b > 0.0f ? 0.0f : (b == 0.0f ? 1.0f : 1.0f / a);
    return (float)d_exp((double)b * d_log((double)a));
}
