/* The forward of a llama-like decoder over slots on CPU, as one call: for the few tokens of a step, whose time
 * is else spent between operations. Weights and the cache are float32 or bfloat16 as they lie in torch's
 * tensors; all sums are float32. Python.h is not needed: it is loaded by ctypes, which lets go of the GIL.
 *
 * All threads run through all phases of a layer and meet at a barrier after each; between two barriers each
 * computes its own range of outputs, and for itself what is cheap (residuals and norms).
 *
 * decoder_wide.c compiles this file once more, with vectors twice as long for processors that have AVX-512. */

#include <math.h>
#include <omp.h>
#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#if defined(LANES)
#define CLONED /* decoder_wide.c says for which processors */
#elif defined(__x86_64__) && defined(__gnu_linux__) && !defined(__clang__)
#define HAS_WIDE
#define CLONED __attribute__((target_clones("arch=x86-64-v3", "default")))
#else
#define CLONED
#endif

#ifndef LANES
#define LANES 8 /* numbers of a vector */
#define ROWS 3  /* of a tile, whose sums fill the registers */
#define NAME(name) name##_narrow
#endif

enum { OUTS = 4, ROW_BLOCK = 48, KEY_BLOCK = 32, TOKEN_BLOCK = 8, APART = 16 };
enum { SILU = 0, GELU_TANH = 1 };

typedef float vec __attribute__((vector_size(4 * LANES)));
typedef float vec_u __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef float quad __attribute__((vector_size(16)));
typedef float quad_u __attribute__((vector_size(16), aligned(4), may_alias));
typedef int32_t ints __attribute__((vector_size(4 * LANES)));
typedef uint16_t halves __attribute__((vector_size(2 * LANES), aligned(2), may_alias));

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

typedef struct {
    int64_t rows, tokens, num_last; /* tokens of each row; logits of its last ones */
    int64_t first_slot, num_columns;
    const int64_t *positions, *columns; /* [rows, tokens] */
    const float *embedded;              /* [rows, tokens, hidden] */
    float *logits;                      /* [rows, num_last, vocab] */
    float *work;                        /* work_size() numbers */
    int64_t num_threads;
} Step;

/* -- LANES numbers at a time ------------------------------------------------------------------------ */

INLINE vec spread(float x) { return (vec){0} + x; }

INLINE vec load(const void *from, int64_t i, int is_bf16) {
    if (!is_bf16) return *(const vec_u *)((const float *)from + i);
    ints bits = __builtin_convertvector(*(const halves *)((const uint16_t *)from + i), ints) << 16;
    return (vec)bits;
}

INLINE void store(void *to, int64_t i, vec x, int is_bf16) {
    if (!is_bf16) {
        *(vec_u *)((float *)to + i) = x;
        return;
    }
    ints bits = (ints)x; /* to the nearest, ties to even; NaN stays NaN */
    ints rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    ints kept = ((bits >> 16) | 0x40) & (x != x);
    *(halves *)((uint16_t *)to + i) = __builtin_convertvector((rounded & ~(x != x)) | kept, halves);
}

/* Four sums of every fourth number. */
INLINE quad fold(vec x) {
    quad parts[LANES / 4];
    memcpy(parts, &x, sizeof parts);
    for (int i = 1; i < LANES / 4; i++) parts[0] += parts[i];
    return parts[0];
}

/* The sums of four vectors. */
INLINE quad sums(vec a, vec b, vec c, vec d) {
    quad p = fold(a), q = fold(b), r = fold(c), s = fold(d);
    typedef int32_t idx __attribute__((vector_size(16)));
    quad pq = __builtin_shuffle(p, q, (idx){0, 4, 1, 5}) + __builtin_shuffle(p, q, (idx){2, 6, 3, 7});
    quad rs = __builtin_shuffle(r, s, (idx){0, 4, 1, 5}) + __builtin_shuffle(r, s, (idx){2, 6, 3, 7});
    return __builtin_shuffle(pq, rs, (idx){0, 1, 4, 5}) + __builtin_shuffle(pq, rs, (idx){2, 3, 6, 7});
}

