// Checks of what is asked of Prometheus: by rules, dashboards, KEDA and the adapter.
#include <algorithm>

#include "deploy/check/check.h"
#include "deploy/check/promql.h"

namespace sextant::deploy {

using nlohmann::ordered_json;

namespace {

// What a scrape adds to every series, or a rule's own labels.
const std::set<std::string>& scrape_labels() {
  static const std::set<std::string> labels = {"namespace", "job",       "instance",  "pod", "service",
                                               "container", "endpoint",  "node",      "le",  "quantile",
                                               "severity",  "alertname", "alertstate"};
  return labels;
}

// Exporters beside the server that are named here on purpose: their metrics cannot be checked.
bool is_of_others(const std::string& metric) {
  return metric.starts_with("DCGM_FI_") || metric.starts_with("kube_") || metric.starts_with("container_") ||
         metric.starts_with("node_");
}

bool is_of_prometheus(const std::string& metric) {
  return metric == "up" || metric == "ALERTS" || metric.starts_with("scrape_");
}

std::string replaced(std::string text, const std::string& what, const std::string& with) {
  for (size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + with.size()))
    text.replace(at, what.size(), with);
  return text;
}

}  // namespace

void Checker::check_query(const Document& at, const std::string& where, const std::string& text) {
  ++report_.num_queries;
  const PromqlReading reading = read_promql(text);
  if (!reading.error.empty()) return find(at, "promql", where + ": " + reading.error + ": " + text.substr(0, 120));
  for (const std::string& quantile : reading.bad_quantiles)
    find(at, "quantile", where + ": must take sum by (le) (rate(..._bucket[..])): " + quantile);
  for (const PromqlSelector& selector : reading.selectors) {
    const std::string& name = selector.metric;
    if (is_of_others(name) || is_of_prometheus(name) || recorded_.count(name) > 0) continue;
    if (name.empty()) {
      find(at, "unknown-metric", where + ": a selector names no metric");
      continue;
    }
    const ExportedMetric* family = nullptr;
    bool part = false;
    for (const ExportedMetric& metric : exported_) {
      // vLLM's server exports vLLM's names, HTTP's and the process's: not ours.
      if (vllm_ && !(metric.name.starts_with("vllm:") || metric.name.starts_with("http_") ||
                     metric.name.starts_with("process_")))
        continue;
      const bool histogram = metric.type == "histogram";
      const bool piece = histogram && (name == metric.name + "_bucket" || name == metric.name + "_sum" ||
                                       name == metric.name + "_count");
      if (piece || (!histogram && name == metric.name)) {
        family = &metric;
        part = piece;
      }
    }
    if (family == nullptr) {
      find(at, "unknown-metric",
           where + ": " + name + " is exported by neither " + (vllm_ ? "vLLM" : "the server") +
               " nor a rule of these files");
      continue;
    }
    for (const std::string& label : selector.labels)
      if (family->labels.count(label) == 0 && scrape_labels().count(label) == 0)
        find(at, "unknown-label", where + ": " + name + " has no label " + label);
    const std::string& call = selector.function;
    if (!part && family->type == "gauge" && (call == "rate" || call == "irate" || call == "increase"))
      find(at, "rate-of-gauge", where + ": " + name + " is a gauge, and " + call + " is of counters");
  }
}

void Checker::check_rule_groups(const Document& at, const ordered_json& groups) {
  if (!groups.is_array()) return;
  for (const ordered_json& group : groups)
    if (const ordered_json& rules = member(group, "rules"); rules.is_array())
      for (const ordered_json& rule : rules)
        check_query(at, text_or(member(rule, "alert"), text_or(member(rule, "record"), "a rule")),
                    text_or(member(rule, "expr")));
}

void Checker::check_dashboard(const Document& at, const ordered_json& board) {
  if (!member(board, "dashboard").is_null())
    return find(
        at, "dashboard",
        "wraps the model in {\"dashboard\": ...}, the form of Grafana's API: its sidecar reads the model alone");
  if (number_or(member(board, "schemaVersion"), 0) < 36)
    find(at, "dashboard", "schemaVersion is missing or older than 36");
  const ordered_json& panels = member(board, "panels");
  if (!panels.is_array() || panels.empty()) return find(at, "dashboard", "has no panels");
  if (text_or(member(board, "uid")).size() > 40) find(at, "dashboard", "uid is longer than 40 characters");
  std::set<std::string> variables;
  if (const ordered_json& list = at_path(board, {"templating", "list"}); list.is_array())
    for (const ordered_json& variable : list) variables.insert("${" + text_or(member(variable, "name")) + "}");
  std::set<double> ids;
  for (const ordered_json& panel : panels) {
    const std::string title = text_or(member(panel, "title"));
    static const std::set<std::string> known = {"timeseries", "stat",  "heatmap", "gauge",
                                                "bargauge",   "table", "row",     "text"};
    if (known.count(text_or(member(panel, "type"))) == 0)
      find(at, "dashboard",
           "panel '" + title + "' is of type " + text_or(member(panel, "type")) + ", which Grafana has not any more");
    if (!ids.insert(number_or(member(panel, "id"), -1)).second)
      find(at, "dashboard", "panel '" + title + "' has the id of another");
    const std::string source = text_or(at_path(panel, {"datasource", "uid"}));
    if (source.starts_with("$") && variables.count(source) == 0)
      find(at, "dashboard", "panel '" + title + "' uses " + source + ", which is no variable");
    if (const ordered_json& targets = member(panel, "targets"); targets.is_array())
      for (const ordered_json& target : targets) {
        // Variables of Grafana stand for durations.
        std::string text = text_or(member(target, "expr"));
        for (const char* variable : {"$__rate_interval", "$__interval", "$__range"})
          text = replaced(text, variable, "5m");
        check_query(at, "panel '" + title + "'", text);
      }
  }
}

