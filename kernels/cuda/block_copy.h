// Copies whole blocks of the KV cache: for each pair (from, to) and each array, bytes [to * block_bytes, (to + 1) *
// block_bytes) become those of block `from`.
//
// arrays [num_arrays]: base addresses (keys and values of every layer) in device memory; pairs [num_pairs][2] int32 in
// device memory; block_bytes a multiple of 16, bases 16-byte aligned. No `to` occurs twice, and none is a `from`
// (blocks are copied in no order). A pair with a negative `to` is skipped: the padding of a captured graph. At most
// 65535 arrays; any number of pairs.
// A block of 256 threads copies up to 16 KB of one array's block: four 128-bit accesses per thread, all loaded before
// the first is stored.
// Bytes: 2 * block_bytes * arrays * pairs; bound by memory.
// Determinism: bits are copied.
#pragma once

#include <cstdint>

#include "kernels/cuda/types.h"

namespace sextant::kernels::cuda {

struct BlockCopyArgs {
  void* const* arrays;
  int32_t num_arrays;
  int64_t block_bytes;
  const int32_t* pairs;
  int32_t num_pairs;
};
int block_copy(const BlockCopyArgs& args, Stream stream);

}  // namespace sextant::kernels::cuda