INLINE float sum(vec x) {
    quad s = fold(x);
    return s[0] + s[1] + s[2] + s[3];
}

INLINE vec pick(ints which, vec yes, vec no) { return (vec)(((ints)yes & which) | ((ints)no & ~which)); }

/* e^x to 2 ulp: 2^n e^r with |r| <= ln(2)/2, and e^r by its Taylor series to r^6 in Horner's form. */
INLINE vec exponential(vec x) {
    x = pick(x < -87.0f, spread(-87.0f), x);
    x = pick(x > 88.0f, spread(88.0f), x);
    vec n = (x * 1.44269504f + 12582912.0f) - 12582912.0f; /* rounds */
    vec r = x - n * 0.693359375f + n * 2.12194440e-4f;
    vec p = spread(1.0f / 720);
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    return p * (vec)((__builtin_convertvector(n, ints) + 127) << 23);
}

INLINE vec tangent(vec x) { return 1.0f - 2.0f / (exponential(2.0f * x) + 1.0f); } /* tanh */

INLINE vec activated(vec x, int64_t activation) {
    vec u = x;
    if (activation == GELU_TANH) u = 1.5957691216f * (x + 0.044715f * x * x * x); /* 2 sqrt(2 / pi) */
    return x / (1.0f + exponential(-u));
}

/* -- products ------------------------------------------------------------------------------------------ */

typedef struct {
    int64_t start, stop;
} Range;

/* A thread's share of so many outputs. */
INLINE Range share(int64_t size, int64_t thread, int64_t num_threads) {
    int64_t parts = (size + LANES - 1) / LANES;
    Range r = {parts * thread / num_threads * LANES, parts * (thread + 1) / num_threads * LANES};
    if (r.stop > size) r.stop = size;
    return r;
}

/* A block of OUTS or fewer rows of a weight matrix. */
typedef struct {
    const void *w;
    int64_t first, size; /* its first row; numbers of each */
    int num;
    const float *bias;
} Block;

INLINE void fetch(const void *from, int64_t i, int is_bf16) {
    __builtin_prefetch((const char *)from + i * (is_bf16 ? 2 : 4));
}

/* y[r][0..num-1] for num_rows rows of x; `next` is fetched meanwhile, so that memory never waits. */
INLINE void tile(const float *x, int64_t x_stride, Block b, const void *next, int64_t next_at, float *y,
                 int64_t y_stride, int num_rows, int is_bf16, int next_is_bf16) {
    vec acc[ROWS][OUTS];
    int64_t at[OUTS];
    for (int o = 0; o < OUTS; o++) at[o] = (b.first + (o < b.num ? o : 0)) * b.size;
    for (int r = 0; r < num_rows; r++)
        for (int o = 0; o < OUTS; o++) acc[r][o] = spread(0);
    for (int64_t i = 0; i < b.size; i += LANES) {
        vec wi[OUTS];
        for (int o = 0; o < OUTS; o++) {
            wi[o] = load(b.w, at[o] + i, is_bf16);
            if (next) fetch(next, next_at + o * b.size + i, next_is_bf16);
        }
        for (int r = 0; r < num_rows; r++) {
            vec xi = *(const vec_u *)(x + r * x_stride + i);
            for (int o = 0; o < OUTS; o++) acc[r][o] += wi[o] * xi;
        }
    }
    for (int r = 0; r < num_rows; r++) {
        quad s = sums(acc[r][0], acc[r][1], acc[r][2], acc[r][3]);
        float *to = y + r * y_stride;
        if (b.num == OUTS && !b.bias)
            *(quad_u *)to = s;
        else
            for (int o = 0; o < b.num; o++) to[o] = s[o] + (b.bias ? b.bias[o] : 0);
    }
}

