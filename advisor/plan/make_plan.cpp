// The document: the search's outcome with its id, questions answered, sensitivities and what was left out.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <set>

#include "advisor/plan/plan.h"
#include "advisor/report/plan_json.h"

namespace sextant::advisor {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

constexpr size_t kRejectedShown = 60;

std::string plan_id_of(const World& world, const PlanRequest& request) {
  json id = {{"kb_revision", world.kb_revision},
             {"as_of", world.as_of},
             {"version", world.version},
             {"spec", request.spec.as_given()},
             {"solve_for", request.solve_for}};
  return sha256_hex(id.dump(-1, ' ', false, json::error_handler_t::replace)).substr(0, 20);
}

// What the spec says and the search has no use for. A field is either used or here.
std::vector<std::string> not_considered(const Spec& spec) {
  std::vector<std::string> out = {
      "prefill and decode on different GPUs: not searched",
      "several models on one GPU: not searched; each has GPUs of its own",
      "weights of 4 and 8 bit integers: searched only when quantizations names them (they cost quality)"};
  if (spec.given("use_case_description")) out.emplace_back("use_case_description: kept, not read by the search");
  if (spec.text("deployment_model") != "cloud_rental") {
    for (const char* field : {"budget.max_monthly_cost_usd", "budget.max_hourly_cost_usd", "budget.cost_per_1k_tokens"})
      if (spec.has(field))
        out.push_back(std::string(field) + ": compared with the other cost lines only, not with what is owned");
  }
  return out;
}

ordered_json rejected_json(std::vector<Rejection> rejected) {
  // The most telling first: what stops every model, then those of a GPU, then whole models.
  const auto order = [](const Rejection& r) { return r.model_id.empty() ? 0 : r.gpu.empty() ? 2 : 1; };
  std::stable_sort(rejected.begin(), rejected.end(),
                   [&](const Rejection& a, const Rejection& b) { return order(a) < order(b); });
  ordered_json out = ordered_json::array();
  // No more than three of one model, so that the list shows the width of the search.
  std::map<std::string, int> per_model;
  for (const Rejection& r : rejected) {
    if (out.size() == kRejectedShown) break;
    if (++per_model[r.model_id] > 3 && rejected.size() > kRejectedShown) continue;
    out.push_back(
        {{"model_id", r.model_id},
         {"gpu", r.gpu.empty() ? ordered_json(nullptr) : ordered_json(r.gpu)},
         {"reason", r.reason},
         {"nearest_change", r.nearest_change.empty() ? ordered_json(nullptr) : ordered_json(r.nearest_change)}});
  }
  return out;
}

// Why, of the rejection nearest to a plan: what stops everything; else what a budget, then what a target of so much more would
// have let in, of these the smallest; else the first.
std::string nothing_meets(const PlanOutcome& outcome) {
  const auto order = [](const Rejection& r) {
    const std::string& change = r.nearest_change;
    const double wanted = std::strtod(change.c_str() + std::min(change.size(), change.find(' ') + 1), nullptr);
    if (r.model_id.empty()) return std::pair(0, 0.0);
    if (change.rfind("budget.", 0) == 0) return std::pair(1, wanted);
    if (change.rfind("target_", 0) == 0)
      return std::pair(2, std::strtod(change.c_str() + change.find(" of ") + 4, nullptr));
    return std::pair(r.gpu.empty() ? 4 : 3, 0.0);
  };
  const auto first = std::min_element(outcome.rejected.begin(), outcome.rejected.end(),
                                      [&](const Rejection& a, const Rejection& b) { return order(a) < order(b); });
  if (first == outcome.rejected.end()) return "Nothing searched meets the spec.";
  std::string text = "Nothing searched meets the spec";
  text += first->model_id.empty() ? ": " : "; nearest is " + first->model_id;
  if (!first->gpu.empty()) text += " on " + first->gpu;
  text += (first->model_id.empty() ? "" : ": ") + first->reason;
  if (!first->nearest_change.empty()) text += ". What would let it in: " + first->nearest_change;
  return text + ". All reasons are listed as rejected.";
}

std::string verdict_of_plan(const ordered_json& options) {
  if (options.empty()) return "infeasible";
  return options[0]["verdict"] == "pass" ? "feasible" : "uncertain";
}

// Layers of requirements 000, chosen by the plan's own numbers.
ordered_json stack_json(const Spec& spec, const Option& o) {
  ordered_json out = ordered_json::array();
  const auto add = [&](const char* layer, const std::string& choice, const std::string& why,
                       std::vector<std::string> others) {
    out.push_back({{"layer", layer}, {"choice", choice}, {"because", why}, {"alternatives", std::move(others)}});
  };
  const std::string replicas = std::to_string(o.replicas());
  const bool scales = spec.value("autoscaling.enabled").get<bool>() && o.day.replicas_min < o.day.replicas_max;
  std::vector<std::string> engines;
  for (const char* engine : {"vllm", "sglang", "trtllm", "sextant"})
    if (spec.text("engine") != engine) engines.emplace_back(engine);
  add("inference engine", spec.text("engine"),
      std::string(spec.given("engine") ? "the spec names it" : "the engine of most measured points") +
          "; figures are " + provenance_name(o.model.provenance(o.at_peak.concurrency / o.model.stages)),
      engines);
  const bool cluster = o.instances() > 1 || o.sites.size() > 1 || scales;
  add("container platform", cluster ? "Kubernetes" : "systemd or compose on one host",
      cluster ? replicas + " replicas on " + std::to_string(o.instances()) + " instances in " +
                    std::to_string(o.sites.size()) + (o.sites.size() == 1 ? " region" : " regions") +
                    (scales ? ", from " + std::to_string(o.day.replicas_min) + " to " +
                                  std::to_string(o.day.replicas_max) + " over the day"
                            : "")
              : "one instance carries the peak, and its replicas do not change over the day",
      {cluster ? "systemd or compose on each host, without autoscaling" : "Kubernetes, when a second instance comes"});
  add("gateway", o.sites.size() > 1 ? "one per region behind DNS that follows latency" : "one address",
      "API keys, rate limits and routing for " + std::to_string(std::llround(sized_rps(spec))) +
          " requests/s at the peak",
      {});
  add("scaling", scales ? "KEDA on requests waiting and KV cache use" : "a fixed number of replicas",
      scales
          ? "saves $" + std::to_string(std::llround(std::max(0.0, o.usd_per_month - o.day.usd_per_month))) + " a month"
          : "the day needs the same replicas throughout, or autoscaling is off",
      {scales ? "a fixed number of replicas" : "KEDA on requests waiting and KV cache use"});
  add("monitoring", "Prometheus and Grafana",
      "no licence cost; costs.monitoring_usd_per_month counts $" +
          std::to_string(std::llround(spec.number("costs.monitoring_usd_per_month"))) + " for what runs it",
      {"a monitoring service, at its own price in costs.monitoring_usd_per_month"});
  return out;
}

ordered_json decisions_json(const Spec& spec, const Option& o, const PlanOutcome& outcome) {
  ordered_json out = ordered_json::array();
  const auto add = [&](const std::string& what, const std::string& choice, const std::string& why,
                       std::vector<std::string> others) {
    out.push_back({{"decision", what}, {"choice", choice}, {"because", why}, {"alternatives", std::move(others)}});
  };
  std::vector<std::string> models, gpus;
  std::set<std::string> seen = {o.model_id, o.gpu};
  for (const Option& other : outcome.options) {
    if (seen.insert(other.model_id).second) models.push_back(other.model_id);
    if (seen.insert(other.gpu).second) gpus.push_back(other.gpu);
  }
  add("model", o.model_id, "best of the options for priority " + spec.text("priority"), models);
  add("GPU", std::to_string(o.tensor_parallel) + " x " + o.gpu + " per replica", o.rationale, gpus);
  add("weights", o.quantization, "what the GPU computes in and the model's own files allow", {});
  add("batch limit", std::to_string(o.batch_limit()),
      spec.has("max_num_seqs") ? "the spec names it"
      : o.batch_limit_matters  ? "one replica carries more within the targets than without it (batch_limits_tried)"
                               : "99% of the moments at the highest load that keeps the targets have fewer requests in "
                                 "flight",
      {});
  add("replicas", std::to_string(o.replicas()),
      "peak x headroom over the rate of one replica, and spares for reliability_target and survive_loss_of", {});
  std::string places;
  for (const Site& site : o.sites)
    places += (places.empty() ? "" : ", ") + (site.region == "any" ? site.offer.region : site.region) + " (" +
              std::to_string(static_cast<int>(std::lround(100 * site.share))) + "%)";
  add("regions", places,
      spec.has("regions") ? "the spec's shares, as compliance allows" : "the cheapest price: the spec names no region",
      {});
  add("instances", std::to_string(o.instances()) + " x " + o.sites.front().offer.instance,
      "the cheapest way to " + std::to_string(o.replicas()) + " replicas of " + std::to_string(o.gpus_per_replica()) +
          (o.gpus_per_replica() == 1 ? " GPU" : " GPUs") + " in whole instances",
      {});
  const double spot = spec.number("pricing.spot_share");
  const double reserved = spec.number("pricing.reserved_share");
  char mix[80];
  std::snprintf(mix, sizeof mix, "%.0f%% on demand, %.0f%% reserved, %.0f%% spot", 100 * (1 - spot - reserved),
                100 * reserved, 100 * spot);
  add("purchase", mix,
      spot + reserved > 0 ? "the spec says so" : "no commitment was given; purchase_mixes has the others", {});
  return out;
}

}  // namespace

