#include <cmath>
#include <limits>

#include "engine/text/jinja/formatting.h"
#include "engine/text/jinja/operators.h"

namespace sextant::jinja {
namespace {

const char* symbol(BinaryOp op) {
  switch (op) {
    case BinaryOp::kAdd: return "+";
    case BinaryOp::kSubtract: return "-";
    case BinaryOp::kMultiply: return "*";
    case BinaryOp::kDivide: return "/";
    case BinaryOp::kFloorDivide: return "//";
    case BinaryOp::kModulo: return "%";
    case BinaryOp::kPower: return "**";
  }
  return "?";
}

[[noreturn]] void fail_operands(BinaryOp op, const Value& a, const Value& b) {
  fail(std::string("TypeError: unsupported operand type(s) for ") + symbol(op) + ": '" + type_name(a) + "' and '" +
       type_name(b) + "'");
}

[[noreturn]] void fail_overflow() { fail("OverflowError: an integer result does not fit into 64 bits"); }
[[noreturn]] void fail_zero() { fail("ZeroDivisionError: division by zero"); }

int64_t floor_divide(int64_t a, int64_t b) {
  if (b == 0) fail_zero();
  if (a == std::numeric_limits<int64_t>::min() && b == -1) fail_overflow();
  const int64_t quotient = a / b;
  return quotient - ((a % b != 0) && ((a < 0) != (b < 0)) ? 1 : 0);
}

int64_t modulo(int64_t a, int64_t b) {
  if (b == 0) fail_zero();
  if (b == -1) return 0;
  const int64_t rest = a % b;
  return rest != 0 && ((rest < 0) != (b < 0)) ? rest + b : rest;
}

double modulo(double a, double b) {
  if (b == 0) fail_zero();
  double rest = std::fmod(a, b);
  if (rest != 0) {
    if ((rest < 0) != (b < 0)) rest += b;
  } else {
    rest = std::copysign(0.0, b);
  }
  return rest;
}

double floor_divide(double a, double b) {
  if (b == 0) fail_zero();
  const double rest = modulo(a, b);
  const double quotient = (a - rest) / b;
  if (quotient == 0) return std::copysign(0.0, a / b);
  const double floored = std::floor(quotient);
  return quotient - floored > 0.5 ? floored + 1 : floored;
}

double power(double a, double b) {
  if (a == 0 && b < 0) fail("ZeroDivisionError: 0.0 cannot be raised to a negative power");
  if (a < 0 && std::isfinite(b) && b != std::floor(b)) fail("TypeError: complex numbers are not supported");
  const double result = std::pow(a, b);
  if (std::isinf(result) && std::isfinite(a) && std::isfinite(b)) fail("OverflowError: numerical result out of range");
  return result;
}

Value integer_power(int64_t base, int64_t exponent) {
  if (exponent < 0) return Value::real(power(static_cast<double>(base), static_cast<double>(exponent)));
  int64_t result = 1;
  for (;;) {
    if ((exponent & 1) != 0 && __builtin_mul_overflow(result, base, &result)) fail_overflow();
    exponent >>= 1;
    if (exponent == 0) return Value::integer(result);
    if (__builtin_mul_overflow(base, base, &base)) {
      if (exponent > 0) fail_overflow();
    }
  }
}

Value integer_binary(BinaryOp op, int64_t a, int64_t b) {
  int64_t result = 0;
  switch (op) {
    case BinaryOp::kAdd:
      if (__builtin_add_overflow(a, b, &result)) fail_overflow();
      return Value::integer(result);
    case BinaryOp::kSubtract:
      if (__builtin_sub_overflow(a, b, &result)) fail_overflow();
      return Value::integer(result);
    case BinaryOp::kMultiply:
      if (__builtin_mul_overflow(a, b, &result)) fail_overflow();
      return Value::integer(result);
    case BinaryOp::kDivide:
      if (b == 0) fail_zero();
      return Value::real(static_cast<double>(static_cast<long double>(a) / static_cast<long double>(b)));
    case BinaryOp::kFloorDivide: return Value::integer(floor_divide(a, b));
    case BinaryOp::kModulo: return Value::integer(modulo(a, b));
    case BinaryOp::kPower: return integer_power(a, b);
  }
  return {};
}

Value real_binary(BinaryOp op, double a, double b) {
  switch (op) {
    case BinaryOp::kAdd: return Value::real(a + b);
    case BinaryOp::kSubtract: return Value::real(a - b);
    case BinaryOp::kMultiply: return Value::real(a * b);
    case BinaryOp::kDivide:
      if (b == 0) fail_zero();
      return Value::real(a / b);
    case BinaryOp::kFloorDivide: return Value::real(floor_divide(a, b));
    case BinaryOp::kModulo: return Value::real(modulo(a, b));
    case BinaryOp::kPower: return Value::real(power(a, b));
  }
  return {};
}

Value add_texts(Runtime& runtime, Value left, const Value& right) {
  auto& a = left.as<StringObject>();
  const auto& b = right.as<StringObject>();
  if (a.markup != b.markup) {
    return runtime.text(a.markup ? a.text + escape_html(runtime, b.text) : escape_html(runtime, a.text) + b.text, true);
  }
  if (a.num_references == 1 && !a.immortal && &a != &b) {
    const size_t total = a.text.size() + b.text.size();
    if (total > runtime.limits().max_output_bytes) runtime.charge_new_text(total);  // fails
    runtime.charge_new_text(b.text.size());
    a.text += b.text;
    a.num_chars = StringObject::kUnknown;
    runtime.heap.recharge(a, sizeof(StringObject) + a.text.size());
    return left;
  }
  runtime.charge_new_text(a.text.size() + b.text.size());
  std::string joined;
  joined.reserve(a.text.size() + b.text.size());
  joined += a.text;
  joined += b.text;
  return runtime.heap.text(std::move(joined), a.markup);
}

Value repeat_items(Runtime& runtime, const Value& value, int64_t count) {
  const std::vector<Value>& items = value.items();
  std::vector<Value> repeated;
  if (count > 0 && !items.empty()) {
    size_t total = 0;
    if (__builtin_mul_overflow(items.size(), static_cast<size_t>(count), &total)) total = SIZE_MAX;
    runtime.charge_items(total);
    repeated.reserve(total);
    for (int64_t i = 0; i < count; ++i) repeated.insert(repeated.end(), items.begin(), items.end());
  }
  return value.is(Kind::kList) ? runtime.heap.list(std::move(repeated)) : runtime.heap.tuple(std::move(repeated));
}

Value multiply(Runtime& runtime, const Value& a, const Value& b) {
  const bool number_first = a.is_integer();
  const Value& sequence = number_first ? b : a;
  const Value& count = number_first ? a : b;
  if (count.is_integer() && sequence.is_string()) {
    return runtime.heap.text(repeat_text(runtime, sequence.text(), count.integer()),
                             sequence.as<StringObject>().markup);
  }
  if (count.is_integer() && sequence.is_sequence()) return repeat_items(runtime, sequence, count.integer());
  fail_operands(BinaryOp::kMultiply, a, b);
}

}  // namespace

std::string repeat_text(Runtime& runtime, std::string_view text, int64_t count) {
  std::string repeated;
  if (count <= 0 || text.empty()) return repeated;
  size_t total = 0;
  if (__builtin_mul_overflow(text.size(), static_cast<size_t>(count), &total)) total = SIZE_MAX;
  runtime.charge_new_text(total);
  if (text.size() == 1) {
    repeated.assign(total, text[0]);
  } else {
    repeated.reserve(total);
    for (int64_t i = 0; i < count; ++i) repeated += text;
  }
  return repeated;
}

Value binary(Runtime& runtime, BinaryOp op, Value left, const Value& right) {
  if (left.is_string() && op == BinaryOp::kModulo) return format_percent(runtime, left, right);
  if (left.is_undefined()) fail_undefined(left);
  if (right.is_undefined()) fail_undefined(right);
  if (left.is_integer() && right.is_integer()) return integer_binary(op, left.integer(), right.integer());
  if (left.is_number() && right.is_number()) return real_binary(op, left.real(), right.real());
  if (left.is(Kind::kBigInt) || right.is(Kind::kBigInt)) fail_overflow();
  if (op == BinaryOp::kMultiply) return multiply(runtime, left, right);
  if (op == BinaryOp::kAdd) {
    if (left.is_string()) {
      if (right.is_string()) return add_texts(runtime, std::move(left), right);
      fail(std::string("TypeError: can only concatenate str (not \"") + type_name(right) + "\") to str");
    }
    if (left.is_sequence() && left.kind() == right.kind()) {
      runtime.charge_items(left.items().size() + right.items().size());
      std::vector<Value> joined;
      joined.reserve(left.items().size() + right.items().size());
      joined.insert(joined.end(), left.items().begin(), left.items().end());
      joined.insert(joined.end(), right.items().begin(), right.items().end());
      return left.is(Kind::kList) ? runtime.heap.list(std::move(joined)) : runtime.heap.tuple(std::move(joined));
    }
  }
  fail_operands(op, left, right);
}

Value negate(const Value& value) {
  if (value.is_undefined()) fail_undefined(value);
  if (value.is(Kind::kFloat)) return Value::real(-value.real());
  if (value.is(Kind::kBigInt)) fail_overflow();
  if (!value.is_integer()) fail(std::string("TypeError: bad operand type for unary -: '") + type_name(value) + "'");
  int64_t result = 0;
  if (__builtin_sub_overflow(int64_t{0}, value.integer(), &result)) fail_overflow();
  return Value::integer(result);
}

Value posit(const Value& value) {
  if (value.is_undefined()) fail_undefined(value);
  if (value.is(Kind::kFloat) || value.is(Kind::kBigInt)) return value;
  if (!value.is_integer()) fail(std::string("TypeError: bad operand type for unary +: '") + type_name(value) + "'");
  return Value::integer(value.integer());
}

}  // namespace sextant::jinja
