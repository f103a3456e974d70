// The whole engine on random weights of a model's shape: decode at several batch sizes, prefill, a full load, and the share of
// time that the device is at work. Writes one JSON object per line as it goes; a case that the file holds is not measured again.
//   engine_bench --shape llama-8b --device cuda --out measure.jsonl [--only decode/]
// Times are of steps, from on_step; a decode case's is the median of the steps in which every sequence gets one token. On the CPU
// and under the emulator it runs too ("tiny"): a program that tests itself, whose times say nothing about a GPU.
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <mutex>
#include <nlohmann/json.hpp>
#include <random>
#include <set>

#include "engine/base/clock.h"
#include "engine/engine.h"
#include "engine/format/hf_directory.h"
#include "engine/model/memory_model.h"
#include "engine/model/model_config.h"

namespace sextant::bench {
namespace {

struct Shape {
  const char* name;
  const char* config;  // a config.json
  int64_t max_num_batched_tokens;
  int64_t context;               // prompt of the decode cases
  int64_t num_decode_steps;      // measured, at least
  std::vector<int32_t> batches;  // of the decode cases
  int64_t prefill_prompts;       // each of max_num_batched_tokens
  int32_t load_requests;         // at once
  int64_t load_tokens;           // of prompt, and of output
};

// Llama-3.1-8B's shape: huggingface.co/meta-llama/Llama-3.1-8B, config.json.
const Shape kShapes[] = {
    {"llama-8b",
     R"({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 128256, "hidden_size": 4096,
         "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
         "head_dim": 128, "max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "rope_theta": 500000.0,
         "hidden_act": "silu", "tie_word_embeddings": false, "torch_dtype": "bfloat16"})",
     8192,
     1024,
     64,
     {1, 2, 4, 8, 16, 32, 64, 128, 256},
     6,
     256,
     1000},
    {"tiny",
     R"({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 320, "hidden_size": 64,
         "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
         "head_dim": 16, "max_position_embeddings": 1024, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
         "hidden_act": "silu", "tie_word_embeddings": false, "torch_dtype": "bfloat16"})",
     64,
     24,
     4,
     {1, 3},
     2,
     4,
     8},
};

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

class EngineBench {
 public:
  EngineBench(const Shape& shape, std::string out, std::string only)
      : shape_(shape), out_(std::move(out)), only_(std::move(only)) {
    std::ifstream file(out_);
    for (std::string line; std::getline(file, line);) {
      const auto record = nlohmann::json::parse(line, nullptr, false);
      if (record.is_object() && record.contains("engine_case")) known_.insert(record["engine_case"].get<std::string>());
    }
  }

  int run(const std::string& device) {
    const std::filesystem::path folder =
        std::filesystem::temp_directory_path() / ("sextant-engine-bench-" + std::to_string(getpid()));
    std::filesystem::create_directories(folder);
    std::ofstream(folder / "config.json") << shape_.config;
    EngineConfig config;
    config.model.model = folder.string();
    config.model.load_format = "dummy";
    config.model.max_model_len = std::max(2 * shape_.load_tokens, shape_.max_num_batched_tokens) + 256;
    if (std::string(shape_.name) == "tiny") config.cache.kv_cache_memory_bytes = 4 << 20;
    config.cache.enable_prefix_caching = false;
    config.scheduler.max_num_seqs = *std::max_element(shape_.batches.begin(), shape_.batches.end());
    config.scheduler.max_num_batched_tokens = shape_.max_num_batched_tokens;
    config.device.device = device;
    const int64_t begin_ns = SteadyClock::instance().now_ns();
    Engine::Options options{.config = config, .eos_token_ids = {}, .on_step = {}, .on_memory_plan = {}};
    options.on_step = [this](const StepInfo& step) {
      const std::lock_guard lock(steps_mutex_);
      steps_.push_back(step);
    };
    const Result<std::unique_ptr<ModelFiles>> files = open_model(folder.string(), {.need_weights = false});
    if (files.ok()) {
      if (Result<ModelConfig> facts = model_config_from_files(**files); facts.ok()) facts_ = std::move(facts).value();
    }
    Result<std::unique_ptr<Engine>> engine = Engine::create(std::move(options));
    std::filesystem::remove_all(folder);
    if (!engine.ok()) {
      std::cerr << "engine_bench: " << engine.status().message() << "\n";
      return 1;
    }
    engine_ = std::move(engine).value();
    std::cerr << engine_->info().memory_plan << "\n";
    record({{"engine_case", "load"},
            {"device", engine_->info().device},
            {"shape", shape_.name},
            {"ready_s", static_cast<double>(SteadyClock::instance().now_ns() - begin_ns) * 1e-9},
            {"weight_bytes", engine_->info().weight_bytes},
            {"kv_cache_bytes", engine_->info().kv_cache_bytes}});
    for (const int32_t batch : shape_.batches) {
      if (!decode(batch)) return 1;
    }
    return prefill() && full_load() ? 0 : 1;
  }

