#include "server/cli/simulated_machine.h"

#include <algorithm>
#include <cstdio>
#include <utility>

#include "engine/format/hf_directory.h"
#include "engine/model/memory_model.h"
#include "engine/sim/record_time.h"
#include "engine/sim/roofline_time.h"
#include "engine/sim_engine.h"
#include "engine/text/byte_tokenizer.h"
#include "server/cli/canned_answers.h"
#include "server/cli/measured_points.h"
#include "server/cli/simulated_gpu.h"

namespace sextant::cli {
namespace {

// Without a device's memory to fill: 16 million tokens.
constexpr int64_t kUnboundedBlocks = int64_t{1} << 20;
constexpr int64_t kByteModelContext = 131'072;
// Of the engine: as many sequences and tokens per step as it takes.
constexpr int64_t kMostSequences = 65'536;
constexpr int64_t kMostBatchedTokens = int64_t{1} << 20;

constexpr const char* kByteChatTemplate =
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

std::string format_ms(double seconds) {
  char text[32];
  std::snprintf(text, sizeof text, "%g ms", seconds * 1e3);
  return text;
}

// Of most bytes of the matrices.
WeightType main_weight_type(const ModelFiles& files) {
  std::vector<uint64_t> bytes(kNumWeightTypes);
  for (const TensorInfo& tensor : files.tensors()->tensors())
    bytes[static_cast<size_t>(tensor.type)] += tensor.num_bytes;
  return static_cast<WeightType>(std::max_element(bytes.begin(), bytes.end()) - bytes.begin());
}

Status fill_in_lengths(const std::optional<ModelConfig>& model, EngineConfig& config) {
  const int64_t most = model ? model->max_position_embeddings : kByteModelContext;
  if (config.model.max_model_len == 0) config.model.max_model_len = most;
  if (config.model.max_model_len > most) {
    return invalid_argument("max_model_len " + std::to_string(config.model.max_model_len) + " is above the " +
                                std::to_string(most) + " positions of the model",
                            "max_model_len");
  }
  return ok_status();
}

// Weights, a step's buffers and KV cache in the memory of the GPUs. kTooLarge when they do not fit.
Status plan_gpu_memory(const sim::SimGpu& gpu, int64_t tensor_parallel, WeightType weights, const EngineConfig& config,
                       SimulatedMachine& machine) {
  const ModelConfig& model = *machine.model;
  const DType kv_dtype = parse_dtype(config.cache.kv_cache_dtype).value_or(DType::kBFloat16);
  const auto tp = static_cast<uint64_t>(tensor_parallel);
  MemoryPlanInputs inputs;
  inputs.model = config.model.model + " on " + std::to_string(tp) + " x " + gpu.name;
  inputs.weights_bytes = weight_bytes(model, weights);
  inputs.workspace_bytes = workspace_bytes(model, {.max_num_batched_tokens = config.scheduler.max_num_batched_tokens,
                                                   .max_num_seqs = config.scheduler.max_num_seqs,
                                                   .activation = DType::kBFloat16});
  inputs.kv_bytes_per_token = kv_bytes_per_token(model, kv_dtype);
  inputs.block_size = config.cache.block_size;
  inputs.max_model_len = config.model.max_model_len;
  inputs.max_num_seqs = config.scheduler.max_num_seqs;
  inputs.available_bytes = static_cast<uint64_t>(config.cache.gpu_memory_utilization * gpu.memory_gib * 0x1p30) * tp;
  if (config.cache.kv_cache_memory_bytes > 0) {
    inputs.kv_cache_bytes = static_cast<uint64_t>(config.cache.kv_cache_memory_bytes);
  }
  Result<MemoryPlan> plan = plan_memory(inputs);
  if (!plan.ok()) {
    std::string message = plan.status().message();
    std::replace(message.begin(), message.end(), '\n', ' ');
    return invalid_argument("gpu_type " + std::to_string(tp) + " x " + gpu.name + " cannot hold it: " + message,
                            "gpu_type");
  }
  machine.memory_plan = render(*plan);
  machine.num_blocks = plan->num_blocks - 1;
  machine.weight_bytes = static_cast<int64_t>(inputs.weights_bytes);
  return ok_status();
}

Status use_constant_times(const sim::TimeSpec& spec, EngineConfig& config, SimulatedMachine& machine) {
  machine.timing.constant = spec.constant;
  machine.device = "simulated: constant times, TTFT " + format_ms(spec.constant.ttft_s) + ", TPOT " +
                   format_ms(spec.constant.tpot_s);
  // Constant means for everyone, so nobody may have to wait for a place.
  const SchedulerConfig defaults;
  if (config.scheduler.max_num_seqs == defaults.max_num_seqs) config.scheduler.max_num_seqs = kMostSequences;
  if (config.scheduler.max_num_batched_tokens == defaults.max_num_batched_tokens) {
    config.scheduler.max_num_batched_tokens = kMostBatchedTokens;
  }
  return ok_status();
}

Status use_roofline(const sim::TimeSpec& spec, const SimulateSettings& settings, WeightType weights,
                    const EngineConfig& config, SimulatedMachine& machine) {
  if (!machine.model) {
    return invalid_argument(
        "model is required for roofline times: a GGUF file, a Hugging Face directory, or in --served-model-name (or "
        "MODEL_NAME) a model that is listed",
        "model");
  }
  const std::string& name = spec.gpu.empty() ? settings.gpu_type : spec.gpu;
  if (name.empty()) {
    return invalid_argument("gpu_type is required for roofline times: --gpu-type, GPU_TYPE or roofline:gpu=NAME",
                            "gpu_type");
  }
  sim::RooflineInputs inputs;
  ASSIGN_OR_RETURN(inputs.gpu, find_simulated_gpu(name));
  machine.gpu_type = inputs.gpu.name;
  inputs.model = *machine.model;
  inputs.weights = weights;
  inputs.tensor_parallel = settings.tensor_parallel.value_or(1);
  inputs.compute_share = spec.compute_share;
  inputs.bandwidth_share = spec.bandwidth_share;
  inputs.overhead_s = spec.overhead_s;
  if (machine.model->num_attention_heads % inputs.tensor_parallel != 0) {
    return invalid_argument("tensor_parallel_size " + std::to_string(inputs.tensor_parallel) + " does not divide the " +
                                std::to_string(machine.model->num_attention_heads) + " attention heads of the model",
                            "tensor_parallel_size");
  }
  RETURN_IF_ERROR(plan_gpu_memory(inputs.gpu, inputs.tensor_parallel, weights, config, machine));
  machine.timing.model = std::make_shared<sim::RooflineTime>(std::move(inputs));
  return ok_status();
}

Status use_records(const sim::TimeSpec& spec, const SimulateSettings& settings, WeightType weights,
                   const EngineConfig& config, SimulatedMachine& machine) {
  const std::string& path = spec.file.empty() ? settings.benchmarks : spec.file;
  if (path.empty()) {
    return invalid_argument(
        "benchmarks is required for recorded times: --benchmarks, BENCHMARKS_PATH or record:file=PATH", "benchmarks");
  }
  ASSIGN_OR_RETURN(const std::vector<MeasuredDeployment> deployments, read_measured_points(path));
  ASSIGN_OR_RETURN(const MeasuredDeployment chosen,
                   choose_deployment(deployments, config.model.served_model_name, settings.gpu_type,
                                     settings.tensor_parallel, path));
  ASSIGN_OR_RETURN(sim::RecordTime fitted, sim::RecordTime::fit(chosen.points));
  machine.timing.model = std::make_shared<sim::RecordTime>(std::move(fitted));
  if (!spec.jitter_cv) {
    std::vector<double> spreads;
    for (const sim::MeasuredPoint& point : chosen.points) {
      if (point.tpot_cv) spreads.push_back(*point.tpot_cv);
    }
    std::sort(spreads.begin(), spreads.end());
    if (!spreads.empty()) machine.timing.jitter_cv = spreads[spreads.size() / 2];
  }
  // With the GPU and the model both known, the cache is as large as theirs.
  const Result<sim::SimGpu> gpu = find_simulated_gpu(chosen.gpu_type);
  machine.gpu_type = gpu.ok() ? gpu->name : chosen.gpu_type;
  if (gpu.ok() && machine.model) return plan_gpu_memory(*gpu, chosen.tensor_parallel, weights, config, machine);
  return ok_status();
}

}  // namespace

Result<SimulatedMachine> make_simulated_machine(const SimulateSettings& settings, ServeOptions& options) {
  SimulatedMachine machine;
  EngineConfig& config = options.engine;
  std::string time = settings.time;
  if (time.empty()) {
    time = !settings.benchmarks.empty() ? "record"
           : !settings.gpu_type.empty() ? "roofline"
                                        : "constant:ttft=200ms,tpot=50ms";
  }
  ASSIGN_OR_RETURN(const sim::TimeSpec spec, sim::parse_time_spec(time));
  WeightType weights = WeightType::kBF16;
  if (config.model.model != kByteModel) {
    ASSIGN_OR_RETURN(const std::unique_ptr<ModelFiles> files, open_model(config.model.model, {.need_weights = false}));
    ASSIGN_OR_RETURN(machine.model, model_config_from_files(*files));
    if (files->is_gguf()) weights = main_weight_type(*files);
    machine.weight_type = weight_type_name(weights);
    machine.kv_bytes_per_token = static_cast<int64_t>(kv_bytes_per_token(*machine.model, DType::kBFloat16));
    machine.weight_bytes = static_cast<int64_t>(weight_bytes(*machine.model, weights));
  }
  const bool is_listed_only = !machine.model && spec.kind == sim::TimeSpec::Kind::kRoofline;
  if (is_listed_only) {  // by name; answers are the byte model's
    ASSIGN_OR_RETURN(machine.model, find_listed_model(config.model.served_model_name));
  }
  RETURN_IF_ERROR(fill_in_lengths(machine.model, config));
  machine.timing.seed = static_cast<uint64_t>(settings.sim_seed);
  machine.timing.jitter_cv = spec.jitter_cv.value_or(0);
  machine.num_blocks = kUnboundedBlocks;
  if (config.cache.kv_cache_memory_bytes > 0 && machine.kv_bytes_per_token > 0) {
    machine.num_blocks =
        config.cache.kv_cache_memory_bytes / (machine.kv_bytes_per_token * config.cache.block_size) - 1;
  }
  switch (spec.kind) {
    case sim::TimeSpec::Kind::kConstant: RETURN_IF_ERROR(use_constant_times(spec, config, machine)); break;
    case sim::TimeSpec::Kind::kRoofline: RETURN_IF_ERROR(use_roofline(spec, settings, weights, config, machine)); break;
    case sim::TimeSpec::Kind::kRecord: RETURN_IF_ERROR(use_records(spec, settings, weights, config, machine)); break;
  }
  if (machine.timing.model) machine.device = "simulated: " + machine.timing.model->description();
  if (machine.timing.jitter_cv > 0) {
    char text[48];
    std::snprintf(text, sizeof text, ", jitter %.3g%%", machine.timing.jitter_cv * 100);
    machine.device += text;
  }
  if (machine.num_blocks < 1) {
    return invalid_argument(
        "kv_cache_memory_bytes " + std::to_string(config.cache.kv_cache_memory_bytes) + " does not hold a block",
        "kv_cache_memory_bytes");
  }
  return machine;
}

EngineSource engine_from_simulation(const SimulatedMachine& machine, const ServeOptions& options) {
  EngineSource source;
  source.load_tokenizer = [&options]() -> Result<std::unique_ptr<Tokenizer>> {
    if (options.engine.model.model != kByteModel) return load_tokenizer(options.engine.model.model);
    return std::unique_ptr<Tokenizer>(std::make_unique<ByteTokenizer>(kByteChatTemplate));
  };
  source.create_engine = [&machine](Engine::Options engine_options, const Tokenizer& tokenizer) {
    SimEngineOptions sim;
    sim.config = std::move(engine_options.config);
    sim.timing = machine.timing;
    const auto answers = std::make_shared<const CannedAnswers>(tokenizer);
    sim.choose_text = [answers](const Request& request, int32_t choice_idx) {
      return answers->choose(request, choice_idx);
    };
    sim.info.architecture = machine.model ? machine.model->architecture : "bytes";
    sim.info.weight_type = machine.weight_type;
    sim.info.device = machine.device;
    sim.info.kv_cache_dtype = machine.kv_cache_dtype;
    // What the tokenizer does not know is never said, and a listed model may have no tokenizer here.
    sim.info.vocab_size = tokenizer.vocab_size();
    if (machine.model) {
      sim.info.vocab_size = std::max(sim.info.vocab_size, static_cast<int32_t>(machine.model->vocab_size));
      sim.info.num_parameters = static_cast<int64_t>(count_parameters(*machine.model).stored());
    }
    sim.info.weight_bytes = machine.weight_bytes;
    sim.info.memory_plan = machine.memory_plan;
    sim.info.eos_token_ids = tokenizer.eos_token_ids();
    sim.num_blocks = machine.num_blocks;
    sim.kv_bytes_per_token = machine.kv_bytes_per_token;
    sim.on_step = std::move(engine_options.on_step);
    if (engine_options.on_memory_plan && !machine.memory_plan.empty()) {
      engine_options.on_memory_plan(machine.memory_plan);
    }
    return make_sim_engine(std::move(sim));
  };
  return source;
}

}  // namespace sextant::cli
