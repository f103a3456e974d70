#include "engine/device/backend_needs.h"

#include <string>

namespace sextant {

Status check_attention(const AttentionKinds& kinds) {
  for (const AttentionParams& kind : kinds) {
    if (kind.num_kv_heads < 1 || kind.num_heads < 1 || kind.num_heads % kind.num_kv_heads != 0) {
      return unsupported("the number of query heads (" + std::to_string(kind.num_heads) +
                         ") must be a multiple of the number of key and value heads (" +
                         std::to_string(kind.num_kv_heads) + ")");
    }
    if (kind.sliding_window < 0 || kind.logit_softcap < 0) {
      return unsupported("a sliding window and a soft-cap of attention scores cannot be negative");
    }
    if (kind.num_heads != kinds[0].num_heads || kind.num_kv_heads != kinds[0].num_kv_heads ||
        kind.head_dim != kinds[0].head_dim) {
      return unsupported("layers with different heads are not supported: windows, scales and soft-caps may differ");
    }
  }
  return ok_status();
}

}  // namespace sextant
