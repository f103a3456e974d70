// Kubernetes objects of a Target, each a JSON structure; what several of them share (labels, the pod) is made here once. Pure.
// Field names: kubernetes.io/docs/reference/kubernetes-api, v1.34.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "deploy/target.h"

namespace sextant::deploy {

using Object = nlohmann::ordered_json;
// Key (unique, of letters: the chart's values and file names use it) and object.
using Objects = std::vector<std::pair<std::string, Object>>;

// --- shared ---
inline constexpr const char* kNameLabel = "app.kubernetes.io/name";
inline constexpr const char* kTrackLabel = "sextant/track";  // stable, new
inline constexpr const char* kPoolLabel = "sextant/pool";    // on-demand, spot
inline constexpr const char* kLoadAnnotation = "sextant/predicted-load-seconds";
inline constexpr const char* kGroupNameLabel = "leaderworkerset.sigs.k8s.io/name";
inline constexpr const char* kGroupKeyLabel = "leaderworkerset.sigs.k8s.io/group-key";
inline constexpr const char* kGroupIndexLabel = "leaderworkerset.sigs.k8s.io/worker-index";

Object metadata_of(const Target& target, const std::string& name, bool described = false);
Object labels_of(const Target& target);
struct PodChoice {
  std::string track = "stable";
  std::string pool = "on-demand";
  std::string image;
  bool in_group = false;
  bool leads = true;  // of a group of vLLM's, whose other pods have no API
};
// The program's arguments.
std::vector<std::string> arguments_of(const Target& target, const PodChoice& choice);
// A text as a container argument: "$(X)" is not expanded.
std::string argument_text(const std::string& text);

Object pod_template_of(const Target& target, const PodChoice& choice);
// What pods of all tracks and pools carry.
Object pod_selector_of(const Target& target);
std::string secret_name_of(const Target& target);  // keys api-key and group-secret; made by the user
// The Service in front. Of groups it has a name of its own: LeaderWorkerSet makes a headless one with the set's, by which its
// pods find one another, and takes any other of that name for it.
std::string service_name_of(const Target& target);
std::string deployment_name_of(const Target& target);  // what an autoscaler aims at: {kind, name} below
Object scale_target_of(const Target& target);
// Startup probes may fail so long: twice what a pod's own container is predicted to take, at least five minutes.
int64_t startup_seconds_of(const Target& target);

std::string gpu_resource_of(const Target& target);  // "nvidia.com/gpu"

// --- one function per kind of file ---
Objects namespace_objects(const Target& target);
Objects access_objects(const Target& target);    // ServiceAccount, Role, RoleBinding
Objects workload_objects(const Target& target);  // Deployments, or LeaderWorkerSet; Services; PodDisruptionBudget
Object disruption_budget(const Target& target);
Objects kserve_objects(const Target& target);   // instead of workload_objects
Objects scaling_objects(const Target& target);  // HPA or ScaledObject, VPA
Objects network_objects(const Target& target);  // routes, NetworkPolicy
Objects quota_objects(const Target& target);
Objects monitoring_objects(
    const Target& target);  // ServiceMonitor or PodMonitor, PrometheusRule, dashboards as ConfigMaps

}  // namespace sextant::deploy
