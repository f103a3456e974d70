#include "engine/format/json_file.h"

#include <iterator>
#include <nlohmann/json.hpp>
#include <span>
#include <utility>
#include <vector>

#include "engine/format/printable.h"
#include "engine/format/random_access_file.h"

namespace sextant {
namespace {

using Json = nlohmann::json;

// Tells, through `consumed`, how far the parser has come: its own callbacks do not.
class CountingIterator {
 public:
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;

  CountingIterator(const char* at, const char** consumed) : at_(at), consumed_(consumed) {}
  reference operator*() const { return *at_; }
  CountingIterator& operator++() {
    *consumed_ = ++at_;
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
  const char** consumed_;
};

// Builds the value and stops at the first thing that the limits or the rules forbid; `problem` then says
// which.
class BoundedBuilder final : public nlohmann::json_sax<Json> {
 public:
  explicit BoundedBuilder(const JsonLimits& limits) : limits_(limits) {}

  bool null() override { return add(nullptr); }
  bool boolean(bool value) override { return add(value); }
  bool number_integer(number_integer_t value) override { return add(value); }
  bool number_unsigned(number_unsigned_t value) override { return add(value); }
  bool number_float(number_float_t value, const string_t&) override { return add(value); }
  bool string(string_t& value) override { return add(std::move(value)); }
  bool binary(binary_t&) override { return stop("binary values are not JSON"); }
  bool start_object(size_t) override { return open(Json::object()); }
  bool start_array(size_t) override { return open(Json::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }
  bool key(string_t& value) override {
    if (open_.back()->contains(value)) return stop("key " + printable(value) + " occurs twice");
    key_ = std::move(value);
    return true;
  }
  bool parse_error(size_t, const std::string&, const nlohmann::detail::exception& error) override {
    // what() begins with the library's own name and position; ours is more exact.
    std::string_view text = error.what();
    for (std::string_view mark : {"column ", "] "}) {
      const size_t at = text.find(mark);
      if (at == std::string_view::npos) continue;
      text.remove_prefix(at + mark.size());
      if (const size_t colon = text.find(": "); mark == "column " && colon != std::string_view::npos) {
        text.remove_prefix(colon + 2);
      }
      break;
    }
    const std::string shown = printable(text, 200);
    // Without the quotes that printable puts around names; quotes within stay readable.
    std::string plain = shown.substr(1, shown.size() - 2);
    for (size_t at = 0; (at = plain.find("\\x27", at)) != std::string::npos;) plain.replace(at, 4, "'");
    return stop(plain);
  }

  Json& root() { return root_; }
  const std::string& problem() const { return problem_; }

 private:
  bool stop(std::string problem) {
    problem_ = std::move(problem);
    return false;
  }

  // Null when there are too many values.
  Json* place(Json&& value) {
    if (++num_values_ > limits_.max_values) {
      stop("more than " + std::to_string(limits_.max_values) + " values");
      return nullptr;
    }
    if (open_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    Json& parent = *open_.back();
    if (parent.is_array()) {
      parent.push_back(std::move(value));
      return &parent.back();
    }
    Json& slot = parent[key_];
    slot = std::move(value);
    return &slot;
  }
  template <typename T>
  bool add(T&& value) {
    return place(Json(std::forward<T>(value))) != nullptr;
  }
  bool open(Json&& value) {
    if (static_cast<int>(open_.size()) >= limits_.max_depth) {
      return stop("nested deeper than " + std::to_string(limits_.max_depth) + " levels");
    }
    Json* placed = place(std::move(value));
    if (placed) open_.push_back(placed);
    return placed != nullptr;
  }
  bool close() {
    open_.pop_back();
    return true;
  }

  const JsonLimits& limits_;
  Json root_;
  // Pointers stay valid: a parent gains no element while one of its children is open.
  std::vector<Json*> open_;
  std::string key_;
  size_t num_values_ = 0;
  std::string problem_;
};

// `num_consumed`: how much the parser had taken when it stopped, the character at fault included.
Status json_error(std::string_view text, size_t num_consumed, std::string_view name, const std::string& problem) {
  const bool at_end = num_consumed == 0 || problem.find("unexpected end of input") != std::string::npos;
  const size_t byte = at_end ? num_consumed : num_consumed - 1;
  size_t line = 1;
  size_t line_begin = 0;
  for (size_t i = 0; i < byte && i < text.size(); ++i) {
    if (text[i] != '\n') continue;
    ++line;
    line_begin = i + 1;
  }
  return data_loss(std::string(name) + ": line " + std::to_string(line) + ", column " +
                   std::to_string(byte - line_begin + 1) + " (byte " + std::to_string(byte) + "): " + problem);
}

}  // namespace

Result<std::string> read_text_file(const std::string& path, size_t max_bytes) {
  ASSIGN_OR_RETURN(const RandomAccessFile file, RandomAccessFile::open(path));
  if (file.size() > max_bytes) {
    return Status(StatusCode::kTooLarge, path + ": " + std::to_string(file.size()) + " bytes; at most " +
                                             std::to_string(max_bytes) + " are read");
  }
  std::string text(static_cast<size_t>(file.size()), '\0');
  RETURN_IF_ERROR(file.read_at(0, std::as_writable_bytes(std::span(text.data(), text.size()))));
  return text;
}

Result<Json> parse_json(std::string_view text, std::string_view name, const JsonLimits& limits) {
  if (text.size() > limits.max_bytes) {
    return Status(StatusCode::kTooLarge, std::string(name) + ": " + std::to_string(text.size()) +
                                             " bytes of JSON; at most " + std::to_string(limits.max_bytes) +
                                             " are read");
  }
  const char* consumed = text.data();
  BoundedBuilder builder(limits);
  if (!Json::sax_parse(CountingIterator(text.data(), &consumed), CountingIterator(text.data() + text.size(), &consumed),
                       &builder)) {
    return json_error(text, static_cast<size_t>(consumed - text.data()), name, builder.problem());
  }
  return std::move(builder.root());
}

Result<Json> read_json_file(const std::string& path, const JsonLimits& limits) {
  ASSIGN_OR_RETURN(const std::string text, read_text_file(path, limits.max_bytes));
  return parse_json(text, path, limits);
}

}  // namespace sextant
