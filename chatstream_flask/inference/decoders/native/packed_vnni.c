/* Packed products for CPUs with AVX-512 and its integer dot products (VNNI). The tests compile it with EMULATED for
 * CPUs that have AVX2 only. */

#include "interface.h"

#ifdef CPU_DISPATCH
#ifdef EMULATED
#pragma GCC target("avx2,fma,f16c")
#include <simde/x86/avx512/dpbusd.h>
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")
#endif
#define LANES 16
#define EXPORT(name) name##_vnni
#include "packed_unpack_avx2.h"

#define MAX_SUM(max) 8
#define SIGNED_OFFSET 128 /* the instruction wants them unsigned */

INLINE ivec widened(ivec sum, int is_signed) { return sum; }

INLINE ivec add_products(ivec sum, ivec w, ivec x, int is_signed) {
    if (is_signed) w ^= (int32_t)0x80808080;
#ifdef EMULATED
    simde__m512i all[3];
    memcpy(all, (ivec[3]){sum, w, x}, sizeof all);
    all[0] = simde_mm512_dpbusd_epi32(all[0], all[1], all[2]);
    memcpy(&sum, all, sizeof sum);
    return sum;
#else
    return (ivec)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)w, (__m512i)x);
#endif
}

#include "packed_product.h"
#endif
