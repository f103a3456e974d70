// The byte tokenizer under the name that tests use.
#pragma once

#include "engine/text/byte_tokenizer.h"

namespace sextant::testing_support {

using sextant::ByteTokenizer;

}  // namespace sextant::testing_support
