/* The block formats of GGUF, as ggml-common.h of llama.cpp defines them. */

#pragma once

#include <string.h>

#include "packed.h"

#define INLINE static inline __attribute__((always_inline))

enum { Q4_0 = 2, Q4_1 = 3, Q5_0 = 6, Q5_1 = 7, Q8_0 = 8, Q4_K = 12, Q5_K = 13, Q6_K = 14 };
enum { SUPER_BLOCK = 256 }; /* weights of a block of the formats _K */

typedef struct {
    int64_t weights, bytes; /* of a block in memory */
    int offset;             /* subtracted from each value */
    int has_min;            /* added to each weight */
    int max_value;          /* 0: values are signed, of 8 bits */
    int num_scales;         /* of 32 weights */
} BlockFormat;

INLINE BlockFormat block_format(int64_t format) {
    switch (format) {
        case Q4_0: return (BlockFormat){32, 18, 8, 0, 15, 1};
        case Q4_1: return (BlockFormat){32, 20, 0, 1, 15, 1};
        case Q5_0: return (BlockFormat){32, 22, 16, 0, 31, 1};
        case Q5_1: return (BlockFormat){32, 24, 0, 1, 31, 1};
        case Q4_K: return (BlockFormat){256, 144, 0, 1, 15, 1};
        case Q5_K: return (BlockFormat){256, 176, 0, 1, 31, 1};
        case Q6_K: return (BlockFormat){256, 210, 32, 0, 63, 2};
        default: return (BlockFormat){32, 34, 0, 0, 0, 1}; /* Q8_0 */
    }
}

/* 32 weights: weight i is scales[i / 16] * (values[i] - offset) + min. */
typedef struct {
    uint8_t values[BLOCK];
    float scales[2], min;
} Unpacked;

INLINE float half(const uint8_t *from) {
    uint16_t h;
    memcpy(&h, from, sizeof h);
    uint32_t bits = (uint32_t)(h & 0x7fff) << 13;
    float magnitude;
    memcpy(&magnitude, &bits, sizeof bits);
    magnitude *= 0x1p112f; /* the difference of the exponents' biases; exact for subnormal numbers, too */
    return h & 0x8000 ? -magnitude : magnitude;
}

/* Scale and min of block `i` of a super-block of Q4_K or Q5_K: 6 bits each, the upper two of some apart. */
INLINE void scale_and_min(const uint8_t *packed, int i, int *scale, int *min) {
    if (i < 4) {
        *scale = packed[i] & 63;
        *min = packed[i + 4] & 63;
    } else {
        *scale = (packed[i + 4] & 15) | (packed[i - 4] >> 6) << 4;
        *min = packed[i + 4] >> 4 | (packed[i] >> 6) << 4;
    }
}

/* Unpack block `b`, counted in BLOCK weights, of a row. */
INLINE Unpacked unpack_block(int64_t format, const uint8_t *row, int64_t b) {
    BlockFormat f = block_format(format);
    int sub = (int)(b % (f.weights / BLOCK)), scale, min;
    const uint8_t *from = row + b * BLOCK / f.weights * f.bytes;
    Unpacked to = {{0}, {0, 0}, 0};
    int is_high = sub % 2; /* of a byte's nibbles, in the formats _K */
    switch (format) {
        case Q4_0: case Q4_1: case Q5_0: case Q5_1: {
            const uint8_t *nibbles = from + f.bytes - 16, *bits = nibbles - 4;
            for (int i = 0; i < 16; i++) {
                to.values[i] = nibbles[i] & 15;
                to.values[i + 16] = nibbles[i] >> 4;
            }
            for (int i = 0; i < 32 && f.max_value > 15; i++) to.values[i] |= (bits[i / 8] >> i % 8 & 1) << 4;
            to.scales[0] = to.scales[1] = half(from);
            if (f.has_min) to.min = half(from + 2);
            break;
        }
        case Q4_K: case Q5_K: {
            const uint8_t *nibbles = from + f.bytes - 128 + sub / 2 * 32, *bits = from + 16;
            for (int i = 0; i < 32; i++) {
                to.values[i] = nibbles[i] >> 4 * is_high & 15;
                if (format == Q5_K) to.values[i] |= (bits[i] >> sub & 1) << 4;
            }
            scale_and_min(from + 4, sub, &scale, &min);
            to.scales[0] = to.scales[1] = half(from) * scale;
            to.min = -half(from + 2) * min;
            break;
        }
        case Q6_K: {
            const uint8_t *nibbles = from + sub / 4 * 64 + is_high * 32, *bits = from + 128 + sub / 4 * 32;
            const int8_t *scales = (const int8_t *)from + 192 + 2 * sub;
            for (int i = 0; i < 32; i++)
                to.values[i] = (nibbles[i] >> sub % 4 / 2 * 4 & 15) | (bits[i] >> sub % 4 * 2 & 3) << 4;
            for (int i = 0; i < 2; i++) to.scales[i] = half(from + 208) * scales[i];
            break;
        }
        default:
            memcpy(to.values, from + 2, BLOCK);
            to.scales[0] = to.scales[1] = half(from);
    }
    return to;
}
