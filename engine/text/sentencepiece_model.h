// What must be known of a sentencepiece model (a serialized protobuf, ModelProto) beyond what the library tells, and
// checks that the library does not make. Pure.
#pragma once

#include <string_view>

#include "engine/base/result.h"

namespace sextant {

struct SentencePieceModelFacts {
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = true;
  bool has_denormalizer = false;
};

// Refuses what is truncated or would send the library outside its tables.
Result<SentencePieceModelFacts> inspect_sentencepiece_model(std::string_view serialized);

// Appended to a serialized ModelProto, this turns add_dummy_prefix off: of a repeated message field the parts merge.
inline constexpr std::string_view kNoDummyPrefixPatch("\x1A\x02\x18\x00", 4);

}  // namespace sextant
