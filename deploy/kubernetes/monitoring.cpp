// What Prometheus' operator and Grafana's sidecar read.
#include "deploy/kubernetes/alerts.h"
#include "deploy/kubernetes/dashboards.h"
#include "deploy/kubernetes/objects.h"

namespace sextant::deploy {
namespace {

// /metrics itself asks for no key; a gateway or policy before it may.
Object endpoint(const Target& target) {
  return {
      {"port", "http"},
      {"path", "/metrics"},
      {"interval", "15s"},
      {"authorization", {{"type", "Bearer"}, {"credentials", {{"name", secret_name_of(target)}, {"key", "api-key"}}}}}};
}

}  // namespace

Objects monitoring_objects(const Target& target) {
  if (!target.options.monitoring) return {};
  Objects out;
  const bool own_service = target.options.kind == "deployment" || target.options.kind == "lws";
  Object spec = {{"jobLabel", kNameLabel}, {"selector", {{"matchLabels", pod_selector_of(target)}}}};
  // KServe's Services do not carry our labels; its pods do.
  Object of = endpoint(target);
  // Knative names the port itself; KServe's preset for LLMInferenceService speaks TLS with a certificate of its own.
  if (target.kind() == "kserve" && target.options.rollout != "none") of["port"] = "user-port";
  if (target.kind() == "llmisvc") {
    of["scheme"] = "https";
    of["tlsConfig"] = {{"insecureSkipVerify", true}};
  }
  spec[own_service ? "endpoints" : "podMetricsEndpoints"] = Object::array({of});
  out.emplace_back(own_service ? "serviceMonitor" : "podMonitor",
                   Object{{"apiVersion", "monitoring.coreos.com/v1"},
                          {"kind", own_service ? "ServiceMonitor" : "PodMonitor"},
                          {"metadata", metadata_of(target, target.name())},
                          {"spec", spec}});
  out.emplace_back("prometheusRule", Object{{"apiVersion", "monitoring.coreos.com/v1"},
                                            {"kind", "PrometheusRule"},
                                            {"metadata", metadata_of(target, target.name())},
                                            {"spec", rule_groups_of(target)}});
  for (const auto& [kind, board] : dashboards_of(target)) {
    Object metadata = metadata_of(target, target.name() + "-dashboard-" + kind);
    metadata["labels"]["grafana_dashboard"] = "1";
    std::string key = "dashboard" + kind;
    key[9] = static_cast<char>(key[9] - 32);
    // The bare model: the {"dashboard": ...} of Grafana's API is not what its sidecar reads.
    out.emplace_back(key, Object{{"apiVersion", "v1"},
                                 {"kind", "ConfigMap"},
                                 {"metadata", metadata},
                                 {"data", {{kind + ".json", board.dump()}}}});
  }
  return out;
}

}  // namespace sextant::deploy