/* All rows of x with one block, in tiles of about the same size. */
INLINE void column(const float *x, int64_t x_stride, int64_t rows, Block b, const void *next, int64_t next_at, float *y,
                   int64_t y_stride, int is_bf16, int next_is_bf16) {
    for (int64_t tiles = (rows + ROWS - 1) / ROWS; tiles > 0; tiles--) {
        int64_t num = (rows + tiles - 1) / tiles;
        const void *then = tiles == 1 ? next : 0;
#define TILE(n) tile(x, x_stride, b, then, next_at, y, y_stride, n, is_bf16, next_is_bf16)
        switch (num) { /* each is compiled for its number */
            case 1: TILE(1); break;
            case 2: TILE(2); break;
#if ROWS > 3
            case 3: TILE(3); break;
            case 4: TILE(4); break;
            case 5: TILE(5); break;
#endif
            default: TILE(ROWS);
        }
#undef TILE
        rows -= num, x += num * x_stride, y += num * y_stride;
    }
}

/* Outputs start..stop-1 of y[rows] = x[rows] w[outputs][size]^T + bias. Where many rows need a block of
 * bfloat16 it is made float32 once, in `wide` [OUTS * size]. */
INLINE void product(const float *x, int64_t x_stride, int64_t rows, int64_t size, const void *w, const float *bias,
                    Range outs, float *y, int64_t y_stride, float *wide, int is_bf16) {
    for (int64_t r = 0; r < rows; r += ROW_BLOCK) {
        int64_t num_rows = rows - r < ROW_BLOCK ? rows - r : ROW_BLOCK;
        for (int64_t o = outs.start; o < outs.stop; o += OUTS) {
            Block b = {w, o, size, outs.stop - o < OUTS ? (int)(outs.stop - o) : OUTS, bias ? bias + o : 0};
            const float *from = x + r * x_stride;
            float *to = y + r * y_stride + o;
            int64_t next = (o + OUTS) * size;
            if (is_bf16 && num_rows > 2 * ROWS) {
                for (int64_t i = 0; i < b.num * size; i += LANES) store(wide, i, load(w, o * size + i, 1), 0);
                b.w = wide, b.first = 0;
                column(from, x_stride, num_rows, b, w, next, to, y_stride, 0, 1);
            } else
                column(from, x_stride, num_rows, b, w, next, to, y_stride, is_bf16, is_bf16);
        }
    }
}

/* -- memory to work in --------------------------------------------------------------------------------- */

/* A thread's own. */
typedef struct {
    float *x, *normed; /* [tokens, hidden] */
    float *queries;    /* [TOKEN_BLOCK * group, head_dim] */
    float *weights;    /* [TOKEN_BLOCK * group, score_stride] */
    float *wide;       /* [OUTS, the longest row of a weight] */
} Own;

INLINE int64_t score_stride(const Step *step) { return (step->num_columns + LANES) / LANES * LANES; }

INLINE int64_t place_own(const Decoder *d, const Step *step, float *at, Own *own) {
    int64_t n = step->rows * step->tokens * d->hidden, seen = d->num_heads * d->head_dim;
    int64_t queries = (step->tokens < TOKEN_BLOCK ? step->tokens : TOKEN_BLOCK) * d->num_heads / d->num_key_heads;
    int64_t widest = d->inner > d->hidden ? d->inner : d->hidden;
    own->x = at;
    own->normed = own->x + n;
    own->queries = own->normed + n;
    own->weights = own->queries + queries * d->head_dim;
    own->wide = own->weights + queries * score_stride(step);
    return own->wide + OUTS * (seen > widest ? seen : widest) + APART - at;
}

/* -- norms and attention ------------------------------------------------------------------------------- */

