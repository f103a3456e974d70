// What templates see of a running loop.
#include "engine/text/jinja/ast.h"
#include "engine/text/jinja/operators.h"
#include "engine/text/jinja/tracked.h"

namespace sextant::jinja {

bool LoopObject::fetch(Runtime& runtime, Value& item) {
  const std::vector<Value>& items = source.items();
  while (next_source_ < items.size()) {
    const Value& candidate = items[next_source_++];
    if (statement->condition == nullptr || runtime.loop_accepts(*this, candidate)) {
      item = candidate;
      return true;
    }
  }
  return false;
}

bool LoopObject::advance(Runtime& runtime) {
  Value item;
  if (next_ahead_ < ahead_.size()) {
    item = std::move(ahead_[next_ahead_++]);
    if (next_ahead_ == ahead_.size()) {
      ahead_.clear();
      next_ahead_ = 0;
    }
  } else if (!fetch(runtime, item)) {
    return false;
  }
  ++index0;
  previous_item = std::move(current);
  current = std::move(item);
  return true;
}

const Value* LoopObject::peek(Runtime& runtime) {
  if (next_ahead_ == ahead_.size()) {
    Value item;
    if (!fetch(runtime, item)) return nullptr;
    ahead_.push_back(std::move(item));
  }
  return &ahead_[next_ahead_];
}

int64_t LoopObject::length(Runtime& runtime) {
  if (statement->condition == nullptr) return static_cast<int64_t>(source.items().size());
  Value item;
  while (fetch(runtime, item)) {
    runtime.charge_items(1);
    ahead_.push_back(std::move(item));
  }
  return index0 + 1 + static_cast<int64_t>(ahead_.size() - next_ahead_);
}

void LoopObject::drop_references() {
  source = previous_item = current = last_changed = Value();
  scope = Ref<Scope>();
  std::vector<Value>().swap(ahead_);
  next_ahead_ = 0;
}

namespace {

LoopObject& loop_of(const Value& value) { return value.as<LoopObject>(); }

Value cycle(Runtime&, CallArguments& arguments) {
  const size_t num_items = arguments.positional.size() - 1;
  if (num_items == 0) fail("TypeError: no items for cycling given");
  const auto index = static_cast<size_t>(loop_of(arguments.positional[0]).index0);
  return arguments.positional[1 + index % num_items];
}

Value changed(Runtime& runtime, CallArguments& arguments) {
  const Value self = arguments.positional[0];
  LoopObject& loop = loop_of(self);
  std::vector<Value> values(arguments.positional.begin() + 1, arguments.positional.end());
  Value now = runtime.heap.tuple(std::move(values));
  if (!loop.last_changed.is_missing() && is_equal(runtime, loop.last_changed, now)) return Value::boolean(false);
  loop.last_changed = std::move(now);
  return Value::boolean(true);
}

const Builtin kCycle = {"cycle", cycle, Builtin::kVariadic, {}};
const Builtin kChanged = {"changed", changed, Builtin::kVariadic, {}};

Value method(Runtime& runtime, const Value& loop, const Builtin& builtin) {
  auto* object = runtime.heap.make<FunctionObject>();
  object->builtin = &builtin;
  object->self = loop;
  return Value(Kind::kFunction, object);
}

const LoopField kFields[] = {
    {"index", [](Runtime&, const Value& v) { return Value::integer(loop_of(v).index0 + 1); }},
    {"index0", [](Runtime&, const Value& v) { return Value::integer(loop_of(v).index0); }},
    {"first", [](Runtime&, const Value& v) { return Value::boolean(loop_of(v).index0 == 0); }},
    {"last", [](Runtime& r, const Value& v) { return Value::boolean(loop_of(v).peek(r) == nullptr); }},
    {"length", [](Runtime& r, const Value& v) { return Value::integer(loop_of(v).length(r)); }},
    {"revindex", [](Runtime& r, const Value& v) { return Value::integer(loop_of(v).length(r) - loop_of(v).index0); }},
    {"revindex0",
     [](Runtime& r, const Value& v) { return Value::integer(loop_of(v).length(r) - loop_of(v).index0 - 1); }},
    {"depth", [](Runtime&, const Value& v) { return Value::integer(loop_of(v).depth0 + 1); }},
    {"depth0", [](Runtime&, const Value& v) { return Value::integer(loop_of(v).depth0); }},
    {"previtem",
     [](Runtime& r, const Value& v) {
       return loop_of(v).index0 <= 0 ? undefined_hint(r, "there is no previous item") : loop_of(v).previous_item;
     }},
    {"nextitem",
     [](Runtime& r, const Value& v) {
       const Value* next = loop_of(v).peek(r);
       return next == nullptr ? undefined_hint(r, "there is no next item") : *next;
     }},
    {"cycle", [](Runtime& r, const Value& v) { return method(r, v, kCycle); }},
    {"changed", [](Runtime& r, const Value& v) { return method(r, v, kChanged); }},
};

}  // namespace

const LoopField* find_loop_field(std::string_view name) {
  for (const LoopField& field : kFields) {
    if (field.name == name) return &field;
  }
  return nullptr;
}

}  // namespace sextant::jinja
