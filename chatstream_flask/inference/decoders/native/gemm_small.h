/* Products of keys with up to SMALL_M queries, which stay in the L1 cache: each score is a dot product, whose vector
 * of partial sums is added up at the end. */

#pragma once

#include "parallel_loop.h"
#include "prefetch.h"
#include "vector.h"

/* Rows first..first+num-1 of a weight matrix, k elements each. */
typedef struct {
    const void *w;
    int64_t first, k;
    int num;
    const float *bias;
} WeightRows;

/* Micro-kernel: y[r][0..num-1] for num_rows rows of x and TILE_N or fewer outputs. */
INLINE void gemm_small_tile(const float *x, int64_t x_stride, WeightRows b, Prefetcher *next, int num_lines, float *y,
                            int64_t y_stride, int num_rows, int format) {
    vec acc[TILE_M][TILE_N];
    int64_t offset[TILE_N];
    for (int o = 0; o < TILE_N; o++) offset[o] = (b.first + (o < b.num ? o : 0)) * b.k;
    for (int r = 0; r < num_rows; r++)
        for (int o = 0; o < TILE_N; o++) acc[r][o] = broadcast(0);
    for (int64_t i = 0; i < b.k; i += LANES) {
        vec wi[TILE_N];
        for (int o = 0; o < TILE_N; o++) wi[o] = load(b.w, offset[o] + i, format);
        prefetch(next, num_lines);
        for (int r = 0; r < num_rows; r++) {
            vec xi = *(const vec_u *)(x + r * x_stride + i);
            for (int o = 0; o < TILE_N; o++) acc[r][o] += wi[o] * xi;
        }
    }
    for (int r = 0; r < num_rows; r++) {
        vec4 s = sum4(acc[r][0], acc[r][1], acc[r][2], TILE_N > 3 ? acc[r][TILE_N - 1] : broadcast(0));
        for (int o = 0; o < TILE_N; o++)
            if (o < b.num) y[r * y_stride + o] = s[o] + (b.bias ? b.bias[o] : 0);
    }
}

/* y[rows] = x[rows] w[outs][k]^T for outputs outs.start..outs.stop-1 and up to SMALL_M rows, divided into tiles of
 * about the same size. `other` is prefetched meanwhile; NULL: the keys that follow. */
INLINE void gemm_small(const float *x, int64_t x_stride, int64_t rows, int64_t k, const void *w, const float *bias,
                       Range outs, float *y, int64_t y_stride, Prefetcher *other, int format) {
    int64_t num_tiles = (rows + TILE_M - 1) / TILE_M;
    const int lines = (int)(TILE_N * LANES * element_size(format) + CACHE_LINE - 1) / CACHE_LINE;
    int num_lines = num_tiles == 1 ? lines : (lines + 1) / 2;
    for (int64_t o = outs.start; o < outs.stop; o += TILE_N) {
        WeightRows b = {w, o, k, (int)min_i64(outs.stop - o, TILE_N), bias ? bias + o : 0};
        Prefetcher weights = prefetcher(w, (o + TILE_N) * k, k, k, format), *next = other ? other : &weights;
        int64_t r = 0;
        for (int64_t left = num_tiles; left > 0; left--) {
            int64_t num = (rows - r + left - 1) / left;
#define TILE(n) \
    gemm_small_tile(x + r * x_stride, x_stride, b, next, num_lines, y + r * y_stride + o, y_stride, n, format)
            switch (num) { /* a constant number of rows keeps the accumulators in registers */
                case 1: TILE(1); break;
                case 2: TILE(2); break;
                case 3: TILE(3); break;
#if TILE_M > 4
                case 4: TILE(4); break;
                case 5: TILE(5); break;
#endif
                default: TILE(TILE_M);
            }
#undef TILE
            r += num;
        }
    }
}
