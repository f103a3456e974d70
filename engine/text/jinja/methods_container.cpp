// Methods of lists, tuples, dicts and floats. Those that would change a list or dict stand in the tables
// without a function: the sandbox forbids them.
#include <cmath>

#include "engine/text/jinja/operators.h"

namespace sextant::jinja {
namespace {

Value index(Runtime& runtime, CallArguments& arguments) {
  const Value items = iterate(runtime, arguments.positional[0]);
  const auto size = static_cast<int64_t>(items.items().size());
  const auto bound = [&](size_t i, int64_t otherwise) {
    if (!arguments.has(i)) return otherwise;
    const int64_t given = to_index(arguments.positional[i], "slice indices must be integers");
    return given < 0 ? (given < -size ? 0 : given + size) : std::min(given, size);
  };
  const int64_t end = bound(3, size);
  for (int64_t i = bound(2, 0); i < end; ++i) {
    if (is_equal(runtime, items.items()[i], arguments.positional[1])) return Value::integer(i);
  }
  fail("ValueError: the item is not in the list");
}

Value count(Runtime& runtime, CallArguments& arguments) {
  const Value items = iterate(runtime, arguments.positional[0]);
  int64_t num_equal = 0;
  for (const Value& item : items.items()) num_equal += is_equal(runtime, item, arguments.positional[1]) ? 1 : 0;
  return Value::integer(num_equal);
}

Value copy(Runtime&, CallArguments& arguments) { return arguments.positional[0]; }

Value get(Runtime& runtime, CallArguments& arguments) {
  const Value& key = arguments.positional[1];
  if (!is_hashable(key)) fail(std::string("TypeError: unhashable type: '") + type_name(key) + "'");
  charge_key(runtime, key);
  const Value* found = arguments.positional[0].as<DictObject>().find(key);
  if (found != nullptr) return *found;
  return arguments.has(2) ? arguments.positional[2] : Value::none();
}

template <DictViewKind view>
Value view_of(Runtime& runtime, CallArguments& arguments) {
  auto* object = runtime.heap.make<DictViewObject>();
  object->view = view;
  object->dict = arguments.positional[0];
  return Value(Kind::kDictView, object);
}

Value fromkeys(Runtime& runtime, CallArguments& arguments) {
  const Value keys = iterate(runtime, arguments.positional[1]);
  const Value value = arguments.has(2) ? arguments.positional[2] : Value::none();
  runtime.charge_items(2 * keys.items().size());
  std::vector<std::pair<Value, Value>> entries;
  for (const Value& key : keys.items()) entries.emplace_back(key, value);
  return runtime.heap.dict(std::move(entries));
}

Value is_whole(Runtime&, CallArguments& arguments) {
  const double value = arguments.positional[0].real();
  return Value::boolean(std::isfinite(value) && std::floor(value) == value);
}

constexpr Builtin kListMethods[] = {
    {"index", index, 2, {"self", "value", "start", "stop"}},
    {"count", count, 2, {"self", "value"}},
    {"copy", copy, 1, {"self"}},
    {"append"},
    {"clear"},
    {"pop"},
    {"reverse"},
    {"insert"},
    {"sort"},
    {"extend"},
    {"remove"},
};
constexpr Builtin kTupleMethods[] = {
    {"index", index, 2, {"self", "value", "start", "stop"}},
    {"count", count, 2, {"self", "value"}},
};
constexpr Builtin kDictMethods[] = {
    {"get", get, 2, {"self", "key", "default"}},
    {"items", view_of<DictViewKind::kItems>, 1, {"self"}},
    {"keys", view_of<DictViewKind::kKeys>, 1, {"self"}},
    {"values", view_of<DictViewKind::kValues>, 1, {"self"}},
    {"copy", copy, 1, {"self"}},
    {"fromkeys", fromkeys, 2, {"self", "iterable", "value"}},
    {"clear"},
    {"pop"},
    {"popitem"},
    {"setdefault"},
    {"update"},
};
constexpr Builtin kFloatMethods[] = {
    {"is_integer", is_whole, 1, {"self"}},
};

}  // namespace

std::span<const Builtin> list_methods() { return kListMethods; }
std::span<const Builtin> tuple_methods() { return kTupleMethods; }
std::span<const Builtin> dict_methods() { return kDictMethods; }
std::span<const Builtin> float_methods() { return kFloatMethods; }

}  // namespace sextant::jinja
