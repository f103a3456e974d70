#include "engine/engine.h"

#include <algorithm>
#include <filesystem>
#include <optional>
#include <utility>

#include "engine/base/log.h"
#include "engine/device/cuda_device.h"
#include "engine/device/device_monitor.h"
#include "engine/device/make_backend.h"
#include "engine/engine_thread.h"
#include "engine/exec/worker.h"
#include "engine/model/memory_model.h"
#include "engine/model/model.h"

namespace sextant {
namespace {

struct OpenedModel {
  std::unique_ptr<ModelFiles> files;
  ModelConfig config;
  std::vector<WeightType> weight_types;  // of matrices, as they will be loaded
  WeightType main_type = WeightType::kF32;
  uint64_t weight_bytes = 0;  // as stored
};

bool is_dummy(const EngineConfig& config) { return config.model.load_format == "dummy"; }

WeightType dummy_type(const EngineConfig& config) {
  return config.model.dtype == "float32" ? WeightType::kF32 : WeightType::kBF16;
}

WeightLoader make_loader(const EngineConfig& config, const OpenedModel& opened) {
  if (is_dummy(config)) return WeightLoader::dummy(dummy_type(config), config.model.seed);
  WeightLoader::Options options;
  options.gguf_names = opened.files->is_gguf();
  options.as_bfloat16 = config.model.dtype == "bfloat16";
  return WeightLoader(*opened.files->tensors(), options);
}

Result<OpenedModel> open(const EngineConfig& config) {
  OpenedModel opened;
  ASSIGN_OR_RETURN(opened.files, open_model(config.model.model, {.need_weights = !is_dummy(config)}));
  ASSIGN_OR_RETURN(opened.config, model_config_from_files(*opened.files));
  RETURN_IF_ERROR(supported(opened.config));
  const WeightLoader loader = make_loader(config, opened);
  opened.weight_types = loader.matrix_types();
  if (is_dummy(config)) {
    opened.main_type = dummy_type(config);
    opened.weight_bytes = weight_bytes(opened.config, opened.main_type);
    return opened;
  }
  const std::vector<TensorInfo>& tensors = opened.files->tensors()->tensors();
  opened.weight_bytes = weight_bytes(tensors);
  std::vector<uint64_t> bytes_by_type(kNumWeightTypes);
  for (const TensorInfo& tensor : tensors) bytes_by_type[static_cast<size_t>(tensor.type)] += tensor.num_bytes;
  opened.main_type =
      static_cast<WeightType>(std::max_element(bytes_by_type.begin(), bytes_by_type.end()) - bytes_by_type.begin());
  return opened;
}

DType kv_dtype(const EngineConfig& config) {
  return config.cache.kv_cache_dtype == "float32" ? DType::kFloat32 : DType::kBFloat16;
}

Result<int64_t> context_length(const EngineConfig& config, const ModelConfig& model) {
  if (config.model.max_model_len == 0) return model.max_position_embeddings;
  if (config.model.max_model_len > model.max_position_embeddings) {
    return invalid_argument("max_model_len " + std::to_string(config.model.max_model_len) + " is above the " +
                                std::to_string(model.max_position_embeddings) + " positions that " + model.source +
                                " was made for",
                            "max_model_len");
  }
  return config.model.max_model_len;
}

// Before loading out of estimates; with what is `left` for the KV cache, measured after all else was allocated and used.
Result<MemoryPlan> make_plan(const EngineConfig& config, const OpenedModel& opened, const Backend& backend,
                             int64_t max_model_len, std::optional<uint64_t> measured_left = {}) {
  MemoryPlanInputs inputs;
  inputs.model = config.model.model;
  inputs.weights_bytes = opened.weight_bytes;
  const SchedulerConfig& scheduler = config.scheduler;
  inputs.workspace_bytes =
      workspace_bytes(opened.config, {.max_num_batched_tokens = scheduler.max_num_batched_tokens,
                                      .max_num_seqs = backend.logits_rows(scheduler.max_num_seqs),
                                      .activation = backend.activation_dtype()}) +
      static_cast<uint64_t>(backend.workspace_bytes(scheduler.max_num_batched_tokens, scheduler.max_num_seqs,
                                                    make_attention_params(opened.config)));
  inputs.kv_bytes_per_token = kv_bytes_per_token(opened.config, kv_dtype(config));
  inputs.block_size = config.cache.block_size;
  inputs.max_model_len = max_model_len;
  inputs.max_num_seqs = scheduler.max_num_seqs;
  inputs.available_bytes = backend.memory_budget_bytes(config.cache.gpu_memory_utilization);
  if (measured_left) inputs.available_bytes = inputs.weights_bytes + inputs.workspace_bytes + *measured_left;
  if (config.cache.kv_cache_memory_bytes > 0) {
    inputs.kv_cache_bytes = static_cast<uint64_t>(config.cache.kv_cache_memory_bytes);
  } else {
    // No more than could ever be used, and on the CPU no more than its share of a machine that does other things
    // too. In whole blocks, and the null block.
    const int64_t blocks_per_seq = (max_model_len - 1) / config.cache.block_size + 1;
    const uint64_t usable =
        inputs.kv_bytes_per_token *
        static_cast<uint64_t>((scheduler.max_num_seqs * blocks_per_seq + 1) * config.cache.block_size);
    const uint64_t spent = inputs.weights_bytes + inputs.workspace_bytes;
    const uint64_t left = inputs.available_bytes > spent ? inputs.available_bytes - spent : 0;
    const uint64_t cap =
        std::max(static_cast<uint64_t>(config.cache.cpu_kv_cache_limit_bytes),
                 inputs.kv_bytes_per_token * static_cast<uint64_t>((blocks_per_seq + 1) * config.cache.block_size));
    inputs.kv_cache_bytes = std::min(usable, left);
    if (backend.uses_host_memory()) inputs.kv_cache_bytes = std::min({usable, left, cap});
  }
  return plan_memory(inputs);
}

Result<std::unique_ptr<KvCache>> make_cache(Backend& backend, const KvCacheSpec& spec, int32_t num_blocks) {
  const KvCacheGroup& group = spec.groups[0];
  return backend.make_kv_cache({.num_layers = static_cast<int32_t>(group.layers.size()),
                                .num_blocks = num_blocks,
                                .block_size = spec.block_size,
                                .num_kv_heads = group.num_kv_heads,
                                .head_dim = group.head_dim,
                                .dtype = group.dtype});
}

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

