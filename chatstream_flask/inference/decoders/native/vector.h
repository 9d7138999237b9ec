/* SIMD primitives: vectors of LANES floats, by GCC's vector extensions. Elements of 16 bits are widened to float32
 * when they are loaded and rounded when they are stored; all arithmetic is float32. */

#pragma once

#ifdef USES_F16C
#include <immintrin.h>
#endif
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "interface.h"

#define INLINE static inline __attribute__((always_inline))
#define NOINLINE static __attribute__((noinline)) /* inlined everywhere, these would take minutes to compile */

typedef float vec __attribute__((vector_size(4 * LANES)));
typedef float vec_u __attribute__((vector_size(4 * LANES), aligned(4), may_alias)); /* unaligned */
typedef int32_t ivec __attribute__((vector_size(4 * LANES)));
typedef uint16_t halves __attribute__((vector_size(2 * LANES), aligned(2), may_alias));
typedef float vec4 __attribute__((vector_size(16)));
typedef float vec4_u __attribute__((vector_size(16), aligned(4), may_alias));
typedef int32_t ivec4 __attribute__((vector_size(16)));

INLINE int64_t min_i64(int64_t a, int64_t b) { return a < b ? a : b; }
INLINE int64_t max_i64(int64_t a, int64_t b) { return a > b ? a : b; }

/* Bytes per weight and per cached key or value element. */
INLINE int64_t element_size(int format) { return format == FLOAT32 ? 4 : 2; }

INLINE vec broadcast(float x) { return x - (vec){0}; } /* not x + 0, which turns -0 into 0 */

/* Return `yes` in the lanes where the mask is set, `no` in the others. */
INLINE vec blend(ivec mask, vec yes, vec no) { return (vec)(((ivec)yes & mask) | ((ivec)no & ~mask)); }

/* acc += a * b; the assembler text keeps GCC from moving the sums between registers. */
INLINE void multiply_add(vec *acc, vec a, vec b) {
#if defined(CPU_DISPATCH) && defined(__FMA__)
    __asm__("vfmadd231ps %2, %1, %0" : "+v"(*acc) : "v"(a), "v"(b));
#else
    *acc += a * b;
#endif
}

INLINE void keep_in_register(vec *x) {
#if defined(CPU_DISPATCH) && defined(__FMA__)
    __asm__("" : "+v"(*x));
#endif
}

INLINE vec widen_bfloat16(halves x) { return (vec)(__builtin_convertvector(x, ivec) << 16); }

INLINE halves narrow_bfloat16(vec x) {
    ivec bits = (ivec)x; /* round to nearest, ties to even; a NaN stays a NaN */
    ivec rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    ivec quiet_nan = ((bits >> 16) | 0x40) & (x != x);
    return __builtin_convertvector((rounded & ~(x != x)) | quiet_nan, halves);
}

INLINE vec widen_float16(halves x) {
#if defined(USES_F16C) && LANES == 16
    return (vec)_mm512_cvtph_ps((__m256i)x);
#elif defined(USES_F16C) && LANES == 8
    return (vec)_mm256_cvtph_ps((__m128i)x);
#else
    ivec bits = __builtin_convertvector(x, ivec), magnitude = (bits & 0x7fff) << 13;
    ivec special = (magnitude >= 0x7c00 << 13) & 0x7f800000; /* infinity or NaN */
    return (vec)((ivec)((vec)magnitude * 0x1p112f) | special | (bits & 0x8000) << 16);
#endif
}

INLINE halves narrow_float16(vec x) {
#if defined(USES_F16C) && LANES == 16
    return (halves)_mm512_cvtps_ph((__m512)x, _MM_FROUND_TO_NEAREST_INT);
#elif defined(USES_F16C) && LANES == 8
    return (halves)_mm256_cvtps_ph((__m256)x, _MM_FROUND_TO_NEAREST_INT);
#else
    ivec magnitude = (ivec)x & 0x7fffffff, sign = ((ivec)x >> 16) & 0x8000;
    ivec normal = (magnitude - (112 << 23) + 0xfff + ((magnitude >> 13) & 1)) >> 13; /* ties to even */
    ivec subnormal = (ivec)((vec)magnitude + 0.5f) - (126 << 23); /* the sum is rounded to multiples of 2^-24 */
    ivec special = 0x7c00 | ((magnitude > 0x7f800000) & 0x200); /* infinity or NaN */
    ivec is_small = magnitude < 113 << 23, is_large = magnitude >= 143 << 23;
    ivec result = (subnormal & is_small) | (special & is_large) | (normal & ~is_small & ~is_large);
    return __builtin_convertvector(result | sign, halves);
#endif
}

INLINE vec load(const void *from, int64_t i, int format) {
    if (format == FLOAT32) return *(const vec_u *)((const float *)from + i);
    halves x = *(const halves *)((const uint16_t *)from + i);
    return format == FLOAT16 ? widen_float16(x) : widen_bfloat16(x);
}

INLINE void store(void *to, int64_t i, vec x, int format) {
    if (format == FLOAT32)
        *(vec_u *)((float *)to + i) = x;
    else
        *(halves *)((uint16_t *)to + i) = format == FLOAT16 ? narrow_float16(x) : narrow_bfloat16(x);
}

/* Return four partial sums: lane i of the result adds the lanes i, i + 4, i + 8, ... of x. */
INLINE vec4 partial_sums(vec x) {
    vec4 parts[LANES / 4];
    memcpy(parts, &x, sizeof parts);
    for (int i = 1; i < LANES / 4; i++) parts[0] += parts[i];
    return parts[0];
}

/* Return the horizontal sums of four vectors. */
INLINE vec4 sum4(vec a, vec b, vec c, vec d) {
    vec4 p = partial_sums(a), q = partial_sums(b), r = partial_sums(c), s = partial_sums(d);
    vec4 pq = __builtin_shuffle(p, q, (ivec4){0, 4, 1, 5}) + __builtin_shuffle(p, q, (ivec4){2, 6, 3, 7});
    vec4 rs = __builtin_shuffle(r, s, (ivec4){0, 4, 1, 5}) + __builtin_shuffle(r, s, (ivec4){2, 6, 3, 7});
    return __builtin_shuffle(pq, rs, (ivec4){0, 1, 4, 5}) + __builtin_shuffle(pq, rs, (ivec4){2, 3, 6, 7});
}

/* Return the horizontal sum of one vector. */
INLINE float sum(vec x) {
    vec4 s = partial_sums(x);
    return s[0] + s[1] + s[2] + s[3];
}

/* e^x to 2 ulp: 2^n e^r with |r| <= ln(2)/2, where e^r is its Taylor polynomial of degree 6 in Horner's form. */
INLINE vec exp_v(vec x) {
    x = blend(x < -87.0f, broadcast(-87.0f), x);
    x = blend(x > 88.0f, broadcast(88.0f), x);
    vec n = (x * 1.44269504f + 12582912.0f) - 12582912.0f; /* rounds x / ln(2) to an integer */
    vec r = x - n * 0.693359375f + n * 2.12194440e-4f;
    vec p = broadcast(1.0f / 720);
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    return p * (vec)((__builtin_convertvector(n, ivec) + 127) << 23);
}

INLINE vec tanh_v(vec x) { return 1.0f - 2.0f / (exp_v(2.0f * x) + 1.0f); }

INLINE vec act_v(vec x, int64_t activation) {
    vec u = x;
    if (activation == GELU_TANH) u = 1.5957691216f * (x + 0.044715f * x * x * x); /* 2 sqrt(2 / pi) */
    return x / (1.0f + exp_v(-u));
}
