// PrefixCache: finds the block of one cache group that already holds given tokens after a given beginning.
// Full blocks form chains: an entry is named by its tokens and the entry before it, the first by its root:
// the SHA-256 of all that must be equal beside the tokens (model, KV dtype, adapter, salt, tenant). A 128-bit
// hash finds the candidate; its tokens and its predecessor are then compared, so that a collision, even a
// wanted one, can cost a hit but never yield the keys and values of other tokens. One thread (the engine's).
// Does not know references or the free list: KvCacheManager calls remove() before a block is overwritten.
//
// The predecessor is compared by its entry id, which is never reused. When it was evicted, its successors
// cannot be found any more; whoever computes those tokens again publishes its own block in their place.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "engine/base/status.h"
#include "engine/core/request.h"

namespace sextant {

struct BlockHash {
  uint64_t high = 0;
  uint64_t low = 0;
  bool operator==(const BlockHash&) const = default;
};

using PrefixRoot = std::array<uint8_t, 32>;
// No two lists of parts give the same root: {"a", "bc"} and {"ab", "c"} do not.
PrefixRoot make_prefix_root(std::span<const std::string> parts);

BlockHash hash_root(const PrefixRoot& root);
BlockHash hash_block(BlockHash parent, std::span<const int32_t> token_ids);

class PrefixCache {
 public:
  using EntryId = uint64_t;  // 0: none, that is the root
  struct Key {
    BlockHash hash;                      // hash_block over the chain
    EntryId parent = 0;                  // entry of the block before; 0 for a first block
    PrefixRoot root = {};                // compared for first blocks only
    std::span<const int32_t> token_ids;  // block_size of them
  };

  PrefixCache(int32_t num_blocks, int32_t block_size);

  // The block with these contents, or the null block.
  BlockId find(const Key& key) const;
  EntryId entry_id(BlockId block_id) const { return entry(block_id).entry_id; }  // 0 when not in the cache
  bool contains(BlockId block_id) const { return entry_id(block_id) != 0; }
  int32_t size() const { return num_entries_; }

  // These two are the only changes: what listens for stored and removed blocks listens here.
  // Makes `block_id` findable and returns its entry; when another block with these contents is findable
  // already, that one's entry (the block then stays out of the cache).
  EntryId publish(BlockId block_id, const Key& key);
  void remove(BlockId block_id);  // ignores blocks that are not in the cache
  void clear();

  Status check_integrity() const;

 private:
  struct Entry {
    BlockHash hash;
    EntryId entry_id = 0;
    EntryId parent = 0;
    BlockId next = 0;  // in the bucket; ends with the null block
  };

  const Entry& entry(BlockId block_id) const { return entries_[static_cast<size_t>(block_id)]; }
  Entry& entry(BlockId block_id) { return entries_[static_cast<size_t>(block_id)]; }
  const BlockId& bucket(BlockHash hash) const { return buckets_[hash.low & (buckets_.size() - 1)]; }
  BlockId& bucket(BlockHash hash) { return buckets_[hash.low & (buckets_.size() - 1)]; }
  std::span<const int32_t> tokens(BlockId block_id) const;
  bool same_contents(BlockId block_id, const Key& key) const;

  int32_t block_size_;
  std::vector<Entry> entries_;      // by block id
  std::vector<int32_t> token_ids_;  // by block id, block_size each
  std::vector<PrefixRoot> roots_;   // by block id; meant for first blocks only
  std::vector<BlockId> buckets_;    // a power of two
  EntryId last_entry_id_ = 0;
  int32_t num_entries_ = 0;
};

}  // namespace sextant
