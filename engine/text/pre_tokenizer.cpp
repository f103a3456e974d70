// The steps of a PreTokenizer. The byte alphabet is applied only where steps follow it: as a rule it is the last.
#include "engine/text/pre_tokenizer.h"

#include <cstdint>
#include <utility>

#include "engine/base/check.h"
#include "engine/text/byte_alphabet.h"
#include "engine/text/utf8.h"

namespace sextant {
namespace {

using Kind = PreTokenizerStep::Kind;
using Behavior = PreTokenizerStep::Behavior;

// Takes the matches of a text and what lies between them, in order, and joins them by `behavior`.
class RunJoiner {
 public:
  RunJoiner(Behavior behavior, std::vector<std::string_view>* out) : behavior_(behavior), out_(out) {}

  void add(std::string_view run, bool is_match) {
    if (run.empty()) {  // an empty match joins nothing, and keeps its neighbours apart
      can_extend_ = false;
      return;
    }
    if (behavior_ == Behavior::kRemoved) {
      if (!is_match) out_->push_back(run);
      return;
    }
    if (can_extend_ && joins_previous(is_match)) {
      out_->back() = {out_->back().data(), out_->back().size() + run.size()};
    } else {
      out_->push_back(run);
    }
    can_extend_ = true;
    previous_is_match_ = is_match;
  }

 private:
  bool joins_previous(bool is_match) const {
    switch (behavior_) {
      case Behavior::kContiguous: return is_match == previous_is_match_;
      case Behavior::kMergedWithPrevious: return is_match && !previous_is_match_;
      case Behavior::kMergedWithNext: return !is_match && previous_is_match_;
      default: return false;
    }
  }

  Behavior behavior_;
  std::vector<std::string_view>* out_;
  bool can_extend_ = false;
  bool previous_is_match_ = false;
};

// Room for `num_bytes`, so that views taken while it fills stay good.
void make_room(size_t num_bytes, std::vector<char>* buffer) {
  buffer->clear();
  buffer->reserve(num_bytes);
}

void append(std::string_view text, std::vector<char>* buffer) {
  buffer->insert(buffer->end(), text.begin(), text.end());
}

}  // namespace

Result<PreTokenizer> PreTokenizer::create(std::vector<PreTokenizerStep> steps) {
  PreTokenizer result;
  int num_byte_alphabets = 0;
  for (size_t i = 0; i < steps.size(); ++i) {
    if (steps[i].kind == Kind::kByteAlphabet) ++num_byte_alphabets;
    if (steps[i].kind != Kind::kSplit) continue;
    Result<Regex> regex = Regex::compile(steps[i].pattern, steps[i].syntax);
    if (!regex.ok()) {
      return Status(regex.status().code(), "step " + std::to_string(i) + ": " + regex.status().message());
    }
    result.regexes_.push_back(std::move(regex).value());
  }
  CHECK_EQ(num_byte_alphabets, 1);
  result.steps_ = std::move(steps);
  return result;
}

PreTokenizer::Session::Session(const PreTokenizer& pre_tokenizer) : pre_tokenizer_(pre_tokenizer) {
  matchers_.reserve(pre_tokenizer.regexes_.size());
  for (const Regex& regex : pre_tokenizer.regexes_) matchers_.emplace_back(regex);
}

std::span<const std::string_view> PreTokenizer::Session::split(std::string_view text) {
  pieces_.clear();
  if (text.empty()) return pieces_;
  pieces_.push_back(text);
  size_t matcher_idx = 0;
  bool mapped = false;
  const std::vector<PreTokenizerStep>& steps = pre_tokenizer_.steps_;
  for (const PreTokenizerStep& step : steps) {
    switch (step.kind) {
      case Kind::kSplit: split_at_matches(step, &matchers_[matcher_idx++]); break;
      case Kind::kAddPrefixSpace: add_prefix_spaces(); break;
      case Kind::kByteAlphabet:
        if (&step == &steps.back()) break;
        to_byte_alphabet();
        mapped = true;
        break;
    }
  }
  if (mapped) from_byte_alphabet();
  return pieces_;
}

void PreTokenizer::Session::split_at_matches(const PreTokenizerStep& step, Regex::Matcher* matcher) {
  next_pieces_.clear();
  for (const std::string_view piece : pieces_) {
    RunJoiner joiner(step.behavior, &next_pieces_);
    size_t done = 0;             // what has become runs
    size_t from = 0;             // where to look
    size_t last_end = SIZE_MAX;  // of the last match: an empty match right behind it is none
    size_t begin = 0, end = 0;
    while (matcher->find(piece, from, &begin, &end) == Regex::Matcher::Outcome::kMatch) {
      if (begin == end && end == last_end) {
        if (end == piece.size()) break;
        from = end + decode_utf8_char(piece.substr(end)).length;
        continue;
      }
      if (begin > done) joiner.add(piece.substr(done, begin - done), step.invert);
      joiner.add(piece.substr(begin, end - begin), !step.invert);
      done = from = last_end = end;
    }
    if (piece.size() > done) joiner.add(piece.substr(done), step.invert);
  }
  pieces_.swap(next_pieces_);
}

void PreTokenizer::Session::add_prefix_spaces() {
  size_t num_bytes = 0;
  for (const std::string_view piece : pieces_) num_bytes += piece.size() + 1;
  make_room(num_bytes, &prefixed_);
  for (std::string_view& piece : pieces_) {
    const char* begin = prefixed_.data() + prefixed_.size();
    const bool prefix = !piece.starts_with(' ');
    if (prefix) append(" ", &prefixed_);
    append(piece, &prefixed_);
    piece = {begin, piece.size() + prefix};
  }
}

void PreTokenizer::Session::to_byte_alphabet() {
  size_t num_bytes = 0;
  for (const std::string_view piece : pieces_) num_bytes += 2 * piece.size();
  make_room(num_bytes, &mapped_);
  for (std::string_view& piece : pieces_) {
    const size_t begin = mapped_.size();
    for (const char byte : piece) append(byte_alphabet_char(static_cast<uint8_t>(byte)), &mapped_);
    piece = {mapped_.data() + begin, mapped_.size() - begin};
  }
}

void PreTokenizer::Session::from_byte_alphabet() {
  make_room(mapped_.size(), &unmapped_);
  for (std::string_view& piece : pieces_) {
    const std::optional<std::string> bytes = byte_alphabet_decode(piece);
    CHECK(bytes.has_value()) << "a cut inside a character of the byte alphabet";
    const char* begin = unmapped_.data() + unmapped_.size();
    append(*bytes, &unmapped_);
    piece = {begin, bytes->size()};
  }
}

}  // namespace sextant
