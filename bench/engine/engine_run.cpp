#include "bench/engine/engine_run.h"

#include <unistd.h>

#include <algorithm>
#include <condition_variable>
#include <filesystem>
#include <fstream>
#include <thread>
#include <utility>

#include "engine/base/clock.h"
#include "engine/format/hf_directory.h"
#include "engine/model/memory_model.h"

namespace sextant::bench {
namespace {

// Llama-3.1-8B's shape: huggingface.co/meta-llama/Llama-3.1-8B, config.json.
constexpr const char* kLlama8b =
    R"({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 128256, "hidden_size": 4096,
         "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
         "head_dim": 128, "max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "rope_theta": 500000.0,
         "hidden_act": "silu", "tie_word_embeddings": false, "torch_dtype": "bfloat16"})";
constexpr const char* kTiny =
    R"({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 320, "hidden_size": 64,
         "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
         "head_dim": 16, "max_position_embeddings": 1024, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
         "hidden_act": "silu", "tie_word_embeddings": false, "torch_dtype": "bfloat16"})";

class CountingSink final : public OutputSink {
 public:
  void deliver(std::vector<OutputEvent> events) override {
    const std::lock_guard lock(mutex_);
    for (const OutputEvent& event : events) {
      num_tokens_ += event.token_ids.size();
      if (!event.finish_reason) continue;
      ++num_ended_;
      if (*event.finish_reason == FinishReason::kError) error_ = event.error.empty() ? "failed" : event.error;
    }
    changed_.notify_all();
  }
  // Empty, or the error that ended a request.
  std::string wait(size_t count) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return num_ended_ >= count || !error_.empty(); });
    return error_;
  }
  size_t num_tokens() const { return num_tokens_; }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  size_t num_ended_ = 0;
  size_t num_tokens_ = 0;
  std::string error_;
};

double median(std::vector<double> values) {
  if (values.empty()) return 0;
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

}  // namespace

std::optional<EngineRunOptions> shape_options(const std::string& name) {
  EngineRunOptions options;
  options.name = name;
  if (name == "llama-8b") {
    options.config_json = kLlama8b;
    options.max_num_batched_tokens = 8192;
    options.batches = {1, 2, 4, 8, 16, 32, 64, 128, 256};
    options.contexts = {1024};
    options.num_decode_steps = 64;
    options.prefills = {8192};
    options.prefill_prompts = 6;
    options.load_requests = 256;
    options.load_tokens = 1000;
    return options;
  }
  if (name == "tiny") {
    options.config_json = kTiny;
    options.max_num_batched_tokens = 64;
    options.batches = {1, 3};
    options.contexts = {24};
    options.num_decode_steps = 4;
    options.prefills = {64};
    options.prefill_prompts = 2;
    options.load_requests = 4;
    options.load_tokens = 8;
    options.kv_cache_memory_bytes = 4 << 20;
    return options;
  }
  return std::nullopt;
}

double measure_read_gb_per_s(int64_t num_threads) {
  constexpr size_t kBytesPerThread = size_t{96} << 20;  // far more than a core's share of any cache
  constexpr int kPasses = 5;
  std::vector<std::vector<uint64_t>> buffers(static_cast<size_t>(num_threads));
  double best = 0;
  for (int pass = 0; pass < kPasses; ++pass) {
    const int64_t begin_ns = SteadyClock::instance().now_ns();
    std::vector<std::thread> threads;
    std::vector<uint64_t> sums(buffers.size());
    for (size_t t = 0; t < buffers.size(); ++t) {
      threads.emplace_back([&buffers, &sums, t] {
        std::vector<uint64_t>& words = buffers[t];
        if (words.empty()) words.assign(kBytesPerThread / sizeof(uint64_t), t);  // the first pass only touches
        uint64_t a = 0, b = 0, c = 0, d = 0;
        for (size_t i = 0; i + 4 <= words.size(); i += 4)
          a += words[i], b += words[i + 1], c += words[i + 2], d += words[i + 3];
        sums[t] = a + b + c + d;
      });
    }
    for (std::thread& thread : threads) thread.join();
    for (size_t t = 0; t < sums.size(); ++t) CHECK_EQ(sums[t], t * buffers[t].size());
    const double seconds = static_cast<double>(SteadyClock::instance().now_ns() - begin_ns) * 1e-9;
    if (pass > 0) best = std::max(best, static_cast<double>(kBytesPerThread * buffers.size()) / seconds * 1e-9);
  }
  return best;
}

