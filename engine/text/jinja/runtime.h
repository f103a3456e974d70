// Runtime: what one render gives to every operation: its heap, its limits, its clock and the way to call back
// a macro. Every operation whose cost a template chooses charges steps here before it works or allocates. One
// thread per render.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/text/chat_template.h"
#include "engine/text/jinja/failure.h"
#include "engine/text/jinja/value.h"

namespace sextant::jinja {

struct LoopObject;

struct CallArguments {
  std::vector<Value> positional;
  std::vector<std::pair<Value, Value>> named;  // names are strings

  // After bind(): was this parameter given?
  bool has(size_t i) const { return i < positional.size() && !positional[i].is_missing(); }
};

class Runtime {
 public:
  Runtime(const ChatTemplateLimits& limits, int64_t now_unix_s)
      : heap(limits.max_output_bytes > SIZE_MAX / 4 ? SIZE_MAX : kHeapPerOutput * limits.max_output_bytes),
        limits_(limits),
        now_unix_s_(now_unix_s) {}
  Runtime(const Runtime&) = delete;
  virtual ~Runtime() = default;

  virtual Value call(const Value& callee, CallArguments& arguments) = 0;
  // Does the loop's own condition (`for x in items if ...`) take this item?
  virtual bool loop_accepts(LoopObject& loop, const Value& item) = 0;

  void step(uint64_t count = 1) {
    num_steps_ += count;
    if (num_steps_ > limits_.max_steps) fail_steps();
  }
  // Work over `bytes` bytes of text.
  void charge_text(size_t bytes) { step(bytes / 64); }
  // Before making a string of `bytes` bytes.
  void charge_new_text(size_t bytes) {
    if (bytes > limits_.max_output_bytes) fail_text(bytes);
    heap.check(bytes);
    charge_text(bytes);
  }
  // Before appending `bytes` bytes to `out`.
  void charge_growth(const std::string& out, size_t bytes) {
    if (bytes > limits_.max_output_bytes || out.size() > limits_.max_output_bytes - bytes)
      fail_text(out.size() + bytes);
    charge_text(bytes);
  }
  void append(std::string& out, std::string_view piece) {
    charge_growth(out, piece.size());
    out += piece;
  }
  // Before making a container of `count` values.
  void charge_items(size_t count) {
    heap.check(count > SIZE_MAX / 64 ? SIZE_MAX : count * sizeof(Value));
    step(count / 4);
  }
  int64_t now_unix_s() const { return now_unix_s_; }
  const ChatTemplateLimits& limits() const { return limits_; }

  Value text(std::string text, bool markup = false) {
    charge_new_text(text.size());
    return heap.text(std::move(text), markup);
  }

  Heap heap;  // before all that holds values: destroyed last

 private:
  static constexpr size_t kHeapPerOutput = 4;
  [[noreturn]] void fail_steps() const;
  [[noreturn]] void fail_text(size_t bytes) const;

  ChatTemplateLimits limits_;
  int64_t now_unix_s_;
  uint64_t num_steps_ = 0;
};

// A filter, test, function or method written in C++. Methods and filters get their subject as the first
// argument.
struct Builtin {
  using Function = Value (*)(Runtime&, CallArguments&);
  static constexpr size_t kVariadic = SIZE_MAX;

  std::string_view name;
  Function function = nullptr;  // null: the sandbox forbids it (it would change a list or dict)
  size_t num_required = 0;      // kVariadic: the arguments are passed as they are
  std::array<std::string_view, 6> parameters = {};

  size_t num_parameters() const;
};

// Puts named arguments into their places and fails on missing, surplus and unknown ones.
void bind(const Builtin& builtin, CallArguments& arguments);
inline Value call_builtin(Runtime& runtime, const Builtin& builtin, CallArguments& arguments) {
  if (builtin.num_required != Builtin::kVariadic) bind(builtin, arguments);
  return builtin.function(runtime, arguments);
}

const Builtin* find_filter(std::string_view name);
const Builtin* find_test(std::string_view name);
const Builtin* find_function(std::string_view name);

std::span<const Builtin> text_filters();
std::span<const Builtin> markup_filters();
std::span<const Builtin> number_filters();
std::span<const Builtin> sequence_filters();
std::span<const Builtin> ordering_filters();
std::span<const Builtin> selection_filters();
std::span<const Builtin> json_filters();

struct LoopField;
const LoopField* find_loop_field(std::string_view name);

// What `name` means on each type when a template says x.name.
struct Attribute {
  Value name;  // a string
  const Builtin* of_string = nullptr;
  const Builtin* of_list = nullptr;
  const Builtin* of_tuple = nullptr;
  const Builtin* of_dict = nullptr;
  const Builtin* of_float = nullptr;
  const LoopField* of_loop = nullptr;

  const Builtin* method_of(Kind kind) const {
    switch (kind) {
      case Kind::kString: return of_string;
      case Kind::kList: return of_list;
      case Kind::kTuple:
      case Kind::kRange: return of_tuple;
      case Kind::kDict: return of_dict;
      case Kind::kFloat: return of_float;
      default: return nullptr;
    }
  }
};
Attribute make_attribute(Value name);

std::span<const Builtin> string_methods();
std::span<const Builtin> string_search_methods();
std::span<const Builtin> list_methods();
std::span<const Builtin> tuple_methods();
std::span<const Builtin> dict_methods();
std::span<const Builtin> float_methods();

}  // namespace sextant::jinja
