#include "advisor/report/plan_json.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <set>

namespace sextant::advisor {
namespace {

using nlohmann::ordered_json;

ordered_json percentiles(const Percentiles& p) {
  return {{"mean", shown(p.mean)},
          {"p50", shown(p.p50)},
          {"p90", shown(p.p90)},
          {"p95", shown(p.p95)},
          {"p99", shown(p.p99)}};
}

ordered_json operation(const Operation& o) {
  return {{"requests_per_s", shown(o.requests_per_s)},
          {"requests_in_flight", shown(o.concurrency)},
          {"requests_in_flight_p99", shown(o.concurrency_p99)},
          {"ttft_ms", percentiles(o.ttft_ms)},
          {"tpot_ms", percentiles(o.tpot_ms)},
          {"e2e_ms", percentiles(o.e2e_ms)},
          {"queue_ms", percentiles(o.queue_ms)},
          {"mean_batch", shown(o.mean_batch)},
          {"kv_tokens", shown(o.kv_tokens)},
          {"device_busy_share", shown(o.busy_share)}};
}

std::string whole(double value) { return std::to_string(std::llround(value)); }

std::vector<std::string> engine_flags(const Spec& spec, const Option& o, bool stored_so) {
  const std::string context = whole(spec.number("max_context_tokens"));
  const std::string batch = std::to_string(o.batch_limit());
  const std::string tensor = std::to_string(o.tensor_parallel);
  const std::string engine = spec.text("engine");
  std::vector<std::string> flags;
  if (engine == "sglang") {
    flags = {"--model-path " + o.model_id, "--tp " + tensor, "--max-running-requests " + batch,
             "--context-length " + context, "--mem-fraction-static 0.9"};
    if (o.expert_parallel > 1) flags.push_back("--ep-size " + std::to_string(o.expert_parallel));
  } else if (engine == "trtllm") {
    flags = {o.model_id, "--tp_size " + tensor, "--max_batch_size " + batch, "--max_seq_len " + context,
             "--kv_cache_free_gpu_memory_fraction 0.9"};
    if (o.expert_parallel > 1) flags.push_back("--ep_size " + std::to_string(o.expert_parallel));
  } else {
    flags = {"--model " + o.model_id, "--tensor-parallel-size " + tensor, "--max-num-seqs " + batch,
             "--max-model-len " + context, "--gpu-memory-utilization 0.9"};
    if (engine == "vllm" && o.expert_parallel > 1) flags.emplace_back("--enable-expert-parallel");
  }
  if (o.pipeline_parallel > 1)
    flags.push_back((engine == "sglang"   ? "--pp-size "
                     : engine == "trtllm" ? "--pp_size "
                                          : "--pipeline-parallel-size ") +
                    std::to_string(o.pipeline_parallel));
  // Weights that are stored in 16 bits are made smaller at load where the engine can.
  if (!stored_so && o.quantization == "fp8" && (engine == "vllm" || engine == "sglang"))
    flags.emplace_back("--quantization fp8");
  return flags;
}

ordered_json cost_json(const Spec& spec, const Option& o) {
  const double average = spec.number("average_rps");
  const double requests = average * kSecondsPerMonth;
  const double ratio = spec.number("costs.output_input_ratio");
  const double per_s = o.usd_per_month / kSecondsPerMonth;
  const double per_output =
      per_s / (average * spec.number("prompt_length_avg") / ratio + average * spec.number("generation_length_avg"));
  ordered_json lines = {{"compute", shown(o.usd_per_hour * kHoursPerMonth)}};
  for (const char* line : {"load_balancer", "storage", "egress", "monitoring"})
    lines[line] = shown(spec.number(std::string("costs.") + line + "_usd_per_month"));
  ordered_json cost = {
      {"usd_per_hour", shown(o.usd_per_hour)},
      {"usd_per_month", shown(o.usd_per_month)},
      {"usd_per_month_autoscaled", shown(o.day.usd_per_month)},
      {"lines_usd_per_month", lines},
      {"usd_per_request", shown(o.usd_per_month / requests)},
      {"usd_per_1m_output_tokens", shown(per_output * 1e6)},
      {"usd_per_1m_input_tokens", shown(per_output / ratio * 1e6)},
      {"definition",
       "a month has 730 hours; per output token = cost per second / (input tokens per second / R + output "
       "tokens per second), per input token = that / R, at the day's average rate, R = " +
           whole(ratio)}};
  const auto per_request = spec.maybe("revenue.usd_per_request");
  const auto per_tokens = spec.maybe("revenue.usd_per_1m_output_tokens");
  if (per_request || per_tokens) {
    const double revenue =
        requests * (per_request.value_or(0) + per_tokens.value_or(0) * spec.number("generation_length_avg") / 1e6);
    cost["revenue_usd_per_month"] = shown(revenue);
    cost["margin_usd_per_month"] = shown(revenue - o.usd_per_month);
    cost["margin_pct"] =
        revenue > 0 ? ordered_json(shown(100 * (1 - o.usd_per_month / revenue))) : ordered_json(nullptr);
  }
  if (const auto budget = spec.maybe("budget.max_monthly_cost_usd"))
    cost["budget_used_pct"] = shown(100 * o.usd_per_month / *budget);
  return cost;
}

}  // namespace

double shown(double value) {
  if (!std::isfinite(value)) return 0;
  char text[40];
  std::snprintf(text, sizeof text, "%.6g", value);
  return std::strtod(text, nullptr);
}

ordered_json option_json(const World& world, const Spec& spec, const Option& o) {
  const auto document = world.models.find(o.model_id);
  const nlohmann::json body = document == world.models.end() ? nlohmann::json::object() : document->second;
  const Operation& peak = o.at_peak;
  const double kv_room = o.memory.kv_cache_gib * 1024 * 1024 * 1024 / std::max(o.memory.kv_bytes_per_token, 1e-9);
  ordered_json verdicts = ordered_json::array();
  Verdict worst = Verdict::kPass;
  for (const Verdicts& v : o.verdicts) {
    verdicts.push_back({{"target", v.target.field},
                        {"limit_ms", v.target.limit_ms},
                        {"predicted_ms", shown(v.predicted_ms)},
                        {"low90_ms", shown(v.low_ms)},
                        {"high90_ms", shown(v.high_ms)},
                        {"probability", std::round(v.probability * 1000) / 1000},
                        {"verdict", verdict_name(v.verdict)},
                        {"provenance", provenance_name(o.model.provenance(peak.concurrency / o.model.stages))}});
    if (v.verdict != Verdict::kPass && worst != Verdict::kFail) worst = v.verdict;
  }
  ordered_json sites = ordered_json::array();
  for (const Site& s : o.sites)
    sites.push_back({{"region", s.region == "any" ? s.offer.region : s.region},
                     {"share", s.share},
                     {"peak_rps", shown(s.peak_rps)},
                     {"replicas_needed", s.replicas_needed},
                     {"spares", s.spares},
                     {"instances", s.instances},
                     {"provider", s.offer.provider},
                     {"instance", s.offer.instance},
                     {"gpus_per_instance", s.offer.gpu_count},
                     {"usd_per_instance_hour", shown(s.offer.usd_per_hour)},
                     {"usd_per_hour", shown(s.usd_per_hour)},
                     {"price_date", s.offer.effective_date},
                     {"price_source", s.offer.source},
                     {"price_assumed", s.offer.assumed}});
  ordered_json hours = ordered_json::array();
  for (const Day::Hour& h : o.day.hours)
    hours.push_back({{"requests_per_s", shown(h.requests_per_s)},
                     {"replicas", shown(h.replicas)},
                     {"utilization", shown(h.utilization)},
                     {"usd", shown(h.usd)},
                     {"attainment", shown(h.attainment)}});
  ordered_json trials = ordered_json::array();
  for (const BatchTrial& trial : o.batch_trials)
    trials.push_back({{"max_num_seqs", trial.max_num_seqs}, {"requests_per_s", shown(trial.requests_per_s)}});
  const auto tokens_s = peak.requests_per_s * spec.number("generation_length_avg");
  const ordered_json license =
      body.contains("license") && body["license"].is_string() ? ordered_json(body["license"]) : ordered_json(nullptr);
  ordered_json out = {
      {"id", o.id()},
      {"model_id", o.model_id},
      {"quality", o.quality},
      {"quality_source", o.quality_source},
      {"parameters", shown(o.parameters)},
      {"license", license},
      {"gpu", o.gpu},
      {"engine", spec.text("engine")},
      {"quantization", o.quantization},
      {"tensor_parallel", o.tensor_parallel},
      {"expert_parallel", o.expert_parallel},
      {"pipeline_parallel", o.pipeline_parallel},
      {"max_num_seqs", o.batch_limit()},
      {"batch_limits_tried", std::move(trials)},
      {"replicas", o.replicas()},
      {"instances", o.instances()},
      {"gpus", o.gpus()},
      {"gpus_used", o.replicas() * o.gpus_per_replica()},
      {"verdict", verdict_name(worst)},
      {"targets", verdicts},
      {"at_peak_per_replica", operation(peak)},
      {"limit_per_replica", operation(o.limit.operation)},
      {"limited_by", o.limit.binding ? ordered_json(o.limit.binding->field) : ordered_json("saturation")},
      {"output_tokens_per_s_per_replica", shown(tokens_s)},
      {"utilization_at_peak", shown(peak.requests_per_s / o.limit.requests_per_s)},
      {"latency_budget_ms",
       {{"network", spec.number("latency.network_ms")},
        {"gateway", spec.number("latency.gateway_ms")},
        {"queue", shown(peak.queue_ms.mean)},
        {"prefill", shown(std::max(0.0, peak.ttft_ms.mean - peak.queue_ms.mean - spec.number("latency.network_ms") -
                                            spec.number("latency.gateway_ms")))},
        {"decode", shown(peak.e2e_ms.mean - peak.ttft_ms.mean)}}},
      {"memory_per_gpu_gib",
       {{"total", shown(o.memory.total_gib)},
        {"weights", shown(o.memory.weights_gib)},
        {"kv_cache", shown(o.memory.kv_cache_gib)},
        {"activations", shown(o.memory.activations_gib)},
        {"overhead", shown(o.memory.overhead_gib)},
        {"free", shown(o.memory.total_gib - o.memory.usable_gib)},
        {"kv_used_at_peak_pct", shown(100 * std::min(1.0, peak.kv_tokens / kv_room))}}},
      {"host_per_replica",
       {{"cpus", 4 + 4 * o.gpus_per_replica()},
        {"memory_gib", std::ceil(8 + 1.2 * o.memory.weights_gib * o.gpus_per_replica())},
        {"rule", "4 + 4 per GPU; 8 GiB + 1.2 x all weights"}}},
      {"sites", sites},
      {"cost", cost_json(spec, o)},
      {"day",
       {{"hours", hours},
        {"attainment", shown(o.day.attainment)},
        {"attainment_is",
         "share of the day's requests within every latency target, by the queue at each minute's load"},
        {"replicas_min", o.day.replicas_min},
        {"replicas_max", o.day.replicas_max},
        {"usd_per_month", shown(o.day.usd_per_month)}}},
      {"engine_flags", engine_flags(spec, o, body.contains("quantization") && body["quantization"] == o.quantization)},
      {"score", shown(o.score)},
      {"best_at", o.best_at},
      {"rationale", o.rationale}};
  if (const ordered_json owned = ownership_json(world, spec, o); !owned.is_null()) out["ownership"] = owned;
  return out;
}

ordered_json brief_json(const Option& o) {
  return {{"id", o.id()},
          {"model_id", o.model_id},
          {"gpu", o.gpu},
          {"quantization", o.quantization},
          {"tensor_parallel", o.tensor_parallel},
          {"replicas", o.replicas()},
          {"gpus", o.gpus()},
          {"usd_per_month", shown(o.usd_per_month)},
          {"e2e_p95_ms", shown(o.at_peak.e2e_ms.p95)},
          {"parameters", shown(o.parameters)}};
}

ordered_json ownership_json(const World& world, const Spec& spec, const Option& o) {
  const std::string model = spec.text("deployment_model");
  const GpuProfile* gpu = world.snapshot.gpus.find(o.gpu);
  const bool priced = spec.has("datacenter_context.purchase_price_usd_per_gpu");
  if ((model == "cloud_rental" && !priced) || gpu == nullptr) return nullptr;
  // What completion fills for owned and bought GPUs holds for a comparison too.
  const auto at = [&](const std::string& name) {
    const double otherwise = name == "cooling_overhead_pue"                                     ? 1.3
                             : name == "amortization_period_months" || name == "horizon_months" ? 36
                                                                                                : 0;
    return spec.maybe("datacenter_context." + name).value_or(otherwise);
  };
  OwnershipInputs in;
  in.num_gpus = o.gpus();
  in.power_w_per_gpu = gpu->power_w;
  in.host_power_w = at("host_power_w");
  in.usd_per_kwh = at("power_cost_per_kwh");
  in.pue = at("cooling_overhead_pue");
  in.rack_usd_per_month = at("rack_space_cost_per_month");
  in.staff_usd_per_month = at("staff_cost_per_month");
  in.amortization_months = at("amortization_period_months");
  in.annual_discount_rate = at("annual_discount_rate");
  if (priced) {
    in.purchase_usd_per_gpu = at("purchase_price_usd_per_gpu");
    in.server_usd = at("server_cost_usd");
    in.residual_usd = at("residual_value_usd");
  }
  // What the same GPUs would cost to rent, where a row says so.
  double rent = 0;
  const Offers offers = find_offers(world, spec);
  for (const auto& site : offers.by_site)
    for (const Offer& offer : site)
      if (offer.gpu == o.gpu)
        if (const double usd = offer.usd_per_hour / offer.gpu_count; rent == 0 || usd < rent) rent = usd;
  if (rent > 0) in.rental_usd_per_gpu_hour = rent;
  const auto cost = ownership_cost(in);
  if (!cost.ok()) return {{"error", cost.status().message()}};
  const auto maybe = [](const std::optional<double>& x) { return x ? ordered_json(shown(*x)) : ordered_json(nullptr); };
  const double utilization = spec.number("average_rps") / std::max(o.limit.requests_per_s * o.replicas(), 1e-9);
  ordered_json out = {{"power_usd_per_month", shown(cost->power_usd_per_month)},
                      {"operation_usd_per_month", shown(cost->operation_usd_per_month)},
                      {"rental_usd_per_month", maybe(cost->rental_usd_per_month)},
                      {"rental_usd_per_gpu_hour", rent > 0 ? ordered_json(shown(rent)) : ordered_json(nullptr)}};
  if (priced) {
    out["capital_usd"] = shown(cost->capital_usd);
    out["capital_usd_per_month"] = shown(cost->capital_usd_per_month);
    out["purchase_usd_per_month"] = shown(cost->purchase_usd_per_month);
    out["break_even_months"] = maybe(cost->break_even_months);
    out["break_even_utilization"] = maybe(cost->break_even_utilization);
    out["horizon_months"] = at("horizon_months");
    out["utilization"] = shown(std::min(1.0, utilization));
    out["buy"] = cost->buy(at("horizon_months"), std::min(1.0, utilization));
    out["purchase_price_assumed"] = true;
  }
  return out;
}

ordered_json architecture_json(const Spec& spec, const Option& o) {
  ordered_json out = ordered_json::array();
  const auto add = [&](const char* name, bool fits, const std::string& why) {
    out.push_back({{"pattern", name}, {"suitable", fits}, {"why", why}});
  };
  const int replicas = o.replicas();
  const int instances = o.instances();
  add("single_node", instances == 1 && replicas == 1,
      instances == 1 ? "one instance carries the peak" +
                           std::string(replicas > 1 ? ", with " + std::to_string(replicas) + " replicas" : "")
                     : std::to_string(instances) + " instances are needed");
  add("horizontal", replicas > 1,
      replicas > 1 ? std::to_string(replicas) + " equal replicas behind one address" : "one replica is enough");
  add("microservices", spec.has("models"),
      spec.has("models") ? std::to_string(spec.value("models").size()) + " models, each scaled by itself"
                         : "one model: a gateway in front of equal replicas is all there is to split");
  add("multi_region", o.sites.size() > 1,
      o.sites.size() > 1 ? std::to_string(o.sites.size()) + " regions share the traffic"
                         : "the spec names one region or none");
  return out;
}

}  // namespace sextant::advisor