/* x / sqrt(mean(x^2) + eps) * weight, for one token. */
INLINE void rms_norm(const float *x, int64_t size, const float *weight, float eps, float *y) {
    vec squares = spread(0);
    for (int64_t i = 0; i < size; i += LANES) {
        vec xi = *(const vec_u *)(x + i);
        squares += xi * xi;
    }
    float factor = 1.0f / sqrtf(sum(squares) / size + eps);
    for (int64_t i = 0; i < size; i += LANES)
        *(vec_u *)(y + i) = *(const vec_u *)(x + i) * factor * *(const vec_u *)(weight + i);
}

INLINE void turn(float *head, int64_t dim, const float *cos, const float *sin) {
    int64_t half = dim / 2;
    for (int64_t i = 0; i < half; i++) {
        float a = head[i], b = head[half + i];
        head[i] = a * cos[i] + b * sin[i]; /* sin is negative here */
        head[half + i] = b * cos[half + i] + a * sin[half + i];
    }
}

/* Norm and rotation of one key head of a token and its queries; key and value go to their column. */
INLINE void enter(const Decoder *d, const Layer *layer, const Slots *slots, const Step *step, int64_t token,
                  int64_t key_head, float *qkv, int is_bf16) {
    int64_t dim = d->head_dim, group = d->num_heads / d->num_key_heads, position = step->positions[token];
    int64_t slot = step->first_slot + token / step->tokens;
    float *key = qkv + (d->num_heads + key_head) * dim, *value = key + d->num_key_heads * dim;
    for (int64_t g = -1; g < group; g++) {
        float *head = g < 0 ? key : qkv + (key_head * group + g) * dim;
        const float *norm = g < 0 ? layer->key_norm : layer->query_norm;
        if (norm) rms_norm(head, dim, norm, d->eps, head);
        if (layer->cos) turn(head, dim, layer->cos + position * dim, layer->sin + position * dim);
    }
    int64_t at = ((slot * d->num_key_heads + key_head) * step->num_columns + step->columns[token]) * dim;
    for (int64_t i = 0; i < dim; i += LANES) {
        store(slots->keys, at + i, *(const vec_u *)(key + i), is_bf16);
        store(slots->values, at + i, *(const vec_u *)(value + i), is_bf16);
    }
}

/* scores[0..num_keys-1] become shares that sum to 1: of the keys first..last after scale and cap, else nothing. */
INLINE void weigh(const Decoder *d, float *scores, int64_t num_keys, int64_t first, int64_t last) {
    int64_t padded = (num_keys + LANES - 1) / LANES * LANES;
    for (int64_t c = 0; c < num_keys; c += LANES) {
        vec s = *(vec_u *)(scores + c) * d->scale;
        *(vec_u *)(scores + c) = d->softcap ? d->softcap * tangent(s / d->softcap) : s;
    }
    for (int64_t c = 0; c < first; c++) scores[c] = -INFINITY;
    for (int64_t c = last + 1; c < padded; c++) scores[c] = -INFINITY;
    vec most = spread(-INFINITY), total = spread(0);
    for (int64_t c = 0; c < padded; c += LANES) {
        vec s = *(const vec_u *)(scores + c);
        most = pick(s > most, s, most);
    }
    float top = most[0];
    for (int i = 1; i < LANES; i++) top = most[i] > top ? most[i] : top;
    for (int64_t c = 0; c < padded; c += LANES) {
        vec e = exponential(*(const vec_u *)(scores + c) - top);
        *(vec_u *)(scores + c) = e;
        total += e;
    }
    vec share = spread(1.0f / sum(total));
    for (int64_t c = 0; c < padded; c += LANES) *(vec_u *)(scores + c) *= share;
}

