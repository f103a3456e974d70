#include "engine/core/prefix_cache.h"

#include <openssl/evp.h>
#include <algorithm>
#include <bit>
#include <cstring>

#include "engine/base/check.h"

namespace sextant {
namespace {

// Multiply-and-fold over 64-bit words with two independent multipliers: spread, not secrecy, is what is asked
// of it.
class Mixer {
 public:
  explicit Mixer(BlockHash seed) : high_(seed.high ^ 0x9E3779B97F4A7C15u), low_(seed.low ^ 0xD1B54A32D192ED03u) {}
  void add(uint64_t word) {
    high_ = fold(high_ ^ word, 0xBF58476D1CE4E5B9u);
    low_ = fold(low_ + word, 0x94D049BB133111EBu);
  }
  BlockHash result() const { return {fold(high_, 0xFF51AFD7ED558CCDu), fold(low_ ^ high_, 0xC4CEB9FE1A85EC53u)}; }

 private:
  static uint64_t fold(uint64_t value, uint64_t multiplier) {
    value *= multiplier;
    return value ^ (value >> 32);
  }
  uint64_t high_;
  uint64_t low_;
};

}  // namespace

PrefixRoot make_prefix_root(std::span<const std::string> parts) {
  std::string bytes;
  for (const std::string& part : parts) bytes += std::to_string(part.size()) + ":" + part;
  PrefixRoot root;
  CHECK_EQ(EVP_Digest(bytes.data(), bytes.size(), root.data(), nullptr, EVP_sha256(), nullptr), 1);
  return root;
}

BlockHash hash_root(const PrefixRoot& root) {
  BlockHash hash;
  std::memcpy(&hash, root.data(), sizeof(hash));
  return hash;
}

BlockHash hash_block(BlockHash parent, std::span<const int32_t> token_ids) {
  Mixer mixer(parent);
  size_t i = 0;
  for (; i + 1 < token_ids.size(); i += 2) {
    mixer.add(static_cast<uint32_t>(token_ids[i]) | static_cast<uint64_t>(static_cast<uint32_t>(token_ids[i + 1]))
                                                        << 32);
  }
  if (i < token_ids.size()) mixer.add(static_cast<uint32_t>(token_ids[i]));
  return mixer.result();
}

PrefixCache::PrefixCache(int32_t num_blocks, int32_t block_size) : block_size_(block_size) {
  CHECK_GT(num_blocks, 0);
  CHECK_GT(block_size, 0);
  entries_.resize(static_cast<size_t>(num_blocks));
  token_ids_.resize(static_cast<size_t>(num_blocks) * static_cast<size_t>(block_size));
  roots_.resize(static_cast<size_t>(num_blocks));
  buckets_.resize(std::bit_ceil(static_cast<size_t>(num_blocks)));
}

BlockId PrefixCache::find(const Key& key) const {
  for (BlockId block_id = bucket(key.hash); block_id != 0; block_id = entry(block_id).next) {
    if (entry(block_id).hash == key.hash && same_contents(block_id, key)) return block_id;
  }
  return 0;
}

PrefixCache::EntryId PrefixCache::publish(BlockId block_id, const Key& key) {
  CHECK_NE(block_id, 0);
  CHECK_EQ(static_cast<int32_t>(key.token_ids.size()), block_size_);
  CHECK(!contains(block_id)) << "block " << block_id << " is published twice";
  // An entry with this hash and other contents is a collision or one whose predecessor was evicted: nobody
  // will find the latter again, and of the former the newer serves better.
  for (BlockId other = bucket(key.hash); other != 0; other = entry(other).next) {
    if (entry(other).hash != key.hash) continue;
    if (same_contents(other, key)) return entry_id(other);
    remove(other);
    break;
  }
  Entry& published = entry(block_id);
  published.hash = key.hash;
  published.entry_id = ++last_entry_id_;
  published.parent = key.parent;
  published.next = bucket(key.hash);
  bucket(key.hash) = block_id;
  std::copy(key.token_ids.begin(), key.token_ids.end(), token_ids_.begin() + int64_t{block_id} * block_size_);
  if (key.parent == 0) roots_[static_cast<size_t>(block_id)] = key.root;
  ++num_entries_;
  return published.entry_id;
}

void PrefixCache::remove(BlockId block_id) {
  if (!contains(block_id)) return;
  BlockId* link = &bucket(entry(block_id).hash);
  while (*link != block_id) link = &entry(*link).next;
  *link = entry(block_id).next;
  entry(block_id) = Entry{};
  --num_entries_;
}

void PrefixCache::clear() {
  for (BlockId block_id = 1; block_id < static_cast<BlockId>(entries_.size()); ++block_id) remove(block_id);
}

Status PrefixCache::check_integrity() const {
  int32_t num_linked = 0;
  for (size_t i = 0; i < buckets_.size(); ++i) {
    for (BlockId block_id = buckets_[i]; block_id != 0; block_id = entry(block_id).next) {
      if (!contains(block_id) || (entry(block_id).hash.low & (buckets_.size() - 1)) != i) {
        return internal_error("block " + std::to_string(block_id) + " is in the wrong bucket of the prefix cache");
      }
      if (++num_linked > num_entries_) return internal_error("a bucket of the prefix cache is a circle");
    }
  }
  int32_t num_entries = 0;
  for (BlockId block_id = 0; block_id < static_cast<BlockId>(entries_.size()); ++block_id) {
    if (contains(block_id)) ++num_entries;
  }
  if (num_linked != num_entries_ || num_entries != num_entries_) {
    return internal_error("the prefix cache counts " + std::to_string(num_entries_) + " entries, has " +
                          std::to_string(num_entries) + " and links " + std::to_string(num_linked));
  }
  return ok_status();
}

std::span<const int32_t> PrefixCache::tokens(BlockId block_id) const {
  return std::span(token_ids_)
      .subspan(static_cast<size_t>(block_id) * static_cast<size_t>(block_size_), static_cast<size_t>(block_size_));
}

bool PrefixCache::same_contents(BlockId block_id, const Key& key) const {
  return entry(block_id).parent == key.parent && std::ranges::equal(tokens(block_id), key.token_ids) &&
         (key.parent != 0 || roots_[static_cast<size_t>(block_id)] == key.root);
}

}  // namespace sextant
