// KvCacheManager: the only door to the blocks of the KV cache: looks up prefixes, allocates, forks, publishes
// and frees. One thread (the engine's). Knows tokens and blocks, not requests, policies or devices.
//
// Three things hold because steps run in the order in which they are scheduled, and all of them:
// - A full block may be published as soon as the step that computes its last token is scheduled and its
//   tokens are known. A sequence that finds it is scheduled in a later step, which runs when the contents are
//   there. So publish() is called after a step is complete: nobody finds in a step what that step computes.
// - A published or shared block is never written again while it is held or findable: a sequence writes at its
//   num_computed and beyond; what it took from others, or published, are full blocks below that. A block that
//   was given back is written by steps scheduled later only, and leaves the prefix cache first.
// - The last token of a sequence is always computed, never taken: its logits choose the next one.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "engine/base/status.h"
#include "engine/core/block_pool.h"
#include "engine/core/block_table.h"
#include "engine/core/kv_cache_spec.h"
#include "engine/core/prefix_cache.h"

namespace sextant {

// One sequence's part of the cache: a table per cache group, all of one length.
struct SequenceBlocks {
  std::vector<BlockTable> tables;
  int32_t num_blocks = 0;
  // Of its first full blocks, as far as they were asked for. Tokens are only ever appended, so they outlive
  // the blocks.
  std::vector<BlockHash> hashes;
  // The first num_published blocks are findable, as these blocks or as others with equal contents; parents
  // holds, per group, the entry of the last of them.
  int32_t num_published = 0;
  std::vector<PrefixCache::EntryId> parents;
};

// A sequence's known tokens, and the cache they belong to.
struct PrefixTokens {
  PrefixRoot root = {};
  std::span<const int32_t> prompt;
  std::span<const int32_t> output;
};

struct PrefixMatch {
  int32_t num_blocks = 0;
  int32_t num_free = 0;  // of these, not held by any sequence: taking them leaves that many fewer to allocate
  std::vector<std::vector<BlockId>> block_ids;             // per group
  std::vector<std::vector<PrefixCache::EntryId>> entries;  // likewise
};

class KvCacheManager {
 public:
  struct Options {
    KvCacheSpec spec;        // full groups only
    int32_t num_blocks = 0;  // of each group, with the null block
    bool enable_prefix_caching = true;
  };
  explicit KvCacheManager(const Options& options);

  int32_t block_size() const { return block_size_; }
  int32_t num_groups() const { return static_cast<int32_t>(groups_.size()); }
  int32_t num_total_blocks() const { return groups_.front().pool.num_total(); }
  // Blocks that can be allocated; groups are used alike, so any group tells.
  int32_t num_free_blocks() const { return groups_.front().pool.num_free(); }
  int64_t num_blocks_for(int64_t num_tokens) const { return (num_tokens + block_size_ - 1) / block_size_; }

  // An empty one, with its tables.
  SequenceBlocks make_sequence_blocks() const;
  // The longest cached beginning, at most max_blocks.
  PrefixMatch find_prefix(SequenceBlocks& blocks, const PrefixTokens& tokens, int32_t max_blocks) const;
  // An empty sequence takes what was found; nothing may have changed since.
  void take(SequenceBlocks& blocks, const PrefixMatch& match);
  // Room for num_tokens tokens in all. False, and nothing changed, when too few blocks are free.
  bool allocate(SequenceBlocks& blocks, int64_t num_tokens);
  // An empty sequence shares the first num_blocks of another, which must be full.
  void fork(const SequenceBlocks& from, int32_t num_blocks, SequenceBlocks& to);
  // Makes the first num_full_blocks findable: all scheduled to be computed, all tokens known.
  void publish(SequenceBlocks& blocks, const PrefixTokens& tokens, int32_t num_full_blocks);
  // What the sequence holds, in other hands; the sequence is empty then.
  SequenceBlocks detach(SequenceBlocks& blocks) const;
  // Gives everything back; later blocks are reused before earlier ones, so that a chain is eaten from its
  // end.
  void free(SequenceBlocks& blocks);

  // Forgets cached contents. Blocks stay with their holders.
  void reset_prefix_cache();
  // Recounts the references of `holders`, which must be all there are.
  Status check_integrity(std::span<const SequenceBlocks* const> holders) const;

 private:
  struct Group {
    BlockPool pool;
    std::optional<PrefixCache> prefix_cache;  // none when prefix caching is off
  };
  PrefixCache::Key make_key(SequenceBlocks& blocks, const PrefixTokens& tokens, int32_t block_idx) const;
  // In place, or gathered where prompt and output meet: valid until the next call.
  std::span<const int32_t> block_tokens(const PrefixTokens& tokens, size_t block_idx) const;

  int32_t block_size_;
  bool enable_prefix_caching_;
  std::vector<Group> groups_;
  mutable std::vector<int32_t> gathered_;
};

}  // namespace sextant
