// `sextant advise predict` and `sextant advise fit`: one configuration's latencies under loads; whether it fits and how many
// users it then serves.
#include <algorithm>
#include <cmath>
#include <cstdio>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "advisor/kb/knowledge_base.h"
#include "advisor/memory_fit.h"
#include "advisor/predict/predictor.h"
#include "advisor/queueing/step_estimate.h"
#include "advisor/world.h"
#include "server/cli/advise.h"
#include "server/cli/advise_forecast.h"

namespace sextant::cli {
namespace {

using nlohmann::ordered_json;

double rounded(double value) { return std::round(value * 1000) / 1000; }

ordered_json figure(const advisor::Prediction& p) {
  return {{"mean_ms", rounded(p.mean)},
          {"low90_ms", rounded(p.low)},
          {"high90_ms", rounded(p.high)},
          {"provenance", advisor::provenance_name(p.provenance)}};
}

class PredictVerb final : public Verb {
 public:
  explicit PredictVerb(bool fit) : fit_(fit) {}
  std::string name() const override { return fit_ ? "advise fit" : "advise predict"; }
  std::string description() const override {
    return fit_ ? "will a model fit on a GPU, and how many users does it serve"
                : "latencies of a configuration under loads: means with intervals, percentiles under rates";
  }
  std::string examples() const override {
    return fit_ ? "  sextant advise fit --model Qwen/Qwen3-32B --gpu H100-SXM5-80GB --quantization fp8\n"
                  "  sextant advise fit --model meta-llama/Llama-3.1-70B --gpu A100-80GB --tensor-parallel 4 "
                  "--prompt-tokens 4000 --json\n"
                : "  sextant advise predict --model Qwen/Qwen3-32B --gpu h100_sxm --engine vllm --quantization fp8 "
                  "--tensor-parallel 2 \\\n"
                  "      --concurrency 8,32,128 --prompt-tokens 1024 --output-tokens 512\n"
                  "  sextant advise predict --model Qwen/Qwen3-32B --gpu h100_sxm --tensor-parallel 2 --request-rate "
                  "1,2,4 "
                  "--burstiness 0.25\n"
                  "  sextant advise predict --records bench.jsonl --request-rate 3,6,9 --prompt-tokens 512\n";
  }

  void declare(CLI::App& app) override {
    app.add_option("--model", point_.model_id, "as `sextant kb list models` names it")->type_name("ID");
    app.add_option("--gpu", point_.gpu, "name or alias")->type_name("GPU");
    app.add_option("--engine", point_.engine, "vllm, sglang, trtllm, ...")->type_name("NAME")->capture_default_str();
    app.add_option("--engine-version", point_.engine_version, "default: unknown")->type_name("VERSION");
    app.add_option("--quantization", quantization_, "of the weights")->type_name("NAME")->capture_default_str();
    app.add_option("--tensor-parallel", point_.tensor_parallel)->type_name("N")->capture_default_str();
    app.add_option("--expert-parallel", point_.moe_expert_parallel)->type_name("N")->capture_default_str();
    app.add_option("--concurrency", loads_, "requests in flight on one replica")->type_name("N")->delimiter(',');
    app.add_option("--prompt-tokens", point_.prompt_tokens)->type_name("N")->capture_default_str();
    app.add_option("--output-tokens", point_.output_tokens)->type_name("N")->capture_default_str();
    app.add_option("--ttft-limit-ms", ttft_limit_, "limit of the mean")->type_name("MS")->capture_default_str();
    app.add_option("--tpot-limit-ms", tpot_limit_, "limit of the mean")->type_name("MS")->capture_default_str();
    if (!fit_) declare_forecast(app, forecast_);
    if (fit_)
      app.add_option("--concurrency-ratio", ratio_, "share of the users who wait for an answer at one time")
          ->type_name("X")
          ->capture_default_str();
    app.add_option("--kb", location_, "a SQLite file or postgresql://...")->type_name("PATH|URL");
    app.add_flag("--json", json_, "one JSON object");
  }

