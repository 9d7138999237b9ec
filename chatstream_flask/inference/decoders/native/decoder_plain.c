/* For all other processors. */

#define LANES 8
#define ROWS 4
#define OUTS 3
#define FEW 8
#define SUMS 12
#define NAME(name) name##_plain
#include "decoder.h"
