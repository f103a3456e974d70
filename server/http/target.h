// The request target (RFC 9112, section 3.2) as a decoded path and a raw query. Pure.
#pragma once

#include <string>
#include <string_view>

#include "engine/base/result.h"

namespace sextant::http {

struct Target {
  std::string path;   // percent-decoded once; "*" for OPTIONS *
  std::string query;  // raw, without '?'
};

// Origin form, or absolute form (its authority is dropped). Refused: broken percent escapes, fragments, and
// control characters, also those written as escapes. Dot segments are kept as they are: routes compare whole
// paths.
Result<Target> parse_target(std::string_view method, std::string_view target);

}  // namespace sextant::http
