/* Build for CPUs with AVX-512: 32 registers of 16 floats. */

#include "interface.h"

#ifdef CPU_DISPATCH
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,fma")
#define USES_F16C
#define LANES 16
#define TILE_M 6
#define TILE_N 4
#define SMALL_M 18
#define ACCUMULATORS 24
#define EXPORT(name) name##_avx512
#include "forward.h"
#endif
