// Filters over text: case, trimming, replacing, layout.
#include <algorithm>

#include "engine/text/jinja/formatting.h"
#include "engine/text/jinja/operators.h"
#include "engine/text/jinja/text_operations.h"
#include "engine/text/jinja/unicode.h"

namespace sextant::jinja {
namespace {

// Most text filters take any value by its str().
template <std::string (*map)(std::string_view)>
Value mapped(Runtime& runtime, CallArguments& arguments) {
  const Value text = as_string(runtime, arguments.positional[0]);
  runtime.charge_new_text(3 * text.text().size());  // what a case mapping can grow to
  return runtime.text(map(text.text()), is_markup(text));
}

std::string titled(std::string_view text) {
  // A word starts after white space or one of -({[<.
  std::string out;
  size_t word = 0;
  const auto flush = [&](size_t end) {
    if (word == end) return;
    const size_t first = decode_char(text, word).num_bytes;
    out += to_upper(text.substr(word, first));
    out += to_lower(text.substr(word + first, end - word - first));
  };
  for (size_t i = 0; i < text.size();) {
    const DecodedChar c = decode_char(text, i);
    const bool separator = is_space(c.code_point) || c.code_point == '-' || c.code_point == '(' ||
                           c.code_point == '{' || c.code_point == '[' || c.code_point == '<';
    if (separator) {
      flush(i);
      out.append(text.substr(i, c.num_bytes));
      word = i + c.num_bytes;
    }
    i += c.num_bytes;
  }
  flush(text.size());
  return out;
}

Value string(Runtime& runtime, CallArguments& arguments) { return as_string(runtime, arguments.positional[0]); }

Value trim(Runtime& runtime, CallArguments& arguments) {
  const Value text = as_string(runtime, arguments.positional[0]);
  runtime.charge_text(text.text().size());
  if (!arguments.has(1) || arguments.positional[1].is_none()) {
    const std::string_view stripped = strip(text.text(), StripSide::kBoth);
    return stripped.size() == text.text().size() ? text : runtime.text(std::string(stripped), is_markup(text));
  }
  if (!arguments.positional[1].is_string()) fail("TypeError: strip arg must be None or str");
  return runtime.text(std::string(strip_chars(text.text(), arguments.positional[1].text(), StripSide::kBoth)),
                      is_markup(text));
}

Value replace(Runtime& runtime, CallArguments& arguments) {
  const Value text = as_string(runtime, arguments.positional[0]);
  const Value from = as_string(runtime, arguments.positional[1]);
  const Value to = as_string(runtime, arguments.positional[2]);
  const bool all = !arguments.has(3) || arguments.positional[3].is_none();
  const int64_t count = all ? -1 : to_index(arguments.positional[3], "count must be an integer");
  return runtime.text(replace_text(runtime, text.text(), from.text(), to.text(), count));
}

Value indent(Runtime& runtime, CallArguments& arguments) {
  const Value& text = arguments.positional[0];
  if (text.is_undefined()) fail_undefined(text);
  if (!text.is_string()) fail(std::string("TypeError: indent needs a string, not ") + type_name(text));
  std::string indention = "    ";
  if (arguments.has(1)) {
    const Value& width = arguments.positional[1];
    indention =
        width.is_string() ? width.text() : repeat_text(runtime, " ", to_index(width, "width must be an int or str"));
  }
  const bool first = arguments.has(2) && is_true(arguments.positional[2]);
  const bool blank = arguments.has(3) && is_true(arguments.positional[3]);
  runtime.charge_new_text(text.text().size() + 1);
  const std::string with_newline = text.text() + "\n";
  std::string out;
  bool is_first = true;
  for (const std::string_view line : split_lines(runtime, with_newline, false)) {
    if (!is_first) runtime.append(out, "\n");
    if (is_first ? first : (blank || !line.empty())) runtime.append(out, indention);
    runtime.append(out, line);
    is_first = false;
  }
  return runtime.text(std::move(out), is_markup(text));
}

Value center(Runtime& runtime, CallArguments& arguments) {
  const Value text = as_string(runtime, arguments.positional[0]);
  const int64_t width = arguments.has(1) ? to_index(arguments.positional[1], "width must be an integer") : 80;
  return runtime.text(pad_text(runtime, text, width, " ", Align::kCenter), is_markup(text));
}

Value truncate(Runtime& runtime, CallArguments& arguments) {
  const Value& text = arguments.positional[0];
  const auto& given = arguments.positional;
  const int64_t max_chars = arguments.has(1) ? to_index(given[1], "length must be an integer") : 255;
  const bool kill_words = arguments.has(2) && is_true(given[2]);
  const Value end = arguments.has(3) ? as_string(runtime, given[3]) : runtime.text("...");
  const int64_t leeway = arguments.has(4) && !given[4].is_none() ? to_index(given[4], "leeway must be an integer") : 5;
  const auto num_end_chars = static_cast<int64_t>(num_chars(runtime, end));
  if (max_chars < num_end_chars) fail("AssertionError: expected length >= " + std::to_string(num_end_chars));
  if (leeway < 0) fail("AssertionError: expected leeway >= 0");
  const auto size = length(runtime, text);
  if (size && static_cast<int64_t>(*size) - leeway <= max_chars) return text;
  if (!text.is_string()) fail(std::string("TypeError: truncate needs a string, not ") + type_name(text));
  std::string_view kept(text.text());
  kept = kept.substr(0, char_offset(kept, static_cast<size_t>(max_chars - num_end_chars)));
  if (!kill_words) kept = kept.substr(0, kept.rfind(' '));
  return runtime.text(std::string(kept) + end.text(), is_markup(text));
}

Value wordcount(Runtime& runtime, CallArguments& arguments) {
  const Value text = as_string(runtime, arguments.positional[0]);
  runtime.charge_text(text.text().size());
  int64_t count = 0;
  bool in_word = false;
  for (size_t i = 0; i < text.text().size();) {
    const DecodedChar c = decode_char(text.text(), i);
    const bool word = c.code_point == '_' || is_alpha(c.code_point) || is_numeric(c.code_point);
    count += word && !in_word ? 1 : 0;
    in_word = word;
    i += c.num_bytes;
  }
  return Value::integer(count);
}

Value format(Runtime& runtime, CallArguments& arguments) {
  if (arguments.positional.empty()) fail("TypeError: format misses its argument 'value'");
  const Value text = as_string(runtime, arguments.positional[0]);
  std::vector<Value> values(arguments.positional.begin() + 1, arguments.positional.end());
  if (arguments.named.empty()) return format_percent(runtime, text, runtime.heap.tuple(std::move(values)));
  if (!values.empty()) fail("can't handle positional and keyword arguments at the same time");
  return format_percent(runtime, text, runtime.heap.dict(std::move(arguments.named)));
}

constexpr Builtin kFilters[] = {
    {"upper", mapped<to_upper>, 1, {"s"}},
    {"lower", mapped<to_lower>, 1, {"s"}},
    {"capitalize", mapped<to_capitalized>, 1, {"s"}},
    {"title", mapped<titled>, 1, {"s"}},
    {"string", string, 1, {"object"}},
    {"trim", trim, 1, {"value", "chars"}},
    {"replace", replace, 3, {"s", "old", "new", "count"}},
    {"indent", indent, 1, {"s", "width", "first", "blank"}},
    {"center", center, 1, {"value", "width"}},
    {"truncate", truncate, 1, {"s", "length", "killwords", "end", "leeway"}},
    {"wordcount", wordcount, 1, {"s"}},
    {"format", format, Builtin::kVariadic, {}},
};

}  // namespace

std::span<const Builtin> text_filters() { return kFilters; }

}  // namespace sextant::jinja
