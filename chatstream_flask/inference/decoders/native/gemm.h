/* Matrix products y[M, N] = x[M, K] w[N, K]^T + bias[N]: M rows of float32 (tokens, or queries), N outputs, and
 * weights (or cached keys) as they are stored, float32, bfloat16 or packed. K must be a multiple of LANES, and of
 * BLOCK with packed weights. */

#pragma once

#include "gemm_large.h"
#include "gemm_small.h"

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

/* Return the number of floats that `prepare` needs. */
INLINE int64_t prepared_size(const Decoder *d, int64_t rows, int64_t k) {
    int64_t quantised = d->has_packed ? rows * (k / BLOCK) * (int64_t)(sizeof(QuantisedBlock) / sizeof(float)) : 0;
    return quantised + pack_size(rows, k);
}

/* Prepare x for products with the decoder's matrices. */
INLINE Matrix prepare(const Decoder *d, const float *x, int64_t stride, int64_t rows, int64_t k, float *buffer) {
    Matrix m = {x, stride, rows, k, 0, 0, 0, 0, 0};
    QuantisedBlock *quantised = (QuantisedBlock *)buffer;
    if (d->has_packed) buffer = (float *)(quantised + rows * (k / BLOCK));
    if (d->has_plain) m = pack(x, stride, rows, k, buffer);
    if (d->has_packed) quantise_rows(x, stride, rows, k, quantised);
    m.quantised = quantised;
    return m;
}

/* Compute outputs outs.start..outs.stop-1 of y[rows] = x[rows] w[outs][k]^T + bias. With few rows `other` is
 * prefetched meanwhile; NULL: the weights that follow. */
INLINE void gemm(const Matrix *m, Weight w, const float *bias, Range outs, float *y, int64_t y_stride,
                 Prefetcher *other) {
    if (is_packed(w.format)) {
        packed_product(m->quantised, m->rows, m->k, w, bias, outs.start, outs.stop, y, y_stride);
        return;
    }
    (w.format == BFLOAT16 ? gemm_bfloat16 : gemm_float32)(m, w.data, bias, outs, y, y_stride, other);
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
