// What every backend asks of a model's attention, whatever its own limits are.
#pragma once

#include "engine/base/status.h"
#include "engine/device/backend.h"

namespace sextant {

// Query heads a multiple of KV heads, windows and soft-caps that are not negative, and kinds that share one cache: the same heads.
Status check_attention(const AttentionKinds& kinds);

}  // namespace sextant
