#include "engine/text/jinja/text_operations.h"

#include <algorithm>

#include "engine/text/jinja/operators.h"
#include "engine/text/jinja/unicode.h"

namespace sextant::jinja {

std::string replace_text(Runtime& runtime, std::string_view text, std::string_view from, std::string_view to,
                         int64_t count) {
  runtime.charge_text(text.size());
  std::string out;
  const size_t limit = count < 0 ? SIZE_MAX : static_cast<size_t>(count);
  if (from.empty()) {  // Python puts `to` before every character and at the end
    size_t i = 0;
    for (size_t n = 0; n < limit; ++n) {
      runtime.append(out, to);
      if (i == text.size()) return out;
      const size_t num_bytes = decode_char(text, i).num_bytes;
      runtime.append(out, text.substr(i, num_bytes));
      i += num_bytes;
    }
    runtime.append(out, text.substr(i));
    return out;
  }
  size_t begin = 0;
  for (size_t n = 0; n < limit; ++n) {
    const size_t found = find_text(text, from, begin);
    if (found == std::string_view::npos) break;
    runtime.step();
    runtime.append(out, text.substr(begin, found - begin));
    runtime.append(out, to);
    begin = found + from.size();
  }
  runtime.append(out, text.substr(begin));
  return out;
}

std::string pad_text(Runtime& runtime, const Value& text, int64_t width, std::string_view fill, Align align) {
  if (fill.empty() || decode_char(fill, 0).num_bytes != fill.size()) {
    fail("TypeError: The fill character must be exactly one character long");
  }
  const auto num_present = static_cast<int64_t>(num_chars(runtime, text));
  if (width <= num_present) return text.text();
  const int64_t padding = width - num_present;
  // As str.center: the odd space goes left when the width is odd.
  const int64_t left =
      align == Align::kLeft ? 0 : (align == Align::kRight ? padding : padding / 2 + (padding & width & 1));
  std::string out = repeat_text(runtime, fill, left);
  const std::string right = repeat_text(runtime, fill, padding - left);
  runtime.append(out, text.text());
  runtime.append(out, right);
  return out;
}

std::vector<std::string_view> split_lines(Runtime& runtime, std::string_view text, bool keep_ends) {
  runtime.charge_text(text.size());
  std::vector<std::string_view> lines;
  size_t begin = 0;
  for (size_t i = 0; i < text.size();) {
    const DecodedChar c = decode_char(text, i);
    const size_t end = i;
    i += c.num_bytes;
    if (!is_line_break(c.code_point)) continue;
    if (c.code_point == '\r' && i < text.size() && text[i] == '\n') ++i;
    runtime.charge_items(1);
    runtime.step();
    lines.push_back(text.substr(begin, (keep_ends ? i : end) - begin));
    begin = i;
  }
  if (begin < text.size()) lines.push_back(text.substr(begin));
  return lines;
}

namespace {

std::vector<std::string_view> split_at_space(Runtime& runtime, std::string_view text, int64_t max_splits) {
  std::vector<std::string_view> parts;
  std::string_view rest = strip(text, StripSide::kLeft);
  while (!rest.empty()) {
    runtime.step();
    if (max_splits >= 0 && static_cast<int64_t>(parts.size()) == max_splits) {
      parts.push_back(rest);
      break;
    }
    size_t end = 0;
    while (end < rest.size()) {
      const DecodedChar c = decode_char(rest, end);
      if (is_space(c.code_point)) break;
      end += c.num_bytes;
    }
    parts.push_back(rest.substr(0, end));
    rest = strip(rest.substr(end), StripSide::kLeft);
  }
  return parts;
}

}  // namespace

std::vector<std::string_view> split_text(Runtime& runtime, std::string_view text, std::string_view separator,
                                         int64_t max_splits) {
  runtime.charge_text(text.size());
  if (separator.empty()) return split_at_space(runtime, text, max_splits);
  std::vector<std::string_view> parts;
  size_t begin = 0;
  while (max_splits < 0 || static_cast<int64_t>(parts.size()) < max_splits) {
    const size_t found = find_text(text, separator, begin);
    if (found == std::string_view::npos) break;
    runtime.step();
    parts.push_back(text.substr(begin, found - begin));
    begin = found + separator.size();
  }
  parts.push_back(text.substr(begin));
  return parts;
}

std::vector<std::string_view> split_text_from_right(Runtime& runtime, std::string_view text, std::string_view separator,
                                                    int64_t max_splits) {
  // Mirror image of split_text; the views point into `text` again in the end.
  runtime.charge_new_text(text.size());
  std::vector<std::string_view> parts;
  if (separator.empty()) {
    std::string_view rest = strip(text, StripSide::kRight);
    while (!rest.empty()) {
      runtime.step();
      if (max_splits >= 0 && static_cast<int64_t>(parts.size()) == max_splits) {
        parts.push_back(rest);
        break;
      }
      size_t begin = rest.size();
      for (size_t i = 0; i < rest.size(); ++i) {  // walk back to the last white space
        size_t start = begin - 1;
        while (start > 0 && (static_cast<unsigned char>(rest[start]) & 0xC0) == 0x80) --start;
        if (is_space(decode_char(rest, start).code_point)) break;
        begin = start;
        if (begin == 0) break;
      }
      parts.push_back(rest.substr(begin));
      rest = strip(rest.substr(0, begin), StripSide::kRight);
    }
  } else {
    const std::string backwards(text.rbegin(), text.rend());
    const std::string separator_backwards(separator.rbegin(), separator.rend());
    size_t begin = 0;
    while (max_splits < 0 || static_cast<int64_t>(parts.size()) < max_splits) {
      const size_t found = find_text(backwards, separator_backwards, begin);
      if (found == std::string_view::npos) break;
      runtime.step();
      parts.push_back(text.substr(text.size() - found, found - begin));
      begin = found + separator.size();
    }
    parts.push_back(text.substr(0, text.size() - begin));
  }
  std::reverse(parts.begin(), parts.end());
  return parts;
}

Value list_of_texts(Runtime& runtime, const std::vector<std::string_view>& texts, bool markup) {
  runtime.charge_items(texts.size());
  std::vector<Value> items;
  items.reserve(texts.size());
  for (const std::string_view text : texts) items.push_back(runtime.text(std::string(text), markup));
  return runtime.heap.list(std::move(items));
}

bool is_markup(const Value& value) { return value.is_string() && value.as<StringObject>().markup; }

}  // namespace sextant::jinja