  int run(const std::vector<Status>& bad_flags) override {
    std::vector<Status> errors = bad_flags;
    const auto range = [&](const char* flag, double value, double low, double high, bool whole) {
      if (value >= low && value <= high && (!whole || value == std::floor(value))) return;
      char text[120];
      std::snprintf(text, sizeof text, "%s must be a %s from %g to %g", flag, whole ? "whole number" : "number", low,
                    high);
      errors.push_back(invalid_argument(text, flag));
    };
    range("--tensor-parallel", point_.tensor_parallel, 1, 4096, true);
    range("--expert-parallel", point_.moe_expert_parallel, 1, 4096, true);
    range("--prompt-tokens", point_.prompt_tokens, 1, 1e8, true);
    range("--output-tokens", point_.output_tokens, 1, 1e8, true);
    range("--ttft-limit-ms", ttft_limit_, 1e-3, 1e9, false);
    range("--tpot-limit-ms", tpot_limit_, 1e-3, 1e9, false);
    range("--concurrency-ratio", ratio_, 1e-6, 1, false);
    for (const Status& error : validate(forecast_)) errors.push_back(error);
    if (forecast_.records.empty()) {
      if (point_.model_id.empty()) errors.push_back(invalid_argument("--model is needed", "--model"));
      if (point_.gpu.empty()) errors.push_back(invalid_argument("--gpu is needed", "--gpu"));
    } else {
      for (const double load : loads_) range("--concurrency", load, 1, 1e5, true);
      if (loads_.empty() && forecast_.rates.empty()) {
        errors.push_back(
            invalid_argument("--records needs --request-rate or --concurrency: the loads to predict", "--records"));
      }
      if (!errors.empty()) return report_bad_input(name(), errors);
      return forecast_from_records(forecast_, question({loads_.begin(), loads_.end()}),
                                   {point_.model_id, point_.gpu, ranks_asked()});
    }
    if (loads_.empty()) loads_ = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512};
    for (const double load : loads_) range("--concurrency", load, 1, 1e6, true);
    if (!errors.empty()) return report_bad_input(name(), errors);
    std::sort(loads_.begin(), loads_.end());
    loads_.erase(std::unique(loads_.begin(), loads_.end()), loads_.end());
    point_.gemm_quant = point_.moe_quant = quantization_;
    point_.moe_tensor_parallel = std::max(1.0, point_.tensor_parallel / point_.moe_expert_parallel);

    auto kb = advisor::KnowledgeBase::open(location_.empty() ? advisor::default_kb_location() : location_);
    if (!kb.ok()) return failed(kb.status());
    // Ages of prices do not matter here.
    const auto world = advisor::load_world(*kb, {.as_of = "2026-01-01", .version = version_text()});
    if (!world.ok()) return failed(world.status());
    const advisor::KbSnapshot* snapshot = &(*world)->snapshot;
    advisor::FitInputs inputs;
    inputs.model_id = point_.model_id;
    inputs.gpu = point_.gpu;
    inputs.quantization = quantization_;
    inputs.tensor_parallel = point_.tensor_parallel;
    inputs.context_tokens = point_.prompt_tokens + point_.output_tokens;
    const auto fit = advisor::memory_fit(inputs, snapshot->facts, snapshot->gpus);
    if (!fit.ok()) return report_bad_input(name(), {fit.status()});
    ordered_json out = {{"schema", fit_ ? "sextant.fit/1" : "sextant.prediction/1"},
                        {"model_id", point_.model_id},
                        {"gpu", point_.gpu},
                        {"engine", point_.engine},
                        {"quantization", quantization_},
                        {"tensor_parallel", point_.tensor_parallel},
                        {"prompt_tokens", point_.prompt_tokens},
                        {"output_tokens", point_.output_tokens},
                        {"fits", fit->fits()},
                        {"reason", fit->reason.empty() ? ordered_json(nullptr) : ordered_json(fit->reason)},
                        {"memory_per_gpu_gib",
                         {{"total", rounded(fit->total_gib)},
                          {"usable", rounded(fit->usable_gib)},
                          {"weights", rounded(fit->weights_gib)},
                          {"activations", rounded(fit->activations_gib)},
                          {"overhead", rounded(fit->overhead_gib)},
                          {"kv_cache", rounded(fit->kv_cache_gib)}}},
                        {"max_sequences", fit->sequences}};
    if (!json_) print_memory(*fit);
    if (!fit->fits()) {
      if (json_) std::printf("%s\n", out.dump(2).c_str());
      return kExitLimitMissed;
    }

