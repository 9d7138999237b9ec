/* For processors with AVX-512: 32 registers, twice as long. */

#include "interface.h"

#ifdef CHOOSES
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,fma")
#define LANES 16
#define ROWS 6
#define OUTS 4
#define FEW 18
#define SUMS 24
#define NAME(name) name##_avx512
#include "decoder.h"
#endif
