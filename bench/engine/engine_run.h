// EngineRun: the whole engine without HTTP, measured: decode by batch and context, prefill by length, a full load. Times are of
// steps, from on_step; a decode case's is the median of the steps in which every sequence gets one token. One thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "engine/base/result.h"
#include "engine/engine.h"
#include "engine/model/model_config.h"

namespace sextant::bench {

struct EngineRunOptions {
  std::string name;         // of the shape or model, for records
  std::string config_json;  // a config.json: random weights of its shape; empty: `model`
  std::string model;        // a GGUF file or a directory, with its weights
  std::string device = "auto";
  int64_t num_threads = 0;
  int64_t max_num_batched_tokens = 512;
  std::vector<int32_t> batches;   // of the decode cases,
  std::vector<int64_t> contexts;  // each with each of these prompts
  int64_t num_decode_steps = 32;  // measured, at least
  std::vector<int64_t> prefills;  // prompts of so many tokens, one after another
  int64_t prefill_prompts = 3;
  int32_t load_requests = 0;  // at once; 0: no full load
  int64_t load_tokens = 0;    // of prompt, and of output
  int64_t kv_cache_memory_bytes = 0;
  std::set<std::string> known;  // cases that are not measured again
  std::string only;             // part of the names of those that are; empty: all
};

// Shapes that need no file: "llama-8b", "tiny".
std::optional<EngineRunOptions> shape_options(const std::string& name);

// Gigabytes per second that `num_threads` threads of this machine read from memory together; the best of several passes.
double measure_read_gb_per_s(int64_t num_threads);

class EngineRun {
 public:
  // Each result as it comes: "engine_case", and numbers.
  EngineRun(EngineRunOptions options, std::function<void(const nlohmann::json&)> on_result)
      : options_(std::move(options)), on_result_(std::move(on_result)) {}

  // Errors: the model cannot be loaded, or a request failed.
  Status run();
  // After run() began measuring.
  const EngineInfo& info() const { return engine_->info(); }
  const EngineConfig& config() const { return config_; }

 private:
  struct Outcome {
    double wall_s = 0;
    double device_busy_s = 0;
    std::vector<StepInfo> steps;
    size_t num_tokens = 0;
  };
  Status load();
  bool wanted(const std::string& name) const;
  Request request(int64_t prompt_tokens, int64_t max_tokens);
  Result<Outcome> run_requests(int64_t count, int64_t prompt_tokens, int64_t max_tokens);
  Status decode(int32_t batch, int64_t context);
  Status prefill(int64_t tokens);
  Status full_load();

  const EngineRunOptions options_;
  const std::function<void(const nlohmann::json&)> on_result_;
  EngineConfig config_;
  ModelConfig facts_;
  WeightType weights_ = WeightType::kBF16;
  DType kv_cache_ = DType::kBFloat16;
  std::mt19937_64 random_{1};
  std::mutex steps_mutex_;
  std::vector<StepInfo> steps_;
  std::unique_ptr<Engine> engine_;  // last: its thread calls on_step
};

}  // namespace sextant::bench
