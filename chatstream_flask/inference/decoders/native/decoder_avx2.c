/* Build for CPUs with AVX2 and FMA: 16 registers of 8 floats. */

#include "interface.h"

#ifdef CPU_DISPATCH
#pragma GCC target("avx2,fma,f16c")
#define USES_F16C
#define LANES 8
#define TILE_M 4
#define TILE_N 3
#define SMALL_M 8
#define ACCUMULATORS 12
#define EXPORT(name) name##_avx2
#include "forward.h"
#endif
