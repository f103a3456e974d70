// Byte-pair encoding: of all neighbouring pairs that a merge names, the best merge first, of equal ones the leftmost.
// Short pieces scan for it; long ones keep a heap, so that a megabyte without a cut costs n log n.
#include "engine/text/bpe_model.h"

#include <algorithm>
#include <functional>

#include "engine/base/check.h"
#include "engine/text/byte_alphabet.h"

namespace sextant {
namespace {

using Kind = BpeVocabulary::Kind;

constexpr size_t kMaxTokens = size_t{1} << 24;
constexpr size_t kMaxTokenBytes = size_t{1} << 30;  // of all tokens together
constexpr size_t kShortPiece = 64;                  // symbols; where scanning and the heap cost about the same
constexpr size_t kMaxPieceBytes = size_t{1} << 30;  // symbols are counted in 32 bits

std::string quoted(std::string_view text) {
  constexpr size_t kShown = 60;
  return "'" + std::string(text.substr(0, kShown)) + (text.size() > kShown ? "...'" : "'");
}

}  // namespace

Result<BpeModel> BpeModel::create(BpeVocabulary vocabulary) {
  CHECK_EQ(vocabulary.tokens.size(), vocabulary.kinds.size());
  if (vocabulary.tokens.empty()) return data_loss("the vocabulary is empty");
  if (vocabulary.tokens.size() > kMaxTokens) {
    return data_loss("a vocabulary of " + std::to_string(vocabulary.tokens.size()) + " ids; at most " +
                     std::to_string(kMaxTokens) + " are supported");
  }
  if (vocabulary.merges.size() > kMaxTokens) {
    return data_loss(std::to_string(vocabulary.merges.size()) + " merges; at most " + std::to_string(kMaxTokens) +
                     " are supported");
  }
  BpeModel model;
  model.vocabulary_ = std::move(vocabulary);
  RETURN_IF_ERROR(model.index_tokens());
  RETURN_IF_ERROR(model.index_merges());
  model.index_pieces();
  return model;
}

Status BpeModel::index_tokens() {
  BpeVocabulary& v = vocabulary_;
  ids_by_text_ = StringIndex(v.tokens.size());
  bytes_begin_.reserve(v.tokens.size() + 1);
  for (int32_t id = 0; id < vocab_size(); ++id) {
    const std::string& text = v.tokens[static_cast<size_t>(id)];
    Kind& kind = v.kinds[static_cast<size_t>(id)];
    if (text.empty()) kind = Kind::kAbsent;
    bytes_begin_.push_back(static_cast<uint32_t>(bytes_.size()));
    if (kind == Kind::kAbsent) continue;
    if (const std::optional<int32_t> other = token_id(text)) {
      return data_loss("token " + quoted(text) + " has two ids, " + std::to_string(*other) + " and " +
                       std::to_string(id));
    }
    ids_by_text_.insert(text, id);
    std::optional<std::string> bytes;
    if (kind == Kind::kNormal) bytes = byte_alphabet_decode(text);
    bytes_ += bytes ? *bytes : text;
    if (bytes_.size() > kMaxTokenBytes) return data_loss("the vocabulary is larger than 1 GiB");
  }
  bytes_begin_.push_back(static_cast<uint32_t>(bytes_.size()));
  for (int byte = 0; byte < 256; ++byte) {
    byte_tokens_[byte] = token_id(byte_alphabet_char(static_cast<uint8_t>(byte))).value_or(-1);
  }
  if (v.unknown_token) {
    const std::optional<int32_t> id = token_id(*v.unknown_token);
    if (!id) return data_loss("the unknown token " + quoted(*v.unknown_token) + " is not in the vocabulary");
    unknown_id_ = *id;
  }
  return ok_status();
}

Status BpeModel::index_merges() {
  const auto& merges = vocabulary_.merges;
  uint64_t size = 4;
  while (size < 2 * merges.size()) size *= 2;
  merges_.assign(size, Merge{});
  merge_mask_ = size - 1;
  std::string merged_text;
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    merged_text = merges[rank].first + merges[rank].second;
    const auto where = [&] { return "merge " + std::to_string(rank) + ": "; };
    int32_t ids[3];
    const std::string* texts[3] = {&merges[rank].first, &merges[rank].second, &merged_text};
    for (int i = 0; i < 3; ++i) {
      const std::optional<int32_t> id = token_id(*texts[i]);
      if (!id) return data_loss(where() + "token " + quoted(*texts[i]) + " is not in the vocabulary");
      ids[i] = *id;
    }
    if (is_special(ids[2])) special_parts_.try_emplace(ids[2], ids[0], ids[1]);
    const uint64_t pair = static_cast<uint64_t>(ids[0]) << 32 | static_cast<uint32_t>(ids[1]);
    uint64_t slot = (pair * 0x9E3779B97F4A7C15u >> 20) & merge_mask_;
    while (merges_[slot].pair != kNoPair && merges_[slot].pair != pair) slot = (slot + 1) & merge_mask_;
    merges_[slot] = {pair, static_cast<int32_t>(rank), ids[2]};  // of a repeated merge the last counts
  }
  vocabulary_.merges = {};
  return ok_status();
}

