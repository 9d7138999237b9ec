/* Attention over the KV cache. The unit of work is one key head of one query block: the queries of consecutive
 * tokens of a slot, of all query heads that share the key head (grouped-query attention). */

#pragma once

#include "elementwise.h"
#include "gemm_large.h"
#include "gemm_small.h"
#include "prefetch.h"
#include "workspace.h"

enum { KEY_BLOCK = 32, VALUE_VECS = 4, QUERY_TILE = ACCUMULATORS / VALUE_VECS }; /* of weighted_sum */

/* Norm and rotate one key head of a token and its queries; store its key and value in the cache. */
INLINE void store_kv(const Decoder *d, const Layer *layer, const LayerCache *cache, const Step *step, int64_t token,
                     int64_t kv_head, float *qkv, int format) {
    int64_t dim = d->head_dim, group = d->num_heads / d->num_kv_heads, position = step->positions[token];
    int64_t slot = step->slots[token];
    float *key = qkv + (d->num_heads + kv_head) * dim, *value = key + d->num_kv_heads * dim;
    for (int64_t g = -1; g < group; g++) {
        float *head = g < 0 ? key : qkv + (kv_head * group + g) * dim;
        const float *norm = g < 0 ? layer->key_norm : layer->query_norm;
        if (norm) rms_norm(head, dim, norm, d->eps, head);
        if (layer->cos) apply_rope(head, dim, layer->cos + position * dim, layer->sin + position * dim);
    }
    int64_t at = ((slot * d->num_kv_heads + kv_head) * step->slot_len + step->cache_positions[token]) * dim;
    for (int64_t i = 0; i < dim; i += LANES) {
        store(cache->keys, at + i, *(const vec_u *)(key + i), format);
        store(cache->values, at + i, *(const vec_u *)(value + i), format);
    }
}

/* Scale, cap and softmax one query's scores in place; keys outside first..last are masked. */
NOINLINE void softmax(const Decoder *d, float *scores, int64_t num_keys, int64_t first, int64_t last) {
    int64_t padded = (num_keys + LANES - 1) / LANES * LANES;
    for (int64_t c = 0; c < num_keys; c += LANES) {
        vec s = *(vec_u *)(scores + c) * d->scale;
        *(vec_u *)(scores + c) = d->softcap ? d->softcap * tanh_v(s / d->softcap) : s;
    }
    for (int64_t c = 0; c < first; c++) scores[c] = -INFINITY;
    for (int64_t c = last + 1; c < padded; c++) scores[c] = -INFINITY;
    vec max = broadcast(-INFINITY), total = broadcast(0);
    for (int64_t c = 0; c < padded; c += LANES) {
        vec s = *(const vec_u *)(scores + c);
        max = blend(s > max, s, max);
    }
    float top = max[0];
    for (int i = 1; i < LANES; i++) top = max[i] > top ? max[i] : top;
    for (int64_t c = 0; c < padded; c += LANES) {
        vec e = exp_v(*(const vec_u *)(scores + c) - top);
        *(vec_u *)(scores + c) = e;
        total += e;
    }
    vec factor = broadcast(1.0f / sum(total));
    for (int64_t c = 0; c < padded; c += LANES) *(vec_u *)(scores + c) *= factor;
}

/* As `softmax`, for LANES queries with a lane each, of scores [num_keys][stride]. They are not normalized: the sums
 * that they must be divided by go to `totals`. */
NOINLINE void softmax_transposed(const Decoder *d, float *scores, int64_t stride, int64_t num_keys, ivec first,
                                 ivec last, float *totals) {
    vec masked = broadcast(-INFINITY), max = masked, total = broadcast(0);
    for (int64_t c = 0; c < num_keys; c++) {
        ivec key = (int32_t)c - (ivec){0};
        vec s = *(vec_u *)(scores + c * stride) * d->scale;
        if (d->softcap) s = d->softcap * tanh_v(s / d->softcap);
        s = blend((key >= first) & (key <= last), s, masked);
        *(vec_u *)(scores + c * stride) = s;
        max = blend(s > max, s, max);
    }
    for (int64_t c = 0; c < num_keys; c++) {
        vec s = *(vec_u *)(scores + c * stride), e = blend(s > masked, exp_v(s - max), broadcast(0));
        *(vec_u *)(scores + c * stride) = e;
        total += e;
    }
    *(vec_u *)totals = total;
}

/* Attention weights; the strides are in floats. */
typedef struct {
    const float *data;
    int64_t query_stride, key_stride;
} Weights;

