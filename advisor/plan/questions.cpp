// Questions about a plan: what it is sensitive to, and solve_for.
#include <algorithm>
#include <cmath>

#include "advisor/plan/candidates.h"
#include "advisor/report/plan_json.h"

namespace sextant::advisor {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

Configuration configuration_of(const Option& o) {
  return {o.model_id, o.gpu, o.quantization, o.tensor_parallel, o.expert_parallel, o.pipeline_parallel};
}

double scale_field(Spec& spec, const std::string& path, double factor) {
  const Filled& filled = spec.fields().at(path);
  const double value = filled.value.get<double>() * factor;
  spec.set(path, value, filled.source, filled.rule);
  return value;
}

void scale_traffic(Spec& spec, double factor) {
  for (const char* path : {"peak_rps", "average_rps", "daily_requests", "target_throughput_rps"})
    if (spec.has(path)) scale_field(spec, path, factor);
}

Spec without_budget(Spec spec) {
  for (const char* path : {"budget.max_monthly_cost_usd", "budget.max_hourly_cost_usd", "budget.cost_per_1k_tokens"})
    if (spec.has(path)) spec.set(path, nullptr, SpecSource::kDefault, "");
  return spec;
}

double measure(const Spec& spec, const Option& o) {
  return spec.text("deployment_model") == "cloud_rental" ? o.usd_per_month : o.gpus();
}

}  // namespace

ordered_json sensitivities(const World& world, const Spec& spec, const Option& option) {
  struct Row {
    std::string input;
    double swing;
    ordered_json json;
  };
  std::vector<Row> rows;
  const Spec free = without_budget(spec);
  const auto cost_with = [&](const std::string& input, double factor, std::string& why) -> std::optional<double> {
    Spec changed = free;
    if (input == "peak_rps") {
      scale_traffic(changed, factor);
    } else {
      scale_field(changed, input, factor);
      if (input == "prompt_length_avg") scale_field(changed, "prompt_length_p95", factor);
      if (input == "generation_length_avg") scale_field(changed, "generation_length_p95", factor);
    }
    const SearchContext context(world, changed);
    Rejection rejection;
    const auto candidate = candidate_of(context, configuration_of(option), why);
    if (!candidate) return std::nullopt;
    // Rates and targets leave the predictions as they are.
    const bool same = input != "prompt_length_avg" && input != "generation_length_avg";
    const auto planned =
        same ? evaluate(context, *candidate, option.model, rejection) : evaluate(context, *candidate, rejection);
    why = rejection.reason;
    return planned ? std::optional<double>(measure(spec, *planned)) : std::nullopt;
  };
  std::vector<std::string> inputs = {"peak_rps", "generation_length_avg", "prompt_length_avg"};
  if (option.limit.binding) inputs.push_back(option.limit.binding->field);
  const double now = measure(spec, option);
  ordered_json flip = nullptr;
  for (const std::string& input : inputs) {
    std::string why_less, why_more;
    const auto less = cost_with(input, 0.8, why_less);
    const auto more = cost_with(input, 1.25, why_more);
    const auto change = [&](const std::optional<double>& value) {
      return value ? ordered_json(shown(100 * (*value / now - 1))) : ordered_json(nullptr);
    };
    const double swing = less && more ? std::max(std::abs(*less / now - 1), std::abs(*more / now - 1)) : 10;
    rows.push_back({input,
                    swing,
                    {{"input", input},
                     {"now", shown(spec.number(input))},
                     {"change_at_minus_20_pct", change(less)},
                     {"change_at_plus_25_pct", change(more)}}});
    if (!less) rows.back().json["infeasible_at_minus_20_pct"] = why_less;
    if (!more) rows.back().json["infeasible_at_plus_25_pct"] = why_more;
  }
  std::stable_sort(rows.begin(), rows.end(), [](const Row& a, const Row& b) { return a.swing > b.swing; });
  ordered_json top = ordered_json::array();
  for (size_t i = 0; i < rows.size() && i < 3; ++i) top.push_back(rows[i].json);
  // What ends the plan first: the budget by growth, or the tightest target by a stricter wish.
  if (const auto budget = spec.maybe("budget.max_monthly_cost_usd"); budget && option.usd_per_hour > 0) {
    double low = 1;
    double high = 64;
    for (int i = 0; i < 12; ++i) {
      const double middle = std::sqrt(low * high);
      Spec changed = free;
      scale_traffic(changed, middle);
      Option grown = option;
      std::string reason;
      const bool paid =
          size_option(changed, find_offers(world, changed), grown, reason) && grown.usd_per_month <= *budget;
      (paid ? low : high) = middle;
    }
    flip = {{"input", "peak_rps"},
            {"at", shown(spec.number("peak_rps") * low)},
            {"what", "with more, this configuration costs more than budget.max_monthly_cost_usd"}};
  } else if (!option.verdicts.empty()) {
    // A target below what the configuration does with next to no load cannot be met by any number of replicas.
    const Operation alone = operate(option.model, RequestSample(shape_of(spec)), 0.002 * option.model.saturation_rps);
    const Verdicts* tightest = nullptr;
    double closest = 0;
    for (const Verdicts& v : option.verdicts) {
      const double ratio = percentile_of(alone, v.target) / v.target.limit_ms;
      if (ratio > closest) {
        closest = ratio;
        tightest = &v;
      }
    }
    if (tightest != nullptr)
      flip = {{"input", tightest->target.field},
              {"at", shown(percentile_of(alone, tightest->target))},
              {"what", "below it no number of replicas of this configuration is enough"}};
  }
  return {{"measure", spec.text("deployment_model") == "cloud_rental" ? "usd_per_month" : "gpus"},
          {"inputs", top},
          {"flips_the_verdict", flip}};
}

