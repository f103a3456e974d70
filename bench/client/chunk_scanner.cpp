#include "bench/client/chunk_scanner.h"

#include <cstring>

namespace sextant::bench {
namespace {

constexpr int kMaxDepth = 64;

// Where in the document we are; everything that is not listed is skipped, yet checked.
enum class Place { kTop, kChoices, kChoice, kDelta, kTokenIds, kUsage, kPromptDetails, kToolCalls, kOther };

class Scanner {
 public:
  Scanner(std::string_view json, ChunkFacts* facts)
      : at_(json.data()), end_(json.data() + json.size()), facts_(*facts) {}

  bool scan() {
    skip_space();
    if (at_ == end_ || *at_ != '{' || !object(Place::kTop, 0)) return false;
    skip_space();
    return at_ == end_;
  }

 private:
  void skip_space() {
    while (at_ != end_ && (*at_ == ' ' || *at_ == '\n' || *at_ == '\r' || *at_ == '\t')) ++at_;
  }

  // At the opening quote; `*text` is what stands between the quotes, as it is written.
  bool string(std::string_view* text) {
    const char* begin = ++at_;
    while (at_ != end_) {
      const char c = *at_;
      if (c == '"') {
        *text = {begin, static_cast<size_t>(at_ - begin)};
        ++at_;
        return true;
      }
      if (static_cast<unsigned char>(c) < 0x20) return false;
      if (c == '\\' && ++at_ == end_) return false;
      ++at_;
    }
    return false;
  }

  bool literal(std::string_view word) {
    if (static_cast<size_t>(end_ - at_) < word.size() || std::memcmp(at_, word.data(), word.size()) != 0) return false;
    at_ += word.size();
    return true;
  }

  bool number(int64_t* whole) {
    const char* begin = at_;
    bool negative = at_ != end_ && *at_ == '-';
    if (negative) ++at_;
    uint64_t value = 0;
    int num_digits = 0;
    while (at_ != end_ && *at_ >= '0' && *at_ <= '9' && ++num_digits <= 18)
      value = value * 10 + static_cast<uint64_t>(*at_++ - '0');
    if (num_digits == 0) return false;
    while (at_ != end_ && (std::strchr("0123456789+-.eE", *at_) != nullptr) && *at_ != '\0') ++at_;
    *whole = negative || begin == at_ ? -1 : static_cast<int64_t>(value);
    return true;
  }

  bool object(Place place, int depth) {
    if (depth > kMaxDepth) return false;
    ++at_;
    skip_space();
    if (at_ != end_ && *at_ == '}') return ++at_, true;
    for (;;) {
      skip_space();
      std::string_view key;
      if (at_ == end_ || *at_ != '"' || !string(&key)) return false;
      skip_space();
      if (at_ == end_ || *at_++ != ':') return false;
      skip_space();
      if (!member(place, key, depth)) return false;
      skip_space();
      if (at_ == end_) return false;
      if (*at_ == '}') return ++at_, true;
      if (*at_++ != ',') return false;
    }
  }

  bool array(Place place, int depth) {
    if (depth > kMaxDepth) return false;
    ++at_;
    skip_space();
    if (at_ != end_ && *at_ == ']') return ++at_, true;
    for (;;) {
      skip_space();
      if (place == Place::kTokenIds) ++facts_.num_token_ids;
      if (place == Place::kChoices) facts_.has_choices = true;
      if (!value(place == Place::kChoices     ? Place::kChoice
                 : place == Place::kToolCalls ? Place::kToolCalls
                                              : Place::kOther,
                 depth)) {
        return false;
      }
      skip_space();
      if (at_ == end_) return false;
      if (*at_ == ']') return ++at_, true;
      if (*at_++ != ',') return false;
    }
  }

  bool value(Place place, int depth) {
    if (at_ == end_) return false;
    std::string_view text;
    int64_t whole;
    switch (*at_) {
      case '{': return object(place, depth + 1);
      case '[': return array(place, depth + 1);
      case '"': return string(&text);
      case 't': return literal("true");
      case 'f': return literal("false");
      case 'n': return literal("null");
      default: return number(&whole);
    }
  }

  bool member(Place place, std::string_view key, int depth) {
    if (at_ == end_) return false;
    switch (place) {
      case Place::kTop:
        if (key == "choices") return value(Place::kChoices, depth);
        if (key == "usage") return value(Place::kUsage, depth);
        if (key == "error") {
          const char* begin = at_;
          if (!value(Place::kOther, depth)) return false;
          const std::string_view bytes(begin, static_cast<size_t>(at_ - begin));
          if (bytes != "null") facts_.error = bytes;
          return true;
        }
        break;
      case Place::kChoice:
        if (key == "text") return text(true);
        if (key == "delta" || key == "message") return value(Place::kDelta, depth);
        if (key == "token_ids" && *at_ == '[') {
          facts_.has_token_ids = true;
          return value(Place::kTokenIds, depth);
        }
        if (key == "finish_reason" && *at_ == '"') return string(&facts_.finish_reason);
        break;
      case Place::kDelta:
        if (key == "content") return text(true);
        if (key == "reasoning_content" || key == "reasoning") return text(true);
        if (key == "tool_calls") return value(Place::kToolCalls, depth);
        break;
      case Place::kToolCalls:
        if (key == "function") return value(Place::kToolCalls, depth);
        if (key == "arguments" || key == "name") return text(false);
        break;
      case Place::kUsage:
        if (key == "prompt_tokens") return count(&facts_.prompt_tokens);
        if (key == "completion_tokens") return count(&facts_.completion_tokens);
        if (key == "prompt_tokens_details") return value(Place::kPromptDetails, depth);
        break;
      case Place::kPromptDetails:
        if (key == "cached_tokens") return count(&facts_.cached_tokens);
        break;
      case Place::kChoices:
      case Place::kTokenIds:
      case Place::kOther: break;
    }
    return value(Place::kOther, depth);
  }

  bool text(bool is_content) {
    if (*at_ != '"') return value(Place::kOther, kMaxDepth - 8);
    std::string_view found;
    if (!string(&found)) return false;
    if (found.empty()) return true;
    facts_.has_text = true;
    if (is_content && facts_.text.empty()) facts_.text = found;
    return true;
  }

  bool count(int64_t* out) {
    if ((*at_ < '0' || *at_ > '9')) return value(Place::kOther, kMaxDepth - 8);
    return number(out);
  }

  const char* at_;
  const char* end_;
  ChunkFacts& facts_;
};

}  // namespace

bool scan_chunk(std::string_view json, ChunkFacts* facts) {
  *facts = {};
  return Scanner(json, facts).scan();
}

}  // namespace sextant::bench