/* seen[num][dim] += weights[num][stride] values[num_keys][dim], for three or fewer. */
INLINE void mix_tile(const float *weights, int64_t stride, int num, const void *values, int64_t at, int64_t num_keys,
                     int64_t dim, float *seen, int is_bf16) {
    for (int64_t i = 0; i < dim; i += OUTS * LANES) {
        int num_vecs = dim - i < OUTS * LANES ? (int)((dim - i) / LANES) : OUTS;
        vec acc[3][OUTS];
        for (int q = 0; q < num; q++)
            for (int k = 0; k < OUTS; k++)
                acc[q][k] = k < num_vecs ? (vec) * (vec_u *)(seen + q * dim + i + k * LANES) : (vec){0};
        for (int64_t c = 0; c < num_keys; c++) {
            vec v[OUTS];
            for (int k = 0; k < OUTS; k++)
                v[k] = load(values, at + c * dim + i + (k < num_vecs ? k : 0) * LANES, is_bf16);
            for (int q = 0; q < num; q++)
                for (int k = 0; k < OUTS; k++) acc[q][k] += v[k] * weights[q * stride + c];
        }
        for (int q = 0; q < num; q++)
            for (int k = 0; k < num_vecs; k++) *(vec_u *)(seen + q * dim + i + k * LANES) = acc[q][k];
    }
}

/* A block of values stays in the first cache for all queries. */
INLINE void mix(const float *weights, int64_t stride, int64_t num, const void *values, int64_t at, int64_t num_keys,
                int64_t dim, float *seen, int is_bf16) {
    memset(seen, 0, num * dim * sizeof(float));
    for (int64_t block = 0; block < num_keys; block += KEY_BLOCK) {
        int64_t keys = num_keys - block < KEY_BLOCK ? num_keys - block : KEY_BLOCK, from = at + block * dim;
        for (int64_t q = 0; q < num; q += 3) {
            const float *w = weights + q * stride + block;
            if (num - q >= 3)
                mix_tile(w, stride, 3, values, from, keys, dim, seen + q * dim, is_bf16);
            else if (num - q == 2)
                mix_tile(w, stride, 2, values, from, keys, dim, seen + q * dim, is_bf16);
            else
                mix_tile(w, stride, 1, values, from, keys, dim, seen + q * dim, is_bf16);
        }
    }
}

/* What the queries of one key head see, for up to TOKEN_BLOCK tokens of a row in the order of their positions. */
INLINE void attend(const Decoder *d, const Layer *layer, const Slots *slots, const Step *step, int64_t token,
                   int64_t num_tokens, int64_t key_head, const float *qkv, float *seen, Own own, int is_bf16) {
    int64_t dim = d->head_dim, group = d->num_heads / d->num_key_heads, stride = score_stride(step);
    int64_t heads = (d->num_heads + 2 * d->num_key_heads) * dim, num = num_tokens * group;
    const int64_t *positions = step->positions + token;
    int64_t slot = step->first_slot + token / step->tokens, last = positions[num_tokens - 1];
    int64_t first = layer->window && positions[0] >= layer->window ? positions[0] - layer->window + 1 : 0;
    int64_t at = ((slot * d->num_key_heads + key_head) * step->num_columns + first) * dim;
    for (int64_t t = 0; t < num_tokens; t++)
        memcpy(own.queries + t * group * dim, qkv + (token + t) * heads + key_head * group * dim,
               group * dim * sizeof(float));
    const void *keys = (const char *)slots->keys + at * (is_bf16 ? 2 : 4);
    product(own.queries, dim, num, dim, keys, 0, (Range){0, last - first + 1}, own.weights, stride, own.wide, is_bf16);
    for (int64_t q = 0; q < num; q++) {
        int64_t position = positions[q / group], oldest = layer->window ? position - layer->window + 1 : 0;
        weigh(d, own.weights + q * stride, last - first + 1, oldest > first ? oldest - first : 0, position - first);
    }
    mix(own.weights, stride, num, slots->values, at, last - first + 1, dim, own.queries, is_bf16);
    for (int64_t t = 0; t < num_tokens; t++)
        memcpy(seen + ((token + t) * d->num_heads + key_head * group) * dim, own.queries + t * group * dim,
               group * dim * sizeof(float));
}

/* -- the forward --------------------------------------------------------------------------------------- */