Result<ordered_json> make_plan(const World& world, const PlanRequest& request) {
  const Spec& spec = request.spec;
  const std::string id = plan_id_of(world, request);
  ordered_json plan = {{"schema", kPlanSchema},
                       {"plan_id", id},
                       {"name", "sextant-" + id.substr(0, 10)},
                       {"title", spec.has("name") ? spec.text("name") : spec.text("task_type")},
                       {"as_of", world.as_of},
                       {"version", world.version},
                       {"kb_revision", world.kb_revision}};
  plan["compliance"] = compliance_json(compliance_of(spec));
  if (spec.has("models")) {
    // Each model has its own replicas; money is that of all.
    ordered_json parts = ordered_json::array();
    double month = 0;
    double hour = 0;
    int gpus = 0;
    bool all = true;
    bool sure = true;
    for (const json& model : spec.value("models")) {
      json given = spec.as_given();
      for (const char* field : {"models", "users", "concurrent_users", "daily_requests", "target_throughput_rps",
                                "budget", "hourly_multipliers", "quality_threshold"})
        given.erase(field);
      const double share = model["share"].get<double>();
      given["preferred_models"] = json::array({model["name"]});
      given["peak_rps"] = sized_rps(spec) * share;
      given["average_rps"] = spec.number("average_rps") * share;
      PlanRequest part;
      const auto errors = read_spec_object(given, world.use_cases, part.spec);
      if (!errors.empty()) return Status(errors[0].code(), "models: " + errors[0].message(), "models");
      ASSIGN_OR_RETURN(ordered_json document, make_plan(world, part));
      if (document["options"].empty()) {
        all = false;
      } else {
        const ordered_json& best = document["options"][0];
        month += best["cost"]["usd_per_month"].get<double>();
        hour += best["cost"]["usd_per_hour"].get<double>();
        gpus += best["gpus"].get<int>();
        sure = sure && best["verdict"] == "pass";
      }
      parts.push_back({{"model_id", model["name"]}, {"share", share}, {"plan", std::move(document)}});
    }
    plan["specification"] = spec.completed();
    const auto budget = spec.maybe("budget.max_monthly_cost_usd");
    const auto hourly = spec.maybe("budget.max_hourly_cost_usd");
    const bool paid = (!budget || month <= *budget) && (!hourly || hour <= *hourly);
    plan["verdict"] = !all || !paid ? "infeasible" : sure ? "feasible" : "uncertain";
    plan["total"] = {{"usd_per_month", shown(month)}, {"usd_per_hour", shown(hour)}, {"gpus", gpus}};
    if (budget) plan["total"]["budget_used_pct"] = shown(100 * month / *budget);
    plan["parts"] = std::move(parts);
    plan["options"] = ordered_json::array();
    std::vector<std::string> unused = not_considered(spec);
    if (!request.solve_for.empty()) unused.emplace_back("solve_for: answered for one model at a time, not for several");
    if (spec.has("budget.cost_per_1k_tokens"))
      unused.emplace_back("budget.cost_per_1k_tokens: not with several models");
    if (spec.given("quality_threshold")) unused.emplace_back("quality_threshold: the models are named");
    plan["not_considered"] = unused;
    return plan;
  }
  ASSIGN_OR_RETURN(PlanOutcome outcome, search(world, spec));
  ordered_json options = ordered_json::array();
  for (const Option& option : outcome.options) options.push_back(option_json(world, spec, option));
  plan["verdict"] = verdict_of_plan(options);
  plan["summary"] = outcome.options.empty() ? nothing_meets(outcome)
                                            : outcome.options[0].model_id + " (" + outcome.options[0].quantization +
                                                  "): " + outcome.options[0].rationale;
  plan["specification"] = spec.completed();
  plan["options"] = std::move(options);
  ordered_json frontier = ordered_json::array();
  for (const Option& option : outcome.frontier) frontier.push_back(brief_json(option));
  plan["frontier"] = std::move(frontier);
  if (!outcome.options.empty()) {
    const Option& best = outcome.options[0];
    plan["sensitivity"] = sensitivities(world, spec, best);
    plan["architecture"] = architecture_json(spec, best);
    plan["stack"] = stack_json(spec, best);
    plan["purchase_mixes"] = purchase_mixes(world, spec, best);
    plan["decisions"] = decisions_json(spec, best, outcome);
  }
  plan["mixed_gpus"] = outcome.mixed_gpus;
  plan["answers"] = answer_questions(world, spec, outcome, request.solve_for);
  plan["search"] = {
      {"combinations", outcome.searched}, {"predicted", outcome.predicted}, {"feasible", outcome.feasible}};
  plan["rejected"] = rejected_json(outcome.rejected);
  plan["num_rejected"] = outcome.rejected.size();
  std::vector<std::string> assumptions = {
      "latencies: mean TTFT and TPOT of measured or estimated points fit the cost of a step, and percentiles are those "
      "of "
      "600 drawn requests in the engine's queue under it (gamma gaps of the spec's CV, log-normal lengths); sizes "
      "keep a "
      "target with 70% probability and one replica below 90% of saturation",
      "pipeline stages: estimated as one group with the memory of all; no measured row has them",
      "activations and overhead are what vLLM was seen to take; 90% of a GPU's memory is used"};
  assumptions.insert(assumptions.end(), outcome.assumptions.begin(), outcome.assumptions.end());
  for (const auto& [path, filled] : spec.fields())
    if (filled.source == SpecSource::kDefault && filled.rule.find("assumption") != std::string::npos)
      assumptions.push_back(path + " = " + filled.value.dump() + ": " + filled.rule);
  plan["assumptions"] = assumptions;
  plan["left_out"] = outcome.left_out;
  plan["not_considered"] = not_considered(spec);
  return plan;
}

}  // namespace sextant::advisor
