// What a user chooses about a deployment, beside the plan. One visitor gives flags, JSON bodies and help; validate() says all
// errors at once, each with its field. Pure.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/base/status.h"

namespace sextant::deploy {

struct Options {
  // Which part of the plan.
  int64_t option = 1;
  int64_t part = 0;
  std::string region;
  // What runs.
  std::string runtime = "sextant";
  std::string kind = "auto";
  std::string image;
  bool simulate = false;
  std::string model_claim;
  std::string hf_token_secret;
  double load_gb_per_s = 0.5;
  double download_gb_per_s = 0.25;
  std::string gpu_product;
  // Names.
  std::string name;
  std::string namespace_name = "sextant";
  std::string description;
  // Scaling.
  std::string autoscaler = "auto";
  int64_t min_replicas = 0;
  int64_t max_replicas = 0;
  int64_t queue_depth_target = 50;
  int64_t gpu_utilization_target = 75;
  int64_t spot_percent = -1;
  std::string spot_label = "sextant/capacity=spot";
  bool vpa = false;
  // Network.
  std::string service_type = "ClusterIP";
  std::string expose = "none";
  std::string host;
  std::string path = "/";
  std::string tls_secret;
  std::string ingress_class;
  bool inference_pool = false;
  bool network_policy = true;
  // Release.
  std::string rollout = "none";
  std::string new_image;
  int64_t new_weight = 10;
  // Monitoring.
  bool monitoring = true;
  std::string prometheus_url = "http://prometheus-operated.monitoring.svc:9090";
  std::string monitoring_namespace = "monitoring";
  bool quota = true;

  std::vector<Status> validate() const;
};

// Calls visitor(key, field, help) for each, in the order of --help.
template <typename Config, typename Visitor>
void visit_options(Config& config, Visitor&& visitor) {
  visitor("option", config.option, "which option of the plan: 1 is its first");
  visitor("part", config.part, "which model of a plan of several: 1 is its first");
  visitor("region", config.region, "which region of a plan of several, as the plan names it");
  visitor("runtime", config.runtime, "sextant, or vllm");
  visitor(
      "kind", config.kind,
      "deployment, lws (LeaderWorkerSet), kserve (InferenceService), llmisvc (LLMInferenceService); auto: lws when a "
      "replica needs several nodes, else deployment");
  visitor("image", config.image, "the image that runs (default: sextant:<the plan's version>, or vLLM's own)");
  visitor("simulate", config.simulate, "serve from the simulator: no GPU and no weights, everything else the same");
  visitor("model_claim", config.model_claim,
          "PersistentVolumeClaim that keeps the weights (default: each pod fetches them)");
  visitor("hf_token_secret", config.hf_token_secret, "Secret whose key `token` fetches gated models");
  visitor("load_gb_per_s", config.load_gb_per_s,
          "how fast a pod reads its weights from its volume, GB/s; the start-up probe waits for it");
  visitor("download_gb_per_s", config.download_gb_per_s,
          "how fast a pod fetches its weights over the network, GB/s; start-up and roll-out wait for it");
  visitor(
      "gpu_product", config.gpu_product,
      "label nvidia.com/gpu.product of the nodes (default: as GPU feature discovery names the plan's GPU), or none");
  visitor("name", config.name, "name of the objects (default: from the model)");
  visitor("namespace", config.namespace_name, "namespace of the objects");
  visitor("description", config.description, "a line for people, kept as an annotation");
  visitor("autoscaler", config.autoscaler, "hpa, keda, none; auto: hpa when the plan scales, else none");
  visitor("min_replicas", config.min_replicas, "fewest replicas (default: 3, or the plan's number where that is less)");
  visitor("max_replicas", config.max_replicas,
          "most replicas (default: 20, or 1.5 x the plan's number where that is more)");
  visitor("queue_depth_target", config.queue_depth_target, "waiting requests per replica that the autoscaler aims at");
  visitor("gpu_utilization_target", config.gpu_utilization_target, "percent of GPU time that the autoscaler aims at");
  visitor("spot_percent", config.spot_percent, "share of the replicas on spot nodes (default: the plan's)");
  visitor("spot_label", config.spot_label,
          "label and taint of spot nodes, such as karpenter.sh/capacity-type=spot or cloud.google.com/gke-spot=true");
  visitor("vpa", config.vpa, "a VerticalPodAutoscaler that recommends CPU and memory");
  visitor("service_type", config.service_type, "ClusterIP, LoadBalancer, NodePort");
  visitor("expose", config.expose, "none, ingress, gateway (Gateway API), istio (not validated: no schema)");
  visitor("host", config.host, "host name of the route from outside");
  visitor("path", config.path, "path prefix of the route from outside");
  visitor("tls_secret", config.tls_secret, "Secret with the certificate of --host");
  visitor("ingress_class", config.ingress_class, "class of the Ingress or of the Gateway");
  visitor("inference_pool", config.inference_pool, "route to an InferencePool, whose end point picker chooses the pod");
  visitor("network_policy", config.network_policy, "only the API's and the monitoring's connections come in");
  visitor("rollout", config.rollout, "none, canary, blue-green: a second workload with --new-image behind weights");
  visitor("new_image", config.new_image, "image of the release that --rollout brings in");
  visitor("new_weight", config.new_weight, "percent of the requests that go to it");
  visitor("monitoring", config.monitoring, "ServiceMonitor, alerts and dashboards");
  visitor("prometheus_url", config.prometheus_url, "where KEDA and the adapter ask");
  visitor("monitoring_namespace", config.monitoring_namespace, "namespace of Prometheus and Grafana");
  visitor("quota", config.quota, "a ResourceQuota with room for one rollout beside the most replicas");
}

// DNS-1123: what names an object; `most` characters.
bool is_object_name(const std::string& text, size_t most);
// UTF-8 without control characters but newlines and tabs.
bool is_clean_text(const std::string& text);

}  // namespace sextant::deploy
