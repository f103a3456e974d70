// TextSource: text of an exact number of tokens in a model's tokenizer, drawn from words that are one token each. Without a
// tokenizer, of about that many tokens. One thread.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "bench/load/random.h"
#include "engine/base/result.h"
#include "engine/text/tokenizer.h"

namespace sextant::bench {

class TextSource {
 public:
  // `tokenizer` outlives this; nullptr: none. kUnsupported when its vocabulary holds too few plain words.
  static Result<TextSource> create(const Tokenizer* tokenizer);

  bool is_exact() const { return tokenizer_ != nullptr; }

  // " some words": each one token where it stands between others.
  std::string words(int64_t num_words, Random& random) const;
  std::vector<int32_t> token_ids(int64_t num_tokens, Random& random) const;  // needs a tokenizer

  // Text so that `count(text)` is `num_tokens`, if one of a few corrections of the number of words finds one; else the nearest
  // that is not longer, or a single word. `count` is what the server will count: with BOS, or with the chat template around.
  std::string exact_text(int64_t num_tokens, Random& random,
                         const std::function<int64_t(std::string_view)>& count) const;

 private:
  const Tokenizer* tokenizer_ = nullptr;
  std::vector<std::string> words_;
  std::vector<int32_t> ids_;
};

}  // namespace sextant::bench
