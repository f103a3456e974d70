// Sums between ranks in host memory: over the ranks in order, in fp32, rounded once, so that every communicator of the host gives
// the same bits. Pure.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "engine/base/dtype.h"

namespace sextant {

// Elements [begin, end) of the sum of `from` (by rank), written to the same places of each of `to`; float32, bfloat16, float16.
// Inputs may be outputs.
void sum_range(DType dtype, const std::vector<const std::byte*>& from, const std::vector<std::byte*>& to, int64_t begin,
               int64_t end);

}  // namespace sextant
