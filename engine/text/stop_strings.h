// StopStrings: finds the first of several strings in streamed text and holds back what could still become one.
// One per sequence; used by one thread at a time.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace sextant {

class StopStrings {
 public:
  // Empty strings are the caller's error (400 before this).
  StopStrings(std::vector<std::string> stops, bool include_stop_in_output);

  struct Result {
    std::string text;                    // safe to send now
    std::optional<std::string> matched;  // the stop string found; nothing follows
  };
  // The earliest match wins; of several at one place the first in the list.
  Result append(std::string_view text);
  // What was held back: there was no match.
  std::string flush();

 private:
  std::vector<std::string> stops_;
  bool include_stop_in_output_;
  size_t longest_ = 0;
  std::string held_;
};

}  // namespace sextant
