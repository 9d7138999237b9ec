/* Software prefetch: memory that is needed next is fetched while something else is computed. */

#pragma once

#include "vector.h"

enum { CACHE_LINE = 64 }; /* bytes */

/* What to fetch: rows of `row_bytes`, `stride_bytes` apart, where a stride of 0 repeats the same row. It proceeds in
 * the order of addresses, which is faster than alternating between rows. */
typedef struct {
    const char *address, *row_end;
    int64_t row_bytes, stride_bytes;
} Prefetcher;

/* Start at element `first`; `row` and `stride` are counted in elements, too. */
INLINE Prefetcher prefetcher(const void *from, int64_t first, int64_t row, int64_t stride, int format) {
    int64_t size = element_size(format);
    const char *address = (const char *)from + first * size;
    return (Prefetcher){address, address + row * size, row * size, stride * size};
}

/* Fetch the next lines. */
INLINE void prefetch(Prefetcher *p, int num_lines) {
    for (int i = 0; i < num_lines; i++) {
        __builtin_prefetch(p->address);
        p->address += CACHE_LINE;
        if (p->address >= p->row_end) {
            p->address += p->stride_bytes - p->row_bytes;
            p->row_end += p->stride_bytes;
        }
    }
}
