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

/* Integer sums [window][features] of a band of windows. */
KERNEL void depthwise_band(const struct window *w, const struct part *part, const unsigned char *lines, int rows,
                       const int16_t *weights, int32_t *sums)
{
    for (int y = 0; y < rows; y++)
        for (int x = 0; x < w->out_width; x++, sums += w->features) {
            const unsigned char *cell = lines + (size_t)y * (size_t)w->stride_h * (size_t)w->line +
                                        (size_t)x * (size_t)w->stride_w * (size_t)w->cell;
            for (int f = 0; f < w->features; f++)
                sums[f] = 0;
            for (int s = 0; s < part->segments; s++) {
                const unsigned char *a = cell + part->offsets[s];
                const int16_t *at = weights + (size_t)s * (size_t)w->cell;
                for (int f = 0; f < w->cell; f++)
                    sums[f] += a[f] * at[f];
            }
        }
}
