#include "engine/text/jinja/functions.h"

#include "engine/text/jinja/ast.h"
#include "engine/text/jinja/formatting.h"
#include "engine/text/jinja/operators.h"
#include "engine/text/jinja/tracked.h"

namespace sextant::jinja {
namespace {

// Jinja's sandbox allows no longer range.
constexpr int64_t kMaxRange = 100'000;
// Keeps every sum and product of a range's bounds within 64 bits.
constexpr int64_t kMaxRangeBound = int64_t{1} << 60;

Value raise_exception(Runtime& runtime, CallArguments& arguments) {
  throw Failure{FailureKind::kRaised, 0, to_text(runtime, arguments.positional[0])};
}

Value strftime_now(Runtime& runtime, CallArguments& arguments) {
  const Value& format = arguments.positional[0];
  if (!format.is_string()) fail(std::string("TypeError: strftime() argument 1 must be str, not ") + type_name(format));
  return runtime.text(format_time(runtime, format.text(), runtime.now_unix_s()));
}

Value range(Runtime& runtime, CallArguments& arguments) {
  const auto& given = arguments.positional;
  if (!arguments.named.empty()) fail("TypeError: range() takes no keyword arguments");
  if (given.empty() || given.size() > 3) fail("TypeError: range expected 1 to 3 arguments");
  int64_t bounds[3] = {0, 0, 1};
  for (size_t i = 0; i < given.size(); ++i) {
    const int64_t bound = to_index(given[i], "range() needs integers");
    if (bound > kMaxRangeBound || bound < -kMaxRangeBound) fail("OverflowError: range() bounds are too large");
    bounds[given.size() == 1 ? 1 : i] = bound;
  }
  const auto [start, stop, step] = bounds;
  if (step == 0) fail("ValueError: range() arg 3 must not be zero");
  const int64_t distance = step > 0 ? stop - start : start - stop;
  const int64_t stride = step > 0 ? step : -step;
  const int64_t count = distance <= 0 ? 0 : (distance - 1) / stride + 1;
  if (count > kMaxRange) {
    fail("OverflowError: Range too big. The sandbox blocks ranges larger than MAX_RANGE (100000).");
  }
  auto* object = runtime.heap.make<RangeObject>();
  object->start = start;
  object->stop = stop;
  object->step = step;
  object->count = count;
  return Value(Kind::kRange, object);
}

// dict(mapping or pairs, **named), which is also how a namespace starts.
std::vector<std::pair<Value, Value>> collect_entries(Runtime& runtime, CallArguments& arguments) {
  if (arguments.positional.size() > 1) fail("TypeError: dict expected at most 1 argument");
  std::vector<std::pair<Value, Value>> entries;
  if (!arguments.positional.empty()) {
    const Value& source = arguments.positional[0];
    if (source.is(Kind::kDict)) {
      runtime.charge_items(2 * source.as<DictObject>().entries().size());
      entries = source.as<DictObject>().entries();
    } else {
      const Value pairs = iterate(runtime, source);
      for (const Value& pair : pairs.items()) {
        const Value parts = iterate(runtime, pair);
        runtime.charge_items(2);
        if (parts.items().size() != 2) fail("ValueError: dictionary update sequence element is not a pair");
        entries.emplace_back(parts.items()[0], parts.items()[1]);
      }
    }
  }
  for (auto& entry : arguments.named) entries.push_back(std::move(entry));
  return entries;
}

Value dict(Runtime& runtime, CallArguments& arguments) {
  return runtime.heap.dict(collect_entries(runtime, arguments));
}

Value make_namespace(Runtime& runtime, CallArguments& arguments) {
  constexpr size_t kAttributeBytes = 128;
  auto entries = collect_entries(runtime, arguments);
  auto* object = runtime.heap.make<NamespaceObject>(entries.size() * kAttributeBytes);
  Value value(Kind::kNamespace, object);
  for (auto& [name, item] : entries) {
    if (!is_hashable(name)) fail("TypeError: unhashable type used as a name");
    object->attributes.set(std::move(name), std::move(item));
  }
  return value;
}

Value cycler(Runtime& runtime, CallArguments& arguments) {
  if (arguments.positional.empty()) fail("RuntimeError: at least one item has to be provided");
  auto* object = runtime.heap.make<CyclerObject>(arguments.positional.size() * sizeof(Value));
  Value value(Kind::kCycler, object);
  object->items = std::move(arguments.positional);
  return value;
}

Value cycler_next(Runtime&, CallArguments& arguments) {
  auto& self = arguments.positional[0].as<CyclerObject>();
  Value current = self.items[self.position];
  self.position = (self.position + 1) % self.items.size();
  return current;
}

Value cycler_reset(Runtime&, CallArguments& arguments) {
  arguments.positional[0].as<CyclerObject>().position = 0;
  return Value::none();
}

Value joiner(Runtime& runtime, CallArguments& arguments) {
  auto* object = runtime.heap.make<JoinerObject>();
  Value value(Kind::kJoiner, object);
  object->separator = arguments.has(0) ? arguments.positional[0] : runtime.text(", ");
  return value;
}

constexpr Builtin kNext = {"next", cycler_next, 1, {"self"}};
constexpr Builtin kReset = {"reset", cycler_reset, 1, {"self"}};

constexpr Builtin kFunctions[] = {
    {"raise_exception", raise_exception, 1, {"message"}},
    {"strftime_now", strftime_now, 1, {"format"}},
    {"range", range, Builtin::kVariadic, {}},
    {"dict", dict, Builtin::kVariadic, {}},
    {"namespace", make_namespace, Builtin::kVariadic, {}},
    {"cycler", cycler, Builtin::kVariadic, {}},
    {"joiner", joiner, 0, {"sep"}},
};

}  // namespace

std::span<const Builtin> global_functions() { return kFunctions; }

Value macro_attribute(Runtime& runtime, const Value& macro, const std::string& name) {
  const MacroDefinition& definition = *macro.as<MacroObject>().definition;
  if (name == "name") return definition.name.empty() ? Value::none() : runtime.text(definition.name);
  if (name == "catch_kwargs") return Value::boolean(definition.uses_kwargs);
  if (name == "catch_varargs") return Value::boolean(definition.uses_varargs);
  if (name == "caller") return Value::boolean(definition.uses_caller);
  if (name != "arguments") return {};
  std::vector<Value> names;
  for (const MacroParameter& parameter : definition.parameters) names.push_back(parameter.name);
  return runtime.heap.tuple(std::move(names));
}

Value cycler_attribute(Runtime& runtime, const Value& cycler, const std::string& name) {
  const auto& object = cycler.as<CyclerObject>();
  if (name == "current") return object.items[object.position];
  const Builtin* builtin = name == "next" ? &kNext : (name == "reset" ? &kReset : nullptr);
  if (builtin == nullptr) return {};
  auto* function = runtime.heap.make<FunctionObject>();
  function->builtin = builtin;
  function->self = cycler;
  return Value(Kind::kFunction, function);
}

}  // namespace sextant::jinja
