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
  const size_t num_held = held_.size();
  held_ += text;
  for (size_t i = num_held; i < held_.size(); ++i) {
    const Progress* found = nullptr;
    for (Progress& p : stops_) {
      while (p.num_matched > 0 && p.stop[p.num_matched] != held_[i]) p.num_matched = p.fallback[p.num_matched - 1];
      if (p.stop[p.num_matched] == held_[i]) ++p.num_matched;
      if (p.num_matched == p.stop.size() && found == nullptr) found = &p;
      if (p.num_matched == p.stop.size()) p.num_matched = p.fallback.back();
    }
    if (found == nullptr) continue;
    done_ = true;
    result.matched = found->stop;
    result.text = held_.substr(0, i + 1 - (include_stop_in_output_ ? 0 : found->stop.size()));
    held_.clear();
    return result;
  }
  size_t num_pending = 0;
  for (const Progress& p : stops_) num_pending = std::max(num_pending, p.num_matched);
  result.text = held_.substr(0, held_.size() - num_pending);
  held_.erase(0, held_.size() - num_pending);
  return result;
}

std::string StopStrings::flush() {
  std::string text;
  text.swap(held_);
  for (Progress& p : stops_) p.num_matched = 0;
  return text;
}

}  // namespace sextant
