/* Loops that the threads of a parallel region share by work stealing. */

#pragma once

#include "vector.h"

enum { MAX_CHUNKS = 4 }; /* that a thread takes at once */

typedef struct {
    int64_t start, stop;
} Range;

/* Each thread starts with an equal share of the iterations and, once it is through, steals from the others: a core
 * that other processes use as well is slower. */
typedef struct {
    uint64_t *shares; /* [num_threads]: iterations left, start in the low and stop in the high 32 bits */
    int64_t thread, num_threads;
} ParallelLoop;

/* Divide `size` iterations among the threads, in multiples of `chunk`. */
INLINE void init_loop(uint64_t *shares, int64_t size, int64_t chunk, int64_t num_threads) {
    int64_t num_chunks = (size + chunk - 1) / chunk;
    for (int64_t t = 0; t < num_threads; t++) {
        int64_t start = num_chunks * t / num_threads * chunk, stop = num_chunks * (t + 1) / num_threads * chunk;
        shares[t] = (uint64_t)start | (uint64_t)min_i64(stop, size) << 32;
    }
}

/* Take up to MAX_CHUNKS chunks: from the start of the thread's own share, else from the end of another thread's,
 * of which at most half is stolen. Return false once no iterations are left. */
INLINE int next_range(ParallelLoop loop, int64_t chunk, Range *range) {
    for (int64_t i = 0; i < loop.num_threads; i++) {
        uint64_t *share = loop.shares + (loop.thread + i) % loop.num_threads;
        uint64_t old = __atomic_load_n(share, __ATOMIC_RELAXED), new;
        do {
            int64_t start = old & 0xffffffff, stop = old >> 32, max_size = MAX_CHUNKS * chunk;
            if (start >= stop) break;
            int64_t half = ((stop - start) / 2 + chunk - 1) / chunk * chunk;
            if (i == 0)
                *range = (Range){start, min_i64(stop, start + max_size)};
            else
                *range = (Range){stop - start < chunk ? start : stop - min_i64(half, max_size), stop};
            new = i == 0 ? (uint64_t)range->stop | (uint64_t)stop << 32
                         : (uint64_t)start | (uint64_t)range->start << 32;
            if (__atomic_compare_exchange_n(share, &old, new, 1, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) return 1;
        } while (1);
    }
    return 0;
}
