#include "deploy/kubernetes/dashboards.h"

#include <cmath>
#include <cstdio>

#include "deploy/kubernetes/alerts.h"
#include "deploy/kubernetes/queries.h"

namespace sextant::deploy {
namespace {

const Object kSource = {{"type", "prometheus"}, {"uid", "${datasource}"}};

struct Query {
  std::string expr, legend;
};

class Dashboard {
 public:
  Dashboard(const Target& target, const std::string& kind, const std::string& title) {
    // At most 40 characters, different for each name and kind.
    uint32_t hash = 2166136261u;
    for (const char c : target.ns() + "/" + target.name()) hash = (hash ^ static_cast<unsigned char>(c)) * 16777619u;
    char text[16];
    std::snprintf(text, sizeof text, "%08x", hash);
    board_ = {
        {"uid", "sextant-" + kind + "-" + text},
        {"title", target.name() + ": " + title},
        {"description", "Served model: " + target.model_id},
        {"tags", {"sextant", kind}},
        {"schemaVersion", 39},
        {"version", 1},
        {"editable", true},
        {"graphTooltip", 1},
        {"refresh", "30s"},
        {"timezone", "utc"},
        {"time", {{"from", "now-6h"}, {"to", "now"}}},
        {"templating",
         {{"list",
           {{{"name", "datasource"}, {"type", "datasource"}, {"query", "prometheus"}, {"label", "Prometheus"}}}}}},
        {"panels", Object::array()}};
  }

  void add(const char* type, const std::string& title, const std::string& unit, const std::vector<Query>& queries,
           std::optional<double> limit = std::nullopt) {
    Object& panels = board_["panels"];
    const auto count = static_cast<int>(panels.size());
    Object targets = Object::array();
    for (size_t i = 0; i < queries.size(); ++i) {
      const std::string id(1, static_cast<char>('A' + i));
      Object target = {
          {"refId", id}, {"datasource", kSource}, {"expr", queries[i].expr}, {"legendFormat", queries[i].legend}};
      if (std::string_view(type) == "heatmap") target["format"] = "heatmap";
      targets.push_back(target);
    }
    Object defaults = {{"unit", unit}, {"min", 0}};
    if (limit) {
      defaults["thresholds"] = {
          {"mode", "absolute"},
          {"steps", {{{"color", "green"}, {"value", nullptr}}, {{"color", "red"}, {"value", *limit}}}}};
      if (std::string_view(type) == "timeseries") defaults["custom"] = {{"thresholdsStyle", {{"mode", "line"}}}};
    }
    panels.push_back({{"id", count + 1},
                      {"type", type},
                      {"title", title},
                      {"datasource", kSource},
                      {"gridPos", {{"x", 12 * (count % 2)}, {"y", 8 * (count / 2)}, {"w", 12}, {"h", 8}}},
                      {"fieldConfig", {{"defaults", defaults}, {"overrides", Object::array()}}},
                      {"targets", targets}});
  }

  Object done() { return std::move(board_); }

