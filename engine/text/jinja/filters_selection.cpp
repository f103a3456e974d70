// Filters that apply other filters and tests to every item, and the ones that pick a fallback or an
// attribute.
#include <algorithm>

#include "engine/text/jinja/operators.h"

namespace sextant::jinja {
namespace {

// Calls a filter or test named by the template at run time with `item` and the arguments from position `from`
// on.
Value apply(Runtime& runtime, const Builtin& builtin, const Value& item, const CallArguments& arguments, size_t from) {
  CallArguments call;
  call.positional.reserve(arguments.positional.size() - from + 1);
  call.positional.push_back(item);
  call.positional.insert(call.positional.end(), arguments.positional.begin() + static_cast<ptrdiff_t>(from),
                         arguments.positional.end());
  call.named = arguments.named;
  runtime.step(1 + arguments.positional.size() + arguments.named.size());
  return call_builtin(runtime, builtin, call);
}

const Builtin& named_builtin(const Value& name, bool is_filter) {
  if (!name.is_string()) fail("TypeError: the name of a filter or test must be a string");
  const Builtin* builtin = is_filter ? find_filter(name.text()) : find_test(name.text());
  if (builtin == nullptr) {
    fail(std::string("No ") + (is_filter ? "filter" : "test") + " named '" + name.text().substr(0, 100) + "'.");
  }
  return *builtin;
}

Value map(Runtime& runtime, CallArguments& arguments) {
  auto& positional = arguments.positional;
  if (positional.empty()) fail("TypeError: map misses its argument 'value'");
  if (!is_true(positional[0])) return runtime.heap.iterator({}, "generator");
  const Value items = iterate(runtime, positional[0]);
  runtime.charge_items(items.items().size());
  std::vector<Value> mapped;
  mapped.reserve(items.items().size());
  if (positional.size() > 1) {
    const Builtin& filter = named_builtin(positional[1], true);
    for (const Value& item : items.items()) mapped.push_back(apply(runtime, filter, item, arguments, 2));
    return runtime.heap.iterator(std::move(mapped), "generator");
  }
  Value attribute;
  Value fallback;
  for (auto& [name, value] : arguments.named) {
    if (name.text() == "attribute") {
      attribute = value;
    } else if (name.text() == "default") {
      fallback = value;
    } else {
      fail("Unexpected keyword argument '" + name.text() + "'");
    }
  }
  if (attribute.is_missing()) fail("map requires a filter argument");
  for (const Value& item : items.items()) mapped.push_back(get_path(runtime, item, attribute, fallback));
  return runtime.heap.iterator(std::move(mapped), "generator");
}

Value choose(Runtime& runtime, CallArguments& arguments, bool by_attribute, bool keep) {
  auto& positional = arguments.positional;
  if (positional.empty()) fail("TypeError: misses its argument 'value'");
  if (!is_true(positional[0])) return runtime.heap.iterator({}, "generator");
  if (by_attribute && positional.size() < 2) fail("Missing parameter for attribute name");
  const size_t test_at = by_attribute ? 2 : 1;
  const Builtin* test = positional.size() > test_at ? &named_builtin(positional[test_at], false) : nullptr;
  const Value items = iterate(runtime, positional[0]);
  std::vector<Value> kept;
  for (const Value& item : items.items()) {
    runtime.step();
    const Value subject = by_attribute ? get_path(runtime, item, positional[1], Value()) : item;
    const bool holds =
        test == nullptr ? is_true(subject) : is_true(apply(runtime, *test, subject, arguments, test_at + 1));
    if (holds == keep) kept.push_back(item);
  }
  runtime.charge_items(kept.size());
  return runtime.heap.iterator(std::move(kept), "generator");
}
Value select(Runtime& r, CallArguments& a) { return choose(r, a, false, true); }
Value reject(Runtime& r, CallArguments& a) { return choose(r, a, false, false); }
Value selectattr(Runtime& r, CallArguments& a) { return choose(r, a, true, true); }
Value rejectattr(Runtime& r, CallArguments& a) { return choose(r, a, true, false); }

Value or_default(Runtime& runtime, CallArguments& arguments) {
  const Value& value = arguments.positional[0];
  const bool by_truth = arguments.has(2) && is_true(arguments.positional[2]);
  if (!value.is_undefined() && !(by_truth && !is_true(value))) return value;
  return arguments.has(1) ? arguments.positional[1] : runtime.text("");
}

Value attr(Runtime& runtime, CallArguments& arguments) {
  const Value& object = arguments.positional[0];
  const Value& name = arguments.positional[1];
  if (!name.is_string()) fail("TypeError: attribute name must be string");
  charge_key(runtime, name);
  const Attribute attribute = make_attribute(name);
  if (object.is(Kind::kDict) && attribute.of_dict == nullptr) {  // keys are no attributes
    return get_attribute(runtime, runtime.heap.dict({}), attribute);
  }
  return get_attribute(runtime, object, attribute);
}

constexpr Builtin kFilters[] = {
    {"map", map, Builtin::kVariadic, {}},
    {"select", select, Builtin::kVariadic, {}},
    {"reject", reject, Builtin::kVariadic, {}},
    {"selectattr", selectattr, Builtin::kVariadic, {}},
    {"rejectattr", rejectattr, Builtin::kVariadic, {}},
    {"default", or_default, 1, {"value", "default_value", "boolean"}},
    {"d", or_default, 1, {"value", "default_value", "boolean"}},
    {"attr", attr, 2, {"obj", "name"}},
};

}  // namespace

std::span<const Builtin> selection_filters() { return kFilters; }

}  // namespace sextant::jinja
