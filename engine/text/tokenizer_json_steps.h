// "normalizer" and "pre_tokenizer" of tokenizer.json as our steps. Pure.
#pragma once

#include <vector>

#include "engine/base/result.h"
#include "engine/text/json_fields.h"
#include "engine/text/pre_tokenizer.h"
#include "engine/text/text_normalizer.h"

namespace sextant {

Status read_normalizer(const JsonObject& normalizer, std::vector<NormalizerStep>* steps);
// The steps hold PreTokenizerStep::Kind::kByteAlphabet exactly once; kUnsupported otherwise.
Status read_pre_tokenizer(const JsonObject& pre_tokenizer, std::vector<PreTokenizerStep>* steps);

}  // namespace sextant
