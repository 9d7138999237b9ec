/* Forward pass of a Llama-like decoder over the slots of a KV cache on CPU, in one call: with the few tokens of a
 * decode step, torch would spend most of the time between its operations. Weights and cache are float32 or
 * bfloat16, at the addresses of torch's tensors; sums are float32. The library uses no Python.h: ctypes loads it
 * and releases the GIL during calls.
 *
 * All threads run all phases of a layer and meet at a barrier after each. Within a phase they divide the outputs
 * among them; what is cheap (residuals and norms) each thread computes for itself.
 *
 * Compiled once for each instruction set, by the decoder_*.c that include this file and define before:
 *   LANES         floats per vector
 *   TILE_M        rows per tile of gemm_small
 *   TILE_N        outputs per tile of gemm_small
 *   SMALL_M       the most rows for gemm_small
 *   ACCUMULATORS  vectors per tile of gemm_large and of weighted_sum
 *   EXPORT(name)  the name under which decoder.c knows a function */

#pragma once

#include <omp.h>

#include "attention.h"
#include "elementwise.h"
#include "gemm.h"
#include "workspace.h"

INLINE void compute_logits(const Decoder *d, const Step *step, ThreadWorkspace own, ParallelLoop loop) {
    int64_t hidden = d->hidden_size, num = step->num_logits;
    for (int64_t i = 0; i < num; i++)
        rms_norm(own.x + step->logits_indices[i] * hidden, hidden, d->norm, d->eps, own.normed + i * hidden);
    Rows x = prepare(d, own.normed, hidden, num, hidden, own.pack_buffer);
    for (Range r; next_range(loop, chunk_size(d, MIN_CHUNK), &r);) {
        gemm(&x, d->head, d->head_bias, r, step->logits, d->vocab_size);
        for (int64_t i = 0; d->logit_softcap && i < num; i++)
            for (int64_t o = r.start; o < r.stop; o++) {
                float *to = step->logits + i * d->vocab_size + o;
                *to = d->logit_softcap * tanh_v(broadcast(*to / d->logit_softcap))[0];
            }
    }
}

/* Compute outputs outs.start..outs.stop-1 of queries, keys and values, which follow each other in `qkv`. */
INLINE void project_qkv(const Decoder *d, const Layer *layer, const Rows *x, Range outs, float *qkv) {
    int64_t queries = d->num_heads * d->head_dim, keys = d->num_kv_heads * d->head_dim, heads = queries + 2 * keys;
    const Weight weights[] = {layer->q, layer->k, layer->v};
    const int64_t bounds[] = {0, queries, queries + keys, heads};
    for (int i = 0; i < 3; i++) {
        Range r = {max_i64(outs.start, bounds[i]) - bounds[i], min_i64(outs.stop, bounds[i + 1]) - bounds[i]};
        const float *bias = layer->qkv_bias ? layer->qkv_bias + bounds[i] : 0;
        if (r.start < r.stop) gemm(x, weights[i], bias, r, qkv + bounds[i], heads);
    }
}

INLINE void run_thread(const Decoder *d, const LayerCache *cache, const Step *step, int64_t thread, int format) {
    int64_t n = step->num_tokens, hidden = d->hidden_size, inner = d->intermediate_size;
    int64_t attended_size = d->num_heads * d->head_dim;
    SharedWorkspace all;
    ThreadWorkspace own;
    float *at = place_shared(d, step, &all);
    int64_t own_size = place_thread(d, step, at, &own);
    place_thread(d, step, at + thread * own_size, &own);
    memcpy(own.x, step->embeddings, n * hidden * sizeof(float));

    for (int64_t l = 0; l < d->num_layers; l++) {
        const Layer *layer = d->layers + l;
        rms_norm_rows(own.x, n, hidden, layer->attention_norm, d->eps, own.normed);
        Rows x = prepare(d, own.normed, hidden, n, hidden, own.pack_buffer);
        for (Range r; next_range(phase_loop(step, l, QKV, thread), chunk_size(d, MIN_CHUNK), &r);)
            project_qkv(d, layer, &x, r, all.qkv);
#pragma omp barrier
        attention(d, layer, cache + l, step, all, own, phase_loop(step, l, STORE_KV, thread),
                  phase_loop(step, l, ATTENTION, thread), format);
#pragma omp barrier
        x = prepare(d, all.attended, attended_size, n, attended_size, own.pack_buffer);
        for (Range r; next_range(phase_loop(step, l, OUT, thread), chunk_size(d, MIN_CHUNK), &r);)
            gemm(&x, layer->out, layer->out_bias, r, all.y, hidden);
#pragma omp barrier
        add_residual(own.x, all.y, n, hidden, layer->attention_out_norm, d->eps, own.normed);
        rms_norm_rows(own.x, n, hidden, layer->feed_forward_norm, d->eps, own.normed);
        x = prepare(d, own.normed, hidden, n, hidden, own.pack_buffer);
        for (Range r; next_range(phase_loop(step, l, GATE_UP, thread), chunk_size(d, MIN_CHUNK_MLP), &r);) {
            const float *bias = layer->gate_up_bias;
            gemm(&x, layer->gate, bias, r, all.gate_up, 2 * inner);
            gemm(&x, layer->up, bias ? bias + inner : 0, r, all.gate_up + inner, 2 * inner);
            act_and_mul(all.gate_up, n, inner, r, d->activation);
        }
#pragma omp barrier
        x = prepare(d, all.gate_up, 2 * inner, n, inner, own.pack_buffer);
        for (Range r; next_range(phase_loop(step, l, DOWN, thread), chunk_size(d, MIN_CHUNK), &r);)
            gemm(&x, layer->down, layer->down_bias, r, all.y, hidden);
#pragma omp barrier
        add_residual(own.x, all.y, n, hidden, layer->feed_forward_out_norm, d->eps, own.normed);
    }
    compute_logits(d, step, own, phase_loop(step, d->num_layers, 0, thread));
}

void EXPORT(forward)(const Decoder *d, const LayerCache *cache, const Step *step) {
    init_loops(d, step);
#pragma omp parallel num_threads((int)step->num_threads)
    switch (d->format) {
        case BFLOAT16: run_thread(d, cache, step, omp_get_thread_num(), BFLOAT16); break;
        case FLOAT16: run_thread(d, cache, step, omp_get_thread_num(), FLOAT16); break;
        default: run_thread(d, cache, step, omp_get_thread_num(), FLOAT32);
    }
}
