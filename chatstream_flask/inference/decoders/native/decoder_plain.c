/* Build for all other CPUs: the compiler splits the vectors as its target requires. */

#define LANES 8
#define TILE_M 4
#define TILE_N 3
#define SMALL_M 8
#define ACCUMULATORS 12
#define EXPORT(name) name##_plain
#include "forward.h"