void Checker::check_adapter(const Document& at) {
  for (const ordered_json& rule : at_path(at.body, {"rules", "custom"})) {
    const std::string series = text_or(member(rule, "seriesQuery"));
    check_query(at, "seriesQuery", series);
    // Its templates stand for a metric, matchers and labels.
    std::string query = text_or(member(rule, "metricsQuery"));
    query = replaced(query, "<<.Series>>", series.substr(0, series.find('{')));
    query = replaced(query, "<<.LabelMatchers>>", "namespace=\"x\"");
    query = replaced(query, "<<.GroupBy>>", "pod");
    check_query(at, "metricsQuery", query);
  }
}

void Checker::check_queries() {
  const auto groups_of = [](const Document& at) -> const ordered_json& {
    return at.kind == "PrometheusRule" ? at_path(at.body, {"spec", "groups"}) : member(at.body, "groups");
  };
  // A rule may use what another makes.
  for (const Document& at : documents_) {
    if (const ordered_json& groups = groups_of(at); groups.is_array())
      for (const ordered_json& group : groups)
        if (const ordered_json& rules = member(group, "rules"); rules.is_array())
          for (const ordered_json& rule : rules)
            if (const std::string name = text_or(member(rule, "record")); !name.empty()) recorded_.insert(name);
    if (const ordered_json& custom = at_path(at.body, {"rules", "custom"}); at.kind.empty() && custom.is_array())
      for (const ordered_json& rule : custom) custom_metrics_.insert(text_or(at_path(rule, {"name", "as"})));
  }
  for (const Document& at : documents_) {
    check_rule_groups(at, groups_of(at));
    if (at.kind.empty() && at_path(at.body, {"rules", "custom"}).is_array()) check_adapter(at);
    if (at.kind.empty() && at.file->name.ends_with(".json") &&
        (member(at.body, "panels").is_array() || !member(at.body, "dashboard").is_null()))
      check_dashboard(at, at.body);
    if (at.kind == "ConfigMap" && !at_path(at.body, {"metadata", "labels", "grafana_dashboard"}).is_null()) {
      const ordered_json& data = member(at.body, "data");
      if (data.is_object())
        for (const auto& [key, value] : data.items()) {
          const ordered_json board = ordered_json::parse(text_or(value), nullptr, false);
          if (board.is_discarded())
            find(at, "dashboard", key + " is not JSON");
          else
            check_dashboard(at, board);
        }
    }
    const ordered_json& spec = member(at.body, "spec");
    if (at.kind == "HorizontalPodAutoscaler") {
      if (const ordered_json& metrics = member(spec, "metrics"); metrics.is_array())
        for (const ordered_json& metric : metrics)
          for (const char* source : {"pods", "object", "external"})
            if (const std::string name = text_or(at_path(metric, {source, "metric", "name"}));
                !name.empty() && custom_metrics_.count(name) == 0)
              find(at, "custom-metric", name + " is made by no rule of the Prometheus adapter in these files");
    }
    const ordered_json& triggers =
        at.kind == "ScaledObject" ? member(spec, "triggers") : at_path(spec, {"scaling", "keda", "triggers"});
    if (!triggers.is_array()) continue;
    for (const ordered_json& trigger : triggers) {
      if (text_or(member(trigger, "type")) != "prometheus") continue;
      static const std::set<std::string> known = {
          "serverAddress",    "query",     "threshold",       "activationThreshold", "namespace", "customHeaders",
          "ignoreNullValues", "unsafeSsl", "queryParameters", "awsRegion",           "timeout",   "identityOwner"};
      const ordered_json& values = member(trigger, "metadata");
      if (values.is_object())
        for (const auto& [key, value] : values.items()) {
          if (known.count(key) == 0) find(at, "keda-trigger", "KEDA's prometheus trigger has no key " + key);
          if (!value.is_string()) find(at, "keda-trigger", "the value of " + key + " must be a text");
        }
      check_query(at, "trigger", text_or(member(values, "query")));
    }
  }
}

}  // namespace sextant::deploy