/* Numbers that `work` must have room for. */
int64_t NAME(work_size)(const Decoder *d, const Step *step) {
    Own own;
    int64_t heads = (2 * d->num_heads + 2 * d->num_key_heads) * d->head_dim;
    int64_t shared = step->rows * step->tokens * (heads + 2 * d->inner + d->hidden) + APART;
    return shared + step->num_threads * place_own(d, step, step->work, &own);
}

/* x += norm(y), or x += y, for all tokens; each thread for itself. */
INLINE void add(float *x, const float *y, int64_t n, int64_t hidden, const float *norm, float eps, float *spare) {
    for (int64_t t = 0; t < n; t++) {
        const float *from = y + t * hidden;
        if (norm) {
            rms_norm(from, hidden, norm, eps, spare);
            from = spare;
        }
        for (int64_t i = 0; i < hidden; i += LANES) *(vec_u *)(x + t * hidden + i) += *(const vec_u *)(from + i);
    }
}

INLINE void norm_all(const float *x, int64_t n, int64_t hidden, const float *norm, float eps, float *y) {
    for (int64_t t = 0; t < n; t++) rms_norm(x + t * hidden, hidden, norm, eps, y + t * hidden);
}

/* gate[start..stop-1] = activation(gate) * up, where up lies behind gate. */
INLINE void gate(float *gate_up, int64_t n, int64_t inner, Range r, int64_t activation) {
    for (int64_t t = 0; t < n; t++)
        for (int64_t i = r.start; i < r.stop; i += LANES) {
            float *g = gate_up + t * 2 * inner + i;
            *(vec_u *)g = activated(*(vec_u *)g, activation) * *(vec_u *)(g + inner);
        }
}

INLINE void logits(const Decoder *d, const Step *step, Own own, int64_t thread, int64_t num_threads, int is_bf16) {
    int64_t hidden = d->hidden, num = step->rows * step->num_last;
    for (int64_t i = 0; i < num; i++) {
        int64_t token = i / step->num_last * step->tokens + step->tokens - step->num_last + i % step->num_last;
        rms_norm(own.x + token * hidden, hidden, d->norm, d->eps, own.normed + i * hidden);
    }
    Range r = share(d->vocab, thread, num_threads);
    product(own.normed, hidden, num, hidden, d->head, d->head_bias, r, step->logits, d->vocab, own.wide, is_bf16);
    if (d->logit_softcap)
        for (int64_t i = 0; i < num; i++)
            for (int64_t o = r.start; o < r.stop; o++) {
                float *to = step->logits + i * d->vocab + o;
                *to = d->logit_softcap * tangent(spread(*to / d->logit_softcap))[0];
            }
}

