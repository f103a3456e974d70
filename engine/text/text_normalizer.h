// TextNormalizer: what a tokenizer does to text before it is cut into pieces (Unicode normalisation forms, replacements).
// Immutable; any thread.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "engine/base/result.h"
#include "engine/text/regex.h"

namespace sextant {

struct NormalizerStep {
  enum class Kind { kNfc, kNfd, kNfkc, kNfkd, kLowercase, kStrip, kPrepend, kReplace };
  Kind kind = Kind::kNfc;
  std::string pattern{};  // kReplace
  Regex::Syntax syntax = Regex::Syntax::kLiteral;
  std::string content{};  // kPrepend, kReplace
  bool strip_left = false, strip_right = false;
};

class TextNormalizer {
 public:
  static Result<TextNormalizer> create(std::vector<NormalizerStep> steps);

  bool empty() const { return steps_.empty(); }
  // `text` and the result are valid UTF-8.
  std::string normalize(std::string_view text) const;

 private:
  std::vector<NormalizerStep> steps_;
  std::vector<Regex> regexes_;  // one per kReplace step, in order
};

}  // namespace sextant
