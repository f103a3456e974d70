// Long because it is one table: each alert stands with what it means, what to do and the series that try it.
#include "deploy/kubernetes/alerts.h"

#include <algorithm>
#include <cmath>

#include "deploy/kubernetes/queries.h"
#include "deploy/kubernetes/scaling.h"

namespace sextant::deploy {
namespace {

// 002's p99 of 0.5 s is no goal of a long answer: the plan's goals are, and where it has none, what it predicted at its limit.
std::vector<LatencyGoal> goals_of(const Target& target) {
  std::vector<LatencyGoal> goals = target.goals;
  const bool has_e2e = std::any_of(goals.begin(), goals.end(), [](const LatencyGoal& g) { return g.what == "e2e"; });
  if (has_e2e) return goals;
  const Object at = target.option.value("limit_per_replica", Object::object());
  const Object e2e = at.is_object() ? at.value("e2e_ms", Object::object()) : Object::object();
  const Object p99 = e2e.is_object() ? e2e.value("p99", Object()) : Object();
  if (p99.is_number() && p99.get<double>() > 0.001) goals.push_back({"predicted", "e2e", 0.99, p99.get<double>()});
  return goals;
}

std::string percent_of(double quantile) { return std::to_string(std::lround(quantile * 100)); }

std::string alert_name_of(const LatencyGoal& goal) {
  return goal.what == "ttft" ? "HighTimeToFirstToken" : goal.what == "tpot" ? "HighTimePerOutputToken" : "HighLatency";
}

std::string goal_name_of(const LatencyGoal& goal) {
  return goal.what == "ttft"   ? "time to first token"
         : goal.what == "tpot" ? "time per output token"
                               : "whole answer's latency";
}

constexpr const char* kErrorWindows[] = {"5m", "30m", "1h", "6h", "30d"};

std::string error_record(const std::string& window) { return "sextant:request_errors:ratio_rate" + window; }

// All requests slower than the limit for 30 minutes, then all faster.
void add_slow_series(const Queries& ask, const std::string& histogram, double limit_s, Alert& alert) {
  const std::string metric = histogram + "_bucket";
  const auto series = [&](const std::string& le, const std::string& values) {
    alert.series.push_back({ask.of(metric, ",pod=\"a\",le=\"" + le + "\""), values});
  };
  series(number_text(limit_s / 10), "0+0x30 0+60x60");
  series(number_text(limit_s * 10), "0+60x91");
  series("+Inf", "0+60x91");
  alert.fires = 25;
  alert.clears = 60;
}

void add_error_series(const Queries& ask, const std::string& share, int minutes, int after, Alert& alert) {
  // Of 100 requests a minute, so many fail; then none.
  const std::string api = ",handler=\"/v1/chat/completions\",method=\"POST\",pod=\"a\"";
  const int failed = std::stoi(share);
  const int total = failed * minutes;
  alert.series.push_back(
      {ask.of("http_requests_total", api + ",status=\"5xx\""),
       "0+" + share + "x" + std::to_string(minutes) + " " + std::to_string(total) + "+0x" + std::to_string(after)});
  alert.series.push_back(
      {ask.of("http_requests_total", api + ",status=\"2xx\""), "0+100x" + std::to_string(minutes + after)});
}

}  // namespace

std::vector<Alert> alerts_of(const Target& target) {
  std::vector<Alert> out;
  const Queries ask(target);
  const double budget = target.error_budget();
  const ReplicaRange range = replica_range_of(target);
  const auto add = [&](Alert alert) { out.push_back(std::move(alert)); };

  for (const LatencyGoal& goal : goals_of(target)) {
    Alert alert;
    alert.name = alert_name_of(goal);
    const std::string quantile = "p" + percent_of(goal.quantile);
    alert.expr =
        ask.recorded("sextant:" + goal.what + "_seconds:" + quantile) + " > " + number_text(goal.limit_ms / 1000);
    alert.wait = "5m";
    alert.severity = "warning";
    alert.summary = quantile + " of the " + goal_name_of(goal) + " has been above " + duration_text(goal.limit_ms) +
                    " for 5 minutes";
    alert.meaning =
        "Users wait longer than the plan promises. Mostly the load is above what the replicas were sized for.";
    alert.action = "Compare the rate with the plan's peak; add replicas; look at preemptions and KV cache use.";
    add_slow_series(ask, ask.histogram_of(goal.what), goal.limit_ms / 1000, alert);
    // Two goals of one kind would share a name.
    if (std::none_of(out.begin(), out.end(), [&](const Alert& other) { return other.name == alert.name; })) add(alert);
  }

  const std::string ended = target.ours() ? "llm_requests_total" : "vllm:request_success_total";
  const std::string failed = target.ours() ? ",status=\"error\"" : ",finished_reason=\"error\"";
  const std::string fine = target.ours() ? ",status=\"success\"" : ",finished_reason=\"stop\"";
  for (const bool critical : {false, true}) {
    Alert alert;
    alert.name = critical ? "HighErrorRate" : "ElevatedErrorRate";
    const std::string ratio = "sum(" + ask.rate(ended, "5m", failed) + ") / sum(" + ask.rate(ended, "5m") + ")";
    alert.expr = ratio + (critical ? " > 0.05" : " > 0.01");
    alert.wait = critical ? "2m" : "5m";
    alert.severity = critical ? "critical" : "warning";
    alert.summary = std::string("More than ") + (critical ? "5%" : "1%") + " of the requests end with an error";
    alert.meaning = "The engine accepted requests and could not finish them: a device failed, or memory ran out.";
    alert.action =
        "Read the logs of the pods that report errors; a pod whose device failed is replaced by its liveness probe.";
    alert.series.push_back({ask.of(ended, failed + ",pod=\"a\""), critical ? "0+20x30 600+0x40" : "0+3x30 90+0x40"});
    alert.series.push_back({ask.of(ended, fine + ",pod=\"a\""), "0+100x71"});
    alert.fires = 20;
    alert.clears = 50;
    alert.labels = {};
    add(alert);
  }

  add({"QueueBacklog",
       "max(" + ask.of(ask.queue_depth_metric()) + ") > 100",
       "1m",
       "warning",
       "More than 100 requests wait at one replica",
       "The replica gets more than it can serve; the wait is in every time to first token.",
       "The autoscaler should be adding replicas: see whether it can (quota, nodes); else raise max_replicas.",
       {{ask.of(ask.queue_depth_metric(), ",pod=\"a\""), "150+0x20 0+0x20"}},
       10,
       30,
       {}});

  add({"KvCacheFull",
       "max(" + ask.of("vllm:kv_cache_usage_perc") + ") > 0.95",
       "5m",
       "warning",
       "A replica's KV cache has been more than 95% full for 5 minutes",
       "Sequences are preempted and computed again; throughput falls.",
       "Lower max_num_seqs or max_model_len, or add replicas.",
       {{ask.of("vllm:kv_cache_usage_perc", ",pod=\"a\""), "0.99+0x20 0.3+0x20"}},
       15,
       30,
       {}});

  if (target.uses_gpus()) {
    const std::string gpu_series =
        target.ours() ? ask.of(ask.gpu_metric(), ",pod=\"a\",gpu=\"0\"")
                      : ask.gpu_metric() + "{namespace=\"" + target.ns() + "\",pod=\"" + target.name() + "-a-b\"}";
    const std::string high = target.ours() ? "0.99" : "99";
    const std::string low = target.ours() ? "0.1" : "10";
    const std::string middle = target.ours() ? "0.7" : "70";
    add({"LowGpuUtilization",
         "avg(" + ask.gpu_utilization() + ") < 0.4",
         "10m",
         "info",
         "The GPUs have been less than 40% busy for 10 minutes",
         "More GPUs run than the load needs.",
         "Lower min_replicas, or let the autoscaler take replicas away.",
         {{gpu_series, low + "+0x30 " + middle + "+0x30"}},
         20,
         45,
         {}});
    add({"HighGpuUtilization",
         "avg(" + ask.gpu_utilization() + ") > 0.95",
         "10m",
         "warning",
         "The GPUs have been more than 95% busy for 10 minutes",
         "There is no room for a burst or the loss of a replica.",
         "Raise max_replicas, or plan anew with the load as it is.",
         {{gpu_series, high + "+0x30 " + middle + "+0x30"}},
         20,
         45,
         {}});
  }

  add({"NoReplicaUp",
       "(sum(" + ask.of("up") + ") or vector(0)) == 0",
       "2m",
       "critical",
       "No replica answers Prometheus",
       "Nothing is served.",
       "Look at the pods' events: no node with the GPU, no image, no weights, or a failing start.",
       {{ask.of("up", ",pod=\"a\""), "0+0x10 1+0x20"}},
       5,
       15,
       {}});
  add({"ReplicasMissing",
       "sum(" + ask.of("up") + ") < " + std::to_string(range.least),
       "15m",
       "warning",
       "Fewer replicas than the least of " + std::to_string(range.least) + " have been up for 15 minutes",
       "The deployment cannot survive a further loss within its goals.",
       "Look for pods that are pending or restarting.",
       [&] {
         std::vector<Alert::Series> series;
         for (int64_t i = 0; i < range.least; ++i)
           series.push_back({ask.of("up", ",pod=\"p" + std::to_string(i) + "\""), i == 0 ? "0+0x30 1+0x30" : "1+0x61"});
         return series;
       }(),
       25,
       45,
       {}});

  // Of servers that keep keys, take signed tokens, keep an audit log; of others there are no such series.
  if (target.ours()) {
    add({"StateStoreDown",
         "min(" + ask.of("sextant:state_store_up") + ") == 0",
         "2m",
         "critical",
         "A replica's store of keys, tenants and usage has not answered for 2 minutes",
         "Requests are served with the keys that are known; keys that were made or revoked since are not, and usage "
         "and "
         "daily quotas are in memory alone: a restart loses them.",
         "Look at the database, or at the volume of the state directory; what waits is in "
         "sextant:state_store_unwritten_requests.",
         {{ask.of("sextant:state_store_up", ",pod=\"a\""), "1+0x5 0+0x15 1+0x20"},
          {ask.of("sextant:state_store_up", ",pod=\"b\""), "1+0x41"}},
         15,
         30,
         {}});
    add({"AuditLogFailing",
         "max(" + ask.of("audit_log_failing") + ") > 0 or sum(" + ask.rate("audit_records_lost_total", "5m") + ") > 0",
         "1m",
         "critical",
         "A replica cannot write its audit log",
         "Records wait in memory and are lost when that is full, or the replica refuses work until it can write, as "
         "its "
         "settings say.",
         "Make room on the audit log's volume, or mend its permissions; audit_records_lost_total says what was lost.",
         {{ask.of("audit_log_failing", ",pod=\"a\""), "0+0x5 1+0x15 0+0x20"},
          {ask.of("audit_records_lost_total", ",pod=\"a\""), "0+0x41"}},
         15,
         30,
         {}});
    add({"TokenKeysStale",
         "min(" + ask.of("sextant:jwks_up") + ") == 0",
         "15m",
         "warning",
         "A replica has not been able to read the keys of signed tokens for 15 minutes",
         "Tokens signed with keys known before are taken, also those of keys that were withdrawn since; those of new "
         "keys "
         "are refused.",
         "Look at the identity provider's JWKS URL and at the way to it; the replica's log says what it answered.",
         {{ask.of("sextant:jwks_up", ",pod=\"a\""), "1+0x5 0+0x30 1+0x20"}},
         30,
         45,
         {}});
  }

  if (target.usd_per_replica_hour > 0) {
    std::vector<Alert::Series> series;
    for (int i = 0; i < 8; ++i)
      series.push_back(
          {ask.of("up", ",pod=\"p" + std::to_string(i) + "\""), i < 4 ? "1+0x3200" : "0+0x1500 1+0x200 0+0x1500"});
    const std::string cost = ask.recorded("sextant:cost_usd_per_hour");
    add({"CostIncrease",
         cost + " > 1.2 * " + ask.recorded("sextant:cost_usd_per_hour") + " offset 1d",
         "30m",
         "warning",
         "GPUs cost more than 20% above what they did at this time yesterday",
         "The autoscaler follows a higher load, or does not come down.",
         "Compare the rate with yesterday's; where it is the same, look at the queue and at slow replicas.",
         series,
         1600,
         1900,
         {}});
  }

  const auto burn = [&](const char* name, const char* longer, const char* shorter, double factor, const char* severity,
                        int minutes, int after) {
    Alert alert;
    alert.name = name;
    const std::string limit = number_text(factor) + " * " + number_text(budget);
    alert.expr = ask.recorded(error_record(longer)) + " > " + limit + " and " + ask.recorded(error_record(shorter)) +
                 " > " + limit;
    alert.wait = "2m";
    alert.severity = severity;
    alert.summary = "Errors use up the month's budget of " + figure_text(std::round(budget * 1e6) / 1e4) + "% " +
                    figure_text(factor) + " times too fast (" + longer + " and " + shorter + ")";
    alert.meaning =
        "At this rate the service misses its objective of " + figure_text(target.availability_pct) + "% this month.";
    alert.action = "If a release is new, roll it back first and look for the cause afterwards.";
    // Always above the limit: of 100 requests of either kind at least 14.4 x the budget fail, which is at most 0.5.
    add_error_series(ask, "900", minutes, after, alert);
    alert.fires = minutes;
    alert.clears = minutes + after - 5;
    out.push_back(std::move(alert));
  };
  // Factors and windows: Google's SRE workbook, "Alerting on SLOs". A limit of 1 or more could never be passed.
  if (14.4 * budget < 0.85) burn("ErrorBudgetBurnsFast", "1h", "5m", 14.4, "critical", 70, 30);
  if (6 * budget < 0.85) burn("ErrorBudgetBurnsSlowly", "6h", "30m", 6, "warning", 120, 60);
  return out;
}

Object rule_groups_of(const Target& target) {
  const Queries ask(target);
  Object records = Object::array();
  const Object labels = {{"namespace", target.ns()}, {"service", target.name()}};
  std::vector<std::string> seen;
  const auto record = [&](const std::string& name, const std::string& expr) {
    if (std::find(seen.begin(), seen.end(), name) != seen.end()) return;
    seen.push_back(name);
    records.push_back({{"record", name}, {"expr", expr}, {"labels", labels}});
  };
  record("sextant:requests:rate5m", "sum(" + ask.rate("http_requests_total", "5m", ",handler=~\"/v1/.+\"") + ")");
  record("sextant:generated_tokens:rate5m", "sum(" + ask.rate("vllm:generation_tokens_total", "5m") + ")");
  record("sextant:prompt_tokens:rate5m", "sum(" + ask.rate("vllm:prompt_tokens_total", "5m") + ")");
  for (const char* window : kErrorWindows) record(error_record(window), ask.error_ratio(window));
  for (const LatencyGoal& goal : goals_of(target))
    record("sextant:" + goal.what + "_seconds:p" + percent_of(goal.quantile),
           ask.quantile(goal.quantile, ask.histogram_of(goal.what)));
  for (const char* what : {"ttft", "tpot", "e2e"})
    for (const double q : {0.5, 0.95, 0.99})
      record(std::string("sextant:") + what + "_seconds:p" + percent_of(q), ask.quantile(q, ask.histogram_of(what)));
  record("sextant:error_budget:remaining",
         "1 - " + ask.recorded(error_record("30d")) + " / " + number_text(target.error_budget()));
  if (target.usd_per_replica_hour > 0)
    record("sextant:cost_usd_per_hour", "sum(" + ask.of("up") + ") * " + number_text(target.usd_per_replica_hour));

  Object rules = Object::array();
  for (const Alert& alert : alerts_of(target)) {
    Object alert_labels = labels;
    alert_labels["severity"] = alert.severity;
    rules.push_back(
        {{"alert", alert.name},
         {"expr", alert.expr},
         {"for", alert.wait},
         {"labels", alert_labels},
         {"annotations", {{"summary", alert.summary}, {"description", alert.meaning + " " + alert.action}}}});
  }
  return {{"groups",
           {{{"name", target.name() + ".sli"}, {"interval", "30s"}, {"rules", records}},
            {{"name", target.name() + ".alerts"}, {"interval", "30s"}, {"rules", rules}}}}};
}

Object rule_tests_of(const Target& target) {
  Object tests = Object::array();
  for (const Alert& alert : alerts_of(target)) {
    Object series = Object::array();
    for (const Alert::Series& s : alert.series) series.push_back({{"series", s.series}, {"values", s.values}});
    Object fired = {{"severity", alert.severity}, {"namespace", target.ns()}, {"service", target.name()}};
    for (const auto& [key, value] : alert.labels) fired[key] = value;
    const Object annotations = {{"summary", alert.summary}, {"description", alert.meaning + " " + alert.action}};
    tests.push_back({{"name", alert.name + " fires and clears"},
                     {"interval", "1m"},
                     {"input_series", series},
                     {"alert_rule_test",
                      {{{"eval_time", std::to_string(alert.fires) + "m"},
                        {"alertname", alert.name},
                        {"exp_alerts", {{{"exp_labels", fired}, {"exp_annotations", annotations}}}}},
                       {{"eval_time", std::to_string(alert.clears) + "m"},
                        {"alertname", alert.name},
                        {"exp_alerts", Object::array()}}}}});
  }
  return {{"rule_files", {"rules.yaml"}}, {"evaluation_interval", "1m"}, {"tests", tests}};
}

}  // namespace sextant::deploy
