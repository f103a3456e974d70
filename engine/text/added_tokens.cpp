// A trie over the contents. Leftmost, then longest, contents without overlaps, as Hugging Face's tokenizers match.
#include "engine/text/added_tokens.h"

#include <algorithm>

#include "engine/base/check.h"
#include "engine/text/utf8.h"

namespace sextant {
namespace {

// The character that ends at `end`, for text that may not be UTF-8: a stray byte counts as a replacement character.
Utf8Char char_before(std::string_view text, size_t end) {
  for (size_t length = 1; length <= 4 && length <= end; ++length) {
    const Utf8Char c = decode_utf8_char(text.substr(end - length, length));
    if (c.kind == Utf8Char::Kind::kValid && c.length == length) return c;
  }
  return {Utf8Char::Kind::kInvalid, 0xFFFD, 1};
}

bool is_word_at(std::string_view text, size_t begin) {
  if (begin == text.size()) return false;
  const Utf8Char c = decode_utf8_char(text.substr(begin));
  return c.kind == Utf8Char::Kind::kValid && is_unicode_word(c.code_point);
}

bool is_word_before(std::string_view text, size_t end) {
  if (end == 0) return false;
  const Utf8Char c = char_before(text, end);
  return c.kind == Utf8Char::Kind::kValid && is_unicode_word(c.code_point);
}

}  // namespace

AddedTokenMatcher::AddedTokenMatcher(std::vector<AddedToken> tokens) : tokens_(std::move(tokens)) {
  std::fill(std::begin(roots_), std::end(roots_), -1);
  for (size_t t = 0; t < tokens_.size(); ++t) {
    const std::string& content = tokens_[t].content;
    CHECK(!content.empty() && content.size() <= kMaxAddedTokenBytes);
    int32_t node = -1;
    for (const char c : content) {
      const auto byte = static_cast<uint8_t>(c);
      int32_t next = node < 0 ? roots_[byte] : child(node, byte);
      if (next < 0) {
        next = static_cast<int32_t>(nodes_.size());
        nodes_.push_back({.byte = byte});
        if (node < 0) {
          roots_[byte] = next;
        } else {
          nodes_[next].next_sibling = nodes_[node].first_child;
          nodes_[node].first_child = next;
        }
      }
      node = next;
    }
    if (nodes_[node].token_idx < 0) nodes_[node].token_idx = static_cast<int32_t>(t);
  }
}

int32_t AddedTokenMatcher::child(int32_t node, uint8_t byte) const {
  int32_t c = nodes_[node].first_child;
  while (c >= 0 && nodes_[c].byte != byte) c = nodes_[c].next_sibling;
  return c;
}

std::optional<AddedTokenMatcher::Match> AddedTokenMatcher::find(std::string_view text, size_t from, size_t done) const {
  if (tokens_.empty()) return std::nullopt;
  for (size_t begin = from; begin < text.size(); ++begin) {
    if (roots_[static_cast<uint8_t>(text[begin])] < 0) continue;
    if (std::optional<Match> match = match_at(text, begin, done)) return match;
  }
  return std::nullopt;
}

std::optional<AddedTokenMatcher::Match> AddedTokenMatcher::match_at(std::string_view text, size_t begin,
                                                                    size_t done) const {
  int32_t longest = -1;
  int32_t node = roots_[static_cast<uint8_t>(text[begin])];
  for (size_t i = begin + 1;; ++i) {
    if (nodes_[node].token_idx >= 0) longest = nodes_[node].token_idx;
    if (i == text.size()) break;
    node = child(node, static_cast<uint8_t>(text[i]));
    if (node < 0) break;
  }
  if (longest < 0) return std::nullopt;
  const AddedToken& token = tokens_[static_cast<size_t>(longest)];
  const size_t content_end = begin + token.content.size();
  Match match{begin, content_end, content_end, &token};
  if (token.single_word && (is_word_before(text, match.begin) || is_word_at(text, match.end))) return std::nullopt;
  while (token.lstrip && match.begin > done) {
    const Utf8Char c = char_before(text.substr(done), match.begin - done);
    if (c.kind != Utf8Char::Kind::kValid || !is_unicode_space(c.code_point)) break;
    match.begin -= c.length;
  }
  while (token.rstrip && match.end < text.size()) {
    const Utf8Char c = decode_utf8_char(text.substr(match.end));
    if (c.kind != Utf8Char::Kind::kValid || !is_unicode_space(c.code_point)) break;
    match.end += c.length;
  }
  return match;
}

}  // namespace sextant
