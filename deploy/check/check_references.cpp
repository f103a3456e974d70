// Checks between objects: Services and pods, routes and Services, autoscalers and what they scale.
#include <algorithm>

#include "deploy/check/check.h"

namespace sextant::deploy {

using nlohmann::ordered_json;

namespace {

// Does a container of these pods have this port, by name or number?
bool has_port(const PodSet& pods, const ordered_json& port) {
  const ordered_json& containers = member(*pods.pod_spec, "containers");
  if (!containers.is_array()) return false;
  for (const ordered_json& container : containers)
    if (const ordered_json& ports = member(container, "ports"); ports.is_array())
      for (const ordered_json& each : ports)
        if (member(each, "name") == port || member(each, "containerPort") == port) return true;
  return false;
}

// By name, number or both: of a Service.
bool service_has_port(const Document& service, const ordered_json& port) {
  const ordered_json& ports = at_path(service.body, {"spec", "ports"});
  if (!ports.is_array()) return false;
  return std::any_of(ports.begin(), ports.end(), [&](const ordered_json& each) {
    return member(each, "name") == port || member(each, "port") == port;
  });
}

bool labels_match(const ordered_json& labels, const ordered_json& selector) {
  if (!selector.is_object() || selector.empty()) return false;
  for (const auto& [key, value] : selector.items())
    if (member(labels, key) != value) return false;
  return true;
}

}  // namespace

void Checker::check_services() {
  for (const Document& at : documents_) {
    const ordered_json& spec = member(at.body, "spec");
    if (at.kind == "Service" && text_or(member(spec, "type")) != "ExternalName") {
      const ordered_json& selector = member(spec, "selector");
      const auto pods = selected(at.ns, selector);
      if (pods.empty()) find(at, "selector", "spec.selector selects no pod of these files");
      if (lookup("LeaderWorkerSet", at.ns, at.name) != nullptr && text_or(member(spec, "clusterIP")) != "None")
        find(at, "headless-name",
             "LeaderWorkerSet/" + at.name +
                 " finds its pods by a headless Service of its own name, and takes this one for it: give it another "
                 "name");
      if (const ordered_json& ports = member(spec, "ports"); ports.is_array())
        for (const ordered_json& port : ports) {
          const ordered_json& to =
              member(port, "targetPort").is_null() ? member(port, "port") : member(port, "targetPort");
          for (const PodSet* each : pods)
            if (!has_port(*each, to))
              find(at, "port",
                   "targetPort " + to.dump() + " is no port of " + each->owner->kind + "/" + each->owner->name);
        }
    } else if (at.kind == "PodDisruptionBudget") {
      if (selected(at.ns, at_path(spec, {"selector", "matchLabels"})).empty())
        find(at, "selector", "spec.selector selects no pod of these files");
    } else if (at.kind == "NetworkPolicy") {
      const auto pods = selected(at.ns, at_path(spec, {"podSelector", "matchLabels"}));
      if (pods.empty()) find(at, "selector", "spec.podSelector selects no pod of these files");
      if (const ordered_json& rules = member(spec, "ingress"); rules.is_array())
        for (const ordered_json& rule : rules)
          if (const ordered_json& ports = member(rule, "ports"); ports.is_array())
            for (const ordered_json& port : ports)
              for (const PodSet* each : pods)
                if (!has_port(*each, member(port, "port")))
                  find(at, "port", "lets in port " + member(port, "port").dump() + ", which no container has");
    } else if (at.kind == "InferencePool") {
      const auto pods = selected(at.ns, at_path(spec, {"selector", "matchLabels"}));
      if (pods.empty()) find(at, "selector", "spec.selector selects no pod of these files");
      if (const ordered_json& ports = member(spec, "targetPorts"); ports.is_array())
        for (const ordered_json& port : ports)
          for (const PodSet* each : pods)
            if (!has_port(*each, member(port, "number")))
              find(at, "port", "targetPorts names " + member(port, "number").dump() + ", which no container has");
    } else if (at.kind == "ServiceMonitor") {
      bool any = false;
      const ordered_json& endpoints = member(spec, "endpoints");
      for (const Document& service : documents_) {
        if (service.kind != "Service" || service.ns != at.ns ||
            !labels_match(at_path(service.body, {"metadata", "labels"}), at_path(spec, {"selector", "matchLabels"})))
          continue;
        any = true;
        if (endpoints.is_array())
          for (const ordered_json& endpoint : endpoints)
            if (!service_has_port(service, member(endpoint, "port")))
              find(at, "port",
                   "scrapes port " + member(endpoint, "port").dump() + ", which Service " + service.name + " has not");
      }
      if (!any) find(at, "selector", "spec.selector selects no Service of these files");
    } else if (at.kind == "PodMonitor") {
      const auto pods = selected(at.ns, at_path(spec, {"selector", "matchLabels"}));
      if (pods.empty()) find(at, "selector", "spec.selector selects no pod of these files");
      if (const ordered_json& endpoints = member(spec, "podMetricsEndpoints"); endpoints.is_array())
        for (const ordered_json& endpoint : endpoints)
          for (const PodSet* each : pods)
            if (!has_port(*each, member(endpoint, "port")) &&
                !(each->operator_made && member(endpoint, "port") == "user-port"))
              find(at, "port", "scrapes port " + member(endpoint, "port").dump() + ", which no container has");
    } else if (at.kind == "RoleBinding") {
      const std::string role = text_or(at_path(at.body, {"roleRef", "name"}));
      if (text_or(at_path(at.body, {"roleRef", "kind"})) == "Role" && lookup("Role", at.ns, role) == nullptr)
        find(at, "reference", "Role " + role + " is not there");
    }
  }
}

void Checker::check_routes() {
  const auto check_backend = [&](const Document& at, const std::string& name, const ordered_json& port) {
    const Document* service = lookup("Service", at.ns, name);
    if (service == nullptr)
      find(at, "reference", "Service " + name + " is not there");
    else if (!service_has_port(*service, port))
      find(at, "port", "Service " + name + " has no port " + port.dump());
  };
  for (const Document& at : documents_) {
    const ordered_json& rules = at_path(at.body, {"spec", "rules"});
    if (at.kind == "Ingress" && rules.is_array()) {
      for (const ordered_json& rule : rules)
        if (const ordered_json& paths = at_path(rule, {"http", "paths"}); paths.is_array())
          for (const ordered_json& path : paths) {
            const ordered_json& service = at_path(path, {"backend", "service"});
            const ordered_json& port = member(service, "port");
            check_backend(at, text_or(member(service, "name")),
                          member(port, "name").is_null() ? member(port, "number") : member(port, "name"));
          }
    } else if (at.kind == "HTTPRoute") {
      if (const ordered_json& parents = at_path(at.body, {"spec", "parentRefs"}); parents.is_array())
        for (const ordered_json& parent : parents)
          if (member(parent, "namespace").is_null() &&
              lookup("Gateway", at.ns, text_or(member(parent, "name"))) == nullptr)
            find(at, "reference", "Gateway " + text_or(member(parent, "name")) + " is not there");
      if (!rules.is_array()) continue;
      for (const ordered_json& rule : rules) {
        const ordered_json& backends = member(rule, "backendRefs");
        if (!backends.is_array()) continue;
        double weights = 0;
        for (const ordered_json& backend : backends) {
          weights += number_or(member(backend, "weight"), 1);
          const std::string name = text_or(member(backend, "name"));
          if (text_or(member(backend, "kind"), "Service") == "Service")
            check_backend(at, name, member(backend, "port"));
          else if (lookup(text_or(member(backend, "kind")), at.ns, name) == nullptr)
            find(at, "reference", text_or(member(backend, "kind")) + " " + name + " is not there");
        }
        if (!backends.empty() && !(weights > 0))
          find(at, "reference", "the weights of a rule's backends add up to nothing");
      }
    } else if (at.kind == "VirtualService") {
      if (const ordered_json& routes = at_path(at.body, {"spec", "http"}); routes.is_array())
        for (const ordered_json& http : routes)
          if (const ordered_json& list = member(http, "route"); list.is_array())
            for (const ordered_json& route : list) {
              const std::string host = text_or(at_path(route, {"destination", "host"}));
              check_backend(at, host.substr(0, host.find('.')), at_path(route, {"destination", "port", "number"}));
            }
    }
  }
}

void Checker::check_scalers() {
  // Kinds with a /scale subresource; of custom resources only LeaderWorkerSet's CRD has one.
  static const std::set<std::string> scalable = {"Deployment", "StatefulSet", "ReplicaSet", "ReplicationController",
                                                 "LeaderWorkerSet"};
  std::map<std::string, const Document*> taken;
  for (const Document& at : documents_) {
    const bool hpa = at.kind == "HorizontalPodAutoscaler";
    const bool keda = at.kind == "ScaledObject";
    if (!hpa && !keda) continue;
    const ordered_json& spec = member(at.body, "spec");
    const ordered_json& target = member(spec, "scaleTargetRef");
    const std::string kind = text_or(member(target, "kind"), keda ? "Deployment" : "");
    const std::string name = text_or(member(target, "name"));
    const std::string shown = kind + "/" + name;
    if (scalable.count(kind) == 0) {
      find(at, "scale-target",
           shown + " has no /scale: the autoscaler could never act" +
               (kind == "InferenceService" ? "; KServe's Deployment " + name + "-predictor has" : ""));
    } else if (const Document* workload = lookup(kind, at.ns, name); workload != nullptr) {
      if (!member(member(workload->body, "spec"), "replicas").is_null())
        find(*workload, "two-scalers",
             "sets spec.replicas, which " + at.kind + "/" + at.name + " also does: each apply would set it back");
    } else {
      const std::string owner = name.ends_with("-predictor") ? name.substr(0, name.size() - 10) : "";
      const Document* service = owner.empty() ? nullptr : lookup("InferenceService", at.ns, owner);
      if (kind != "Deployment" || service == nullptr) {
        find(at, "scale-target", shown + " is not there");
      } else {
        const ordered_json& notes = at_path(service->body, {"metadata", "annotations"});
        const std::string owned = text_or(member(notes, "serving.kserve.io/autoscalerClass"));
        const std::string mode = text_or(member(notes, "serving.kserve.io/deploymentMode"));
        if (owned != "external" && owned != "none")
          find(at, "two-scalers",
               "KServe makes its own HPA for " + shown + " unless its autoscalerClass is external or none");
        if (mode != "RawDeployment" && mode != "Standard")
          find(at, "scale-target", "KServe makes " + shown + " only with deploymentMode RawDeployment or Standard");
      }
    }
    const auto [before, first] = taken.emplace(at.ns + "/" + shown, &at);
    if (!first)
      find(at, "two-scalers", before->second->kind + "/" + before->second->name + " scales " + shown + " as well");
    const double least = number_or(member(spec, hpa ? "minReplicas" : "minReplicaCount"), hpa ? 1 : 0);
    const double most = number_or(member(spec, hpa ? "maxReplicas" : "maxReplicaCount"), 100);
    if (least > most) find(at, "replica-range", "the fewest replicas are more than the most");
  }
}

}  // namespace sextant::deploy
