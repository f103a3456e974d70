// One candidate, predicted, sized, priced and judged.
#include <algorithm>
#include <cmath>
#include <cstdio>

#include "advisor/plan/candidates.h"

namespace sextant::advisor {
namespace {

constexpr double kLoads[] = {1, 8, 48, 256};
constexpr double kGib = 1024.0 * 1024 * 1024;
constexpr int64_t kMostSequences = 512;  // in a step, when nothing says otherwise

}  // namespace

Result<ReplicaModel> model_of(const SearchContext& context, const Candidate& c) {
  const int stages = c.configuration.pipeline_parallel;
  QueueServer limits;
  // Stages work on as many batches in turn, each of which has its part of the cache.
  limits.kv_tokens = std::floor(c.memory.kv_cache_gib * kGib / c.memory.kv_bytes_per_token / stages);
  const double average = context.sample.prompt_mean() + context.sample.output_mean();
  // A limit of the spec's is of all stages together.
  const double most = std::max(1.0, std::floor(context.spec.maybe("max_num_seqs").value_or(kMostSequences * stages) /
                                               static_cast<double>(stages)));
  const double room = std::clamp(std::floor(limits.kv_tokens / average), 1.0, most);
  limits.max_num_seqs = static_cast<int64_t>(room);
  std::vector<double> loads;
  for (const double load : kLoads) {
    if (!loads.empty() && room <= loads.back()) break;
    loads.push_back(std::min(load, room));
  }
  const ServingPoint point = point_of(context, c.configuration);
  ASSIGN_OR_RETURN(std::vector<Prediction> ttft, context.world.predictor().predict_loads(Metric::kTtft, point, loads));
  ASSIGN_OR_RETURN(std::vector<Prediction> tpot, context.world.predictor().predict_loads(Metric::kTpot, point, loads));
  const StepShape shape = step_shape_of(*c.facts, bytes_per_parameter(c.configuration.quantization).value_or(2));
  return replica_model(limits, shape, context.sample, std::move(loads), std::move(ttft), std::move(tpot), stages);
}

std::optional<Option> evaluate(const SearchContext& context, const Candidate& c, Rejection& rejection) {
  rejection = {c.configuration.model_id, c.configuration.gpu, "", ""};
  Result<ReplicaModel> model = model_of(context, c);
  if (!model.ok()) {
    rejection.reason = model.status().message();
    return std::nullopt;
  }
  return evaluate(context, c, std::move(model).value(), rejection);
}

std::optional<Option> evaluate(const SearchContext& context, const Candidate& c, ReplicaModel model,
                               Rejection& rejection) {
  rejection = {c.configuration.model_id, c.configuration.gpu, "", ""};
  const auto reject = [&](const std::string& reason, const std::string& change) {
    rejection.reason = reason;
    rejection.nearest_change = change;
  };
  Option o;
  o.model_id = c.configuration.model_id;
  o.gpu = c.configuration.gpu;
  o.quantization = c.configuration.quantization;
  o.tensor_parallel = c.configuration.tensor_parallel;
  o.expert_parallel = c.configuration.expert_parallel;
  o.pipeline_parallel = c.configuration.pipeline_parallel;
  o.parameters = c.parameters;
  o.quality = c.quality;
  o.quality_source = c.quality_source;
  o.memory = c.memory;
  o.model = std::move(model);
  if (context.spec.has("max_num_seqs")) {
    o.limit = limited_rate(o.model, context.sample, context.targets);
    o.batch_limit_matters = true;
    o.batch_trials = {{o.model.fit.server.max_num_seqs * o.model.stages, o.limit.requests_per_s}};
  } else {
    o.limit = choose_batch_limit(o.model, context.sample, context.targets, o.batch_trials);
    o.batch_limit_matters = o.model.fit.server.max_num_seqs * o.model.stages != o.batch_trials.front().max_num_seqs;
  }
  if (!o.limit.feasible) {
    const LatencyTarget& t = *o.limit.binding;
    const double at = percentile_of(operate(o.model, context.sample, o.limit.requests_per_s), t);
    reject(t.field + ": " + ms_text(at) + (at <= t.limit_ms ? " is within" : " is above") + " the limit of " +
               ms_text(t.limit_ms) + (at <= t.limit_ms ? ", but not surely enough" : "") + " with next to no load",
           t.field + " of " + ms_text(o.limit.best_ms) + " or more");
    return std::nullopt;
  }
  std::string reason;
  if (!size_option(context.spec, context.offers, o, reason)) {
    reject(reason, "pricing.gpu_prices with your own price");
    return std::nullopt;
  }
  if (const auto most = context.spec.maybe("gpu_constraints.max_gpus"); most && o.gpus() > *most) {
    reject("needs " + std::to_string(o.gpus()) + " GPUs, gpu_constraints.max_gpus is " +
               std::to_string(static_cast<long>(*most)),
           "gpu_constraints.max_gpus " + std::to_string(o.gpus()));
    return std::nullopt;
  }
  const double per_1k =
      o.usd_per_month / (context.spec.number("average_rps") * kSecondsPerMonth * context.sample.output_mean()) * 1000;
  struct {
    const char* field;
    double value;
  } const budgets[] = {{"budget.max_monthly_cost_usd", o.usd_per_month},
                       {"budget.max_hourly_cost_usd", o.usd_per_hour},
                       {"budget.cost_per_1k_tokens", per_1k}};
  for (const auto& [field, value] : budgets) {
    const auto limit = context.spec.maybe(field);
    if (!limit || value <= *limit) continue;
    char change[160];
    std::snprintf(change, sizeof change, "%s %.6g", field, value);
    reject("costs " + usd_text(value) + ", " + field + " is " + usd_text(*limit), change);
    return std::nullopt;
  }
  // Each replica's part of the peak, and what it does then.
  double needed = 0;
  for (const Site& site : o.sites) needed += site.replicas_needed;
  o.at_peak = operate(o.model, context.sample, sized_rps(context.spec) / needed);
  for (const LatencyTarget& target : context.targets) {
    Verdicts v;
    v.target = target;
    v.predicted_ms = percentile_of(o.at_peak, target);
    v.probability = probability_of(o.model, o.at_peak, target);
    const double half = log_half_width_of(o.model, o.at_peak, target);
    v.low_ms = v.predicted_ms * std::exp(-half);
    v.high_ms = v.predicted_ms * std::exp(half);
    v.verdict = v.probability > 0.7 ? Verdict::kPass : v.probability < 0.3 ? Verdict::kFail : Verdict::kUncertain;
    o.verdicts.push_back(v);
  }
  return o;
}

void finish_option(const SearchContext& context, Option& o) {
  o.limit.operation = operate(o.model, context.sample, o.limit.requests_per_s);
  o.day = simulate_day(context, o);
}

}  // namespace sextant::advisor
