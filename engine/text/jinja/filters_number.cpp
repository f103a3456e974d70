// Filters over numbers.
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "engine/text/jinja/formatting.h"
#include "engine/text/jinja/operators.h"

namespace sextant::jinja {
namespace {

// int(real): nullopt for NaN.
std::optional<int64_t> truncate_real(double value) {
  if (std::isnan(value)) return std::nullopt;
  if (std::isinf(value)) fail("OverflowError: cannot convert float infinity to integer");
  constexpr double kLimit = 9223372036854775808.0;
  if (value >= kLimit || value < -kLimit) fail("OverflowError: an integer does not fit into 64 bits");
  return static_cast<int64_t>(value);
}

Value to_int(Runtime&, CallArguments& arguments) {
  const Value& value = arguments.positional[0];
  const Value fallback = arguments.has(1) ? arguments.positional[1] : Value::integer(0);
  if (value.is_undefined()) fail_undefined(value);
  if (value.is(Kind::kBigInt)) return value;
  if (value.is_integer()) return Value::integer(value.integer());
  if (value.is(Kind::kFloat)) {
    const auto whole = truncate_real(value.real());
    return whole ? Value::integer(*whole) : fallback;
  }
  if (!value.is_string()) return fallback;
  const int64_t base = arguments.has(2) ? to_index(arguments.positional[2], "base must be an integer") : 10;
  if (base == 0 || (base >= 2 && base <= 36)) {
    if (const auto whole = parse_integer(value.text(), static_cast<int>(base))) return Value::integer(*whole);
  }
  const auto real = parse_real(value.text());
  if (!real || !std::isfinite(*real)) return fallback;
  return Value::integer(*truncate_real(*real));
}

Value to_float(Runtime&, CallArguments& arguments) {
  const Value& value = arguments.positional[0];
  if (value.is_undefined()) fail_undefined(value);
  if (value.is_number()) return Value::real(value.real());
  if (value.is_string() || value.is(Kind::kBigInt)) {
    if (const auto real = parse_real(value.as<StringObject>().text)) return Value::real(*real);
  }
  return arguments.has(1) ? arguments.positional[1] : Value::real(0);
}

Value absolute(Runtime&, CallArguments& arguments) {
  const Value& value = arguments.positional[0];
  if (value.is(Kind::kFloat)) return Value::real(std::fabs(value.real()));
  if (value.is_integer()) return value.integer() < 0 ? negate(value) : posit(value);
  fail(std::string("TypeError: bad operand type for abs(): '") + type_name(value) + "'");
}

double round_real(double value, int64_t precision) {
  if (!std::isfinite(value)) return value;
  if (precision > 330) return value;
  if (precision < -330) return std::copysign(0.0, value);
  if (precision >= 0)
    return std::strtod(format_real_as(value, 'f', static_cast<int>(precision), false).c_str(), nullptr);
  // Round the decimal digits left of the point, halves to even, as Python does.
  const long double unit = std::pow(10.0L, static_cast<long double>(-precision));
  return static_cast<double>(std::nearbyint(static_cast<long double>(value) / unit) * unit);
}

Value round(Runtime&, CallArguments& arguments) {
  const Value& value = arguments.positional[0];
  const int64_t precision = arguments.has(1) ? to_index(arguments.positional[1], "precision must be an integer") : 0;
  std::string method = "common";
  if (arguments.has(2)) {
    if (!arguments.positional[2].is_string()) fail("method must be common, ceil or floor");
    method = arguments.positional[2].text();
  }
  if (method != "common" && method != "ceil" && method != "floor") fail("method must be common, ceil or floor");
  if (value.is_undefined()) fail_undefined(value);
  if (!value.is_number()) fail(std::string("TypeError: type ") + type_name(value) + " cannot be rounded");
  if (method == "common") {
    if (value.is(Kind::kFloat)) return Value::real(round_real(value.real(), precision));
    if (precision >= 0) return Value::integer(value.integer());
    const auto whole = truncate_real(round_real(value.real(), precision));
    return Value::integer(*whole);
  }
  const double scale = std::pow(10.0, static_cast<double>(precision));
  const double scaled = value.real() * scale;
  if (!std::isfinite(scaled) || scale == 0) fail("OverflowError: cannot round to this precision");
  return Value::real((method == "ceil" ? std::ceil(scaled) : std::floor(scaled)) / scale);
}

Value filesizeformat(Runtime& runtime, CallArguments& arguments) {
  const Value& value = arguments.positional[0];
  if (value.is_undefined()) fail_undefined(value);
  const auto parsed = value.is_string() ? parse_real(value.text()) : std::nullopt;
  if (!value.is_number() && !parsed) fail("ValueError: could not convert to float");
  const double bytes = parsed ? *parsed : value.real();
  const bool binary = arguments.has(1) && is_true(arguments.positional[1]);
  const double base = binary ? 1024 : 1000;
  if (bytes == 1) return runtime.text("1 Byte");
  if (bytes < base) return runtime.text(std::to_string(truncate_real(bytes).value_or(0)) + " Bytes");
  const std::string_view prefixes = binary ? "KMGTPEZY" : "kMGTPEZY";
  double unit = base;
  for (size_t i = 0;; ++i) {
    unit *= base;
    if (bytes < unit || i + 1 == prefixes.size()) {
      return runtime.text(format_real_as(base * bytes / unit, 'f', 1, false) + " " + prefixes[i] +
                          (binary ? "iB" : "B"));
    }
  }
}

constexpr Builtin kFilters[] = {
    {"int", to_int, 1, {"value", "default", "base"}},
    {"float", to_float, 1, {"value", "default"}},
    {"abs", absolute, 1, {"x"}},
    {"round", round, 1, {"value", "precision", "method"}},
    {"filesizeformat", filesizeformat, 1, {"value", "binary"}},
};

}  // namespace

std::span<const Builtin> number_filters() { return kFilters; }

}  // namespace sextant::jinja
