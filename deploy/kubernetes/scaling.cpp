// Autoscalers: an HPA over custom metrics with the adapter's rules for them, or KEDA's ScaledObject, never both; and the
// VerticalPodAutoscaler, which only recommends: two hands on one pod's size would fight.
// HPA: autoscaling/v2. KEDA: keda.sh/docs/2.17/scalers/prometheus (all metadata values are texts).
#include <algorithm>

#include "deploy/kubernetes/objects.h"
#include "deploy/kubernetes/queries.h"
#include "deploy/kubernetes/scaling.h"

namespace sextant::deploy {
namespace {

constexpr const char* kQueueMetric = "llm_queue_depth";
constexpr const char* kGpuMetric = "llm_gpu_utilization_percent";

Object behavior() {
  // Up by half each minute once a minute's metrics agree; down by one pod each two minutes after five quiet ones.
  return {{"scaleUp",
           {{"stabilizationWindowSeconds", 60},
            {"policies", {{{"type", "Percent"}, {"value", 50}, {"periodSeconds", 60}}}}}},
          {"scaleDown",
           {{"stabilizationWindowSeconds", 300},
            {"policies", {{{"type", "Pods"}, {"value", 1}, {"periodSeconds", 120}}}}}}};
}

Object pods_metric(const char* name, int64_t average) {
  return {{"type", "Pods"},
          {"pods",
           {{"metric", {{"name", name}}},
            {"target", {{"type", "AverageValue"}, {"averageValue", std::to_string(average)}}}}}};
}

Object keda_trigger(const Target& target, const std::string& query, int64_t threshold, const char* name) {
  return {{"type", "prometheus"},
          {"name", name},
          {"metricType", "AverageValue"},
          {"metadata",
           {{"serverAddress", target.options.prometheus_url},
            {"query", query},
            {"threshold", std::to_string(threshold)},
            {"ignoreNullValues", "false"}}}};
}

}  // namespace

ReplicaRange replica_range_of(const Target& target) {
  const int64_t floor = target.spot_replicas() > 0 ? target.replicas - target.spot_replicas() : 0;
  const int64_t most = std::max<int64_t>(1, target.options.max_replicas - floor);
  return {std::clamp<int64_t>(target.options.min_replicas - floor, 1, most), most};
}

Object keda_triggers(const Target& target) {
  const Queries ask(target);
  const bool one_deployment = target.options.kind == "deployment" || target.options.kind == "kserve";
  const std::string pods = one_deployment ? ask.pods_of(deployment_name_of(target)) : "";
  Object triggers = Object::array();
  triggers.push_back(keda_trigger(target, "sum(" + ask.of(ask.queue_depth_metric(), pods) + ")",
                                  target.options.queue_depth_target, "queue"));
  if (target.uses_gpus()) {
    const std::string of_pods = target.ours() ? ask.of(ask.gpu_metric(), pods)
                                              : ask.gpu_metric() + "{namespace=\"" + target.ns() + "\",pod=~\"" +
                                                    deployment_name_of(target) + "-.+\"}";
    triggers.push_back(keda_trigger(target,
                                    std::string(target.ours() ? "100 * " : "") + "sum(avg by (pod) (" + of_pods + "))",
                                    target.options.gpu_utilization_target, "gpu"));
  }
  return triggers;
}

Objects scaling_objects(const Target& target) {
  Objects out;
  const ReplicaRange range = replica_range_of(target);
  // LLMInferenceService scales by its own object; a canary of KServe by Knative.
  const bool own_scaling =
      target.options.kind == "llmisvc" || (target.options.kind == "kserve" && target.options.rollout != "none");
  if (target.options.autoscaler == "hpa" && !own_scaling) {
    Object metrics = Object::array();
    metrics.push_back(pods_metric(kQueueMetric, target.options.queue_depth_target));
    if (target.uses_gpus()) metrics.push_back(pods_metric(kGpuMetric, target.options.gpu_utilization_target));
    out.emplace_back("hpa", Object{{"apiVersion", "autoscaling/v2"},
                                   {"kind", "HorizontalPodAutoscaler"},
                                   {"metadata", metadata_of(target, target.name())},
                                   {"spec",
                                    {{"scaleTargetRef", scale_target_of(target)},
                                     {"minReplicas", range.least},
                                     {"maxReplicas", range.most},
                                     {"metrics", metrics},
                                     {"behavior", behavior()}}}});
  } else if (target.options.autoscaler == "keda" && !own_scaling) {
    out.emplace_back(
        "scaledObject",
        Object{{"apiVersion", "keda.sh/v1alpha1"},
               {"kind", "ScaledObject"},
               {"metadata", metadata_of(target, target.name())},
               {"spec",
                {{"scaleTargetRef", scale_target_of(target)},
                 {"minReplicaCount", range.least},
                 {"maxReplicaCount", range.most},
                 {"pollingInterval", 15},
                 // Where Prometheus does not answer for a minute, the plan's count.
                 {"fallback",
                  {{"failureThreshold", 4},
                   {"replicas", std::clamp(target.spot_replicas() > 0 ? target.spot_replicas() : target.replicas,
                                           range.least, range.most)}}},
                 {"advanced", {{"horizontalPodAutoscalerConfig", {{"behavior", behavior()}}}}},
                 {"triggers", keda_triggers(target)}}}});
  }
  if (target.options.vpa && !own_scaling) {
    Object to = scale_target_of(target);
    out.emplace_back("vpa",
                     Object{{"apiVersion", "autoscaling.k8s.io/v1"},
                            {"kind", "VerticalPodAutoscaler"},
                            {"metadata", metadata_of(target, target.name())},
                            {"spec",
                             {{"targetRef", to},
                              {"updatePolicy", {{"updateMode", "Off"}}},
                              {"resourcePolicy",
                               {{"containerPolicies",
                                 {{{"containerName", "server"}, {"controlledResources", {"cpu", "memory"}}}}}}}}}});
  }
  return out;
}

Object adapter_values(const Target& target) {
  const Queries ask(target);
  const auto rule = [&](const std::string& series, const char* as, const std::string& query) {
    return Object{
        {"seriesQuery", series + "{namespace!=\"\",pod!=\"\"}"},
        {"resources", {{"overrides", {{"namespace", {{"resource", "namespace"}}}, {"pod", {{"resource", "pod"}}}}}}},
        {"name", {{"as", as}}},
        {"metricsQuery", query}};
  };
  Object rules = Object::array();
  rules.push_back(
      rule(ask.queue_depth_metric(), kQueueMetric, "sum by (<<.GroupBy>>) (<<.Series>>{<<.LabelMatchers>>})"));
  if (target.uses_gpus())
    rules.push_back(
        rule(ask.gpu_metric(), kGpuMetric,
             std::string(target.ours() ? "100 * " : "") + "avg by (<<.GroupBy>>) (<<.Series>>{<<.LabelMatchers>>})"));
  const std::string& url = target.options.prometheus_url;
  const size_t host = url.find("//") + 2;
  const size_t end = std::min(url.find('/', host), url.size());
  const size_t colon = url.find(':', host);
  const bool has_port = colon < end;
  Object prometheus = {{"url", url.substr(0, has_port ? colon : end)}};
  const std::string port = has_port ? url.substr(colon + 1, end - colon - 1) : url.starts_with("https") ? "443" : "80";
  if (!port.empty() && port.size() <= 5 && port.find_first_not_of("0123456789") == std::string::npos)
    prometheus["port"] = std::stoi(port);
  if (end < url.size()) prometheus["path"] = url.substr(end);
  return {{"prometheus", prometheus}, {"rules", {{"default", false}, {"custom", rules}}}};
}

}  // namespace sextant::deploy
