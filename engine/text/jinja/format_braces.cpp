// "{} is {name:>8}".format(...), after Python's str.format, with fields looked up by the sandbox's rules.
#include <cmath>

#include "engine/text/jinja/formatting.h"
#include "engine/text/jinja/operators.h"
#include "engine/text/jinja/unicode.h"

namespace sextant::jinja {
namespace {

struct Spec {
  std::string fill = " ";
  char align = 0;
  char sign = '-';
  bool alternate = false;
  bool zero = false;
  size_t width = 0;
  char grouping = 0;
  int64_t precision = -1;
  char type = 0;
};

bool is_align(char c) { return c == '<' || c == '>' || c == '=' || c == '^'; }

int64_t parse_number(std::string_view spec, size_t& i) {
  int64_t number = 0;
  while (i < spec.size() && spec[i] >= '0' && spec[i] <= '9') {
    number = number * 10 + (spec[i++] - '0');
    if (number > (int64_t{1} << 31)) fail("ValueError: Too many decimal digits in format string");
  }
  return number;
}

Spec parse_spec(std::string_view text) {
  Spec spec;
  size_t i = 0;
  if (!text.empty()) {
    const size_t first = decode_char(text, 0).num_bytes;
    if (first < text.size() && is_align(text[first])) {
      spec.fill = text.substr(0, first);
      spec.align = text[first];
      i = first + 1;
    } else if (is_align(text[0])) {
      spec.align = text[0];
      i = 1;
    }
  }
  const auto at = [&](char c) { return i < text.size() && text[i] == c; };
  if (at('+') || at('-') || at(' ')) spec.sign = text[i++];
  if (at('#')) spec.alternate = true, ++i;
  if (at('0')) {
    spec.zero = true;
    ++i;
    if (spec.align == 0) {
      spec.fill = "0";
      spec.align = '=';
    }
  }
  spec.width = static_cast<size_t>(parse_number(text, i));
  if (at(',') || at('_')) spec.grouping = text[i++];
  if (at('.')) {
    ++i;
    const size_t begin = i;
    spec.precision = parse_number(text, i);
    if (i == begin) fail("ValueError: Format specifier missing precision");
  }
  if (i < text.size()) spec.type = text[i++];
  if (i < text.size()) fail("ValueError: Invalid format specifier '" + std::string(text.substr(0, 100)) + "'");
  return spec;
}

std::string pad(Runtime& runtime, const std::string& prefix, const std::string& body, const Spec& spec, char align) {
  const size_t num_chars = prefix.size() + count_chars(body);
  const size_t padding = spec.width > num_chars ? spec.width - num_chars : 0;
  const std::string fill = repeat_text(runtime, spec.fill, static_cast<int64_t>(padding));
  runtime.charge_new_text(fill.size() + prefix.size() + body.size());
  if (align == '<') return prefix + body + fill;
  if (align == '=') return prefix + fill + body;
  if (align == '>') return fill + prefix + body;
  const size_t left = padding / 2 * spec.fill.size();
  return fill.substr(0, left) + prefix + body + fill.substr(left);
}

// Puts a separator between groups of digits in front of the point.
std::string group_digits(const std::string& digits, char separator, size_t group) {
  const size_t integer_end = std::min(digits.find_first_not_of("0123456789abcdefABCDEF"), digits.size());
  std::string out;
  for (size_t i = 0; i < integer_end; ++i) {
    if (i > 0 && (integer_end - i) % group == 0) out += separator;
    out += digits[i];
  }
  return out + digits.substr(integer_end);
}

std::string sign_text(bool negative, char sign) { return negative ? "-" : (sign == '-' ? "" : std::string(1, sign)); }

[[noreturn]] void fail_code(char type, const Value& value) {
  fail(std::string("ValueError: Unknown format code '") + type + "' for object of type '" + type_name(value) + "'");
}

std::string format_real_by(Runtime& runtime, double number, const Spec& spec, const Value& value) {
  std::string body;
  const double magnitude = std::fabs(number);
  if (spec.precision >= 0) runtime.charge_new_text(static_cast<size_t>(spec.precision) + 400);
  const int precision = spec.precision < 0 ? 6 : static_cast<int>(spec.precision);
  switch (spec.type) {
    case 0:
      if (spec.precision < 0) {
        body = format_real(magnitude);
      } else {
        body = format_real_as(magnitude, 'g', precision == 0 ? 1 : precision, spec.alternate);
        if (body.find_first_of(".en") == std::string::npos) body += ".0";
      }
      break;
    case 'n': body = format_real_as(magnitude, 'g', precision, spec.alternate); break;
    case '%': body = format_real_as(magnitude * 100, 'f', precision, spec.alternate) + "%"; break;
    case 'e':
    case 'E':
    case 'f':
    case 'F':
    case 'g':
    case 'G': body = format_real_as(magnitude, spec.type, precision, spec.alternate); break;
    default: fail_code(spec.type, value);
  }
  if (spec.grouping != 0) body = group_digits(body, spec.grouping, 3);
  const bool negative = std::signbit(number) && !std::isnan(number);
  return pad(runtime, sign_text(negative, spec.sign), body, spec, spec.align == 0 ? '>' : spec.align);
}

std::string format_integer_by(Runtime& runtime, const Value& value, const Spec& spec) {
  static constexpr std::string_view kRealTypes = "eEfFgG%";
  if (spec.type != 0 && kRealTypes.find(spec.type) != std::string_view::npos) {
    return format_real_by(runtime, value.real(), spec, value);
  }
  if (spec.precision >= 0) fail("ValueError: Precision not allowed in integer format specifier");
  const bool negative = value.integer() < 0;
  uint64_t magnitude = static_cast<uint64_t>(value.integer());
  if (negative) magnitude = uint64_t{0} - magnitude;
  std::string prefix = sign_text(negative, spec.sign);
  unsigned base = 10;
  switch (spec.type) {
    case 0:
    case 'd':
    case 'n': break;
    case 'b': base = 2; break;
    case 'o': base = 8; break;
    case 'x':
    case 'X': base = 16; break;
    case 'c': {
      if (negative || magnitude > 0x10FFFF) fail("OverflowError: %c arg not in range(0x110000)");
      std::string out;
      append_utf8(out, static_cast<uint32_t>(magnitude));
      return pad(runtime, "", out, spec, spec.align == 0 ? '>' : spec.align);
    }
    default: fail_code(spec.type, value);
  }
  if (spec.alternate && base != 10) prefix += std::string("0") + spec.type;
  const std::string_view symbols = spec.type == 'X' ? "0123456789ABCDEF" : "0123456789abcdef";
  std::string digits;
  do {
    digits.insert(digits.begin(), symbols[magnitude % base]);
    magnitude /= base;
  } while (magnitude != 0);
  if (spec.grouping != 0) digits = group_digits(digits, spec.grouping, base == 10 ? 3 : 4);
  return pad(runtime, prefix, digits, spec, spec.align == 0 ? '>' : spec.align);
}

std::string format_text_by(Runtime& runtime, const Value& value, const Spec& spec) {
  if (spec.type != 0 && spec.type != 's') fail_code(spec.type, value);
  if (spec.align == '=' && !spec.zero) {
    fail("ValueError: '=' alignment not allowed in string format specifier");
  }
  std::string text = value.text();
  if (spec.precision >= 0) text.resize(char_offset(text, static_cast<size_t>(spec.precision)));
  return pad(runtime, "", text, spec, spec.align == 0 || spec.align == '=' ? '<' : spec.align);
}

// One run over a format string; nested specifications share the numbering of their parent.
class BraceFormatter {
 public:
  BraceFormatter(Runtime& runtime, const CallArguments& arguments) : runtime_(runtime), arguments_(arguments) {}

