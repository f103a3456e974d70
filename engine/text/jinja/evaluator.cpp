// Expressions of a template.
#include "engine/text/jinja/interpreter.h"
#include "engine/text/jinja/operators.h"

namespace sextant::jinja {

Value Interpreter::evaluate(const Expression& expression) {
  step();
  if (expression.kind == ExpressionKind::kConstant) return static_cast<const Constant&>(expression).value;
  if (expression.kind == ExpressionKind::kName) return look_up(static_cast<const Name&>(expression).symbol);
  const Frame frame(*this);
  line_ = expression.line;
  switch (expression.kind) {
    case ExpressionKind::kConstant:
    case ExpressionKind::kName: break;
    case ExpressionKind::kList:
    case ExpressionKind::kTuple: return evaluate_sequence(static_cast<const Sequence&>(expression));
    case ExpressionKind::kDict: return evaluate_dict(static_cast<const DictLiteral&>(expression));
    case ExpressionKind::kArithmetic: return evaluate_arithmetic(static_cast<const Arithmetic&>(expression));
    case ExpressionKind::kNegate: return negate(evaluate(*static_cast<const Unary&>(expression).operand));
    case ExpressionKind::kPosit: return posit(evaluate(*static_cast<const Unary&>(expression).operand));
    case ExpressionKind::kNot:
      return Value::boolean(!is_true(evaluate(*static_cast<const Unary&>(expression).operand)));
    case ExpressionKind::kAnd: return evaluate_junction(static_cast<const Sequence&>(expression), false);
    case ExpressionKind::kOr: return evaluate_junction(static_cast<const Sequence&>(expression), true);
    case ExpressionKind::kConcat: return evaluate_concat(static_cast<const Sequence&>(expression));
    case ExpressionKind::kComparison: return evaluate_comparison(static_cast<const Comparison&>(expression));
    case ExpressionKind::kConditional: return evaluate_conditional(static_cast<const Conditional&>(expression));
    case ExpressionKind::kAttribute: {
      const auto& access = static_cast<const AttributeAccess&>(expression);
      const Value object = evaluate(*access.object);
      line_ = expression.line;
      return get_attribute(*this, object, access.attribute);
    }
    case ExpressionKind::kItem: {
      const auto& access = static_cast<const ItemAccess&>(expression);
      const Value object = evaluate(*access.object);
      const Value key = evaluate(*access.key);
      line_ = expression.line;
      return get_item(*this, object, key);
    }
    case ExpressionKind::kSlice: return evaluate_slice(static_cast<const SliceAccess&>(expression));
    case ExpressionKind::kCall: return evaluate_call(static_cast<const Call&>(expression), Value());
    case ExpressionKind::kFilter:
    case ExpressionKind::kTest: return evaluate_application(static_cast<const Application&>(expression), Value());
  }
  return {};
}

Value Interpreter::evaluate_sequence(const Sequence& sequence) {
  charge_items(sequence.items.size());
  std::vector<Value> items;
  items.reserve(sequence.items.size());
  for (const ExpressionPtr& item : sequence.items) items.push_back(evaluate(*item));
  return sequence.kind == ExpressionKind::kList ? heap.list(std::move(items)) : heap.tuple(std::move(items));
}

Value Interpreter::evaluate_dict(const DictLiteral& dict) {
  std::vector<std::pair<Value, Value>> entries;
  entries.reserve(dict.entries.size());
  for (const auto& [key_expression, value_expression] : dict.entries) {
    Value key = evaluate(*key_expression);
    entries.emplace_back(std::move(key), evaluate(*value_expression));
  }
  return heap.dict(std::move(entries));
}

Value Interpreter::evaluate_arithmetic(const Arithmetic& arithmetic) {
  Value value = evaluate(*arithmetic.first);
  for (const auto& [op, operand] : arithmetic.rest) {
    const Value right = evaluate(*operand);
    line_ = operand->line;
    value = binary(*this, op, std::move(value), right);
  }
  return value;
}

Value Interpreter::evaluate_junction(const Sequence& junction, bool is_or) {
  Value value;
  for (const ExpressionPtr& operand : junction.items) {
    value = evaluate(*operand);
    if (is_true(value) == is_or) break;
  }
  return value;
}

Value Interpreter::evaluate_concat(const Sequence& concat) {
  std::string joined;
  for (const ExpressionPtr& item : concat.items) {
    const Value value = evaluate(*item);
    line_ = concat.line;
    append_text(*this, joined, value);
  }
  return text(std::move(joined));
}

Value Interpreter::evaluate_comparison(const Comparison& comparison) {
  Value left = evaluate(*comparison.first);
  for (const auto& [op, operand] : comparison.rest) {
    Value right = evaluate(*operand);
    line_ = comparison.line;
    if (!compare(*this, op, left, right)) return Value::boolean(false);
    left = std::move(right);
  }
  return Value::boolean(true);
}

Value Interpreter::evaluate_conditional(const Conditional& conditional) {
  if (is_true(evaluate(*conditional.condition))) return evaluate(*conditional.if_true);
  if (conditional.if_false) return evaluate(*conditional.if_false);
  return undefined_hint(*this, "the inline if-expression on line " + std::to_string(conditional.line) +
                                   " evaluated to false and no else section was defined.");
}

Value Interpreter::evaluate_slice(const SliceAccess& slice) {
  const Value object = evaluate(*slice.object);
  const auto part = [&](const ExpressionPtr& expression) { return expression ? evaluate(*expression) : Value::none(); };
  const Value start = part(slice.start);
  const Value stop = part(slice.stop);
  const Value step_size = part(slice.step);
  line_ = slice.line;
  return get_slice(*this, object, start, stop, step_size);
}

void Interpreter::evaluate_arguments(const ArgumentList& list, CallArguments& arguments) {
  for (const ExpressionPtr& argument : list.positional) arguments.positional.push_back(evaluate(*argument));
  for (const auto& [name, argument] : list.named) arguments.named.emplace_back(name, evaluate(*argument));
  if (list.more_positional) {
    const Value more = iterate(*this, evaluate(*list.more_positional));
    charge_items(more.items().size());
    arguments.positional.insert(arguments.positional.end(), more.items().begin(), more.items().end());
  }
  if (list.more_named) {
    const Value more = evaluate(*list.more_named);
    if (!more.is(Kind::kDict)) fail("TypeError: the argument after ** must be a mapping");
    charge_items(2 * more.as<DictObject>().entries().size());
    for (const auto& [name, value] : more.as<DictObject>().entries()) {
      if (!name.is_string()) fail("TypeError: keywords must be strings");
      arguments.named.emplace_back(name, value);
    }
  }
}

Value Interpreter::evaluate_call(const Call& call_expression, const Value& caller) {
  CallArguments arguments;
  const ArgumentList& list = call_expression.arguments;
  arguments.positional.reserve(list.positional.size() + 1);
  const Builtin* method = nullptr;
  Value callee;
  if (call_expression.callee->kind == ExpressionKind::kAttribute) {
    // The usual x.method(...) needs no bound method in between.
    const auto& access = static_cast<const AttributeAccess&>(*call_expression.callee);
    const Frame frame(*this);
    Value object = evaluate(*access.object);
    method = access.attribute.method_of(object.kind());
    if (method != nullptr && method->function != nullptr) {
      arguments.positional.push_back(std::move(object));
    } else {
      method = nullptr;
      line_ = access.line;
      callee = get_attribute(*this, object, access.attribute);
    }
  } else {
    callee = evaluate(*call_expression.callee);
  }
  evaluate_arguments(list, arguments);
  if (!caller.is_missing()) arguments.named.emplace_back(template_.symbols[kCallerSymbol], caller);
  line_ = call_expression.line;
  step(arguments.named.size());
  return method != nullptr ? call_builtin(*this, *method, arguments) : call(callee, arguments);
}

Value Interpreter::evaluate_application(const Application& application, const Value& text_of_block) {
  CallArguments arguments;
  arguments.positional.reserve(application.arguments.positional.size() + 6);
  if (!application.input) {
    arguments.positional.push_back(text_of_block);
  } else if (!text_of_block.is_missing()) {  // the chain of a filter block consists of filters only
    const Frame frame(*this);
    arguments.positional.push_back(
        evaluate_application(static_cast<const Application&>(*application.input), text_of_block));
  } else {
    arguments.positional.push_back(evaluate(*application.input));
  }
  evaluate_arguments(application.arguments, arguments);
  line_ = application.line;
  step();
  if (application.builtin == nullptr) {
    fail(std::string("No ") + (application.kind == ExpressionKind::kFilter ? "filter" : "test") + " named '" +
         application.name + "' found.");
  }
  return call_builtin(*this, *application.builtin, arguments);
}

Value Interpreter::call(const Value& callee, CallArguments& arguments) {
  switch (callee.kind()) {
    case Kind::kMacro: return call_macro(callee, arguments);
    case Kind::kFunction: {
      const auto& function = callee.as<FunctionObject>();
      if (!function.self.is_missing()) arguments.positional.insert(arguments.positional.begin(), function.self);
      return call_builtin(*this, *function.builtin, arguments);
    }
    case Kind::kJoiner: {
      auto& joiner = callee.as<JoinerObject>();
      if (joiner.used) return joiner.separator;
      joiner.used = true;
      return text("");
    }
    case Kind::kLoop: {
      auto& loop = callee.as<LoopObject>();
      if (!loop.statement->recursive) {
        fail("TypeError: The loop must have the 'recursive' marker to be called recursively.");
      }
      if (arguments.positional.size() != 1 || !arguments.named.empty()) fail("TypeError: loop() takes one argument");
      const Frame frame(*this);
      Output captured(*this);
      Output* outer_output = std::exchange(output_, &captured);
      const Ref<Scope> outer_scope = scope_;
      scope_ = loop.scope;
      execute_for(*loop.statement, arguments.positional[0], loop.depth0 + 1);
      scope_ = outer_scope;
      output_ = outer_output;
      return text(captured.take());
    }
    case Kind::kUndefined: fail_undefined(callee);
    default: fail(std::string("TypeError: '") + type_name(callee) + "' object is not callable");
  }
}

}  // namespace sextant::jinja
