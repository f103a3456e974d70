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
#include "engine/engine_rank.h"
#include "engine/engine_thread.h"
#include "engine/exec/rank_executor.h"
#include "engine/model/memory_model.h"

namespace sextant {
namespace {

// The ranks of this process: one on the caller's thread, or several, each on a thread of its own.
class Ranks {
 public:
  Ranks(const EngineConfig& config, const OpenedModel& opened) : config_(config), opened_(opened) {}
  ~Ranks() {
    if (threads_.empty()) return;
    abort("loading ended");
    // On their threads, and together: the end of a communicator may be a collective.
    for (size_t rank = 0; rank < threads_.size(); ++rank)
      threads_[rank]->post([loader = loaders_[rank].get()] { loader->discard(); });
    threads_.clear();
  }
  Ranks(const Ranks&) = delete;
  Ranks& operator=(const Ranks&) = delete;

  Status open() {
    const auto size = static_cast<int>(config_.parallel.tensor_parallel_size);
    const int64_t block =
        std::lcm(column_block(opened_.weight_types), std::max<int64_t>(1, opened_.config.fp8_scale_block));
    for (int rank = 0; rank < size; ++rank) {
      ASSIGN_OR_RETURN(const TensorShard shard, make_tensor_shard(opened_.config, block, rank, size));
      loaders_.push_back(std::make_unique<RankLoader>(config_, opened_, shard));
    }
    if (size == 1) return loaders_[0]->open({});
    for (int rank = 0; rank < size; ++rank) threads_.push_back(std::make_unique<RankThread>());
    ASSIGN_OR_RETURN(RankMeeting meeting,
                     make_rank_meeting(config_.device, size, config_.parallel.collective_timeout_s));
    return run_on_ranks(
        threads_, [&](size_t rank) { return loaders_[rank]->open([&] { return meeting(static_cast<int>(rank)); }); },
        {});
  }

  // Every rank's plan, with as many blocks as the poorest has.
  Status plan() {
    plans_.clear();
    std::optional<int64_t> num_blocks;
    for (const auto& loader : loaders_) {
      ASSIGN_OR_RETURN(const MemoryPlan of_rank, loader->plan());
      num_blocks = std::min(num_blocks.value_or(of_rank.num_blocks), of_rank.num_blocks);
    }
    for (const auto& loader : loaders_) {
      ASSIGN_OR_RETURN(MemoryPlan of_rank, loader->plan(num_blocks));
      plans_.push_back(std::move(of_rank));
    }
    return ok_status();
  }
  std::string plan_text() const {
    std::string text;
    for (const MemoryPlan& of_rank : plans_) text += render(of_rank);
    return text + loaders_[0]->traffic();
  }

  Status each(const std::function<Status(RankLoader&)>& step) {
    if (threads_.empty()) return step(*loaders_[0]);
    return run_on_ranks(
        threads_, [&](size_t rank) { return step(*loaders_[rank]); },
        [this](const Status& error) { abort(error.message()); });
  }
  Status finish(const std::vector<int32_t>& eos_token_ids) {
    if (threads_.empty()) return loaders_[0]->finish(plans_[0], eos_token_ids);
    return run_on_ranks(
        threads_, [&](size_t rank) { return loaders_[rank]->finish(plans_[rank], eos_token_ids); },
        [this](const Status& error) { abort(error.message()); });
  }

  // What carries out steps. Of one rank alone `backend` is the device, which outlives it.
  std::unique_ptr<StepExecutor> take(std::unique_ptr<Backend>& backend) {
    std::vector<RankExecutor::Rank> ranks;
    for (const auto& loader : loaders_) ranks.push_back(loader->take());
    if (threads_.empty()) {
      backend = std::move(ranks[0].backend);
      return std::move(ranks[0].worker);
    }
    return std::make_unique<RankExecutor>(std::move(threads_), std::move(ranks));
  }

  size_t size() const { return loaders_.size(); }
  RankLoader& operator[](size_t rank) { return *loaders_[rank]; }
  const std::vector<MemoryPlan>& plans() const { return plans_; }

 private:
  void abort(const std::string& reason) {
    for (const auto& loader : loaders_) {
      if (Communicator* group = loader->group()) group->abort(reason);
    }
  }

