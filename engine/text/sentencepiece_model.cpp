// The protobuf wire format by hand: a dozen fields of sentencepiece_model.proto, which Debian does not install compiled.
#include "engine/text/sentencepiece_model.h"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <vector>

namespace sextant {
namespace {

// One field of a message: varints in `number`, everything else in `bytes`.
struct Field {
  uint32_t id = 0;
  uint64_t number = 0;
  std::string_view bytes;
};

class MessageReader {
 public:
  explicit MessageReader(std::string_view bytes) : rest_(bytes) {}

  // Nothing at the end, and after an error (see ok()).
  std::optional<Field> next() {
    if (rest_.empty() || !ok_) return std::nullopt;
    Field field;
    const uint64_t tag = varint();
    field.id = static_cast<uint32_t>(tag >> 3);
    switch (tag & 7) {
      case 0: field.number = varint(); break;
      case 1: field.bytes = take(8); break;
      case 2: field.bytes = take(varint()); break;
      case 5: field.bytes = take(4); break;
      default: ok_ = false;
    }
    if (field.id == 0) ok_ = false;
    if (!ok_) return std::nullopt;
    return field;
  }
  bool ok() const { return ok_; }

 private:
  uint64_t varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      if (rest_.empty()) break;
      const auto byte = static_cast<uint8_t>(rest_.front());
      rest_.remove_prefix(1);
      value |= static_cast<uint64_t>(byte & 0x7F) << shift;
      if (byte < 0x80) return value;
    }
    ok_ = false;
    return 0;
  }
  std::string_view take(uint64_t size) {
    if (!ok_ || size > rest_.size()) {
      ok_ = false;
      return {};
    }
    const std::string_view bytes = rest_.substr(0, size);
    rest_.remove_prefix(size);
    return bytes;
  }

  std::string_view rest_;
  bool ok_ = true;
};

Status damaged(const std::string& what) { return data_loss("not a sentencepiece model: " + what); }

Status check_piece(std::string_view bytes, size_t idx) {
  MessageReader reader(bytes);
  while (const std::optional<Field> field = reader.next()) {
    // The library's trie takes pieces for C strings, and throws for one that begins with a NUL.
    if (field->id == 1 && field->bytes.find('\0') != std::string_view::npos) {
      return damaged("piece " + std::to_string(idx) + " holds a NUL byte");
    }
    if (field->id != 2) continue;
    float score = 0;
    if (field->bytes.size() != sizeof(score)) return damaged("score of piece " + std::to_string(idx));
    std::memcpy(&score, field->bytes.data(), sizeof(score));
    if (!std::isfinite(score)) return damaged("the score of piece " + std::to_string(idx) + " is no number");
  }
  return reader.ok() ? ok_status() : damaged("piece " + std::to_string(idx) + " is cut short");
}

// precompiled_charsmap: a u32 size, a double-array trie (darts-clone) of that size, NUL-terminated replacements. The
// library follows offsets without looking; so every node must keep its 256 children and its value inside.
Status check_charsmap(std::string_view bytes) {
  const auto bad = [] { return damaged("precompiled_charsmap is damaged"); };
  if (bytes.empty()) return ok_status();
  uint32_t trie_bytes = 0;
  if (bytes.size() < sizeof(trie_bytes)) return bad();
  std::memcpy(&trie_bytes, bytes.data(), sizeof(trie_bytes));
  bytes.remove_prefix(sizeof(trie_bytes));
  if (trie_bytes == 0 || trie_bytes % 4 != 0 || trie_bytes >= bytes.size()) return bad();
  std::vector<uint32_t> units(trie_bytes / 4);
  std::memcpy(units.data(), bytes.data(), trie_bytes);
  const std::string_view replacements = bytes.substr(trie_bytes);
  if (replacements.back() != '\0') return bad();
  for (size_t i = 0; i < units.size(); ++i) {
    const uint32_t unit = units[i];
    if (unit >> 31 != 0) continue;  // a value; read only through its parent
    const size_t offset = static_cast<size_t>(unit >> 10) << ((unit & (1u << 9)) >> 6);
    const size_t children = i ^ offset;
    if ((children | 0xFF) >= units.size()) return bad();
    const bool has_value = (unit >> 8 & 1) != 0;
    if (has_value && (units[children] & 0x7FFFFFFFu) >= replacements.size()) return bad();
  }
  return ok_status();
}

Status read_normalizer_spec(std::string_view bytes, SentencePieceModelFacts* facts) {
  MessageReader reader(bytes);
  while (const std::optional<Field> field = reader.next()) {
    if (field->id == 2) RETURN_IF_ERROR(check_charsmap(field->bytes));
    if (field->id == 3) facts->add_dummy_prefix = field->number != 0;
    if (field->id == 4) facts->remove_extra_whitespaces = field->number != 0;
  }
  return reader.ok() ? ok_status() : damaged("normalizer_spec is cut short");
}

}  // namespace

Result<SentencePieceModelFacts> inspect_sentencepiece_model(std::string_view serialized) {
  SentencePieceModelFacts facts;
  MessageReader reader(serialized);
  size_t num_pieces = 0;
  while (const std::optional<Field> field = reader.next()) {
    if (field->id == 1) RETURN_IF_ERROR(check_piece(field->bytes, num_pieces++));
    if (field->id == 3) RETURN_IF_ERROR(read_normalizer_spec(field->bytes, &facts));
    if (field->id == 5) {
      SentencePieceModelFacts denormalizer;
      RETURN_IF_ERROR(read_normalizer_spec(field->bytes, &denormalizer));
      MessageReader spec(field->bytes);
      while (const std::optional<Field> part = spec.next()) {
        if (part->id == 2 && !part->bytes.empty()) facts.has_denormalizer = true;
      }
    }
  }
  if (!reader.ok()) return damaged("the file is cut short");
  if (num_pieces == 0) return damaged("it has no pieces");
  return facts;
}

}  // namespace sextant
