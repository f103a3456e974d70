// BlockTable: the physical blocks of one sequence in one cache group; entry i holds tokens [i, i+1) *
// block_size. Grows at the end only, so a worker that was sent its beginning needs only what was appended
// since.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/core/request.h"

namespace sextant {

class BlockTable {
 public:
  void append(BlockId block_id) { block_ids_.push_back(block_id); }
  void clear() { block_ids_.clear(); }
  int32_t size() const { return static_cast<int32_t>(block_ids_.size()); }
  BlockId operator[](int32_t block_idx) const { return block_ids_[static_cast<size_t>(block_idx)]; }
  std::span<const BlockId> block_ids() const { return block_ids_; }

 private:
  std::vector<BlockId> block_ids_;
};

}  // namespace sextant
