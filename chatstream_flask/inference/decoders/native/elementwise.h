/* Norms, residuals, rotary embedding and gated activation. */

#pragma once

#include "parallel_loop.h"
#include "vector.h"

/* y = x / sqrt(mean(x^2) + eps) * weight */
INLINE void rms_norm(const float *x, int64_t size, const float *weight, float eps, float *y) {
    vec squares = broadcast(0);
    for (int64_t i = 0; i < size; i += LANES) {
        vec xi = *(const vec_u *)(x + i);
        squares += xi * xi;
    }
    float factor = 1.0f / sqrtf(sum(squares) / size + eps);
    for (int64_t i = 0; i < size; i += LANES)
        *(vec_u *)(y + i) = *(const vec_u *)(x + i) * factor * *(const vec_u *)(weight + i);
}

INLINE void rms_norm_rows(const float *x, int64_t rows, int64_t size, const float *weight, float eps, float *y) {
    for (int64_t t = 0; t < rows; t++) rms_norm(x + t * size, size, weight, eps, y + t * size);
}

/* x += rms_norm(y), or x += y where there is no weight. */
INLINE void add_residual(float *x, const float *y, int64_t rows, int64_t size, const float *weight, float eps,
                         float *buffer) {
    for (int64_t t = 0; t < rows; t++) {
        const float *from = y + t * size;
        if (weight) {
            rms_norm(from, size, weight, eps, buffer);
            from = buffer;
        }
        for (int64_t i = 0; i < size; i += LANES) *(vec_u *)(x + t * size + i) += *(const vec_u *)(from + i);
    }
}

/* Rotate one head in place; the first half of `sin` holds negated sines. */
INLINE void apply_rope(float *head, int64_t dim, const float *cos, const float *sin) {
    int64_t half = dim / 2;
    for (int64_t i = 0; i < half; i++) {
        float a = head[i], b = head[half + i];
        head[i] = a * cos[i] + b * sin[i];
        head[half + i] = b * cos[half + i] + a * sin[half + i];
    }
}

/* gate[r] = activation(gate[r]) * up[r], where the `size` elements of up follow those of gate. */
INLINE void act_and_mul(float *gate_up, int64_t rows, int64_t size, Range r, int64_t activation) {
    for (int64_t t = 0; t < rows; t++)
        for (int64_t i = r.start; i < r.stop; i += LANES) {
            float *gate = gate_up + t * 2 * size + i;
            *(vec_u *)gate = act_v(*(vec_u *)gate, activation) * *(vec_u *)(gate + size);
        }
}
