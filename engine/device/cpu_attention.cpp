// Planning is a few integer operations per sequence and head; running is kernels/cpu/attention.cpp.
#include "engine/device/cpu_attention.h"

#include <algorithm>

#include "engine/base/check.h"

namespace sextant {
namespace {

using kernels::kAttentionSplit;

// Below this many products of a query row with a key, waking the other threads costs more than it gives.
constexpr int64_t kMinCostToShare = 512;
// Items per thread that a step aims at, so that their unequal sizes even out.
constexpr int64_t kItemsPerThread = 4;
constexpr size_t kMinMergesToShare = 32;
constexpr int32_t kMinBlockRows = 12;  // fewer rows waste the loads of keys and values

int64_t visible_keys(int32_t first_position, int32_t num_tokens, int32_t window) {
  const int64_t last = first_position + num_tokens;
  return window > 0 ? std::min<int64_t>(last, int64_t{window} + num_tokens - 1) : last;
}

}  // namespace

int64_t CpuAttention::scratch_floats(const AttentionParams& params) {
  const int64_t group = params.num_heads / std::max(params.num_kv_heads, 1);
  return kernels::attention_scratch_floats(std::max<int64_t>(group, kernels::kMaxAttentionRows), params.head_dim);
}

int64_t CpuAttention::max_partial_floats(int num_threads) {
  return std::max<int64_t>(int64_t{1} << 21, (int64_t{1} << 18) * num_threads);
}

void CpuAttention::plan(const AttentionBatch& batch, const AttentionParams& params) {
  batch_ = batch;
  planned_ = params;
  num_plans_ = 0;
  for (size_t s = 0; s < batch.seq_lens.size(); ++s) {
    const int32_t tokens = batch.cu_seqlens_q[s + 1] - batch.cu_seqlens_q[s];
    CHECK(tokens >= 0 && tokens <= batch.seq_lens[s])
        << "sequence " << s << " has " << tokens << " query rows and " << batch.seq_lens[s] << " tokens";
    CHECK_LE(batch.seq_lens[s], 0x7fff0000);
  }
  plan_for(params.sliding_window);
}

CpuAttention::Plan& CpuAttention::plan_for(int32_t window) {
  for (size_t i = 0; i < num_plans_; ++i) {
    if (plans_[i].window == window) return plans_[i];
  }
  if (num_plans_ == plans_.size()) plans_.emplace_back();
  Plan& plan = plans_[num_plans_++];
  plan.window = window;
  plan.total_cost = 0;
  plan.blocks.clear();
  plan.items.clear();
  plan.merges.clear();
  plan.num_partial_floats = 0;
  const auto num_sequences = static_cast<int32_t>(batch_.seq_lens.size());
  for (int32_t s = 0; s < num_sequences; ++s) {
    const int32_t tokens = batch_.cu_seqlens_q[s + 1] - batch_.cu_seqlens_q[s];
    // Half the square of a prefill is above the diagonal: a token sees what the middle one sees.
    plan.total_cost +=
        tokens * visible_keys(batch_.seq_lens[s] - tokens, (tokens + 1) / 2, window) * planned_.num_heads;
  }
  const int64_t target_cost = std::max<int64_t>(1, plan.total_cost / (pool_.num_threads() * kItemsPerThread));
  for (int32_t s = 0; s < num_sequences; ++s) add_sequence(plan, s, target_cost);
  if (plan.num_partial_floats > static_cast<int64_t>(partials_.size())) {
    partials_.resize(static_cast<size_t>(plan.num_partial_floats));
  }
  return plan;
}

void CpuAttention::add_sequence(Plan& plan, int32_t sequence, int64_t target_cost) {
  const int32_t group = planned_.num_heads / planned_.num_kv_heads;
  const int32_t first_row = batch_.cu_seqlens_q[sequence], tokens = batch_.cu_seqlens_q[sequence + 1] - first_row;
  if (tokens == 0) return;
  const int32_t first_position = batch_.seq_lens[sequence] - tokens;
  const bool shared = pool_.num_threads() > 1;
  const auto cost_of = [&](int32_t position, int32_t count) {
    return int64_t{count} * group * visible_keys(position, count, plan.window);
  };
  int32_t block_tokens = std::min(tokens, std::max(1, kernels::kMaxAttentionRows / group));
  while (shared && block_tokens > 1 && block_tokens * group > kMinBlockRows &&
         cost_of(batch_.seq_lens[sequence] - block_tokens, block_tokens) > target_cost) {
    block_tokens = (block_tokens + 1) / 2;
  }
  for (int32_t kv_head = 0; kv_head < planned_.num_kv_heads; ++kv_head) {
    for (int32_t t = 0; t < tokens; t += block_tokens) {
      const int32_t count = std::min(block_tokens, tokens - t), position = first_position + t;
      const int32_t first_seen = plan.window > 0 ? std::max(0, position - plan.window + 1) : 0;
      const int32_t split_begin = first_seen / kAttentionSplit;
      const int32_t split_end = (position + count - 1) / kAttentionSplit + 1, num_splits = split_end - split_begin;
      const int64_t cost = cost_of(position, count);
      int64_t pieces = shared ? std::clamp<int64_t>((cost + target_cost - 1) / target_cost, 1, num_splits) : 1;
      const int64_t partial_floats =
          int64_t{num_splits} * count * group * kernels::attention_partial_floats(planned_.head_dim);
      if (plan.num_partial_floats + partial_floats > max_partial_floats(pool_.num_threads())) pieces = 1;
      const auto block = static_cast<int32_t>(plan.blocks.size());
      plan.blocks.push_back({sequence, kv_head, first_row + t, count, position, split_begin, split_end,
                             pieces > 1 ? plan.num_partial_floats : -1});
      if (pieces > 1) {
        plan.num_partial_floats += partial_floats;
        plan.merges.push_back(block);
      }
      for (int64_t piece = 0; piece < pieces; ++piece) {
        const auto begin = static_cast<int32_t>(split_begin + num_splits * piece / pieces);
        const auto end = static_cast<int32_t>(split_begin + num_splits * (piece + 1) / pieces);
        plan.items.push_back({block, begin, end, std::max<int64_t>(1, cost * (end - begin) / num_splits)});
      }
    }
  }
}

void CpuAttention::run(Tensor qkv, const AttentionParams& params, const CpuKvCache& cache, int32_t layer, Tensor out,
                       const std::vector<float*>& scratch) {
  CHECK(params.num_heads == planned_.num_heads && params.num_kv_heads == planned_.num_kv_heads &&
        params.head_dim == planned_.head_dim)
      << "attention of another shape than the plan's";
  const Plan& plan = plan_for(params.sliding_window);
  if (pool_.num_threads() == 1 || plan.total_cost < kMinCostToShare) {
    for (const Item& item : plan.items) run_item(plan, item, qkv, params, cache, layer, out, scratch[0]);
  } else {
    pool_.share(static_cast<int64_t>(plan.items.size()), [&](int thread, int64_t item) {
      run_item(plan, plan.items[static_cast<size_t>(item)], qkv, params, cache, layer, out,
               scratch[static_cast<size_t>(thread)]);
    });
  }
  const size_t num_merges = plan.merges.size();
  if (num_merges < kMinMergesToShare) {
    for (const int32_t block : plan.merges)
      merge_block(plan.blocks[static_cast<size_t>(block)], params, out, scratch[0]);
    return;
  }
  pool_.share(static_cast<int64_t>(num_merges), [&](int thread, int64_t merge) {
    merge_block(plan.blocks[static_cast<size_t>(plan.merges[static_cast<size_t>(merge)])], params, out,
                scratch[static_cast<size_t>(thread)]);
  });
}

void CpuAttention::merge_block(const Block& block, const AttentionParams& params, const Tensor& out, float* scratch) {
  const int32_t group = params.num_heads / params.num_kv_heads;
  float* to = out.f32() + block.first_token * out.row_stride + int64_t{block.kv_head} * group * params.head_dim;
  kernels_.attention_merge({partials_.data() + block.partials, block.split_end - block.split_begin,
                            block.num_tokens * group, group, params.head_dim, to, out.row_stride, scratch});
}

void CpuAttention::run_item(const Plan& plan, const Item& item, const Tensor& qkv, const AttentionParams& params,
                            const CpuKvCache& cache, int32_t layer, const Tensor& out, float* scratch) {
  const Block& block = plan.blocks[static_cast<size_t>(item.block)];
  const int32_t group = params.num_heads / params.num_kv_heads;
  const int64_t column = int64_t{block.kv_head} * group * params.head_dim;
  kernels::AttentionTileArgs args{};
  args.q = qkv.f32() + block.first_token * qkv.row_stride + column;
  args.q_stride = qkv.row_stride;
  args.num_tokens = block.num_tokens;
  args.group = group;
  args.first_position = block.first_position;
  args.layout = cache.cells();
  args.kv_head = block.kv_head;
  args.cache = cache.layer_data(layer);
  args.cache_type = cache.cell_type();
  args.block_table = batch_.block_tables.data() + int64_t{block.sequence} * batch_.max_blocks_per_seq;
  args.scale = params.scale;
  args.softcap = params.logit_softcap;
  args.window = params.sliding_window;
  args.split_begin = item.split_begin;
  args.split_end = item.split_end;
  if (block.partials >= 0) {
    args.partials = partials_.data() + block.partials +
                    int64_t{item.split_begin - block.split_begin} * block.num_tokens * group *
                        kernels::attention_partial_floats(params.head_dim);
  } else {
    args.out = out.f32() + block.first_token * out.row_stride + column;
    args.out_stride = out.row_stride;
  }
  args.scratch = scratch;
  kernels_.attention_tile(args);
}

}  // namespace sextant
