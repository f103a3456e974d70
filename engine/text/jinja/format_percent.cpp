// "%s and %05.2f" % (a, b), after Python's printf-style formatting.
#include <cmath>
#include <cstdio>

#include "engine/text/jinja/formatting.h"
#include "engine/text/jinja/operators.h"
#include "engine/text/jinja/unicode.h"

namespace sextant::jinja {
namespace {

struct Conversion {
  bool left = false;
  bool plus = false;
  bool space = false;
  bool zero = false;
  bool alternate = false;
  int64_t width = 0;
  int64_t precision = -1;
  char type = 0;
};

// Hands out the right-hand side of `%`, one value per conversion.
class ArgumentSource {
 public:
  explicit ArgumentSource(const Value& arguments) : arguments_(arguments) {}

  const Value& next() {
    if (arguments_.is(Kind::kTuple)) {
      if (next_ >= arguments_.items().size()) fail("TypeError: not enough arguments for format string");
      return arguments_.items()[next_++];
    }
    if (next_ > 0) fail("TypeError: not enough arguments for format string");
    ++next_;
    return arguments_;
  }
  Value named(Runtime& runtime, const std::string& name) {
    uses_names_ = true;
    if (arguments_.is_undefined()) fail_undefined(arguments_);
    if (!arguments_.is(Kind::kDict)) fail("TypeError: format requires a mapping");
    runtime.charge_text(name.size());
    const Value* found = arguments_.as<DictObject>().find(name);
    if (found == nullptr) fail("KeyError: '" + name + "'");
    return *found;
  }
  void check_all_used() const {
    if (uses_names_ || arguments_.is(Kind::kDict) || arguments_.is(Kind::kList) || arguments_.is(Kind::kRange) ||
        arguments_.is_undefined())
      return;
    const size_t num_values = arguments_.is(Kind::kTuple) ? arguments_.items().size() : 1;
    if (next_ < num_values) fail("TypeError: not all arguments converted during string formatting");
  }

 private:
  const Value& arguments_;
  size_t next_ = 0;
  bool uses_names_ = false;
};

int64_t parse_count(std::string_view format, size_t& i, ArgumentSource& source) {
  if (i < format.size() && format[i] == '*') {
    ++i;
    return to_index(source.next(), "* wants int");
  }
  int64_t count = 0;
  while (i < format.size() && format[i] >= '0' && format[i] <= '9') {
    count = count * 10 + (format[i++] - '0');
    if (count > (int64_t{1} << 31)) fail("ValueError: width or precision too big");
  }
  return count;
}

std::string integer_digits(uint64_t magnitude, char type) {
  if (type == 'd') return std::to_string(magnitude);
  const unsigned base = type == 'o' ? 8 : 16;
  const char* digits = type == 'X' ? "0123456789ABCDEF" : "0123456789abcdef";
  std::string out;
  do {
    out.insert(out.begin(), digits[magnitude % base]);
    magnitude /= base;
  } while (magnitude != 0);
  return out;
}

// Sign or prefix, then the digits: zero padding goes between them.
struct Pieces {
  std::string prefix;
  std::string body;
};

std::string sign_of(bool negative, const Conversion& c) {
  return negative ? "-" : (c.plus ? "+" : (c.space ? " " : ""));
}

Pieces convert_integer(Runtime& runtime, const Value& value, const Conversion& c) {
  Pieces pieces;
  const std::string what = std::string("%") + c.type + " format: ";
  if (value.is_undefined()) fail_undefined(value);
  if (value.is(Kind::kBigInt) && c.type == 'd') {
    pieces.body = value.as<StringObject>().text;
    pieces.prefix = sign_of(false, c);
  } else {
    int64_t number = 0;
    if (value.is_integer()) {
      number = value.integer();
    } else if (value.is(Kind::kFloat) && c.type == 'd') {
      if (!std::isfinite(value.real()) || std::fabs(value.real()) >= 9.2e18) {
        fail("OverflowError: " + what + "the number does not fit into 64 bits");
      }
      number = static_cast<int64_t>(value.real());
    } else {
      fail("TypeError: " + what + (c.type == 'd' ? "a real number" : "an integer") + " is required, not " +
           type_name(value));
    }
    pieces.prefix = sign_of(number < 0, c);
    const uint64_t magnitude = number < 0 ? uint64_t{0} - static_cast<uint64_t>(number) : static_cast<uint64_t>(number);
    pieces.body = integer_digits(magnitude, c.type);
    if (c.alternate && c.type == 'o') pieces.prefix += "0o";
    if (c.alternate && (c.type == 'x' || c.type == 'X')) pieces.prefix += std::string("0") + c.type;
  }
  if (c.precision > static_cast<int64_t>(pieces.body.size())) {
    runtime.charge_new_text(c.precision);
    pieces.body.insert(0, c.precision - pieces.body.size(), '0');
  }
  return pieces;
}

Pieces convert_real(Runtime& runtime, const Value& value, const Conversion& c) {
  if (value.is_undefined()) fail_undefined(value);
  if (!value.is_number()) fail(std::string("TypeError: must be real number, not ") + type_name(value));
  const double number = value.real();
  const int64_t precision = c.precision < 0 ? 6 : c.precision;
  runtime.charge_new_text(precision + 400);
  return {sign_of(std::signbit(number) && !std::isnan(number), c),
          format_real_as(std::fabs(number), c.type, static_cast<int>(precision), c.alternate)};
}

Pieces convert_text(Runtime& runtime, const Value& value, const Conversion& c, bool markup) {
  std::string text;
  if (c.type == 's') {
    append_text(runtime, text, value);
    if (markup && !(value.is_string() && value.as<StringObject>().markup)) text = escape_html(runtime, text);
  } else {
    append_repr(runtime, text, value);
  }
  if (c.precision >= 0) text.resize(char_offset(text, static_cast<size_t>(c.precision)));
  return {"", std::move(text)};
}

Pieces convert_char(const Value& value) {
  std::string out;
  if (value.is_integer()) {
    const int64_t code = value.integer();
    if (code < 0 || code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF)) {
      fail("OverflowError: %c arg not in range(0x110000)");
    }
    append_utf8(out, static_cast<uint32_t>(code));
  } else if (value.is_string() && count_chars(value.text()) == 1) {
    out = value.text();
  } else {
    fail(std::string("TypeError: %c requires int or char, not ") + type_name(value));
  }
  return {"", out};
}

void append_padded(Runtime& runtime, std::string& out, const Pieces& pieces, const Conversion& c) {
  const auto width = static_cast<size_t>(c.width);
  const size_t num_chars = count_chars(pieces.body) + pieces.prefix.size();
  const size_t padding = width > num_chars ? width - num_chars : 0;
  runtime.charge_growth(out, padding + pieces.prefix.size() + pieces.body.size());
  const bool numeric = c.type != 's' && c.type != 'r' && c.type != 'a' && c.type != 'c';
  if (!c.left && !(c.zero && numeric)) out.append(padding, ' ');
  out += pieces.prefix;
  if (!c.left && c.zero && numeric) out.append(padding, '0');
  out += pieces.body;
  if (c.left) out.append(padding, ' ');
}

}  // namespace

