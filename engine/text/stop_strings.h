// StopStrings: finds the first of several strings in streamed text and holds back what could still become one.
// One per sequence; used by one thread at a time.
#pragma once

#include <cstddef>
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
  // The match that is complete first wins, so that the outcome does not depend on how the text was cut; of several
  // complete at one place the first in the list. After a match there is no more text.
  Result append(std::string_view text);
  // What was held back: there was no match.
  std::string flush();

 private:
  // How much of one stop string the text so far ends with (Knuth, Morris and Pratt).
  struct Progress {
    std::string stop;
    std::vector<size_t> fallback;  // [n]: the longest proper border of the first n + 1 bytes
    size_t num_matched = 0;
  };

  std::vector<Progress> stops_;
  bool include_stop_in_output_;
  bool done_ = false;
  std::string held_;  // from held_begin_ on
  size_t held_begin_ = 0;
};

}  // namespace sextant
