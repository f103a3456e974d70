// Names from untrusted files and servers, made safe and short enough for a message.
#pragma once

#include <string>
#include <string_view>

namespace sextant {

// In single quotes; control characters, quotes and bytes outside ASCII as \xNN; cut after `max_chars` with
// "...".
std::string printable(std::string_view text, size_t max_chars = 120);

}  // namespace sextant
