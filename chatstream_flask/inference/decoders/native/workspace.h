/* Layout of the scratch memory that a forward pass gets from its caller: first the loops of all phases, then what
 * the threads share, then one part for each thread. */

#pragma once

#include "gemm.h"

enum { MIN_CHUNK = 12, MIN_CHUNK_MLP = 3 * LANES }; /* outputs that a thread computes at least */
enum { PAD_FLOATS = 16 };                           /* a cache line between the parts of different threads */

/* Return the outputs that a thread computes at least: whole panels of packed matrices. */
INLINE int64_t chunk_size(const Decoder *d, int64_t of_plain) { return d->has_packed ? PACKED_CHUNK : of_plain; }

/* Phases of a layer; after each the threads meet. STORE_KV is its own phase only where tokens share a slot. */
enum { QKV, STORE_KV, ATTENTION, OUT, GATE_UP, DOWN, NUM_PHASES };

typedef struct {
    int64_t *blocks; /* first token of each query block, followed by the number of tokens */
    float *qkv, *attended, *gate_up, *y; /* [num_tokens, outputs] */
} SharedWorkspace;

typedef struct {
    float *x, *normed;  /* [num_tokens, hidden_size] */
    float *queries;     /* [block_tokens * group, head_dim]; overwritten by the output of attention */
    float *scores;      /* [block_tokens * group, score_stride], or transposed where queries are packed */
    float *pack_buffer; /* of Rows, or of a Matrix */
} ThreadWorkspace;

/* Return the most tokens of a query block: as many as fill a panel with the queries of one key head. */
INLINE int64_t block_tokens(const Decoder *d) {
    int64_t tokens = MAX_PANEL * d->num_kv_heads / d->num_heads;
    return tokens > 1 ? tokens : 1;
}

INLINE int64_t score_stride(const Step *step) { return (step->slot_len + LANES) / LANES * LANES; }

/* Place one thread's part at `at`; return its size in floats. */
INLINE int64_t place_thread(const Decoder *d, const Step *step, float *at, ThreadWorkspace *own) {
    int64_t n = step->num_tokens * d->hidden_size, attended = d->num_heads * d->head_dim;
    int64_t queries = min_i64(step->num_tokens, block_tokens(d)) * d->num_heads / d->num_kv_heads;
    int64_t widest = max_i64(d->intermediate_size, d->hidden_size);
    own->x = at;
    own->normed = own->x + n;
    own->queries = own->normed + n;
    own->scores = own->queries + queries * d->head_dim;
    own->pack_buffer = own->scores + (queries + MAX_PANEL) * score_stride(step);
    int64_t prepared = prepared_size(d, step->num_tokens, max_i64(attended, widest));
    return own->pack_buffer + max_i64(prepared, pack_size(queries, d->head_dim)) + PAD_FLOATS - at;
}

INLINE ParallelLoop phase_loop(const Step *step, int64_t layer, int64_t phase, int64_t thread) {
    uint64_t *shares = (uint64_t *)step->work + (layer * NUM_PHASES + phase) * step->num_threads;
    return (ParallelLoop){shares, thread, step->num_threads};
}

/* Place what the threads share, behind the loops; return the address behind it. */
INLINE float *place_shared(const Decoder *d, const Step *step, SharedWorkspace *all) {
    int64_t n = step->num_tokens, attended = d->num_heads * d->head_dim;
    all->blocks = (int64_t *)step->work + (NUM_PHASES * d->num_layers + 1) * step->num_threads;
    all->qkv = (float *)(all->blocks + n + 1);
    all->attended = all->qkv + n * (attended + 2 * d->num_kv_heads * d->head_dim);
    all->gate_up = all->attended + n * attended;
    all->y = all->gate_up + n * 2 * d->intermediate_size;
    return all->y + n * d->hidden_size + PAD_FLOATS;
}

int64_t EXPORT(work_size)(const Decoder *d, const Step *step) {
    SharedWorkspace all;
    ThreadWorkspace own;
    return place_shared(d, step, &all) - step->work + step->num_threads * place_thread(d, step, step->work, &own);
}

/* Divide the tokens into blocks of consecutive positions of one slot, at most `max_tokens` each; return how many. */
INLINE int64_t make_query_blocks(const Step *step, int64_t max_tokens, int64_t *blocks) {
    int64_t num = 0;
    for (int64_t t = 0; t < step->num_tokens; t++)
        if (t == 0 || t - blocks[num - 1] == max_tokens || step->slots[t] != step->slots[t - 1] ||
            step->positions[t] != step->positions[t - 1] + 1)
            blocks[num++] = t;
    blocks[num] = step->num_tokens;
    return num;
}

/* Set up the query blocks and the loops of all phases of all layers. */
INLINE void init_loops(const Decoder *d, const Step *step) {
    SharedWorkspace all;
    place_shared(d, step, &all);
    int64_t blocks = make_query_blocks(step, block_tokens(d), all.blocks), heads = d->num_heads + 2 * d->num_kv_heads;
    const struct {
        int64_t size, chunk;
    } phases[NUM_PHASES] = {
        [QKV] = {heads * d->head_dim, chunk_size(d, MIN_CHUNK)},
        [STORE_KV] = {step->num_tokens * d->num_kv_heads, 1},
        [ATTENTION] = {blocks * d->num_kv_heads, 1},
        [OUT] = {d->hidden_size, chunk_size(d, MIN_CHUNK)},
        [GATE_UP] = {d->intermediate_size, chunk_size(d, MIN_CHUNK_MLP)},
        [DOWN] = {d->hidden_size, chunk_size(d, MIN_CHUNK)},
    };
    for (int64_t l = 0; l < d->num_layers; l++)
        for (int p = 0; p < NUM_PHASES; p++)
            init_loop(phase_loop(step, l, p, 0).shares, phases[p].size, phases[p].chunk, step->num_threads);
    init_loop(phase_loop(step, d->num_layers, 0, 0).shares, d->vocab_size, chunk_size(d, MIN_CHUNK),
              step->num_threads);
}
