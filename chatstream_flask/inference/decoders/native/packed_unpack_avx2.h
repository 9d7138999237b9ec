/* Unpacking with AVX2: the bytes of eight outputs are transposed, four together. */

#pragma once

#include <immintrin.h>

#include "packed_panel.h"

typedef struct {
    const uint8_t *const *rows; /* of eight outputs */
    Panel *panel;
    int first; /* lane of the first */
} Target;

INLINE void put(Target t, int64_t b, int group, __m256i values) {
    _mm256_storeu_si256((__m256i *)((int32_t *)&t.panel->values[b][group] + t.first), values);
}

INLINE void put_floats(Target t, vec *to, __m256 values) { _mm256_storeu_ps((float *)to + t.first, values); }

INLINE void put_scale(Target t, int64_t b, __m256 scale) { put_floats(t, &t.panel->scales[b][0], scale); }

/* to[i] = bytes 4i..4i+3, behind `at`, of each output */
INLINE void transposed(Target t, int64_t at, __m256i to[4]) {
    __m256i pairs[4];
    for (int i = 0; i < 4; i++) {
        __m128i low = _mm_loadu_si128((const __m128i *)(t.rows[i] + at));
        pairs[i] = _mm256_inserti128_si256(_mm256_castsi128_si256(low), *(const __m128i_u *)(t.rows[i + 4] + at), 1);
    }
    __m256i a = _mm256_unpacklo_epi32(pairs[0], pairs[1]), b = _mm256_unpacklo_epi32(pairs[2], pairs[3]);
    __m256i c = _mm256_unpackhi_epi32(pairs[0], pairs[1]), d = _mm256_unpackhi_epi32(pairs[2], pairs[3]);
    to[0] = _mm256_unpacklo_epi64(a, b);
    to[1] = _mm256_unpackhi_epi64(a, b);
    to[2] = _mm256_unpacklo_epi64(c, d);
    to[3] = _mm256_unpackhi_epi64(c, d);
}

INLINE __m256i and8(__m256i x, int mask) { return _mm256_and_si256(x, _mm256_set1_epi8((char)mask)); }

/* The half-precision number at `at` of each output. */
INLINE __m256 halves(Target t, int64_t at) {
    uint16_t bits[8];
    for (int i = 0; i < 8; i++) memcpy(bits + i, t.rows[i] + at, 2);
    return _mm256_cvtph_ps(_mm_setr_epi16(bits[0], bits[1], bits[2], bits[3], bits[4], bits[5], bits[6], bits[7]));
}

/* Byte `i` of each lane, as floats. */
INLINE __m256 byte_floats(__m256i x, int i) {
    return _mm256_cvtepi32_ps(_mm256_and_si256(_mm256_srli_epi32(x, 8 * i), _mm256_set1_epi32(0xff)));
}

/* Q4_0, Q4_1, Q5_0, Q5_1: 16 bytes of nibbles at the end, before them 4 bytes of fifth bits. */
INLINE void unpack_simple(Target t, int64_t at, int64_t b, BlockFormat f) {
    __m256i x[4];
    transposed(t, at + f.bytes - 16, x);
    uint32_t bits[8];
    if (f.max_value > 15)
        for (int i = 0; i < 8; i++) memcpy(bits + i, t.rows[i] + at + f.bytes - 20, 4);
    for (int g = 0; g < 8; g++) {
        __m256i v = and8(g < 4 ? x[g] : _mm256_srli_epi32(x[g - 4], 4), 15);
        if (f.max_value > 15) {
            __m256i four = _mm256_and_si256(_mm256_srli_epi32(_mm256_loadu_si256((__m256i *)bits), 4 * g),
                                            _mm256_set1_epi32(15));
            __m256i spread = _mm256_mullo_epi32(four, _mm256_set1_epi32(1 | 1 << 7 | 1 << 14 | 1 << 21));
            v = _mm256_or_si256(v, _mm256_slli_epi32(and8(spread, 1), 4));
        }
        put(t, b, g, v);
    }
    put_scale(t, b, halves(t, at));
    if (f.has_min) put_floats(t, &t.panel->mins[b], halves(t, at + 2));
}

INLINE void unpack_q8_0(Target t, int64_t at, int64_t b) {
    for (int g = 0; g < 8; g += 4) {
        __m256i x[4];
        transposed(t, at + 2 + 4 * g, x);
        for (int i = 0; i < 4; i++) put(t, b, g + i, x[i]);
    }
    put_scale(t, b, halves(t, at));
}

