/* Structures shared with Python; native_decoder.py declares the same fields with ctypes. */

#pragma once

#include <stdint.h>

enum { SILU = 0, GELU_TANH = 1 };

/* Formats of matrices, numbered as in GGUF files; those of packed_blocks.h, too. */
enum { FLOAT32 = 0, FLOAT16 = 1, BFLOAT16 = 30 };

/* A matrix [outputs, inputs]. */
typedef struct {
    const void *data;
    int64_t format;
} Weight;

/* Parameters of one layer; a pointer is NULL where the architecture lacks that parameter. */
typedef struct {
    const float *attention_norm, *attention_out_norm, *feed_forward_norm, *feed_forward_out_norm;
    const float *query_norm, *key_norm;
    Weight q, k, v, out, gate, up, down;
    const float *qkv_bias, *out_bias, *gate_up_bias, *down_bias; /* those of q, k and v follow each other */
    const float *cos, *sin; /* [positions, head_dim]; NULL: no rotary embedding */
    int64_t window;         /* of sliding window attention, in tokens; 0: full attention */
} Layer;

typedef struct {
    const Layer *layers;
    const float *norm;
    Weight head; /* [vocab_size, hidden_size] */
    const float *head_bias;
    int64_t num_layers, hidden_size, num_heads, num_kv_heads, head_dim, intermediate_size, vocab_size;
    int64_t activation, format;    /* of keys, values and the matrices that are not packed */
    int64_t has_plain, has_packed; /* matrices */
    float eps, scale, softcap, logit_softcap; /* a softcap of 0: not capped */
} Decoder;

/* KV cache of one layer: [slots, num_kv_heads, slot_len, head_dim] each. */
typedef struct {
    void *keys, *values;
} LayerCache;

/* A batch of tokens of any slots; the tokens of one slot are adjacent and ordered by position. */
typedef struct {
    int64_t num_tokens, num_logits, slot_len;
    const int64_t *slots, *positions, *cache_positions; /* [num_tokens] */
    const int64_t *logits_indices;                      /* [num_logits]: the tokens whose logits are computed */
    const float *embeddings;                            /* [num_tokens, hidden_size] */
    float *logits;                                      /* [num_logits, vocab_size] */
    float *work;                                        /* scratch memory of work_size() floats */
    int64_t num_threads;
} Step;

#if defined(__x86_64__) && defined(__gnu_linux__) && !defined(__clang__)
#define CPU_DISPATCH /* the compiler can target several instruction sets, and the CPU is asked at run time */
#endif
