#include "bench/report/json_report.h"

#include <cmath>
#include <fstream>
#include <sstream>

namespace sextant::bench {
namespace {

using Json = nlohmann::ordered_json;

double rounded(double value) { return std::round(value * 1e4) / 1e4; }
Json json_of(double value) { return std::isfinite(value) ? Json(rounded(value)) : Json(); }
Json json_of(const std::optional<double>& value) { return value ? json_of(*value) : Json(); }
Json json_of(const std::optional<Bounds>& value) {
  return value ? Json::array({rounded(value->low), rounded(value->high)}) : Json();
}

Json json_of(const LatencyResult& latency) {
  if (latency.empty()) return nullptr;
  Json json = {{"n", latency.sorted_ms.size()}, {"mean", json_of(latency.mean_ms)}};
  Json ci = {{"mean", json_of(latency.mean_ci)}};
  for (const auto& [name, q] :
       {std::pair<const char*, double>{"p50", 0.5}, {"p90", 0.9}, {"p95", 0.95}, {"p99", 0.99}, {"p99_9", 0.999}}) {
    json[name] = json_of(latency.at(q));
    ci[name] = json_of(latency.interval_at(q));
  }
  json["min"] = json_of(latency.sorted_ms.front());
  json["max"] = json_of(latency.sorted_ms.back());
  json["ci90"] = std::move(ci);
  // The distribution at 201 even steps, for charts.
  Json quantiles = Json::array();
  for (int i = 0; i <= 200; ++i) quantiles.push_back(rounded(percentile(latency.sorted_ms, i / 200.0)));
  json["quantiles_by_half_percent"] = std::move(quantiles);
  return json;
}

Json json_of(const std::vector<double>& series) {
  Json json = Json::array();
  for (const double value : series) json.push_back(json_of(value));
  return json;
}

Json requests_json(const Measurement& m) {
  Json json = {
      {"outcome", Json::array()},           {"in_window", Json::array()},        {"sent_s", Json::array()},
      {"ttft_ms", Json::array()},           {"tpot_ms", Json::array()},          {"e2e_ms", Json::array()},
      {"ttft_scheduled_ms", Json::array()}, {"e2e_scheduled_ms", Json::array()}, {"prompt_tokens", Json::array()},
      {"output_tokens", Json::array()}};
  for (const RequestRow& row : m.rows) {
    json["outcome"].push_back(outcome_name(row.kind));
    json["in_window"].push_back(row.in_window);
    json["sent_s"].push_back(std::isfinite(row.sent_s) ? Json(std::round(row.sent_s * 1e6) / 1e6) : Json());
    json["ttft_ms"].push_back(json_of(row.ttft_ms));
    json["tpot_ms"].push_back(json_of(row.tpot_ms));
    json["e2e_ms"].push_back(json_of(row.e2e_ms));
    json["ttft_scheduled_ms"].push_back(json_of(row.ttft_scheduled_ms));
    json["e2e_scheduled_ms"].push_back(json_of(row.e2e_scheduled_ms));
    json["prompt_tokens"].push_back(row.prompt_tokens >= 0 ? Json(row.prompt_tokens) : Json());
    json["output_tokens"].push_back(row.output_tokens >= 0 ? Json(row.output_tokens) : Json());
  }
  return json;
}

Json point_json(const BenchResult& result, const BenchPoint& point) {
  const Measurement& m = point.measurement;
  Json json;
  json["label"] = point.label;
  json["timestamp"] = point.timestamp;
  json["begin_monotonic_ns"] = m.begin_ns;  // the zero of sent_s, on this machine's monotonic clock
  json["load"] = {{"kind", load_name(point.kind)},
                  {"request_rate", point.load.request_rate > 0 ? json_of(point.load.request_rate) : Json()},
                  {"burstiness", std::isfinite(point.load.burstiness) ? Json(point.load.burstiness) : Json("inf")},
                  {"max_concurrency", point.load.max_concurrency ? Json(*point.load.max_concurrency) : Json()},
                  {"duration_s", json_of(point.load.duration_s)},
                  {"seed", point.seed}};
  json["counts"] = {{"planned", m.num_planned},         {"sent", m.num_sent},
                    {"finished", m.num_finished},       {"failed", m.num_failed},
                    {"interrupted", m.num_interrupted}, {"measured", m.num_measured}};
  json["errors"] = Json::object();
  for (const auto& [name, count] : m.errors) {
    json["errors"][name] = {{"count", count}, {"example", m.error_examples.at(name)}};
  }
  json["window"] = {{"begin_s", json_of(m.window_begin_s)},
                    {"end_s", json_of(m.window_end_s)},
                    {"duration_s", json_of(m.window_s())}};
  json["rates"] = {{"request_rps", json_of(m.request_rps)},
                   {"input_tokens_per_s", m.input_tokens_known ? json_of(m.input_tokens_per_s) : Json()},
                   {"output_tokens_per_s", json_of(m.output_tokens_per_s)},
                   {"total_tokens_per_s", m.input_tokens_known ? json_of(m.total_tokens_per_s) : Json()},
                   {"mean_requests_in_flight", json_of(m.mean_running)},
                   {"goodput_rps", json_of(m.goodput_rps)},
                   {"good_requests", m.num_good ? Json(*m.num_good) : Json()},
                   {"error_rate", json_of(m.error_rate())}};
  json["rates"]["in_equal_parts"] = {{"request_rps", json_of(m.batch_rps)},
                                     {"output_tokens_per_s", json_of(m.batch_tokens_per_s)}};
  json["latency_ms"] = {{"ttft", json_of(m.ttft)},
                        {"tpot", json_of(m.tpot)},
                        {"itl", json_of(m.itl)},
                        {"e2e", json_of(m.e2e)},
                        {"normalized_tpot", json_of(m.normalized_tpot)},
                        {"ttft_from_schedule", json_of(m.ttft_scheduled)},
                        {"e2e_from_schedule", json_of(m.e2e_scheduled)},
                        {"queue_mean", json_of(m.queue_mean_ms)}};
  const auto lengths = [](const std::optional<LengthSummary>& l) {
    return l ? Json{{"mean", rounded(l->mean)},
                    {"p50", json_of(l->p50)},
                    {"p95", json_of(l->p95)},
                    {"max", json_of(l->max)}}
             : Json();
  };
  json["tokens"] = {{"counted_by", m.tokens_counted_by},
                    {"input", m.input_tokens_known ? Json(m.input_tokens) : Json()},
                    {"output", m.output_tokens},
                    {"prompt_lengths", lengths(m.prompt_lengths)},
                    {"output_lengths", lengths(m.output_lengths)},
                    {"prefix_hit_ratio", json_of(m.prefix_hit_ratio)}};
  json["slo_met"] = point.slo_met ? Json(*point.slo_met) : Json();
  const RecordValidity& v = m.validity;
  json["validity"] = {{"valid", m.valid},
                      {"send_lag_p99_ms", json_of(v.send_lag_p99_ms)},
                      {"achieved_ratio", json_of(v.achieved_ratio)},
                      {"over_saturated", v.over_saturated ? Json(*v.over_saturated) : Json()},
                      {"warnings", v.warnings}};
  json["client"] = {{"cpu_s", json_of(m.client_cpu_s)},
                    {"self_time_pct", json_of(v.client_self_time_pct)},
                    {"us_per_event", json_of(m.client_us_per_event)},
                    {"events", m.num_events},
                    {"connections", m.num_connections}};
  if (m.memory_used_gib || m.gpu_utilization_pct || m.power_w) {
    json["gpu"] = {{"name", m.monitor.gpu_name},
                   {"count", m.monitor.num_gpus},
                   {"memory_used_gib", json_of(m.memory_used_gib)},
                   {"utilization_pct", json_of(m.gpu_utilization_pct)},
                   {"power_w", json_of(m.power_w)},
                   {"energy_j_per_token", json_of(m.energy_j_per_token)}};
  }
  json["timeline"] = {{"bin_s", m.timeline.bin_s},
                      {"sent_rps", json_of(m.timeline.sent_rps)},
                      {"finished_rps", json_of(m.timeline.finished_rps)},
                      {"output_tokens_per_s", json_of(m.timeline.output_tokens_per_s)},
                      {"requests_in_flight", json_of(m.timeline.running)},
                      {"waiting_for_first_token", json_of(m.timeline.waiting_first_token)}};
  if (!m.monitor.server.empty()) {
    Json series = {
        {"time_s", Json::array()}, {"running", Json::array()}, {"waiting", Json::array()}, {"kv_usage", Json::array()}};
    for (const ServerSample& sample : m.monitor.server) {
      series["time_s"].push_back(rounded(static_cast<double>(sample.time_ns - m.begin_ns) * 1e-9));
      series["running"].push_back(json_of(sample.running));
      series["waiting"].push_back(json_of(sample.waiting));
      series["kv_usage"].push_back(json_of(sample.kv_usage));
    }
    series["preemptions"] = json_of(m.monitor.totals.preemptions);
    json["server"] = std::move(series);
  }
  if (!m.monitor.gpu.empty()) {
    Json series = {{"time_s", Json::array()},
                   {"utilization_pct", Json::array()},
                   {"memory_used_gib", Json::array()},
                   {"power_w", Json::array()}};
    for (const GpuSample& sample : m.monitor.gpu) {
      series["time_s"].push_back(rounded(static_cast<double>(sample.time_ns - m.begin_ns) * 1e-9));
      series["utilization_pct"].push_back(json_of(sample.utilization_pct));
      series["memory_used_gib"].push_back(json_of(sample.memory_used_gib));
      series["power_w"].push_back(json_of(sample.power_w));
    }
    json["gpu_series"] = std::move(series);
  }
  json["record"] = to_json(make_record(result, point));
  json["requests"] = requests_json(m);
  return json;
}

}  // namespace

Json result_json(const BenchResult& result, const ReportOptions& options) {
  Json json;
  json["schema"] = kResultSchema;
  json["tool"] = "sextant bench serve " + options.tool_version;
  json["command"] = options.command;
  json["target"] = {{"url", result.url},
                    {"endpoint", result.endpoint},
                    {"model", result.model},
                    {"engine", result.deployment.engine},
                    {"engine_version", result.deployment.engine_version}};
  json["prompts"] = options.prompts;
  json["interrupted"] = result.interrupted;
  json["failed"] = result.failed ? Json(result.failed->message()) : Json();
  json["warnings"] = result.warnings;
  Json slo = Json::array();
  for (const RunGoal& goal : options.slo) slo.push_back(goal.text());
  json["slo"] = std::move(slo);
  Json goodput = Json::object();
  for (const RequestLimit& limit : options.goodput) goodput[latency_name(limit.latency)] = limit.limit_ms;
  json["goodput_limits_ms"] = std::move(goodput);
  if (result.max_rate || result.failed_rate) {
    json["max_rate"] = {{"kept_rps", json_of(result.max_rate)}, {"missed_rps", json_of(result.failed_rate)}};
  }
  json["points"] = Json::array();
  for (const BenchPoint& point : result.points) json["points"].push_back(point_json(result, point));
  json["formulas"] = Json::object();
  for (const auto& [name, formula] : measurement_formulas()) json["formulas"][name] = formula;
  return json;
}

std::string result_csv(const BenchResult& result) {
  std::ostringstream out;
  out << "point,request,outcome,in_window,scheduled_s,sent_s,ttft_ms,tpot_ms,e2e_ms,ttft_scheduled_ms,e2e_scheduled_ms,"
         "prompt_tokens,output_tokens,message\n";
  out.precision(9);
  const auto cell = [&](double value) {
    if (std::isfinite(value)) out << value;
    out << ',';
  };
  const auto quoted = [](const std::string& text) {
    std::string result_text = "\"";
    for (const char c : text) result_text += c == '"' ? "\"\"" : std::string(1, c);
    return result_text + "\"";
  };
  for (const BenchPoint& point : result.points) {
    for (const RequestRow& row : point.measurement.rows) {
      out << quoted(point.label) << ',' << row.index << ',' << outcome_name(row.kind) << ',' << (row.in_window ? 1 : 0)
          << ',';
      for (const double value : {row.scheduled_s, row.sent_s, row.ttft_ms, row.tpot_ms, row.e2e_ms,
                                 row.ttft_scheduled_ms, row.e2e_scheduled_ms}) {
        cell(value);
      }
      if (row.prompt_tokens >= 0) out << row.prompt_tokens;
      out << ',';
      if (row.output_tokens >= 0) out << row.output_tokens;
      out << ',' << (row.message.empty() ? "" : quoted(row.message)) << '\n';
    }
  }
  return out.str();
}

Result<LoadedResult> load_result(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return invalid_argument("cannot read " + path);
  const nlohmann::json json = nlohmann::json::parse(file, nullptr, false);
  const auto bad = [&](const std::string& why) {
    return invalid_argument(path + " " + why + "; give files that `sextant bench serve --save-result` wrote");
  };
  if (!json.is_object() || json.value("schema", nlohmann::json()) != kResultSchema) {
    return bad("is no " + std::string(kResultSchema));
  }
  LoadedResult result;
  result.source = path;
  try {
    for (const nlohmann::json& point : json.at("points")) {
      LoadedPoint loaded;
      loaded.label = point.at("label");
      loaded.model = json.at("target").at("model");
      loaded.engine = json.at("target").at("engine");
      loaded.valid = point.at("validity").at("valid");
      const nlohmann::json& requests = point.at("requests");
      const size_t n = requests.at("outcome").size();
      for (const auto& [name, column] :
           {std::pair<const char*, const char*>{"ttft", "ttft_ms"}, {"tpot", "tpot_ms"}, {"e2e", "e2e_ms"}}) {
        for (size_t i = 0; i < n; ++i) {
          const nlohmann::json& value = requests.at(column).at(i);
          if (requests.at("in_window").at(i) == true && value.is_number()) loaded.samples[name].push_back(value);
        }
      }
      const nlohmann::json& rates = point.at("rates");
      for (const char* name : {"request_rps", "output_tokens_per_s"}) {
        if (rates.at(name).is_number()) loaded.values[name] = rates.at(name);
        for (const nlohmann::json& value : rates.at("in_equal_parts").at(name)) {
          if (value.is_number()) loaded.batches[name].push_back(value);
        }
      }
      loaded.values["error_rate"] = rates.at("error_rate").is_number() ? rates.at("error_rate").get<double>() : 0;
      result.points.push_back(std::move(loaded));
    }
  } catch (const nlohmann::json::exception& e) {
    return bad(std::string("is incomplete: ") + e.what());
  }
  if (result.points.empty()) return bad("holds no measured point");
  return result;
}

}  // namespace sextant::bench
