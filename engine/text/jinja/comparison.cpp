#include <algorithm>

#include "engine/text/jinja/operators.h"

namespace sextant::jinja {
namespace {

const char* symbol(CompareOp op) {
  switch (op) {
    case CompareOp::kLess: return "<";
    case CompareOp::kLessEqual: return "<=";
    case CompareOp::kGreater: return ">";
    default: return ">=";
  }
}

template <typename T>
bool holds(CompareOp op, const T& a, const T& b) {
  switch (op) {
    case CompareOp::kLess: return a < b;
    case CompareOp::kLessEqual: return a <= b;
    case CompareOp::kGreater: return a > b;
    default: return a >= b;
  }
}

bool order(Runtime& runtime, CompareOp op, const Value& a, const Value& b) {
  runtime.step();
  if (a.is_integer() && b.is_integer()) return holds(op, a.integer(), b.integer());
  if (a.is_number() && b.is_number()) {
    const auto exact = [](const Value& v) {
      return v.is_integer() ? static_cast<long double>(v.integer()) : static_cast<long double>(v.real());
    };
    return holds(op, exact(a), exact(b));
  }
  if (a.is_string() && b.is_string()) {
    runtime.charge_text(std::min(a.text().size(), b.text().size()));
    return holds(op, a.text(), b.text());  // UTF-8 sorts as its code points do
  }
  if (a.is_sequence() && a.kind() == b.kind()) {
    const auto& x = a.items();
    const auto& y = b.items();
    for (size_t i = 0; i < std::min(x.size(), y.size()); ++i) {
      if (!is_equal(runtime, x[i], y[i])) return order(runtime, op, x[i], y[i]);
    }
    return holds(op, x.size(), y.size());
  }
  if (a.is_undefined()) fail_undefined(a);
  if (b.is_undefined()) fail_undefined(b);
  fail(std::string("TypeError: '") + symbol(op) + "' not supported between instances of '" + type_name(a) + "' and '" +
       type_name(b) + "'");
}

bool equal_items(Runtime& runtime, const std::vector<Value>& a, const std::vector<Value>& b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    if (!is_equal(runtime, a[i], b[i])) return false;
  }
  return true;
}

bool equal_dicts(Runtime& runtime, const DictObject& a, const DictObject& b) {
  if (a.entries().size() != b.entries().size()) return false;
  for (const auto& [key, value] : a.entries()) {
    const Value* other = b.find(key);
    if (other == nullptr || !is_equal(runtime, value, *other)) return false;
  }
  return true;
}

bool equal_ranges(const RangeObject& a, const RangeObject& b) {
  if (a.count != b.count) return false;
  return a.count == 0 || (a.start == b.start && (a.count == 1 || a.step == b.step));
}

}  // namespace

bool is_true(const Value& value) {
  switch (value.kind()) {
    case Kind::kMissing:
    case Kind::kNone:
    case Kind::kUndefined: return false;
    case Kind::kBool:
    case Kind::kInt: return value.integer() != 0;
    case Kind::kFloat: return value.real() != 0;
    case Kind::kString: return !value.text().empty();
    case Kind::kList:
    case Kind::kTuple: return !value.items().empty();
    case Kind::kDict: return !value.as<DictObject>().entries().empty();
    case Kind::kDictView: return is_true(value.as<DictViewObject>().dict);
    case Kind::kRange: return value.as<RangeObject>().count != 0;
    default: return true;
  }
}

bool is_equal(Runtime& runtime, const Value& a, const Value& b) {
  runtime.step();
  if (a.is_number() && b.is_number()) {
    if (a.is_integer() && b.is_integer()) return a.integer() == b.integer();
    const auto exact = [](const Value& v) {
      return v.is_integer() ? static_cast<long double>(v.integer()) : static_cast<long double>(v.real());
    };
    return exact(a) == exact(b);
  }
  if (a.kind() != b.kind()) return false;
  switch (a.kind()) {
    case Kind::kMissing:
    case Kind::kNone:
    case Kind::kUndefined: return true;
    case Kind::kString:
    case Kind::kBigInt: {
      const std::string& x = a.as<StringObject>().text;
      const std::string& y = b.as<StringObject>().text;
      if (x.size() != y.size()) return false;
      runtime.charge_text(x.size());
      return x == y;
    }
    case Kind::kList:
    case Kind::kTuple: return a.object() == b.object() || equal_items(runtime, a.items(), b.items());
    case Kind::kDict: return a.object() == b.object() || equal_dicts(runtime, a.as<DictObject>(), b.as<DictObject>());
    case Kind::kRange: return equal_ranges(a.as<RangeObject>(), b.as<RangeObject>());
    case Kind::kFunction:
      return a.as<FunctionObject>().builtin == b.as<FunctionObject>().builtin &&
             a.as<FunctionObject>().self.is_missing() && b.as<FunctionObject>().self.is_missing();
    default: return a.object() == b.object();
  }
}

bool is_less(Runtime& runtime, const Value& a, const Value& b) { return order(runtime, CompareOp::kLess, a, b); }

bool compare(Runtime& runtime, CompareOp op, const Value& a, const Value& b) {
  switch (op) {
    case CompareOp::kEqual: return is_equal(runtime, a, b);
    case CompareOp::kNotEqual: return !is_equal(runtime, a, b);
    case CompareOp::kIn: return contains(runtime, b, a);
    case CompareOp::kNotIn: return !contains(runtime, b, a);
    default: return order(runtime, op, a, b);
  }
}

bool contains(Runtime& runtime, const Value& container, const Value& item) {
  switch (container.kind()) {
    case Kind::kString: {
      if (!item.is_string()) {
        fail(std::string("TypeError: 'in <string>' requires string as left operand, not ") + type_name(item));
      }
      runtime.charge_text(container.text().size());
      return find_text(container.text(), item.text(), 0) != std::string::npos;
    }
    case Kind::kDict:
      if (!is_hashable(item)) fail(std::string("TypeError: unhashable type: '") + type_name(item) + "'");
      charge_key(runtime, item);
      return container.as<DictObject>().find(item) != nullptr;
    case Kind::kUndefined: return false;
    default: break;
  }
  const Value items = iterate(runtime, container);
  for (const Value& candidate : items.items()) {
    if (is_equal(runtime, candidate, item)) return true;
  }
  return false;
}

}  // namespace sextant::jinja
