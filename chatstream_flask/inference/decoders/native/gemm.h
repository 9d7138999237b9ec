/* Matrix products y[M, N] = x[M, K] w[N, K]^T + bias[N]: M rows of float32 (tokens, or queries), N outputs, and
 * weights (or cached keys) that are read as they are stored, float32 or bfloat16. Two algorithms:
 *
 * gemm_small, up to SMALL_M rows: x stays in the L1 cache; dot products along K, summed over the lanes at the end.
 * gemm_large, more rows: x is packed into transposed panels, in which each lane is a row; each weight is broadcast.
 *
 * K must be a multiple of LANES. */

#pragma once

#include "parallel_loop.h"
#include "vector.h"

enum { K_BLOCK = 512, N_BLOCK = 48, M_BLOCK = 128 };             /* cache blocking of gemm_large */
enum { MAX_PANEL_VECS = 3, MAX_PANEL = MAX_PANEL_VECS * LANES }; /* rows of the widest panel */

/* Prefetch of what is needed next while something else is computed, so that memory is never idle. It proceeds in
 * the order of addresses, which is faster than alternating between rows: rows of `row_bytes`, `stride_bytes` apart;
 * a stride of 0 repeats the same row. */
typedef struct {
    const char *address, *row_end;
    int64_t row_bytes, stride_bytes;
} Prefetcher;

INLINE Prefetcher prefetcher(const void *from, int64_t first, int64_t row, int64_t stride, int is_bf16) {
    int64_t size = element_size(is_bf16);
    const char *address = (const char *)from + first * size;
    return (Prefetcher){address, address + row * size, row * size, stride * size};
}

INLINE void prefetch(Prefetcher *p, int num_lines) {
    for (int i = 0; i < num_lines; i++) {
        __builtin_prefetch(p->address);
        p->address += CACHE_LINE;
        if (p->address >= p->row_end) {
            p->address += p->stride_bytes - p->row_bytes;
            p->row_end += p->stride_bytes;
        }
    }
}

/* -- few rows ------------------------------------------------------------------------------------------ */

/* Rows first..first+num-1 of a weight matrix, k elements each. */
typedef struct {
    const void *w;
    int64_t first, k;
    int num;
    const float *bias;
} WeightRows;

