/* Matrix products y[M, N] = x[M, K] w[N, K]^T + bias[N]: M rows of float32 (tokens), N outputs, and weights as they
 * are stored, float32, bfloat16, float16 or packed. K must be a multiple of LANES, and of BLOCK with packed weights. */

#pragma once

#include "gemm_rows.h"
#include "packed.h"

/* The left operand of products. */
typedef struct {
    int64_t rows, k;
    TiledRows tiled;                 /* for matrices that are not packed */
    const QuantisedBlock *quantised; /* for packed matrices */
} Rows;

/* Return the number of floats that `prepare` needs. */
INLINE int64_t prepared_size(const Decoder *d, int64_t rows, int64_t k) {
    int64_t quantised = d->has_packed ? rows * (k / BLOCK) * (int64_t)(sizeof(QuantisedBlock) / sizeof(float)) : 0;
    return quantised + rows * k;
}

/* Prepare x for products with the decoder's matrices. */
INLINE Rows prepare(const Decoder *d, const float *x, int64_t stride, int64_t rows, int64_t k, float *buffer) {
    Rows prepared = {.rows = rows, .k = k};
    if (d->has_packed) {
        QuantisedBlock *quantised = (QuantisedBlock *)buffer;
        quantise_rows(x, stride, rows, k, quantised);
        prepared.quantised = quantised;
        buffer = (float *)(quantised + rows * (k / BLOCK));
    }
    if (d->has_plain) prepared.tiled = tile_rows(x, stride, rows, k, d->format, buffer);
    return prepared;
}

NOINLINE void gemm_float32(const TiledRows *x, const void *w, const float *bias, Range outs, float *y,
                           int64_t y_stride) {
    gemm_rows(x, w, bias, outs, y, y_stride, FLOAT32);
}

NOINLINE void gemm_bfloat16(const TiledRows *x, const void *w, const float *bias, Range outs, float *y,
                            int64_t y_stride) {
    gemm_rows(x, w, bias, outs, y, y_stride, BFLOAT16);
}

NOINLINE void gemm_float16(const TiledRows *x, const void *w, const float *bias, Range outs, float *y,
                           int64_t y_stride) {
    gemm_rows(x, w, bias, outs, y, y_stride, FLOAT16);
}

/* Compute outputs outs.start..outs.stop-1 of y[rows] = x[rows] w[outs][k]^T + bias. */
INLINE void gemm(const Rows *x, Weight w, const float *bias, Range outs, float *y, int64_t y_stride) {
    switch (w.format) {
        case FLOAT32: gemm_float32(&x->tiled, w.data, bias, outs, y, y_stride); break;
        case BFLOAT16: gemm_bfloat16(&x->tiled, w.data, bias, outs, y, y_stride); break;
        case FLOAT16: gemm_float16(&x->tiled, w.data, bias, outs, y, y_stride); break;
        default: packed_product(x->quantised, x->rows, x->k, w, bias, outs.start, outs.stop, y, y_stride);
    }
}
