/* What Python hands over, as native_decoder.py declares it too. */

#pragma once

#include <stdint.h>

enum { SILU = 0, GELU_TANH = 1 };

/* What a layer is made of; a pointer is NULL where the architecture has no such thing. */
typedef struct {
    const float *attention_norm, *attention_out_norm, *feed_forward_norm, *feed_forward_out_norm;
    const float *query_norm, *key_norm;
    const void *qkv, *out, *gate_up, *down; /* [outputs, inputs] */
    const float *qkv_bias, *out_bias, *gate_up_bias, *down_bias;
    const float *cos, *sin; /* [positions, head_dim]; NULL: not rotated */
    int64_t window;         /* keys a token looks at, 0: all */
} Layer;

typedef struct {
    const Layer *layers;
    const float *norm;
    const void *head; /* [vocab, hidden] */
    const float *head_bias;
    int64_t num_layers, hidden, num_heads, num_key_heads, head_dim, inner, vocab;
    int64_t activation, is_bf16;
    float eps, scale, softcap, logit_softcap; /* softcap 0: none */
} Decoder;

/* Keys and values of a layer, [slots, key_heads, columns, head_dim]. */
typedef struct {
    void *keys, *values;
} Slots;

/* Tokens of any slots; those of one lie together, in the order of their positions. */
typedef struct {
    int64_t tokens, num_last, num_columns;
    const int64_t *slots, *positions, *columns; /* [tokens] */
    const int64_t *lasts;                       /* [num_last]: tokens whose logits are wanted */
    const float *embedded;                      /* [tokens, hidden] */
    float *logits;                              /* [num_last, vocab] */
    float *work;                                /* work_size() numbers */
    int64_t num_threads;
} Step;

#if defined(__x86_64__) && defined(__gnu_linux__) && !defined(__clang__)
#define CHOOSES /* code for several kinds of processors can be compiled, and one be chosen when it runs */
#endif
