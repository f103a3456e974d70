// Python's operators on values: arithmetic, comparison, membership, truth, attribute and item access,
// iteration, str() and repr(). Failures carry Python's exception name, as users of these templates know it.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "engine/text/jinja/runtime.h"
#include "engine/text/jinja/value.h"

namespace sextant::jinja {

enum class BinaryOp : uint8_t { kAdd, kSubtract, kMultiply, kDivide, kFloorDivide, kModulo, kPower };
enum class CompareOp : uint8_t { kEqual, kNotEqual, kLess, kLessEqual, kGreater, kGreaterEqual, kIn, kNotIn };

const char* type_name(const Value& value);
[[noreturn]] void fail_undefined(const Value& undefined);

bool is_true(const Value& value);
bool is_equal(Runtime& runtime, const Value& a, const Value& b);
bool is_less(Runtime& runtime, const Value& a, const Value& b);
bool compare(Runtime& runtime, CompareOp op, const Value& a, const Value& b);
bool contains(Runtime& runtime, const Value& container, const Value& item);

// `left` by value: a text that nobody else holds grows in place.
Value binary(Runtime& runtime, BinaryOp op, Value left, const Value& right);
Value negate(const Value& value);
Value posit(const Value& value);
// Fails when the product would be too large.
std::string repeat_text(Runtime& runtime, std::string_view text, int64_t count);

Value undefined_variable(Runtime& runtime, std::string_view name);
Value undefined_hint(Runtime& runtime, std::string_view hint);
Value get_attribute(Runtime& runtime, const Value& object, const Attribute& attribute);
Value get_item(Runtime& runtime, const Value& object, const Value& key);
// Missing bounds are kNone.
Value get_slice(Runtime& runtime, const Value& object, const Value& start, const Value& stop, const Value& step);
// "a.b.0" as filters take it: every part is looked up as an item.
Value get_path(Runtime& runtime, const Value& object, const Value& path, const Value& fallback);

// len(): nullopt when the value has none.
std::optional<size_t> length(Runtime& runtime, const Value& value);
bool is_iterable(const Value& value);
// All items, as a list or tuple; an iterator is consumed. Fails when the value cannot be iterated.
Value iterate(Runtime& runtime, const Value& value);
Value char_at(Runtime& runtime, const Value& text, size_t char_idx);
size_t num_chars(Runtime& runtime, const Value& text);

void append_text(Runtime& runtime, std::string& out, const Value& value);  // str()
void append_repr(Runtime& runtime, std::string& out, const Value& value);  // repr()
std::string to_text(Runtime& runtime, const Value& value);
// The value as a string Value; strings are not copied.
Value as_string(Runtime& runtime, const Value& value);
// Linear in the length of `text`, whatever it holds; npos when absent.
size_t find_text(std::string_view text, std::string_view part, size_t from);
size_t find_last_text(std::string_view text, std::string_view part);
// Before looking a key up.
void charge_key(Runtime& runtime, const Value& key);
std::string escape_html(Runtime& runtime, std::string_view text);
std::string format_real(double value);  // float.__repr__

// int() and float() of a text, after Python's rules; nullopt when it is not a number.
std::optional<int64_t> parse_integer(std::string_view text, int base);
std::optional<double> parse_real(std::string_view text);
int64_t to_index(const Value& value, const char* what);  // an int, or a TypeError

}  // namespace sextant::jinja