/* Micro-kernel: out[num][dim] += weights[num][num_keys] values[num_keys][dim], for QUERY_TILE queries or fewer. */
INLINE void weighted_sum_tile(Weights weights, int num, const void *values, int64_t at, int64_t num_keys, int64_t dim,
                              float *out, Prefetcher *next, int format) {
    for (int64_t i = 0; i < dim; i += VALUE_VECS * LANES) {
        int num_vecs = (int)min_i64((dim - i) / LANES, VALUE_VECS);
        vec acc[QUERY_TILE][VALUE_VECS];
        for (int q = 0; q < num; q++)
            for (int k = 0; k < VALUE_VECS; k++)
                acc[q][k] = k < num_vecs ? (vec) * (vec_u *)(out + q * dim + i + k * LANES) : (vec){0};
        for (int64_t c = 0; c < num_keys; c++) {
            vec v[VALUE_VECS];
            if (next) prefetch(next, (int)(VALUE_VECS * LANES * element_size(format) / CACHE_LINE));
            for (int k = 0; k < VALUE_VECS; k++)
                v[k] = load(values, at + c * dim + i + (k < num_vecs ? k : 0) * LANES, format);
            for (int q = 0; q < num; q++)
                for (int k = 0; k < VALUE_VECS; k++)
                    acc[q][k] += v[k] * weights.data[q * weights.query_stride + c * weights.key_stride];
        }
        for (int q = 0; q < num; q++)
            for (int k = 0; k < num_vecs; k++) *(vec_u *)(out + q * dim + i + k * LANES) = acc[q][k];
    }
}

/* out = weights values. A block of values stays in the L1 cache for all queries; `next` is prefetched in the last
 * tile of queries, and only there. */
INLINE void weighted_sum(Weights weights, int64_t num, const void *values, int64_t at, int64_t num_keys, int64_t dim,
                         float *out, Prefetcher *next, int format) {
    memset(out, 0, num * dim * sizeof(float));
    for (int64_t block = 0; block < num_keys; block += KEY_BLOCK) {
        int64_t keys = min_i64(num_keys - block, KEY_BLOCK), from = at + block * dim;
        for (int64_t q = 0; q < num; q += QUERY_TILE) {
            const float *data = weights.data + q * weights.query_stride + block * weights.key_stride;
            Weights w = {data, weights.query_stride, weights.key_stride};
#define TILE(n, next) weighted_sum_tile(w, n, values, from, keys, dim, out + q * dim, next, format)
            if (num > QUERY_TILE && num - q >= QUERY_TILE) {
                TILE(QUERY_TILE, 0);
                continue;
            }
            switch (num - q) {
                case 1: TILE(1, next); break;
                case 2: TILE(2, next); break;
#if ACCUMULATORS > 12
                case 3: TILE(3, next); break;
                case 4: TILE(4, next); break;
                case 5: TILE(5, next); break;
#endif
                default: TILE(QUERY_TILE, next);
            }
#undef TILE
        }
    }
}

/* Return the position of the first key that the token at `position` attends to. */
INLINE int64_t first_position(const Layer *layer, int64_t position) {
    return layer->window && position >= layer->window ? position - layer->window + 1 : 0;
}

/* Return the offset in the cache, in elements, of the first key that the token attends to, at position `first`. */
INLINE int64_t first_key(const Decoder *d, const Layer *layer, const Step *step, int64_t token, int64_t kv_head,
                         int64_t *first) {
    int64_t slot = step->slots[token];
    *first = first_position(layer, step->positions[token]);
    return ((slot * d->num_kv_heads + kv_head) * step->slot_len + *first) * d->head_dim;
}

/* Attention of packed queries, each of them a lane; `keys` start at position `first`. The result overwrites
 * own.queries. */
INLINE void attend_packed(const Decoder *d, const Layer *layer, const Matrix *queries, const int64_t *positions,
                          int64_t group, int64_t first, const void *keys, const void *values, int64_t at,
                          int64_t num_keys, ThreadWorkspace own, int format) {
    int64_t dim = queries->k, stride = queries->padded_rows;
    float totals[MAX_PANEL];
    memset(own.scores, 0, num_keys * stride * sizeof(float));
    gemm_transposed_any(queries, keys, num_keys, own.scores, format);
    for (int64_t start = 0; start < queries->rows; start += MAX_PANEL) {
        int64_t num = min_i64(queries->rows - start, MAX_PANEL);
        for (int64_t q = 0; q < num; q += LANES) {
            ivec first_keys = {0}, last_keys = {0};
            for (int i = 0; i < LANES; i++) {
                int64_t position = start + q + i < queries->rows ? positions[(start + q + i) / group] : -1;
                first_keys[i] = position < 0 ? 0 : (int32_t)(first_position(layer, position) - first);
                last_keys[i] = position < 0 ? -1 : (int32_t)(position - first);
            }
            softmax_transposed(d, own.scores + start + q, stride, num_keys, first_keys, last_keys, totals + q);
        }
        weighted_sum((Weights){own.scores + start, 1, stride}, num, values, at, num_keys, dim,
                     own.queries + start * dim, 0, format);
        for (int64_t q = 0; q < num; q++)
            for (int64_t i = 0; i < dim; i += LANES)
                *(vec_u *)(own.queries + (start + q) * dim + i) *= broadcast(1.0f / totals[q]);
    }
}

