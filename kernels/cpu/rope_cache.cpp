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
  constexpr KvType kType = kPairs ? KvType::kBf16 : KvType::kFp32;
  const KvCellLayout& layout = args.layout;
  const int64_t block = slot / layout.block_size;
  const int32_t place = static_cast<int32_t>(slot % layout.block_size);
  Element* cache = static_cast<Element*>(args.cache);
  for (int32_t d = 0; d < layout.head_dim; d += 16) {
    const int n = lanes_left(layout.head_dim - d);
    Element* keys = cache + layout.key_offset(block, head, place, d, kType);
    Element* values = cache + layout.value_offset(block, head, place, d, kType);
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

// The scale of a row for int8, and what its elements are multiplied by.
SEXTANT_INLINE float scale_of(const float* x, int32_t head_dim, float* inverse) {
  F32x16 top = zero(), odd = zero();
  for (int32_t d = 0; d < head_dim; d += 16) {
    const F32x16 v = load_n(x + d, lanes_left(head_dim - d));
    top = max(top, abs(v));
    odd = add(odd, mul(v, zero()));  // NaN when v is not finite; max would lose it
  }
  const float largest = reduce_max(top) + reduce_add(odd);
  *inverse = largest >= 0x1p-100f ? 127.0f / largest : 0.0f;
  return largest < 0x1p-100f ? 0.0f : largest / 127.0f;
}

SEXTANT_INLINE void quantize(const float* x, int n, float inverse, int8_t* to) {
  float lane[16];
  F32x16 unused;
  const F32x16 rounded = round_scaled(load_n(x, n), broadcast(inverse), &unused);
  store(lane, min(max(rounded, broadcast(-127.0f)), broadcast(127.0f)));  // a number even for NaN
  for (int i = 0; i < 16; ++i) to[i] = static_cast<int8_t>(lane[i]);
}

SEXTANT_INLINE void write_int8_head(const RopeCacheArgs& args, int32_t head, int64_t slot, const float* key,
                                    const float* value) {
  const KvCellLayout& layout = args.layout;
  const int64_t block = slot / layout.block_size;
  const int32_t place = static_cast<int32_t>(slot % layout.block_size);
  int8_t* cache = static_cast<int8_t*>(args.cache);
  float key_inverse, value_inverse;
  const float key_scale = scale_of(key, layout.head_dim, &key_inverse);
  const float value_scale = scale_of(value, layout.head_dim, &value_inverse);
  __builtin_memcpy(cache + layout.key_scale_offset(block, head, place), &key_scale, sizeof(float));
  __builtin_memcpy(cache + layout.value_scale_offset(block, head, place), &value_scale, sizeof(float));
  for (int32_t d = 0; d < layout.head_dim; d += 16) {
    const int n = lanes_left(layout.head_dim - d);
    int8_t lane[16];
    quantize(key + d, n, key_inverse, lane);
    int8_t* keys = cache + layout.key_offset(block, head, place, d, KvType::kInt8);
    for (int i = 0; i < n; i += 2) __builtin_memcpy(keys + i * kKvTile, lane + i, 2);
    quantize(value + d, n, value_inverse, lane);
    int8_t* values = cache + layout.value_offset(block, head, place, d, KvType::kInt8);
    for (int i = 0; i < 16; ++i) values[2 * i] = lane[i];
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
      const float *key = k + h * dim, *value = v + h * dim;
      switch (args.cache_type) {
        case KvType::kFp32: write_head<float>(args, h, args.slots[t], key, value); break;
        case KvType::kBf16: write_head<uint16_t>(args, h, args.slots[t], key, value); break;
        case KvType::kInt8: write_int8_head(args, h, args.slots[t], key, value); break;
      }
    }
  }
}

}  // namespace sextant::kernels::cpu::SEXTANT_ISA
