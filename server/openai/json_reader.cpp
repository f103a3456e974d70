// A SAX handler on nlohmann's parser (which does not recurse) that builds the value itself: duplicate keys
// and limits are seen as they come, and lookups stay linear whatever the number of keys.
#include "server/openai/json_reader.h"

#include <algorithm>
#include <cstdint>
#include <exception>
#include <iterator>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

namespace sextant::openai {
namespace {

// Walks the text and tells how far the parser has read.
class CountingIterator {
 public:
  using iterator_category = std::forward_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;

  CountingIterator(const char* at, const char** furthest) : at_(at), furthest_(furthest) {}
  reference operator*() const { return *at_; }
  CountingIterator& operator++() {
    ++at_;
    if (furthest_ != nullptr) *furthest_ = at_;
    return *this;
  }
  CountingIterator operator++(int) {
    CountingIterator before = *this;
    ++*this;
    return before;
  }
  bool operator==(const CountingIterator& other) const { return at_ == other.at_; }
  bool operator!=(const CountingIterator& other) const { return at_ != other.at_; }

 private:
  const char* at_;
  const char** furthest_;
};

// "line 3, column 7 (byte 41)", each counted from 1.
std::string describe_position(std::string_view text, size_t byte) {
  byte = std::min(byte, text.size());
  const std::string_view before = text.substr(0, byte);
  const size_t line = 1 + static_cast<size_t>(std::count(before.begin(), before.end(), '\n'));
  const size_t line_start = before.rfind('\n') == std::string_view::npos ? 0 : before.rfind('\n') + 1;
  return "line " + std::to_string(line) + ", column " + std::to_string(byte - line_start + 1) + " (byte " +
         std::to_string(byte + 1) + ")";
}

// nlohmann's message without its own prefix and position: what was expected and what was read.
std::string_view bare_message(std::string_view what) {
  if (const size_t close = what.find("] "); what.starts_with('[') && close != std::string_view::npos) {
    what.remove_prefix(close + 2);
  }
  if (const size_t colon = what.find(": "); what.starts_with("parse error at") && colon != std::string_view::npos) {
    what.remove_prefix(colon + 2);
  }
  return what;
}

class BoundedBuilder final : public nlohmann::json_sax<Json> {
 public:
  BoundedBuilder(std::string_view text, const JsonLimits& limits) : text_(text), limits_(limits) {}

  const char** furthest() { return &furthest_; }
  Status take_error() { return std::move(error_); }
  Json take_value() { return std::move(root_); }

  bool null() override { return add(Json(nullptr)) != nullptr; }
  bool boolean(bool value) override { return add(Json(value)) != nullptr; }
  bool number_integer(number_integer_t value) override { return add(Json(value)) != nullptr; }
  bool number_unsigned(number_unsigned_t value) override { return add(Json(value)) != nullptr; }
  bool number_float(number_float_t value, const string_t&) override { return add(Json(value)) != nullptr; }
  bool string(string_t& value) override { return add(Json(std::move(value))) != nullptr; }
  bool binary(binary_t&) override { return fail("binary values are not JSON"); }

  bool start_object(std::size_t) override { return open(Json::object()); }
  bool key(string_t& name) override {
    Level& level = levels_.back();
    if (!level.keys.insert(name).second) {
      return fail("the key " + in_quotes(name) + " occurs twice in one object");
    }
    level.pending_key = std::move(name);
    return true;
  }
  bool end_object() override { return close(); }
  bool start_array(std::size_t) override { return open(Json::array()); }
  bool end_array() override { return close(); }

  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception& error) override {
    const size_t byte = position > 0 ? position - 1 : 0;
    const bool at_end = byte >= text_.size();
    error_ = invalid_argument("The body is not valid JSON at " + describe_position(text_, byte) + ": " +
                                  (text_.empty() ? "it is empty" : std::string(bare_message(error.what()))) +
                                  (at_end && !text_.empty() ? " (the body ends here)" : ""),
                              {}, "invalid_json");
    return false;
  }

 private:
  struct Level {
    Json* container;
    std::unordered_set<std::string> keys;
    std::string pending_key;
  };

  bool fail(const std::string& what) {
    const size_t byte = furthest_ == nullptr ? 0 : static_cast<size_t>(furthest_ - text_.data());
    error_ = invalid_argument(
        "The body is not acceptable JSON near " + describe_position(text_, byte > 0 ? byte - 1 : 0) + ": " + what, {},
        "invalid_json");
    return false;
  }

  // Appends to the innermost container; the pointer stays good while that container does not grow.
  Json* add(Json value) {
    if (++num_values_ > limits_.max_values) {
      fail("more than " + std::to_string(limits_.max_values) + " values");
      return nullptr;
    }
    if (levels_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    Level& level = levels_.back();
    if (level.container->is_array()) {
      auto& array = level.container->get_ref<Json::array_t&>();
      array.push_back(std::move(value));
      return &array.back();
    }
    // The vector beneath the ordered map: its own insertion would search all keys each time.
    using Members = std::vector<std::pair<const std::string, Json>>;
    Members& members = level.container->get_ref<Json::object_t&>();
    members.emplace_back(std::move(level.pending_key), std::move(value));
    return &members.back().second;
  }

  bool open(Json container) {
    if (levels_.size() >= limits_.max_depth) {
      return fail("nested deeper than " + std::to_string(limits_.max_depth) + " levels");
    }
    Json* added = add(std::move(container));
    if (added == nullptr) return false;
    levels_.push_back(Level{added, {}, {}});
    return true;
  }

  bool close() {
    levels_.pop_back();
    return true;
  }

  const std::string_view text_;
  const JsonLimits limits_;
  const char* furthest_ = nullptr;
  size_t num_values_ = 0;
  std::vector<Level> levels_;
  Json root_;
  Status error_;
};

}  // namespace

std::string dump_json(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

std::string in_quotes(std::string_view text) {
  constexpr size_t kMaxBytes = 100;
  const bool is_cut = text.size() > kMaxBytes;
  return Json(std::string(text.substr(0, kMaxBytes))).dump(-1, ' ', true, Json::error_handler_t::replace) +
         (is_cut ? "..." : "");
}

Result<Json> parse_json(std::string_view text, const JsonLimits& limits) {
  BoundedBuilder builder(text, limits);
  const char* end = text.data() + text.size();
  bool ok = false;
  try {
    ok = Json::sax_parse(CountingIterator(text.data(), builder.furthest()), CountingIterator(end, nullptr), &builder);
  } catch (const std::exception& error) {
    return invalid_argument(std::string("The body is not valid JSON: ") + error.what(), {}, "invalid_json");
  }
  if (ok) return builder.take_value();
  Status error = builder.take_error();
  CHECK(!error.ok()) << "the JSON parser stopped without an error";
  return error;
}

}  // namespace sextant::openai
