// scan_chunk: what a benchmark needs of one streamed chunk of an OpenAI-style answer, in one pass over its bytes and without
// a document in memory: it runs for every token. Checks brackets, strings and literals; numbers are read where they are needed.
// Pure.
#pragma once

#include <cstdint>
#include <string_view>

namespace sextant::bench {

struct ChunkFacts {
  bool has_text = false;           // some content, reasoning or tool call text that is not empty
  std::string_view text;           // of the first choice, still JSON-escaped; points into the chunk
  int32_t num_token_ids = 0;       // in choices[*].token_ids
  bool has_token_ids = false;      // the field is there
  bool has_choices = false;        // a choice is there
  std::string_view finish_reason;  // empty: none
  std::string_view error;          // the "error" value's bytes; empty: none
  int64_t prompt_tokens = -1;      // of "usage"; -1: not told
  int64_t completion_tokens = -1;
  int64_t cached_tokens = -1;  // usage.prompt_tokens_details.cached_tokens
};

// False when the bytes are not one JSON object.
bool scan_chunk(std::string_view json, ChunkFacts* facts);

}  // namespace sextant::bench
