// Ways in (Ingress; Gateway API, with weights for two releases or an InferencePool; Istio), and the policy of who may connect.
#include <algorithm>

#include "deploy/kubernetes/objects.h"

namespace sextant::deploy {
namespace {

// Longest that an answer may take; streams send bytes all along, but a gateway counts the whole request.
constexpr const char* kRequestTimeout = "1h";

Object ingress(const Target& target) {
  const Options& o = target.options;
  Object metadata = metadata_of(target, target.name());
  // Streams go through unbuffered; for ingress-nginx, unknown to others.
  metadata["annotations"] = {{"nginx.ingress.kubernetes.io/proxy-buffering", "off"},
                             {"nginx.ingress.kubernetes.io/proxy-read-timeout", "3600"},
                             {"nginx.ingress.kubernetes.io/proxy-body-size", "32m"}};
  Object spec = Object::object();
  if (!o.ingress_class.empty()) spec["ingressClassName"] = o.ingress_class;
  if (!o.tls_secret.empty()) spec["tls"] = {{{"hosts", {o.host}}, {"secretName", o.tls_secret}}};
  spec["rules"] = {
      {{"host", o.host},
       {"http",
        {{"paths",
          {{{"path", o.path},
            {"pathType", "Prefix"},
            {"backend", {{"service", {{"name", service_name_of(target)}, {"port", {{"name", "http"}}}}}}}}}}}}}};
  return {{"apiVersion", "networking.k8s.io/v1"}, {"kind", "Ingress"}, {"metadata", metadata}, {"spec", spec}};
}

Object gateway(const Target& target) {
  const Options& o = target.options;
  Object listener = {{"name", o.tls_secret.empty() ? "http" : "https"},
                     {"hostname", o.host},
                     {"port", o.tls_secret.empty() ? 80 : 443},
                     {"protocol", o.tls_secret.empty() ? "HTTP" : "HTTPS"}};
  if (!o.tls_secret.empty()) listener["tls"] = {{"mode", "Terminate"}, {"certificateRefs", {{{"name", o.tls_secret}}}}};
  listener["allowedRoutes"] = {{"namespaces", {{"from", "Same"}}}};
  return {{"apiVersion", "gateway.networking.k8s.io/v1"},
          {"kind", "Gateway"},
          {"metadata", metadata_of(target, target.name())},
          {"spec",
           {{"gatewayClassName", o.ingress_class.empty() ? "gateway" : o.ingress_class}, {"listeners", {listener}}}}};
}

Object http_route(const Target& target) {
  const Options& o = target.options;
  Object backends = Object::array();
  if (o.inference_pool) {
    backends.push_back({{"group", "inference.networking.k8s.io"}, {"kind", "InferencePool"}, {"name", target.name()}});
  } else if (o.rollout != "none") {
    backends.push_back({{"name", target.name()}, {"port", kHttpPort}, {"weight", 100 - o.new_weight}});
    backends.push_back({{"name", target.name() + "-new"}, {"port", kHttpPort}, {"weight", o.new_weight}});
  } else {
    backends.push_back({{"name", service_name_of(target)}, {"port", kHttpPort}});
  }
  Object rule = {{"matches", {{{"path", {{"type", "PathPrefix"}, {"value", o.path}}}}}}};
  if (o.path != "/")
    rule["filters"] = {{{"type", "URLRewrite"},
                        {"urlRewrite", {{"path", {{"type", "ReplacePrefixMatch"}, {"replacePrefixMatch", "/"}}}}}}};
  rule["backendRefs"] = backends;
  rule["timeouts"] = {{"request", kRequestTimeout}};
  return {{"apiVersion", "gateway.networking.k8s.io/v1"},
          {"kind", "HTTPRoute"},
          {"metadata", metadata_of(target, target.name())},
          {"spec", {{"parentRefs", {{{"name", target.name()}}}}, {"hostnames", {o.host}}, {"rules", {rule}}}}};
}

Object inference_pool(const Target& target) {
  return {{"apiVersion", "inference.networking.k8s.io/v1"},
          {"kind", "InferencePool"},
          {"metadata", metadata_of(target, target.name())},
          {"spec",
           {{"selector", {{"matchLabels", pod_selector_of(target)}}},
            {"targetPorts", {{{"number", kHttpPort}}}},
            {"endpointPickerRef",
             {{"name", target.name() + "-epp"}, {"port", {{"number", 9002}}}, {"failureMode", "FailOpen"}}}}}};
}

// Istio publishes no CRD schema among those that we check against: the two objects are as its reference describes them.
Object virtual_service(const Target& target) {
  const Object destination = {{"host", service_name_of(target) + "." + target.ns() + ".svc.cluster.local"},
                              {"port", {{"number", kHttpPort}}}};
  Object http = {{"match", {{{"uri", {{"prefix", target.options.path}}}}}}};
  if (target.options.path != "/") http["rewrite"] = {{"uri", "/"}};
  http["route"] = {{{"destination", destination}}};
  http["timeout"] = "3600s";
  Object metadata = metadata_of(target, target.name());
  metadata["annotations"] = {{"sextant/validated", "false"}};
  return {{"apiVersion", "networking.istio.io/v1"},
          {"kind", "VirtualService"},
          {"metadata", metadata},
          {"spec", {{"hosts", {target.options.host}}, {"gateways", {target.name()}}, {"http", {http}}}}};
}

Object istio_gateway(const Target& target) {
  const Options& o = target.options;
  Object server = {{"port",
                    {{"number", o.tls_secret.empty() ? 80 : 443},
                     {"name", "api"},
                     {"protocol", o.tls_secret.empty() ? "HTTP" : "HTTPS"}}},
                   {"hosts", {o.host}}};
  if (!o.tls_secret.empty()) server["tls"] = {{"mode", "SIMPLE"}, {"credentialName", o.tls_secret}};
  Object metadata = metadata_of(target, target.name());
  metadata["annotations"] = {{"sextant/validated", "false"}};
  return {{"apiVersion", "networking.istio.io/v1"},
          {"kind", "Gateway"},
          {"metadata", metadata},
          {"spec", {{"selector", {{"istio", "ingressgateway"}}}, {"servers", {server}}}}};
}

Object network_policy(const Target& target) {
  const bool group = target.options.kind == "lws" && target.num_nodes > 1;
  Object ingress_rules = Object::array();
  ingress_rules.push_back({{"ports", {{{"protocol", "TCP"}, {"port", "http"}}}}});
  // A group's pods talk to one another on ports that NCCL picks; nobody else reaches those.
  if (group) ingress_rules.push_back({{"from", {{{"podSelector", {{"matchLabels", pod_selector_of(target)}}}}}}});
  Object egress = Object::array();
  egress.push_back({{"ports", {{{"protocol", "UDP"}, {"port", 53}}, {{"protocol", "TCP"}, {"port", 53}}}}});
  egress.push_back({{"ports", {{{"protocol", "TCP"}, {"port", 443}}}}});  // to fetch weights
  if (group) egress.push_back({{"to", {{{"podSelector", {{"matchLabels", pod_selector_of(target)}}}}}}});
  return {{"apiVersion", "networking.k8s.io/v1"},
          {"kind", "NetworkPolicy"},
          {"metadata", metadata_of(target, target.name())},
          {"spec",
           {{"podSelector", {{"matchLabels", pod_selector_of(target)}}},
            {"policyTypes", {"Ingress", "Egress"}},
            {"ingress", ingress_rules},
            {"egress", egress}}}};
}

// Knative's sidecars and KServe's own router have ports and sizes that are not ours to say.
bool owns_pods(const Target& target) {
  return target.kind() != "llmisvc" && !(target.kind() == "kserve" && target.options.rollout != "none");
}

}  // namespace

Objects network_objects(const Target& target) {
  Objects out;
  const std::string& expose = target.options.expose;
  if (expose == "ingress") out.emplace_back("ingress", ingress(target));
  if (expose == "gateway") {
    out.emplace_back("gateway", gateway(target));
    if (target.options.inference_pool) out.emplace_back("inferencePool", inference_pool(target));
    out.emplace_back("httpRoute", http_route(target));
  }
  if (expose == "istio") {
    out.emplace_back("istioGateway", istio_gateway(target));
    out.emplace_back("istioVirtualService", virtual_service(target));
  }
  if (target.options.network_policy && owns_pods(target)) out.emplace_back("networkPolicy", network_policy(target));
  return out;
}

Objects quota_objects(const Target& target) {
  if (!target.options.quota || !owns_pods(target)) return {};
  // All that may run at once: the most replicas, a second release, and one pod of surge for each.
  const int64_t releases = target.options.rollout == "none" ? 0 : target.replicas;
  const int64_t pods = (std::max(target.options.max_replicas, target.replicas) + releases + 2) * target.num_nodes;
  Object hard = {{"pods", std::to_string(pods)}};
  if (target.uses_gpus()) hard["requests." + gpu_resource_of(target)] = std::to_string(pods * target.gpus_per_node);
  hard["requests.cpu"] = std::to_string(pods * (target.simulate() ? 1 : target.cpus));
  hard["requests.memory"] = std::to_string(pods * (target.simulate() ? 1 : target.memory_gib)) + "Gi";
  return {{"quota",
           {{"apiVersion", "v1"},
            {"kind", "ResourceQuota"},
            {"metadata", metadata_of(target, target.name())},
            {"spec", {{"hard", hard}}}}}};
}

}  // namespace sextant::deploy
