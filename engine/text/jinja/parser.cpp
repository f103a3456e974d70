#include "engine/text/jinja/parser.h"

#include <algorithm>

#include "engine/text/jinja/failure.h"

namespace sextant::jinja {

std::unique_ptr<Template> Parser::parse() {
  template_ = std::make_unique<Template>();
  for (const char* name : {"loop", "caller", "kwargs", "varargs"}) symbol(name);
  template_->body = parse_body({});
  refuse_unknown_since(0);
  return std::move(template_);
}

void Parser::fail_at(int line, std::string message) const {
  throw Failure{FailureKind::kSyntax, line, std::move(message)};
}

void Parser::fail_depth() const {
  fail_here("the template nests more than " + std::to_string(max_depth_) + " levels deep");
}

bool Parser::skip_operator(std::string_view op) {
  if (!current().is_operator(op)) return false;
  ++position_;
  return true;
}

bool Parser::skip_name(std::string_view name) {
  if (!current().is_name(name)) return false;
  ++position_;
  return true;
}

void Parser::expect_operator(std::string_view op) {
  if (!skip_operator(op)) fail_here("expected '" + std::string(op) + "', got " + describe(current()));
}

void Parser::expect_name(std::string_view name) {
  if (!skip_name(name)) fail_here("expected '" + std::string(name) + "', got " + describe(current()));
}

std::string Parser::expect_identifier() {
  if (current().type != TokenType::kName) fail_here("expected a name, got " + describe(current()));
  return take().text;
}

int Parser::symbol(const std::string& name) {
  const auto [entry, is_new] = symbol_numbers_.try_emplace(name, static_cast<int>(symbol_numbers_.size()));
  if (is_new) {
    Template& t = *template_;
    t.symbols.push_back(constant_text(name));
    auto* undefined = t.heap.make<UndefinedObject>();
    undefined->name = name;
    t.undefined.emplace_back(Kind::kUndefined, undefined);
    t.functions.emplace_back();
    if (const Builtin* builtin = find_function(name)) {
      auto* function = t.heap.make<FunctionObject>();
      function->builtin = builtin;
      t.functions.back() = Value(Kind::kFunction, function);
    }
  }
  return entry->second;
}

void Parser::adopt(Node& parent, const Node* child) const {
  if (child == nullptr) return;
  parent.height = std::max(parent.height, child->height + 1);
  if (parent.height > max_depth_) fail_depth();
}

void Parser::adopt(Node& parent, const Body& body) const {
  for (const StatementPtr& statement : body) adopt(parent, statement.get());
}

void Parser::adopt(Node& parent, const ArgumentList& arguments) const {
  for (const ExpressionPtr& argument : arguments.positional) adopt(parent, argument.get());
  for (const auto& [name, argument] : arguments.named) adopt(parent, argument.get());
  adopt(parent, arguments.more_positional.get());
  adopt(parent, arguments.more_named.get());
}

void Parser::refuse_unknown_since(size_t count) const {
  if (unknown_.size() > count) fail_at(unknown_[count].line, unknown_[count].message);
}

Body Parser::parse_body(std::initializer_list<std::string_view> end_tags) {
  Body body;
  for (;;) {
    switch (current().type) {
      case TokenType::kText: {
        const int at = line();
        body.push_back(std::make_unique<TextStatement>(at, take().text));
        break;
      }
      case TokenType::kVariableBegin: {
        ++position_;
        auto output = std::make_unique<OutputStatement>(line());
        output->value = parse_tuple(true, {}, false);
        adopt(*output, output->value.get());
        if (current().type != TokenType::kVariableEnd) fail_here("expected '}}', got " + describe(current()));
        ++position_;
        body.push_back(std::move(output));
        break;
      }
      case TokenType::kBlockBegin: {
        ++position_;
        for (const std::string_view tag : end_tags) {
          if (current().is_name(tag)) return body;
        }
        if (current().is_name("print")) {
          parse_print(body);
        } else {
          body.push_back(parse_statement());
        }
        if (current().type != TokenType::kBlockEnd) fail_here("expected '%}', got " + describe(current()));
        ++position_;
        break;
      }
      default:
        if (end_tags.size() == 0) return body;
        fail_here("unexpected end of template; expected '" + std::string(*end_tags.begin()) + "'");
    }
  }
}

Body Parser::parse_block_body(std::initializer_list<std::string_view> end_tags) {
  skip_operator(":");
  if (current().type != TokenType::kBlockEnd) fail_here("expected '%}', got " + describe(current()));
  ++position_;
  return parse_body(end_tags);
}

Body Parser::parse_scoped_body(std::initializer_list<std::string_view> end_tags) {
  const size_t num_unknown = unknown_.size();
  Body body = parse_block_body(end_tags);
  refuse_unknown_since(num_unknown);
  return body;
}

StatementPtr Parser::parse_statement() {
  const Nesting nesting(*this);
  if (current().type != TokenType::kName) fail_here("a tag name was expected, got " + describe(current()));
  const std::string& tag = current().text;
  if (tag == "if") return parse_if();
  if (tag == "for") return parse_for();
  if (tag == "set") return parse_set();
  if (tag == "macro") return parse_macro();
  if (tag == "call") return parse_call_block();
  if (tag == "filter") return parse_filter_block();
  if (tag == "with") return parse_with();
  if (tag == "generation") return parse_generation();
  if (tag == "block") return parse_block();
  if (tag == "break" || tag == "continue") return parse_jump();
  for (const char* refused : {"extends", "include", "import", "from", "autoescape"}) {
    if (tag == refused) fail_here("the tag '" + tag + "' is not supported in chat templates");
  }
  fail_here("unknown tag '" + tag.substr(0, 100) + "'");
}

StatementPtr Parser::parse_if() {
  auto statement = std::make_unique<IfStatement>(line());
  const size_t num_unknown = unknown_.size();
  do {
    ++position_;  // if, elif
    IfStatement::Branch branch;
    branch.condition = parse_tuple(false, {}, false);
    branch.body = parse_block_body({"elif", "else", "endif"});
    adopt(*statement, branch.condition.get());
    adopt(*statement, branch.body);
    statement->branches.push_back(std::move(branch));
  } while (current().is_name("elif"));
  if (skip_name("else")) {
    statement->otherwise = parse_block_body({"endif"});
    adopt(*statement, statement->otherwise);
  }
  expect_name("endif");
  forgive_unknown_since(num_unknown);
  return statement;
}

StatementPtr Parser::parse_for() {
  auto statement = std::make_unique<ForStatement>(line());
  ++position_;
  statement->target = parse_target(false, true);
  refuse_loop_target(statement->target);
  expect_name("in");
  statement->items = parse_tuple(false, "recursive", false);
  if (skip_name("if")) statement->condition = parse_expression();
  statement->recursive = skip_name("recursive");
  ++num_open_loops_;
  statement->body = parse_scoped_body({"endfor", "else"});
  --num_open_loops_;
  if (skip_name("else")) statement->otherwise = parse_scoped_body({"endfor"});
  expect_name("endfor");
  adopt(*statement, statement->items.get());
  adopt(*statement, statement->condition.get());
  adopt(*statement, statement->body);
  adopt(*statement, statement->otherwise);
  return statement;
}

void Parser::refuse_loop_target(const Target& target) const {
  if (target.symbol == kLoopSymbol) fail_here("a for loop cannot assign to its own 'loop' variable");
  for (const Target& part : target.parts) refuse_loop_target(part);
}

StatementPtr Parser::parse_set() {
  const int at = line();
  ++position_;
  Target target = parse_target(true, true);
  if (skip_operator("=")) {
    auto statement = std::make_unique<SetStatement>(at);
    statement->target = std::move(target);
    statement->value = parse_tuple(true, {}, false);
    adopt(*statement, statement->value.get());
    return statement;
  }
  auto statement = std::make_unique<SetBlockStatement>(at);
  statement->target = std::move(target);
  if (current().is_operator("|")) statement->filter = parse_filter_chain(nullptr);
  statement->body = parse_scoped_body({"endset"});
  expect_name("endset");
  adopt(*statement, statement->filter.get());
  adopt(*statement, statement->body);
  return statement;
}

void Parser::parse_signature(MacroDefinition& definition) {
  expect_operator("(");
  bool has_default = false;
  while (!current().is_operator(")")) {
    if (!definition.parameters.empty()) expect_operator(",");
    MacroParameter parameter;
    const std::string name = expect_identifier();
    parameter.symbol = symbol(name);
    parameter.name = template_->symbols[parameter.symbol];
    if (skip_operator("=")) {
      parameter.default_value = parse_expression();
      has_default = true;
    } else if (has_default) {
      fail_here("a parameter without a default follows one with a default");
    }
    if (parameter.symbol == kCallerSymbol) definition.caller_parameter = static_cast<int>(definition.parameters.size());
    definition.parameters.push_back(std::move(parameter));
  }
  expect_operator(")");
}

void Parser::parse_macro_body(MacroDefinition& definition, std::string_view end_tag) {
  open_macros_.push_back(&definition);
  const int num_outer_loops = std::exchange(num_open_loops_, 0);
  definition.body = parse_scoped_body({end_tag});
  expect_name(end_tag);
  num_open_loops_ = num_outer_loops;
  open_macros_.pop_back();
  for (const MacroParameter& parameter : definition.parameters) {
    if (parameter.symbol == kKwargsSymbol) definition.uses_kwargs = false;
    if (parameter.symbol == kVarargsSymbol) definition.uses_varargs = false;
    if (parameter.symbol == kCallerSymbol && definition.uses_caller && !parameter.default_value) {
      fail_here("a parameter named 'caller' needs a default");
    }
  }
}

StatementPtr Parser::parse_macro() {
  auto statement = std::make_unique<MacroStatement>(line());
  ++position_;
  MacroDefinition& definition = statement->definition;
  definition.name = expect_identifier();
  statement->symbol = symbol(definition.name);
  parse_signature(definition);
  parse_macro_body(definition, "endmacro");
  for (const MacroParameter& parameter : definition.parameters) adopt(*statement, parameter.default_value.get());
  adopt(*statement, definition.body);
  return statement;
}

StatementPtr Parser::parse_call_block() {
  auto statement = std::make_unique<CallBlockStatement>(line());
  ++position_;
  if (current().is_operator("(")) parse_signature(statement->caller);
  ExpressionPtr call = parse_expression();
  if (call->kind != ExpressionKind::kCall) fail_at(statement->line, "a call block needs a call");
  statement->call.reset(static_cast<Call*>(call.release()));
  parse_macro_body(statement->caller, "endcall");
  adopt(*statement, statement->call.get());
  for (const MacroParameter& parameter : statement->caller.parameters) {
    adopt(*statement, parameter.default_value.get());
  }
  adopt(*statement, statement->caller.body);
  return statement;
}

StatementPtr Parser::parse_filter_block() {
  auto statement = std::make_unique<FilterBlockStatement>(line());
  ++position_;
  statement->filter = parse_filter_chain(parse_filter(nullptr));
  statement->body = parse_scoped_body({"endfilter"});
  expect_name("endfilter");
  adopt(*statement, statement->filter.get());
  adopt(*statement, statement->body);
  return statement;
}

StatementPtr Parser::parse_with() {
  auto statement = std::make_unique<WithStatement>(StatementKind::kWith, line());
  ++position_;
  while (current().type != TokenType::kBlockEnd && !current().is_operator(":")) {
    if (!statement->assignments.empty()) expect_operator(",");
    Target target = parse_target(false, false);
    expect_operator("=");
    ExpressionPtr value = parse_expression();
    adopt(*statement, value.get());
    statement->assignments.emplace_back(std::move(target), std::move(value));
  }
  statement->body = parse_scoped_body({"endwith"});
  expect_name("endwith");
  adopt(*statement, statement->body);
  return statement;
}

StatementPtr Parser::parse_generation() {
  auto statement = std::make_unique<WithStatement>(StatementKind::kScope, line());
  ++position_;
  const int num_outer_loops = std::exchange(num_open_loops_, 0);
  statement->body = parse_scoped_body({"endgeneration"});
  num_open_loops_ = num_outer_loops;
  expect_name("endgeneration");
  adopt(*statement, statement->body);
  return statement;
}

StatementPtr Parser::parse_block() {
  auto statement = std::make_unique<WithStatement>(StatementKind::kBlock, line());
  ++position_;
  const std::string name = expect_identifier();
  statement->sees_locals = skip_name("scoped");
  const int num_outer_loops = std::exchange(num_open_loops_, 0);
  statement->body = parse_scoped_body({"endblock"});
  num_open_loops_ = num_outer_loops;
  expect_name("endblock");
  skip_name(name);
  adopt(*statement, statement->body);
  return statement;
}

StatementPtr Parser::parse_jump() {
  const bool is_break = current().text == "break";
  if (num_open_loops_ == 0) fail_here("'" + current().text + "' outside of a loop");
  auto statement = std::make_unique<JumpStatement>(is_break ? StatementKind::kBreak : StatementKind::kContinue, line());
  ++position_;
  return statement;
}

void Parser::parse_print(Body& body) {
  ++position_;
  bool first = true;
  while (current().type != TokenType::kBlockEnd) {
    if (!first) expect_operator(",");
    first = false;
    auto output = std::make_unique<OutputStatement>(line());
    output->value = parse_expression();
    adopt(*output, output->value.get());
    body.push_back(std::move(output));
  }
}

Target Parser::parse_single_target(bool allow_namespace) {
  const Nesting nesting(*this);
  if (skip_operator("(")) {
    Target target = parse_target(allow_namespace, true);
    expect_operator(")");
    return target;
  }
  if (current().type != TokenType::kName) fail_here("cannot assign to " + describe(current()));
  const std::string name = take().text;
  for (const char* constant : {"true", "false", "none", "True", "False", "None"}) {
    if (name == constant) fail_here("cannot assign to '" + name + "'");
  }
  Target target;
  target.symbol = symbol(name);
  if (allow_namespace && skip_operator(".")) target.attribute = constant_text(expect_identifier());
  return target;
}

Target Parser::parse_target(bool allow_namespace, bool allow_tuple) {
  Target first = parse_single_target(allow_namespace);
  if (!allow_tuple || !current().is_operator(",")) return first;
  Target tuple;
  tuple.is_tuple = true;
  tuple.parts.push_back(std::move(first));
  while (skip_operator(",")) {
    if (current().is_operator(")") || current().is_operator("=") || current().is_name("in") ||
        current().type == TokenType::kBlockEnd) {
      break;
    }
    tuple.parts.push_back(parse_single_target(allow_namespace));
  }
  return tuple;
}

}  // namespace sextant::jinja
