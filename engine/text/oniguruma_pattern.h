// Translates a regular expression in Oniguruma's (Ruby) syntax, in which tokenizer.json files are written, into PCRE2's
// where the two give the same text different meanings. Pure; any thread.
#pragma once

#include <string>
#include <string_view>

#include "engine/base/result.h"

namespace sextant {

// Refuses what cannot be said (nested classes, class intersections) or must not be (PCRE2's "(*VERB)").
Result<std::string> oniguruma_to_pcre2(std::string_view pattern);

}  // namespace sextant
