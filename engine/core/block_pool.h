// BlockPool: the block ids of one cache group, how many references each has, and the free ones in the order
// in which they are given out again. Knows nothing of tokens or contents. One thread (the engine's). Only
// KvCacheManager uses it.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/base/status.h"
#include "engine/core/request.h"

namespace sextant {

inline constexpr BlockId kNullBlock = 0;

class BlockPool {
 public:
  // Ids 0 .. num_blocks-1; the null block 0 is never given out.
  explicit BlockPool(int32_t num_blocks);

  int32_t num_total() const { return static_cast<int32_t>(blocks_.size()) - 1; }
  int32_t num_free() const { return num_free_; }
  int32_t num_references(BlockId block_id) const { return block(block_id).num_references; }

  // The first of the free list, with one reference; kNullBlock when none is free.
  BlockId allocate();
  // One more reference; a free block leaves the free list.
  void acquire(BlockId block_id);
  // One reference less. The last one returns the block: to the end of the free list when its contents are
  // worth keeping (so that the least recently used are overwritten first), else to the front. True when it
  // became free.
  bool release(BlockId block_id, bool keep_contents);

  // `num_references[id]` as the owner counts them.
  Status check_integrity(std::span<const int32_t> num_references) const;

 private:
  // The free list is doubly linked through the blocks themselves, closed over the null block, which is its
  // head.
  struct Block {
    int32_t num_references = 0;
    BlockId previous = kNullBlock;
    BlockId next = kNullBlock;
  };

  const Block& block(BlockId block_id) const { return blocks_[static_cast<size_t>(block_id)]; }
  Block& block(BlockId block_id) { return blocks_[static_cast<size_t>(block_id)]; }
  void check_id(BlockId block_id) const;
  void link_after(BlockId previous, BlockId block_id);
  void unlink(BlockId block_id);

  std::vector<Block> blocks_;
  int32_t num_free_ = 0;
};

}  // namespace sextant
