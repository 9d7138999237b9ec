/* Products of packed matrices: quantisation of their inputs, and the build for the CPU at hand. */

#include <math.h>
#include <omp.h>
#include <stdlib.h>

#include "packed_blocks.h"

typedef void Product(const QuantisedBlock *x, int64_t rows, int64_t k, Weight w, const float *bias, int64_t start,
                     int64_t stop, float *y, int64_t y_stride);

Product packed_product_plain, packed_product_avx2, packed_product_vnni;

void packed_product(const QuantisedBlock *x, int64_t rows, int64_t k, Weight w, const float *bias, int64_t start,
                    int64_t stop, float *y, int64_t y_stride) {
    Product *product = packed_product_plain;
#ifdef CPU_DISPATCH
    int has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
    int has_avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                     __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    if (has_avx2) product = packed_product_avx2;
    if (has_avx2 && has_avx512 && __builtin_cpu_supports("avx512vnni")) product = packed_product_vnni;
#endif
    product(x, rows, k, w, bias, start, stop, y, y_stride);
}

static void quantise_block(const float *x, QuantisedBlock *to) {
    float top = 0;
    for (int i = 0; i < BLOCK; i++) top = fabsf(x[i]) > top ? fabsf(x[i]) : top;
    float factor = top > 0 ? 127.0f / top : 0;
    to->scale = top / 127.0f;
    to->sums[0] = to->sums[1] = 0;
    for (int i = 0; i < BLOCK; i++) {
        float rounded = (x[i] * factor + 12582912.0f) - 12582912.0f; /* to the nearest integer */
        to->values[i] = (int8_t)rounded;
        to->sums[i / 16] += to->values[i];
    }
    to->scaled_sum = to->scale * (float)(to->sums[0] + to->sums[1]);
}

void quantise_rows(const float *x, int64_t stride, int64_t rows, int64_t k, QuantisedBlock *to) {
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < k; i += BLOCK) quantise_block(x + r * stride + i, to++);
}

/* The functions that Python calls: */

/* y[rows] = x[rows] w[outs][k]^T; return whether there was memory for it. */
int packed_linear(const float *x, int64_t rows, int64_t k, const Weight *w, int64_t outs, float *y,
                  int64_t num_threads) {
    QuantisedBlock *quantised = malloc(rows * (k / BLOCK) * sizeof(QuantisedBlock));
    if (!quantised) return 0;
    quantise_rows(x, k, rows, k, quantised);
#pragma omp parallel for num_threads((int)num_threads) schedule(dynamic)
    for (int64_t o = 0; o < outs; o += PACKED_CHUNK)
        packed_product(quantised, rows, k, *w, 0, o, o + PACKED_CHUNK < outs ? o + PACKED_CHUNK : outs, y, outs);
    free(quantised);
    return 1;
}

/* to[num][k] = rows indices[0..num-1] of w[][k] */
void unpack_rows(const Weight *w, int64_t k, const int64_t *indices, int64_t num, float *to) {
    BlockFormat f = block_format(w->format);
    for (int64_t i = 0; i < num; i++) {
        const uint8_t *row = (const uint8_t *)w->data + indices[i] * (k / f.weights) * f.bytes;
        for (int64_t b = 0; b < k / BLOCK; b++, to += BLOCK) {
            Unpacked block = unpack_block(w->format, row, b);
            for (int j = 0; j < BLOCK; j++) {
                int value = f.max_value ? block.values[j] : (int8_t)block.values[j];
                to[j] = block.scales[j / 16] * (float)(value - f.offset) + block.min;
            }
        }
    }
}
