// str() and repr() of values, and numbers to and from text.
#include <charconv>
#include <cmath>

#include "engine/text/jinja/ast.h"
#include "engine/text/jinja/operators.h"
#include "engine/text/jinja/tracked.h"
#include "engine/text/jinja/unicode.h"

namespace sextant::jinja {
namespace {

constexpr int kMaxReprDepth = 512;  // only namespaces can nest deeper than their containers, or in themselves

void append_hex(std::string& out, uint32_t value, int num_digits) {
  for (int shift = 4 * (num_digits - 1); shift >= 0; shift -= 4) out += "0123456789abcdef"[(value >> shift) & 0xF];
}

void append_text_repr(Runtime& runtime, std::string& out, const std::string& text) {
  runtime.charge_growth(out, text.size());
  const bool double_quotes = text.find('\'') != std::string::npos && text.find('"') == std::string::npos;
  const char quote = double_quotes ? '"' : '\'';
  out += quote;
  for (size_t i = 0; i < text.size();) {
    const DecodedChar c = decode_char(text, i);
    if (c.code_point == quote || c.code_point == '\\') {
      out += '\\';
      out += static_cast<char>(c.code_point);
    } else if (c.code_point == '\n') {
      out += "\\n";
    } else if (c.code_point == '\r') {
      out += "\\r";
    } else if (c.code_point == '\t') {
      out += "\\t";
    } else if (c.code_point >= 0 && is_printable(c.code_point)) {
      out.append(text, i, c.num_bytes);
    } else {
      const uint32_t code =
          c.code_point < 0 ? static_cast<unsigned char>(text[i]) : static_cast<uint32_t>(c.code_point);
      out += code < 0x100 ? "\\x" : (code < 0x10000 ? "\\u" : "\\U");
      append_hex(out, code, code < 0x100 ? 2 : (code < 0x10000 ? 4 : 8));
    }
    i += c.num_bytes;
  }
  out += quote;
}

void append_repr_nested(Runtime& runtime, std::string& out, const Value& value, int depth);

void append_items(Runtime& runtime, std::string& out, const std::vector<Value>& items, int depth) {
  bool first = true;
  for (const Value& item : items) {
    if (!first) out += ", ";
    first = false;
    append_repr_nested(runtime, out, item, depth);
  }
}

void append_dict(Runtime& runtime, std::string& out, const DictObject& dict, int depth) {
  out += '{';
  bool first = true;
  for (const auto& [key, item] : dict.entries()) {
    if (!first) out += ", ";
    first = false;
    append_repr_nested(runtime, out, key, depth);
    out += ": ";
    append_repr_nested(runtime, out, item, depth);
  }
  out += '}';
}

void append_range(std::string& out, const RangeObject& range) {
  out += "range(" + std::to_string(range.start) + ", " + std::to_string(range.stop);
  if (range.step != 1) out += ", " + std::to_string(range.step);
  out += ')';
}

void append_repr_nested(Runtime& runtime, std::string& out, const Value& value, int depth) {
  runtime.step();
  runtime.charge_growth(out, 8);
  if (depth > kMaxReprDepth) fail("RecursionError: a value contains itself");
  switch (value.kind()) {
    case Kind::kMissing: break;
    case Kind::kNone: out += "None"; break;
    case Kind::kBool: out += value.boolean() ? "True" : "False"; break;
    case Kind::kInt: out += std::to_string(value.integer()); break;
    case Kind::kFloat: out += format_real(value.real()); break;
    case Kind::kUndefined: out += "Undefined"; break;
    case Kind::kBigInt: out += value.as<StringObject>().text; break;
    case Kind::kString:
      if (value.as<StringObject>().markup) out += "Markup(";
      append_text_repr(runtime, out, value.text());
      if (value.as<StringObject>().markup) out += ')';
      break;
    case Kind::kList:
      out += '[';
      append_items(runtime, out, value.items(), depth + 1);
      out += ']';
      break;
    case Kind::kTuple:
      out += '(';
      append_items(runtime, out, value.items(), depth + 1);
      out += value.items().size() == 1 ? ",)" : ")";
      break;
    case Kind::kDict: append_dict(runtime, out, value.as<DictObject>(), depth + 1); break;
    case Kind::kDictView:
      out += type_name(value);
      out += '(';
      append_repr_nested(runtime, out, iterate(runtime, value), depth + 1);
      out += ')';
      break;
    case Kind::kRange: append_range(out, value.as<RangeObject>()); break;
    case Kind::kNamespace:
      out += "<Namespace ";
      append_dict(runtime, out, value.as<NamespaceObject>().attributes, depth + 1);
      out += '>';
      break;
    case Kind::kMacro: {
      const std::string& name = value.as<MacroObject>().definition->name;
      out += name.empty() ? "<Macro anonymous>" : "<Macro '" + name + "'>";
      break;
    }
    case Kind::kLoop:
      out += "<LoopContext " + std::to_string(value.as<LoopObject>().index0 + 1) + "/" +
             std::to_string(value.as<LoopObject>().length(runtime)) + ">";
      break;
    default: out += std::string("<") + type_name(value) + " object>"; break;
  }
}

}  // namespace

const char* type_name(const Value& value) {
  switch (value.kind()) {
    case Kind::kMissing: return "missing";
    case Kind::kNone: return "NoneType";
    case Kind::kBool: return "bool";
    case Kind::kInt:
    case Kind::kBigInt: return "int";
    case Kind::kFloat: return "float";
    case Kind::kUndefined: return "Undefined";
    case Kind::kString: return value.as<StringObject>().markup ? "Markup" : "str";
    case Kind::kList: return "list";
    case Kind::kTuple: return "tuple";
    case Kind::kDict: return "dict";
    case Kind::kDictView:
      switch (value.as<DictViewObject>().view) {
        case DictViewKind::kKeys: return "dict_keys";
        case DictViewKind::kValues: return "dict_values";
        case DictViewKind::kItems: return "dict_items";
      }
      return "dict_view";
    case Kind::kRange: return "range";
    case Kind::kIterator: return value.as<IteratorObject>().type_name;
    case Kind::kNamespace: return "Namespace";
    case Kind::kMacro: return "Macro";
    case Kind::kFunction: return "builtin_function_or_method";
    case Kind::kLoop: return "LoopContext";
    case Kind::kCycler: return "Cycler";
    case Kind::kJoiner: return "Joiner";
  }
  return "object";
}

void fail_undefined(const Value& undefined) { fail(undefined.as<UndefinedObject>().message()); }

void append_repr(Runtime& runtime, std::string& out, const Value& value) { append_repr_nested(runtime, out, value, 0); }

void append_text(Runtime& runtime, std::string& out, const Value& value) {
  switch (value.kind()) {
    case Kind::kString: runtime.append(out, value.text()); break;
    case Kind::kMissing:
    case Kind::kUndefined: break;
    default: append_repr(runtime, out, value); break;
  }
}

std::string to_text(Runtime& runtime, const Value& value) {
  std::string out;
  append_text(runtime, out, value);
  return out;
}

Value as_string(Runtime& runtime, const Value& value) {
  return value.is_string() ? value : runtime.text(to_text(runtime, value));
}

std::string escape_html(Runtime& runtime, std::string_view text) {
  size_t num_special = 0;
  for (const char c : text) num_special += c == '&' || c == '<' || c == '>' || c == '\'' || c == '"' ? 1 : 0;
  runtime.charge_new_text(text.size() + 4 * num_special);
  std::string out;
  out.reserve(text.size() + 4 * num_special);
  for (const char c : text) {
    switch (c) {
      case '&': out += "&amp;"; break;
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '\'': out += "&#39;"; break;
      case '"': out += "&#34;"; break;
      default: out += c;
    }
  }
  return out;
}

std::string format_real(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  char buffer[40];
  const auto end = std::to_chars(buffer, buffer + sizeof(buffer), value, std::chars_format::scientific).ptr;
  const std::string_view shortest(buffer, end - buffer);  // d.ddde[+-]dd
  const size_t e = shortest.find('e');
  std::string sign;
  std::string digits;
  for (const char c : shortest.substr(0, e)) {
    if (c == '-') {
      sign = "-";
    } else if (c != '.') {
      digits += c;
    }
  }
  int exponent = 0;
  const char* exponent_begin = shortest.data() + e + (shortest[e + 1] == '+' ? 2 : 1);
  std::from_chars(exponent_begin, end, exponent);
  if (exponent < -4 || exponent >= 16) {
    std::string out = sign + digits.substr(0, 1);
    if (digits.size() > 1) out += "." + digits.substr(1);
    const std::string power = std::to_string(std::abs(exponent));
    return out + (exponent < 0 ? "e-" : "e+") + (power.size() < 2 ? "0" : "") + power;
  }
  if (exponent < 0) return sign + "0." + std::string(-exponent - 1, '0') + digits;
  const size_t point = static_cast<size_t>(exponent) + 1;
  if (digits.size() <= point) return sign + digits + std::string(point - digits.size(), '0') + ".0";
  return sign + digits.substr(0, point) + "." + digits.substr(point);
}

namespace {

// Removes the underscores between digits that Python allows; nullopt when one stands elsewhere.
std::optional<std::string> without_underscores(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '_') {
      out += text[i];
      continue;
    }
    const auto alnum = [&](size_t k) { return k < text.size() && isalnum(static_cast<unsigned char>(text[k])) != 0; };
    if (i == 0 || !alnum(i - 1) || !alnum(i + 1)) return std::nullopt;
  }
  return out;
}

}  // namespace

