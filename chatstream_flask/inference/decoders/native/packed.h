/* Packed matrices: weights of 4 to 8 bits in blocks, as they lie in GGUF files. Rows of float32 are multiplied with
 * them as integers of 8 bits. A block of 32 products is summed up exactly and the sums of the blocks are added in
 * their order, so that a row's result is the same whatever rows it is computed with. */

#pragma once

#include "interface.h"

enum { BLOCK = 32 };          /* weights, or inputs, that are multiplied as integers */
enum { PACKED_CHUNK = 48 };   /* outputs that a thread computes at least: whole panels of 8 or of 16 */

/* A block of a row of inputs: input i is scale * values[i], rounded. */
typedef struct {
    float scale, scaled_sum; /* scale * (sums[0] + sums[1]) */
    int32_t sums[2];         /* of the first and the last 16 values */
    int8_t values[BLOCK];
} QuantisedBlock;

/* Quantise rows x[rows][k] to `to`[rows][k / BLOCK]. */
void quantise_rows(const float *x, int64_t stride, int64_t rows, int64_t k, QuantisedBlock *to);

/* Compute outputs start..stop-1 of y[rows] = x[rows] w[outs][k]^T + bias. */
void packed_product(const QuantisedBlock *x, int64_t rows, int64_t k, Weight w, const float *bias, int64_t start,
                    int64_t stop, float *y, int64_t y_stride);
