#include "engine/core/kv_cache_manager.h"

#include <algorithm>
#include <string>

#include "engine/base/check.h"
#include "engine/base/result.h"

namespace sextant {

KvCacheManager::KvCacheManager(const Options& options)
    : block_size_(options.spec.block_size), enable_prefix_caching_(options.enable_prefix_caching) {
  CHECK_GT(block_size_, 0);
  CHECK(!options.spec.groups.empty()) << "a KV cache needs at least one group of layers";
  for (const KvCacheGroup& group : options.spec.groups) {
    CHECK(group.kind == KvCacheKind::kFull) << "only full attention groups are managed so far";
    groups_.push_back({BlockPool(options.num_blocks), std::nullopt});
    if (enable_prefix_caching_) groups_.back().prefix_cache.emplace(options.num_blocks, block_size_);
  }
  gathered_.resize(static_cast<size_t>(block_size_));
}

SequenceBlocks KvCacheManager::make_sequence_blocks() const {
  SequenceBlocks blocks;
  blocks.tables.resize(groups_.size());
  blocks.parents.resize(groups_.size());
  return blocks;
}

PrefixMatch KvCacheManager::find_prefix(SequenceBlocks& blocks, const PrefixTokens& tokens, int32_t max_blocks) const {
  PrefixMatch match;
  if (!enable_prefix_caching_) return match;
  match.block_ids.resize(groups_.size());
  match.entries.resize(groups_.size());
  for (; match.num_blocks < max_blocks; ++match.num_blocks) {
    PrefixCache::Key key = make_key(blocks, tokens, match.num_blocks);
    bool is_free = false;
    for (size_t g = 0; g < groups_.size(); ++g) {
      key.parent = match.num_blocks == 0 ? 0 : match.entries[g].back();
      const BlockId block_id = groups_[g].prefix_cache->find(key);
      if (block_id == kNullBlock) {
        // Groups are matched together: what the earlier ones found is taken back.
        for (size_t found = 0; found < g; ++found) {
          match.block_ids[found].pop_back();
          match.entries[found].pop_back();
        }
        return match;
      }
      match.block_ids[g].push_back(block_id);
      match.entries[g].push_back(groups_[g].prefix_cache->entry_id(block_id));
      is_free |= groups_[g].pool.num_references(block_id) == 0;
    }
    if (is_free) ++match.num_free;
  }
  return match;
}

void KvCacheManager::take(SequenceBlocks& blocks, const PrefixMatch& match) {
  CHECK_EQ(blocks.num_blocks, 0);
  if (match.num_blocks == 0) return;
  for (size_t g = 0; g < groups_.size(); ++g) {
    for (const BlockId block_id : match.block_ids[g]) {
      groups_[g].pool.acquire(block_id);
      blocks.tables[g].append(block_id);
    }
    blocks.parents[g] = match.entries[g].back();
  }
  blocks.num_blocks = blocks.num_published = match.num_blocks;
}

bool KvCacheManager::allocate(SequenceBlocks& blocks, int64_t num_tokens) {
  const int64_t num_wanted = num_blocks_for(num_tokens) - blocks.num_blocks;
  if (num_wanted <= 0) return true;
  for (const Group& group : groups_) {
    if (num_wanted > group.pool.num_free()) return false;
  }
  for (size_t g = 0; g < groups_.size(); ++g) {
    for (int64_t i = 0; i < num_wanted; ++i) {
      const BlockId block_id = groups_[g].pool.allocate();
      if (enable_prefix_caching_) groups_[g].prefix_cache->remove(block_id);
      blocks.tables[g].append(block_id);
    }
  }
  blocks.num_blocks += static_cast<int32_t>(num_wanted);
  return true;
}

void KvCacheManager::fork(const SequenceBlocks& from, int32_t num_blocks, SequenceBlocks& to) {
  CHECK_EQ(to.num_blocks, 0);
  CHECK_LE(num_blocks, from.num_blocks);
  for (size_t g = 0; g < groups_.size(); ++g) {
    for (int32_t i = 0; i < num_blocks; ++i) {
      groups_[g].pool.acquire(from.tables[g][i]);
      to.tables[g].append(from.tables[g][i]);
    }
  }
  to.num_blocks = num_blocks;
  to.hashes.assign(from.hashes.begin(),
                   from.hashes.begin() + std::min<int64_t>(num_blocks, static_cast<int64_t>(from.hashes.size())));
  // The chain of entries is known to `from` only at its own end. When that is where the fork ends, it is
  // handed on; else `to` starts over and finds the entries again.
  if (from.num_published == num_blocks) {
    to.num_published = num_blocks;
    to.parents = from.parents;
  }
}

void KvCacheManager::publish(SequenceBlocks& blocks, const PrefixTokens& tokens, int32_t num_full_blocks) {
  if (!enable_prefix_caching_) return;
  CHECK_LE(num_full_blocks, blocks.num_blocks);
  for (; blocks.num_published < num_full_blocks; ++blocks.num_published) {
    PrefixCache::Key key = make_key(blocks, tokens, blocks.num_published);
    for (size_t g = 0; g < groups_.size(); ++g) {
      PrefixCache& cache = *groups_[g].prefix_cache;
      const BlockId block_id = blocks.tables[g][blocks.num_published];
      key.parent = blocks.num_published == 0 ? 0 : blocks.parents[g];
      // A forked block may be in the cache already, and under a predecessor that has since been replaced.
      blocks.parents[g] = cache.contains(block_id) ? cache.entry_id(block_id) : cache.publish(block_id, key);
    }
  }
}

SequenceBlocks KvCacheManager::detach(SequenceBlocks& blocks) const {
  SequenceBlocks detached = make_sequence_blocks();
  std::swap(detached.tables, blocks.tables);
  std::swap(detached.parents, blocks.parents);
  std::swap(detached.num_blocks, blocks.num_blocks);
  std::swap(detached.num_published, blocks.num_published);
  return detached;
}

void KvCacheManager::free(SequenceBlocks& blocks) {
  for (size_t g = 0; g < groups_.size(); ++g) {
    for (int32_t i = blocks.num_blocks - 1; i >= 0; --i) {
      const BlockId block_id = blocks.tables[g][i];
      groups_[g].pool.release(block_id, enable_prefix_caching_ && groups_[g].prefix_cache->contains(block_id));
    }
    blocks.tables[g].clear();
    blocks.parents[g] = 0;
  }
  blocks.num_blocks = blocks.num_published = 0;
}

void KvCacheManager::reset_prefix_cache() {
  for (Group& group : groups_) {
    if (group.prefix_cache) group.prefix_cache->clear();
  }
}

Status KvCacheManager::check_integrity(std::span<const SequenceBlocks* const> holders) const {
  for (size_t g = 0; g < groups_.size(); ++g) {
    std::vector<int32_t> num_references(static_cast<size_t>(num_total_blocks()) + 1);
    for (const SequenceBlocks* holder : holders) {
      if (holder->tables[g].size() != holder->num_blocks || holder->num_published > holder->num_blocks) {
        return internal_error("a block table of " + std::to_string(holder->tables[g].size()) + " blocks counts " +
                              std::to_string(holder->num_blocks) + ", " + std::to_string(holder->num_published) +
                              " of them published");
      }
      for (const BlockId block_id : holder->tables[g].block_ids()) {
        if (block_id <= kNullBlock || block_id > num_total_blocks()) {
          return internal_error("a block table names block " + std::to_string(block_id));
        }
        ++num_references[static_cast<size_t>(block_id)];
      }
    }
    RETURN_IF_ERROR(groups_[g].pool.check_integrity(num_references));
    if (groups_[g].pool.num_free() != num_free_blocks()) return internal_error("cache groups differ in free blocks");
    if (groups_[g].prefix_cache) RETURN_IF_ERROR(groups_[g].prefix_cache->check_integrity());
  }
  return ok_status();
}

PrefixCache::Key KvCacheManager::make_key(SequenceBlocks& blocks, const PrefixTokens& tokens, int32_t block_idx) const {
  std::vector<BlockHash>& hashes = blocks.hashes;
  while (hashes.size() <= static_cast<size_t>(block_idx)) {
    const BlockHash parent = hashes.empty() ? hash_root(tokens.root) : hashes.back();
    hashes.push_back(hash_block(parent, block_tokens(tokens, hashes.size())));
  }
  PrefixCache::Key key;
  key.hash = hashes[static_cast<size_t>(block_idx)];
  key.root = tokens.root;
  key.token_ids = block_tokens(tokens, static_cast<size_t>(block_idx));
  return key;
}

std::span<const int32_t> KvCacheManager::block_tokens(const PrefixTokens& tokens, size_t block_idx) const {
  const size_t size = static_cast<size_t>(block_size_);
  const size_t begin = block_idx * size;
  const size_t num_prompt = tokens.prompt.size();
  CHECK_LE(begin + size, num_prompt + tokens.output.size()) << "block " << block_idx << " has unknown tokens";
  if (begin + size <= num_prompt) return tokens.prompt.subspan(begin, size);
  if (begin >= num_prompt) return tokens.output.subspan(begin - num_prompt, size);
  const std::span<const int32_t> head = tokens.prompt.subspan(begin);
  const auto rest = std::copy(head.begin(), head.end(), gathered_.begin());
  std::copy_n(tokens.output.begin(), gathered_.end() - rest, rest);
  return gathered_;
}

}  // namespace sextant
