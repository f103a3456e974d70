// The fields of sextant.spec/1, once: reading, JSON Schema and help come from this table. One row per field, which is why the
// file is mostly data.
#include "advisor/spec/spec.h"

namespace sextant::advisor {
namespace {

using T = SpecField::Type;
using nlohmann::ordered_json;

ordered_json schema_of(const SpecField& f) {
  ordered_json s;
  const auto list = [&](ordered_json item, int most) {
    s = {{"type", "array"}, {"items", std::move(item)}, {"minItems", 1}, {"maxItems", most}};
  };
  const ordered_json name = {{"type", "string"}, {"minLength", 1}, {"maxLength", 200}, {"pattern", "^[^\\u0000]+$"}};
  switch (f.type) {
    case T::kNumber: s = {{"type", "number"}, {"minimum", f.low}, {"maximum", f.high}}; break;
    case T::kWhole: s = {{"type", "integer"}, {"minimum", f.low}, {"maximum", f.high}}; break;
    case T::kText: s = {{"type", "string"}, {"minLength", 1}, {"maxLength", 2000}, {"pattern", "^[^\\u0000]+$"}}; break;
    case T::kChoice: s = {{"type", "string"}, {"enum", f.choices}}; break;
    case T::kTexts:
      list(name, 100);
      s["uniqueItems"] = true;
      break;
    case T::kChoices:
      list({{"type", "string"}, {"enum", f.choices}}, static_cast<int>(f.choices.size()));
      s["uniqueItems"] = true;
      break;
    case T::kHours:
      s = {{"type", "array"},
           {"items", {{"type", "number"}, {"minimum", f.low}, {"maximum", f.high}}},
           {"minItems", 24},
           {"maxItems", 24}};
      break;
    case T::kShares:
      list({{"type", "object"},
            {"properties", {{"name", name}, {"share", {{"type", "number"}, {"minimum", 0.0001}, {"maximum", 1}}}}},
            {"required", {"name", "share"}},
            {"additionalProperties", false}},
           20);
      break;
    case T::kPrices:
      list({{"type", "object"},
            {"properties",
             {{"gpu", name}, {"usd_per_gpu_hour", {{"type", "number"}, {"minimum", 0.0001}, {"maximum", 10000}}}}},
            {"required", {"gpu", "usd_per_gpu_hour"}},
            {"additionalProperties", false}},
           50);
      break;
    case T::kFlag: s = {{"type", "boolean"}}; break;
  }
  // Left out and null are the same.
  if (s["type"].is_string()) s["type"] = {s["type"], "null"};
  if (s.contains("enum")) s["enum"].push_back(nullptr);
  s["description"] = f.what;
  return s;
}

}  // namespace

const std::vector<SpecField>& spec_fields() {
  static const std::vector<SpecField> fields = {
      {"name", T::kText, 0, 0, {}, "a name of your own for this deployment"},
      {"task_type", T::kText, 0, 0, {}, "a use case of the knowledge base, whose template fills what you leave out"},
      {"use_case_description", T::kText, 0, 0, {}, "in your words; kept, not read by the search"},
      {"subject_matter", T::kText, 0, 0, {}, "models whose catalogue entry names other domains only are left out"},
      {"priority", T::kChoice, 0, 0, {"cost", "latency", "accuracy", "balanced"}, "what options are ranked by"},

      {"users", T::kNumber, 1, 1e9, {}, "people who have access; not all at once"},
      {"concurrent_users", T::kNumber, 1, 1e9, {}, "people in a session at the same time, at the peak"},
      {"concurrency_ratio", T::kNumber, 1e-6, 1, {}, "share of the users who are in a session at the peak"},
      {"think_time_s", T::kNumber, 0, 86400, {}, "between an answer and the same person's next request"},
      {"peak_rps", T::kNumber, 1e-6, 1e6, {}, "requests per second in the busiest hour"},
      {"average_rps", T::kNumber, 1e-6, 1e6, {}, "requests per second over the day"},
      {"daily_requests", T::kNumber, 0.1, 1e11, {}, "requests of one day"},
      {"target_throughput_rps", T::kNumber, 1e-6, 1e6, {}, "a rate that must be carried, whatever the peak is"},
      {"prompt_length_avg", T::kNumber, 1, 1e7, {}, "tokens"},
      {"prompt_length_p95", T::kNumber, 1, 1e7, {}, "tokens"},
      {"generation_length_avg", T::kNumber, 1, 1e6, {}, "tokens"},
      {"generation_length_p95", T::kNumber, 1, 1e6, {}, "tokens"},
      {"max_context_tokens", T::kWhole, 1, 1e7, {}, "longest prompt and answer of one request that must be served"},
      {"burstiness_pattern",
       T::kChoice,
       0,
       0,
       {"steady", "low", "moderate", "high", "diurnal"},
       "coefficient of variation of the gaps between requests: 0.5, 1, 2, 4; diurnal is 1 within the hour"},
      {"hourly_multipliers",
       T::kHours,
       0,
       24,
       {},
       "load of each hour of the day relative to the average; their mean is 1"},

      {"target_ttft_p90_ms", T::kNumber, 0.1, 1e7, {}, "time to first token"},
      {"target_ttft_p95_ms", T::kNumber, 0.1, 1e7, {}, "time to first token"},
      {"target_ttft_p99_ms", T::kNumber, 0.1, 1e7, {}, "time to first token"},
      {"target_tpot_p90_ms", T::kNumber, 0.01, 1e6, {}, "time per output token after the first"},
      {"target_tpot_p95_ms", T::kNumber, 0.01, 1e6, {}, "time per output token after the first"},
      {"target_tpot_p99_ms", T::kNumber, 0.01, 1e6, {}, "time per output token after the first"},
      {"target_e2e_latency_p90_ms", T::kNumber, 0.1, 1e8, {}, "whole answer"},
      {"target_e2e_latency_p95_ms", T::kNumber, 0.1, 1e8, {}, "whole answer"},
      {"target_e2e_latency_p99_ms", T::kNumber, 0.1, 1e8, {}, "whole answer"},
      {"quality_threshold", T::kChoice, 0, 0, {"standard", "high", "very_high"}, "least quality of the model"},
      {"reliability_target", T::kNumber, 50, 99.9999, {}, "share of the time, in %, that enough replicas must be up"},
      {"replica_availability_pct", T::kNumber, 50, 99.9999, {}, "share of the time that one replica is up"},
      {"zones", T::kWhole, 1, 16, {}, "availability zones to spread each region's replicas over"},
      {"survive_loss_of",
       T::kChoice,
       0,
       0,
       {"none", "zone", "region"},
       "what may fail at the peak without missing targets"},
      {"headroom_pct", T::kNumber, 0, 1000, {}, "capacity beyond the peak"},

      {"preferred_models", T::kTexts, 0, 0, {}, "only these models"},
      {"models", T::kShares, 0, 0, {}, "several models at once, each with its share of the requests"},
      {"available_gpus", T::kTexts, 0, 0, {}, "only these GPUs, by name or alias"},
      {"quantizations",
       T::kChoices,
       0,
       0,
       {"bf16", "fp16", "fp8", "int8", "nvfp4", "mxfp4", "int4_wo"},
       "only these formats of the weights"},
      {"engine",
       T::kChoice,
       0,
       0,
       {"vllm", "sglang", "trtllm", "sextant"},
       "whose measurements latencies are predicted from"},
      {"engine_version", T::kText, 0, 0, {}, "unknown when left out, which is a version of its own"},
      {"gpu_constraints.max_gpus", T::kWhole, 1, 1e6, {}, "of all regions together"},
      {"gpu_constraints.max_tensor_parallel", T::kWhole, 1, 64, {}, "GPUs that share one replica's weights"},
      {"gpu_constraints.max_pipeline_parallel",
       T::kWhole,
       1,
       4,
       {},
       "stages of one replica; 1: none, left out: up to 4"},
      {"max_num_seqs",
       T::kWhole,
       1,
       65536,
       {},
       "sequences in one replica's batch at most, all its pipeline stages together; left out: searched"},
      {"providers", T::kTexts, 0, 0, {}, "only these clouds"},
      {"regions", T::kShares, 0, 0, {}, "where, with shares of the requests"},
      {"compliance",
       T::kChoices,
       0,
       0,
       {"gdpr", "ccpa", "hipaa", "soc2"},
       "gdpr keeps to regions of the EU, hipaa to the United States; each sets audit, retention and encryption"},

      {"budget.max_monthly_cost_usd", T::kNumber, 0.01, 1e12, {}, "of 730 hours"},
      {"budget.max_hourly_cost_usd", T::kNumber, 0.0001, 1e9, {}, "with everything running that the peak needs"},
      {"budget.cost_per_1k_tokens", T::kNumber, 1e-9, 1e3, {}, "US dollars per 1,000 output tokens"},
      {"pricing.spot_share", T::kNumber, 0, 1, {}, "of the instances; needs pricing.spot_interruptions_per_day"},
      {"pricing.reserved_share",
       T::kNumber,
       0,
       1,
       {},
       "of the instances; a price row or reserved_discount_pct says what they cost"},
      {"pricing.reserved_discount_pct", T::kNumber, 0, 95, {}, "your contract's; the plan marks it as assumed"},
      {"pricing.spot_interruptions_per_day", T::kNumber, 0, 1000, {}, "of one spot instance; no row holds it"},
      {"pricing.spot_recovery_minutes", T::kNumber, 0, 1440, {}, "until an interrupted replica serves again"},
      {"pricing.gpu_prices",
       T::kPrices,
       0,
       0,
       {},
       "prices of your own per GPU and hour; the plan marks them as assumed"},
      {"costs.load_balancer_usd_per_month", T::kNumber, 0, 1e9, {}, "added to the plan's cost"},
      {"costs.storage_usd_per_month", T::kNumber, 0, 1e9, {}, "added to the plan's cost"},
      {"costs.egress_usd_per_month", T::kNumber, 0, 1e9, {}, "added to the plan's cost"},
      {"costs.monitoring_usd_per_month", T::kNumber, 0, 1e9, {}, "added to the plan's cost"},
      {"costs.output_input_ratio", T::kNumber, 0.01, 1000, {}, "what an output token costs relative to an input token"},
      {"revenue.usd_per_request", T::kNumber, 0, 1e6, {}, "what you are paid"},
      {"revenue.usd_per_1m_output_tokens", T::kNumber, 0, 1e6, {}, "what you are paid"},
      {"autoscaling.enabled", T::kFlag, 0, 0, {}, "replicas follow the hours of the day"},
      {"autoscaling.min_replicas", T::kWhole, 1, 1e6, {}, "never fewer"},
      {"autoscaling.scale_up_minutes", T::kNumber, 0, 240, {}, "from the need to a replica that serves"},
      {"latency.network_ms", T::kNumber, 0, 10000, {}, "to the client and back"},
      {"latency.gateway_ms", T::kNumber, 0, 10000, {}, "in gateways and load balancers"},

      {"deployment_model", T::kChoice, 0, 0, {"cloud_rental", "owned_hardware", "purchase"}, "whose GPUs they are"},
      {"datacenter_context.power_cost_per_kwh", T::kNumber, 0, 100, {}, "US dollars"},
      {"datacenter_context.cooling_overhead_pue", T::kNumber, 1, 5, {}, "power of the site / power of the machines"},
      {"datacenter_context.rack_space_cost_per_month", T::kNumber, 0, 1e9, {}, "US dollars, all of it"},
      {"datacenter_context.staff_cost_per_month", T::kNumber, 0, 1e9, {}, "US dollars, all of it"},
      {"datacenter_context.amortization_period_months", T::kNumber, 1, 240, {}, "of what is bought"},
      {"datacenter_context.purchase_price_usd_per_gpu", T::kNumber, 1, 1e7, {}, "no row holds it: needed to buy"},
      {"datacenter_context.server_cost_usd", T::kNumber, 0, 1e10, {}, "servers, network and installation, all of it"},
      {"datacenter_context.residual_value_usd", T::kNumber, 0, 1e10, {}, "of what was bought, at the end"},
      {"datacenter_context.host_power_w", T::kNumber, 0, 1e8, {}, "of all that is not a GPU, together"},
      {"datacenter_context.horizon_months", T::kNumber, 1, 240, {}, "how long it will be used"},
      {"datacenter_context.annual_discount_rate", T::kNumber, 0, 1, {}, "of the money bound: 0.08 is 8%"},
  };
  return fields;
}

ordered_json spec_json_schema() {
  ordered_json properties = {
      {"schema", {{"type", "string"}, {"enum", ordered_json::array({kSpecSchema})}, {"description", "what this is"}}}};
  for (const SpecField& field : spec_fields()) {
    const std::string path = field.path;
    const size_t dot = path.find('.');
    if (dot == std::string::npos) {
      properties[path] = schema_of(field);
      continue;
    }
    ordered_json& group = properties[path.substr(0, dot)];
    if (group.is_null())
      group = {{"type", {"object", "null"}}, {"properties", ordered_json::object()}, {"additionalProperties", false}};
    group["properties"][path.substr(dot + 1)] = schema_of(field);
  }
  return {{"$schema", "https://json-schema.org/draft/2020-12/schema"},
          {"title", kSpecSchema},
          {"description", "What should be served. Every field may be left out."},
          {"type", "object"},
          {"properties", properties},
          {"additionalProperties", false}};
}

}  // namespace sextant::advisor