/* Micro-kernel: y[r][0..num-1] for num_rows rows of x and TILE_N or fewer outputs. */
INLINE void gemm_small_tile(const float *x, int64_t x_stride, WeightRows b, Prefetcher *next, int num_lines, float *y,
                            int64_t y_stride, int num_rows, int is_bf16) {
    vec acc[TILE_M][TILE_N];
    int64_t offset[TILE_N];
    for (int o = 0; o < TILE_N; o++) offset[o] = (b.first + (o < b.num ? o : 0)) * b.k;
    for (int r = 0; r < num_rows; r++)
        for (int o = 0; o < TILE_N; o++) acc[r][o] = broadcast(0);
    for (int64_t i = 0; i < b.k; i += LANES) {
        vec wi[TILE_N];
        for (int o = 0; o < TILE_N; o++) wi[o] = load(b.w, offset[o] + i, is_bf16);
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

/* As `gemm`, for up to SMALL_M rows, divided into tiles of about the same size. */
INLINE void gemm_small(const float *x, int64_t x_stride, int64_t rows, int64_t k, const void *w, const float *bias,
                       Range outs, float *y, int64_t y_stride, Prefetcher *other, int is_bf16) {
    int64_t num_tiles = (rows + TILE_M - 1) / TILE_M;
    const int lines = (int)(TILE_N * LANES * element_size(is_bf16) + CACHE_LINE - 1) / CACHE_LINE;
    int num_lines = num_tiles == 1 ? lines : (lines + 1) / 2;
    for (int64_t o = outs.start; o < outs.stop; o += TILE_N) {
        WeightRows b = {w, o, k, (int)min_i64(outs.stop - o, TILE_N), bias ? bias + o : 0};
        Prefetcher weights = prefetcher(w, (o + TILE_N) * k, k, k, is_bf16), *next = other ? other : &weights;
        int64_t r = 0;
        for (int64_t left = num_tiles; left > 0; left--) {
            int64_t num = (rows - r + left - 1) / left;
#define TILE(n) \
    gemm_small_tile(x + r * x_stride, x_stride, b, next, num_lines, y + r * y_stride + o, y_stride, n, is_bf16)
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

/* -- many rows ----------------------------------------------------------------------------------------- */

/* to[c][r] = from[r][c] */
NOINLINE void transpose(const float *from, int64_t from_stride, int64_t rows, int64_t columns, float *to,
                        int64_t to_stride) {
    int64_t r = 0;
    for (; r + 4 <= rows; r += 4) {
        int64_t c = 0;
        for (; c + 4 <= columns; c += 4) {
            const float *f = from + r * from_stride + c;
            float *t = to + c * to_stride + r;
            vec4 q[4], p[4];
            for (int i = 0; i < 4; i++) q[i] = *(const vec4_u *)(f + i * from_stride);
            for (int i = 0; i < 4; i += 2) {
                p[i] = __builtin_shuffle(q[i], q[i + 1], (ivec4){0, 4, 1, 5});
                p[i + 1] = __builtin_shuffle(q[i], q[i + 1], (ivec4){2, 6, 3, 7});
            }
            for (int i = 0; i < 2; i++) {
                *(vec4_u *)(t + 2 * i * to_stride) = __builtin_shuffle(p[i], p[i + 2], (ivec4){0, 1, 4, 5});
                *(vec4_u *)(t + (2 * i + 1) * to_stride) = __builtin_shuffle(p[i], p[i + 2], (ivec4){2, 3, 6, 7});
            }
        }
        for (; c < columns; c++)
            for (int i = 0; i < 4; i++) to[c * to_stride + r + i] = from[(r + i) * from_stride + c];
    }
    for (; r < rows; r++)
        for (int64_t c = 0; c < columns; c++) to[c * to_stride + r] = from[r * from_stride + c];
}

/* Weight `even + is_odd` in all lanes; bfloat16 weights are read in pairs, as one int32. */
INLINE vec broadcast_weight(const void *w, int64_t even, int is_odd, int is_bf16) {
    if (!is_bf16) return broadcast(((const float *)w)[even + is_odd]);
    int32_t pair;
    memcpy(&pair, (const uint16_t *)w + even, sizeof pair);
    ivec bits = pair - (ivec){0};
    return (vec)(is_odd ? bits & ~0xffff : bits << 16);
}

/* Micro-kernel: acc[o][row] += w[o][0..k-1] panel[k][row] for the vecs * LANES rows of a panel. */
INLINE void gemm_large_tile(const float *panel, int64_t size, const void *w, int64_t w_stride, int num,
                            Prefetcher *next, int num_lines, float *to, int64_t to_stride, int vecs, int is_bf16) {
    const int outs = ACCUMULATORS / vecs;
    vec acc[ACCUMULATORS];
    int64_t offset[ACCUMULATORS];
    for (int o = 0; o < outs; o++) offset[o] = (o < num ? o : 0) * w_stride;
    for (int i = 0; i < ACCUMULATORS; i++) acc[i] = broadcast(0);
    for (int64_t start = 0; start < size; start += 8) {
        prefetch(next, num_lines);
        for (int64_t k = start; k < start + 8; k += 2) {
#pragma GCC unroll 2
            for (int odd = 0; odd < 2; odd++) {
                vec x[MAX_PANEL_VECS];
#pragma GCC unroll 3
                for (int v = 0; v < vecs; v++) x[v] = *(const vec_u *)(panel + ((k + odd) * vecs + v) * LANES);
#pragma GCC unroll 12
                for (int o = 0; o < outs; o++) {
                    vec wo = broadcast_weight(w, offset[o] + k, odd, is_bf16);
#pragma GCC unroll 3
                    for (int v = 0; v < vecs; v++) acc[o * vecs + v] += x[v] * wo;
                }
            }
        }
    }
    for (int o = 0; o < outs; o++)
        for (int v = 0; v < vecs; v++)
            if (o < num) *(vec_u *)(to + o * to_stride + v * LANES) += acc[o * vecs + v];
}

/* The left operand x[rows][k] of products. */
typedef struct {
    const float *x;
    int64_t stride, rows, k;
    int64_t panel_vecs, padded_rows; /* vectors per panel, and rows of all panels; 0: few rows, not packed */
    float *panels;                   /* by blocks of K_BLOCK, and within a block panel by panel */
    float *block;                    /* [N_BLOCK][M_BLOCK], a block of y before it is transposed */
} Matrix;

/* Return the number of floats that `pack` needs. */
INLINE int64_t pack_size(int64_t rows, int64_t k) {
    return rows <= SMALL_M ? 0 : N_BLOCK * M_BLOCK + (rows + MAX_PANEL) * k;
}

/* Prepare x for products; pack it into panels, padded with zeros, unless gemm_small takes it. */
NOINLINE Matrix pack(const float *x, int64_t stride, int64_t rows, int64_t k, float *buffer) {
    Matrix m = {x, stride, rows, k, 0, 0, buffer + N_BLOCK * M_BLOCK, buffer};
    if (rows <= SMALL_M) return m;
    int64_t vecs = (rows + LANES - 1) / LANES, by_three = (vecs + 2) / 3 * 3, by_two = (vecs + 1) / 2 * 2;
    m.panel_vecs = by_three <= by_two ? 3 : 2; /* whichever needs less padding */
    m.padded_rows = by_three <= by_two ? by_three * LANES : by_two * LANES;
    int64_t width = m.panel_vecs * LANES;
    for (int64_t k_start = 0; k_start < k; k_start += K_BLOCK) {
        int64_t num_k = min_i64(k - k_start, K_BLOCK);
        for (int64_t r = 0; r < m.padded_rows; r += width) {
            float *panel = m.panels + k_start * m.padded_rows + r * num_k;
            int64_t num_rows = min_i64(rows - r, width);
            if (num_rows < width) memset(panel, 0, num_k * width * sizeof(float));
            transpose(x + r * stride + k_start, stride, num_rows, num_k, panel, width);
        }
    }
    return m;
}

/* to[outs][r.stop - r.start] += w[outs][k] x[rows r.start..r.stop-1][k]^T, for packed rows. */
INLINE void gemm_transposed(const Matrix *m, Range r, const void *w, int64_t outs, float *to, int vecs, int is_bf16) {
    const int width = vecs * LANES, step = ACCUMULATORS / vecs;
    int64_t size = m->k, bytes = element_size(is_bf16), stride = r.stop - r.start;
    int64_t lines = (step * 8 * bytes * width + CACHE_LINE * stride - 1) / (CACHE_LINE * stride);
    for (int64_t k = 0; k < size; k += K_BLOCK) {
        int64_t num_k = min_i64(size - k, K_BLOCK);
        for (int64_t o = 0; o < outs; o += step) {
            int64_t first = o * size + k;
            int num = (int)min_i64(outs - o, step);
            Prefetcher next = prefetcher(w, first + step * size, num_k, size, is_bf16);
            for (int64_t t = r.start; t < r.stop; t += width)
                gemm_large_tile(m->panels + k * m->padded_rows + t * num_k, num_k, (const char *)w + first * bytes,
                                size, num, &next, (int)lines, to + o * stride + t - r.start, stride, vecs, is_bf16);
        }
    }
}

/* As `gemm`, for packed rows r.start..r.stop-1; at most M_BLOCK rows and N_BLOCK outputs. */
INLINE void gemm_large(const Matrix *m, Range r, const void *w, const float *bias, int64_t first, int64_t num_outs,
                       float *y, int64_t y_stride, int vecs, int is_bf16) {
    int64_t stride = r.stop - r.start, num_rows = min_i64(m->rows, r.stop) - r.start;
    memset(m->block, 0, num_outs * stride * sizeof(float));
    gemm_transposed(m, r, (const char *)w + first * m->k * element_size(is_bf16), num_outs, m->block, vecs, is_bf16);
    transpose(m->block, stride, num_outs, num_rows, y + r.start * y_stride + first, y_stride);
    for (int64_t i = r.start; bias && i < r.start + num_rows; i++)
        for (int64_t o = first; o < first + num_outs; o++) y[i * y_stride + o] += bias[o];
}

/* -- any number of rows -------------------------------------------------------------------------------- */

INLINE void gemm_typed(const Matrix *m, const void *w, const float *bias, Range outs, float *y, int64_t y_stride,
                       Prefetcher *other, int is_bf16) {
    if (!m->panel_vecs) {
        gemm_small(m->x, m->stride, m->rows, m->k, w, bias, outs, y, y_stride, other, is_bf16);
        return;
    }
    int64_t width = m->panel_vecs * LANES, num_panels = m->padded_rows / width, max_panels = M_BLOCK / width;
    int64_t num_blocks = (num_panels + max_panels - 1) / max_panels;
    int64_t block = (num_panels + num_blocks - 1) / num_blocks * width;
    for (int64_t first = outs.start; first < outs.stop; first += N_BLOCK) {
        int64_t num = min_i64(outs.stop - first, N_BLOCK);
        for (int64_t start = 0; start < m->padded_rows; start += block) {
            Range rows = {start, min_i64(start + block, m->padded_rows)};
            if (m->panel_vecs == 2)
                gemm_large(m, rows, w, bias, first, num, y, y_stride, 2, is_bf16);
            else
                gemm_large(m, rows, w, bias, first, num, y, y_stride, 3, is_bf16);
        }
    }
}

NOINLINE void gemm_float32(const Matrix *m, const void *w, const float *bias, Range outs, float *y, int64_t y_stride,
                           Prefetcher *other) {
    gemm_typed(m, w, bias, outs, y, y_stride, other, 0);
}

NOINLINE void gemm_bfloat16(const Matrix *m, const void *w, const float *bias, Range outs, float *y, int64_t y_stride,
                            Prefetcher *other) {
    gemm_typed(m, w, bias, outs, y, y_stride, other, 1);
}

/* Compute outputs outs.start..outs.stop-1 of y[rows] = x[rows] w[outs][k]^T + bias. With few rows `other` is
 * prefetched meanwhile; NULL: the weights that follow. */
INLINE void gemm(const Matrix *m, const void *w, const float *bias, Range outs, float *y, int64_t y_stride,
                 Prefetcher *other, int is_bf16) {
    (is_bf16 ? gemm_bfloat16 : gemm_float32)(m, w, bias, outs, y, y_stride, other);
}

NOINLINE void gemm_transposed_float32(const Matrix *m, const void *w, int64_t outs, float *to) {
    Range all = {0, m->padded_rows};
    if (m->panel_vecs == 2)
        gemm_transposed(m, all, w, outs, to, 2, 0);
    else
        gemm_transposed(m, all, w, outs, to, 3, 0);
}

NOINLINE void gemm_transposed_bfloat16(const Matrix *m, const void *w, int64_t outs, float *to) {
    Range all = {0, m->padded_rows};
    if (m->panel_vecs == 2)
        gemm_transposed(m, all, w, outs, to, 2, 1);
    else
        gemm_transposed(m, all, w, outs, to, 3, 1);
}
