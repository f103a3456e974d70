#include "engine/engine.h"

#include <algorithm>
#include <numeric>
#include <optional>
#include <utility>

#include "engine/base/log.h"
#include "engine/device/cuda_device.h"
#include "engine/device/device_monitor.h"
#include "engine/device/make_backend.h"
#include "engine/engine_model.h"
#include "engine/engine_ranks.h"
#include "engine/engine_thread.h"
#include "engine/model/memory_model.h"

namespace sextant {
namespace {

Result<int64_t> num_steps_in_flight(const EngineConfig& engine, const Backend& backend) {
  const SchedulerConfig& config = engine.scheduler;
  if (const int64_t stages = engine.parallel.pipeline_parallel_size; stages > 1) {
    // One for each stage to work on, one that waits for the first.
    return config.max_steps_in_flight == 0 ? stages + 1 : config.max_steps_in_flight;
  }
  if (config.max_steps_in_flight == 0) return backend.max_steps_in_flight();
  if (config.max_steps_in_flight > backend.max_steps_in_flight()) {
    return invalid_argument("max_steps_in_flight is " + std::to_string(config.max_steps_in_flight) + ", but " +
                                backend.description() + " overlaps at most " +
                                std::to_string(backend.max_steps_in_flight()),
                            "max_steps_in_flight");
  }
  return config.max_steps_in_flight;
}

double step_timeout_s(const DeviceConfig& config, bool on_gpu) {
  constexpr double kGpuTimeoutS = 300;
  if (config.step_timeout_s >= 0) return config.step_timeout_s;
  return on_gpu ? kGpuTimeoutS : 0;
}

// Every id that ends a sequence: the model file's and the tokenizer's, inside the vocabulary, each once.
std::vector<int32_t> merge_eos(const ModelConfig& model, const std::vector<int32_t>& of_tokenizer) {
  std::vector<int32_t> ids = of_tokenizer;
  ids.insert(ids.end(), model.eos_token_ids.begin(), model.eos_token_ids.end());
  std::vector<int32_t> unique;
  for (const int32_t id : ids) {
    if (id >= 0 && id < model.vocab_size && std::find(unique.begin(), unique.end(), id) == unique.end())
      unique.push_back(id);
  }
  return unique;
}

// The steps that every process of a group goes through together. The ids that end a sequence: the leader's; workers keep
// min_tokens by them.
Result<std::vector<int32_t>> load_ranks(EngineRanks& ranks, const OpenedModel& opened, const Engine::Options& options) {
  RETURN_IF_ERROR(ranks.open());
  RETURN_IF_ERROR(ranks.plan());
  if (options.on_memory_plan) options.on_memory_plan(ranks.plan_text());
  if (const std::string held = opened.held_types_text(ranks[0].backend()); !held.empty())
    LOG_INFO << "weights that are not held as the file has them: " << held;
  RETURN_IF_ERROR(ranks.load());
  RETURN_IF_ERROR(ranks.measure());
  if (!ranks[0].backend().uses_host_memory()) {
    RETURN_IF_ERROR(ranks.plan());
    LOG_INFO << "measured after warm-up: " << ranks.plan_text();
  }
  std::vector<int32_t> eos_token_ids = merge_eos(opened.config, options.eos_token_ids);
  RETURN_IF_ERROR(ranks.finish(eos_token_ids));
  return eos_token_ids;
}

// A process whose steps another one schedules.
class Follower final : public GroupFollower {
 public:
  Follower(EngineInfo info, std::shared_ptr<ProcessGroup> group, std::unique_ptr<GroupExecutor> executor)
      : info_(std::move(info)), group_(std::move(group)), executor_(std::move(executor)) {}

  const EngineInfo& info() const override { return info_; }
  Status follow() override { return executor_->follow(); }
  void leave(const std::string& why) override { group_->leave(why); }
  Status status() const override { return group_->status(); }
  std::vector<RankReading> rank_readings() const override { return group_->readings(); }

