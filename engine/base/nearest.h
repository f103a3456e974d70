// The known name that a mistyped one most likely meant: for messages about unknown flags, fields, keys and models.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace sextant {

// Insertions, deletions, substitutions and swaps of neighbours, each 1 (optimal string alignment distance).
// Letters of different case and '-' against '_' count as equal.
size_t edit_distance(std::string_view a, std::string_view b);

// The candidate with the smallest distance, when that is at most a third of the longer name (at least 1), or when one
// of the two begins with the other; nothing when none is near. Of equals the first.
std::optional<std::string> nearest_name(std::string_view name, std::span<const std::string> candidates);

}  // namespace sextant
