#include "bench/report/llmd_report.h"

#include <cmath>
#include <cstdio>

namespace sextant::bench {
namespace {

using Json = nlohmann::ordered_json;

// Latencies in seconds per llm-d's units; `per_token`: seconds per token.
Json statistics(const LatencyResult& latency, const char* units) {
  if (latency.empty()) return nullptr;
  Json json = {{"units", units},
               {"mean", latency.mean_ms / 1000},
               {"stddev", std::sqrt(variance_of(latency.sorted_ms)) / 1000},
               {"min", latency.sorted_ms.front() / 1000}};
  for (const auto& [name, q] : {std::pair<const char*, double>{"p10", 0.1},
                                {"p25", 0.25},
                                {"p50", 0.5},
                                {"p75", 0.75},
                                {"p90", 0.9},
                                {"p95", 0.95},
                                {"p99", 0.99},
                                {"p99p9", 0.999}}) {
    const auto value = latency.at(q);
    json[name] = value ? Json(*value / 1000) : Json();
  }
  json["max"] = latency.sorted_ms.back() / 1000;
  return json;
}

Json lengths(const std::optional<LengthSummary>& l) {
  if (!l) return nullptr;
  return {{"units", "count"}, {"mean", l->mean}, {"p50", *l->p50}, {"p95", *l->p95}, {"max", *l->max}};
}

Json rate(double value, const char* units) { return {{"units", units}, {"mean", value}}; }

Json sequence_length(const std::optional<LengthSummary>& l) {
  if (!l) return {{"distribution", "other"}, {"value", 0}};
  const bool fixed = l->max && *l->max == l->mean;
  return {{"distribution", fixed ? "fixed" : "other"}, {"value", l->mean}};
}

}  // namespace

Json llmd_report(const BenchResult& result, const ReportOptions& options) {
  const BenchPoint& point = result.points.back();
  const Measurement& m = point.measurement;
  const BenchmarkRecord record = make_record(result, point);
  char duration[32];
  std::snprintf(duration, sizeof duration, "PT%.3fS", m.window_s());
  Json load = {{"tool", "sextant bench serve"},
               {"tool_version", options.tool_version},
               {"source", "random"},
               {"input_seq_len", sequence_length(m.prompt_lengths)},
               {"output_seq_len", sequence_length(m.output_lengths)},
               {"rate_qps", point.load.request_rate > 0 ? Json(point.load.request_rate) : Json()},
               {"concurrency", point.load.max_concurrency ? Json(*point.load.max_concurrency) : Json()}};
  Json stack = Json::array();
  stack.push_back({{"metadata", {{"label", "server"}, {"cfg_id", record.record_id}}},
                   {"standardized",
                    {{"kind", "inference_engine"},
                     {"tool", record.engine},
                     {"tool_version", record.engine_version.value_or("unknown")},
                     {"role", "replica"},
                     {"replicas", 1},
                     {"model", {{"name", record.model_id}}},
                     {"accelerator",
                      {{"model", record.gpu_type.value_or(record.num_gpus == 0 ? "CPU" : "unknown")},
                       {"count", record.num_gpus},
                       {"parallelism",
                        {{"tp", record.tensor_parallel},
                         {"dp", record.data_parallel},
                         {"ep", record.expert_parallel},
                         {"pp", record.pipeline_parallel}}}}}}},
                   {"native", {{"config", record.engine_config}}}});
  Json aggregate;
  aggregate["requests"] = {{"total", m.num_measured},
                           {"failures", m.num_failed},
                           {"incomplete", m.num_interrupted},
                           {"input_length", lengths(m.prompt_lengths)},
                           {"output_length", lengths(m.output_lengths)}};
  aggregate["latency"] = {{"time_to_first_token", statistics(m.ttft, "s")},
                          {"normalized_time_per_output_token", statistics(m.normalized_tpot, "s/token")},
                          {"time_per_output_token", statistics(m.tpot, "s/token")},
                          {"inter_token_latency", statistics(m.itl, "s/token")},
                          {"request_latency", statistics(m.e2e, "s")}};
  aggregate["throughput"] = {
      {"input_token_rate", m.input_tokens_known ? rate(m.input_tokens_per_s, "tokens/s") : Json()},
      {"output_token_rate", rate(m.output_tokens_per_s, "tokens/s")},
      {"total_token_rate", m.input_tokens_known ? rate(m.total_tokens_per_s, "tokens/s") : Json()},
      {"request_rate", rate(m.request_rps, "queries/s")}};
  return {{"version", "0.2.1"},
          {"run",
           {{"uid", record.record_id},
            {"time", {{"start", point.timestamp}, {"duration", duration}}},
            {"description", point.label + "; " + options.prompts}}},
          {"scenario",
           {{"stack", std::move(stack)},
            {"load",
             {{"metadata", Json::object()},
              {"standardized", std::move(load)},
              {"native", {{"args", {{"command", options.command}}}}}}}}},
          {"results", {{"request_performance", {{"aggregate", std::move(aggregate)}}}}}};
}

}  // namespace sextant::bench