void BpeModel::index_pieces() {
  StringIndex index(vocabulary_.tokens.size());
  std::vector<int32_t> ids;
  for (int32_t id = 0; id < vocab_size(); ++id) {
    if (kind(id) != Kind::kNormal) continue;
    const std::optional<std::string> bytes = byte_alphabet_decode(token_text(id));
    if (!bytes) continue;
    if (!vocabulary_.ignore_merges) {
      ids.clear();
      merge_piece(*bytes, true, &ids);
      if (ids.size() != 1 || ids[0] != id) continue;
    }
    index.insert(*bytes, id);
  }
  ids_by_piece_ = std::move(index);
}

std::string_view BpeModel::token_text(int32_t id) const {
  if (!is_token(id)) return {};
  return vocabulary_.tokens[static_cast<size_t>(id)];
}

std::string_view BpeModel::token_bytes(int32_t id) const {
  if (!is_token(id)) return {};
  const uint32_t begin = bytes_begin_[static_cast<size_t>(id)];
  return std::string_view(bytes_).substr(begin, bytes_begin_[static_cast<size_t>(id) + 1] - begin);
}

std::optional<int32_t> BpeModel::token_id(std::string_view text) const {
  const int32_t id = ids_by_text_.find(
      text, [&](int32_t i) -> std::string_view { return vocabulary_.tokens[static_cast<size_t>(i)]; });
  if (id < 0) return std::nullopt;
  return id;
}

std::optional<int32_t> BpeModel::byte_token(uint8_t byte) const {
  if (byte_tokens_[byte] < 0) return std::nullopt;
  return byte_tokens_[byte];
}

const BpeModel::Merge* BpeModel::find_merge(int32_t left, int32_t right) const {
  const uint64_t pair = static_cast<uint64_t>(left) << 32 | static_cast<uint32_t>(right);
  for (uint64_t slot = (pair * 0x9E3779B97F4A7C15u >> 20) & merge_mask_;; slot = (slot + 1) & merge_mask_) {
    const Merge& merge = merges_[slot];
    if (merge.pair == pair) return &merge;
    if (merge.pair == kNoPair) return nullptr;
  }
}

void BpeModel::encode(std::string_view piece, bool allow_special, std::vector<int32_t>* out) const {
  const int32_t id = ids_by_piece_.find(piece, [&](int32_t i) { return token_bytes(i); });
  if (id >= 0) {
    out->push_back(id);
    return;
  }
  for (; piece.size() > kMaxPieceBytes; piece.remove_prefix(kMaxPieceBytes)) {
    merge_piece(piece.substr(0, kMaxPieceBytes), allow_special, out);
  }
  merge_piece(piece, allow_special, out);
}

void BpeModel::merge_piece(std::string_view piece, bool allow_special, std::vector<int32_t>* out) const {
  const size_t begin = out->size();
  if (piece.size() <= kShortPiece) {
    int32_t symbols[kShortPiece];
    const size_t num_symbols = merge_short(symbols, initial_symbols(piece, symbols));
    out->insert(out->end(), symbols, symbols + num_symbols);
  } else {
    out->resize(begin + piece.size());
    int32_t* symbols = out->data() + begin;
    out->resize(begin + merge_long(symbols, initial_symbols(piece, symbols)));
  }
  if (allow_special || special_parts_.empty()) return;
  if (std::none_of(out->begin() + static_cast<ptrdiff_t>(begin), out->end(),
                   [&](int32_t i) { return is_special(i); })) {
    return;
  }
  const std::vector<int32_t> merged(out->begin() + static_cast<ptrdiff_t>(begin), out->end());
  out->resize(begin);
  for (const int32_t id : merged) append_unmerged(id, out);
}

