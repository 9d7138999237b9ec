/* LANES rows of a packed matrix, unpacked. */

#pragma once

#include "packed_blocks.h"

enum { PANEL_BLOCKS = 32 };

typedef float vec __attribute__((vector_size(4 * LANES)));
typedef float vec_u __attribute__((vector_size(4 * LANES), aligned(4), may_alias)); /* unaligned */
typedef int32_t ivec __attribute__((vector_size(4 * LANES)));

typedef struct {
    ivec values[PANEL_BLOCKS][BLOCK / 4]; /* in each lane, four inputs of an output */
    vec scales[PANEL_BLOCKS][2], mins[PANEL_BLOCKS];
} Panel;

/* Memory that is fetched into the cache meanwhile. */
typedef struct {
    const uint8_t *address, *until;
} Ahead;

INLINE void fetch_ahead(Ahead *ahead, int64_t bytes) {
    ahead->until += bytes;
    for (; ahead->address < ahead->until; ahead->address += 64) __builtin_prefetch(ahead->address);
}