    const advisor::Predictor* predictor = &(*world)->predictor();
    ordered_json loads = ordered_json::array();
    double best = 0;
    bool passing = true;
    if (!json_ && forecast_.rates.empty())
      std::printf(
          "\nrequests     mean TTFT ms, 90%% interval       mean TPOT ms, 90%% interval      tokens/s  provenance    "
          "TTFT, TPOT within limits\n");
    std::vector<double> kept;
    std::vector<advisor::Prediction> ttfts, tpots;
    for (const double load : loads_) {
      if (load > fit->sequences && fit_) break;
      point_.concurrency = load;
      const auto ttft = predictor->predict(advisor::Metric::kTtft, point_);
      const auto tpot = predictor->predict(advisor::Metric::kTpot, point_);
      if (!ttft.ok() || !tpot.ok()) return report_bad_input(name(), {ttft.ok() ? tpot.status() : ttft.status()});
      kept.push_back(load);
      ttfts.push_back(*ttft);
      tpots.push_back(*tpot);
    }
    advisor::order_by_load(ttfts);
    advisor::order_by_load(tpots);
    if (!forecast_.rates.empty()) return forecast_rates(kept, ttfts, tpots, *fit, *snapshot);
    for (size_t i = 0; i < kept.size(); ++i) {
      const double load = kept[i];
      const advisor::Prediction* ttft = &ttfts[i];
      const advisor::Prediction* tpot = &tpots[i];
      const advisor::Verdict first = advisor::verdict_of(*ttft, ttft_limit_);
      const advisor::Verdict each = advisor::verdict_of(*tpot, tpot_limit_);
      passing = passing && first == advisor::Verdict::kPass && each == advisor::Verdict::kPass;
      if (passing) best = load;
      // A closed loop: each of `load` requests takes TTFT + (n - 1) TPOT and is followed by the next.
      const double mean_e2e = ttft->mean + (point_.output_tokens - 1) * tpot->mean;
      const double rate = load / mean_e2e * 1000;
      loads.push_back({{"concurrency", load},
                       {"ttft", figure(*ttft)},
                       {"tpot", figure(*tpot)},
                       {"e2e_mean_ms", rounded(mean_e2e)},
                       {"requests_per_s", rounded(rate)},
                       {"output_tokens_per_s", rounded(rate * point_.output_tokens)},
                       {"ttft_verdict", advisor::verdict_name(first)},
                       {"tpot_verdict", advisor::verdict_name(each)}});
      if (!json_)
        std::printf("%8.0f  %9.1f (%8.1f to %9.1f)   %8.2f (%7.2f to %8.2f)  %10.0f  %-12s  %s, %s\n", load, ttft->mean,
                    ttft->low, ttft->high, tpot->mean, tpot->low, tpot->high, rate * point_.output_tokens,
                    advisor::provenance_name(tpot->provenance), advisor::verdict_name(first),
                    advisor::verdict_name(each));
    }
    out["limits"] = {{"ttft_mean_ms", ttft_limit_}, {"tpot_mean_ms", tpot_limit_}};
    out["loads"] = std::move(loads);
    if (fit_) {
      out["requests_at_once_within_limits"] = best;
      out["users"] = std::floor(best / ratio_);
      out["concurrency_ratio"] = ratio_;
      if (!json_)
        std::printf(
            "\n%.0f requests at once keep mean TTFT within %.0f ms and mean TPOT within %.0f ms: %.0f users, of whom "
            "%.0f%% wait at one time\n",
            best, ttft_limit_, tpot_limit_, std::floor(best / ratio_), 100 * ratio_);
    }
    if (json_) std::printf("%s\n", out.dump(2).c_str());
    return fit_ && best == 0 ? kExitLimitMissed : kExitDone;
  }

 private:
  int failed(const Status& status) const {
    std::fprintf(stderr, "sextant %s: %s\n", name().c_str(), status.message().c_str());
    return kExitFailed;
  }

