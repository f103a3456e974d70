// The protobuf wire format by hand, as in sentencepiece_model.cpp; field numbers are sentencepiece_model.proto's. GGUF's kinds of tokens have
// the numbers of the proto's.
#include "engine/text/gguf_sentencepiece.h"

#include <algorithm>
#include <bit>
#include <cstdint>
#include <string_view>
#include <vector>

namespace sextant {
namespace {

constexpr int64_t kNormal = 1, kUnknown = 2, kUserDefined = 4, kByte = 6;

class MessageWriter {
 public:
  void number(uint32_t id, uint64_t value) {
    varint(uint64_t{id} << 3);
    varint(value);
  }
  void bytes(uint32_t id, std::string_view value) {
    varint(uint64_t{id} << 3 | 2);
    varint(value.size());
    message_ += value;
  }
  void number(uint32_t id, float value) {
    varint(uint64_t{id} << 3 | 5);
    const auto bits = std::bit_cast<uint32_t>(value);
    for (int shift = 0; shift < 32; shift += 8) message_ += static_cast<char>(bits >> shift);
  }
  const std::string& message() const { return message_; }

 private:
  void varint(uint64_t value) {
    for (; value >= 0x80; value >>= 7) message_ += static_cast<char>(value | 0x80);
    message_ += static_cast<char>(value);
  }
  std::string message_;
};

// As many as there are tokens.
template <typename Numbers>
Status check_count(const GgufFile& file, const char* key, const Numbers& numbers, size_t num_tokens) {
  if (numbers.size() == num_tokens) return ok_status();
  return data_loss(file.path() + ": " + key + ": has " + std::to_string(numbers.size()) + " entries for " +
                   std::to_string(num_tokens) + " tokens");
}

// Converters write added tokens as text; pieces are matched where spaces are U+2581 (Gemma's are runs of spaces).
std::string with_visible_spaces(std::string_view text) {
  std::string out;
  for (const char c : text) out += c == ' ' ? std::string("\xe2\x96\x81") : std::string(1, c);
  return out;
}

}  // namespace

Result<std::string> sentencepiece_model_from_gguf(const GgufFile& file, const std::string& model) {
  ASSIGN_OR_RETURN(const std::vector<std::string> tokens, file.get_strings("tokenizer.ggml.tokens"));
  ASSIGN_OR_RETURN(const std::vector<double> scores, file.get_floats("tokenizer.ggml.scores"));
  ASSIGN_OR_RETURN(std::vector<int64_t> kinds, file.get_ints("tokenizer.ggml.token_type"));
  RETURN_IF_ERROR(check_count(file, "tokenizer.ggml.scores", scores, tokens.size()));
  RETURN_IF_ERROR(check_count(file, "tokenizer.ggml.token_type", kinds, tokens.size()));
  ASSIGN_OR_RETURN(const bool adds_space, file.get_bool_or("tokenizer.ggml.add_space_prefix", true));
  ASSIGN_OR_RETURN(const bool removes_spaces, file.get_bool_or("tokenizer.ggml.remove_extra_whitespaces", false));

  MessageWriter proto, trainer, normalizer;
  bool has_bytes = false;
  // Some converters call it a control token, as Gemma's <unk>, and say which it is.
  auto unknown = static_cast<size_t>(std::find(kinds.begin(), kinds.end(), kUnknown) - kinds.begin());
  if (unknown == tokens.size()) {
    constexpr const char* kUnknownId = "tokenizer.ggml.unknown_token_id";
    if (!file.has(kUnknownId)) {
      return data_loss(file.path() +
                       ": tokenizer.ggml.token_type: no token is the unknown one (kind 2), and there is no " +
                       kUnknownId);
    }
    ASSIGN_OR_RETURN(const int64_t id, file.get_int(kUnknownId, 0, static_cast<int64_t>(tokens.size()) - 1));
    unknown = static_cast<size_t>(id);
    kinds[unknown] = kUnknown;
  }
  for (size_t id = 0; id < tokens.size(); ++id) {
    if (kinds[id] < kNormal || kinds[id] > kByte) {
      return data_loss(file.path() + ": tokenizer.ggml.token_type: token " + std::to_string(id) + " is of kind " +
                       std::to_string(kinds[id]) + ", expected 1 to 6");
    }
    has_bytes = has_bytes || kinds[id] == kByte;
    MessageWriter piece;
    piece.bytes(1, kinds[id] == kUserDefined ? with_visible_spaces(tokens[id]) : tokens[id]);
    piece.number(2, static_cast<float>(scores[id]));
    piece.number(3, static_cast<uint64_t>(kinds[id]));
    proto.bytes(1, piece.message());
  }
  trainer.number(3, uint64_t{model == "t5" ? 1u : 2u});  // model_type: UNIGRAM, BPE
  trainer.number(35, uint64_t{has_bytes});               // byte_fallback
  trainer.bytes(45, tokens[unknown]);                    // unk_piece
  proto.bytes(2, trainer.message());
  normalizer.bytes(1, "identity");
  normalizer.number(3, uint64_t{adds_space});
  normalizer.number(4, uint64_t{removes_spaces});
  normalizer.number(5, uint64_t{1});  // escape_whitespaces
  if (file.has("tokenizer.ggml.precompiled_charsmap")) {
    ASSIGN_OR_RETURN(const std::vector<int64_t> map, file.get_ints("tokenizer.ggml.precompiled_charsmap"));
    std::string bytes;
    for (const int64_t byte : map) bytes += static_cast<char>(byte);
    normalizer.bytes(2, bytes);
  }
  proto.bytes(3, normalizer.message());
  return proto.message();
}

}  // namespace sextant