  std::string format(std::string_view format, int depth) {
    if (depth > 2) fail("ValueError: Max string recursion exceeded");
    std::string out;
    for (size_t i = 0; i < format.size();) {
      const size_t brace = std::min(format.find_first_of("{}", i), format.size());
      runtime_.append(out, format.substr(i, brace - i));
      if (brace == format.size()) break;
      runtime_.step();
      if (brace + 1 < format.size() && format[brace + 1] == format[brace]) {
        runtime_.append(out, format.substr(brace, 1));
        i = brace + 2;
        continue;
      }
      if (format[brace] == '}') fail("ValueError: Single '}' encountered in format string");
      i = field(format, brace + 1, depth, out);
    }
    return out;
  }

 private:
  // Returns the position after the closing brace.
  size_t field(std::string_view format, size_t begin, int depth, std::string& out) {
    size_t end = begin;
    int nesting = 1;
    bool in_brackets = false;
    for (; end < format.size(); ++end) {
      const char c = format[end];
      if (in_brackets) {
        in_brackets = c != ']';
      } else if (c == '[' && nesting == 1) {
        in_brackets = true;
      } else if (c == '{') {
        ++nesting;
      } else if (c == '}' && --nesting == 0) {
        break;
      }
    }
    if (end >= format.size()) fail("ValueError: expected '}' before end of string");
    const std::string_view text = format.substr(begin, end - begin);
    const size_t name_end = std::min(find_name_end(text), text.size());
    Value value = look_up(text.substr(0, name_end));
    std::string_view rest = text.substr(name_end);
    if (!rest.empty() && rest[0] == '!') {
      if (rest.size() < 2) fail("ValueError: end of string while looking for conversion specifier");
      value = convert(value, rest[1]);
      rest.remove_prefix(2);
      if (!rest.empty() && rest[0] != ':') fail("ValueError: expected ':' after conversion specifier");
    }
    if (!rest.empty()) rest.remove_prefix(1);
    const std::string spec = this->format(rest, depth + 1);
    runtime_.append(out, format_by_spec(runtime_, value, spec));
    return end + 1;
  }