/* Attention of one key head of a query block. Meanwhile its values and then `next` are prefetched. */
INLINE void attend(const Decoder *d, const Layer *layer, const LayerCache *cache, const Step *step, int64_t token,
                   int64_t num_tokens, int64_t kv_head, Prefetcher *next, const float *qkv, float *out,
                   ThreadWorkspace own, int format) {
    int64_t dim = d->head_dim, group = d->num_heads / d->num_kv_heads, stride = score_stride(step);
    int64_t heads = (d->num_heads + 2 * d->num_kv_heads) * dim, num = num_tokens * group, first;
    const int64_t *positions = step->positions + token;
    int64_t at = first_key(d, layer, step, token, kv_head, &first), num_keys = positions[num_tokens - 1] - first + 1;
    for (int64_t t = 0; t < num_tokens; t++)
        memcpy(own.queries + t * group * dim, qkv + (token + t) * heads + kv_head * group * dim,
               group * dim * sizeof(float));
    Matrix queries = pack(own.queries, dim, num, dim, own.pack_buffer);
    const void *keys = (const char *)cache->keys + at * element_size(format);
    if (queries.panel_vecs) {
        attend_packed(d, layer, &queries, positions, group, first, keys, cache->values, at, num_keys, own, format);
    } else {
        Prefetcher values = prefetcher(cache->values, at, num_keys * dim, 0, format);
        gemm_small(queries.x, dim, num, dim, keys, 0, (Range){0, num_keys}, own.scores, stride, &values, format);
        for (int64_t q = 0; q < num; q++) {
            int64_t position = positions[q / group], oldest = first_position(layer, position);
            softmax(d, own.scores + q * stride, num_keys, oldest > first ? oldest - first : 0, position - first);
        }
        weighted_sum((Weights){own.scores, stride, 1}, num, cache->values, at, num_keys, dim, own.queries, next,
                     format);
    }
    for (int64_t t = 0; t < num_tokens; t++)
        memcpy(out + ((token + t) * d->num_heads + kv_head * group) * dim, own.queries + t * group * dim,
               group * dim * sizeof(float));
}

/* One thread's part of a layer's attention: the key heads of query blocks that it takes from `blocks`. */
INLINE void attention(const Decoder *d, const Layer *layer, const LayerCache *cache, const Step *step,
                      SharedWorkspace all, ThreadWorkspace own, ParallelLoop tokens, ParallelLoop blocks,
                      int format) {
    int64_t heads = (d->num_heads + 2 * d->num_kv_heads) * d->head_dim, num_heads = d->num_kv_heads, first;
    int one_per_slot = 1;
    for (int64_t t = 1; t < step->num_tokens; t++) one_per_slot &= step->slots[t] > step->slots[t - 1];
    if (!one_per_slot) { /* tokens of a slot attend to each other: all keys must be stored first */
        for (Range r; next_range(tokens, 1, &r);)
            for (int64_t u = r.start; u < r.stop; u++)
                store_kv(d, layer, cache, step, u / num_heads, u % num_heads, all.qkv + u / num_heads * heads, format);
#pragma omp barrier
    }
    for (Range r; next_range(blocks, 1, &r);)
        for (int64_t u = r.start; u < r.stop; u++) {
            int64_t kv_head = u % num_heads, *block = all.blocks + u / num_heads, token = block[0];
            if (one_per_slot) store_kv(d, layer, cache, step, token, kv_head, all.qkv + token * heads, format);
            int64_t then = kv_head + 1 == num_heads && block[1] < step->num_tokens ? block[1] : token;
            int64_t from = first_key(d, layer, step, then, (kv_head + 1) % num_heads, &first);
            int64_t size = (step->positions[then] - first + 1) * d->head_dim;
            Prefetcher next = prefetcher(cache->keys, from, size, 0, format);
            attend(d, layer, cache, step, token, block[1] - token, kv_head, &next, all.qkv, all.attended, own,
                   format);
        }
}
