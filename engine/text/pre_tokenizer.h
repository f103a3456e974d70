// PreTokenizer: cuts text into the pieces that byte-level BPE encodes one by one.
// Immutable; a Session holds what one call of one thread needs.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/result.h"
#include "engine/text/regex.h"

namespace sextant {

struct PreTokenizerStep {
  enum class Kind {
    kSplit,           // cut at the matches of a pattern
    kAddPrefixSpace,  // each piece gets a space in front unless it has one
    kByteAlphabet,    // bytes become the characters of byte-level vocabularies; later steps see those
  };
  // What becomes of the matches (Hugging Face's names).
  enum class Behavior { kIsolated, kRemoved, kMergedWithPrevious, kMergedWithNext, kContiguous };

  Kind kind = Kind::kSplit;
  std::string pattern{};
  Regex::Syntax syntax = Regex::Syntax::kOniguruma;
  Behavior behavior = Behavior::kIsolated;
  bool invert = false;  // cut at what lies between the matches
};

// GPT-2's pattern, which ByteLevel applies when its use_regex is on.
inline constexpr std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

class PreTokenizer {
 public:
  // `steps` holds kByteAlphabet exactly once and at most one kAddPrefixSpace, before it. Errors name a step by its place.
  static Result<PreTokenizer> create(std::vector<PreTokenizerStep> steps);

  class Session {
   public:
    explicit Session(const PreTokenizer& pre_tokenizer);
    // The pieces of `text` (valid UTF-8), in bytes, none empty. They last until the next call, and as long as `text`.
    std::span<const std::string_view> split(std::string_view text);

   private:
    void split_at_matches(const PreTokenizerStep& step, Regex::Matcher* matcher);
    void add_prefix_spaces();
    void to_byte_alphabet();
    void from_byte_alphabet();

    const PreTokenizer& pre_tokenizer_;
    std::vector<Regex::Matcher> matchers_;  // one per kSplit step, in order
    std::vector<std::string_view> pieces_, next_pieces_;
    // Own pieces that are no part of the caller's text. Vectors: their bytes stay where they are.
    std::vector<char> prefixed_, mapped_, unmapped_;
  };

 private:
  std::vector<PreTokenizerStep> steps_;
  std::vector<Regex> regexes_;  // one per kSplit step, in order
};

}  // namespace sextant