  ASSIGN_OR_RETURN(const OpenedModel opened, open(config));
  ASSIGN_OR_RETURN(const int64_t max_model_len, context_length(config, opened.config));
  EngineThread::Parts parts;
  ASSIGN_OR_RETURN(parts.backend, make_backend(config.device));
  Backend& backend = *parts.backend;
  const AttentionParams attention = make_attention_params(opened.config);
  RETURN_IF_ERROR(backend.supports({opened.weight_types, attention, kv_dtype(config)}));
  ASSIGN_OR_RETURN(const int64_t steps_in_flight, num_steps_in_flight(config.scheduler, backend));
  ASSIGN_OR_RETURN(MemoryPlan plan, make_plan(config, opened, backend, max_model_len));
  std::string plan_text = render(plan);
  if (options.on_memory_plan) options.on_memory_plan(plan_text);

  WeightLoader loader = make_loader(config, opened);
  ASSIGN_OR_RETURN(
      std::unique_ptr<Model> model,
      load_model(opened.config, loader, backend,
                 {.max_num_batched_tokens = config.scheduler.max_num_batched_tokens, .max_model_len = max_model_len}));
  RETURN_IF_ERROR(backend.reserve({.max_num_batched_tokens = config.scheduler.max_num_batched_tokens,
                                   .max_num_seqs = config.scheduler.max_num_seqs,
                                   .max_model_len = max_model_len,
                                   .vocab_size = opened.config.vocab_size,
                                   .block_size = config.cache.block_size},
                                  attention));
  const KvCacheSpec spec =
      make_kv_cache_spec(opened.config, kv_dtype(config), static_cast<int32_t>(config.cache.block_size));
  const KvCacheGroup& group = spec.groups[0];
  const int64_t num_parameters = model->num_parameters();
  const int64_t weight_bytes = model->weight_bytes();
  ASSIGN_OR_RETURN(std::unique_ptr<ModelRunner> runner,
                   ModelRunner::create(backend, std::move(model), opened.config.vocab_size,
                                       backend.logits_rows(config.scheduler.max_num_seqs)));
  if (!backend.uses_host_memory()) {
    // Libraries and kernels take memory at their first use: the largest step runs once, over the null block alone.
    ASSIGN_OR_RETURN(std::unique_ptr<KvCache> null_block, make_cache(backend, spec, 1));
    runner->set_cache(std::move(null_block));
    RETURN_IF_ERROR(runner->warm_up(std::min(config.scheduler.max_num_batched_tokens, max_model_len)));
    runner->set_cache(nullptr);
    const uint64_t left = backend.memory_budget_bytes(config.cache.gpu_memory_utilization);
    ASSIGN_OR_RETURN(plan, make_plan(config, opened, backend, max_model_len, left));
    plan_text = render(plan);
    LOG_INFO << "measured after warm-up: " << plan_text;
  }
  const auto num_blocks = static_cast<int32_t>(plan.num_blocks);  // with the null block
  ASSIGN_OR_RETURN(std::unique_ptr<KvCache> cache, make_cache(backend, spec, num_blocks));
  const auto kv_cache_bytes = static_cast<int64_t>(cache->size_bytes());
  runner->set_cache(std::move(cache));
  RETURN_IF_ERROR(runner->record_steps());

  EngineInfo& info = parts.info;
  info.model_path = config.model.model;
  info.architecture = opened.config.architecture;
  info.weight_type = weight_type_name(opened.main_type);
  info.device = backend.description();
  info.kv_cache_dtype = dtype_name(group.dtype);
  info.vocab_size = static_cast<int32_t>(opened.config.vocab_size);
  info.max_model_len = max_model_len;
  info.block_size = spec.block_size;
  info.num_blocks = num_blocks - 1;
  info.num_parameters = num_parameters;
  info.weight_bytes = weight_bytes;
  info.kv_cache_bytes = kv_cache_bytes;
  info.workspace_bytes = static_cast<int64_t>(plan.workspace_bytes);
  info.eos_token_ids = merge_eos(opened.config, options.eos_token_ids);
  info.memory_plan = plan_text;

  parts.worker = std::make_unique<Worker>(backend, std::move(runner), info.eos_token_ids, spec.block_size);
  Scheduler::Options scheduler;
  scheduler.scheduler = config.scheduler;
  scheduler.scheduler.max_num_queued_reqs = int64_t{1} << 30;  // submit() refuses, exactly and at once
  scheduler.scheduler.max_steps_in_flight = steps_in_flight;
  scheduler.cache = config.cache;
  scheduler.max_model_len = max_model_len;
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
  info.load_s = static_cast<double>(SteadyClock::instance().now_ns() - begin_ns) * 1e-9;
  return std::unique_ptr<Engine>(std::make_unique<EngineThread>(std::move(parts)));
}

}  // namespace sextant
