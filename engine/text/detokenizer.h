// Detokenizer: turns one sequence's token ids into text as they arrive, never splitting a UTF-8 character.
// One per sequence; used by one thread at a time. Streaming and whole decoding give the same text.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "engine/text/tokenizer.h"

namespace sextant {

class Detokenizer {
 public:
  // `tokenizer` outlives this object.
  Detokenizer(const Tokenizer& tokenizer, bool skip_special_tokens);

  // The text that `ids` completes; an unfinished character is held back until it is complete or known to be invalid.
  std::string append(std::span<const int32_t> ids);
  // What was held back, as U+FFFD; call once at the end.
  std::string flush();

 private:
  const Tokenizer& tokenizer_;
  bool skip_special_tokens_;
  bool at_start_ = true;
  std::string held_bytes_;
};

}  // namespace sextant
