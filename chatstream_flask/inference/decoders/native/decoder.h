/* The forward of a llama-like decoder over slots on CPU, as one call: for the few tokens of a step, whose time
 * is else spent between operations. Weights and the cache are float32 or bfloat16 as they lie in torch's
 * tensors; all sums are float32. Python.h is not needed: it is loaded by ctypes, which lets go of the GIL.
 *
 * All threads run through all phases of a layer and meet at a barrier after each; between two barriers they share
 * the outputs, and each computes for itself what is cheap (residuals and norms).
 *
 * Compiled once for each kind of processor, by the files that include it. They say what its registers hold: LANES,
 * numbers of a vector; ROWS and OUTS of a tile; FEW rows that are multiplied as they lie; SUMS, vectors of a tall
 * tile; and NAME, of what others call. */

#include <math.h>
#include <omp.h>
#include <string.h>

#include "interface.h"

#define INLINE static inline __attribute__((always_inline))
#define ONCE static __attribute__((noinline)) /* compiled once, or it takes minutes */

enum { SIZE_BLOCK = 512, OUT_BLOCK = 48, TALL = 128, KEY_BLOCK = 32, VECS = 4 };
enum { QUERIES = SUMS / VECS }; /* of a tile of attention */
enum { LEAST = 12, INNER_LEAST = 3 * LANES, MOST_PARTS = 4 }; /* of outputs that a thread takes */
enum { QKV, ENTER, ATTEND, OUT, GATE_UP, DOWN, PHASES };     /* of a layer */
enum { LINE = 64, APART = 16 }; /* of a cache line: bytes, numbers */

typedef float vec __attribute__((vector_size(4 * LANES)));
typedef float vec_u __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef float quad __attribute__((vector_size(16)));
typedef float quad_u __attribute__((vector_size(16), aligned(4), may_alias));
typedef int32_t four __attribute__((vector_size(16)));
typedef int32_t ints __attribute__((vector_size(4 * LANES)));
typedef uint16_t halves __attribute__((vector_size(2 * LANES), aligned(2), may_alias));

INLINE int64_t lesser(int64_t a, int64_t b) { return a < b ? a : b; }

INLINE int64_t num_bytes(int is_bf16) { return is_bf16 ? 2 : 4; } /* of a weight, a key, a value */

/* -- LANES numbers at a time ------------------------------------------------------------------------ */

INLINE vec spread(float x) { return x - (vec){0}; } /* x + 0 is not x where that is -0 */

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
    quad pq = __builtin_shuffle(p, q, (four){0, 4, 1, 5}) + __builtin_shuffle(p, q, (four){2, 6, 3, 7});
    quad rs = __builtin_shuffle(r, s, (four){0, 4, 1, 5}) + __builtin_shuffle(r, s, (four){2, 6, 3, 7});
    return __builtin_shuffle(pq, rs, (four){0, 1, 4, 5}) + __builtin_shuffle(pq, rs, (four){2, 3, 6, 7});
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

/* Some work of all threads: each begins with a share of its own, and then helps others with theirs, as a core that
 * others use too is slower. */
typedef struct {
    uint64_t *left; /* of each thread: 32 bits each of start and stop */
    int64_t thread, num_threads;
} Work;

/* Shares of a multiple of `least`. */
INLINE void begin(uint64_t *left, int64_t size, int64_t least, int64_t num_threads) {
    int64_t parts = (size + least - 1) / least;
    for (int64_t t = 0; t < num_threads; t++) {
        int64_t start = parts * t / num_threads * least, stop = parts * (t + 1) / num_threads * least;
        left[t] = (uint64_t)start | (uint64_t)lesser(stop, size) << 32;
    }
}

/* A piece of it, of a multiple of `least` too: from the start of the own share, or up to half of what another has
 * left, from its end; false when nothing is left. */
