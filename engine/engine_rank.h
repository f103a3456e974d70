// RankLoader: one rank on its way from nothing to a worker. The steps are calls of their own because ranks agree in between: on
// the blocks of the KV cache, whose ids are the scheduler's and so must exist on all. Thread: the rank's.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/device/backend.h"
#include "engine/device/communicator.h"
#include "engine/engine_model.h"
#include "engine/exec/model_runner.h"
#include "engine/exec/rank_executor.h"
#include "engine/model/memory_model.h"

namespace sextant {

class RankLoader {
 public:
  // Where a rank stands: among all, and among those of its process.
  struct Place {
    int world_rank = 0;
    int local_rank = 0;
    int num_local_ranks = 1;
  };
  using Meet = std::function<Result<std::unique_ptr<Communicator>>()>;

  // All outlive it. A shard that is whole, of the only stage, is a rank of its own.
  RankLoader(const EngineConfig& config, const OpenedModel& opened, const TensorShard& shard, Place place)
      : config_(config), opened_(opened), shard_(shard), place_(place), local_(shard_config(opened.config, shard)) {}

  // The device; the model is one that it can run.
  Status open();
  // The groups, once all ranks here have a device: one that has none would be waited for. The two make this rank's communicators,
  // on the device's thread: with the ranks of its stage, with its like in the other stages. Not asked for a group of one.
  Status join(const Meet& meet_tensor_group, const Meet& meet_pipeline_group);
  // Out of estimates; with the blocks that the ranks agreed on.
  Result<MemoryPlan> plan(std::optional<int64_t> num_blocks = {}) const;
  Status load();
  // On a device with memory of its own: runs the largest step and measures what is left.
  Status measure();
  // The cache, of what is in `plan`, the records of decode steps, the worker.
  Status finish(const MemoryPlan& plan, std::vector<int32_t> eos_token_ids);

  Backend& backend() { return *rank_.backend; }
  const KvCacheSpec& spec() const { return spec_; }
  int64_t num_parameters() const { return num_parameters_; }
  int64_t weight_bytes() const { return weight_bytes_; }
  int64_t kv_cache_bytes() const { return kv_cache_bytes_; }
  RankExecutor::Rank take() { return std::move(rank_); }
  // Of a rank that will not be: everything goes, on its thread.
  void discard();
  const TensorShard& shard() const { return shard_; }
  const Place& place() const { return place_; }
  // Any thread, once join() has returned on all.
  void abort(const std::string& reason) {
    for (const auto& communicator : rank_.communicators) communicator->abort(reason);
  }
  std::string traffic() const;  // for the memory plan; empty for a rank of its own

 private:
  Result<std::unique_ptr<KvCache>> make_cache(int64_t num_blocks);

  const EngineConfig& config_;
  const OpenedModel& opened_;
  const TensorShard shard_;
  const Place place_;
  const ModelConfig local_;  // of this part alone
  KvCacheSpec spec_;
  RankExecutor::Rank rank_;
  Communicator* tensor_group_ = nullptr;  // of rank_
  Communicator* pipeline_group_ = nullptr;
  std::unique_ptr<ModelRunner> runner_;
  std::optional<uint64_t> measured_left_;
  int64_t num_parameters_ = 0;
  int64_t weight_bytes_ = 0;
  int64_t kv_cache_bytes_ = 0;
};

}  // namespace sextant
