/* Integer products whose numbers need more than eight bits. Weights: int32 [segment][channel][feature]. */

/* `how`: int, bytes per number of the input, 1 or 4. */
FN void wide_pack(const struct window *w, const unsigned char *row, unsigned char *line, const void *how)
{
    int bytes = *(const int *)how;
    for (int x = 0; x < w->cells; x++) {
        int from = x - w->left, inside = row && from >= 0 && from < w->width;
        int32_t *cell = (int32_t *)(void *)(line + (size_t)x * (size_t)w->cell);
        const unsigned char *pixel = inside ? row + (size_t)from * (size_t)w->pitch : line;
        for (int c = 0; c < w->channels; c++)
            cell[c] = !inside ? w->pad : bytes == 1 ? pixel[c] : ((const int32_t *)(const void *)pixel)[c];
    }
}

/* Integer sums [window][features] of a band of windows. */
KERNEL void wide_band(const struct window *w, const struct part *part, const unsigned char *lines, int rows,
                  const int32_t *weights, int32_t *sums)
{
    for (int y = 0; y < rows; y++)
        for (int x = 0; x < w->out_width; x++, sums += w->features) {
            const unsigned char *cell = lines + (size_t)y * (size_t)w->stride_h * (size_t)w->line +
                                        (size_t)x * (size_t)w->stride_w * (size_t)w->cell;
            const int32_t *at = weights;
            for (int f = 0; f < w->features; f++)
                sums[f] = 0;
            for (int s = 0; s < part->segments; s++) {
                const int32_t *a = (const int32_t *)(const void *)(cell + part->offsets[s]);
                for (int c = 0; c < part->length; c++, at += w->features)
                    for (int f = 0; f < w->features; f++)
                        sums[f] += a[c] * at[f];
            }
        }
}
