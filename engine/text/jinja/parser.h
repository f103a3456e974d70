// Builds the tree of a template from its tokens. The grammar is Jinja's; what it cannot express here
// (inheritance, imports, autoescape) is refused by name.
#pragma once

#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "engine/text/jinja/ast.h"
#include "engine/text/jinja/lexer.h"

namespace sextant::jinja {

class Parser {
 public:
  Parser(std::vector<Token> tokens, int max_depth) : tokens_(std::move(tokens)), max_depth_(max_depth) {}

  // Throws Failure (kSyntax).
  std::unique_ptr<Template> parse();

 private:
  // Counts one level of nesting for as long as it lives.
  class Nesting {
   public:
    explicit Nesting(Parser& parser) : parser_(parser) {
      if (++parser_.depth_ > parser_.max_depth_) {
        --parser_.depth_;
        parser_.fail_depth();
      }
    }
    ~Nesting() { --parser_.depth_; }
    Nesting(const Nesting&) = delete;

   private:
    Parser& parser_;
  };

  const Token& current() const { return tokens_[position_]; }
  const Token& look_ahead() const { return tokens_[std::min(position_ + 1, tokens_.size() - 1)]; }
  int line() const { return current().line; }
  Token take() { return std::move(tokens_[position_ + 1 < tokens_.size() ? position_++ : position_]); }
  bool skip_operator(std::string_view op);
  bool skip_name(std::string_view name);
  void expect_operator(std::string_view op);
  void expect_name(std::string_view name);
  std::string expect_identifier();
  [[noreturn]] void fail_at(int line, std::string message) const;
  [[noreturn]] void fail_here(std::string message) const { fail_at(line(), std::move(message)); }
  [[noreturn]] void fail_depth() const;

  int symbol(const std::string& name);
  Value constant_text(std::string text) { return template_->heap.text(std::move(text)); }
  void adopt(Node& parent, const Node* child) const;
  void adopt(Node& parent, const Body& body) const;
  void adopt(Node& parent, const ArgumentList& arguments) const;

  // Statements (parser.cpp).
  Body parse_body(std::initializer_list<std::string_view> end_tags);        // stops at the tag's name
  Body parse_block_body(std::initializer_list<std::string_view> end_tags);  // from the end of the opening tag on
  // A body with a scope of its own: in it, unknown filters are errors at once.
  Body parse_scoped_body(std::initializer_list<std::string_view> end_tags);
  StatementPtr parse_statement();
  StatementPtr parse_if();
  StatementPtr parse_for();
  StatementPtr parse_set();
  StatementPtr parse_macro();
  StatementPtr parse_call_block();
  StatementPtr parse_filter_block();
  StatementPtr parse_with();
  StatementPtr parse_generation();
  StatementPtr parse_block();
  StatementPtr parse_jump();
  void parse_print(Body& body);
  void parse_signature(MacroDefinition& definition);
  void parse_macro_body(MacroDefinition& definition, std::string_view end_tag);
  Target parse_target(bool allow_namespace, bool allow_tuple);
  Target parse_single_target(bool allow_namespace);
  void refuse_loop_target(const Target& target) const;

  // Expressions (parser_expressions.cpp).
  ExpressionPtr parse_expression(bool allow_conditional = true);
  ExpressionPtr parse_tuple(bool allow_conditional, std::string_view end_name, bool in_parentheses);
  ExpressionPtr parse_junction(bool is_or);
  ExpressionPtr parse_not();
  ExpressionPtr parse_comparison();
  ExpressionPtr parse_sum();
  ExpressionPtr parse_concat();
  ExpressionPtr parse_product();
  ExpressionPtr parse_power();
  ExpressionPtr parse_unary(bool with_filters);
  ExpressionPtr parse_primary();
  ExpressionPtr parse_list();
  ExpressionPtr parse_dict();
  ExpressionPtr parse_postfix(ExpressionPtr base);
  ExpressionPtr parse_filters_and_tests(ExpressionPtr base);
  ExpressionPtr parse_subscript(ExpressionPtr base);
  ExpressionPtr parse_call(ExpressionPtr callee);
  ExpressionPtr parse_filter(ExpressionPtr input);  // behind the pipe
  ExpressionPtr parse_filter_chain(ExpressionPtr input);
  ExpressionPtr parse_test(ExpressionPtr input);
  ArgumentList parse_arguments();
  std::string parse_dotted_name();
  bool at_tuple_end(std::string_view end_name) const;

  // An unknown filter is an error, unless it stands where an `if` may never let it be reached.
  struct UnknownName {
    int line;
    std::string message;
  };
  void refuse_unknown_since(size_t count) const;
  void forgive_unknown_since(size_t count) { unknown_.resize(count); }

  std::vector<Token> tokens_;
  size_t position_ = 0;
  int max_depth_;
  int depth_ = 0;
  int num_open_loops_ = 0;
  std::unique_ptr<Template> template_;
  std::unordered_map<std::string, int> symbol_numbers_;
  std::vector<MacroDefinition*> open_macros_;
  std::vector<UnknownName> unknown_;
};

}  // namespace sextant::jinja
