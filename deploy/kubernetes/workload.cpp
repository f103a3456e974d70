// Deployments (on demand, spot, a second release) or a LeaderWorkerSet, with Services and a disruption budget.
#include <algorithm>

#include "deploy/kubernetes/objects.h"

namespace sextant::deploy {
namespace {

Object deployment(const Target& target, const std::string& name, const PodChoice& choice, int64_t replicas,
                  bool scaled) {
  Object selector = pod_selector_of(target);
  selector[kTrackLabel] = choice.track;
  selector[kPoolLabel] = choice.pool;
  Object spec = Object::object();
  // An autoscaler owns the count: a later apply must not set it back.
  if (!scaled) spec["replicas"] = replicas;
  spec["revisionHistoryLimit"] = 5;
  // A stuck release is reported when a pod could have fetched its weights twice, started, and had five minutes more.
  const int64_t fetched = target.ours() ? static_cast<int64_t>(2 * target.download_seconds) : 0;
  spec["progressDeadlineSeconds"] = fetched + startup_seconds_of(target) + 300;
  // GPUs for a surge may not exist; one less for a while always does.
  spec["strategy"] = {{"type", "RollingUpdate"},
                      {"rollingUpdate", {{"maxUnavailable", replicas > 1 ? 1 : 0}, {"maxSurge", 1}}}};
  spec["selector"] = {{"matchLabels", selector}};
  spec["template"] = pod_template_of(target, choice);
  return {
      {"apiVersion", "apps/v1"}, {"kind", "Deployment"}, {"metadata", metadata_of(target, name, true)}, {"spec", spec}};
}

Object service(const Target& target, const std::string& name, const Object& selector) {
  Object metadata = metadata_of(target, name);
  return {{"apiVersion", "v1"},
          {"kind", "Service"},
          {"metadata", metadata},
          {"spec",
           {{"type", target.options.service_type},
            {"selector", selector},
            {"ports", {{{"name", "http"}, {"port", kHttpPort}, {"targetPort", "http"}, {"protocol", "TCP"}}}}}}};
}

}  // namespace

Object disruption_budget(const Target& target) {
  return {{"apiVersion", "policy/v1"},
          {"kind", "PodDisruptionBudget"},
          {"metadata", metadata_of(target, target.name())},
          {"spec",
           {{"maxUnavailable", 1},
            {"unhealthyPodEvictionPolicy", "AlwaysAllow"},
            {"selector", {{"matchLabels", pod_selector_of(target)}}}}}};
}

namespace {

Object group_set(const Target& target) {
  PodChoice choice;
  choice.in_group = true;
  Object leader_worker = {{"size", target.num_nodes}, {"restartPolicy", "RecreateGroupOnPodRestart"}};
  if (!target.ours() && target.num_nodes > 1) {
    leader_worker["leaderTemplate"] = pod_template_of(target, choice);
    choice.leads = false;
  }
  leader_worker["workerTemplate"] = pod_template_of(target, choice);
  Object spec = {{"startupPolicy", "LeaderCreated"}};
  if (target.options.autoscaler == "none") spec["replicas"] = target.replicas;
  spec["rolloutStrategy"] = {{"type", "RollingUpdate"},
                             {"rollingUpdateConfiguration", {{"maxUnavailable", 1}, {"maxSurge", 0}}}};
  spec["leaderWorkerTemplate"] = leader_worker;
  return {{"apiVersion", "leaderworkerset.x-k8s.io/v1"},
          {"kind", "LeaderWorkerSet"},
          {"metadata", metadata_of(target, target.name(), true)},
          {"spec", spec}};
}

}  // namespace

std::string service_name_of(const Target& target) {
  return target.kind() == "lws" ? target.name() + "-leader" : target.name();
}

std::string deployment_name_of(const Target& target) {
  if (target.options.kind == "kserve") return target.name() + "-predictor";
  return target.spot_replicas() > 0 ? target.name() + "-spot" : target.name();
}

Object scale_target_of(const Target& target) {
  if (target.options.kind == "lws")
    return {{"apiVersion", "leaderworkerset.x-k8s.io/v1"}, {"kind", "LeaderWorkerSet"}, {"name", target.name()}};
  return {{"apiVersion", "apps/v1"}, {"kind", "Deployment"}, {"name", deployment_name_of(target)}};
}

Objects namespace_objects(const Target& target) {
  return {{"namespace",
           {{"apiVersion", "v1"},
            {"kind", "Namespace"},
            {"metadata",
             {{"name", target.ns()},
              {"labels",
               {{"app.kubernetes.io/part-of", "sextant"}, {"pod-security.kubernetes.io/enforce", "restricted"}}}}}}}};
}

Objects workload_objects(const Target& target) {
  Objects out;
  const std::string& name = target.name();
  const bool scaled = target.options.autoscaler != "none";
  Object selector = pod_selector_of(target);
  if (target.options.kind == "lws") {
    out.emplace_back("leaderWorkerSet", group_set(target));
    // Requests go to leaders alone: the others have no API.
    selector = {{kGroupNameLabel, name}, {kGroupIndexLabel, "0"}};
    out.emplace_back("service", service(target, service_name_of(target), selector));
    out.emplace_back("disruptionBudget", disruption_budget(target));
    return out;
  }
  const int64_t spot = target.spot_replicas();
  out.emplace_back("deployment", deployment(target, name, {}, target.replicas - spot, scaled && spot == 0));
  if (spot > 0) {
    PodChoice choice;
    choice.pool = "spot";
    out.emplace_back("deploymentSpot", deployment(target, name + "-spot", choice, spot, scaled));
  }
  if (target.options.rollout != "none") {
    PodChoice choice;
    choice.track = "new";
    choice.image = target.options.new_image;
    // Blue-green holds the whole load before the switch; a canary its share.
    const int64_t replicas = target.options.rollout == "blue-green"
                                 ? target.replicas
                                 : std::max<int64_t>(1, (target.replicas * target.options.new_weight + 99) / 100);
    out.emplace_back("deploymentNew", deployment(target, name + "-new", choice, replicas, false));
    Object stable = selector, fresh = selector;
    stable[kTrackLabel] = "stable";
    fresh[kTrackLabel] = "new";
    out.emplace_back("service", service(target, name, stable));
    out.emplace_back("serviceNew", service(target, name + "-new", fresh));
  } else {
    out.emplace_back("service", service(target, name, selector));
  }
  out.emplace_back("disruptionBudget", disruption_budget(target));
  return out;
}

Objects access_objects(const Target& target) {
  // The server asks the API server for nothing: an account of its own without a token. The Role is for people on call.
  const Object account = {{"apiVersion", "v1"},
                          {"kind", "ServiceAccount"},
                          {"metadata", metadata_of(target, target.name())},
                          {"automountServiceAccountToken", false}};
  Object rules = Object::array();
  const auto allow = [&](const char* group, const Object& resources, const Object& verbs,
                         const Object& names = Object()) {
    Object rule = {{"apiGroups", {group}}, {"resources", resources}};
    if (!names.is_null()) rule["resourceNames"] = names;
    rule["verbs"] = verbs;
    rules.push_back(rule);
  };
  const Object read = {"get", "list", "watch"};
  const Object steer = {"get", "list", "watch", "patch", "update"};
  allow("", {"pods", "services", "events"}, read);
  allow("", {"pods/log"}, {"get"});
  allow("autoscaling", {"horizontalpodautoscalers"}, read);
  // What `kubectl rollout undo`, `rollout status` and `scale` ask for.
  const std::string& kind = target.options.kind;
  Object names = Object::array({target.name()});
  if (kind == "deployment") {
    if (target.spot_replicas() > 0) names.push_back(target.name() + "-spot");
    if (target.options.rollout != "none") names.push_back(target.name() + "-new");
    allow("apps", {"replicasets"}, read);
    allow("apps", {"deployments", "deployments/scale"}, steer, names);
  } else if (kind == "lws") {
    allow("apps", {"statefulsets", "controllerrevisions"}, read);
    allow("leaderworkerset.x-k8s.io", {"leaderworkersets", "leaderworkersets/scale"}, steer, names);
  } else {
    allow("apps", {"deployments", "replicasets"}, read);
    allow("serving.kserve.io", Object::array({kind == "kserve" ? "inferenceservices" : "llminferenceservices"}), steer,
          names);
  }
  const Object role = {{"apiVersion", "rbac.authorization.k8s.io/v1"},
                       {"kind", "Role"},
                       {"metadata", metadata_of(target, target.name() + "-operator")},
                       {"rules", rules}};
  const Object binding = {
      {"apiVersion", "rbac.authorization.k8s.io/v1"},
      {"kind", "RoleBinding"},
      {"metadata", metadata_of(target, target.name() + "-operator")},
      {"subjects", {{{"kind", "Group"}, {"name", "sextant-operators"}, {"apiGroup", "rbac.authorization.k8s.io"}}}},
      {"roleRef",
       {{"apiGroup", "rbac.authorization.k8s.io"}, {"kind", "Role"}, {"name", target.name() + "-operator"}}}};
  return {{"serviceAccount", account}, {"operatorRole", role}, {"operatorBinding", binding}};
}

}  // namespace sextant::deploy
