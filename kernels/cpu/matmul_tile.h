// What both recipes of matmul.h share: a tile of tokens against a range of panels, and the store of its outputs.
#pragma once

#include "kernels/cpu/simd.h"
#include "kernels/matmul.h"

namespace sextant::kernels::cpu::SEXTANT_ISA {
namespace {

// How many tokens meet how many panels at a time, as registers ask.
struct TileShape {
  int tokens;
  int panels;
};

// One tile of tokens against panels [begin, end).
struct TileJob {
  const MatmulArgs* args;
  int64_t begin;
  int64_t end;
  const uint8_t* input;  // of the tile
  int64_t first_token;
  int num_tokens;  // the rest of the tile is zeros, whose results are dropped
};

SEXTANT_INLINE void store_outputs(const TileJob& job, int64_t panel, int token, F32x16 values) {
  const int64_t row = panel * kPanelRows, left = job.args->rows - row;
  float* out = job.args->out + (job.first_token + token) * job.args->out_stride + row;
  if (left >= kPanelRows) {
    store(out, values);
  } else {
    store_n(out, values, static_cast<int>(left));
  }
}

}  // namespace
}  // namespace sextant::kernels::cpu::SEXTANT_ISA
