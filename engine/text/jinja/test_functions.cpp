#include "engine/text/jinja/test_functions.h"

#include "engine/text/jinja/operators.h"
#include "engine/text/jinja/text_operations.h"
#include "engine/text/jinja/unicode.h"

namespace sextant::jinja {
namespace {

template <bool (*holds)(const Value&)>
Value test(Runtime&, CallArguments& arguments) {
  return Value::boolean(holds(arguments.positional[0]));
}

template <CompareOp op>
Value comparison(Runtime& runtime, CallArguments& arguments) {
  return Value::boolean(compare(runtime, op, arguments.positional[0], arguments.positional[1]));
}

bool is_defined(const Value& v) { return !v.is_undefined(); }
bool is_undefined(const Value& v) { return v.is_undefined(); }
bool is_none(const Value& v) { return v.is_none(); }
bool is_boolean(const Value& v) { return v.is(Kind::kBool); }
bool is_false(const Value& v) { return v.is(Kind::kBool) && !v.boolean(); }
bool is_the_true(const Value& v) { return v.is(Kind::kBool) && v.boolean(); }
bool is_integer(const Value& v) { return v.is(Kind::kInt) || v.is(Kind::kBigInt); }
bool is_float(const Value& v) { return v.is(Kind::kFloat); }
bool is_number(const Value& v) { return v.is_number() || v.is(Kind::kBigInt); }
bool is_string(const Value& v) { return v.is_string(); }
bool is_mapping(const Value& v) { return v.is(Kind::kDict); }
bool is_callable(const Value& v) {
  return v.is(Kind::kMacro) || v.is(Kind::kFunction) || v.is(Kind::kJoiner) || v.is(Kind::kLoop) || v.is_undefined();
}
bool is_sequence(const Value& v) {
  return v.is_string() || v.is_sequence() || v.is(Kind::kDict) || v.is(Kind::kRange) || v.is_undefined();
}

Value remainder_is(Runtime& runtime, CallArguments& arguments, const Value& divisor, int64_t wanted) {
  const Value rest = binary(runtime, BinaryOp::kModulo, arguments.positional[0], divisor);
  return Value::boolean(is_equal(runtime, rest, Value::integer(wanted)));
}
Value is_odd(Runtime& r, CallArguments& a) { return remainder_is(r, a, Value::integer(2), 1); }
Value is_even(Runtime& r, CallArguments& a) { return remainder_is(r, a, Value::integer(2), 0); }
Value is_divisible_by(Runtime& r, CallArguments& a) { return remainder_is(r, a, a.positional[1], 0); }

// str.islower/isupper: some letter has case, and none has the other case.
Value has_case(Runtime& runtime, CallArguments& arguments, bool (*wanted)(int32_t), bool (*other)(int32_t)) {
  const Value text = as_string(runtime, arguments.positional[0]);
  runtime.charge_text(text.text().size());
  bool found = false;
  for (size_t i = 0; i < text.text().size();) {
    const DecodedChar c = decode_char(text.text(), i);
    if (other(c.code_point) || is_title(c.code_point)) return Value::boolean(false);
    found = found || wanted(c.code_point);
    i += c.num_bytes;
  }
  return Value::boolean(found);
}
Value is_lower_case(Runtime& r, CallArguments& a) { return has_case(r, a, is_lower, is_upper); }
Value is_upper_case(Runtime& r, CallArguments& a) { return has_case(r, a, is_upper, is_lower); }

Value is_same_as(Runtime&, CallArguments& arguments) {
  const Value& a = arguments.positional[0];
  const Value& b = arguments.positional[1];
  if (a.kind() != b.kind()) return Value::boolean(false);
  if (a.is_integer()) return Value::boolean(a.integer() == b.integer());
  if (a.is(Kind::kFloat)) return Value::boolean(a.real() == b.real());
  return Value::boolean(a.is_none() || a.object() == b.object());
}

Value names_filter(Runtime&, CallArguments& arguments) {
  const Value& name = arguments.positional[0];
  return Value::boolean(name.is_string() && find_filter(name.text()) != nullptr);
}
Value names_test(Runtime&, CallArguments& arguments) {
  const Value& name = arguments.positional[0];
  return Value::boolean(name.is_string() && find_test(name.text()) != nullptr);
}

constexpr Builtin kTests[] = {
    {"defined", test<is_defined>, 1, {"value"}},
    {"undefined", test<is_undefined>, 1, {"value"}},
    {"none", test<is_none>, 1, {"value"}},
    {"boolean", test<is_boolean>, 1, {"value"}},
    {"false", test<is_false>, 1, {"value"}},
    {"true", test<is_the_true>, 1, {"value"}},
    {"integer", test<is_integer>, 1, {"value"}},
    {"float", test<is_float>, 1, {"value"}},
    {"number", test<is_number>, 1, {"value"}},
    {"string", test<is_string>, 1, {"value"}},
    {"mapping", test<is_mapping>, 1, {"value"}},
    {"sequence", test<is_sequence>, 1, {"value"}},
    {"iterable", test<is_iterable>, 1, {"value"}},
    {"callable", test<is_callable>, 1, {"obj"}},
    {"escaped", test<is_markup>, 1, {"value"}},
    {"lower", is_lower_case, 1, {"value"}},
    {"upper", is_upper_case, 1, {"value"}},
    {"odd", is_odd, 1, {"value"}},
    {"even", is_even, 1, {"value"}},
    {"divisibleby", is_divisible_by, 2, {"value", "num"}},
    {"sameas", is_same_as, 2, {"value", "other"}},
    {"filter", names_filter, 1, {"value"}},
    {"test", names_test, 1, {"value"}},
    {"in", comparison<CompareOp::kIn>, 2, {"value", "seq"}},
    {"==", comparison<CompareOp::kEqual>, 2, {"a", "b"}},
    {"eq", comparison<CompareOp::kEqual>, 2, {"a", "b"}},
    {"equalto", comparison<CompareOp::kEqual>, 2, {"a", "b"}},
    {"!=", comparison<CompareOp::kNotEqual>, 2, {"a", "b"}},
    {"ne", comparison<CompareOp::kNotEqual>, 2, {"a", "b"}},
    {">", comparison<CompareOp::kGreater>, 2, {"a", "b"}},
    {"gt", comparison<CompareOp::kGreater>, 2, {"a", "b"}},
    {"greaterthan", comparison<CompareOp::kGreater>, 2, {"a", "b"}},
    {">=", comparison<CompareOp::kGreaterEqual>, 2, {"a", "b"}},
    {"ge", comparison<CompareOp::kGreaterEqual>, 2, {"a", "b"}},
    {"<", comparison<CompareOp::kLess>, 2, {"a", "b"}},
    {"lt", comparison<CompareOp::kLess>, 2, {"a", "b"}},
    {"lessthan", comparison<CompareOp::kLess>, 2, {"a", "b"}},
    {"<=", comparison<CompareOp::kLessEqual>, 2, {"a", "b"}},
    {"le", comparison<CompareOp::kLessEqual>, 2, {"a", "b"}},
};

}  // namespace

std::span<const Builtin> test_functions() { return kTests; }

}  // namespace sextant::jinja
