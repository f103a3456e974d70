#include "engine/text/jinja/interpreter.h"

#include "engine/text/jinja/operators.h"

namespace sextant::jinja {

Interpreter::Interpreter(const Template& t, const ChatTemplateLimits& limits, int64_t now_unix_s)
    : Runtime(limits, now_unix_s), template_(t), max_depth_(limits.max_depth * kDepthPerLevel) {}

void Interpreter::fail_depth() const {
  fail_limit("the template nests or recurses more than " + std::to_string(max_depth_) + " levels deep");
}

std::string Interpreter::render(const nlohmann::ordered_json& variables) {
  const size_t num_symbols = template_.symbols.size();
  context_.reserve(num_symbols);
  for (size_t i = 0; i < num_symbols; ++i) {
    const auto found = variables.find(template_.symbols[i].text());
    if (found != variables.end()) {
      context_.push_back(from_json(*this, *found));
    } else {
      context_.push_back(template_.functions[i].is_missing() ? template_.undefined[i] : template_.functions[i]);
    }
  }
  root_ = new_scope(Ref<Scope>());
  scope_ = root_;
  Output output(*this);
  output_ = &output;
  execute(template_.body);
  return output.take();
}

Ref<Scope> Interpreter::new_scope(const Ref<Scope>& parent) {
  Ref<Scope> scope(heap.make<Scope>());
  scope->parent = parent;
  return scope;
}

const Value& Interpreter::look_up(int symbol) {
  size_t num_scanned = 0;
  for (const Scope* scope = scope_.get(); scope != nullptr; scope = scope->parent.get()) {
    for (const Scope::Binding& binding : scope->bindings) {
      if (binding.symbol == symbol) return binding.value;
    }
    num_scanned += 1 + scope->bindings.size();
  }
  step(num_scanned / 16);
  return context_[symbol];
}

void Interpreter::set_variable(int symbol, Value value) {
  Scope& scope = *scope_;
  for (Scope::Binding& binding : scope.bindings) {
    if (binding.symbol == symbol) {
      binding.value = std::move(value);
      return;
    }
  }
  step(scope.bindings.size() / 16);
  scope.bindings.push_back({symbol, std::move(value)});
  heap.recharge(scope, sizeof(Scope) + scope.bindings.capacity() * sizeof(Scope::Binding));
}

void Interpreter::assign(const Target& target, const Value& value) {
  if (target.is_tuple) {
    if (!is_iterable(value)) fail(std::string("TypeError: cannot unpack non-iterable ") + type_name(value) + " object");
    const Value items = iterate(*this, value);
    const size_t num_given = items.items().size();
    const size_t num_wanted = target.parts.size();
    if (num_given != num_wanted) {
      fail(std::string("ValueError: ") + (num_given < num_wanted ? "not enough" : "too many") +
           " values to unpack (expected " + std::to_string(num_wanted) + ", got " + std::to_string(num_given) + ")");
    }
    for (size_t i = 0; i < num_wanted; ++i) assign(target.parts[i], items.items()[i]);
    return;
  }
  if (target.attribute.is_missing()) {
    set_variable(target.symbol, value);
    return;
  }
  const Value& object = look_up(target.symbol);
  if (!object.is(Kind::kNamespace)) fail("cannot assign attribute on non-namespace object");
  auto& space = object.as<NamespaceObject>();
  constexpr size_t kAttributeBytes = 128;
  charge_key(*this, target.attribute);
  space.attributes.set(target.attribute, value);
  heap.recharge(space, sizeof(NamespaceObject) + space.attributes.entries().size() * kAttributeBytes);
}

Interpreter::Flow Interpreter::execute(const Body& body) {
  for (const StatementPtr& statement : body) {
    const Flow flow = execute(*statement);
    if (flow != Flow::kNext) return flow;
  }
  return Flow::kNext;
}

Interpreter::Flow Interpreter::execute(const Statement& statement) {
  step();
  line_ = statement.line;
  if (statement.kind == StatementKind::kText) {
    output_->append(static_cast<const TextStatement&>(statement).text);
    return Flow::kNext;
  }
  const Frame frame(*this);
  switch (statement.kind) {
    case StatementKind::kText: break;
    case StatementKind::kOutput: execute_output(static_cast<const OutputStatement&>(statement)); break;
    case StatementKind::kIf: return execute_if(static_cast<const IfStatement&>(statement));
    case StatementKind::kFor: {
      const auto& loop = static_cast<const ForStatement&>(statement);
      execute_for(loop, evaluate(*loop.items), 0);
      break;
    }
    case StatementKind::kSet: {
      const auto& set = static_cast<const SetStatement&>(statement);
      const Value value = evaluate(*set.value);
      assign(set.target, value);
      break;
    }
    case StatementKind::kSetBlock: return execute_set_block(static_cast<const SetBlockStatement&>(statement));
    case StatementKind::kMacro: execute_macro(static_cast<const MacroStatement&>(statement)); break;
    case StatementKind::kCallBlock: execute_call_block(static_cast<const CallBlockStatement&>(statement)); break;
    case StatementKind::kFilterBlock: return execute_filter_block(static_cast<const FilterBlockStatement&>(statement));
    case StatementKind::kWith:
    case StatementKind::kScope:
    case StatementKind::kBlock: return execute_with(static_cast<const WithStatement&>(statement));
    case StatementKind::kBreak: return Flow::kBreak;
    case StatementKind::kContinue: return Flow::kContinue;
  }
  return Flow::kNext;
}

void Interpreter::execute_output(const OutputStatement& statement) {
  const Value value = evaluate(*statement.value);
  if (value.is_string()) {
    output_->append(value.text());
  } else if (!value.is_undefined()) {
    output_->append(to_text(*this, value));
  }
}

Interpreter::Flow Interpreter::execute_if(const IfStatement& statement) {
  for (const IfStatement::Branch& branch : statement.branches) {
    if (is_true(evaluate(*branch.condition))) return execute(branch.body);
  }
  return execute(statement.otherwise);
}

bool Interpreter::loop_accepts(LoopObject& loop, const Value& item) {
  const Ref<Scope> outer = scope_;
  scope_ = new_scope(loop.scope);
  assign(loop.statement->target, item);
  const bool accepted = is_true(evaluate(*loop.statement->condition));
  scope_ = outer;
  return accepted;
}

void Interpreter::execute_for(const ForStatement& statement, const Value& items, int64_t depth0) {
  auto* loop = heap.make<LoopObject>();
  const Value loop_value(Kind::kLoop, loop);
  loop->statement = &statement;
  loop->source = iterate(*this, items);
  loop->depth0 = depth0;
  const Ref<Scope> outer = scope_;
  if (statement.condition || statement.recursive) loop->scope = outer;
  bool completed_once = false;  // Jinja's `else` also runs when break or continue ended every turn
  Ref<Scope> inner;
  while (loop->advance(*this)) {
    step();
    // Variables set in one turn are gone in the next; a scope that a macro still holds is left to it.
    if (inner && inner->num_references == 1) {
      inner->bindings.clear();
    } else {
      inner = new_scope(outer);
    }
    scope_ = inner;
    set_variable(kLoopSymbol, loop_value);
    assign(statement.target, loop->current);
    const Flow flow = execute(statement.body);
    scope_ = outer;
    if (flow == Flow::kBreak) break;
    completed_once = completed_once || flow == Flow::kNext;
  }
  if (!completed_once && !statement.otherwise.empty()) execute_in_scope(statement.otherwise, new_scope(outer));
}

Interpreter::Flow Interpreter::execute_in_scope(const Body& body, Ref<Scope> scope) {
  const Ref<Scope> outer = scope_;
  scope_ = std::move(scope);
  const Flow flow = execute(body);
  scope_ = outer;
  return flow;
}

Interpreter::Flow Interpreter::capture(const Body& body, Ref<Scope> scope, std::string& text) {
  Output captured(*this);
  Output* outer = std::exchange(output_, &captured);
  const Flow flow = execute_in_scope(body, std::move(scope));
  output_ = outer;
  text = captured.take();
  return flow;
}

Interpreter::Flow Interpreter::execute_set_block(const SetBlockStatement& statement) {
  std::string captured;
  const Flow flow = capture(statement.body, new_scope(scope_), captured);
  if (flow != Flow::kNext) return flow;
  Value value = text(std::move(captured));
  if (statement.filter) value = evaluate_application(static_cast<const Application&>(*statement.filter), value);
  assign(statement.target, value);
  return Flow::kNext;
}

void Interpreter::execute_macro(const MacroStatement& statement) {
  auto* macro = heap.make<MacroObject>();
  Value value(Kind::kMacro, macro);
  macro->definition = &statement.definition;
  macro->scope = scope_;
  set_variable(statement.symbol, std::move(value));
}

void Interpreter::execute_call_block(const CallBlockStatement& statement) {
  auto* macro = heap.make<MacroObject>();
  const Value caller(Kind::kMacro, macro);
  macro->definition = &statement.caller;
  macro->scope = scope_;
  const Value value = evaluate_call(*statement.call, caller);
  output_->append(to_text(*this, value));
}

Interpreter::Flow Interpreter::execute_filter_block(const FilterBlockStatement& statement) {
  std::string captured;
  const Flow flow = capture(statement.body, new_scope(scope_), captured);
  if (flow != Flow::kNext) return flow;
  const Value value =
      evaluate_application(static_cast<const Application&>(*statement.filter), text(std::move(captured)));
  output_->append(to_text(*this, value));
  return Flow::kNext;
}

Interpreter::Flow Interpreter::execute_with(const WithStatement& statement) {
  const Ref<Scope> outer = scope_;
  Ref<Scope> inner = new_scope(statement.sees_locals ? outer : root_);
  for (const auto& [target, expression] : statement.assignments) {
    const Value value = evaluate(*expression);  // in the outer scope: `with` sees no name it makes
    scope_ = inner;
    assign(target, value);
    scope_ = outer;
  }
  return execute_in_scope(statement.body, std::move(inner));
}

Value Interpreter::call_macro(const Value& value, CallArguments& arguments) {
  const Ref<MacroObject> macro(&value.as<MacroObject>());
  const MacroDefinition& definition = *macro->definition;
  const std::string name = definition.name.empty() ? "None" : "'" + definition.name + "'";
  const size_t num_parameters = definition.parameters.size();
  const size_t num_positional = std::min(arguments.positional.size(), num_parameters);
  auto& named = arguments.named;
  const auto take_named = [&](const std::string& wanted) {
    step(named.size() / 16);
    for (auto entry = named.begin(); entry != named.end(); ++entry) {
      if (entry->first.text() != wanted) continue;
      Value found = std::move(entry->second);
      named.erase(entry);
      return found;
    }
    return Value();
  };

  if (num_open_macros_ >= limits().max_depth) fail_depth();
  ++num_open_macros_;
  const Ref<Scope> outer_scope = scope_;
  const Ref<Scope> inner = new_scope(macro->scope);
  std::vector<Value> given(arguments.positional.begin(),
                           arguments.positional.begin() + static_cast<ptrdiff_t>(num_positional));
  for (size_t i = num_positional; i < num_parameters; ++i)
    given.push_back(take_named(definition.parameters[i].name.text()));

  Value caller;
  if (definition.uses_caller && definition.caller_parameter < 0) {
    caller = take_named("caller");
    if (caller.is_missing() || caller.is_none()) caller = undefined_hint(*this, "No caller defined");
  }
  if (!definition.uses_kwargs && !named.empty()) {
    fail("TypeError: macro " + name + " takes no keyword argument '" + named[0].first.text().substr(0, 100) + "'");
  }
  if (!definition.uses_varargs && arguments.positional.size() > num_parameters) {
    fail("TypeError: macro " + name + " takes not more than " + std::to_string(num_parameters) + " argument(s)");
  }
  scope_ = inner;
  if (!caller.is_missing()) set_variable(kCallerSymbol, std::move(caller));
  if (definition.uses_kwargs) set_variable(kKwargsSymbol, heap.dict(std::move(named)));
  if (definition.uses_varargs) {
    std::vector<Value> rest(arguments.positional.begin() + static_cast<ptrdiff_t>(num_positional),
                            arguments.positional.end());
    set_variable(kVarargsSymbol, heap.tuple(std::move(rest)));
  }
  for (size_t i = 0; i < num_parameters; ++i) {
    const MacroParameter& parameter = definition.parameters[i];
    if (given[i].is_missing()) {
      given[i] = parameter.default_value
                     ? evaluate(*parameter.default_value)
                     : undefined_hint(*this, "parameter '" + parameter.name.text() + "' was not provided");
    }
    set_variable(parameter.symbol, std::move(given[i]));
  }
  scope_ = outer_scope;
  std::string written;
  capture(definition.body, inner, written);
  --num_open_macros_;
  return text(std::move(written));
}

}  // namespace sextant::jinja
