/* Packed products for CPUs with AVX2. */

#include "interface.h"

#ifdef CPU_DISPATCH
#pragma GCC target("avx2,fma,f16c")
#define LANES 8
#define EXPORT(name) name##_avx2
#include "packed_unpack_avx2.h"

/* Sums are of 16 bits, of two products each; those of signed values need 32. */
#define MAX_SUM(max) ((max) == 63 ? 2 : (max) == 31 ? 4 : 8)
#define SIGNED_OFFSET 0

INLINE ivec widened(ivec sum, int is_signed) {
    return is_signed ? sum : (ivec)_mm256_madd_epi16((__m256i)sum, _mm256_set1_epi16(1));
}

INLINE ivec add_products(ivec sum, ivec w, ivec x, int is_signed) {
    if (!is_signed) return (ivec)_mm256_add_epi16((__m256i)sum, _mm256_maddubs_epi16((__m256i)w, (__m256i)x));
    __m256i products = _mm256_maddubs_epi16(_mm256_abs_epi8((__m256i)w), _mm256_sign_epi8((__m256i)x, (__m256i)w));
    return sum + widened((ivec)products, 0);
}

#include "packed_product.h"
#endif
