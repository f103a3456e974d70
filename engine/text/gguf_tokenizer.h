// The tokenizer inside a GGUF file.
#pragma once

#include <memory>

#include "engine/base/result.h"
#include "engine/format/gguf.h"
#include "engine/text/tokenizer.h"

namespace sextant {

// Errors name the file and the key.
Result<std::unique_ptr<Tokenizer>> load_gguf_tokenizer(const GgufFile& file);

}  // namespace sextant