Status EngineRun::load() {
  std::filesystem::path folder;
  config_.model.model = options_.model;
  if (!options_.config_json.empty()) {
    folder = std::filesystem::temp_directory_path() / ("sextant-engine-bench-" + std::to_string(getpid()));
    std::filesystem::create_directories(folder);
    std::ofstream(folder / "config.json") << options_.config_json;
    config_.model.model = folder.string();
    config_.model.load_format = "dummy";
  }
  int64_t longest = std::max(2 * options_.load_tokens, options_.max_num_batched_tokens);
  for (const int64_t tokens : options_.prefills) longest = std::max(longest, tokens);
  const int64_t most_batch =
      options_.batches.empty() ? 1 : *std::max_element(options_.batches.begin(), options_.batches.end());
  for (const int64_t context : options_.contexts) {
    const int64_t prefill_steps = most_batch * context / options_.max_num_batched_tokens + 2;
    longest = std::max(longest, context + options_.num_decode_steps + prefill_steps);
  }
  config_.model.max_model_len = longest + 256;
  config_.cache.kv_cache_memory_bytes = options_.kv_cache_memory_bytes;
  config_.cache.enable_prefix_caching = false;
  config_.scheduler.max_num_seqs = most_batch;
  config_.scheduler.max_num_batched_tokens = std::max(options_.max_num_batched_tokens, most_batch);
  config_.device.device = options_.device;
  config_.device.num_threads = options_.num_threads;
  const int64_t begin_ns = SteadyClock::instance().now_ns();
  const auto finish = [&]() -> Status {
    ASSIGN_OR_RETURN(const std::unique_ptr<ModelFiles> files, open_model(config_.model.model, {.need_weights = false}));
    ASSIGN_OR_RETURN(facts_, model_config_from_files(*files));
    config_.model.max_model_len = std::min(config_.model.max_model_len, facts_.max_position_embeddings);
    Engine::Options options{.config = config_, .eos_token_ids = {}, .on_step = {}, .on_memory_plan = {}};
    options.on_step = [this](const StepInfo& step) {
      const std::lock_guard lock(steps_mutex_);
      steps_.push_back(step);
    };
    ASSIGN_OR_RETURN(engine_, Engine::create(std::move(options)));
    return ok_status();
  };
  const Status loaded = finish();
  if (!folder.empty()) std::filesystem::remove_all(folder);
  RETURN_IF_ERROR(loaded);
  weights_ = parse_weight_type(info().weight_type).value_or(WeightType::kBF16);
  kv_cache_ = parse_dtype(info().kv_cache_dtype).value_or(DType::kBFloat16);
  on_result_({{"engine_case", "load"},
              {"device", info().device},
              {"shape", options_.name},
              {"ready_s", static_cast<double>(SteadyClock::instance().now_ns() - begin_ns) * 1e-9},
              {"weight_bytes", info().weight_bytes},
              {"kv_cache_bytes", info().kv_cache_bytes}});
  return ok_status();
}

Status EngineRun::run() {
  RETURN_IF_ERROR(load());
  for (const int64_t context : options_.contexts) {
    for (const int32_t batch : options_.batches) RETURN_IF_ERROR(decode(batch, context));
  }
  for (const int64_t tokens : options_.prefills) RETURN_IF_ERROR(prefill(tokens));
  return options_.load_requests > 0 ? full_load() : ok_status();
}

bool EngineRun::wanted(const std::string& name) const {
  return !options_.known.contains(name) && (options_.only.empty() || name.find(options_.only) != std::string::npos);
}

Request EngineRun::request(int64_t prompt_tokens, int64_t max_tokens) {
  Request made;
  for (int64_t i = 0; i < prompt_tokens; ++i) {
    made.prompt_token_ids.push_back(static_cast<int32_t>(random_() % static_cast<uint64_t>(info().vocab_size)));
  }
  made.sampling.max_tokens = max_tokens;
  made.sampling.temperature = 0;
  made.sampling.ignore_eos = true;
  return made;
}

