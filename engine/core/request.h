// Request: what one API call asked of the engine, in token ids. Immutable after submit; shared by its sequences.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/core/sampling_params.h"

namespace sextant {

using RequestId = uint64_t;   // unique in the life of an engine
using SequenceId = uint64_t;  // likewise; one per choice of a request
using BlockId = int32_t;      // 0 is the null block: never allocated, takes the rows of padding

enum class FinishReason {
  kStop,    // a stop token, or a stop string found on the text side
  kLength,  // max_tokens or max_model_len
  kAbort,   // the client went away, or the server is stopping
  kError,   // the device failed
};

struct Request {
  RequestId request_id = 0;
  std::vector<int32_t> prompt_token_ids;  // at least one; each inside the vocabulary
  SamplingParams sampling;
  int32_t priority = 0;    // lower runs first under scheduling_policy "priority"
  std::string cache_salt;  // separates prefix caches: equal prompts with other salts share nothing
  std::string tenant;      // likewise
  int64_t arrival_ns = 0;  // engine clock; orders requests of one priority
};

}  // namespace sextant
