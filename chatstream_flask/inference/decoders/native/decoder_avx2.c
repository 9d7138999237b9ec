/* For processors with AVX2 and FMA: 16 registers. */

#include "interface.h"

#ifdef CHOOSES
#pragma GCC target("avx2,fma")
#define LANES 8
#define ROWS 4
#define OUTS 3
#define FEW 8
#define SUMS 12
#define NAME(name) name##_avx2
#include "decoder.h"
#endif
