/* decoder.c for processors that have AVX-512: vectors of 16 numbers, and twice as many registers for the sums of a
 * tile. */

#if defined(__x86_64__) && defined(__gnu_linux__) && !defined(__clang__)
#pragma GCC target("arch=x86-64-v4")
#define LANES 16
#define ROWS 6
#define NAME(name) name##_wide
#include "decoder.c"
#endif
