// What filters and str methods share: replacing, padding, splitting. Sizes are charged before anything is
// allocated.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "engine/text/jinja/runtime.h"

namespace sextant::jinja {

// `count` < 0: all occurrences.
std::string replace_text(Runtime& runtime, std::string_view text, std::string_view from, std::string_view to,
                         int64_t count);
enum class Align { kLeft, kCenter, kRight };
// `text` is a string Value; `fill` is one character.
std::string pad_text(Runtime& runtime, const Value& text, int64_t width, std::string_view fill, Align align);
std::vector<std::string_view> split_lines(Runtime& runtime, std::string_view text, bool keep_ends);
// At white space, or at `separator` when it is not empty; `max_splits` < 0: at all of them.
std::vector<std::string_view> split_text(Runtime& runtime, std::string_view text, std::string_view separator,
                                         int64_t max_splits);
std::vector<std::string_view> split_text_from_right(Runtime& runtime, std::string_view text, std::string_view separator,
                                                    int64_t max_splits);
Value list_of_texts(Runtime& runtime, const std::vector<std::string_view>& texts, bool markup);
bool is_markup(const Value& value);

}  // namespace sextant::jinja