size_t BpeModel::initial_symbols(std::string_view piece, int32_t* symbols) const {
  size_t num_symbols = 0;
  bool previous_unknown = false;
  for (const char c : piece) {
    const int32_t id = byte_tokens_[static_cast<uint8_t>(c)];
    if (id >= 0) {
      symbols[num_symbols++] = id;
    } else if (unknown_id_ >= 0 && !(vocabulary_.fuse_unknown && previous_unknown)) {
      symbols[num_symbols++] = unknown_id_;
    }
    previous_unknown = id < 0;
  }
  return num_symbols;
}

size_t BpeModel::merge_short(int32_t* symbols, size_t num_symbols) const {
  int32_t ranks[kShortPiece];   // of the pair that begins here
  int32_t merged[kShortPiece];  // what it becomes
  const auto look_up = [&](size_t i) {
    const Merge* merge = i + 1 < num_symbols ? find_merge(symbols[i], symbols[i + 1]) : nullptr;
    ranks[i] = merge != nullptr ? merge->rank : kNoRank;
    merged[i] = merge != nullptr ? merge->merged : -1;
  };
  for (size_t i = 0; i < num_symbols; ++i) look_up(i);
  while (num_symbols > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < num_symbols; ++i) {
      if (ranks[i] < ranks[best]) best = i;
    }
    if (ranks[best] == kNoRank) break;
    symbols[best] = merged[best];
    --num_symbols;
    for (size_t i = best + 1; i < num_symbols; ++i) {
      symbols[i] = symbols[i + 1];
      ranks[i] = ranks[i + 1];
      merged[i] = merged[i + 1];
    }
    look_up(best);
    if (best > 0) look_up(best - 1);
  }
  return num_symbols;
}

size_t BpeModel::merge_long(int32_t* symbols, size_t num_symbols) const {
  struct Link {
    int32_t previous;
    int32_t next;  // -1: last, or merged away
    int32_t rank;  // of the pair that begins here
  };
  if (num_symbols < 2) return num_symbols;
  const auto n = static_cast<int32_t>(num_symbols);
  std::vector<Link> links(num_symbols);
  std::vector<uint64_t> heap;  // rank << 32 | place; entries whose pair has changed since are skipped
  heap.reserve(num_symbols);
  const auto lowest_first = std::greater<uint64_t>();
  const auto look_up = [&](int32_t i) {
    Link& link = links[i];
    const Merge* merge = link.next >= 0 ? find_merge(symbols[i], symbols[link.next]) : nullptr;
    link.rank = merge != nullptr ? merge->rank : kNoRank;
    return merge != nullptr;
  };
  const auto entry = [&](int32_t i) { return static_cast<uint64_t>(links[i].rank) << 32 | static_cast<uint32_t>(i); };
  for (int32_t i = 0; i < n; ++i) {
    links[i].previous = i - 1;
    links[i].next = i + 1 < n ? i + 1 : -1;
    if (look_up(i)) heap.push_back(entry(i));
  }
  std::make_heap(heap.begin(), heap.end(), lowest_first);
  const auto push = [&](int32_t i) {
    if (!look_up(i)) return;
    heap.push_back(entry(i));
    std::push_heap(heap.begin(), heap.end(), lowest_first);
  };
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), lowest_first);
    const uint64_t top = heap.back();
    heap.pop_back();
    const auto i = static_cast<int32_t>(top & 0xFFFFFFFFu);
    Link& link = links[i];
    if (link.rank != static_cast<int32_t>(top >> 32)) continue;
    const int32_t right = link.next;
    symbols[i] = find_merge(symbols[i], symbols[right])->merged;
    link.next = links[right].next;
    links[right].rank = kNoRank;
    if (link.next >= 0) links[link.next].previous = i;
    push(i);
    if (link.previous >= 0) push(link.previous);
  }
  size_t num_left = 0;
  for (int32_t i = 0; i >= 0; i = links[i].next) symbols[num_left++] = symbols[i];
  return num_left;
}

void BpeModel::append_unmerged(int32_t id, std::vector<int32_t>* out) const {
  std::vector<int32_t> todo{id};
  while (!todo.empty()) {
    const int32_t top = todo.back();
    todo.pop_back();
    const auto parts = special_parts_.find(top);
    if (parts == special_parts_.end()) {
      out->push_back(top);
    } else {
      todo.push_back(parts->second.second);
      todo.push_back(parts->second.first);
    }
  }
}

}  // namespace sextant
