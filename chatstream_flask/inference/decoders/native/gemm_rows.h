/* Products of weights: each output is a dot product along K, as the weights are stored. A tile of rows and outputs
 * has its sums in registers, a vector for each, whose lanes are added up at the end. So the sum of an output is
 * always made in the same order, whatever other rows are computed with it.
 *
 * Weights of 16 bits are widened once for all rows: by the first tile of rows, which stores them for the others. */

#pragma once

#include "parallel_loop.h"
#include "prefetch.h"
#include "vector.h"

enum { MAX_K_PANEL = 640, OUT_BLOCK = 24 }; /* cache blocking: elements of K, and outputs whose sums are kept */
enum { MAX_ROW_TILES = 64 / TILE_M };       /* that are computed with the same widened weights */
enum { STEP = 32 }; /* elements of K in the inner loop */
enum { MAX_TILE_OUTS = 6, MAX_TILE_SUMS = TILE_M * TILE_N };

/* Return the outputs of a tile, for the number of all rows; they divide MIN_CHUNK. */
INLINE int tile_outs(int64_t rows) { return rows == 1 ? MAX_TILE_OUTS : rows == 2 ? 4 : TILE_N; }

/* Rows of float32, laid out in tiles of up to TILE_M rows: [k / LANES][rows of the tile][LANES]. For bfloat16
 * weights, each pair of vectors has first the even elements and then the odd ones: so are weights fastest to widen. */
typedef struct {
    const float *tiles;
    int64_t rows, k;
    int64_t num_tiles, tile_size, num_larger; /* rows of a tile; tiles with one row more */
} TiledRows;

/* Return the first row of a tile; they are of about the same size, the larger ones first. */
INLINE int64_t tile_start(const TiledRows *x, int64_t tile) {
    return tile * x->tile_size + min_i64(tile, x->num_larger);
}

NOINLINE TiledRows tile_rows(const float *x, int64_t stride, int64_t rows, int64_t k, int format, float *buffer) {
    int64_t num_tiles = (rows + TILE_M - 1) / TILE_M;
    TiledRows tiled = {buffer, rows, k, num_tiles, rows / num_tiles, rows % num_tiles};
    int64_t in_pairs = format == BFLOAT16 ? k / (2 * LANES) * (2 * LANES) : 0;
    for (int64_t t = 0; t < num_tiles; t++) {
        int64_t first = tile_start(&tiled, t), num = tile_start(&tiled, t + 1) - first;
        for (int64_t r = 0; r < num; r++) {
            const float *from = x + (first + r) * stride;
            float *to = buffer + first * k + r * LANES;
            for (int64_t i = 0; i < in_pairs; i += 2 * LANES) {
                float even[LANES], odd[LANES];
                for (int lane = 0; lane < LANES; lane++) {
                    even[lane] = from[i + 2 * lane];
                    odd[lane] = from[i + 2 * lane + 1];
                }
                memcpy(to + i * num, even, sizeof even);
                memcpy(to + (i + LANES) * num, odd, sizeof odd);
            }
            for (int64_t i = in_pairs; i < k; i += LANES) *(vec_u *)(to + i * num) = *(const vec_u *)(from + i);
        }
    }
    return tiled;
}

/* One tile of a block of outputs, for `k` elements. */
typedef struct {
    const float *x;
    const char *weights, *next; /* of the first output; `next` is prefetched */
    int64_t stride, k;          /* bytes from an output to the next; elements */
    int num_next;               /* outputs to prefetch */
    int64_t next_stride;        /* as `stride`; STEP elements: prefetch in the order of addresses */
    float *widened;             /* [k / LANES][outputs of the tile][LANES] */
    vec *sums;                  /* [rows][outputs] */
    float *y;                   /* [rows][y_stride], for the last elements of K, else NULL */
    int64_t y_stride;
    int skipped;                /* first outputs that are not wanted */
    const float *bias;          /* of the outputs, or NULL */
} Tile;

/* How a tile gets its weights: widen them; widen and store them; take those that the first tile stored. */
enum { WIDEN, WIDEN_AND_STORE, TAKE };

