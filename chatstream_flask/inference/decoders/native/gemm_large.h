/* Products of keys with more than SMALL_M queries: queries are packed into transposed panels in which each lane is a
 * query, and each element of a key is broadcast to all lanes, so that keys are read as they are stored. */

#pragma once

#include "parallel_loop.h"
#include "prefetch.h"
#include "vector.h"

enum { K_BLOCK = 512 };                                          /* cache blocking */
enum { MAX_PANEL_VECS = 3, MAX_PANEL = MAX_PANEL_VECS * LANES }; /* rows of the widest panel */

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

/* Element `even + is_odd` in all lanes; elements of bfloat16 are read in pairs, as one int32. */
INLINE vec broadcast_element(const void *w, int64_t even, int is_odd, int format) {
    if (format == FLOAT32) return broadcast(((const float *)w)[even + is_odd]);
    if (format == FLOAT16) return widen_float16(((const uint16_t *)w)[even + is_odd] - (halves){0});
    int32_t pair;
    memcpy(&pair, (const uint16_t *)w + even, sizeof pair);
    ivec bits = pair - (ivec){0};
    return (vec)(is_odd ? bits & ~0xffff : bits << 16);
}

/* Micro-kernel: acc[o][row] += w[o][0..k-1] panel[k][row] for the vecs * LANES rows of a panel. */
INLINE void gemm_large_tile(const float *panel, int64_t size, const void *w, int64_t w_stride, int num,
                            Prefetcher *next, int num_lines, float *to, int64_t to_stride, int vecs, int format) {
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
                    vec wo = broadcast_element(w, offset[o] + k, odd, format);
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
} Matrix;

/* Return the number of floats that `pack` needs. */
INLINE int64_t pack_size(int64_t rows, int64_t k) {
    return rows <= SMALL_M ? 0 : (rows + MAX_PANEL) * k;
}

/* Prepare x for products; pack it into panels, padded with zeros, unless gemm_small takes it. */
NOINLINE Matrix pack(const float *x, int64_t stride, int64_t rows, int64_t k, float *buffer) {
    Matrix m = {x, stride, rows, k, 0, 0, buffer};
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

/* to[outs][padded_rows] += w[outs][k] x[padded_rows][k]^T, for packed rows. */
INLINE void gemm_transposed(const Matrix *m, const void *w, int64_t outs, float *to, int vecs, int format) {
    const int width = vecs * LANES, step = ACCUMULATORS / vecs;
    int64_t size = m->k, bytes = element_size(format), stride = m->padded_rows;
    int64_t lines = (step * 8 * bytes * width + CACHE_LINE * stride - 1) / (CACHE_LINE * stride);
    for (int64_t k = 0; k < size; k += K_BLOCK) {
        int64_t num_k = min_i64(size - k, K_BLOCK);
        for (int64_t o = 0; o < outs; o += step) {
            int64_t first = o * size + k;
            int num = (int)min_i64(outs - o, step);
            Prefetcher next = prefetcher(w, first + step * size, num_k, size, format);
            for (int64_t t = 0; t < stride; t += width)
                gemm_large_tile(m->panels + k * stride + t * num_k, num_k, (const char *)w + first * bytes,
                                size, num, &next, (int)lines, to + o * stride + t, stride, vecs, format);
        }
    }
}

NOINLINE void gemm_transposed_any(const Matrix *m, const void *w, int64_t outs, float *to, int format) {
#define CASE(format)                                                    \
    case format:                                                        \
        if (m->panel_vecs == 2)                                         \
            gemm_transposed(m, w, outs, to, 2, format);            \
        else                                                            \
            gemm_transposed(m, w, outs, to, 3, format);            \
        break;
    switch (format) {
        CASE(FLOAT32)
        CASE(BFLOAT16)
        CASE(FLOAT16)
    }
#undef CASE
}
