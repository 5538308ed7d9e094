/* Between products: pooling, means over pixels, and shortcuts without a convolution. All keep channels last. */

#define POOL(name, type)                                                                                             \
    FN void name(const type *x, type *y, int height, int width, int channels, int window, int stride, int top,       \
                 int left, int out_height, int out_width)                                                            \
    {                                                                                                                \
        for (int oy = 0; oy < out_height; oy++)                                                                      \
            for (int ox = 0; ox < out_width; ox++, y += channels) {                                                  \
                int started = 0;                                                                                     \
                for (int i = 0; i < window; i++)                                                                     \
                    for (int j = 0; j < window; j++) {                                                               \
                        int iy = oy * stride - top + i, ix = ox * stride - left + j;                                 \
                        const type *pixel;                                                                           \
                        if (iy < 0 || ix < 0 || iy >= height || ix >= width)                                         \
                            continue;                                                                                \
                        pixel = x + ((size_t)iy * (size_t)width + (size_t)ix) * (size_t)channels;                    \
                        for (int c = 0; c < channels; c++)                                                           \
                            y[c] = started && y[c] > pixel[c] ? y[c] : pixel[c];                                     \
                        started = 1;                                                                                 \
                    }                                                                                                \
            }                                                                                                        \
    }
POOL(pool_bytes, uint8_t)
POOL(pool_integers, int32_t)
POOL(pool_reals, float)
#undef POOL

/* Every stride-th pixel; `before` channels of zeros in front of its own, and as many behind as are left. */
#define SHRINK(name, type)                                                                                           \
    FN void name(const type *x, type *y, int width, int channels, int stride, int before, int out_height,            \
                 int out_width, int out_channels, type zero)                                                         \
    {                                                                                                                \
        for (int oy = 0; oy < out_height; oy++)                                                                      \
            for (int ox = 0; ox < out_width; ox++, y += out_channels) {                                              \
                const type *pixel = x + ((size_t)(oy * stride) * (size_t)width + (size_t)(ox * stride)) *            \
                                            (size_t)channels;                                                        \
                for (int c = 0; c < out_channels; c++)                                                               \
                    y[c] = c < before || c >= before + channels ? zero : pixel[c - before];                          \
            }                                                                                                        \
    }
SHRINK(shrink_bytes, uint8_t)
SHRINK(shrink_integers, int32_t)
SHRINK(shrink_reals, float)
#undef SHRINK

/* The mean over all pixels: each number times 1 / pixels, added in the order of pixels. */
FN void mean_pixels(const unsigned char *x, const struct reals *r, int pitch, float *y, int pixels, int channels,
                    float share)
{
    for (int c = 0; c < channels; c++)
        y[c] = 0.0f;
    for (int p = 0; p < pixels; p++, x += pitch)
        for (int c = 0; c < channels; c++) {
            float part = real_at(r, x, c) * share;
            y[c] = y[c] + part;
        }
}