 private:
  Object board_;
};

std::vector<Query> percentiles(const Queries& ask, const char* what) {
  const std::string name = std::string("sextant:") + what + "_seconds:p";
  return {{ask.recorded(name + "50"), "p50"}, {ask.recorded(name + "95"), "p95"}, {ask.recorded(name + "99"), "p99"}};
}

Object system_board(const Target& target) {
  const Queries ask(target);
  const std::string api = ",handler=~\"/v1/.+\"";
  Dashboard board(target, "system", "system");
  board.add("timeseries", "Requests by route", "reqps",
            {{"sum by (handler) (" + ask.rate("http_requests_total", "5m", api) + ")", "{{handler}}"}});
  board.add("timeseries", "Requests by status", "reqps",
            {{"sum by (status) (" + ask.rate("http_requests_total", "5m", api) + ")", "{{status}}"}});
  if (target.ours())
    board.add("timeseries", "Requests that were refused, by reason", "reqps",
              {{"sum by (reason) (" + ask.rate("sextant:requests_refused_total", "5m") + ")", "{{reason}}"}});
  board.add("timeseries", "Time of an answer", "s", percentiles(ask, "e2e"));
  board.add("timeseries", "Share of requests that the server failed", "percentunit",
            {{ask.recorded("sextant:request_errors:ratio_rate5m"), "errors"}}, 0.01);
  board.add("timeseries", "Requests in the batch and waiting", "short",
            {{"sum(" + ask.of("vllm:num_requests_running") + ")", "running"},
             {"sum(" + ask.of(ask.queue_depth_metric()) + ")", "waiting"}});
  board.add("stat", "Replicas that answer", "short", {{"sum(" + ask.of("up") + ")", "up"}});
  board.add("timeseries", "CPUs in use", "short",
            {{"sum by (pod) (" + ask.rate("process_cpu_seconds_total", "5m") + ")", "{{pod}}"}});
  board.add("timeseries", "Resident memory", "bytes",
            {{"sum by (pod) (" + ask.of("process_resident_memory_bytes") + ")", "{{pod}}"}});
  board.add("timeseries", "Open file descriptors", "short",
            {{"max by (pod) (" + ask.of("process_open_fds") + ")", "{{pod}}"}});
  return board.done();
}

Object gpu_board(const Target& target) {
  const Queries ask(target);
  Dashboard board(target, "gpu", "GPUs");
  if (target.ours()) {
    const std::string legend = "{{pod}} {{gpu}}";
    board.add("timeseries", "Busy", "percentunit", {{ask.of("sextant_gpu_utilization_ratio"), legend}}, 0.95);
    board.add("timeseries", "Memory in use", "percentunit",
              {{ask.of("sextant_gpu_memory_used_bytes") + " / " + ask.of("sextant_gpu_memory_total_bytes"), legend}});
    board.add("timeseries", "Temperature", "celsius", {{ask.of("sextant_gpu_temperature_celsius"), legend}});
    board.add("timeseries", "Power", "watt", {{ask.of("sextant_gpu_power_watts"), legend}});
    return board.done();
  }
  const std::string pods = "{namespace=\"" + target.ns() + "\",pod=~\"" + target.name() + "-.+\"}";
  board.add("timeseries", "Busy", "percent", {{"DCGM_FI_DEV_GPU_UTIL" + pods, "{{pod}} {{gpu}}"}}, 95);
  board.add("timeseries", "Memory in use", "decmbytes", {{"DCGM_FI_DEV_FB_USED" + pods, "{{pod}} {{gpu}}"}});
  board.add("timeseries", "Temperature", "celsius", {{"DCGM_FI_DEV_GPU_TEMP" + pods, "{{pod}} {{gpu}}"}});
  board.add("timeseries", "Power", "watt", {{"DCGM_FI_DEV_POWER_USAGE" + pods, "{{pod}} {{gpu}}"}});
  return board.done();
}

Object model_board(const Target& target) {
  const Queries ask(target);
  Dashboard board(target, "model", "model");
  board.add("timeseries", "Tokens", "tps",
            {{ask.recorded("sextant:generated_tokens:rate5m"), "generated"},
             {ask.recorded("sextant:prompt_tokens:rate5m"), "prompt"}});
  board.add("timeseries", "Time to first token", "s", percentiles(ask, "ttft"));
  board.add("timeseries", "Time per output token", "s", percentiles(ask, "tpot"));
  board.add("timeseries", "Between tokens", "s", {{ask.quantile(0.99, "vllm:inter_token_latency_seconds"), "p99"}});
  board.add("heatmap", "Tokens per step", "short",
            {{"sum by (le) (increase(" + ask.of("vllm:iteration_tokens_total_bucket") + "[5m]))", "{{le}}"}});
  if (target.ours())
    board.add("heatmap", "Sequences per step", "short",
              {{"sum by (le) (increase(" + ask.of("llm_batch_size_bucket") + "[5m]))", "{{le}}"}});
  board.add("timeseries", "KV cache in use", "percentunit", {{ask.of("vllm:kv_cache_usage_perc"), "{{pod}}"}}, 0.95);
  board.add("timeseries", "Prompt tokens found in the prefix cache", "percentunit",
            {{"sum(" + ask.rate("vllm:prefix_cache_hits_total", "5m") + ") / sum(" +
                  ask.rate("vllm:prefix_cache_queries_total", "5m") + ")",
              "hits"}});
  board.add("timeseries", "Preemptions", "ops",
            {{"sum(" + ask.rate("vllm:num_preemptions_total", "5m") + ")", "preemptions"}});
  board.add("timeseries", "Time in the queue", "s", {{ask.quantile(0.95, "vllm:request_queue_time_seconds"), "p95"}});
  board.add("timeseries", "Prompt and answer lengths", "short",
            {{ask.quantile(0.95, "vllm:request_prompt_tokens"), "prompt p95"},
             {ask.quantile(0.95, "vllm:request_generation_tokens"), "answer p95"}});
  board.add(
      "timeseries", "Requests that ended, by reason", "reqps",
      {{"sum by (finished_reason) (" + ask.rate("vllm:request_success_total", "5m") + ")", "{{finished_reason}}"}});
  return board.done();
}

Object business_board(const Target& target) {
  const Queries ask(target);
  Dashboard board(target, "business", "business");
  const std::string cost = ask.recorded("sextant:cost_usd_per_hour");
  if (target.usd_per_replica_hour > 0) {
    board.add("stat", "Cost of the replicas that run, per hour", "currencyUSD", {{cost, "USD/h"}});
    board.add("timeseries", "Cost per 1000 generated tokens", "currencyUSD",
              {{"1000 * " + cost + " / 3600 / " + ask.recorded("sextant:generated_tokens:rate5m"), "USD"}});
    board.add("timeseries", "Cost per request", "currencyUSD",
              {{cost + " / 3600 / " + ask.recorded("sextant:requests:rate5m"), "USD"}});
  }
  board.add("stat", "Requests in 24 hours", "short",
            {{"sum(increase(" + ask.of("http_requests_total", ",handler=~\"/v1/.+\"") + "[24h]))", "requests"}});
  board.add("stat", "Tokens generated in 24 hours", "short",
            {{"sum(increase(" + ask.of("vllm:generation_tokens_total") + "[24h]))", "tokens"}});
  board.add("stat", "Prompt tokens in 24 hours", "short",
            {{"sum(increase(" + ask.of("vllm:prompt_tokens_total") + "[24h]))", "tokens"}});
  board.add("timeseries", "Tokens per request", "short",
            {{ask.recorded("sextant:generated_tokens:rate5m") + " / " + ask.recorded("sextant:requests:rate5m"),
              "generated"}});
  return board.done();
}

Object slo_board(const Target& target) {
  const Queries ask(target);
  Dashboard board(target, "slo", "objectives");
  const double budget = target.error_budget();
  board.add("stat", "Error budget of 30 days that is left", "percentunit",
            {{ask.recorded("sextant:error_budget:remaining"), "left"}});
  board.add("timeseries", "Share of failed requests", "percentunit",
            {{ask.recorded("sextant:request_errors:ratio_rate5m"), "5 minutes"},
             {ask.recorded("sextant:request_errors:ratio_rate1h"), "1 hour"},
             {ask.recorded("sextant:request_errors:ratio_rate6h"), "6 hours"}},
            budget);
  for (const LatencyGoal& goal : target.goals) {
    const std::string quantile = "p" + std::to_string(std::lround(goal.quantile * 100));
    board.add("timeseries", goal.what + " " + quantile + " and its limit", "s",
              {{ask.recorded("sextant:" + goal.what + "_seconds:" + quantile), quantile}}, goal.limit_ms / 1000);
  }
  board.add("timeseries", "Load of a replica, as a share of what the plan gives it", "percentunit",
            {{"sum(" + ask.recorded("sextant:requests:rate5m") + ") / (sum(" + ask.of("up") + ") * " +
                  number_text(target.limit_rps_per_replica > 0 ? target.limit_rps_per_replica : 1) + ")",
              "load"}},
            1);
  board.add("stat", "Alerts that fire", "short",
            {{"count(ALERTS{alertstate=\"firing\",namespace=\"" + target.ns() + "\",service=\"" + target.name() +
                  "\"}) or vector(0)",
              "alerts"}},
            1);
  return board.done();
}

}  // namespace

std::vector<std::pair<std::string, Object>> dashboards_of(const Target& target) {
  std::vector<std::pair<std::string, Object>> out = {{"system", system_board(target)}};
  if (target.uses_gpus()) out.emplace_back("gpu", gpu_board(target));
  out.emplace_back("model", model_board(target));
  out.emplace_back("business", business_board(target));
  out.emplace_back("slo", slo_board(target));
  return out;
}

}  // namespace sextant::deploy