  const EngineConfig& config_;
  const OpenedModel& opened_;
  std::vector<std::unique_ptr<RankLoader>> loaders_;
  std::vector<std::unique_ptr<RankThread>> threads_;
  std::vector<MemoryPlan> plans_;
};

Result<int64_t> num_steps_in_flight(const SchedulerConfig& config, const Backend& backend) {
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

}  // namespace

Result<std::unique_ptr<Engine>> Engine::create(Options options) {
  const EngineConfig& config = options.config;
  if (const std::vector<Status> errors = config.validate(); !errors.empty()) return errors.front();
  const int64_t begin_ns = SteadyClock::instance().now_ns();

  ASSIGN_OR_RETURN(const OpenedModel opened, open_engine_model(config));
  Ranks ranks(config, opened);
  RETURN_IF_ERROR(ranks.open());
  Backend& backend = ranks[0].backend();
  ASSIGN_OR_RETURN(const int64_t steps_in_flight, num_steps_in_flight(config.scheduler, backend));
  RETURN_IF_ERROR(ranks.plan());
  if (options.on_memory_plan) options.on_memory_plan(ranks.plan_text());
  RETURN_IF_ERROR(ranks.each([](RankLoader& rank) { return rank.load(); }));
  RETURN_IF_ERROR(ranks.each([](RankLoader& rank) { return rank.measure(); }));
  if (!backend.uses_host_memory()) {
    RETURN_IF_ERROR(ranks.plan());
    LOG_INFO << "measured after warm-up: " << ranks.plan_text();
  }
  const MemoryPlan& plan = ranks.plans()[0];
  const std::vector<int32_t> eos_token_ids = merge_eos(opened.config, options.eos_token_ids);
  RETURN_IF_ERROR(ranks.finish(eos_token_ids));
  const auto num_blocks = static_cast<int32_t>(plan.num_blocks);  // with the null block

  // Ids of blocks are the same on all ranks, so one rank's cache is what the scheduler knows.
  const KvCacheSpec spec = ranks[0].spec();
  EngineThread::Parts parts;
  EngineInfo& info = parts.info;
  info.model_path = config.model.model;
  info.architecture = opened.config.architecture;
  info.weight_type = weight_type_name(opened.main_type);
  info.device = backend.description();
  info.tensor_parallel_size = static_cast<int32_t>(ranks.size());
  info.kv_cache_dtype = dtype_name(spec.groups[0].dtype);
  info.vocab_size = static_cast<int32_t>(opened.config.vocab_size);
  info.max_model_len = opened.max_model_len;
  info.block_size = spec.block_size;
  info.num_blocks = num_blocks - 1;
  info.num_parameters =
      ranks.size() == 1 ? ranks[0].num_parameters() : static_cast<int64_t>(count_parameters(opened.config).stored());
  for (size_t rank = 0; rank < ranks.size(); ++rank) {
    info.weight_bytes += ranks[rank].weight_bytes();
    info.kv_cache_bytes += ranks[rank].kv_cache_bytes();
    info.workspace_bytes += static_cast<int64_t>(ranks.plans()[rank].workspace_bytes);
  }
  info.eos_token_ids = eos_token_ids;
  info.memory_plan = ranks.plan_text();

  Scheduler::Options scheduler;
  scheduler.scheduler = config.scheduler;
  scheduler.scheduler.max_num_queued_reqs = int64_t{1} << 30;  // submit() refuses, exactly and at once
  scheduler.scheduler.max_steps_in_flight = steps_in_flight;
  scheduler.cache = config.cache;
  scheduler.max_model_len = opened.max_model_len;
  scheduler.spec = spec;
  scheduler.num_blocks = num_blocks;
  scheduler.eos_token_ids = info.eos_token_ids;
  scheduler.cache_root = info.kv_cache_dtype;
  parts.scheduler = std::make_unique<Scheduler>(std::move(scheduler));
  parts.config = config.scheduler;
  parts.config.max_steps_in_flight = steps_in_flight;
  parts.on_step = std::move(options.on_step);
  parts.engine_config = config;
  // The emulator's device is no GPU: nobody measures it, and its steps take the time they take.
  const Result<CudaDevice> gpu =
      backend.uses_host_memory() ? Result<CudaDevice>(unsupported("not on a GPU")) : open_cuda_device();
  parts.step_timeout_s = step_timeout_s(config.device, gpu.ok());
  if (gpu.ok()) parts.device_readings = monitor_gpu(gpu->uuid);
  parts.worker = ranks.take(parts.backend);
  info.load_s = static_cast<double>(SteadyClock::instance().now_ns() - begin_ns) * 1e-9;
  return std::unique_ptr<Engine>(std::make_unique<EngineThread>(std::move(parts)));
}

}  // namespace sextant
