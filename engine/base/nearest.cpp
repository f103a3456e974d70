#include "engine/base/nearest.h"

#include <algorithm>
#include <cctype>

namespace sextant {
namespace {

// Longer input is nobody's typing error; the quadratic table stays small whatever a client sends.
constexpr size_t kMaxNameBytes = 128;

std::string folded(std::string_view name) {
  std::string result(name);
  for (char& c : result) c = c == '-' ? '_' : static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return result;
}

}  // namespace

size_t edit_distance(std::string_view raw_a, std::string_view raw_b) {
  const std::string a = folded(raw_a);
  const std::string b = folded(raw_b);
  std::vector<size_t> before_last(b.size() + 1);
  std::vector<size_t> last(b.size() + 1);
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) last[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      row[j] = std::min({last[j] + 1, row[j - 1] + 1, last[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1)});
      const bool swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
      if (swapped) row[j] = std::min(row[j], before_last[j - 2] + 1);
    }
    std::swap(before_last, last);
    std::swap(last, row);
  }
  return last[b.size()];
}

std::optional<std::string> nearest_name(std::string_view name, std::span<const std::string> candidates) {
  if (name.empty() || name.size() > kMaxNameBytes) return std::nullopt;
  const std::string* best = nullptr;
  size_t best_distance = 0;
  for (const std::string& candidate : candidates) {
    const size_t distance = edit_distance(name, candidate);
    if (best == nullptr || distance < best_distance) {
      best = &candidate;
      best_distance = distance;
    }
  }
  if (best == nullptr) return std::nullopt;
  if (best_distance <= std::max<size_t>(1, std::max(name.size(), best->size()) / 3)) return *best;
  // "max_len" is far from "max_model_len_tokens" by distance; a shared beginning still says what was meant.
  const std::string wanted = folded(name);
  for (const std::string& candidate : candidates) {
    const std::string known = folded(candidate);
    if (wanted.size() >= 3 && known.size() >= 3 && (known.starts_with(wanted) || wanted.starts_with(known))) {
      return candidate;
    }
  }
  return std::nullopt;
}

}  // namespace sextant