// All requests at once, to their end.
Result<EngineRun::Outcome> EngineRun::run_requests(int64_t count, int64_t prompt_tokens, int64_t max_tokens) {
  const auto sink = std::make_shared<CountingSink>();
  std::vector<Request> requests;
  for (int64_t i = 0; i < count; ++i) requests.push_back(request(prompt_tokens, max_tokens));
  {
    const std::lock_guard lock(steps_mutex_);
    steps_.clear();
  }
  const double busy_before_s = engine_->stats().device_busy_s;
  const int64_t begin_ns = SteadyClock::instance().now_ns();
  for (Request& made : requests) RETURN_IF_ERROR(engine_->submit(std::move(made), sink).status());
  if (const std::string error = sink->wait(static_cast<size_t>(count)); !error.empty()) {
    return Status(StatusCode::kDeviceError, error);
  }
  Outcome outcome;
  outcome.wall_s = static_cast<double>(SteadyClock::instance().now_ns() - begin_ns) * 1e-9;
  engine_->wait_drained(10);
  outcome.device_busy_s = engine_->stats().device_busy_s - busy_before_s;
  outcome.num_tokens = sink->num_tokens();
  const std::lock_guard lock(steps_mutex_);
  outcome.steps = steps_;
  return outcome;
}

Status EngineRun::decode(int32_t batch, int64_t context) {
  const std::string name = "decode/" + std::to_string(batch) + "/" + std::to_string(context);
  if (!wanted(name)) return ok_status();
  // Sequences that were prefilled early wait decoding for the late ones: as many steps more.
  const int64_t prefill_steps = batch * context / config_.scheduler.max_num_batched_tokens + 2;
  ASSIGN_OR_RETURN(const Outcome outcome, run_requests(batch, context, options_.num_decode_steps + prefill_steps));
  std::vector<double> seconds;
  for (const StepInfo& step : outcome.steps) {
    if (step.num_sequences == batch && step.num_tokens == batch) seconds.push_back(step.execute_s);
  }
  const double step_s = median(seconds);
  // The least that such a step moves and computes, halfway through.
  const std::vector<int64_t> lengths(static_cast<size_t>(batch), context + options_.num_decode_steps / 2);
  const StepWork work = decode_step_work(facts_, weights_, kv_cache_, lengths);
  on_result_({{"engine_case", name},
              {"batch", batch},
              {"context_tokens", context},
              {"num_steps", seconds.size()},
              {"median_step_s", step_s},
              {"tokens_per_s", step_s > 0 ? batch / step_s : 0},
              {"bytes", work.bytes},
              {"flops", work.flops}});
  return ok_status();
}

// One prompt after another; without a budget as large as it, a prompt takes several steps.
Status EngineRun::prefill(int64_t tokens) {
  const std::string name = "prefill/" + std::to_string(tokens);
  if (!wanted(name)) return ok_status();
  std::vector<double> seconds;
  for (int64_t i = 0; i < options_.prefill_prompts; ++i) {
    ASSIGN_OR_RETURN(const Outcome outcome, run_requests(1, tokens, 1));
    double sum_s = 0;
    for (const StepInfo& step : outcome.steps) sum_s += step.execute_s;
    seconds.push_back(sum_s);
  }
  const double prompt_s = median(seconds);
  const StepWork work = prefill_work(facts_, weights_, kv_cache_, tokens);
  on_result_({{"engine_case", name},
              {"prompt_tokens", tokens},
              {"num_steps", seconds.size()},
              {"median_step_s", prompt_s},
              {"tokens_per_s", prompt_s > 0 ? static_cast<double>(tokens) / prompt_s : 0},
              {"bytes", work.bytes},
              {"flops", work.flops}});
  return ok_status();
}

Status EngineRun::full_load() {
  const std::string name = "load/" + std::to_string(options_.load_requests) + "x" +
                           std::to_string(options_.load_tokens) + "/" + std::to_string(options_.load_tokens);
  if (!wanted(name)) return ok_status();
  ASSIGN_OR_RETURN(const Outcome outcome,
                   run_requests(options_.load_requests, options_.load_tokens, options_.load_tokens));
  on_result_({{"engine_case", name},
              {"num_steps", outcome.steps.size()},
              {"wall_s", outcome.wall_s},
              {"output_tokens_per_s", static_cast<double>(outcome.num_tokens) / outcome.wall_s},
              {"device_busy_share", outcome.device_busy_s / outcome.wall_s},
              {"num_preemptions", engine_->stats().num_preemptions}});
  return ok_status();
}

}  // namespace sextant::bench
