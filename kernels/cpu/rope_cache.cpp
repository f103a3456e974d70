// Rotary embedding and the cache write (rope_cache.h). Compiled once per instruction set.
#include "kernels/rope_cache.h"

#include "kernels/cpu/isa_entries.h"
#include "kernels/cpu/simd.h"

SEXTANT_DECLARE_ISA_ENTRIES(SEXTANT_ISA)

namespace sextant::kernels::cpu::SEXTANT_ISA {
namespace {

SEXTANT_INLINE int lanes_left(int64_t n) { return n >= 16 ? 16 : static_cast<int>(n); }

SEXTANT_INLINE void rotate_head(float* x, const float* cos, const float* sin, int64_t half) {
  for (int64_t i = 0; i < half; i += 16) {
    const int n = lanes_left(half - i);
    const F32x16 a = load_n(x + i, n), b = load_n(x + half + i, n);
    const F32x16 c = load_n(cos + i, n), s = load_n(sin + i, n);
    store_n(x + i, fma(a, c, negate(mul(b, s))), n);
    store_n(x + half + i, fma(b, c, mul(a, s)), n);
  }
}

template <typename Element>
SEXTANT_INLINE void write_head(const RopeCacheArgs& args, int32_t head, int64_t slot, const float* key,
                               const float* value) {
  constexpr bool kPairs = sizeof(Element) == 2;
  const KvCellLayout& layout = args.layout;
  const int64_t block = slot / layout.block_size;
  const int32_t place = static_cast<int32_t>(slot % layout.block_size);
  Element* cache = static_cast<Element*>(args.cache);
  for (int32_t d = 0; d < layout.head_dim; d += 16) {
    const int n = lanes_left(layout.head_dim - d);
    Element* keys = cache + layout.key_offset(block, head, place, d, kPairs);
    Element* values = cache + layout.value_offset(block, head, place, d, kPairs);
    Element lane[16];
    store_element16(lane, load_n(key + d, n));
    if constexpr (kPairs) {
      for (int i = 0; i < n; i += 2) __builtin_memcpy(keys + i * kKvTile, lane + i, 4);  // n is even: head_dim is
      store_element16(lane, load_n(value + d, n));
      for (int i = 0; i < 16; ++i) values[2 * i] = lane[i];
    } else {
      for (int i = 0; i < n; ++i) keys[i * kKvTile] = lane[i];
      store_element16(values, load_n(value + d, n));  // the padding up to value_dim becomes 0
    }
  }
}

}  // namespace

void rope_and_cache(const RopeCacheArgs& args) {
  const int64_t dim = args.layout.head_dim, half = args.rotary_dim / 2;
  for (int64_t t = 0; t < args.rows; ++t) {
    float* q = args.qkv + t * args.qkv_stride;
    float* k = q + args.num_heads * dim;
    float* v = k + args.layout.num_kv_heads * dim;
    const float* cos = args.cos + args.positions[t] * half;
    const float* sin = args.sin + args.positions[t] * half;
    for (int32_t h = 0; h < args.num_heads + args.layout.num_kv_heads; ++h) rotate_head(q + h * dim, cos, sin, half);
    for (int32_t h = 0; h < args.layout.num_kv_heads; ++h) {
      if (args.cache_is_bf16) {
        write_head<uint16_t>(args, h, args.slots[t], k + h * dim, v + h * dim);
      } else {
        write_head<float>(args, h, args.slots[t], k + h * dim, v + h * dim);
      }
    }
  }
}

}  // namespace sextant::kernels::cpu::SEXTANT_ISA
