// What the names in GGUF's tokenizer.ggml.pre stand for: the pre-tokenizer of the model family's own tokenizer.json,
// which GGUF does not carry. Pure data; any thread.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/text/pre_tokenizer.h"
#include "engine/text/text_normalizer.h"

namespace sextant {

struct PreTokenizerFamily {
  std::vector<NormalizerStep> normalizer;
  std::vector<PreTokenizerStep> steps;
  bool ignore_merges = false;
  bool add_bos_token = false;  // where the file does not say
};

// Nothing for an unknown name.
std::optional<PreTokenizerFamily> pre_tokenizer_family(std::string_view name);
// All names, for messages: "a, b, c".
std::string known_pre_tokenizer_families();

}  // namespace sextant
