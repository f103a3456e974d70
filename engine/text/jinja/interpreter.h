// Walks a template's tree for one render. One thread; the template itself is only read.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "engine/text/jinja/ast.h"
#include "engine/text/jinja/runtime.h"
#include "engine/text/jinja/tracked.h"

namespace sextant::jinja {

// The request's JSON as values. Fails on nesting that recursion could not bear.
Value from_json(Runtime& runtime, const nlohmann::ordered_json& json);

// Text being made: the render's own, or what a macro or block captures. Counted against the heap while it
// grows.
class Output {
 public:
  explicit Output(Runtime& runtime) : runtime_(runtime) {}
  Output(const Output&) = delete;
  ~Output() { runtime_.heap.refund(charged_bytes_); }

  void append(std::string_view piece) {
    runtime_.charge_growth(text_, piece.size());
    runtime_.heap.charge(piece.size());
    charged_bytes_ += piece.size();
    text_ += piece;
  }
  std::string take() {
    runtime_.heap.refund(charged_bytes_);
    charged_bytes_ = 0;
    return std::move(text_);
  }

 private:
  Runtime& runtime_;
  std::string text_;
  size_t charged_bytes_ = 0;
};

class Interpreter final : public Runtime {
 public:
  Interpreter(const Template& t, const ChatTemplateLimits& limits, int64_t now_unix_s);

  // Throws Failure; line() then says where.
  std::string render(const nlohmann::ordered_json& variables);
  int line() const { return line_; }

  Value call(const Value& callee, CallArguments& arguments) override;
  bool loop_accepts(LoopObject& loop, const Value& item) override;

 private:
  enum class Flow { kNext, kBreak, kContinue };

  // Recursion over the tree and through macros, in evaluated nodes: the tree alone is at most max_depth high,
  // and macros that call themselves may hold eight such heights of stack (less than 1 MiB in a release
  // build).
  static constexpr int kDepthPerLevel = 8;
  class Frame {
   public:
    explicit Frame(Interpreter& interpreter) : interpreter_(interpreter) {
      if (++interpreter_.depth_ > interpreter_.max_depth_) interpreter_.fail_depth();
    }
    ~Frame() { --interpreter_.depth_; }
    Frame(const Frame&) = delete;

   private:
    Interpreter& interpreter_;
  };
  [[noreturn]] void fail_depth() const;

  // Statements (interpreter.cpp).
  Flow execute(const Body& body);
  Flow execute(const Statement& statement);
  Flow execute_if(const IfStatement& statement);
  void execute_for(const ForStatement& statement, const Value& items, int64_t depth0);
  void execute_output(const OutputStatement& statement);
  Flow execute_set_block(const SetBlockStatement& statement);
  void execute_macro(const MacroStatement& statement);
  void execute_call_block(const CallBlockStatement& statement);
  Flow execute_filter_block(const FilterBlockStatement& statement);
  Flow execute_with(const WithStatement& statement);
  Flow execute_in_scope(const Body& body, Ref<Scope> scope);
  // Runs the body in its own scope and hands back what it wrote.
  Flow capture(const Body& body, Ref<Scope> scope, std::string& text);

  Ref<Scope> new_scope(const Ref<Scope>& parent);
  const Value& look_up(int symbol);
  void set_variable(int symbol, Value value);
  void assign(const Target& target, const Value& value);

  // Expressions (evaluator.cpp).
  Value evaluate(const Expression& expression);
  Value evaluate_sequence(const Sequence& sequence);
  Value evaluate_dict(const DictLiteral& dict);
  Value evaluate_arithmetic(const Arithmetic& arithmetic);
  Value evaluate_junction(const Sequence& junction, bool is_or);
  Value evaluate_concat(const Sequence& concat);
  Value evaluate_comparison(const Comparison& comparison);
  Value evaluate_conditional(const Conditional& conditional);
  Value evaluate_slice(const SliceAccess& slice);
  Value evaluate_call(const Call& call, const Value& caller);
  // `text`: what a block captured, for the innermost filter of its chain.
  Value evaluate_application(const Application& application, const Value& text);
  void evaluate_arguments(const ArgumentList& list, CallArguments& arguments);
  Value call_macro(const Value& macro, CallArguments& arguments);

  const Template& template_;
  std::vector<Value> context_;  // by symbol: the request's variables, functions, or undefined values
  Ref<Scope> root_;
  Ref<Scope> scope_;
  Output* output_ = nullptr;
  int line_ = 0;
  int depth_ = 0;
  int max_depth_;
  int num_open_macros_ = 0;
};

}  // namespace sextant::jinja
