// The part of a step's inputs that only the device knows.
//
// last_token_on_device: token_ids[positions[i]] = sampled[rows[i]], for i < count: the token that the step before chose
// for its row rows[i] becomes this step's token at positions[i]. For steps that are scheduled before the one before has
// ended.
//
// All arrays int32 in device memory: token_ids of this step, sampled of the step before (another array), rows and
// positions [count]. Positions differ from one another; one that is negative is skipped: the padding of a captured
// graph. One thread per entry, 256 per block. 16 bytes per entry; bound by the launch.
// Determinism: values are copied.
#pragma once

#include <cstdint>

#include "kernels/cuda/types.h"

namespace sextant::kernels::cuda {

struct LastTokenArgs {
  int32_t* token_ids;
  const int32_t* sampled;
  const int32_t* rows;
  const int32_t* positions;
  int32_t count;
};
int last_token_on_device(const LastTokenArgs& args, Stream stream);

}  // namespace sextant::kernels::cuda