const std::vector<std::string>& known_questions() {
  static const std::vector<std::string> all = {"gpus", "max_rate", "max_users", "max_context",
                                               "cheapest_slo_relaxation"};
  return all;
}

ordered_json answer_questions(const World& world, const Spec& spec, const PlanOutcome& outcome,
                              const std::vector<std::string>& questions) {
  ordered_json out = ordered_json::object();
  const Option* best = outcome.options.empty() ? nullptr : &outcome.options[0];
  // Of the best option's GPUs, or of those the user has.
  const auto rate_of = [&]() -> double {
    const double gpus = spec.maybe("gpu_constraints.max_gpus").value_or(best->gpus());
    int spares = 0;
    for (const Site& site : best->sites) spares += site.spares;
    const double replicas = std::max(0.0, std::floor(gpus / best->gpus_per_replica()) - spares);
    return replicas * best->limit.requests_per_s / (1 + spec.number("headroom_pct") / 100);
  };
  for (const std::string& question : questions) {
    if (best == nullptr && question != "cheapest_slo_relaxation") {
      out[question] = {{"value", nullptr}, {"why", "nothing meets the spec"}};
    } else if (question == "gpus") {
      out[question] = {
          {"value", best->gpus()}, {"gpu", best->gpu}, {"used", best->replicas() * best->gpus_per_replica()}};
    } else if (question == "max_rate") {
      out[question] = {{"value", shown(rate_of())},
                       {"unit", "requests/s at the peak, within targets, headroom and spares kept"}};
    } else if (question == "max_users") {
      const double cycle = spec.number("think_time_s") + best->at_peak.e2e_ms.mean / 1000;
      const double active = rate_of() * cycle;
      out[question] = {{"value", std::floor(active / spec.number("concurrency_ratio"))},
                       {"active_at_once", std::floor(active)},
                       {"rule", "max_rate x (think_time_s + mean answer time) / concurrency_ratio"}};
    } else if (question == "max_context") {
      const ModelFacts* facts = world.snapshot.facts.find(best->model_id);
      FitInputs in;
      in.model_id = best->model_id;
      in.gpu = best->gpu;
      in.quantization = best->quantization;
      in.tensor_parallel = best->tensor_parallel;
      in.pipeline_parallel = best->pipeline_parallel;
      in.context_tokens = 1;
      const auto fit = memory_fit(in, world.snapshot.facts, world.snapshot.gpus);
      const double room = fit.ok() ? fit->sequences : 0;
      const double most = facts->max_position_embeddings > 0 ? std::min(room, facts->max_position_embeddings) : room;
      out[question] = {{"value", std::floor(most)},
                       {"limited_by", room <= most ? "KV cache of one replica" : "the model's own context"}};
    } else if (question == "cheapest_slo_relaxation") {
      ordered_json found = ordered_json::array();
      for (const LatencyTarget& target : targets_of(spec)) {
        for (const double factor : {1.1, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0}) {
          Spec relaxed = spec;
          relaxed.set(target.field, target.limit_ms * factor, SpecSource::kDerived, "relaxed");
          const auto again = search(world, relaxed);
          if (!again.ok() || again->options.empty()) continue;
          double cheapest = measure(spec, again->options[0]);
          for (const Option& o : again->options) cheapest = std::min(cheapest, measure(spec, o));
          double now = best == nullptr ? 0 : measure(spec, *best);
          for (const Option& o : outcome.options) now = std::min(now, measure(spec, o));
          if (best != nullptr && cheapest >= 0.98 * now) continue;
          found.push_back({{"target", target.field},
                           {"from_ms", target.limit_ms},
                           {"to_ms", shown(target.limit_ms * factor)},
                           {"cost_before", best == nullptr ? ordered_json(nullptr) : ordered_json(shown(now))},
                           {"cost_after", shown(cheapest)}});
          break;
        }
      }
      out[question] = {{"value", found},
                       {"rule",
                        "the smallest of +10, 25, 50, 100, 200, 400 and 900% of one target that makes the cheapest "
                        "option at least 2% cheaper, or feasible"}};
    }
  }
  return out;
}

}  // namespace sextant::advisor
