#include <algorithm>
#include <array>

#include "engine/text/jinja/failure.h"
#include "engine/text/jinja/parser.h"

namespace sextant::jinja {

ExpressionPtr Parser::parse_expression(bool allow_conditional) {
  const Nesting nesting(*this);
  const size_t num_unknown = unknown_.size();
  ExpressionPtr value = parse_junction(true);
  while (allow_conditional && current().is_name("if")) {
    auto conditional = std::make_unique<Conditional>(line());
    ++position_;
    conditional->if_true = std::move(value);
    conditional->condition = parse_junction(true);
    if (skip_name("else")) conditional->if_false = parse_expression();
    adopt(*conditional, conditional->if_true.get());
    adopt(*conditional, conditional->condition.get());
    adopt(*conditional, conditional->if_false.get());
    forgive_unknown_since(num_unknown);
    value = std::move(conditional);
  }
  return value;
}

bool Parser::at_tuple_end(std::string_view end_name) const {
  return current().type == TokenType::kVariableEnd || current().type == TokenType::kBlockEnd ||
         current().is_operator(")") || (!end_name.empty() && current().is_name(end_name));
}

ExpressionPtr Parser::parse_tuple(bool allow_conditional, std::string_view end_name, bool in_parentheses) {
  auto tuple = std::make_unique<Sequence>(ExpressionKind::kTuple, line());
  bool is_tuple = false;
  for (;;) {
    if (!tuple->items.empty()) expect_operator(",");
    if (at_tuple_end(end_name)) break;
    tuple->items.push_back(parse_expression(allow_conditional));
    if (!current().is_operator(",")) break;
    is_tuple = true;
  }
  if (!is_tuple) {
    if (!tuple->items.empty()) return std::move(tuple->items[0]);
    if (!in_parentheses) fail_here("expected an expression, got " + describe(current()));
  }
  for (const ExpressionPtr& item : tuple->items) adopt(*tuple, item.get());
  return tuple;
}

ExpressionPtr Parser::parse_junction(bool is_or) {
  const int at = line();
  ExpressionPtr first = is_or ? parse_junction(false) : parse_not();
  const std::string_view word = is_or ? "or" : "and";
  if (!current().is_name(word)) return first;
  auto junction = std::make_unique<Sequence>(is_or ? ExpressionKind::kOr : ExpressionKind::kAnd, at);
  adopt(*junction, first.get());
  junction->items.push_back(std::move(first));
  while (skip_name(word)) {
    junction->items.push_back(is_or ? parse_junction(false) : parse_not());
    adopt(*junction, junction->items.back().get());
  }
  return junction;
}

ExpressionPtr Parser::parse_not() {
  if (!current().is_name("not")) return parse_comparison();
  const Nesting nesting(*this);
  auto negation = std::make_unique<Unary>(ExpressionKind::kNot, line());
  ++position_;
  negation->operand = parse_not();
  adopt(*negation, negation->operand.get());
  return negation;
}

ExpressionPtr Parser::parse_comparison() {
  static constexpr std::array<std::pair<std::string_view, CompareOp>, 6> kOperators = {{
      {"==", CompareOp::kEqual},
      {"!=", CompareOp::kNotEqual},
      {"<", CompareOp::kLess},
      {"<=", CompareOp::kLessEqual},
      {">", CompareOp::kGreater},
      {">=", CompareOp::kGreaterEqual},
  }};
  auto comparison = std::make_unique<Comparison>(line());
  comparison->first = parse_sum();
  for (;;) {
    std::optional<CompareOp> op;
    if (current().type == TokenType::kOperator) {
      for (const auto& [text, candidate] : kOperators) {
        if (current().text == text) op = candidate;
      }
    } else if (current().is_name("in")) {
      op = CompareOp::kIn;
    } else if (current().is_name("not") && look_ahead().is_name("in")) {
      ++position_;
      op = CompareOp::kNotIn;
    }
    if (!op) break;
    ++position_;
    comparison->rest.emplace_back(*op, parse_sum());
    adopt(*comparison, comparison->rest.back().second.get());
  }
  if (comparison->rest.empty()) return std::move(comparison->first);
  adopt(*comparison, comparison->first.get());
  return comparison;
}

ExpressionPtr Parser::parse_sum() {
  auto sum = std::make_unique<Arithmetic>(line());
  sum->first = parse_concat();
  while (current().is_operator("+") || current().is_operator("-")) {
    const BinaryOp op = take().text == "+" ? BinaryOp::kAdd : BinaryOp::kSubtract;
    sum->rest.emplace_back(op, parse_concat());
    adopt(*sum, sum->rest.back().second.get());
  }
  if (sum->rest.empty()) return std::move(sum->first);
  adopt(*sum, sum->first.get());
  return sum;
}

ExpressionPtr Parser::parse_concat() {
  auto concat = std::make_unique<Sequence>(ExpressionKind::kConcat, line());
  do {
    concat->items.push_back(parse_product());
  } while (skip_operator("~"));
  if (concat->items.size() == 1) return std::move(concat->items[0]);
  for (const ExpressionPtr& item : concat->items) adopt(*concat, item.get());
  return concat;
}

ExpressionPtr Parser::parse_product() {
  static constexpr std::array<std::pair<std::string_view, BinaryOp>, 4> kOperators = {{
      {"*", BinaryOp::kMultiply},
      {"/", BinaryOp::kDivide},
      {"//", BinaryOp::kFloorDivide},
      {"%", BinaryOp::kModulo},
  }};
  auto product = std::make_unique<Arithmetic>(line());
  product->first = parse_power();
  for (;;) {
    std::optional<BinaryOp> op;
    for (const auto& [text, candidate] : kOperators) {
      if (current().is_operator(text)) op = candidate;
    }
    if (!op) break;
    ++position_;
    product->rest.emplace_back(*op, parse_power());
    adopt(*product, product->rest.back().second.get());
  }
  if (product->rest.empty()) return std::move(product->first);
  adopt(*product, product->first.get());
  return product;
}

ExpressionPtr Parser::parse_power() {
  auto power = std::make_unique<Arithmetic>(line());
  power->first = parse_unary(true);
  while (skip_operator("**")) {  // Jinja's binds to the left
    power->rest.emplace_back(BinaryOp::kPower, parse_unary(true));
    adopt(*power, power->rest.back().second.get());
  }
  if (power->rest.empty()) return std::move(power->first);
  adopt(*power, power->first.get());
  return power;
}

ExpressionPtr Parser::parse_unary(bool with_filters) {
  ExpressionPtr value;
  if (current().is_operator("-") || current().is_operator("+")) {
    const Nesting nesting(*this);
    const int at = line();
    const auto kind = take().text == "-" ? ExpressionKind::kNegate : ExpressionKind::kPosit;
    auto unary = std::make_unique<Unary>(kind, at);
    unary->operand = parse_unary(false);
    adopt(*unary, unary->operand.get());
    value = std::move(unary);
  } else {
    value = parse_primary();
  }
  value = parse_postfix(std::move(value));
  return with_filters ? parse_filters_and_tests(std::move(value)) : std::move(value);
}

ExpressionPtr Parser::parse_primary() {
  const int at = line();
  switch (current().type) {
    case TokenType::kName: {
      const std::string name = take().text;
      if (name == "true" || name == "True") return std::make_unique<Constant>(at, Value::boolean(true));
      if (name == "false" || name == "False") return std::make_unique<Constant>(at, Value::boolean(false));
      if (name == "none" || name == "None") return std::make_unique<Constant>(at, Value::none());
      const int number = symbol(name);
      for (MacroDefinition* macro : open_macros_) {
        macro->uses_caller = macro->uses_caller || number == kCallerSymbol;
        macro->uses_kwargs = macro->uses_kwargs || number == kKwargsSymbol;
        macro->uses_varargs = macro->uses_varargs || number == kVarargsSymbol;
      }
      return std::make_unique<Name>(at, number);
    }
    case TokenType::kString: {
      std::string text;
      while (current().type == TokenType::kString) text += take().text;  // "a" "b" is one string
      return std::make_unique<Constant>(at, constant_text(std::move(text)));
    }
    case TokenType::kInteger:
    case TokenType::kFloat: {
      const bool is_integer = current().type == TokenType::kInteger;
      const std::string digits = take().text;
      if (!is_integer) return std::make_unique<Constant>(at, Value::real(parse_real(digits).value_or(0)));
      try {
        return std::make_unique<Constant>(at, Value::integer(parse_integer(digits, 0).value_or(0)));
      } catch (const Failure& failure) {
        fail_at(at, failure.message);
      }
    }
    default: break;
  }
  if (skip_operator("(")) {
    ExpressionPtr inner = parse_tuple(true, {}, true);
    expect_operator(")");
    return inner;
  }
  if (current().is_operator("[")) return parse_list();
  if (current().is_operator("{")) return parse_dict();
  fail_here("unexpected " + describe(current()));
}

ExpressionPtr Parser::parse_list() {
  auto list = std::make_unique<Sequence>(ExpressionKind::kList, line());
  expect_operator("[");
  while (!current().is_operator("]")) {
    if (!list->items.empty()) expect_operator(",");
    if (current().is_operator("]")) break;
    list->items.push_back(parse_expression());
    adopt(*list, list->items.back().get());
  }
  expect_operator("]");
  return list;
}

ExpressionPtr Parser::parse_dict() {
  auto dict = std::make_unique<DictLiteral>(line());
  expect_operator("{");
  while (!current().is_operator("}")) {
    if (!dict->entries.empty()) expect_operator(",");
    if (current().is_operator("}")) break;
    ExpressionPtr key = parse_expression();
    expect_operator(":");
    ExpressionPtr value = parse_expression();
    adopt(*dict, key.get());
    adopt(*dict, value.get());
    dict->entries.emplace_back(std::move(key), std::move(value));
  }
  expect_operator("}");
  return dict;
}

ExpressionPtr Parser::parse_postfix(ExpressionPtr base) {
  for (;;) {
    if (current().is_operator(".") || current().is_operator("[")) {
      base = parse_subscript(std::move(base));
    } else if (current().is_operator("(")) {
      base = parse_call(std::move(base));
    } else {
      return base;
    }
  }
}

ExpressionPtr Parser::parse_filters_and_tests(ExpressionPtr base) {
  for (;;) {
    if (current().is_operator("|")) {
      base = parse_filter_chain(std::move(base));
    } else if (current().is_name("is")) {
      base = parse_test(std::move(base));
    } else if (current().is_operator("(")) {
      base = parse_call(std::move(base));
    } else {
      return base;
    }
  }
}

ExpressionPtr Parser::parse_subscript(ExpressionPtr base) {
  const int at = line();
  if (skip_operator(".")) {
    if (current().type == TokenType::kName) {
      auto access = std::make_unique<AttributeAccess>(at);
      access->attribute = make_attribute(constant_text(take().text));
      adopt(*access, base.get());
      access->object = std::move(base);
      return access;
    }
    if (current().type != TokenType::kInteger) fail_here("expected a name or number, got " + describe(current()));
    auto access = std::make_unique<ItemAccess>(at);
    access->key = parse_primary();
    adopt(*access, base.get());
    access->object = std::move(base);
    return access;
  }
  expect_operator("[");
  std::array<ExpressionPtr, 3> parts;  // start, stop, step
  bool is_slice = false;
  if (!current().is_operator(":")) parts[0] = parse_expression();
  for (size_t i = 1; i < 3 && skip_operator(":"); ++i) {
    is_slice = true;
    if (!current().is_operator(":") && !current().is_operator("]")) parts[i] = parse_expression();
  }
  if (!is_slice && current().is_operator(",")) {
    auto tuple = std::make_unique<Sequence>(ExpressionKind::kTuple, at);
    tuple->items.push_back(std::move(parts[0]));
    while (skip_operator(",")) {
      if (current().is_operator("]")) break;
      tuple->items.push_back(parse_expression());
    }
    for (const ExpressionPtr& item : tuple->items) adopt(*tuple, item.get());
    parts[0] = std::move(tuple);
  }
  expect_operator("]");
  if (!is_slice) {
    auto access = std::make_unique<ItemAccess>(at);
    adopt(*access, base.get());
    adopt(*access, parts[0].get());
    access->object = std::move(base);
    access->key = std::move(parts[0]);
    return access;
  }
  auto slice = std::make_unique<SliceAccess>(at);
  adopt(*slice, base.get());
  for (const ExpressionPtr& part : parts) adopt(*slice, part.get());
  slice->object = std::move(base);
  slice->start = std::move(parts[0]);
  slice->stop = std::move(parts[1]);
  slice->step = std::move(parts[2]);
  return slice;
}

ArgumentList Parser::parse_arguments() {
  ArgumentList arguments;
  expect_operator("(");
  bool first = true;
  const auto require = [&](bool holds) {
    if (!holds) fail_here("invalid syntax in the arguments of a call");
  };
  while (!current().is_operator(")")) {
    if (!first) {
      expect_operator(",");
      if (current().is_operator(")")) break;
    }
    first = false;
    if (skip_operator("*")) {
      require(!arguments.more_positional && !arguments.more_named);
      arguments.more_positional = parse_expression();
    } else if (skip_operator("**")) {
      require(!arguments.more_named);
      arguments.more_named = parse_expression();
    } else if (current().type == TokenType::kName && look_ahead().is_operator("=")) {
      require(!arguments.more_named);
      Value name = constant_text(take().text);
      ++position_;
      arguments.named.emplace_back(std::move(name), parse_expression());
    } else {
      require(!arguments.more_positional && !arguments.more_named && arguments.named.empty());
      arguments.positional.push_back(parse_expression());
    }
  }
  expect_operator(")");
  return arguments;
}

ExpressionPtr Parser::parse_call(ExpressionPtr callee) {
  auto call = std::make_unique<Call>(line());
  call->arguments = parse_arguments();
  adopt(*call, callee.get());
  adopt(*call, call->arguments);
  call->callee = std::move(callee);
  return call;
}

std::string Parser::parse_dotted_name() {
  std::string name = expect_identifier();
  while (skip_operator(".")) name += "." + expect_identifier();
  return name;
}

ExpressionPtr Parser::parse_filter(ExpressionPtr input) {
  auto filter = std::make_unique<Application>(ExpressionKind::kFilter, line());
  filter->name = parse_dotted_name();
  filter->builtin = find_filter(filter->name);
  if (filter->builtin == nullptr) unknown_.push_back({filter->line, "No filter named '" + filter->name + "'."});
  if (current().is_operator("(")) filter->arguments = parse_arguments();
  adopt(*filter, input.get());
  adopt(*filter, filter->arguments);
  filter->input = std::move(input);
  return filter;
}

ExpressionPtr Parser::parse_filter_chain(ExpressionPtr input) {
  while (skip_operator("|")) input = parse_filter(std::move(input));
  return input;
}

ExpressionPtr Parser::parse_test(ExpressionPtr input) {
  auto test = std::make_unique<Application>(ExpressionKind::kTest, line());
  ++position_;  // is
  const bool negated = skip_name("not");
  test->name = parse_dotted_name();
  test->builtin = find_test(test->name);
  if (test->builtin == nullptr) unknown_.push_back({test->line, "No test named '" + test->name + "'."});
  const Token& next = current();
  const bool starts_operand =
      next.type == TokenType::kString || next.type == TokenType::kInteger || next.type == TokenType::kFloat ||
      next.is_operator("[") || next.is_operator("{") ||
      (next.type == TokenType::kName && next.text != "else" && next.text != "or" && next.text != "and");
  if (next.is_operator("(")) {
    test->arguments = parse_arguments();
  } else if (starts_operand) {
    if (next.is_name("is")) fail_here("tests cannot be chained with 'is'");
    test->arguments.positional.push_back(parse_postfix(parse_primary()));
  }
  adopt(*test, input.get());
  adopt(*test, test->arguments);
  test->input = std::move(input);
  if (!negated) return test;
  auto negation = std::make_unique<Unary>(ExpressionKind::kNot, test->line);
  adopt(*negation, test.get());
  negation->operand = std::move(test);
  return negation;
}

}  // namespace sextant::jinja