std::string format_real_as(double value, char type, int precision, bool alternate) {
  const bool upper = type >= 'A' && type <= 'Z';
  if (std::isnan(value)) return upper ? "NAN" : "nan";
  if (std::isinf(value)) return std::string(value < 0 ? "-" : "") + (upper ? "INF" : "inf");
  const std::string format = std::string(alternate ? "%#.*" : "%.*") + type;
  std::string out(static_cast<size_t>(precision) + 340, '\0');
  const int size = std::snprintf(out.data(), out.size(), format.c_str(), precision, value);
  out.resize(static_cast<size_t>(size));
  return out;
}

Value format_percent(Runtime& runtime, const Value& format_value, const Value& arguments) {
  const std::string& format = format_value.text();
  const bool markup = format_value.as<StringObject>().markup;
  ArgumentSource source(arguments);
  std::string out;
  for (size_t i = 0; i < format.size();) {
    const size_t percent = std::min(format.find('%', i), format.size());
    runtime.append(out, std::string_view(format).substr(i, percent - i));
    if (percent == format.size()) break;
    runtime.step();
    i = percent + 1;
    Conversion c;
    std::optional<Value> named;
    if (i < format.size() && format[i] == '(') {
      const size_t close = format.find(')', i);
      if (close == std::string::npos) fail("ValueError: incomplete format key");
      named = source.named(runtime, format.substr(i + 1, close - i - 1));
      i = close + 1;
    }
    for (; i < format.size(); ++i) {
      if (format[i] == '-')
        c.left = true;
      else if (format[i] == '+')
        c.plus = true;
      else if (format[i] == ' ')
        c.space = true;
      else if (format[i] == '0')
        c.zero = true;
      else if (format[i] == '#')
        c.alternate = true;
      else
        break;
    }
    c.width = parse_count(format, i, source);
    if (c.width < 0) {
      c.left = true;
      c.width = c.width < -(int64_t{1} << 31) ? int64_t{1} << 32 : -c.width;
    }
    if (i < format.size() && format[i] == '.') {
      ++i;
      c.precision = std::max<int64_t>(parse_count(format, i, source), 0);
    }
    while (i < format.size() && (format[i] == 'l' || format[i] == 'h' || format[i] == 'L')) ++i;
    if (i == format.size()) fail("ValueError: incomplete format");
    c.type = format[i++];
    if (c.type == '%') {
      runtime.append(out, "%");
      continue;
    }
    runtime.charge_new_text(std::max<int64_t>(c.width, c.precision) + 1);
    const Value value = named ? *named : source.next();
    switch (c.type) {
      case 'i':
      case 'u': c.type = 'd'; [[fallthrough]];
      case 'd':
      case 'o':
      case 'x':
      case 'X': append_padded(runtime, out, convert_integer(runtime, value, c), c); break;
      case 'e':
      case 'E':
      case 'f':
      case 'F':
      case 'g':
      case 'G': append_padded(runtime, out, convert_real(runtime, value, c), c); break;
      case 's':
      case 'r':
      case 'a': append_padded(runtime, out, convert_text(runtime, value, c, markup), c); break;
      case 'c': append_padded(runtime, out, convert_char(value), c); break;
      default: fail(std::string("ValueError: unsupported format character '") + c.type + "'");
    }
  }
  source.check_all_used();
  return runtime.text(std::move(out), markup);
}

}  // namespace sextant::jinja
