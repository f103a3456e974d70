// Hugging Face's tokenizer.json, as far as byte-level BPE goes. Pure: text in, BpeTokenizerSpec out.
#pragma once

#include <string>
#include <string_view>

#include <nlohmann/json_fwd.hpp>

#include "engine/base/result.h"
#include "engine/text/bpe_tokenizer.h"

namespace sextant {

// `name` stands for the file in messages. kUnsupported: a valid file of a kind that is not byte-level BPE.
Result<BpeTokenizerSpec> parse_tokenizer_json(const nlohmann::json& document, const std::string& name);
// The same from text; what the fuzz target feeds.
Result<BpeTokenizerSpec> parse_tokenizer_json_text(std::string_view text, const std::string& name);

// Puts `token` into the spec and its vocabulary; `where` names its place for messages.
Status add_token(const std::string& where, AddedToken token, BpeTokenizerSpec* spec);

}  // namespace sextant
