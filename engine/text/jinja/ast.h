// The parsed template. Immutable and shared by all renders; its constants live in the template's own immortal
// heap.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/text/jinja/operators.h"
#include "engine/text/jinja/runtime.h"
#include "engine/text/jinja/value.h"

namespace sextant::jinja {

struct Node {
  explicit Node(int line_number) : line(line_number) {}
  virtual ~Node() = default;
  int line;
  int height = 1;  // of the tree below; bounded at parse, so that recursion over it is
};

enum class ExpressionKind : uint8_t {
  kConstant,
  kName,
  kList,
  kTuple,
  kDict,
  kArithmetic,
  kNegate,
  kPosit,
  kNot,
  kAnd,
  kOr,
  kConcat,
  kComparison,
  kConditional,
  kAttribute,
  kItem,
  kSlice,
  kCall,
  kFilter,
  kTest,
};

struct Expression : Node {
  Expression(ExpressionKind expression_kind, int line_number) : Node(line_number), kind(expression_kind) {}
  ExpressionKind kind;
};
using ExpressionPtr = std::unique_ptr<Expression>;

struct Constant : Expression {
  Constant(int line_number, Value v) : Expression(ExpressionKind::kConstant, line_number), value(std::move(v)) {}
  Value value;
};
struct Name : Expression {
  Name(int line_number, int s) : Expression(ExpressionKind::kName, line_number), symbol(s) {}
  int symbol;
};
// List, tuple, and, or, concatenation.
struct Sequence : Expression {
  using Expression::Expression;
  std::vector<ExpressionPtr> items;
};
struct DictLiteral : Expression {
  explicit DictLiteral(int line_number) : Expression(ExpressionKind::kDict, line_number) {}
  std::vector<std::pair<ExpressionPtr, ExpressionPtr>> entries;
};
// a + b - c: operators of one precedence, from left to right, in one node however long.
struct Arithmetic : Expression {
  explicit Arithmetic(int line_number) : Expression(ExpressionKind::kArithmetic, line_number) {}
  ExpressionPtr first;
  std::vector<std::pair<BinaryOp, ExpressionPtr>> rest;
};
struct Unary : Expression {
  using Expression::Expression;
  ExpressionPtr operand;
};
struct Comparison : Expression {
  explicit Comparison(int line_number) : Expression(ExpressionKind::kComparison, line_number) {}
  ExpressionPtr first;
  std::vector<std::pair<CompareOp, ExpressionPtr>> rest;
};
struct Conditional : Expression {
  explicit Conditional(int line_number) : Expression(ExpressionKind::kConditional, line_number) {}
  ExpressionPtr condition;
  ExpressionPtr if_true;
  ExpressionPtr if_false;  // may be absent: then undefined
};
struct AttributeAccess : Expression {
  explicit AttributeAccess(int line_number) : Expression(ExpressionKind::kAttribute, line_number) {}
  ExpressionPtr object;
  Attribute attribute;
};
struct ItemAccess : Expression {
  explicit ItemAccess(int line_number) : Expression(ExpressionKind::kItem, line_number) {}
  ExpressionPtr object;
  ExpressionPtr key;
};
struct SliceAccess : Expression {
  explicit SliceAccess(int line_number) : Expression(ExpressionKind::kSlice, line_number) {}
  ExpressionPtr object;
  ExpressionPtr start;  // each may be absent
  ExpressionPtr stop;
  ExpressionPtr step;
};
struct ArgumentList {
  std::vector<ExpressionPtr> positional;
  std::vector<std::pair<Value, ExpressionPtr>> named;
  ExpressionPtr more_positional;  // *x
  ExpressionPtr more_named;       // **x
};
struct Call : Expression {
  explicit Call(int line_number) : Expression(ExpressionKind::kCall, line_number) {}
  ExpressionPtr callee;
  ArgumentList arguments;
};
// Filters and tests. Only in the chain of a filter block, the innermost filter has no input: it gets the
// block's text.
struct Application : Expression {
  using Expression::Expression;
  ExpressionPtr input;
  const Builtin* builtin = nullptr;  // null: unknown, an error when it is reached
  std::string name;
  ArgumentList arguments;
};

enum class StatementKind : uint8_t {
  kText,
  kOutput,
  kIf,
  kFor,
  kSet,
  kSetBlock,
  kMacro,
  kCallBlock,
  kFilterBlock,
  kWith,
  kScope,
  kBlock,
  kBreak,
  kContinue,
};

struct Statement : Node {
  Statement(StatementKind statement_kind, int line_number) : Node(line_number), kind(statement_kind) {}
  StatementKind kind;
};
using StatementPtr = std::unique_ptr<Statement>;
using Body = std::vector<StatementPtr>;

// What can stand on the left of `=`: a name, name.attribute of a namespace, or several of them.
struct Target {
  int symbol = -1;
  Value attribute;  // missing for a plain name
  std::vector<Target> parts;
  bool is_tuple = false;
};

struct TextStatement : Statement {
  TextStatement(int line_number, std::string t) : Statement(StatementKind::kText, line_number), text(std::move(t)) {}
  std::string text;
};
struct OutputStatement : Statement {
  explicit OutputStatement(int line_number) : Statement(StatementKind::kOutput, line_number) {}
  ExpressionPtr value;
};
struct IfStatement : Statement {
  explicit IfStatement(int line_number) : Statement(StatementKind::kIf, line_number) {}
  struct Branch {
    ExpressionPtr condition;
    Body body;
  };
  std::vector<Branch> branches;
  Body otherwise;
};
struct ForStatement : Statement {
  explicit ForStatement(int line_number) : Statement(StatementKind::kFor, line_number) {}
  Target target;
  ExpressionPtr items;
  ExpressionPtr condition;  // may be absent
  bool recursive = false;
  Body body;
  Body otherwise;
};
struct SetStatement : Statement {
  explicit SetStatement(int line_number) : Statement(StatementKind::kSet, line_number) {}
  Target target;
  ExpressionPtr value;
};
struct SetBlockStatement : Statement {
  explicit SetBlockStatement(int line_number) : Statement(StatementKind::kSetBlock, line_number) {}
  Target target;
  ExpressionPtr filter;  // a chain of Applications; may be absent
  Body body;
};
struct MacroParameter {
  int symbol = -1;
  Value name;
  ExpressionPtr default_value;  // may be absent
};
struct MacroDefinition {
  std::string name;  // empty: the body of a call block
  std::vector<MacroParameter> parameters;
  Body body;
  bool uses_caller = false;
  bool uses_kwargs = false;
  bool uses_varargs = false;
  int caller_parameter = -1;  // its place among the parameters, when written there
};
struct MacroStatement : Statement {
  explicit MacroStatement(int line_number) : Statement(StatementKind::kMacro, line_number) {}
  int symbol = -1;
  MacroDefinition definition;
};
struct CallBlockStatement : Statement {
  explicit CallBlockStatement(int line_number) : Statement(StatementKind::kCallBlock, line_number) {}
  std::unique_ptr<Call> call;
  MacroDefinition caller;
};
struct FilterBlockStatement : Statement {
  explicit FilterBlockStatement(int line_number) : Statement(StatementKind::kFilterBlock, line_number) {}
  ExpressionPtr filter;
  Body body;
};
// `with`, `generation` (a scope without assignments) and `block`.
struct WithStatement : Statement {
  using Statement::Statement;
  std::vector<std::pair<Target, ExpressionPtr>> assignments;
  Body body;
  bool sees_locals = true;  // a block without `scoped` sees only the variables of the top level
};
struct JumpStatement : Statement {
  using Statement::Statement;
};

// Symbols every template has, at these places in Template::symbols.
enum : int { kLoopSymbol, kCallerSymbol, kKwargsSymbol, kVarargsSymbol, kNumFixedSymbols };

struct Template {
  Template() : heap(SIZE_MAX, true) {}
  Heap heap;
  std::vector<Value> symbols;    // names, by symbol number
  std::vector<Value> undefined;  // what an unknown variable of that name evaluates to
  std::vector<Value> functions;  // the built-in of that name, or missing
  Body body;
};

}  // namespace sextant::jinja
