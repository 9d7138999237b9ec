/* The product of packed weights. A panel of LANES outputs is unpacked into memory of the L1 cache once for all rows:
 * four inputs of each output lie together, so that a vector's lanes are the outputs.
 *
 * Compiled once for each instruction set, by the packed_*.c that define before:
 *   LANES             outputs of a panel
 *   EXPORT(name)      the name under which packed.c knows a function
 *   unpack_lanes      fills a panel
 *   add_products      adds the four products of each lane to a sum, of 16 or 32 bits
 *   widened           turns that sum into one of 32 bits
 *   MAX_SUM(max)      how often products of values up to `max` may be added before
 *   SIGNED_OFFSET     what is added to each signed value by `add_products` */

#pragma once

#include "packed_panel.h"

enum { ROW_BLOCK = 128, ROW_TILE = 4 };

/* Micro-kernel: sums[row] += panel x[row], for num_rows rows of `num` blocks. */
INLINE void product_tile(const Panel *panel, int64_t num, const QuantisedBlock *x, int64_t x_stride, vec *sums,
                         int num_rows, BlockFormat f) {
    const int is_signed = !f.max_value, run = MAX_SUM(f.max_value), groups = BLOCK / 4 / f.num_scales;
    const int offset = is_signed ? SIGNED_OFFSET : f.offset;
    vec acc[ROW_TILE];
    for (int r = 0; r < num_rows; r++) acc[r] = sums[r];
    for (int64_t b = 0; b < num; b++, x++)
        for (int part = 0; part < f.num_scales; part++) {
            ivec total[ROW_TILE];
#pragma GCC unroll 8
            for (int start = 0; start < groups; start += run) {
                ivec run_sum[ROW_TILE];
#pragma GCC unroll 8
                for (int g = 0; g < run && g < groups; g++) {
                    int at = part * groups + start + g;
                    ivec w = panel->values[b][at];
#pragma GCC unroll 4
                    for (int r = 0; r < num_rows; r++) {
                        int32_t four;
                        memcpy(&four, x[r * x_stride].values + 4 * at, sizeof four);
                        ivec before = g ? run_sum[r] : (ivec){0};
                        run_sum[r] = add_products(before, w, four - (ivec){0}, is_signed);
                    }
                }
#pragma GCC unroll 4
                for (int r = 0; r < num_rows; r++) {
                    ivec wide = widened(run_sum[r], is_signed);
                    total[r] = start ? total[r] + wide : wide;
                }
            }
#pragma GCC unroll 4
            for (int r = 0; r < num_rows; r++) {
                const QuantisedBlock *xr = x + r * x_stride;
                int32_t sum = f.num_scales == 2 ? xr->sums[part] : xr->sums[0] + xr->sums[1];
                if (offset) total[r] -= sum * offset;
                acc[r] += __builtin_convertvector(total[r], vec) * (panel->scales[b][part] * xr->scale);
                if (f.has_min) acc[r] += panel->mins[b] * xr->scaled_sum;
            }
        }
    for (int r = 0; r < num_rows; r++) sums[r] = acc[r];
}

/* As the micro-kernel, for any number of rows. */
INLINE void product_rows(const Panel *panel, int64_t num, const QuantisedBlock *x, int64_t x_stride, vec *sums,
                         int64_t rows, BlockFormat f) {
    for (int64_t r = 0; r < rows; r += ROW_TILE) {
        const QuantisedBlock *from = x + r * x_stride;
        switch (rows - r) { /* a constant number of rows keeps the sums in registers */
            case 1: product_tile(panel, num, from, x_stride, sums + r, 1, f); break;
            case 2: product_tile(panel, num, from, x_stride, sums + r, 2, f); break;
            case 3: product_tile(panel, num, from, x_stride, sums + r, 3, f); break;
            default: product_tile(panel, num, from, x_stride, sums + r, ROW_TILE, f);
        }
    }
}

/* Outputs start..stop-1 of up to ROW_BLOCK rows. */
INLINE void product_of(const QuantisedBlock *x, int64_t rows, int64_t k, const uint8_t *w, const float *bias,
                       int64_t start, int64_t stop, float *y, int64_t y_stride, int64_t format) {
    BlockFormat f = block_format(format);
    int64_t row_bytes = k / f.weights * f.bytes, num_blocks = k / BLOCK;
    Panel panel;
    vec sums[ROW_BLOCK];
    Ahead ahead = {w + (start + LANES) * row_bytes, w + (start + LANES) * row_bytes};
    for (int64_t o = start; o < stop; o += LANES) {
        int64_t num = stop - o < LANES ? stop - o : LANES;
        const uint8_t *weights[LANES];
        for (int i = 0; i < LANES; i++) weights[i] = w + (o + (i < num ? i : 0)) * row_bytes;
        for (int64_t r = 0; r < rows; r++) sums[r] = (vec){0};
        for (int64_t b = 0; b < num_blocks; b += PANEL_BLOCKS) {
            int64_t blocks = num_blocks - b < PANEL_BLOCKS ? num_blocks - b : PANEL_BLOCKS;
            unpack_lanes(format, weights, b, blocks, &panel, &ahead);
            product_rows(&panel, blocks, x + b, num_blocks, sums, rows, f);
        }
        for (int64_t r = 0; r < rows; r++) {
            vec sum = sums[r];
            float *to = y + r * y_stride + o;
            if (num == LANES) {
                *(vec_u *)to = bias ? sum + *(const vec_u *)(bias + o) : sum;
            } else {
                for (int i = 0; i < num; i++) to[i] = sum[i] + (bias ? bias[o + i] : 0);
            }
        }
    }
}

void EXPORT(packed_product)(const QuantisedBlock *x, int64_t rows, int64_t k, Weight w, const float *bias,
                            int64_t start, int64_t stop, float *y, int64_t y_stride) {
    for (int64_t r = 0; r < rows; r += ROW_BLOCK) {
        int64_t num = rows - r < ROW_BLOCK ? rows - r : ROW_BLOCK;
        const QuantisedBlock *from = x + r * (k / BLOCK);
#define CASE(format) \
    case format: product_of(from, num, k, w.data, bias, start, stop, y + r * y_stride, y_stride, format); break;
        switch (w.format) {
            CASE(Q4_0) CASE(Q4_1) CASE(Q5_0) CASE(Q5_1) CASE(Q8_0) CASE(Q4_K) CASE(Q5_K) CASE(Q6_K)
        }
#undef CASE
    }
}