/* A super-block of Q4_K or Q5_K. */
INLINE void unpack_k(Target t, int64_t at, int64_t b, BlockFormat f) {
    __m256i head[4], bits[8];
    transposed(t, at, head); /* scale and scale of the mins, then 12 bytes of scales and mins */
    __m256 scale = halves(t, at), min = _mm256_sub_ps(_mm256_setzero_ps(), halves(t, at + 2));
    for (int i = 0; i < 8; i++) {
        __m256i scales = and8(head[1], 63), mins = and8(head[2], 63);
        if (i > 3) {
            scales = _mm256_or_si256(and8(head[3], 15), and8(_mm256_srli_epi32(head[1], 2), 48));
            mins = _mm256_or_si256(and8(_mm256_srli_epi32(head[3], 4), 15), and8(_mm256_srli_epi32(head[2], 2), 48));
        }
        put_scale(t, b + i, _mm256_mul_ps(scale, byte_floats(scales, i % 4)));
        put_floats(t, &t.panel->mins[b + i], _mm256_mul_ps(min, byte_floats(mins, i % 4)));
    }
    if (f.max_value > 15)
        for (int g = 0; g < 8; g += 4) transposed(t, at + 16 + 4 * g, bits + g);
    for (int pair = 0; pair < 4; pair++)
        for (int g = 0; g < 8; g += 4) {
            __m256i x[4];
            transposed(t, at + f.bytes - 128 + 32 * pair + 4 * g, x);
            for (int i = 0; i < 4; i++) {
                __m256i low = and8(x[i], 15), high = and8(_mm256_srli_epi32(x[i], 4), 15);
                if (f.max_value > 15) {
                    __m256i fifth = _mm256_srli_epi32(bits[g + i], 2 * pair);
                    low = _mm256_or_si256(low, _mm256_slli_epi32(and8(fifth, 1), 4));
                    high = _mm256_or_si256(high, _mm256_slli_epi32(and8(fifth, 2), 3));
                }
                put(t, b + 2 * pair, g + i, low);
                put(t, b + 2 * pair + 1, g + i, high);
            }
        }
}

/* A super-block of Q6_K. */
INLINE void unpack_q6_k(Target t, int64_t at, int64_t b) {
    __m256i scales[4];
    transposed(t, at + 192, scales);
    __m256 scale = halves(t, at + 208);
    for (int i = 0; i < 16; i++) {
        __m256i x = _mm256_srai_epi32(_mm256_slli_epi32(scales[i / 4], 24 - 8 * (i % 4)), 24);
        put_floats(t, &t.panel->scales[b + i / 2][i % 2], _mm256_mul_ps(scale, _mm256_cvtepi32_ps(x)));
    }
    for (int part = 0; part < 2; part++) /* of 128 weights */
        for (int g = 0; g < 8; g += 4) {
            __m256i bits[4], first[4], second[4];
            transposed(t, at + 128 + 32 * part + 4 * g, bits);
            transposed(t, at + 64 * part + 4 * g, first);
            transposed(t, at + 64 * part + 32 + 4 * g, second);
            for (int i = 0; i < 4; i++)
                for (int q = 0; q < 4; q++) {
                    __m256i nibbles = _mm256_srli_epi32(q % 2 ? second[i] : first[i], q / 2 * 4);
                    __m256i upper = and8(_mm256_srli_epi32(bits[i], 2 * q), 3);
                    __m256i v = _mm256_or_si256(and8(nibbles, 15), _mm256_slli_epi32(upper, 4));
                    put(t, b + 4 * part + q, g + i, v);
                }
        }
}

/* Unpack blocks first..first+num-1 of LANES outputs. */
INLINE void unpack_lanes(int64_t format, const uint8_t *const *rows, int64_t first, int64_t num, Panel *to,
                         Ahead *ahead) {
    BlockFormat f = block_format(format);
    int step = (int)(f.weights / BLOCK);
    for (int64_t b = 0; b < num; b += step) {
        int64_t at = (first + b) / step * f.bytes;
        fetch_ahead(ahead, LANES * f.bytes);
        for (int lane = 0; lane < LANES; lane += 8) {
            Target t = {rows + lane, to, lane};
            if (format == Q6_K)
                unpack_q6_k(t, at, b);
            else if (format == Q8_0)
                unpack_q8_0(t, at, b);
            else if (step > 1)
                unpack_k(t, at, b, f);
            else
                unpack_simple(t, at, b, f);
        }
    }
}
