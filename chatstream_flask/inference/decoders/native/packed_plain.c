/* Packed products for all other CPUs. */

#define LANES 8
#define EXPORT(name) name##_plain
#include "packed_panel.h"

#define MAX_SUM(max) 8
#define SIGNED_OFFSET 0

INLINE ivec widened(ivec sum, int is_signed) { return sum; }

INLINE ivec add_products(ivec sum, ivec w, ivec x, int is_signed) {
    for (int i = 0; i < 32; i += 8) {
        ivec value = is_signed ? w << (24 - i) >> 24 : w >> i & 0xff;
        sum += value * (x << (24 - i) >> 24);
    }
    return sum;
}

INLINE void unpack_lanes(int64_t format, const uint8_t *const *rows, int64_t first, int64_t num, Panel *to,
                         Ahead *ahead) {
    fetch_ahead(ahead, 0);
    for (int lane = 0; lane < LANES; lane++)
        for (int64_t b = 0; b < num; b++) {
            Unpacked block = unpack_block(format, rows[lane], first + b);
            for (int g = 0; g < BLOCK / 4; g++) memcpy((int32_t *)&to->values[b][g] + lane, block.values + 4 * g, 4);
            for (int i = 0; i < 2; i++) to->scales[b][i][lane] = block.scales[i];
            to->mins[b][lane] = block.min;
        }
}

#include "packed_product.h"
