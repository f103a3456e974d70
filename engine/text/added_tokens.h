// Added tokens: those found in the text itself before it is encoded ("<|im_start|>"), special ones and others.
// AddedTokenMatcher is immutable; any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace sextant {

struct AddedToken {
  int32_t id = -1;
  std::string content;
  bool special = false;      // control token: not text, hidden by skip_special_tokens
  bool normalized = false;   // looked for after normalisation, in its own normalised form
  bool lstrip = false;       // takes the white space on its left with it
  bool rstrip = false;       // ... on its right
  bool single_word = false;  // only between non-word characters
};

// Longest content accepted: matching takes up to this many steps per byte of text.
inline constexpr size_t kMaxAddedTokenBytes = 1024;

class AddedTokenMatcher {
 public:
  // `content` of each token: not empty, at most kMaxAddedTokenBytes.
  explicit AddedTokenMatcher(std::vector<AddedToken> tokens);

  struct Match {
    size_t begin = 0, end = 0;  // with the white space taken along
    size_t content_end = 0;     // where to look for the next one
    const AddedToken* token = nullptr;
  };
  // The first match at or after `from`, of several there the longest. Text before `done` belongs to earlier matches:
  // white space is not taken from it.
  std::optional<Match> find(std::string_view text, size_t from, size_t done) const;

  // Cuts `text` at its added tokens and hands the parts on in order: add_token(token) and add_text(part). Special tokens count as text unless `allow_special`.
  template <typename AddToken, typename AddText>
  void split(std::string_view text, bool allow_special, const AddToken& add_token, const AddText& add_text) const {
    size_t from = 0, done = 0;
    while (const std::optional<Match> match = find(text, from, done)) {
      from = match->content_end;
      if (match->token->special && !allow_special) continue;
      if (match->begin > done) add_text(text.substr(done, match->begin - done));
      add_token(*match->token);
      done = match->end;
    }
    if (done < text.size()) add_text(text.substr(done));
  }

 private:
  struct Node {
    int32_t token_idx = -1;
    int32_t first_child = -1;  // children are a list: few tokens share a prefix and then part
    int32_t next_sibling = -1;
    uint8_t byte = 0;
  };
  int32_t child(int32_t node, uint8_t byte) const;
  std::optional<Match> match_at(std::string_view text, size_t begin, size_t done) const;

  std::vector<AddedToken> tokens_;
  std::vector<Node> nodes_;
  int32_t roots_[256];  // by first byte
};

}  // namespace sextant
