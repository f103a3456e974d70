// str methods that look for text or cut at it. Positions are counted in characters.
#include <algorithm>

#include "engine/text/jinja/operators.h"
#include "engine/text/jinja/text_operations.h"
#include "engine/text/jinja/unicode.h"

namespace sextant::jinja {
namespace {

const std::string& self(const CallArguments& arguments) { return arguments.positional[0].text(); }
const std::string& text_argument(const CallArguments& arguments, size_t i) {
  const Value& value = arguments.positional[i];
  if (value.is_undefined()) fail_undefined(value);
  if (!value.is_string()) fail(std::string("TypeError: must be str, not ") + type_name(value));
  return value.text();
}

// The part of the text that [start, end) names, and where it begins.
struct Window {
  std::string_view text;
  int64_t first_char = 0;
  bool valid = true;  // false when start lies behind the end of the text or of the window
};

Window window_of(Runtime& runtime, const CallArguments& arguments, size_t start_at) {
  const std::string& text = self(arguments);
  Window window{text};
  const auto bound_given = [&](size_t i) { return arguments.has(i) && !arguments.positional[i].is_none(); };
  if (!bound_given(start_at) && !bound_given(start_at + 1)) return window;
  runtime.charge_text(text.size());
  const auto size = static_cast<int64_t>(num_chars(runtime, arguments.positional[0]));
  const auto bound = [&](size_t i, int64_t otherwise) {
    if (!bound_given(i)) return otherwise;
    const int64_t given = to_index(arguments.positional[i], "slice indices must be integers or None");
    return given < 0 ? std::max<int64_t>(given < -size ? 0 : given + size, 0) : given;
  };
  const int64_t start = bound(start_at, 0);
  const int64_t end = std::min(bound(start_at + 1, size), size);
  window.valid = start <= end;
  if (!window.valid) return window;
  const bool ascii = static_cast<size_t>(size) == text.size();
  const size_t begin = ascii ? static_cast<size_t>(start) : char_offset(text, static_cast<size_t>(start));
  const size_t stop = ascii ? static_cast<size_t>(end) : char_offset(text, static_cast<size_t>(end));
  window.text = std::string_view(text).substr(begin, stop - begin);
  window.first_char = start;
  return window;
}

int64_t search(Runtime& runtime, const CallArguments& arguments, bool from_right) {
  const std::string& part = text_argument(arguments, 1);
  const Window window = window_of(runtime, arguments, 2);
  if (!window.valid) return -1;
  runtime.charge_text(window.text.size());
  const size_t found = from_right ? find_last_text(window.text, part) : find_text(window.text, part, 0);
  if (found == std::string_view::npos) return -1;
  return window.first_char + static_cast<int64_t>(count_chars(window.text.substr(0, found)));
}

template <bool from_right>
Value find(Runtime& runtime, CallArguments& arguments) {
  return Value::integer(search(runtime, arguments, from_right));
}

template <bool from_right>
Value index(Runtime& runtime, CallArguments& arguments) {
  const int64_t found = search(runtime, arguments, from_right);
  if (found < 0) fail("ValueError: substring not found");
  return Value::integer(found);
}

Value count(Runtime& runtime, CallArguments& arguments) {
  const std::string& part = text_argument(arguments, 1);
  const Window window = window_of(runtime, arguments, 2);
  if (!window.valid) return Value::integer(0);
  runtime.charge_text(window.text.size());
  if (part.empty()) return Value::integer(static_cast<int64_t>(count_chars(window.text)) + 1);
  int64_t num_found = 0;
  for (size_t at = find_text(window.text, part, 0); at != std::string_view::npos;
       at = find_text(window.text, part, at + part.size())) {
    runtime.step();
    ++num_found;
  }
  return Value::integer(num_found);
}

template <bool at_end>
Value has_affix(Runtime& runtime, CallArguments& arguments) {
  const Window window = window_of(runtime, arguments, 2);
  const auto matches = [&](const Value& affix) {
    if (affix.is_undefined()) fail_undefined(affix);
    if (!affix.is_string()) {
      fail(std::string("TypeError: ") + (at_end ? "endswith" : "startswith") +
           " first arg must be str or a tuple of str, not " + type_name(affix));
    }
    runtime.charge_text(affix.text().size());
    return window.valid && (at_end ? window.text.ends_with(affix.text()) : window.text.starts_with(affix.text()));
  };
  const Value& affix = arguments.positional[1];
  if (!affix.is(Kind::kTuple)) return Value::boolean(matches(affix));
  for (const Value& candidate : affix.items()) {
    runtime.step();
    if (matches(candidate)) return Value::boolean(true);
  }
  return Value::boolean(false);
}

template <bool from_right>
Value split(Runtime& runtime, CallArguments& arguments) {
  std::string_view separator;
  if (arguments.has(1) && !arguments.positional[1].is_none()) {
    separator = text_argument(arguments, 1);
    if (separator.empty()) fail("ValueError: empty separator");
  }
  const int64_t max_splits = arguments.has(2) ? to_index(arguments.positional[2], "maxsplit must be an integer") : -1;
  const auto parts = from_right ? split_text_from_right(runtime, self(arguments), separator, max_splits)
                                : split_text(runtime, self(arguments), separator, max_splits);
  return list_of_texts(runtime, parts, is_markup(arguments.positional[0]));
}

Value splitlines(Runtime& runtime, CallArguments& arguments) {
  const bool keep_ends = arguments.has(1) && is_true(arguments.positional[1]);
  return list_of_texts(runtime, split_lines(runtime, self(arguments), keep_ends), is_markup(arguments.positional[0]));
}

template <bool from_right>
Value partition(Runtime& runtime, CallArguments& arguments) {
  const std::string& text = self(arguments);
  const std::string& separator = text_argument(arguments, 1);
  if (separator.empty()) fail("ValueError: empty separator");
  runtime.charge_text(text.size());
  const size_t at = from_right ? find_last_text(text, separator) : find_text(text, separator, 0);
  const bool markup = is_markup(arguments.positional[0]);
  const Value nothing = runtime.text("", markup);
  if (at == std::string::npos) {
    const Value& whole = arguments.positional[0];
    return from_right ? runtime.heap.tuple({nothing, nothing, whole}) : runtime.heap.tuple({whole, nothing, nothing});
  }
  return runtime.heap.tuple({runtime.text(text.substr(0, at), markup), runtime.text(separator, markup),
                             runtime.text(text.substr(at + separator.size()), markup)});
}

constexpr Builtin kMethods[] = {
    {"find", find<false>, 2, {"self", "sub", "start", "end"}},
    {"rfind", find<true>, 2, {"self", "sub", "start", "end"}},
    {"index", index<false>, 2, {"self", "sub", "start", "end"}},
    {"rindex", index<true>, 2, {"self", "sub", "start", "end"}},
    {"count", count, 2, {"self", "sub", "start", "end"}},
    {"startswith", has_affix<false>, 2, {"self", "prefix", "start", "end"}},
    {"endswith", has_affix<true>, 2, {"self", "suffix", "start", "end"}},
    {"split", split<false>, 1, {"self", "sep", "maxsplit"}},
    {"rsplit", split<true>, 1, {"self", "sep", "maxsplit"}},
    {"splitlines", splitlines, 1, {"self", "keepends"}},
    {"partition", partition<false>, 2, {"self", "sep"}},
    {"rpartition", partition<true>, 2, {"self", "sep"}},
};

}  // namespace

std::span<const Builtin> string_search_methods() { return kMethods; }

}  // namespace sextant::jinja
