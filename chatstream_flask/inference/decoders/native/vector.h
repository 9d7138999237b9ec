/* SIMD primitives: vectors of LANES floats, by GCC's vector extensions. bfloat16 is widened to float32 when it is
 * loaded and rounded when it is stored; all arithmetic is float32. */

#pragma once

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "interface.h"

#define INLINE static inline __attribute__((always_inline))
#define NOINLINE static __attribute__((noinline)) /* inlined everywhere, these would take minutes to compile */

typedef float vec __attribute__((vector_size(4 * LANES)));
typedef float vec_u __attribute__((vector_size(4 * LANES), aligned(4), may_alias)); /* unaligned */
typedef int32_t ivec __attribute__((vector_size(4 * LANES)));
typedef uint16_t bf16vec __attribute__((vector_size(2 * LANES), aligned(2), may_alias));
typedef float vec4 __attribute__((vector_size(16)));
typedef float vec4_u __attribute__((vector_size(16), aligned(4), may_alias));
typedef int32_t ivec4 __attribute__((vector_size(16)));

INLINE int64_t min_i64(int64_t a, int64_t b) { return a < b ? a : b; }
INLINE int64_t max_i64(int64_t a, int64_t b) { return a > b ? a : b; }

/* Bytes per weight and per cached key or value element. */
INLINE int64_t element_size(int is_bf16) { return is_bf16 ? 2 : 4; }

INLINE vec broadcast(float x) { return x - (vec){0}; } /* not x + 0, which turns -0 into 0 */

INLINE vec load(const void *from, int64_t i, int is_bf16) {
    if (!is_bf16) return *(const vec_u *)((const float *)from + i);
    ivec bits = __builtin_convertvector(*(const bf16vec *)((const uint16_t *)from + i), ivec) << 16;
    return (vec)bits;
}

INLINE void store(void *to, int64_t i, vec x, int is_bf16) {
    if (!is_bf16) {
        *(vec_u *)((float *)to + i) = x;
        return;
    }
    ivec bits = (ivec)x; /* round to nearest, ties to even; a NaN stays a NaN */
    ivec rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    ivec quiet_nan = ((bits >> 16) | 0x40) & (x != x);
    *(bf16vec *)((uint16_t *)to + i) = __builtin_convertvector((rounded & ~(x != x)) | quiet_nan, bf16vec);
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

/* Return `yes` in the lanes where the mask is set, `no` in the others. */
INLINE vec select(ivec mask, vec yes, vec no) { return (vec)(((ivec)yes & mask) | ((ivec)no & ~mask)); }

/* e^x to 2 ulp: 2^n e^r with |r| <= ln(2)/2, where e^r is its Taylor polynomial of degree 6 in Horner's form. */
INLINE vec exp_v(vec x) {
    x = select(x < -87.0f, broadcast(-87.0f), x);
    x = select(x > 88.0f, broadcast(88.0f), x);
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