/* Return LANES weights of elements i..i+2*LANES-1 of a row: the first or the second half of them, or for bfloat16
 * the even or the odd ones. */
INLINE vec weights_half(const char *row, int64_t i, int half, int format) {
    if (format != BFLOAT16) return load(row, i + half * LANES, format);
    ivec pairs;
    memcpy(&pairs, row + 2 * i, sizeof pairs);
    return (vec)(half ? pairs & ~0xffff : pairs << 16);
}

/* sums += x w for LANES elements of K. */
INLINE void multiply_tile(const float *x, const vec *w, vec *sums, int rows, int outs) {
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++) {
        vec xr = *(const vec_u *)(x + r * LANES);
#pragma GCC unroll 8
        for (int o = 0; o < outs; o++) multiply_add(&sums[r * outs + o], w[o], xr);
    }
    __asm__ volatile("" ::: "memory"); /* loads of the next elements must not take registers yet */
}

/* As above for 2 * LANES elements from element i on. */
INLINE void multiply_pair(const Tile *t, int64_t i, vec *sums, int rows, int outs, int format, int source) {
#pragma GCC unroll 2
    for (int half = 0; half < 2; half++) {
        vec w[MAX_TILE_OUTS];
        float *widened = t->widened + (i + half * LANES) * outs;
#pragma GCC unroll 8
        for (int o = 0; o < outs; o++) {
            w[o] = source == TAKE ? *(vec *)(widened + o * LANES)
                                  : weights_half(t->weights + o * t->stride, i, half, format);
            if (source == WIDEN) keep_in_register(&w[o]);
            if (source == WIDEN_AND_STORE) *(vec *)(widened + o * LANES) = w[o];
        }
        multiply_tile(t->x + (i + half * LANES) * rows, w, sums, rows, outs);
    }
}

/* Add up the lanes of the sums, and add the bias. */
INLINE void finish(const Tile *t, const vec *sums, int rows, int outs) {
    float added[MAX_TILE_SUMS];
#pragma GCC unroll 8
    for (int s = 0; s < rows * outs; s += 4) {
        vec four[4];
        for (int i = 0; i < 4; i++) four[i] = s + i < rows * outs ? sums[s + i] : broadcast(0);
        *(vec4_u *)(added + s) = sum4(four[0], four[1], four[2], four[3]);
    }
#pragma GCC unroll 8
    for (int o = 0; o < outs; o++) {
        if (o < t->skipped) continue;
        float bias = t->bias ? t->bias[o] : 0;
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) t->y[r * t->y_stride + o] = added[r * outs + o] + bias;
    }
}

INLINE void multiply(const Tile *t, int rows, int outs, int format, int source) {
    const int num = rows * outs, step_bytes = STEP * (int)element_size(format);
    const char *next = t->next;
    int64_t i = 0;
    vec sums[MAX_TILE_SUMS];
#pragma GCC unroll 24
    for (int s = 0; s < num; s++) sums[s] = t->sums[s];
    for (; i + STEP <= t->k; i += STEP) {
        for (int o = 0; o < outs; o++)
            if (o < t->num_next) {
                __builtin_prefetch(next + o * t->next_stride);
                if (format == FLOAT32) __builtin_prefetch(next + o * t->next_stride + CACHE_LINE);
            }
        next += t->next_stride == step_bytes ? outs * step_bytes : step_bytes;
        for (int part = 0; part < STEP; part += 2 * LANES)
            multiply_pair(t, i + part, sums, rows, outs, format, source);
    }
    for (; i + 2 * LANES <= t->k; i += 2 * LANES) multiply_pair(t, i, sums, rows, outs, format, source);
    if (i < t->k) {
        vec w[MAX_TILE_OUTS];
        for (int o = 0; o < outs; o++) w[o] = load(t->weights + o * t->stride, i, format);
        multiply_tile(t->x + i * rows, w, sums, rows, outs);
    }
    if (t->y) {
        finish(t, sums, rows, outs);
        return;
    }
#pragma GCC unroll 24
    for (int s = 0; s < num; s++) t->sums[s] = sums[s];
}

