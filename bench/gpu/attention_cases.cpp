// Attention over a paged cache whose blocks stand in random order. Lists as engine/device/cuda_attention_plan makes them for
// sequences of one length each; made here because kernels' measurements know no engine.
#include <algorithm>
#include <numeric>
#include <random>

#include "bench/gpu/kernel_cases.h"
#include "kernels/cuda/attention.h"
#include "kernels/cuda/rope_cache.h"

namespace sextant::bench {
namespace {

using namespace kernels::cuda;

struct Batch {
  int32_t num_heads;
  KvLayout layout;
  ElementType type;
  int32_t num_sequences;
  int32_t context;  // positions of each, the new tokens among them
  int32_t tokens;   // new ones of each
};

int32_t blocks_of(int32_t positions) { return (positions + kBlockSlots - 1) / kBlockSlots; }

std::vector<int32_t> shuffled_blocks(int32_t count) {
  std::vector<int32_t> blocks(static_cast<size_t>(count));
  std::iota(blocks.begin(), blocks.end(), 1);  // block 0 is the null block
  std::shuffle(blocks.begin(), blocks.end(), std::mt19937(1));
  return blocks;
}

AttentionArgs attention_args(CaseMemory& memory, const Batch& batch) {
  const int32_t blocks = blocks_of(batch.context);
  const int64_t all_blocks = int64_t{batch.num_sequences} * blocks + 1;
  const int64_t rows = int64_t{batch.num_sequences} * batch.tokens;
  AttentionArgs args = {};
  args.layout = batch.layout;
  args.type = batch.type;
  args.num_heads = batch.num_heads;
  args.q_stride = int64_t{batch.num_heads} * batch.layout.head_dim_qk;
  args.out_stride = int64_t{batch.num_heads} * batch.layout.head_dim_v;
  args.q = memory.allocate(rows * args.q_stride * 2, Content::kBFloat16);
  args.out = memory.allocate(rows * args.out_stride * 2, Content::kZeros);
  args.keys = memory.allocate(all_blocks * batch.layout.keys_per_block() * 2, Content::kBFloat16);
  args.values = memory.allocate(all_blocks * batch.layout.values_per_block() * 2, Content::kBFloat16);
  args.scale = 0.125f;
  args.causal = true;
  std::vector<int32_t> cu_seqlens;
  for (int32_t s = 0; s <= batch.num_sequences; ++s) cu_seqlens.push_back(s * batch.tokens);
  args.cu_seqlens_q = memory.upload(cu_seqlens);
  args.seq_lens = memory.upload(std::vector<int32_t>(static_cast<size_t>(batch.num_sequences), batch.context));
  args.block_tables = memory.upload(shuffled_blocks(batch.num_sequences * blocks));
  args.block_table_stride = blocks;
  return args;
}

double kv_bytes_per_position(const Batch& batch) {
  return 2.0 * batch.layout.num_kv_heads * (batch.layout.head_dim_qk + batch.layout.head_dim_v);
}
double query_and_output_bytes(const Batch& batch) {
  return 2.0 * batch.num_sequences * batch.tokens * batch.num_heads *
         (batch.layout.head_dim_qk + batch.layout.head_dim_v);
}
double visible_pairs(const Batch& batch) {  // of a query token and a position that it sees
  const double first = batch.context - batch.tokens + 1;
  return batch.num_sequences * batch.tokens * (first + batch.context) / 2;
}
double attention_flops(const Batch& batch) {
  return 2.0 * batch.num_heads * (batch.layout.head_dim_qk + batch.layout.head_dim_v) * visible_pairs(batch);
}

std::string batch_name(const Batch& batch) {
  return type_name(batch.type) + " dims=" + std::to_string(batch.layout.head_dim_qk) + "," +
         std::to_string(batch.layout.head_dim_v) + " heads=" + std::to_string(batch.num_heads) + "/" +
         std::to_string(batch.layout.num_kv_heads) + " sequences=" + std::to_string(batch.num_sequences) +
         " context=" + std::to_string(batch.context);
}

KernelCase prefill_case(const Batch& batch, int32_t tile_rows, bool is_measured) {
  return {.op = "attention_prefill",
          .shape = batch_name(batch) + " rows=" + std::to_string(tile_rows),
          .bytes = query_and_output_bytes(batch) + batch.num_sequences * batch.context * kv_bytes_per_position(batch),
          .flops = attention_flops(batch),
          .is_measured = is_measured,
          .prepare = [=](CaseMemory& memory) -> Launch {
            AttentionArgs args = attention_args(memory, batch);
            std::vector<AttentionItem> items;
            const int32_t packed = batch.tokens * (batch.num_heads / batch.layout.num_kv_heads);
            for (int32_t s = 0; s < batch.num_sequences; ++s) {
              for (int32_t row = 0; row < packed; row += tile_rows) {
                items.push_back({s, row, 0, blocks_of(batch.context), -1});
              }
            }
            std::reverse(items.begin(), items.end());  // those that see most first
            args.prefill_items = memory.upload(items);
            args.num_prefill_items = static_cast<int32_t>(items.size());
            args.prefill_rows = tile_rows;
            return [=](Stream stream) { return attention_prefill(args, stream); };
          }};
}

// Each sequence's positions in `splits` parts, merged after; one part writes its result itself.
AttentionArgs decode_args(CaseMemory& memory, const Batch& batch, int32_t splits) {
  AttentionArgs args = attention_args(memory, batch);
  const int32_t blocks = blocks_of(batch.context);
  const int32_t of_split = (blocks + splits - 1) / splits;
  std::vector<AttentionItem> items;
  std::vector<MergeItem> merges;
  for (int32_t s = 0; s < batch.num_sequences; ++s) {
    for (int32_t part = 0; part < splits; ++part) {
      items.push_back(
          {s, 0, part * of_split, std::min(blocks, (part + 1) * of_split), splits == 1 ? -1 : s * splits + part});
    }
    if (splits > 1) merges.push_back({s, 0, s * splits, 1, splits});
  }
  args.decode_items = memory.upload(items);
  args.num_decode_items = static_cast<int32_t>(items.size());
  args.merges = memory.upload(merges);
  args.num_merges = static_cast<int32_t>(merges.size());
  args.merge_rows = batch.num_heads / batch.layout.num_kv_heads * batch.tokens;
  args.partials =
      static_cast<float*>(memory.allocate(int64_t{batch.num_sequences} * splits * batch.layout.num_kv_heads *
                                              attention_partial_floats(batch.layout.head_dim_v) * 4,
                                          Content::kZeros));
  return args;
}

KernelCase decode_case(const Batch& batch, int32_t splits, bool is_measured) {
  return {.op = "attention_decode",
          .shape = batch_name(batch) + " splits=" + std::to_string(splits),
          .bytes = query_and_output_bytes(batch) + batch.num_sequences * batch.context * kv_bytes_per_position(batch),
          .flops = attention_flops(batch),
          .is_measured = is_measured,
          .prepare = [=](CaseMemory& memory) -> Launch {
            const AttentionArgs args = decode_args(memory, batch, splits);
            return [=](Stream stream) { return attention_decode(args, stream); };
          }};
}

KernelCase merge_case(const Batch& batch, int32_t splits, bool is_measured) {
  const double rows = 1.0 * batch.num_sequences * batch.num_heads;
  return {.op = "attention_merge",
          .shape = batch_name(batch) + " splits=" + std::to_string(splits),
          .bytes = rows * (splits * 4.0 * (batch.layout.head_dim_v + 2) + 2.0 * batch.layout.head_dim_v),
          .flops = rows * splits * 2.0 * batch.layout.head_dim_v,
          .is_measured = is_measured,
          .prepare = [=](CaseMemory& memory) -> Launch {
            const AttentionArgs args = decode_args(memory, batch, splits);
            return [=](Stream stream) { return attention_merge(args, stream); };
          }};
}

KernelCase rope_case(const Batch& batch, int32_t rotary_dim, bool is_measured) {
  const int32_t rows = batch.num_sequences * batch.tokens;
  const KvLayout layout = batch.layout;
  const int64_t width = int64_t{batch.num_heads} * layout.head_dim_qk +
                        int64_t{layout.num_kv_heads} * (layout.head_dim_qk + layout.head_dim_v);
  const double kv = 2.0 * layout.num_kv_heads * (layout.head_dim_qk + layout.head_dim_v);
  const double rotated = 2.0 * (batch.num_heads + layout.num_kv_heads) * rotary_dim;  // bytes, written in place
  return {.op = "rope_and_cache",
          .shape = batch_name(batch) + " rows=" + std::to_string(rows) + " rotary=" + std::to_string(rotary_dim),
          .bytes = rows * (2.0 * static_cast<double>(width) + rotated + kv + 4.0 * rotary_dim),
          .flops = rows * 3.0 * rotated / 2,
          .is_measured = is_measured,
          .prepare = [=](CaseMemory& memory) -> Launch {
            RopeCacheArgs args = {};
            args.qkv = memory.allocate(rows * width * 2, Content::kBFloat16);
            args.qkv_stride = width;
            args.type = batch.type;
            args.rows = rows;
            args.num_heads = batch.num_heads;
            args.layout = layout;
            args.rotary_dim = rotary_dim;
            args.cos = static_cast<float*>(memory.allocate(int64_t{batch.context} * rotary_dim * 2, Content::kFloat32));
            args.sin = static_cast<float*>(memory.allocate(int64_t{batch.context} * rotary_dim * 2, Content::kFloat32));
            std::vector<int32_t> positions;
            std::vector<int64_t> slots;
            for (int32_t row = 0; row < rows; ++row) {
              positions.push_back(batch.context - batch.tokens + row % batch.tokens);
              slots.push_back(kBlockSlots + row);
            }
            args.positions = memory.upload(positions);
            args.slots = memory.upload(slots);
            const int64_t blocks = blocks_of(rows) + 1;
            args.keys = memory.allocate(blocks * layout.keys_per_block() * 2, Content::kZeros);
            args.values = memory.allocate(blocks * layout.values_per_block() * 2, Content::kZeros);
            return [=](Stream stream) { return rope_and_cache(args, stream); };
          }};
}

}  // namespace

void append_attention_cases(const ModelShape& shape, std::vector<KernelCase>& cases) {
  const KvLayout layout{shape.num_kv_heads, shape.head_dim, shape.head_dim};
  const auto batch_of = [&](int32_t sequences, int32_t context, int32_t tokens) {
    return Batch{shape.num_heads, layout, ElementType::kBFloat16, sequences, context, tokens};
  };
  const Batch prefill = batch_of(1, shape.prefill_tokens, shape.prefill_tokens);
  const Batch decode = batch_of(shape.decode_batch, shape.decode_context, 1);
  const Batch lone = batch_of(1, shape.long_context, 1);
  const int32_t lone_splits = std::max(2, std::min(64, shape.long_context / 128));
  cases.push_back(prefill_case(prefill, kPrefillRowsLarge, true));
  cases.push_back(prefill_case(prefill, kPrefillRows, true));
  cases.push_back(decode_case(decode, 1, true));
  cases.push_back(decode_case(lone, lone_splits, true));
  cases.push_back(merge_case(lone, lone_splits, true));
  cases.push_back(rope_case(decode, shape.head_dim, true));
  cases.push_back(rope_case(prefill, shape.head_dim, true));

  // Every other instance: dimensions, types, tiles.
  for (const ElementType type : {ElementType::kBFloat16, ElementType::kFloat16}) {
    const KvLayout layouts[] = {{2, 64, 64}, {2, 96, 96}, {2, 128, 128}, {2, 192, 128}, {2, 256, 256}};
    for (const KvLayout& dims : layouts) {
      const Batch some{4, dims, type, 1, 32, 32};
      const Batch one{4, dims, type, 1, 64, 1};
      cases.push_back(prefill_case(some, kPrefillRows, false));
      if (prefill_takes_large_tiles(dims.head_dim_qk, dims.head_dim_v)) {
        cases.push_back(prefill_case(some, kPrefillRowsLarge, false));
      }
      cases.push_back(decode_case(one, 2, false));
    }
    const Batch few{4, {2, 64, 64}, type, 1, 32, 1};
    cases.push_back(merge_case(few, 2, false));
    cases.push_back(rope_case(few, 64, false));
    cases.push_back(rope_case(few, 20, false));  // one pair at a time
  }
}

}  // namespace sextant::bench