  static size_t find_name_end(std::string_view text) {
    bool in_brackets = false;
    for (size_t i = 0; i < text.size(); ++i) {
      if (in_brackets) {
        in_brackets = text[i] != ']';
      } else if (text[i] == '[') {
        in_brackets = true;
      } else if (text[i] == ':' || text[i] == '!') {
        return i;
      }
    }
    return text.size();
  }

  Value look_up(std::string_view name) {
    const size_t first_end = std::min(name.find_first_of(".["), name.size());
    Value value = first(name.substr(0, first_end));
    for (size_t i = first_end; i < name.size();) {
      runtime_.step();
      if (name[i] == '.') {
        const size_t end = std::min(name.find_first_of(".[", i + 1), name.size());
        if (end == i + 1) fail("ValueError: Empty attribute in format string");
        value =
            get_attribute(runtime_, value, make_attribute(runtime_.text(std::string(name.substr(i + 1, end - i - 1)))));
        i = end;
      } else if (name[i] == '[') {
        const size_t end = name.find(']', i);
        if (end == name.npos) fail("ValueError: Missing ']' in format string");
        value = get_item(runtime_, value, key(name.substr(i + 1, end - i - 1)));
        i = end + 1;
      } else {
        fail("ValueError: Only '.' or '[' may follow ']' in format field specifier");
      }
    }
    return value;
  }

  static bool is_index(std::string_view text) {
    return !text.empty() && text.size() < 10 && text.find_first_not_of("0123456789") == text.npos;
  }
  Value key(std::string_view text) {
    if (text.empty()) fail("ValueError: Empty attribute in format string");
    return is_index(text) ? Value::integer(*parse_integer(text, 10)) : runtime_.text(std::string(text));
  }
  Value first(std::string_view name) {
    if (name.empty() || is_index(name)) {
      const size_t index = name.empty() ? next_++ : static_cast<size_t>(*parse_integer(name, 10));
      if (index + 1 >= arguments_.positional.size()) {
        fail("IndexError: Replacement index " + std::to_string(index) + " out of range for positional args tuple");
      }
      return arguments_.positional[index + 1];
    }
    runtime_.step(arguments_.named.size() / 4);
    for (const auto& [given, value] : arguments_.named) {
      if (given.text() == name) return value;
    }
    fail("KeyError: '" + std::string(name.substr(0, 100)) + "'");
  }
  Value convert(const Value& value, char conversion) {
    if (conversion == 's') return as_string(runtime_, value);
    if (conversion != 'r' && conversion != 'a') {
      fail(std::string("ValueError: Unknown conversion specifier ") + conversion);
    }
    std::string out;
    append_repr(runtime_, out, value);
    return runtime_.text(std::move(out));
  }

  Runtime& runtime_;
  const CallArguments& arguments_;
  size_t next_ = 0;
};

}  // namespace

std::string format_by_spec(Runtime& runtime, const Value& value, std::string_view spec_text) {
  if (spec_text.empty()) return to_text(runtime, value);
  const Spec spec = parse_spec(spec_text);
  runtime.charge_new_text(spec.width);
  switch (value.kind()) {
    case Kind::kString: return format_text_by(runtime, value, spec);
    case Kind::kBool:
    case Kind::kInt: return format_integer_by(runtime, value, spec);
    case Kind::kFloat: return format_real_by(runtime, value.real(), spec, value);
    default: break;
  }
  fail(std::string("TypeError: unsupported format string passed to ") + type_name(value) + ".__format__");
}

Value format_braces(Runtime& runtime, const CallArguments& arguments) {
  const Value format = arguments.positional[0];
  return runtime.text(BraceFormatter(runtime, arguments).format(format.text(), 0), format.as<StringObject>().markup);
}

}  // namespace sextant::jinja
