#include "engine/engine_rank.h"

#include <algorithm>
#include <utility>

#include "engine/base/log.h"
#include "engine/device/make_backend.h"
#include "engine/exec/worker.h"
#include "engine/model/model.h"

namespace sextant {

Status RankLoader::open() {
  ASSIGN_OR_RETURN(rank_.backend,
                   make_rank_backend(config_.device, place_.local_rank, place_.num_local_ranks, opened_.dtype));
  const DType kv_dtype = kv_cache_dtype(config_, rank_.backend->activation_dtype());
  const BackendNeeds needs{opened_.weight_types, make_attention_kinds(local_), kv_dtype, asked_dtype(config_)};
  RETURN_IF_ERROR(rank_.backend->supports(needs));
  rank_.backend->adopt(needs);
  spec_ = make_kv_cache_spec(local_, kv_dtype, static_cast<int32_t>(config_.cache.block_size));
  return ok_status();
}

Status RankLoader::join(const Meet& meet_tensor_group, const Meet& meet_pipeline_group) {
  if (!shard_.is_whole()) {
    ASSIGN_OR_RETURN(std::unique_ptr<Communicator> communicator, meet_tensor_group());
    tensor_group_ = rank_.communicators.emplace_back(std::move(communicator)).get();
  }
  if (shard_.pipeline.num_stages > 1) {
    ASSIGN_OR_RETURN(std::unique_ptr<Communicator> communicator, meet_pipeline_group());
    pipeline_group_ = rank_.communicators.emplace_back(std::move(communicator)).get();
  }
  return ok_status();
}

Result<MemoryPlan> RankLoader::plan(std::optional<int64_t> num_blocks) const {
  const Backend& backend = *rank_.backend;
  const SchedulerConfig& scheduler = config_.scheduler;
  const int64_t logits_rows = backend.logits_rows(scheduler.max_num_seqs);
  MemoryPlanInputs inputs;
  inputs.model = config_.model.model;
  const PipelineStage& stage = shard_.pipeline;
  if (const int num_ranks = shard_.size * stage.num_stages; num_ranks > 1) {
    inputs.model += ", rank " + std::to_string(place_.world_rank) + " of " + std::to_string(num_ranks);
  }
  if (stage.num_stages > 1) {
    inputs.model += ", layers " + std::to_string(stage.layers.begin) + " to " + std::to_string(stage.layers.end - 1);
  }
  const bool has_logits = shard_.rank == 0 && stage.is_last();
  inputs.weights_bytes = opened_.shard_bytes(shard_, backend);
  inputs.workspace_bytes = workspace_bytes(local_, {.max_num_batched_tokens = scheduler.max_num_batched_tokens,
                                                    .max_num_seqs = has_logits ? logits_rows : 0,
                                                    .activation = backend.activation_dtype()}) +
                           static_cast<uint64_t>(backend.workspace_bytes(
                               scheduler.max_num_batched_tokens, scheduler.max_num_seqs, make_attention_kinds(local_)));
  if (!shard_.is_whole()) {
    // Its own columns of the logits, and on rank 0 everybody's once more before they are put in order; parts of sums.
    const int64_t columns = stage.is_last() ? shard_.vocab.size() + (has_logits ? opened_.config.vocab_size : 0) : 0;
    inputs.workspace_bytes += static_cast<uint64_t>(logits_rows * columns) * sizeof(float) +
                              static_cast<uint64_t>(backend.gathered_reduce_bytes() * shard_.size);
  }
  inputs.kv_bytes_per_token = kv_bytes_per_token(local_, spec_.groups[0].dtype);
  inputs.block_size = config_.cache.block_size;
  inputs.max_model_len = opened_.max_model_len;
  inputs.max_num_seqs = scheduler.max_num_seqs;
  inputs.available_bytes = backend.memory_budget_bytes(config_.cache.gpu_memory_utilization);
  // The host's memory is one for all ranks of the process.
  const auto sharing = static_cast<uint64_t>(backend.uses_host_memory() ? place_.num_local_ranks : 1);
  inputs.available_bytes /= sharing;
  if (measured_left_) inputs.available_bytes = inputs.weights_bytes + inputs.workspace_bytes + *measured_left_;
  const uint64_t block_bytes = inputs.kv_bytes_per_token * static_cast<uint64_t>(config_.cache.block_size);
  if (num_blocks) {
    inputs.kv_cache_bytes = static_cast<uint64_t>(*num_blocks) * block_bytes;
  } else if (config_.cache.kv_cache_memory_bytes > 0) {
    inputs.kv_cache_bytes = static_cast<uint64_t>(config_.cache.kv_cache_memory_bytes);
  } else {
    // No more than could ever be used, and on the CPU no more than its share of a machine that does other things
    // too. In whole blocks, and the null block.
    const int64_t blocks_per_seq = (opened_.max_model_len - 1) / config_.cache.block_size + 1;
    const uint64_t usable = block_bytes * static_cast<uint64_t>(scheduler.max_num_seqs * blocks_per_seq + 1);
    const uint64_t spent = inputs.weights_bytes + inputs.workspace_bytes;
    const uint64_t left = inputs.available_bytes > spent ? inputs.available_bytes - spent : 0;
    const uint64_t cap = std::max(static_cast<uint64_t>(config_.cache.cpu_kv_cache_limit_bytes) / sharing,
                                  block_bytes * static_cast<uint64_t>(blocks_per_seq + 1));
    inputs.kv_cache_bytes = std::min(usable, left);
    if (backend.uses_host_memory()) inputs.kv_cache_bytes = std::min({usable, left, cap});
  }
  return plan_memory(inputs);
}

std::string RankLoader::traffic() const {
  if (rank_.communicators.empty()) return {};
  const Backend& backend = *rank_.backend;
  return tensor_parallel_formula(local_, {.num_ranks = shard_.size,
                                          .activation = backend.activation_dtype(),
                                          .gathered_reduce_bytes = backend.gathered_reduce_bytes(),
                                          .logits_rows = backend.logits_rows(config_.scheduler.max_num_seqs),
                                          .shares_samples = backend.samples(),
                                          .is_first_stage = shard_.pipeline.is_first(),
                                          .is_last_stage = shard_.pipeline.is_last()});
}

Status RankLoader::load() {
  Backend& backend = *rank_.backend;
  const SchedulerConfig& scheduler = config_.scheduler;
  const int64_t logits_rows = backend.logits_rows(scheduler.max_num_seqs);
  WeightLoader loader = make_weight_loader(config_, opened_);
  ASSIGN_OR_RETURN(std::unique_ptr<Model> model, load_model(opened_.config, loader, backend,
                                                            {.max_num_batched_tokens = scheduler.max_num_batched_tokens,
                                                             .max_model_len = opened_.max_model_len,
                                                             .max_logits_rows = logits_rows,
                                                             .shard = shard_,
                                                             .tensor_group = tensor_group_}));
  RETURN_IF_ERROR(backend.reserve({.max_num_batched_tokens = scheduler.max_num_batched_tokens,
                                   .max_num_seqs = scheduler.max_num_seqs,
                                   .max_model_len = opened_.max_model_len,
                                   .vocab_size = opened_.config.vocab_size,
                                   .block_size = config_.cache.block_size,
                                   .num_ranks = shard_.size},
                                  make_attention_kinds(local_)));
  num_parameters_ = model->num_parameters();
  weight_bytes_ = model->weight_bytes();
  ASSIGN_OR_RETURN(runner_, ModelRunner::create(backend, std::move(model), opened_.config.vocab_size, logits_rows));
  runner_->set_pipeline_group(pipeline_group_);
  return ok_status();
}

Result<std::unique_ptr<KvCache>> RankLoader::make_cache(int64_t num_blocks) {
  const KvCacheGroup& group = spec_.groups[0];
  return rank_.backend->make_kv_cache({.num_layers = static_cast<int32_t>(group.layers.size()),
                                       .num_blocks = static_cast<int32_t>(num_blocks),
                                       .block_size = spec_.block_size,
                                       .num_kv_heads = group.num_kv_heads,
                                       .head_dim = group.head_dim,
                                       .dtype = group.dtype});
}

Status RankLoader::measure() {
  if (rank_.backend->uses_host_memory()) return ok_status();
  // Libraries and kernels take memory at their first use: the largest step runs once, over the null block alone.
  ASSIGN_OR_RETURN(std::unique_ptr<KvCache> null_block, make_cache(1));
  runner_->set_cache(std::move(null_block));
  RETURN_IF_ERROR(runner_->warm_up(std::min(config_.scheduler.max_num_batched_tokens, opened_.max_model_len)));
  runner_->set_cache(nullptr);
  measured_left_ = rank_.backend->memory_budget_bytes(config_.cache.gpu_memory_utilization);
  return ok_status();
}

Status RankLoader::finish(const MemoryPlan& plan, std::vector<int32_t> eos_token_ids) {
  ASSIGN_OR_RETURN(std::unique_ptr<KvCache> cache, make_cache(plan.num_blocks));
  kv_cache_bytes_ = static_cast<int64_t>(cache->size_bytes());
  runner_->set_cache(std::move(cache));
  RETURN_IF_ERROR(runner_->record_steps());
  rank_.worker =
      std::make_unique<Worker>(*rank_.backend, std::move(runner_), std::move(eos_token_ids), spec_.block_size);
  return ok_status();
}

void RankLoader::discard() {
  rank_.worker.reset();
  runner_.reset();
  rank_.communicators.clear();
  rank_.backend.reset();
}

}  // namespace sextant
