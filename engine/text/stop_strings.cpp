// One automaton per stop string: each byte of text costs the same however long the strings are.
#include "engine/text/stop_strings.h"

#include <algorithm>

#include "engine/base/check.h"

namespace sextant {

StopStrings::StopStrings(std::vector<std::string> stops, bool include_stop_in_output)
    : include_stop_in_output_(include_stop_in_output) {
  for (std::string& stop : stops) {
    CHECK(!stop.empty());
    std::vector<size_t> fallback(stop.size(), 0);
    size_t border = 0;
    for (size_t i = 1; i < stop.size(); ++i) {
      while (border > 0 && stop[i] != stop[border]) border = fallback[border - 1];
      if (stop[i] == stop[border]) ++border;
      fallback[i] = border;
    }
    stops_.push_back({std::move(stop), std::move(fallback), 0});
  }
}

StopStrings::Result StopStrings::append(std::string_view text) {
  Result result;
  if (done_) return result;
  size_t i = held_.size();
  held_ += text;
  for (; i < held_.size(); ++i) {
    const Progress* found = nullptr;
    for (Progress& p : stops_) {
      while (p.num_matched > 0 && p.stop[p.num_matched] != held_[i]) p.num_matched = p.fallback[p.num_matched - 1];
      if (p.stop[p.num_matched] == held_[i]) ++p.num_matched;
      if (p.num_matched < p.stop.size()) continue;
      if (found == nullptr) found = &p;
      p.num_matched = p.fallback.back();
    }
    if (found == nullptr) continue;
    done_ = true;
    result.matched = found->stop;
    const size_t end = i + 1 - (include_stop_in_output_ ? 0 : found->stop.size());
    result.text = held_.substr(held_begin_, end - held_begin_);
    held_.clear();
    held_begin_ = 0;
    return result;
  }
  size_t num_pending = 0;
  for (const Progress& p : stops_) num_pending = std::max(num_pending, p.num_matched);
  result.text = held_.substr(held_begin_, held_.size() - num_pending - held_begin_);
  held_begin_ = held_.size() - num_pending;
  if (held_begin_ > num_pending) {  // moving what is held pays for itself
    held_.erase(0, held_begin_);
    held_begin_ = 0;
  }
  return result;
}

std::string StopStrings::flush() {
  std::string text = held_.substr(held_begin_);
  held_.clear();
  held_begin_ = 0;
  for (Progress& p : stops_) p.num_matched = 0;
  return text;
}

}  // namespace sextant