 private:
  const EngineInfo info_;
  const std::shared_ptr<ProcessGroup> group_;
  const std::unique_ptr<GroupExecutor> executor_;
};

EngineInfo make_info(const EngineConfig& config, const OpenedModel& opened, EngineRanks& ranks) {
  // Ids of blocks are the same on all ranks, so one rank's cache is what the scheduler knows.
  const KvCacheSpec& spec = ranks[0].spec();
  EngineInfo info;
  info.model_path = config.model.model;
  info.architecture = opened.config.architecture;
  info.weight_type = weight_type_name(opened.main_type);
  info.device = ranks[0].backend().description();
  info.tensor_parallel_size = static_cast<int32_t>(config.parallel.tensor_parallel_size);
  info.pipeline_parallel_size = static_cast<int32_t>(config.parallel.pipeline_parallel_size);
  info.num_nodes = static_cast<int32_t>(config.parallel.nnodes);
  info.kv_cache_dtype = dtype_name(spec.groups[0].dtype);
  info.vocab_size = static_cast<int32_t>(opened.config.vocab_size);
  info.max_model_len = opened.max_model_len;
  info.block_size = spec.block_size;
  info.num_blocks = static_cast<int32_t>(ranks.plans()[0].num_blocks) - 1;
  info.num_parameters = config.parallel.num_ranks() == 1
                            ? ranks[0].num_parameters()
                            : static_cast<int64_t>(count_parameters(opened.config).stored());
  for (size_t rank = 0; rank < ranks.size(); ++rank) {
    info.weight_bytes += ranks[rank].weight_bytes();
    info.kv_cache_bytes += ranks[rank].kv_cache_bytes();
    info.workspace_bytes += static_cast<int64_t>(ranks.plans()[rank].workspace_bytes);
  }
  info.memory_plan = ranks.plan_text();
  return info;
}

}  // namespace

Result<std::unique_ptr<GroupFollower>> GroupFollower::create(Engine::Options options) {
  const EngineConfig& config = options.config;
  if (const std::vector<Status> errors = config.validate(); !errors.empty()) return errors.front();
  const int64_t begin_ns = SteadyClock::instance().now_ns();
  ASSIGN_OR_RETURN(const OpenedModel opened, open_engine_model(config));
  ASSIGN_OR_RETURN(const std::shared_ptr<ProcessGroup> group, form_group(config, opened, options.version));
  EngineRanks ranks(config, opened, group);
  ASSIGN_OR_RETURN(const std::vector<int32_t> eos_token_ids, load_ranks(ranks, opened, options));
  ASSIGN_OR_RETURN(const int64_t steps_in_flight, num_steps_in_flight(config, ranks[0].backend()));
  EngineInfo info = make_info(config, opened, ranks);
  info.eos_token_ids = eos_token_ids;
  info.load_s = static_cast<double>(SteadyClock::instance().now_ns() - begin_ns) * 1e-9;
  std::unique_ptr<GroupExecutor> executor = ranks.take_group(steps_in_flight);
  return std::unique_ptr<GroupFollower>(std::make_unique<Follower>(std::move(info), group, std::move(executor)));
}

Result<std::unique_ptr<Engine>> Engine::create(Options options) {
  const EngineConfig& config = options.config;
  if (const std::vector<Status> errors = config.validate(); !errors.empty()) return errors.front();
  const int64_t begin_ns = SteadyClock::instance().now_ns();

  if (config.parallel.node_rank > 0) {
    return invalid_argument("node " + std::to_string(config.parallel.node_rank) + " follows node 0", "node_rank");
  }
  ASSIGN_OR_RETURN(const OpenedModel opened, open_engine_model(config));
  ASSIGN_OR_RETURN(const std::shared_ptr<ProcessGroup> group, form_group(config, opened, options.version));
  EngineRanks ranks(config, opened, group);
  ASSIGN_OR_RETURN(const std::vector<int32_t> eos_token_ids, load_ranks(ranks, opened, options));
  Backend& backend = ranks[0].backend();
  ASSIGN_OR_RETURN(const int64_t steps_in_flight, num_steps_in_flight(config, backend));
  const MemoryPlan& plan = ranks.plans()[0];
  const auto num_blocks = static_cast<int32_t>(plan.num_blocks);  // with the null block

  EngineThread::Parts parts;
  EngineInfo& info = parts.info;
  info = make_info(config, opened, ranks);
  info.eos_token_ids = eos_token_ids;

  Scheduler::Options scheduler;
  scheduler.scheduler = config.scheduler;
  scheduler.scheduler.max_num_queued_reqs = int64_t{1} << 30;  // submit() refuses, exactly and at once
  scheduler.scheduler.max_steps_in_flight = steps_in_flight;
  scheduler.cache = config.cache;
  scheduler.max_model_len = opened.max_model_len;
  scheduler.spec = ranks[0].spec();
  scheduler.num_blocks = num_blocks;
  scheduler.eos_token_ids = info.eos_token_ids;
  scheduler.num_pipeline_stages = info.pipeline_parallel_size;
  scheduler.cache_root = info.kv_cache_dtype;
  parts.scheduler = std::make_unique<Scheduler>(std::move(scheduler));
  parts.config = config.scheduler;
  parts.config.max_steps_in_flight = steps_in_flight;
  parts.on_step = std::move(options.on_step);
  parts.engine_config = config;
  parts.engine_config.parallel.group_secret.clear();  // records of failures are no place for it
  // The emulator's device is no GPU: nobody measures it, and its steps take the time they take.
  const Result<CudaDevice> gpu =
      backend.uses_host_memory() ? Result<CudaDevice>(unsupported("not on a GPU")) : open_cuda_device();
  parts.step_timeout_s = step_timeout_s(config.device, gpu.ok());
  if (gpu.ok()) parts.device_readings = monitor_gpu(gpu->uuid);
  parts.worker = ranks.take(steps_in_flight, parts.backend);
  info.load_s = static_cast<double>(SteadyClock::instance().now_ns() - begin_ns) * 1e-9;
  return std::unique_ptr<Engine>(std::make_unique<EngineThread>(std::move(parts)));
}

}  // namespace sextant
