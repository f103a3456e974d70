// BpeModel: the vocabulary and merges of a byte-level BPE; turns one piece of bytes into token ids.
// Immutable after create; any thread. Must not know pre-tokenizers, special handling or files.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "engine/base/result.h"
#include "engine/text/string_index.h"

namespace sextant {

// What a file says, before it is checked.
struct BpeVocabulary {
  enum class Kind : uint8_t {
    kAbsent,   // no token has this id
    kNormal,   // spelled in the byte alphabet
    kAdded,    // its text is what it says, in UTF-8; may also be made by merges
    kSpecial,  // as kAdded, and a control token: text alone never makes it
    kUnused,   // has a name and nothing makes it
  };
  std::vector<std::string> tokens;                          // by id
  std::vector<Kind> kinds;                                  // by id
  std::vector<std::pair<std::string, std::string>> merges;  // best first
  bool ignore_merges = false;  // a piece that is a token is that token, whatever the merges say
  std::optional<std::string> unknown_token;
  bool fuse_unknown = false;  // a run of unknown bytes is one unknown token
};

class BpeModel {
 public:
  // Errors name the token or the merge, not the file.
  static Result<BpeModel> create(BpeVocabulary vocabulary);

  // Appends the ids of `piece`, which pre-tokenization has cut. With `allow_special` off no special token comes out,
  // even where merges lead to one.
  void encode(std::string_view piece, bool allow_special, std::vector<int32_t>* out) const;

  int32_t vocab_size() const { return static_cast<int32_t>(vocabulary_.tokens.size()); }
  bool is_token(int32_t id) const { return kind(id) != BpeVocabulary::Kind::kAbsent; }
  bool is_special(int32_t id) const { return kind(id) == BpeVocabulary::Kind::kSpecial; }
  // Of any id; empty for those that are no token.
  std::string_view token_text(int32_t id) const;
  std::string_view token_bytes(int32_t id) const;
  std::optional<int32_t> token_id(std::string_view token_text) const;
  // The token of one byte, if there is one.
  std::optional<int32_t> byte_token(uint8_t byte) const;

 private:
  struct Merge {
    uint64_t pair = kNoPair;  // left << 32 | right
    int32_t rank = 0;
    int32_t merged = 0;
  };
  static constexpr uint64_t kNoPair = ~uint64_t{0};
  static constexpr int32_t kNoRank = INT32_MAX;

  BpeModel() = default;
  BpeVocabulary::Kind kind(int32_t id) const {
    if (id < 0 || id >= vocab_size()) return BpeVocabulary::Kind::kAbsent;
    return vocabulary_.kinds[static_cast<size_t>(id)];
  }
  Status index_tokens();
  Status index_merges();
  void index_pieces();
  const Merge* find_merge(int32_t left, int32_t right) const;
  // Each writes the symbols that are left to the front of `symbols` and returns how many they are.
  size_t initial_symbols(std::string_view piece, int32_t* symbols) const;
  size_t merge_short(int32_t* symbols, size_t num_symbols) const;
  size_t merge_long(int32_t* symbols, size_t num_symbols) const;
  void merge_piece(std::string_view piece, bool allow_special, std::vector<int32_t>* out) const;
  void append_unmerged(int32_t id, std::vector<int32_t>* out) const;

  BpeVocabulary vocabulary_;           // merges moved out
  std::string bytes_;                  // of all tokens, one after the other
  std::vector<uint32_t> bytes_begin_;  // by id, and one past the last
  int32_t byte_tokens_[256];           // -1: none
  int32_t unknown_id_ = -1;
  std::vector<Merge> merges_;  // open addressing, a power of two, at most half full
  uint64_t merge_mask_ = 0;
  StringIndex ids_by_text_;
  StringIndex ids_by_piece_;                                                // only tokens to which their own bytes lead
  std::unordered_map<int32_t, std::pair<int32_t, int32_t>> special_parts_;  // special tokens that merges make
};

}  // namespace sextant
