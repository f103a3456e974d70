// str methods that give text: case, stripping, padding, replacing, joining, formatting.
#include <algorithm>

#include "engine/text/jinja/formatting.h"
#include "engine/text/jinja/operators.h"
#include "engine/text/jinja/text_operations.h"
#include "engine/text/jinja/unicode.h"

namespace sextant::jinja {
namespace {

const std::string& self(const CallArguments& arguments) { return arguments.positional[0].text(); }
Value like_self(Runtime& runtime, const CallArguments& arguments, std::string text) {
  return runtime.text(std::move(text), is_markup(arguments.positional[0]));
}
const std::string& text_argument(const CallArguments& arguments, size_t i) {
  const Value& value = arguments.positional[i];
  if (value.is_undefined()) fail_undefined(value);
  if (!value.is_string()) fail(std::string("TypeError: expected str, not ") + type_name(value));
  return value.text();
}

template <std::string (*map)(std::string_view)>
Value mapped(Runtime& runtime, CallArguments& arguments) {
  runtime.charge_new_text(3 * self(arguments).size());
  return like_self(runtime, arguments, map(self(arguments)));
}

template <StripSide side>
Value stripped(Runtime& runtime, CallArguments& arguments) {
  const std::string& text = self(arguments);
  runtime.charge_text(text.size());
  const bool spaces = !arguments.has(1) || arguments.positional[1].is_none();
  const std::string_view rest = spaces ? strip(text, side) : strip_chars(text, text_argument(arguments, 1), side);
  if (rest.size() == text.size()) return arguments.positional[0];
  return like_self(runtime, arguments, std::string(rest));
}

template <Align align>
Value padded(Runtime& runtime, CallArguments& arguments) {
  const int64_t width = to_index(arguments.positional[1], "width must be an integer");
  const std::string fill = arguments.has(2) ? text_argument(arguments, 2) : " ";
  return like_self(runtime, arguments, pad_text(runtime, arguments.positional[0], width, fill, align));
}

Value zfill(Runtime& runtime, CallArguments& arguments) {
  const std::string& text = self(arguments);
  const int64_t width = to_index(arguments.positional[1], "width must be an integer");
  const int64_t padding =
      std::max<int64_t>(width, 0) - static_cast<int64_t>(num_chars(runtime, arguments.positional[0]));
  const std::string zeros = repeat_text(runtime, "0", padding);
  const size_t sign = !text.empty() && (text[0] == '-' || text[0] == '+') ? 1 : 0;
  runtime.charge_new_text(text.size() + zeros.size());
  return like_self(runtime, arguments, text.substr(0, sign) + zeros + text.substr(sign));
}

Value replace(Runtime& runtime, CallArguments& arguments) {
  const int64_t count = arguments.has(3) ? to_index(arguments.positional[3], "count must be an integer") : -1;
  return like_self(
      runtime, arguments,
      replace_text(runtime, self(arguments), text_argument(arguments, 1), text_argument(arguments, 2), count));
}

Value join(Runtime& runtime, CallArguments& arguments) {
  const Value items = iterate(runtime, arguments.positional[1]);
  std::string out;
  for (size_t i = 0; i < items.items().size(); ++i) {
    const Value& item = items.items()[i];
    if (!item.is_string()) {
      fail("TypeError: sequence item " + std::to_string(i) + ": expected str instance, " + type_name(item) + " found");
    }
    runtime.step();
    if (i > 0) runtime.append(out, self(arguments));
    runtime.append(out, item.text());
  }
  return like_self(runtime, arguments, std::move(out));
}

Value removeprefix(Runtime& runtime, CallArguments& arguments) {
  const std::string& prefix = text_argument(arguments, 1);
  const bool has = self(arguments).starts_with(prefix);
  return like_self(runtime, arguments, self(arguments).substr(has ? prefix.size() : 0));
}

Value removesuffix(Runtime& runtime, CallArguments& arguments) {
  const std::string& suffix = text_argument(arguments, 1);
  const bool has = self(arguments).ends_with(suffix);
  return like_self(runtime, arguments, self(arguments).substr(0, self(arguments).size() - (has ? suffix.size() : 0)));
}

Value expandtabs(Runtime& runtime, CallArguments& arguments) {
  const int64_t size = arguments.has(1) ? to_index(arguments.positional[1], "tabsize must be an integer") : 8;
  std::string out;
  int64_t column = 0;
  const std::string& text = self(arguments);
  for (size_t i = 0; i < text.size();) {
    const DecodedChar c = decode_char(text, i);
    if (c.code_point == '\t') {
      const int64_t padding = size > 0 ? size - column % size : 0;
      runtime.append(out, repeat_text(runtime, " ", padding));
      column += padding;
    } else {
      runtime.append(out, std::string_view(text).substr(i, c.num_bytes));
      column = c.code_point == '\n' || c.code_point == '\r' ? 0 : column + 1;
    }
    i += c.num_bytes;
  }
  runtime.charge_text(text.size());
  return like_self(runtime, arguments, std::move(out));
}

Value format(Runtime& runtime, CallArguments& arguments) { return format_braces(runtime, arguments); }

Value format_map(Runtime& runtime, CallArguments& arguments) {
  if (arguments.positional.size() != 2 || !arguments.named.empty()) {
    fail("TypeError: format_map() takes exactly one argument");
  }
  if (!arguments.positional[1].is(Kind::kDict)) fail("TypeError: format_map() needs a dict");
  const Value dict = arguments.positional[1];
  arguments.positional.pop_back();
  runtime.charge_items(2 * dict.as<DictObject>().entries().size());
  for (const auto& entry : dict.as<DictObject>().entries()) {
    if (entry.first.is_string()) arguments.named.push_back(entry);
  }
  return format_braces(runtime, arguments);
}

// All characters, and at least one, satisfy `holds`.
template <bool (*holds)(int32_t)>
Value all_chars(Runtime& runtime, CallArguments& arguments) {
  const std::string& text = self(arguments);
  runtime.charge_text(text.size());
  for (size_t i = 0; i < text.size();) {
    const DecodedChar c = decode_char(text, i);
    if (!holds(c.code_point)) return Value::boolean(false);
    i += c.num_bytes;
  }
  return Value::boolean(!text.empty());
}

bool is_alphanumeric(int32_t c) { return is_alpha(c) || is_decimal(c) || is_digit(c) || is_numeric(c); }

template <bool upper>
Value all_cased(Runtime& runtime, CallArguments& arguments) {
  static const Builtin* test = find_test(upper ? "upper" : "lower");
  return test->function(runtime, arguments);
}

Value istitle(Runtime& runtime, CallArguments& arguments) {
  const std::string& text = self(arguments);
  runtime.charge_text(text.size());
  bool in_word = false;
  bool found = false;
  for (size_t i = 0; i < text.size();) {
    const DecodedChar c = decode_char(text, i);
    const bool starts = is_upper(c.code_point) || is_title(c.code_point);
    if ((starts && in_word) || (is_lower(c.code_point) && !in_word)) return Value::boolean(false);
    in_word = starts || is_lower(c.code_point);
    found = found || in_word;
    i += c.num_bytes;
  }
  return Value::boolean(found);
}

Value isascii(Runtime& runtime, CallArguments& arguments) {
  runtime.charge_text(self(arguments).size());
  return Value::boolean(std::all_of(self(arguments).begin(), self(arguments).end(),
                                    [](char c) { return static_cast<unsigned char>(c) < 0x80; }));
}

Value isprintable(Runtime& runtime, CallArguments& arguments) {
  if (self(arguments).empty()) return Value::boolean(true);
  return all_chars<is_printable>(runtime, arguments);
}

Value isidentifier(Runtime& runtime, CallArguments& arguments) {
  const std::string& text = self(arguments);
  if (text.empty() || !is_identifier_start(decode_char(text, 0).code_point)) return Value::boolean(false);
  return all_chars<is_identifier_continue>(runtime, arguments);
}

constexpr Builtin kMethods[] = {
    {"upper", mapped<to_upper>, 1, {"self"}},
    {"lower", mapped<to_lower>, 1, {"self"}},
    {"casefold", mapped<to_casefold>, 1, {"self"}},
    {"capitalize", mapped<to_capitalized>, 1, {"self"}},
    {"title", mapped<to_title>, 1, {"self"}},
    {"swapcase", mapped<swap_case>, 1, {"self"}},
    {"strip", stripped<StripSide::kBoth>, 1, {"self", "chars"}},
    {"lstrip", stripped<StripSide::kLeft>, 1, {"self", "chars"}},
    {"rstrip", stripped<StripSide::kRight>, 1, {"self", "chars"}},
    {"center", padded<Align::kCenter>, 2, {"self", "width", "fillchar"}},
    {"ljust", padded<Align::kLeft>, 2, {"self", "width", "fillchar"}},
    {"rjust", padded<Align::kRight>, 2, {"self", "width", "fillchar"}},
    {"zfill", zfill, 2, {"self", "width"}},
    {"replace", replace, 3, {"self", "old", "new", "count"}},
    {"join", join, 2, {"self", "iterable"}},
    {"removeprefix", removeprefix, 2, {"self", "prefix"}},
    {"removesuffix", removesuffix, 2, {"self", "suffix"}},
    {"expandtabs", expandtabs, 1, {"self", "tabsize"}},
    {"format", format, Builtin::kVariadic, {}},
    {"format_map", format_map, Builtin::kVariadic, {}},
    {"isalpha", all_chars<is_alpha>, 1, {"self"}},
    {"isalnum", all_chars<is_alphanumeric>, 1, {"self"}},
    {"isdecimal", all_chars<is_decimal>, 1, {"self"}},
    {"isdigit", all_chars<is_digit>, 1, {"self"}},
    {"isnumeric", all_chars<is_numeric>, 1, {"self"}},
    {"isspace", all_chars<is_space>, 1, {"self"}},
    {"isprintable", isprintable, 1, {"self"}},
    {"isascii", isascii, 1, {"self"}},
    {"isidentifier", isidentifier, 1, {"self"}},
    {"islower", all_cased<false>, 1, {"self"}},
    {"isupper", all_cased<true>, 1, {"self"}},
    {"istitle", istitle, 1, {"self"}},
};

}  // namespace

std::span<const Builtin> string_methods() { return kMethods; }

}  // namespace sextant::jinja