  void print_memory(const advisor::MemoryFit& fit) const {
    std::printf("%s, %s, on %.0f x %s: %s\n", point_.model_id.c_str(), quantization_.c_str(), point_.tensor_parallel,
                point_.gpu.c_str(), fit.fits() ? "fits" : ("does not fit: " + fit.reason).c_str());
    std::printf("each GPU: %.1f GiB, usable %.1f = weights %.1f + activations %.1f + overhead %.2f + KV cache %.1f\n",
                fit.total_gib, fit.usable_gib, fit.weights_gib, fit.activations_gib, fit.overhead_gib,
                fit.kv_cache_gib);
    if (fit.fits())
      std::printf("the cache holds %.0f requests of %.0f tokens at once\n", fit.sequences,
                  point_.prompt_tokens + point_.output_tokens);
  }

  ForecastQuestion question(std::vector<int64_t> concurrencies) const {
    return {.verb = name(),
            .prompt_tokens = point_.prompt_tokens,
            .output_tokens = point_.output_tokens,
            .concurrencies = std::move(concurrencies),
            .ttft_limit_ms = ttft_limit_,
            .tpot_limit_ms = tpot_limit_,
            .json = json_};
  }
  std::optional<int64_t> ranks_asked() const {
    return point_.tensor_parallel > 1 ? std::optional(static_cast<int64_t>(point_.tensor_parallel)) : std::nullopt;
  }

  // A queue whose means at fixed concurrencies are those predicted.
  int forecast_rates(const std::vector<double>& loads, const std::vector<advisor::Prediction>& ttfts,
                     const std::vector<advisor::Prediction>& tpots, const advisor::MemoryFit& fit,
                     const advisor::KbSnapshot& snapshot) const {
    const advisor::ModelFacts* facts = snapshot.facts.find(point_.model_id);
    const std::optional<double> weight_bytes = advisor::bytes_per_parameter(quantization_);
    advisor::RecordedDeployment deployment;
    deployment.model_id = point_.model_id;
    deployment.gpu_type = point_.gpu;
    deployment.tensor_parallel = static_cast<int64_t>(point_.tensor_parallel);
    deployment.engine = point_.engine;
    deployment.server.max_num_batched_tokens = 8192;
    deployment.server.kv_tokens = fit.sequences * (point_.prompt_tokens + point_.output_tokens) + 16;
    deployment.assumed = {"max_num_seqs 256, max_num_batched_tokens 8192, unless flags say otherwise"};
    advisor::StepShape shape;
    if (facts != nullptr && weight_bytes) shape = advisor::step_shape_of(*facts, *weight_bytes);
    double log_error = 0;
    bool interpolated = true;
    for (size_t i = 0; i < loads.size(); ++i) {
      if (loads[i] > std::min<double>(256, fit.sequences)) break;
      advisor::MeasuredLoad load;
      load.traffic.concurrency = static_cast<int64_t>(loads[i]);
      load.traffic.prompt.mean = point_.prompt_tokens;
      load.traffic.output.mean = point_.output_tokens;
      load.ttft_mean_s = ttfts[i].mean * 1e-3;
      load.tpot_mean_s = tpots[i].mean * 1e-3;
      load.weight = 1 / (0.01 + tpots[i].log_half_width);
      log_error = std::max(log_error, tpots[i].log_half_width);
      interpolated = interpolated && tpots[i].provenance != advisor::Provenance::kEstimated;
      deployment.loads.push_back(load);
    }
    char text[160];
    std::snprintf(text, sizeof text, "%s means (90%% of which are within a factor of %.2f)",
                  interpolated ? "interpolated" : "estimated", std::exp(log_error));
    return forecast_from_loads(forecast_, question({}), deployment, shape, text);
  }

  bool fit_;
  advisor::ServingPoint point_ = [] {
    advisor::ServingPoint p;
    p.engine = "vllm";
    p.prompt_tokens = 1024;
    p.output_tokens = 256;
    return p;
  }();
  std::string quantization_ = "bf16";
  std::vector<double> loads_;
  ForecastSettings forecast_;
  double ttft_limit_ = 500;
  double tpot_limit_ = 50;
  double ratio_ = 0.1;
  std::string location_;
  bool json_ = false;
};

}  // namespace

std::unique_ptr<Verb> make_advise_predict_verb() { return std::make_unique<PredictVerb>(false); }
std::unique_ptr<Verb> make_advise_fit_verb() { return std::make_unique<PredictVerb>(true); }

}  // namespace sextant::cli
