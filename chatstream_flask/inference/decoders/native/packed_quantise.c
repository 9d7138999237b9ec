/* Rounding of float32 weights to the block formats Q8_0 and Q4_0. */

#include <math.h>
#include <omp.h>

#include "packed_blocks.h"

enum { NUM_SCALES = 19 }; /* that are tried for a block of Q4_0 */

/* To half precision: nearest, ties to even; |x| must be in its range. */
static uint16_t to_half(float x) {
    float shifted = fabsf(x) * 0x1p-112f; /* the difference of the exponents' biases; rounds subnormal numbers */
    uint32_t bits, sign = x < 0 ? 0x8000 : 0;
    memcpy(&bits, &shifted, sizeof bits);
    return (uint16_t)(sign | (bits + 0xfff + (bits >> 13 & 1)) >> 13);
}

static float rounded(float x) { return (x + 12582912.0f) - 12582912.0f; } /* to the nearest integer */

static float limited(float x, float low, float high) { return x < low ? low : x > high ? high : x; }

static float largest(const float *x) {
    float top = 0;
    for (int i = 0; i < BLOCK; i++) top = fabsf(x[i]) > fabsf(top) ? x[i] : top;
    return top;
}

static void to_q8_0(const float *x, uint8_t *to) {
    uint16_t scale = to_half(fabsf(largest(x)) / 127);
    memcpy(to, &scale, sizeof scale);
    float factor = half(to) > 0 ? 1 / half(to) : 0;
    for (int i = 0; i < BLOCK; i++) to[2 + i] = (uint8_t)(int8_t)limited(rounded(x[i] * factor), -127, 127);
}

/* Values are -8 to 7. Of some scales around the one that makes the largest weight -8 the one with the least squared
 * error is taken. */
static void to_q4_0(const float *x, uint8_t *to) {
    float top = largest(x), best = 0, best_scale = 0;
    for (int s = 0; s < NUM_SCALES && top != 0; s++) {
        float factor = -(8 + 0.1f * (float)(s - NUM_SCALES / 2)) / top, xq = 0, qq = 0;
        for (int i = 0; i < BLOCK; i++) {
            float q = limited(rounded(x[i] * factor), -8, 7);
            xq += x[i] * q;
            qq += q * q;
        }
        if (qq > 0 && xq * xq > best * qq) { /* the error with the best scale for these values is least */
            best = xq * xq / qq;
            best_scale = xq / qq;
        }
    }
    uint16_t scale = to_half(best_scale);
    memcpy(to, &scale, sizeof scale);
    float factor = half(to) != 0 ? 1 / half(to) : 0;
    for (int i = 0; i < BLOCK / 2; i++) {
        int low = (int)limited(rounded(x[i] * factor), -8, 7) + 8;
        int high = (int)limited(rounded(x[i + BLOCK / 2] * factor), -8, 7) + 8;
        to[2 + i] = (uint8_t)(low | high << 4);
    }
}

/* Called by Python: round `num` blocks of weights to Q8_0 or Q4_0. */
void quantise_weights(const float *x, int64_t num, int64_t format, uint8_t *to, int64_t num_threads) {
    int64_t bytes = block_format(format).bytes;
#pragma omp parallel for num_threads((int)num_threads)
    for (int64_t i = 0; i < num; i++) (format == Q8_0 ? to_q8_0 : to_q4_0)(x + i * BLOCK, to + i * bytes);
}
