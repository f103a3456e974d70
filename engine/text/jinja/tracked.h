// The objects that templates can tie into cycles: scopes of variables, macros (which hold their scope) and
// loops.
#pragma once

#include <vector>

#include "engine/text/jinja/runtime.h"
#include "engine/text/jinja/value.h"

namespace sextant::jinja {

struct MacroDefinition;
struct ForStatement;

// Variables of one lexical scope. Reading looks outwards, writing never does.
struct Scope : TrackedObject {
  struct Binding {
    int symbol;
    Value value;
  };

  Ref<Scope> parent;
  std::vector<Binding> bindings;

  void drop_references() override {
    parent = Ref<Scope>();
    std::vector<Binding>().swap(bindings);
  }
};

struct MacroObject : TrackedObject {
  const MacroDefinition* definition = nullptr;
  Ref<Scope> scope;
  void drop_references() override { scope = Ref<Scope>(); }
};

// The `loop` variable, and the loop's position. Items are looked for one at a time, because the loop's
// condition may read what its body writes; only loop.length and its relatives look at them all ahead of time.
struct LoopObject : TrackedObject {
  Value source;  // a list or tuple
  const ForStatement* statement = nullptr;
  Ref<Scope> scope;  // in which the condition is evaluated
  int64_t depth0 = 0;

  int64_t index0 = -1;
  Value previous_item;
  Value current;
  Value last_changed;

  bool advance(Runtime& runtime);
  // nullptr at the end.
  const Value* peek(Runtime& runtime);
  int64_t length(Runtime& runtime);
  void drop_references() override;

 private:
  bool fetch(Runtime& runtime, Value& item);
  size_t next_source_ = 0;
  std::vector<Value> ahead_;  // accepted and not yet visited
  size_t next_ahead_ = 0;
};

struct LoopField {
  std::string_view name;
  Value (*get)(Runtime&, const Value& loop);
};

}  // namespace sextant::jinja