INLINE int take(Work work, int64_t least, Range *piece) {
    for (int64_t i = 0; i < work.num_threads; i++) {
        uint64_t *left = work.left + (work.thread + i) % work.num_threads;
        uint64_t old = __atomic_load_n(left, __ATOMIC_RELAXED), new;
        do {
            int64_t start = old & 0xffffffff, stop = old >> 32, most = MOST_PARTS * least;
            if (start >= stop) break;
            int64_t half = ((stop - start) / 2 + least - 1) / least * least;
            if (i == 0)
                *piece = (Range){start, lesser(stop, start + most)};
            else
                *piece = (Range){stop - start < least ? start : stop - lesser(half, most), stop};
            new = i == 0 ? (uint64_t)piece->stop | (uint64_t)stop << 32 : (uint64_t)start | (uint64_t)piece->start << 32;
            if (__atomic_compare_exchange_n(left, &old, new, 1, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) return 1;
        } while (1);
    }
    return 0;
}

/* Rows first..first+num-1 of a weight matrix. */
typedef struct {
    const void *w;
    int64_t first, size; /* numbers of each */
    int num;
    const float *bias;
} Block;

/* What is fetched while other things are computed, so that memory never waits: pieces of `piece` bytes, each
 * `apart` bytes after the one before; 0: the same again. In the order in which they lie, which is faster than row
 * by row. */
typedef struct {
    const char *at, *stop;
    int64_t piece, apart;
} Ahead;

INLINE Ahead ahead(const void *from, int64_t first, int64_t piece, int64_t apart, int is_bf16) {
    int64_t size = num_bytes(is_bf16);
    const char *at = (const char *)from + first * size;
    return (Ahead){at, at + piece * size, piece * size, apart * size};
}

INLINE void fetch(Ahead *a, int num_lines) {
    for (int i = 0; i < num_lines; i++) {
        __builtin_prefetch(a->at);
        a->at += LINE;
        if (a->at >= a->stop) {
            a->at += a->apart - a->piece;
            a->stop += a->apart;
        }
    }
}

/* y[r][0..num-1] for num_rows rows of x, `num` OUTS or fewer. */
INLINE void tile(const float *x, int64_t x_stride, Block b, Ahead *next, int num_lines, float *y, int64_t y_stride,
                 int num_rows, int is_bf16) {
    vec acc[ROWS][OUTS];
    int64_t at[OUTS];
    for (int o = 0; o < OUTS; o++) at[o] = (b.first + (o < b.num ? o : 0)) * b.size;
    for (int r = 0; r < num_rows; r++)
        for (int o = 0; o < OUTS; o++) acc[r][o] = spread(0);
    for (int64_t i = 0; i < b.size; i += LANES) {
        vec wi[OUTS];
        for (int o = 0; o < OUTS; o++) wi[o] = load(b.w, at[o] + i, is_bf16);
        fetch(next, num_lines);
        for (int r = 0; r < num_rows; r++) {
            vec xi = *(const vec_u *)(x + r * x_stride + i);
            for (int o = 0; o < OUTS; o++) acc[r][o] += wi[o] * xi;
        }
    }
    for (int r = 0; r < num_rows; r++) {
        quad s = sums(acc[r][0], acc[r][1], acc[r][2], OUTS > 3 ? acc[r][OUTS - 1] : spread(0));
        for (int o = 0; o < OUTS; o++)
            if (o < b.num) y[r * y_stride + o] = s[o] + (b.bias ? b.bias[o] : 0);
    }
}

/* As `product`, for so few rows that they stay in the first cache: in tiles of about the same size. */
INLINE void few(const float *x, int64_t x_stride, int64_t rows, int64_t size, const void *w, const float *bias,
                Range outs, float *y, int64_t y_stride, Ahead *other, int is_bf16) {
    int64_t num_tiles = (rows + ROWS - 1) / ROWS;
    const int lines = (int)(OUTS * LANES * num_bytes(is_bf16) + LINE - 1) / LINE;
    int num_lines = num_tiles == 1 ? lines : (lines + 1) / 2;
    for (int64_t o = outs.start; o < outs.stop; o += OUTS) {
        Block b = {w, o, size, (int)lesser(outs.stop - o, OUTS), bias ? bias + o : 0};
        Ahead more = ahead(w, (o + OUTS) * size, size, size, is_bf16), *next = other ? other : &more;
        int64_t r = 0;
        for (int64_t left = num_tiles; left > 0; left--) {
            int64_t num = (rows - r + left - 1) / left;
#define TILE(n) tile(x + r * x_stride, x_stride, b, next, num_lines, y + r * y_stride + o, y_stride, n, is_bf16)
            switch (num) { /* each is compiled for its number */
                case 1: TILE(1); break;
                case 2: TILE(2); break;
                case 3: TILE(3); break;
#if ROWS > 4
                case 4: TILE(4); break;
                case 5: TILE(5); break;
#endif
                default: TILE(ROWS);
            }
#undef TILE
            r += num;
        }
    }
}

/* to[c][r] = from[r][c] */
ONCE void flip(const float *from, int64_t from_stride, int64_t rows, int64_t columns, float *to, int64_t to_stride) {
    int64_t r = 0;
    for (; r + 4 <= rows; r += 4) {
        int64_t c = 0;
        for (; c + 4 <= columns; c += 4) {
            const float *f = from + r * from_stride + c;
            float *t = to + c * to_stride + r;
            quad q[4], p[4];
            for (int i = 0; i < 4; i++) q[i] = *(const quad_u *)(f + i * from_stride);
            for (int i = 0; i < 4; i += 2) {
                p[i] = __builtin_shuffle(q[i], q[i + 1], (four){0, 4, 1, 5});
                p[i + 1] = __builtin_shuffle(q[i], q[i + 1], (four){2, 6, 3, 7});
            }
            for (int i = 0; i < 2; i++) {
                *(quad_u *)(t + 2 * i * to_stride) = __builtin_shuffle(p[i], p[i + 2], (four){0, 1, 4, 5});
                *(quad_u *)(t + (2 * i + 1) * to_stride) = __builtin_shuffle(p[i], p[i + 2], (four){2, 3, 6, 7});
            }
        }
        for (; c < columns; c++)
            for (int i = 0; i < 4; i++) to[c * to_stride + r + i] = from[(r + i) * from_stride + c];
    }
    for (; r < rows; r++)
        for (int64_t c = 0; c < columns; c++) to[c * to_stride + r] = from[r * from_stride + c];
}

/* A number of a weight in all lanes; of bfloat16 two are read at once, the even one and the one after it. */
INLINE vec spread_weight(const void *w, int64_t even, int is_odd, int is_bf16) {
    if (!is_bf16) return spread(((const float *)w)[even + is_odd]);
    int32_t two;
    memcpy(&two, (const uint16_t *)w + even, sizeof two);
    ints bits = two - (ints){0};
    return (vec)(is_odd ? bits & ~0xffff : bits << 16);
}

/* part[o][row] += w[o][0..size-1] panel[size][row] for vecs * LANES rows: a lane is a row here, and each number of
 * a weight is spread over a vector, so that weights are read as they lie. */
INLINE void tall_tile(const float *panel, int64_t size, const void *w, int64_t w_stride, int num, Ahead *next,
                      int num_lines, float *part, int64_t part_stride, int vecs, int is_bf16) {
    const int outs = SUMS / vecs;
    vec acc[SUMS];
    int64_t at[SUMS];
    for (int o = 0; o < outs; o++) at[o] = (o < num ? o : 0) * w_stride;
    for (int i = 0; i < SUMS; i++) acc[i] = spread(0);
    for (int64_t start = 0; start < size; start += 8) {
        fetch(next, num_lines);
        for (int64_t k = start; k < start + 8; k += 2) {
#pragma GCC unroll 2
            for (int odd = 0; odd < 2; odd++) {
                vec x[3];
#pragma GCC unroll 3
                for (int v = 0; v < vecs; v++) x[v] = *(const vec_u *)(panel + ((k + odd) * vecs + v) * LANES);
#pragma GCC unroll 12
                for (int o = 0; o < outs; o++) {
                    vec wo = spread_weight(w, at[o] + k, odd, is_bf16);
#pragma GCC unroll 3
                    for (int v = 0; v < vecs; v++) acc[o * vecs + v] += x[v] * wo;
                }
            }
        }
    }
    for (int o = 0; o < outs; o++)
        for (int v = 0; v < vecs; v++)
            if (o < num) *(vec_u *)(part + o * part_stride + v * LANES) += acc[o * vecs + v];
}

/* Rows x[rows][size] as products read them. */
typedef struct {
    const float *x;
    int64_t stride, rows, size;
    int64_t vecs, padded; /* if they are many: vectors of a tile, and rows of all tiles */
    float *panels;        /* then all of them turned, by blocks of SIZE_BLOCK and in these by tiles */
    float *part;          /* [OUT_BLOCK][TALL] */
} Input;

/* Numbers that an Input needs room for. */
INLINE int64_t spare_size(int64_t rows, int64_t size) {
    return rows <= FEW ? 0 : OUT_BLOCK * TALL + (rows + 3 * LANES) * size;
}

ONCE Input input(const float *x, int64_t stride, int64_t rows, int64_t size, float *spare) {
    Input in = {x, stride, rows, size, 0, 0, spare + OUT_BLOCK * TALL, spare};
    if (rows <= FEW) return in;
    int64_t vecs = (rows + LANES - 1) / LANES, by_three = (vecs + 2) / 3 * 3, by_two = (vecs + 1) / 2 * 2;
    in.vecs = by_three <= by_two ? 3 : 2; /* whichever leaves less empty */
    in.padded = by_three <= by_two ? by_three * LANES : by_two * LANES;
    int64_t wide = in.vecs * LANES;
    for (int64_t k = 0; k < size; k += SIZE_BLOCK) {
        int64_t num_k = lesser(size - k, SIZE_BLOCK);
        for (int64_t r = 0; r < in.padded; r += wide) {
            float *to = in.panels + k * in.padded + r * num_k;
            int64_t num_rows = lesser(rows - r, wide);
            if (num_rows < wide) memset(to, 0, num_k * wide * sizeof(float));
            flip(x + r * stride + k, stride, num_rows, num_k, to, wide);
        }
    }
    return in;
}

/* to[outputs][r.stop - r.start] += w[outputs][size] x[rows r.start..r.stop-1][size]^T, for rows that are turned. */
INLINE void turned(const Input *in, Range r, const void *w, int64_t outs, float *to, int vecs, int is_bf16) {
    const int wide = vecs * LANES, step = SUMS / vecs;
    int64_t size = in->size, bytes = num_bytes(is_bf16), stride = r.stop - r.start;
    int64_t lines = (step * 8 * bytes * wide + LINE * stride - 1) / (LINE * stride);
    for (int64_t k = 0; k < size; k += SIZE_BLOCK) {
        int64_t num_k = lesser(size - k, SIZE_BLOCK);
        for (int64_t o = 0; o < outs; o += step) {
            int64_t at = o * size + k;
            int num = (int)lesser(outs - o, step);
            Ahead next = ahead(w, at + step * size, num_k, size, is_bf16);
            for (int64_t t = r.start; t < r.stop; t += wide)
                tall_tile(in->panels + k * in->padded + t * num_k, num_k, (const char *)w + at * bytes, size, num,
                          &next, (int)lines, to + o * stride + t - r.start, stride, vecs, is_bf16);
        }
    }
}

/* As `product`, for rows r.start..r.stop-1, which are TALL or fewer, and OUT_BLOCK or fewer outputs. */
INLINE void tall(const Input *in, Range r, const void *w, const float *bias, int64_t first, int64_t num_outs, float *y,
                 int64_t y_stride, int vecs, int is_bf16) {
    int64_t stride = r.stop - r.start, num_rows = lesser(in->rows, r.stop) - r.start;
    memset(in->part, 0, num_outs * stride * sizeof(float));
    turned(in, r, (const char *)w + first * in->size * num_bytes(is_bf16), num_outs, in->part, vecs, is_bf16);
    flip(in->part, stride, num_outs, num_rows, y + r.start * y_stride + first, y_stride);
    for (int64_t i = r.start; bias && i < r.start + num_rows; i++)
        for (int64_t o = first; o < first + num_outs; o++) y[i * y_stride + o] += bias[o];
}

INLINE void any_product(const Input *in, const void *w, const float *bias, Range outs, float *y, int64_t y_stride,
                    Ahead *other, int is_bf16) {
    if (!in->vecs) {
        few(in->x, in->stride, in->rows, in->size, w, bias, outs, y, y_stride, other, is_bf16);
        return;
    }
    int64_t wide = in->vecs * LANES, num_tiles = in->padded / wide, most = TALL / wide;
    int64_t num_blocks = (num_tiles + most - 1) / most, block = (num_tiles + num_blocks - 1) / num_blocks * wide;
    for (int64_t first = outs.start; first < outs.stop; first += OUT_BLOCK) {
        int64_t num = lesser(outs.stop - first, OUT_BLOCK);
        for (int64_t start = 0; start < in->padded; start += block) {
            Range rows = {start, lesser(start + block, in->padded)};
            if (in->vecs == 2)
                tall(in, rows, w, bias, first, num, y, y_stride, 2, is_bf16);
            else
                tall(in, rows, w, bias, first, num, y, y_stride, 3, is_bf16);
        }
    }
}

ONCE void product_float32(const Input *in, const void *w, const float *bias, Range outs, float *y, int64_t y_stride,
                          Ahead *other) {
    any_product(in, w, bias, outs, y, y_stride, other, 0);
}

ONCE void product_bfloat16(const Input *in, const void *w, const float *bias, Range outs, float *y, int64_t y_stride,
                           Ahead *other) {
    any_product(in, w, bias, outs, y, y_stride, other, 1);
}

/* Outputs start..stop-1 of y[rows] = x[rows] w[outputs][size]^T + bias. `other` is fetched meanwhile where rows are
 * few; NULL: more of w. */
INLINE void product(const Input *in, const void *w, const float *bias, Range outs, float *y, int64_t y_stride,
                    Ahead *other, int is_bf16) {
    (is_bf16 ? product_bfloat16 : product_float32)(in, w, bias, outs, y, y_stride, other);
}

ONCE void turned_float32(const Input *in, const void *w, int64_t outs, float *to) {
    Range all = {0, in->padded};
    if (in->vecs == 2)
        turned(in, all, w, outs, to, 2, 0);
    else
        turned(in, all, w, outs, to, 3, 0);
}

ONCE void turned_bfloat16(const Input *in, const void *w, int64_t outs, float *to) {
    Range all = {0, in->padded};
    if (in->vecs == 2)
        turned(in, all, w, outs, to, 2, 1);
    else
        turned(in, all, w, outs, to, 3, 1);
}

/* -- memory to work in --------------------------------------------------------------------------------- */

/* A thread's own. */
typedef struct {
    float *x, *normed; /* [tokens, hidden] */
    float *queries;    /* [block_tokens * group, head_dim] */
    float *weights;    /* [block_tokens * group, score_stride], or the other way round where queries are many */
    float *spare;      /* of an Input */
} Own;

/* Of a block of attention: so many that their queries fill tall tiles. */
INLINE int64_t block_tokens(const Decoder *d) {
    int64_t tokens = 3 * LANES * d->num_key_heads / d->num_heads;
    return tokens > 1 ? tokens : 1;
}

INLINE int64_t score_stride(const Step *step) { return (step->num_columns + LANES) / LANES * LANES; }

INLINE int64_t place_own(const Decoder *d, const Step *step, float *at, Own *own) {
    int64_t n = step->tokens * d->hidden, seen = d->num_heads * d->head_dim;
    int64_t queries = lesser(step->tokens, block_tokens(d)) * d->num_heads / d->num_key_heads;
    int64_t widest = d->inner > d->hidden ? d->inner : d->hidden;
    int64_t rows = step->tokens > queries ? step->tokens : queries;
    own->x = at;
    own->normed = own->x + n;
    own->queries = own->normed + n;
    own->weights = own->queries + queries * d->head_dim;
    own->spare = own->weights + (queries + 3 * LANES) * score_stride(step);
    return own->spare + spare_size(rows, seen > widest ? seen : widest) + APART - at;
}

/* All threads'; at the start of `work`, behind the work of each phase. */
typedef struct {
    int64_t *blocks; /* the first token of each block of attention; behind the last one the number of tokens */
    float *qkv, *seen, *gate_up, *y; /* [tokens, outputs] */
} Shared;

INLINE Work work_of(const Step *step, int64_t layer, int64_t phase, int64_t thread) {
    return (Work){(uint64_t *)step->work + (layer * PHASES + phase) * step->num_threads, thread, step->num_threads};
}

/* Where the memory behind it begins. */
INLINE float *place_shared(const Decoder *d, const Step *step, Shared *all) {
    int64_t n = step->tokens, seen = d->num_heads * d->head_dim;
    all->blocks = (int64_t *)step->work + (PHASES * d->num_layers + 1) * step->num_threads;
    all->qkv = (float *)(all->blocks + n + 1);
    all->seen = all->qkv + n * (seen + 2 * d->num_key_heads * d->head_dim);
    all->gate_up = all->seen + n * seen;
    all->y = all->gate_up + n * 2 * d->inner;
    return all->y + n * d->hidden + APART;
}

/* Numbers that `work` must have room for. */
int64_t NAME(work_size)(const Decoder *d, const Step *step) {
    Shared all;
    Own own;
    return place_shared(d, step, &all) - step->work + step->num_threads * place_own(d, step, step->work, &own);
}

/* Tokens of a slot at positions one after the other, up to `most` of them; how many blocks there are. */
INLINE int64_t divide(const Step *step, int64_t most, int64_t *blocks) {
    int64_t num = 0;
    for (int64_t t = 0; t < step->tokens; t++)
        if (t == 0 || t - blocks[num - 1] == most || step->slots[t] != step->slots[t - 1] ||
            step->positions[t] != step->positions[t - 1] + 1)
            blocks[num++] = t;
    blocks[num] = step->tokens;
    return num;
}

INLINE void begin_all(const Decoder *d, const Step *step) {
    Shared all;
    place_shared(d, step, &all);
    int64_t blocks = divide(step, block_tokens(d), all.blocks), heads = d->num_heads + 2 * d->num_key_heads;
    const struct {
        int64_t size, least;
    } phases[PHASES] = {
        [QKV] = {heads * d->head_dim, LEAST},
        [ENTER] = {step->tokens * d->num_key_heads, 1},
        [ATTEND] = {blocks * d->num_key_heads, 1},
        [OUT] = {d->hidden, LEAST},
        [GATE_UP] = {d->inner, INNER_LEAST},
        [DOWN] = {d->hidden, LEAST},
    };
    for (int64_t l = 0; l < d->num_layers; l++)
        for (int p = 0; p < PHASES; p++)
            begin(work_of(step, l, p, 0).left, phases[p].size, phases[p].least, step->num_threads);
    begin(work_of(step, d->num_layers, 0, 0).left, d->vocab, LEAST, step->num_threads);
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
    int64_t slot = step->slots[token];
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
ONCE void weigh(const Decoder *d, float *scores, int64_t num_keys, int64_t first, int64_t last) {
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

/* As `weigh` for LANES queries, a lane each, with keys oldest..last; not divided by the sums, which are `totals`. */
ONCE void weigh_many(const Decoder *d, float *scores, int64_t stride, int64_t num_keys, ints oldest, ints last,
                     float *totals) {
    vec nothing = spread(-INFINITY), most = nothing, total = spread(0);
    for (int64_t c = 0; c < num_keys; c++) {
        ints key = (int32_t)c - (ints){0};
        vec s = *(vec_u *)(scores + c * stride) * d->scale;
        if (d->softcap) s = d->softcap * tangent(s / d->softcap);
        s = pick((key >= oldest) & (key <= last), s, nothing);
        *(vec_u *)(scores + c * stride) = s;
        most = pick(s > most, s, most);
    }
    for (int64_t c = 0; c < num_keys; c++) {
        vec s = *(vec_u *)(scores + c * stride), e = pick(s > nothing, exponential(s - most), spread(0));
        *(vec_u *)(scores + c * stride) = e;
        total += e;
    }
    *(vec_u *)totals = total;
}

/* Weights of queries and keys, each so many numbers after the one before. */
typedef struct {
    const float *at;
    int64_t by_query, by_key;
} Weights;

/* seen[num][dim] += weights[num][num_keys] values[num_keys][dim], for QUERIES or fewer. */
INLINE void mix_tile(Weights weights, int num, const void *values, int64_t at, int64_t num_keys, int64_t dim,
                     float *seen, Ahead *next, int is_bf16) {
    for (int64_t i = 0; i < dim; i += VECS * LANES) {
        int num_vecs = (int)lesser((dim - i) / LANES, VECS);
        vec acc[QUERIES][VECS];
        for (int q = 0; q < num; q++)
            for (int k = 0; k < VECS; k++)
                acc[q][k] = k < num_vecs ? (vec) * (vec_u *)(seen + q * dim + i + k * LANES) : (vec){0};
        for (int64_t c = 0; c < num_keys; c++) {
            vec v[VECS];
            if (next) fetch(next, (int)(VECS * LANES * num_bytes(is_bf16) / LINE));
            for (int k = 0; k < VECS; k++)
                v[k] = load(values, at + c * dim + i + (k < num_vecs ? k : 0) * LANES, is_bf16);
            for (int q = 0; q < num; q++)
                for (int k = 0; k < VECS; k++) acc[q][k] += v[k] * weights.at[q * weights.by_query + c * weights.by_key];
        }
        for (int q = 0; q < num; q++)
            for (int k = 0; k < num_vecs; k++) *(vec_u *)(seen + q * dim + i + k * LANES) = acc[q][k];
    }
}

/* A block of values stays in the first cache for all queries; if these are few, `next` is fetched meanwhile. */
INLINE void mix(Weights weights, int64_t num, const void *values, int64_t at, int64_t num_keys, int64_t dim,
                float *seen, Ahead *next, int is_bf16) {
    memset(seen, 0, num * dim * sizeof(float));
    for (int64_t block = 0; block < num_keys; block += KEY_BLOCK) {
        int64_t keys = lesser(num_keys - block, KEY_BLOCK), from = at + block * dim;
        for (int64_t q = 0; q < num; q += QUERIES) {
            Weights w = {weights.at + q * weights.by_query + block * weights.by_key, weights.by_query, weights.by_key};
#define TILE(n, next) mix_tile(w, n, values, from, keys, dim, seen + q * dim, next, is_bf16)
            if (num > QUERIES && num - q >= QUERIES) {
                TILE(QUERIES, 0);
                continue;
            }
            switch (num - q) {
                case 1: TILE(1, next); break;
                case 2: TILE(2, next); break;
#if SUMS > 12
                case 3: TILE(3, next); break;
                case 4: TILE(4, next); break;
                case 5: TILE(5, next); break;
#endif
                default: TILE(QUERIES, next);
            }
#undef TILE
        }
    }
}

/* The position of the first key that a token looks at. */
INLINE int64_t oldest_key(const Layer *layer, int64_t position) {
    return layer->window && position >= layer->window ? position - layer->window + 1 : 0;
}

/* Where the keys begin that this token and later ones of its slot look at; `first` is their first position. */
INLINE int64_t first_key(const Decoder *d, const Layer *layer, const Step *step, int64_t token, int64_t key_head,
                         int64_t *first) {
    int64_t slot = step->slots[token];
    *first = oldest_key(layer, step->positions[token]);
    return ((slot * d->num_key_heads + key_head) * step->num_columns + *first) * d->head_dim;
}

/* What queries see that are so many that each is a lane; `keys` begin at the position `first`. */
INLINE void see_many(const Decoder *d, const Layer *layer, const Input *in, const int64_t *positions, int64_t group,
                     int64_t first, const void *keys, const void *values, int64_t at, int64_t num_keys, Own own,
                     int is_bf16) {
    int64_t dim = in->size, stride = in->padded;
    float totals[3 * LANES];
    memset(own.weights, 0, num_keys * stride * sizeof(float));
    (is_bf16 ? turned_bfloat16 : turned_float32)(in, keys, num_keys, own.weights);
    for (int64_t start = 0; start < in->rows; start += 3 * LANES) {
        int64_t num = lesser(in->rows - start, 3 * LANES);
        for (int64_t q = 0; q < num; q += LANES) {
            ints oldest = {0}, last = {0};
            for (int i = 0; i < LANES; i++) {
                int64_t position = start + q + i < in->rows ? positions[(start + q + i) / group] : -1;
                oldest[i] = position < 0 ? 0 : (int32_t)(oldest_key(layer, position) - first);
                last[i] = position < 0 ? -1 : (int32_t)(position - first);
            }
            weigh_many(d, own.weights + start + q, stride, num_keys, oldest, last, totals + q);
        }
        mix((Weights){own.weights + start, 1, stride}, num, values, at, num_keys, dim, own.queries + start * dim, 0,
            is_bf16);
        for (int64_t q = 0; q < num; q++)
            for (int64_t i = 0; i < dim; i += LANES)
                *(vec_u *)(own.queries + (start + q) * dim + i) *= spread(1.0f / totals[q]);
    }
}

/* What the queries of one key head see, for the tokens of a block. Meanwhile its values are fetched, and `next`. */
INLINE void attend(const Decoder *d, const Layer *layer, const Slots *slots, const Step *step, int64_t token,
                   int64_t num_tokens, int64_t key_head, Ahead *next, const float *qkv, float *seen, Own own,
                   int is_bf16) {
    int64_t dim = d->head_dim, group = d->num_heads / d->num_key_heads, stride = score_stride(step);
    int64_t heads = (d->num_heads + 2 * d->num_key_heads) * dim, num = num_tokens * group, first;
    const int64_t *positions = step->positions + token;
    int64_t at = first_key(d, layer, step, token, key_head, &first), num_keys = positions[num_tokens - 1] - first + 1;
    for (int64_t t = 0; t < num_tokens; t++)
        memcpy(own.queries + t * group * dim, qkv + (token + t) * heads + key_head * group * dim,
               group * dim * sizeof(float));
    Input in = input(own.queries, dim, num, dim, own.spare);
    const void *keys = (const char *)slots->keys + at * num_bytes(is_bf16);
    if (in.vecs) {
        see_many(d, layer, &in, positions, group, first, keys, slots->values, at, num_keys, own, is_bf16);
    } else {
        Ahead values = ahead(slots->values, at, num_keys * dim, 0, is_bf16);
        product(&in, keys, 0, (Range){0, num_keys}, own.weights, stride, &values, is_bf16);
        for (int64_t q = 0; q < num; q++) {
            int64_t position = positions[q / group], oldest = oldest_key(layer, position);
            weigh(d, own.weights + q * stride, num_keys, oldest > first ? oldest - first : 0, position - first);
        }
        mix((Weights){own.weights, stride, 1}, num, slots->values, at, num_keys, dim, own.queries, next, is_bf16);
    }
    for (int64_t t = 0; t < num_tokens; t++)
        memcpy(seen + ((token + t) * d->num_heads + key_head * group) * dim, own.queries + t * group * dim,
               group * dim * sizeof(float));
}

/* -- the forward --------------------------------------------------------------------------------------- */

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

/* Keys and values of new tokens, and what these see, of key heads that this thread takes. */
INLINE void attention(const Decoder *d, const Layer *layer, const Slots *slots, const Step *step, Shared all, Own own,
                      Work entries, Work work, int is_bf16) {
    int64_t heads = (d->num_heads + 2 * d->num_key_heads) * d->head_dim, num_heads = d->num_key_heads, first;
    int are_apart = 1; /* each is of another slot */
    for (int64_t t = 1; t < step->tokens; t++) are_apart &= step->slots[t] > step->slots[t - 1];
    if (!are_apart) { /* they look at each other */
        for (Range r; take(entries, 1, &r);)
            for (int64_t u = r.start; u < r.stop; u++)
                enter(d, layer, slots, step, u / num_heads, u % num_heads, all.qkv + u / num_heads * heads, is_bf16);
#pragma omp barrier
    }
    for (Range r; take(work, 1, &r);)
        for (int64_t u = r.start; u < r.stop; u++) {
            int64_t key_head = u % num_heads, *block = all.blocks + u / num_heads, token = block[0];
            if (are_apart) enter(d, layer, slots, step, token, key_head, all.qkv + token * heads, is_bf16);
            int64_t then = key_head + 1 == num_heads && block[1] < step->tokens ? block[1] : token;
            int64_t from = first_key(d, layer, step, then, (key_head + 1) % num_heads, &first);
            Ahead next = ahead(slots->keys, from, (step->positions[then] - first + 1) * d->head_dim, 0, is_bf16);
            attend(d, layer, slots, step, token, block[1] - token, key_head, &next, all.qkv, all.seen, own, is_bf16);
        }
}

INLINE void logits(const Decoder *d, const Step *step, Own own, Work work, int is_bf16) {
    int64_t hidden = d->hidden, num = step->num_last;
    for (int64_t i = 0; i < num; i++)
        rms_norm(own.x + step->lasts[i] * hidden, hidden, d->norm, d->eps, own.normed + i * hidden);
    Input in = input(own.normed, hidden, num, hidden, own.spare);
    for (Range r; take(work, LEAST, &r);) {
        product(&in, d->head, d->head_bias, r, step->logits, d->vocab, 0, is_bf16);
        for (int64_t i = 0; d->logit_softcap && i < num; i++)
            for (int64_t o = r.start; o < r.stop; o++) {
                float *to = step->logits + i * d->vocab + o;
                *to = d->logit_softcap * tangent(spread(*to / d->logit_softcap))[0];
            }
    }
}

INLINE void run(const Decoder *d, const Slots *slots, const Step *step, int64_t thread, int is_bf16) {
    int64_t n = step->tokens, hidden = d->hidden, inner = d->inner;
    int64_t seen_size = d->num_heads * d->head_dim, heads = seen_size + 2 * d->num_key_heads * d->head_dim;
    Shared all;
    Own own;
    float *at = place_shared(d, step, &all);
    int64_t own_size = place_own(d, step, at, &own);
    place_own(d, step, at + thread * own_size, &own);
    memcpy(own.x, step->embedded, n * hidden * sizeof(float));

    for (int64_t l = 0; l < d->num_layers; l++) {
        const Layer *layer = d->layers + l;
        norm_all(own.x, n, hidden, layer->attention_norm, d->eps, own.normed);
        Input in = input(own.normed, hidden, n, hidden, own.spare);
        for (Range r; take(work_of(step, l, QKV, thread), LEAST, &r);)
            product(&in, layer->qkv, layer->qkv_bias, r, all.qkv, heads, 0, is_bf16);
#pragma omp barrier
        attention(d, layer, slots + l, step, all, own, work_of(step, l, ENTER, thread), work_of(step, l, ATTEND, thread),
                  is_bf16);
#pragma omp barrier
        in = input(all.seen, seen_size, n, seen_size, own.spare);
        for (Range r; take(work_of(step, l, OUT, thread), LEAST, &r);)
            product(&in, layer->out, layer->out_bias, r, all.y, hidden, 0, is_bf16);
#pragma omp barrier
        add(own.x, all.y, n, hidden, layer->attention_out_norm, d->eps, own.normed);
        norm_all(own.x, n, hidden, layer->feed_forward_norm, d->eps, own.normed);
        in = input(own.normed, hidden, n, hidden, own.spare);
        for (Range r; take(work_of(step, l, GATE_UP, thread), INNER_LEAST, &r);) {
            Range up = {inner + r.start, inner + r.stop};
            product(&in, layer->gate_up, layer->gate_up_bias, r, all.gate_up, 2 * inner, 0, is_bf16);
            product(&in, layer->gate_up, layer->gate_up_bias, up, all.gate_up, 2 * inner, 0, is_bf16);
            gate(all.gate_up, n, inner, r, d->activation);
        }
#pragma omp barrier
        in = input(all.gate_up, 2 * inner, n, inner, own.spare);
        for (Range r; take(work_of(step, l, DOWN, thread), LEAST, &r);)
            product(&in, layer->down, layer->down_bias, r, all.y, hidden, 0, is_bf16);
#pragma omp barrier
        add(own.x, all.y, n, hidden, layer->feed_forward_out_norm, d->eps, own.normed);
    }
    logits(d, step, own, work_of(step, d->num_layers, 0, thread), is_bf16);
}

void NAME(forward)(const Decoder *d, const Slots *slots, const Step *step) {
    begin_all(d, step);
#pragma omp parallel num_threads((int)step->num_threads)
    if (d->is_bf16)
        run(d, slots, step, omp_get_thread_num(), 1);
    else
        run(d, slots, step, omp_get_thread_num(), 0);
}
