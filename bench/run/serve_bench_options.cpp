// What can be said of a benchmark's options before anything is asked of a server.
#include <cmath>

#include "bench/run/serve_bench.h"

namespace sextant::bench {
namespace {

constexpr size_t kMostRequests = 5'000'000;

}  // namespace

LoadKind load_kind(const LoadOptions& load, const PromptOptions& prompts) {
  if (load.kind) return *load.kind;
  if (!load.stages.empty()) return LoadKind::kStages;
  if (load.ramp_end > 0) return LoadKind::kRamp;
  if (load.day_s > 0) return LoadKind::kDiurnal;
  if (load.request_rate > 0) {
    return load.burstiness == 1          ? LoadKind::kPoisson
           : std::isinf(load.burstiness) ? LoadKind::kConstant
                                         : LoadKind::kGamma;
  }
  if (prompts.dataset == Dataset::kMooncake || prompts.dataset == Dataset::kBurstGpt) return LoadKind::kTrace;
  return load.max_concurrency ? LoadKind::kConcurrency : LoadKind::kAllAtOnce;
}

std::vector<Status> validate(const ServeBenchOptions& options) {
  std::vector<Status> errors;
  const auto require = [&](bool holds, const std::string& message, const std::string& param) {
    if (!holds) errors.push_back(invalid_argument(param + " " + message, param));
  };
  if (const auto url = parse_url(options.url); !url.ok()) errors.push_back(url.status());
  const LoadOptions& load = options.load;
  const LoadKind kind = load_kind(load, options.prompts);
  require(options.num_requests >= 1 && options.num_requests <= kMostRequests,
          "must lie in 1.." + std::to_string(kMostRequests), "num_prompts");
  require(!load.max_concurrency || (*load.max_concurrency >= 1 && *load.max_concurrency <= 1'000'000),
          "must be at least 1", "max_concurrency");
  require(load.burstiness > 0, "must be above 0 (1 is Poisson, inf is constant)", "burstiness");
  require(!load.duration_s || *load.duration_s > 0, "must be above 0", "duration_s");
  const bool searches = options.find_max_rate || options.sweep_points > 0;
  if (!searches) {
    const bool needs_rate = kind == LoadKind::kConstant || kind == LoadKind::kPoisson || kind == LoadKind::kGamma ||
                            kind == LoadKind::kDiurnal;
    require(!needs_rate || load.request_rate > 0, "must be given for the load " + std::string(load_name(kind)),
            "request_rate");
    require(kind != LoadKind::kConcurrency || load.max_concurrency.has_value(),
            "must be given for the load concurrency", "max_concurrency");
    require(kind != LoadKind::kRamp || (load.ramp_begin > 0 && load.ramp_end > 0),
            "must both be given and above 0 for a ramp", "ramp_up_start_rps and ramp_up_end_rps");
    require(kind != LoadKind::kStages || !load.stages.empty(), "must be given for the load stages", "stages");
    require(kind != LoadKind::kDiurnal || load.day_s > 0,
            "must be given for the load diurnal: the seconds that a day takes", "day_s");
    require(kind != LoadKind::kTrace || options.prompts.dataset == Dataset::kMooncake ||
                options.prompts.dataset == Dataset::kBurstGpt,
            "must be mooncake or burstgpt for the load trace", "dataset_name");
  }
  if (!load.daily_shape.empty()) {
    if (const auto curve = daily_rate(1, load.daily_shape, 1); !curve.ok()) errors.push_back(curve.status());
  }
  require(load.trace_speed > 0, "must be above 0", "trace_speed");
  require(!options.find_max_rate || !options.slo.empty(), "must say what to keep, such as \"ttft:p95<300ms\"", "slo");
  require(!(options.find_max_rate && options.sweep_points > 0), "and --find-max-rate exclude each other", "sweep");
  require(options.sweep_points == 0 || options.sweep_points >= 3,
          "must be at least 3: idle, full load and a rate in between", "sweep");
  require(options.rate_precision > 0 && options.rate_precision <= 1, "must lie in (0, 1]", "rate_precision");
  const PromptOptions& prompts = options.prompts;
  require(prompts.dataset == Dataset::kRandom || !prompts.dataset_path.empty(), "must be given for this data set",
          "dataset_path");
  require(!(prompts.as_token_ids && prompts.chat), "needs the completions endpoint: chat takes messages", "prompt_ids");
  require(!(prompts.as_token_ids && prompts.num_turns > 1), "cannot carry a conversation", "prompt_ids");
  require(!(prompts.as_token_ids && (prompts.dataset == Dataset::kShareGpt || prompts.dataset == Dataset::kCustom)),
          "is for drawn prompts (random, mooncake, burstgpt)", "prompt_ids");
  require(prompts.prefix_tokens >= 0, "must not be negative", "random_prefix_len");
  require(prompts.num_prefixes >= 1 && prompts.num_prefixes <= 100'000, "must lie in 1..100000", "num_prefixes");
  require(prompts.num_turns >= 1 && prompts.num_turns <= 1000, "must lie in 1..1000", "num_turns");
  require(prompts.think_time_s >= 0, "must not be negative", "think_time_s");
  require(options.warmup_s >= 0, "must not be negative", "warmup_s");
  require(options.cooldown_s >= 0, "must not be negative", "cooldown_s");
  require(options.num_warmups >= 0, "must not be negative", "num_warmups");
  require(options.request_timeout_s > 0, "must be above 0", "request_timeout_s");
  for (const std::string& header : options.headers) {
    require(header.find(':') != std::string::npos && header.find_first_of("\r\n") == std::string::npos,
            "must be \"Name: value\"", "header");
  }
  require(options.api_key.find_first_of("\r\n") == std::string::npos, "must be one line", "api_key");
  require(options.endpoint.empty() ||
              (options.endpoint[0] == '/' && options.endpoint.find_first_of(" \r\n") == std::string::npos),
          "must be a path such as /v1/completions", "endpoint");
  return errors;
}

}  // namespace sextant::bench