 private:
  bool wanted(const std::string& name) const {
    return !known_.contains(name) && (only_.empty() || name.find(only_) != std::string::npos);
  }
  void record(nlohmann::json object) {
    std::cerr << object.dump() << "\n";
    if (out_.empty()) return;
    std::ofstream file(out_, std::ios::app);
    file << object.dump() << "\n";
  }
  Request request(int64_t prompt_tokens, int64_t max_tokens) {
    Request made;
    for (int64_t i = 0; i < prompt_tokens; ++i) {
      made.prompt_token_ids.push_back(
          static_cast<int32_t>(random_() % static_cast<uint64_t>(engine_->info().vocab_size)));
    }
    made.sampling.max_tokens = max_tokens;
    made.sampling.temperature = 0;
    made.sampling.ignore_eos = true;
    return made;
  }
  struct Run {
    double wall_s = 0;
    double device_busy_s = 0;
    std::vector<StepInfo> steps;
    size_t num_tokens = 0;
  };
  // All requests at once, to their end; nothing when one failed.
  std::optional<Run> run_requests(int64_t count, int64_t prompt_tokens, int64_t max_tokens) {
    const auto sink = std::make_shared<CountingSink>();
    std::vector<Request> requests;
    for (int64_t i = 0; i < count; ++i) requests.push_back(request(prompt_tokens, max_tokens));
    {
      const std::lock_guard lock(steps_mutex_);
      steps_.clear();
    }
    const double busy_before_s = engine_->stats().device_busy_s;
    const int64_t begin_ns = SteadyClock::instance().now_ns();
    for (Request& made : requests) {
      if (const auto id = engine_->submit(std::move(made), sink); !id.ok()) {
        std::cerr << "engine_bench: " << id.status().message() << "\n";
        return std::nullopt;
      }
    }
    if (const std::string error = sink->wait(static_cast<size_t>(count)); !error.empty()) {
      std::cerr << "engine_bench: " << error << "\n";
      return std::nullopt;
    }
    Run run;
    run.wall_s = static_cast<double>(SteadyClock::instance().now_ns() - begin_ns) * 1e-9;
    engine_->wait_drained(10);
    run.device_busy_s = engine_->stats().device_busy_s - busy_before_s;
    run.num_tokens = sink->num_tokens();
    const std::lock_guard lock(steps_mutex_);
    run.steps = steps_;
    return run;
  }