std::optional<int64_t> parse_integer(std::string_view text, int base) {
  text = strip(text, StripSide::kBoth);
  const bool negative = !text.empty() && text[0] == '-';
  if (!text.empty() && (text[0] == '-' || text[0] == '+')) text.remove_prefix(1);
  if (text.size() > 2 && text[0] == '0') {
    const char letter = static_cast<char>(text[1] | 0x20);
    const int prefix_base = letter == 'x' ? 16 : (letter == 'o' ? 8 : (letter == 'b' ? 2 : 0));
    if (prefix_base != 0 && (base == 0 || base == prefix_base)) {
      base = prefix_base;
      text.remove_prefix(2);
      if (text[0] == '_') text.remove_prefix(1);
    }
  }
  if (base == 0) base = 10;
  const auto digits = without_underscores(text);
  if (!digits || digits->empty()) return std::nullopt;
  uint64_t magnitude = 0;
  const auto [end, error] = std::from_chars(digits->data(), digits->data() + digits->size(), magnitude, base);
  if (end != digits->data() + digits->size()) return std::nullopt;
  const uint64_t limit = uint64_t{1} << 63;
  if (error == std::errc::result_out_of_range || magnitude > limit - (negative ? 0 : 1)) {
    fail("OverflowError: an integer does not fit into 64 bits");
  }
  return static_cast<int64_t>(negative ? uint64_t{0} - magnitude : magnitude);
}

std::optional<double> parse_real(std::string_view text) {
  text = strip(text, StripSide::kBoth);
  const bool negative = !text.empty() && text[0] == '-';
  if (!text.empty() && (text[0] == '-' || text[0] == '+')) text.remove_prefix(1);
  const auto digits = without_underscores(text);
  if (!digits || digits->empty() || (*digits)[0] == '-' || digits->find('(') != std::string::npos) return std::nullopt;
  double value = 0;
  const auto [end, error] = std::from_chars(digits->data(), digits->data() + digits->size(), value);
  if (end != digits->data() + digits->size()) return std::nullopt;
  if (error == std::errc::result_out_of_range) value = std::strtod(digits->c_str(), nullptr);
  return negative ? -value : value;
}

}  // namespace sextant::jinja
