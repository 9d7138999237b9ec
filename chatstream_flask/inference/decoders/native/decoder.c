/* What Python calls: the forward that is compiled for the processor at hand. */

#include "interface.h"

typedef struct {
    int64_t (*work_size)(const Decoder *d, const Step *step);
    void (*forward)(const Decoder *d, const Slots *slots, const Step *step);
} Code;

#define CODE(kind)                                                             \
    int64_t work_size_##kind(const Decoder *d, const Step *step);              \
    void forward_##kind(const Decoder *d, const Slots *slots, const Step *step); \
    static const Code kind = {work_size_##kind, forward_##kind};

CODE(plain)
#ifdef CHOOSES
CODE(avx2)
CODE(avx512)
#endif

static Code code_for(const Decoder *d) {
#ifdef CHOOSES
    int has_avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                     __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    if (has_avx512 && (d->hidden | d->head_dim | d->inner) % 16 == 0) return avx512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return avx2;
#endif
    return plain;
}

int64_t work_size(const Decoder *d, const Step *step) { return code_for(d).work_size(d, step); }

void forward(const Decoder *d, const Slots *slots, const Step *step) { code_for(d).forward(d, slots, step); }
