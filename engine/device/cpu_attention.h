// CpuAttention: cuts a step's attention into work items, once per step, and runs them per layer.
// An item is some tokens of a sequence, one KV head, and a range of splits (kernels/attention.h). How work is cut depends on the
// batch and on the number of threads; results do not, because an item's arithmetic is the same however it was cut.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/device/backend.h"
#include "engine/device/cpu_kv_cache.h"
#include "engine/device/thread_pool.h"
#include "kernels/cpu/kernel_table.h"

namespace sextant {

class CpuAttention {
 public:
  CpuAttention(const kernels::cpu::KernelTable& kernels, ThreadPool& pool) : kernels_(kernels), pool_(pool) {}

  // Reuses its memory from step to step.
  void plan(const AttentionBatch& batch, const AttentionParams& params);
  // scratch[thread] holds scratch_floats(params) floats.
  void run(Tensor qkv, const AttentionParams& params, const CpuKvCache& cache, int32_t layer, Tensor out,
           const std::vector<float*>& scratch);

  static int64_t scratch_floats(const AttentionParams& params);
  // The most floats that partial results of a step take.
  static int64_t max_partial_floats(int num_threads);

 private:
  struct Block {  // query tokens that are computed together, for one KV head
    int32_t sequence;
    int32_t kv_head;
    int32_t first_token;  // row of the step
    int32_t num_tokens;
    int32_t first_position;
    int32_t split_begin;
    int32_t split_end;
    int64_t partials;  // offset into partials_, or -1: computed by one item, without partials
  };
  struct Item {
    int32_t block;
    int32_t split_begin;
    int32_t split_end;
    int64_t cost;
  };

  // How a step is cut for one sliding window; models may alternate between two.
  struct Plan {
    int32_t window = 0;
    int64_t total_cost = 0;
    std::vector<Block> blocks;
    std::vector<Item> items;
    std::vector<int32_t> merges;  // blocks with partials
    int64_t num_partial_floats = 0;
  };

  Plan& plan_for(int32_t window);
  void add_sequence(Plan& plan, int32_t sequence, int64_t target_cost);
  void run_item(const Plan& plan, const Item& item, const Tensor& qkv, const AttentionParams& params,
                const CpuKvCache& cache, int32_t layer, const Tensor& out, float* scratch);
  void merge_block(const Block& block, const AttentionParams& params, const Tensor& out, float* scratch);

  const kernels::cpu::KernelTable& kernels_;
  ThreadPool& pool_;
  AttentionBatch batch_;
  AttentionParams planned_;
  std::vector<Plan> plans_;  // the first num_plans_ are of this step
  size_t num_plans_ = 0;
  std::vector<float> partials_;
};

}  // namespace sextant
