/* The functions that Python calls: they dispatch to the build for the CPU at hand. */

#include "interface.h"

#ifdef CPU_DISPATCH
#include <cpuid.h>
#endif

typedef struct {
    int64_t (*work_size)(const Decoder *d, const Step *step);
    void (*forward)(const Decoder *d, const LayerCache *cache, const Step *step);
} Build;

#define BUILD(isa)                                                                   \
    int64_t work_size_##isa(const Decoder *d, const Step *step);                     \
    void forward_##isa(const Decoder *d, const LayerCache *cache, const Step *step); \
    static const Build isa = {work_size_##isa, forward_##isa};

BUILD(plain)
#ifdef CPU_DISPATCH
BUILD(avx2)
BUILD(avx512)
#endif

#ifdef CPU_DISPATCH
/* Return whether the CPU converts float16; compilers before GCC 11 do not know its name. */
static int has_f16c(void) {
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}
#endif

static Build build_for(const Decoder *d) {
#ifdef CPU_DISPATCH
    int has_avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                     __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    if (has_avx512 && (d->hidden_size | d->head_dim | d->intermediate_size) % 16 == 0) return avx512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c()) return avx2;
#endif
    return plain;
}

/* Return the number of floats that step->work must have room for. */
int64_t work_size(const Decoder *d, const Step *step) { return build_for(d).work_size(d, step); }

/* Store the keys and values of the step's tokens in the cache and compute their logits. */
void forward(const Decoder *d, const LayerCache *cache, const Step *step) { build_for(d).forward(d, cache, step); }