/* As `multiply`, with a constant number of rows, so that the sums are in registers. */
INLINE void multiply_rows(const Tile *t, int64_t rows, int is_only_tile, int format, int source) {
#define CASE(n) \
    case n: multiply(t, n, is_only_tile ? tile_outs(n) : TILE_N, format, source); break;
    switch (rows) {
        CASE(1)
        CASE(2)
        CASE(3)
        CASE(4)
#if TILE_M > 4
        CASE(5)
        CASE(6)
#endif
    }
#undef CASE
}

/* At most OUT_BLOCK outputs of the rows of tiles first..last-1, at most MAX_ROW_TILES; the matrix has at least
 * MAX_TILE_OUTS outputs. */
INLINE void gemm_block(const TiledRows *x, int64_t first, int64_t last, const char *w, const float *bias, Range outs,
                       float *y, int64_t y_stride, int format) {
    float widened[MAX_TILE_OUTS * MAX_K_PANEL] __attribute__((aligned(CACHE_LINE)));
    vec sums[MAX_ROW_TILES * OUT_BLOCK / TILE_N * MAX_TILE_SUMS];
    const int is_only = x->num_tiles == 1, step = is_only ? tile_outs(x->rows) : TILE_N;
    int64_t k = x->k, size = element_size(format), num_tiles = last - first;
    int64_t num_panels = x->rows <= 2 ? 1 : (k + MAX_K_PANEL - 1) / MAX_K_PANEL;
    int64_t panel = (k / num_panels + 63) / 64 * 64;
    memset(sums, 0, (outs.stop - outs.start + step - 1) / step * num_tiles * MAX_TILE_SUMS * sizeof *sums);
    for (int64_t start = 0; start < k; start += panel) {
        Tile t = {.stride = k * size, .k = min_i64(panel, k - start), .widened = widened, .sums = sums};
        t.y_stride = y_stride;
        t.next_stride = is_only && panel >= k ? STEP * size : t.stride;
        int is_last = start + panel >= k;
        for (int64_t o = outs.start; o < outs.stop; o += step) {
            int64_t from = max_i64(min_i64(o, outs.stop - step), 0);
            int64_t next_k = o + step < outs.stop ? start : is_last ? 0 : start + panel;
            int64_t next_out = o + step < outs.stop ? o + step : is_last ? outs.stop : outs.start;
            int64_t prefetched = num_tiles - 1; /* each tile prefetches a part of the next weights */
            t.weights = w + (from * k + start) * size;
            t.next = w + (next_out * k + next_k) * size;
            t.skipped = (int)(o - from);
            t.bias = bias ? bias + from : 0;
            for (int64_t tile = first; tile < last; tile++, t.sums += MAX_TILE_SUMS) {
                int64_t row = tile_start(x, tile), rows = tile_start(x, tile + 1) - row;
                t.x = x->tiles + row * k + start * rows;
                t.y = is_last ? y + row * y_stride + from : 0;
                t.num_next = 0;
                for (prefetched += step; prefetched >= num_tiles; prefetched -= num_tiles) t.num_next++;
                if (is_only)
                    multiply_rows(&t, rows, 1, format, WIDEN);
                else if (format == FLOAT32)
                    multiply_rows(&t, rows, 0, format, WIDEN);
                else if (tile == first)
                    multiply_rows(&t, rows, 0, format, WIDEN_AND_STORE);
                else
                    multiply_rows(&t, rows, 0, format, TAKE);
                t.next += t.num_next * t.stride;
            }
        }
    }
}

INLINE void gemm_rows(const TiledRows *x, const void *w, const float *bias, Range outs, float *y, int64_t y_stride,
                      int format) {
    for (int64_t o = outs.start; o < outs.stop; o += OUT_BLOCK)
        for (int64_t tile = 0; tile < x->num_tiles; tile += MAX_ROW_TILES)
            gemm_block(x, tile, min_i64(tile + MAX_ROW_TILES, x->num_tiles), w, bias,
                       (Range){o, min_i64(o + OUT_BLOCK, outs.stop)}, y, y_stride, format);
}
