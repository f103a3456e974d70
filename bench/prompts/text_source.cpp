#include "bench/prompts/text_source.h"

#include <algorithm>
#include <cstdlib>

namespace sextant::bench {
namespace {

constexpr size_t kMostWords = 4096;
constexpr size_t kFewestWords = 32;

// Common words that most vocabularies hold as one token each with the space before them.
constexpr const char* kPlainWords[] = {
    " time",  " year",    " people", " way",     " day",      " man",      " thing",  " woman", " life",  " child",
    " world", " school",  " state",  " family",  " group",    " country",  " hand",   " part",  " place", " case",
    " week",  " company", " system", " program", " question", " work",     " number", " night", " point", " home",
    " water", " room",    " mother", " area",    " money",    " story",    " fact",   " month", " lot",   " right",
    " study", " book",    " eye",    " job",     " word",     " business", " issue",  " side",  " kind",  " head",
    " house", " service", " friend", " father",  " power",    " hour",     " game",   " line",  " end",   " member",
    " law",   " car",     " city",   " name"};

bool is_plain_word(const std::string& bytes) {
  return bytes.size() >= 3 && bytes[0] == ' ' &&
         std::all_of(bytes.begin() + 1, bytes.end(), [](char c) { return c >= 'a' && c <= 'z'; });
}

}  // namespace

Result<TextSource> TextSource::create(const Tokenizer* tokenizer) {
  TextSource source;
  source.tokenizer_ = tokenizer;
  if (tokenizer == nullptr) {
    source.words_.assign(std::begin(kPlainWords), std::end(kPlainWords));
    return source;
  }
  // Words that stay one token between other words: tried between two copies of a word that is known to.
  const std::vector<int32_t> anchor = tokenizer->encode(" the the the", {false, false});
  const bool has_anchor = anchor.size() == 3 && anchor[1] == anchor[2];
  for (int32_t id = 0; id < tokenizer->vocab_size() && source.words_.size() < kMostWords; ++id) {
    if (tokenizer->is_special(id)) continue;
    std::string bytes = tokenizer->token_bytes(id);
    if (!is_plain_word(bytes)) continue;
    const std::vector<int32_t> ids = tokenizer->encode(" the" + bytes + " the", {false, false});
    if (!has_anchor || ids.size() != 3 || ids[1] != id || ids[2] != anchor[2]) continue;
    source.words_.push_back(std::move(bytes));
    source.ids_.push_back(id);
  }
  if (source.words_.size() < kFewestWords) {
    return unsupported(
        "the tokenizer holds too few plain words to make prompts of an exact length from: give "
        "--dataset-name sharegpt or custom");
  }
  return source;
}

std::string TextSource::words(int64_t num_words, Random& random) const {
  std::string text;
  text.reserve(static_cast<size_t>(num_words) * 7);
  for (int64_t i = 0; i < num_words; ++i) text += words_[random.below(words_.size())];
  return text;
}

std::vector<int32_t> TextSource::token_ids(int64_t num_tokens, Random& random) const {
  std::vector<int32_t> ids(static_cast<size_t>(num_tokens));
  for (int32_t& id : ids) id = ids_[random.below(ids_.size())];
  return ids;
}

std::string TextSource::exact_text(int64_t num_tokens, Random& random,
                                   const std::function<int64_t(std::string_view)>& count) const {
  std::vector<std::string_view> drawn;
  std::string text;
  int64_t num_words = std::max<int64_t>(1, num_tokens);
  std::string best;
  int64_t best_count = -1;
  for (int attempt = 0; attempt < 6; ++attempt) {
    while (static_cast<int64_t>(drawn.size()) < num_words) drawn.push_back(words_[random.below(words_.size())]);
    text.clear();
    for (int64_t i = 0; i < num_words; ++i) text += drawn[static_cast<size_t>(i)];
    if (tokenizer_ == nullptr) return text;
    const int64_t counted = count(text);
    if (counted == num_tokens) return text;
    if (best_count < 0 || (counted < num_tokens && (counted > best_count || best_count > num_tokens)) ||
        (best_count > num_tokens && counted < best_count)) {
      best_count = counted;
      best = text;
    }
    const int64_t corrected = std::max<int64_t>(1, num_words + num_tokens - counted);
    if (corrected == num_words) break;
    num_words = corrected;
  }
  return best;
}

}  // namespace sextant::bench
