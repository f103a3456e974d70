// A sentencepiece model whose pieces a GGUF file holds as keys, as the library wants it.
#pragma once

#include <string>

#include "engine/base/result.h"
#include "engine/format/gguf.h"

namespace sextant {

// A serialized ModelProto (sentencepiece_model.proto): BPE for tokenizer.ggml.model "llama", unigram for "t5". Errors name file and key.
// Sizes and kinds are checked, contents are inspect_sentencepiece_model()'s to check.
Result<std::string> sentencepiece_model_from_gguf(const GgufFile& file, const std::string& model);

}  // namespace sextant