  bool decode(int32_t batch) {
    const std::string name = "decode/" + std::to_string(batch) + "/" + std::to_string(shape_.context);
    if (!wanted(name)) return true;
    // Sequences that were prefilled early wait decoding for the late ones: as many steps more.
    const int64_t prefill_steps = batch * shape_.context / shape_.max_num_batched_tokens + 2;
    const std::optional<Run> run = run_requests(batch, shape_.context, shape_.num_decode_steps + prefill_steps);
    if (!run) return false;
    std::vector<double> seconds;
    for (const StepInfo& step : run->steps) {
      if (step.num_sequences == batch && step.num_tokens == batch) seconds.push_back(step.execute_s);
    }
    const double step_s = median(seconds);
    // The least that such a step moves and computes, halfway through.
    const std::vector<int64_t> lengths(static_cast<size_t>(batch), shape_.context + shape_.num_decode_steps / 2);
    const StepWork work = decode_step_work(facts_, WeightType::kBF16, DType::kBFloat16, lengths);
    record({{"engine_case", name},
            {"batch", batch},
            {"context_tokens", shape_.context},
            {"num_steps", seconds.size()},
            {"median_step_s", step_s},
            {"tokens_per_s", step_s > 0 ? batch / step_s : 0},
            {"bytes", work.bytes},
            {"flops", work.flops}});
    return true;
  }

  bool prefill() {
    const int64_t tokens = shape_.max_num_batched_tokens;
    const std::string name = "prefill/" + std::to_string(tokens);
    if (!wanted(name)) return true;
    std::vector<double> seconds;
    for (int64_t i = 0; i < shape_.prefill_prompts; ++i) {  // one after another: each is one step of `tokens`
      const std::optional<Run> run = run_requests(1, tokens, 1);
      if (!run) return false;
      for (const StepInfo& step : run->steps) {
        if (step.num_tokens == tokens) seconds.push_back(step.execute_s);
      }
    }
    const double step_s = median(seconds);
    const StepWork work = prefill_work(facts_, WeightType::kBF16, DType::kBFloat16, tokens);
    record({{"engine_case", name},
            {"num_steps", seconds.size()},
            {"median_step_s", step_s},
            {"tokens_per_s", step_s > 0 ? static_cast<double>(tokens) / step_s : 0},
            {"bytes", work.bytes},
            {"flops", work.flops}});
    return true;
  }

  bool full_load() {
    const std::string name = "load/" + std::to_string(shape_.load_requests) + "x" + std::to_string(shape_.load_tokens) +
                             "/" + std::to_string(shape_.load_tokens);
    if (!wanted(name)) return true;
    const std::optional<Run> run = run_requests(shape_.load_requests, shape_.load_tokens, shape_.load_tokens);
    if (!run) return false;
    record({{"engine_case", name},
            {"num_steps", run->steps.size()},
            {"wall_s", run->wall_s},
            {"output_tokens_per_s", static_cast<double>(run->num_tokens) / run->wall_s},
            {"device_busy_share", run->device_busy_s / run->wall_s},
            {"num_preemptions", engine_->stats().num_preemptions}});
    return true;
  }

  const Shape& shape_;
  std::string out_;
  std::string only_;
  std::set<std::string> known_;
  ModelConfig facts_;
  std::mt19937_64 random_{1};
  std::mutex steps_mutex_;
  std::vector<StepInfo> steps_;
  std::unique_ptr<Engine> engine_;  // last: its thread calls on_step
};

int main_of(int argc, char** argv) {
  std::string shape = "llama-8b", device = "cuda", out, only;
  for (int i = 1; i < argc; ++i) {
    const std::string flag = argv[i];
    std::string* value = flag == "--shape"    ? &shape
                         : flag == "--device" ? &device
                         : flag == "--out"    ? &out
                         : flag == "--only"   ? &only
                                              : nullptr;
    if (value == nullptr || i + 1 == argc) {
      std::cerr << "usage: engine_bench [--shape llama-8b|tiny] [--device cuda|cpu|cuda-emulated] [--out FILE] [--only "
                   "PART]\n";
      return 2;
    }
    *value = argv[++i];
  }
  for (const Shape& known : kShapes) {
    if (shape == known.name) return EngineBench(known, out, only).run(device);
  }
  std::cerr << "engine_bench: no shape " << shape << "; there are llama-8b and tiny\n";
  return 2;
}

}  // namespace
}  // namespace sextant::bench

int main(int argc, char** argv) { return sextant::bench::main_of(argc, argv); }
