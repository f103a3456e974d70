#include "engine/core/block_pool.h"

#include <string>

#include "engine/base/check.h"

namespace sextant {

BlockPool::BlockPool(int32_t num_blocks) {
  CHECK_GE(num_blocks, 2) << "a pool needs the null block and one more";
  blocks_.resize(static_cast<size_t>(num_blocks));
  for (BlockId block_id = 1; block_id < num_blocks; ++block_id) link_after(block(kNullBlock).previous, block_id);
  num_free_ = num_blocks - 1;
}

BlockId BlockPool::allocate() {
  const BlockId block_id = block(kNullBlock).next;
  if (block_id == kNullBlock) return kNullBlock;
  unlink(block_id);
  --num_free_;
  block(block_id).num_references = 1;
  return block_id;
}

void BlockPool::acquire(BlockId block_id) {
  check_id(block_id);
  if (block(block_id).num_references++ == 0) {
    unlink(block_id);
    --num_free_;
  }
}

bool BlockPool::release(BlockId block_id, bool keep_contents) {
  check_id(block_id);
  CHECK_GT(block(block_id).num_references, 0) << "block " << block_id << " is freed twice";
  if (--block(block_id).num_references > 0) return false;
  link_after(keep_contents ? block(kNullBlock).previous : kNullBlock, block_id);
  ++num_free_;
  return true;
}

Status BlockPool::check_integrity(std::span<const int32_t> num_references) const {
  if (num_references.size() != blocks_.size()) return internal_error("reference counts of another pool");
  int32_t num_unreferenced = 0;
  for (BlockId block_id = 0; block_id <= num_total(); ++block_id) {
    const int32_t expected = num_references[static_cast<size_t>(block_id)];
    if (block(block_id).num_references != expected) {
      return internal_error("block " + std::to_string(block_id) + " has " +
                            std::to_string(block(block_id).num_references) + " references, its holders count " +
                            std::to_string(expected));
    }
    if (block_id != kNullBlock && expected == 0) ++num_unreferenced;
  }
  int32_t num_linked = 0;
  BlockId previous = kNullBlock;
  for (BlockId block_id = block(kNullBlock).next; block_id != kNullBlock; block_id = block(block_id).next) {
    if (block_id < 0 || block_id > num_total() || ++num_linked > num_total()) {
      return internal_error("the free list is broken after block " + std::to_string(previous));
    }
    if (block(block_id).previous != previous || block(block_id).num_references != 0) {
      return internal_error("block " + std::to_string(block_id) + " is wrongly linked into the free list");
    }
    previous = block_id;
  }
  if (block(kNullBlock).previous != previous) return internal_error("the free list does not close");
  if (num_linked != num_unreferenced || num_linked != num_free_) {
    return internal_error("the free list holds " + std::to_string(num_linked) + " blocks, " +
                          std::to_string(num_unreferenced) + " have no reference, num_free is " +
                          std::to_string(num_free_));
  }
  return ok_status();
}

void BlockPool::check_id(BlockId block_id) const {
  CHECK(block_id > kNullBlock && block_id <= num_total()) << "block " << block_id << " of " << num_total();
}

void BlockPool::link_after(BlockId previous, BlockId block_id) {
  const BlockId next = block(previous).next;
  block(block_id).previous = previous;
  block(block_id).next = next;
  block(previous).next = block_id;
  block(next).previous = block_id;
}

void BlockPool::unlink(BlockId block_id) {
  Block& unlinked = block(block_id);
  block(unlinked.previous).next = unlinked.next;
  block(unlinked.next).previous = unlinked.previous;
  unlinked.previous = unlinked.next = kNullBlock;
}

}  // namespace sextant