INLINE void run(const Decoder *d, const Slots *slots, const Step *step, int64_t thread, int64_t num_threads,
                int is_bf16) {
    int64_t n = step->rows * step->tokens, hidden = d->hidden, inner = d->inner;
    int64_t seen_size = d->num_heads * d->head_dim, heads = seen_size + 2 * d->num_key_heads * d->head_dim;
    float *qkv = step->work, *seen = qkv + n * heads, *gate_up = seen + n * seen_size, *y = gate_up + n * 2 * inner;
    Own own;
    int64_t own_size = place_own(d, step, 0, &own);
    place_own(d, step, y + n * hidden + APART + thread * own_size, &own);
    int64_t num_blocks = (step->tokens + TOKEN_BLOCK - 1) / TOKEN_BLOCK, num_units = n * d->num_key_heads;
    int64_t num_block_units = step->rows * num_blocks * d->num_key_heads;
    Range hidden_share = share(hidden, thread, num_threads), heads_share = share(heads, thread, num_threads);
    Range inner_share = share(inner, thread, num_threads);
    Range up_share = {inner + inner_share.start, inner + inner_share.stop};
    memcpy(own.x, step->embedded, n * hidden * sizeof(float));

    for (int64_t l = 0; l < d->num_layers; l++) {
        const Layer *layer = d->layers + l;
        norm_all(own.x, n, hidden, layer->attention_norm, d->eps, own.normed);
        product(own.normed, hidden, n, hidden, layer->qkv, layer->qkv_bias, heads_share, qkv, heads, own.wide, is_bf16);
#pragma omp barrier
        for (int64_t u = thread; u < num_units; u += num_threads) {
            int64_t t = u / d->num_key_heads, h = u % d->num_key_heads;
            enter(d, layer, slots + l, step, t, h, qkv + t * heads, is_bf16);
        }
        if (step->tokens > 1) { /* they look at each other */
#pragma omp barrier
        }
        for (int64_t u = thread; u < num_block_units; u += num_threads) {
            int64_t block = u / d->num_key_heads % num_blocks * TOKEN_BLOCK, left = step->tokens - block;
            int64_t token = u / (d->num_key_heads * num_blocks) * step->tokens + block;
            attend(d, layer, slots + l, step, token, left < TOKEN_BLOCK ? left : TOKEN_BLOCK, u % d->num_key_heads,
                   qkv, seen, own, is_bf16);
        }
#pragma omp barrier
        product(seen, seen_size, n, seen_size, layer->out, layer->out_bias, hidden_share, y, hidden, own.wide,
                is_bf16);
#pragma omp barrier
        add(own.x, y, n, hidden, layer->attention_out_norm, d->eps, own.normed);
        norm_all(own.x, n, hidden, layer->feed_forward_norm, d->eps, own.normed);
        product(own.normed, hidden, n, hidden, layer->gate_up, layer->gate_up_bias, inner_share, gate_up, 2 * inner,
                own.wide, is_bf16);
        product(own.normed, hidden, n, hidden, layer->gate_up, layer->gate_up_bias, up_share, gate_up, 2 * inner, own.wide,
                is_bf16);
        gate(gate_up, n, inner, inner_share, d->activation);
#pragma omp barrier
        product(gate_up, 2 * inner, n, inner, layer->down, layer->down_bias, hidden_share, y, hidden, own.wide,
                is_bf16);
#pragma omp barrier
        add(own.x, y, n, hidden, layer->feed_forward_out_norm, d->eps, own.normed);
    }
    logits(d, step, own, thread, num_threads, is_bf16);
}

/* Two functions of their own, as only whole functions are made for each kind of processor. */
CLONED static void run_float32(const Decoder *d, const Slots *slots, const Step *s, int64_t thread, int64_t num) {
    run(d, slots, s, thread, num, 0);
}

CLONED static void run_bfloat16(const Decoder *d, const Slots *slots, const Step *s, int64_t thread, int64_t num) {
    run(d, slots, s, thread, num, 1);
}

void NAME(forward)(const Decoder *d, const Slots *slots, const Step *step) {
#pragma omp parallel num_threads((int)step->num_threads)
    {
        int64_t thread = omp_get_thread_num(), num_threads = omp_get_num_threads();
        (d->is_bf16 ? run_bfloat16 : run_float32)(d, slots, step, thread, num_threads);
    }
}

#if LANES == 8

#ifdef HAS_WIDE
int64_t work_size_wide(const Decoder *d, const Step *step);
void forward_wide(const Decoder *d, const Slots *slots, const Step *step);

static int is_wide(const Decoder *d) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           (d->hidden | d->head_dim | d->inner) % 16 == 0;
}
#else
static int is_wide(const Decoder *d) { return 0; }
#define work_size_wide work_size_narrow
#define forward_wide forward_narrow
#endif

int64_t work_size(const Decoder *d, const Step *step) {
    return is_wide(d) ? work_size_wide(d, step) : work_size_narrow(d, step);
}

void forward(const Decoder *d, const Slots *slots, const Step *step) {
    (is_wide(d) ? forward_wide : forward_narrow)(d, slots, step);
}

#endif
