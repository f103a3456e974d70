#include "server/cli/simulated_machine.h"

#include <algorithm>
#include <cstdio>
#include <utility>

#include "engine/base/log.h"
#include "engine/format/hf_directory.h"
#include "engine/model/memory_model.h"
#include "engine/sim_engine.h"
#include "engine/text/byte_tokenizer.h"
#include "server/cli/canned_answers.h"

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

Result<ModelConfig> read_facts(const std::string& path) {
  ASSIGN_OR_RETURN(const std::unique_ptr<ModelFiles> files, open_model(path, {.need_weights = false}));
  return model_config_from_files(*files);
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

}  // namespace

Result<SimulatedMachine> make_simulated_machine(const SimulateSettings& settings, ServeOptions& options) {
  SimulatedMachine machine;
  EngineConfig& config = options.engine;
  ASSIGN_OR_RETURN(const sim::TimeSpec spec,
                   sim::parse_time_spec(settings.time.empty() ? "constant:ttft=200ms,tpot=50ms" : settings.time));
  if (config.model.model != kByteModel) {
    ASSIGN_OR_RETURN(machine.model, read_facts(config.model.model));
  }
  RETURN_IF_ERROR(fill_in_lengths(machine.model, config));
  machine.timing.seed = static_cast<uint64_t>(settings.sim_seed);
  machine.timing.jitter_cv = spec.jitter_cv.value_or(0);
  if (spec.kind != sim::TimeSpec::Kind::kConstant) return invalid_argument("time must be constant for now", "time");
  machine.timing.constant = spec.constant;
  machine.device = "simulated: constant times, TTFT " + format_ms(spec.constant.ttft_s) + ", TPOT " +
                   format_ms(spec.constant.tpot_s);
  // Constant means for everyone, so nobody may have to wait for a place.
  const SchedulerConfig defaults;
  if (config.scheduler.max_num_seqs == defaults.max_num_seqs) config.scheduler.max_num_seqs = kMostSequences;
  if (config.scheduler.max_num_batched_tokens == defaults.max_num_batched_tokens) {
    config.scheduler.max_num_batched_tokens = kMostBatchedTokens;
  }
  machine.num_blocks = kUnboundedBlocks;
  if (machine.model)
    machine.kv_bytes_per_token = static_cast<int64_t>(kv_bytes_per_token(*machine.model, DType::kBFloat16));
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
    sim.info.vocab_size = tokenizer.vocab_size();
    if (machine.model) {
      sim.info.vocab_size = static_cast<int32_t>(machine.model->vocab_size);
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
