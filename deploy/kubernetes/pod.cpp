// The pod: one definition for Deployments, spot pools, releases and groups.
#include <algorithm>
#include <cmath>
#include <map>

#include "deploy/kubernetes/objects.h"

namespace sextant::deploy {
namespace {

constexpr int64_t kProbePeriodSeconds = 10;
constexpr int64_t kLeaveSeconds = 10;  // until balancers have taken a pod off their lists

struct Ending {
  int64_t leave, drain, grace;  // before SIGTERM, after it, and to the kill in all
};

Ending ending_of(const Target& target, const PodChoice& choice) {
  Ending out = {kLeaveSeconds, kDrainSeconds, kGracePeriodSeconds};
  // AWS tells a spot instance two minutes ahead, Google and Azure thirty seconds, of which GKE and AKS give pods 25.
  if (choice.pool == "spot" && target.provider != "aws") out = {5, 15, 25};
  // vLLM drops what it serves at SIGTERM: it is let finish before.
  if (!target.ours()) out.leave += out.drain, out.drain = 0;
  return out;
}

Object resource_quantities(const Target& target) {
  Object out = {{"cpu", std::to_string(target.simulate() ? 1 : target.cpus)},
                {"memory", target.simulate() ? "1Gi" : std::to_string(target.memory_gib) + "Gi"}};
  if (target.uses_gpus()) out[gpu_resource_of(target)] = std::to_string(target.gpus_per_node);
  return out;
}

Object resources_of(const Target& target) {
  Object limits = resource_quantities(target);
  // Pods may use idle CPUs beyond their own; memory and GPUs cannot be shared.
  limits.erase("cpu");
  return {{"requests", resource_quantities(target)}, {"limits", limits}};
}

Object http_get(const char* path) { return {{"path", path}, {"port", "http"}}; }

void add_probes(const Target& target, Object& container) {
  const int64_t failures = (startup_seconds_of(target) + kProbePeriodSeconds - 1) / kProbePeriodSeconds;
  // vLLM has /health only, and it says 200 when the model is loaded; ours lives from the start and is ready later.
  const char* ready = target.ours() ? "/ready" : "/health";
  container["startupProbe"] = {{"httpGet", http_get(ready)},
                               {"periodSeconds", kProbePeriodSeconds},
                               {"timeoutSeconds", 5},
                               {"failureThreshold", failures}};
  container["readinessProbe"] = {
      {"httpGet", http_get(ready)}, {"periodSeconds", 5}, {"timeoutSeconds", 5}, {"failureThreshold", 3}};
  container["livenessProbe"] = {
      {"httpGet", http_get("/health")}, {"periodSeconds", 10}, {"timeoutSeconds", 5}, {"failureThreshold", 6}};
}

Object secret_variable(const char* variable, const std::string& secret, const char* key) {
  return {{"name", variable}, {"valueFrom", {{"secretKeyRef", {{"name", secret}, {"key", key}}}}}};
}

Object locked_down() {
  return {{"allowPrivilegeEscalation", false}, {"readOnlyRootFilesystem", true}, {"capabilities", {{"drop", {"ALL"}}}}};
}

Object cache_variables(const Target& target) {
  Object out = Object::array();
  if (target.ours()) {
    out.push_back({{"name", "SEXTANT_CACHE"}, {"value", "/models"}});
  } else {
    out.push_back({{"name", "HF_HOME"}, {"value", "/models"}});
    out.push_back({{"name", "HOME"}, {"value", "/tmp"}});
    out.push_back({{"name", "USER"}, {"value", "vllm"}});  // torch asks who it is, and no password file knows 65532
  }
  if (!target.options.hf_token_secret.empty())
    out.push_back(secret_variable("HF_TOKEN", target.options.hf_token_secret, "token"));
  return out;
}

Object volumes_of(const Target& target) {
  Object out = Object::array();
  if (!target.simulate()) {
    if (target.options.model_claim.empty()) {
      const auto gib = static_cast<int64_t>(std::ceil(target.weights_gib * 1.2 + 1));
      out.push_back({{"name", "models"}, {"emptyDir", {{"sizeLimit", std::to_string(gib) + "Gi"}}}});
    } else {
      out.push_back({{"name", "models"}, {"persistentVolumeClaim", {{"claimName", target.options.model_claim}}}});
    }
    // NCCL's, between the ranks of a pod: 1 GiB each.
    out.push_back(
        {{"name", "shared-memory"},
         {"emptyDir",
          {{"medium", "Memory"}, {"sizeLimit", std::to_string(std::max<int64_t>(2, target.gpus_per_node)) + "Gi"}}}});
  }
  // vLLM compiles kernels there.
  out.push_back({{"name", "tmp"}, {"emptyDir", {{"sizeLimit", target.ours() ? "2Gi" : "16Gi"}}}});
  return out;
}

Object mounts_of(const Target& target) {
  Object out = Object::array();
  if (!target.simulate()) {
    out.push_back({{"name", "models"}, {"mountPath", "/models"}});
    out.push_back({{"name", "shared-memory"}, {"mountPath", "/dev/shm"}});
  }
  out.push_back({{"name", "tmp"}, {"mountPath", "/tmp"}});
  return out;
}

void place(const Target& target, const PodChoice& choice, Object& spec) {
  Object terms = Object::array();
  if (const std::string& product = target.options.gpu_product; target.uses_gpus() && !product.empty())
    terms.push_back({{"key", "nvidia.com/gpu.product"}, {"operator", "In"}, {"values", {product}}});
  // Where compliance says where data may be, pods are held to the region that the plan chose by it.
  if (!target.compliance.regulations.empty() && !target.region.empty() && target.region != "any")
    terms.push_back({{"key", "topology.kubernetes.io/region"}, {"operator", "In"}, {"values", {target.region}}});
  Object tolerations = Object::array();
  if (target.uses_gpus())
    tolerations.push_back({{"key", gpu_resource_of(target)}, {"operator", "Exists"}, {"effect", "NoSchedule"}});
  const size_t equals = target.options.spot_label.find('=');
  const std::string spot_key = target.options.spot_label.substr(0, equals);
  const std::string spot_value = target.options.spot_label.substr(equals + 1);
  if (choice.pool == "spot") {
    terms.push_back({{"key", spot_key}, {"operator", "In"}, {"values", {spot_value}}});
    tolerations.push_back({{"key", spot_key}, {"operator", "Equal"}, {"value", spot_value}, {"effect", "NoSchedule"}});
  } else if (target.spot_replicas() > 0) {
    terms.push_back({{"key", spot_key}, {"operator", "NotIn"}, {"values", {spot_value}}});
  }
  if (!terms.empty())
    spec["affinity"] = {{"nodeAffinity",
                         {{"requiredDuringSchedulingIgnoredDuringExecution",
                           {{"nodeSelectorTerms", {{{"matchExpressions", terms}}}}}}}}};
  if (!tolerations.empty()) spec["tolerations"] = tolerations;
  if (choice.in_group) {
    // A group's pods exchange activations at each step: one zone for each group, where there is room.
    if (target.num_nodes > 1)
      spec["affinity"]["podAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"] = {
          {{"weight", 100},
           {"podAffinityTerm",
            {{"topologyKey", "topology.kubernetes.io/zone"},
             {"labelSelector", {{"matchLabels", {{kGroupNameLabel, target.name()}}}}},
             {"matchLabelKeys", {kGroupKeyLabel}}}}}};
    return;
  }
  const Object selector = {{"matchLabels", pod_selector_of(target)}};
  Object spread = Object::array();
  spread.push_back({{"maxSkew", 1},
                    {"topologyKey", "topology.kubernetes.io/zone"},
                    {"whenUnsatisfiable", target.zones > 1 ? "DoNotSchedule" : "ScheduleAnyway"},
                    {"labelSelector", selector}});
  spread.push_back({{"maxSkew", 1},
                    {"topologyKey", "kubernetes.io/hostname"},
                    {"whenUnsatisfiable", "ScheduleAnyway"},
                    {"labelSelector", selector}});
  spec["topologySpreadConstraints"] = spread;
}

}  // namespace

std::string argument_text(const std::string& text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '$' && i + 1 < text.size() && text[i + 1] == '(') out += '$';
    out += text[i];
  }
  return out;
}

Object labels_of(const Target& target) {
  return {
      {kNameLabel, target.name()}, {"app.kubernetes.io/component", "server"}, {"app.kubernetes.io/part-of", "sextant"}};
}

Object pod_selector_of(const Target& target) {
  return {{kNameLabel, target.name()}, {"app.kubernetes.io/component", "server"}};
}

Object metadata_of(const Target& target, const std::string& name, bool described) {
  Object out = {{"name", name}, {"namespace", target.ns()}, {"labels", labels_of(target)}};
  if (!described) return out;
  Object& notes = out["annotations"];
  notes = {{"sextant/plan-id", target.plan_id},
           {"sextant/model", target.model_id},
           {"sextant/gpu", target.gpu},
           {kLoadAnnotation, std::to_string(std::lround(target.start_seconds()))}};
  if (!target.title.empty()) notes["sextant/title"] = target.title;
  const ComplianceNeeds& needs = target.compliance;
  if (!needs.regulations.empty()) notes["sextant/compliance"] = needs.names();
  if (needs.audit_retention_days > 0)
    notes["sextant/audit-retention-days"] = std::to_string(needs.audit_retention_days);
  if (needs.content_retention_days_max > 0)
    notes["sextant/content-retention-days-max"] = std::to_string(needs.content_retention_days_max);
  if (!target.options.description.empty()) notes["kubernetes.io/description"] = target.options.description;
  return out;
}

std::string secret_name_of(const Target& target) { return target.name() + "-keys"; }

int64_t startup_seconds_of(const Target& target) {
  return std::max<int64_t>(300, static_cast<int64_t>(std::ceil(2 * target.start_seconds())));
}

std::string gpu_resource_of(const Target& target) {
  return target.gpu.starts_with("MI") ? "amd.com/gpu" : "nvidia.com/gpu";
}

std::string gpu_product_of(const std::string& gpu) {
  // Values of GPU feature discovery: the driver's name of the product with '-' for spaces.
  static const std::map<std::string, std::string> products = {{"T4", "Tesla-T4"},
                                                              {"V100-SXM2-16GB", "Tesla-V100-SXM2-16GB"},
                                                              {"V100-SXM2-32GB", "Tesla-V100-SXM2-32GB"},
                                                              {"V100-PCIe", "Tesla-V100-PCIE-16GB"},
                                                              {"A10", "NVIDIA-A10"},
                                                              {"A10G", "NVIDIA-A10G"},
                                                              {"L4", "NVIDIA-L4"},
                                                              {"L40S", "NVIDIA-L40S"},
                                                              {"A30", "NVIDIA-A30"},
                                                              {"A100-SXM4-40GB", "NVIDIA-A100-SXM4-40GB"},
                                                              {"A100-PCIe-40GB", "NVIDIA-A100-PCIE-40GB"},
                                                              {"A100-SXM4-80GB", "NVIDIA-A100-SXM4-80GB"},
                                                              {"A100-PCIe-80GB", "NVIDIA-A100-80GB-PCIe"},
                                                              {"H100-SXM5-80GB", "NVIDIA-H100-80GB-HBM3"},
                                                              {"H100-PCIe-80GB", "NVIDIA-H100-PCIe"},
                                                              {"H100-NVL-94GB", "NVIDIA-H100-NVL"},
                                                              {"H200-SXM-141GB", "NVIDIA-H200"},
                                                              {"GH200-96GB", "NVIDIA-GH200-480GB"},
                                                              {"B200-SXM-180GB", "NVIDIA-B200"},
                                                              {"B300-SXM-288GB", "NVIDIA-B300-SXM6-AC"},
                                                              {"GB200 (per GPU)", "NVIDIA-GB200"}};
  const auto found = products.find(gpu);
  return found == products.end() ? "" : found->second;
}

std::vector<std::string> arguments_of(const Target& target, const PodChoice& choice) {
  const bool of_several = choice.in_group && target.num_nodes > 1;
  const std::string port = std::to_string(kHttpPort);
  const std::string model = argument_text(target.model_id);
  if (target.simulate()) {
    const auto mean = [&](const char* what) {
      const auto at = target.option.find("at_peak_per_replica");
      if (at == target.option.end() || !at->is_object()) return std::string("100");
      const Object value = at->value(what, Object::object()).value("mean", Object(100.0));
      const double ms = value.is_number() ? value.get<double>() : 100;
      return Object(std::clamp(ms, 0.001, 3.6e6)).dump();
    };
    return {"simulate",
            "--served-model-name=" + model,
            "--host=0.0.0.0",
            "--port=" + port,
            "--time=constant:ttft=" + mean("ttft_ms") + "ms,tpot=" + mean("tpot_ms") + "ms",
            "--max-num-seqs=" + std::to_string(target.max_num_seqs),
            kNoLimitOfKey,
            "--shutdown-timeout=" + std::to_string(ending_of(target, choice).drain),
            "--log-format=json"};
  }
  std::vector<std::string> out;
  if (target.ours()) out = {"serve"};
  out.push_back(target.ours() ? model : "--model=" + model);
  for (const std::string& argument : {"--served-model-name=" + model, std::string("--host=0.0.0.0"), "--port=" + port,
                                      "--tensor-parallel-size=" + std::to_string(target.tensor_parallel),
                                      "--pipeline-parallel-size=" + std::to_string(target.pipeline_parallel),
                                      "--max-num-seqs=" + std::to_string(target.max_num_seqs)})
    out.push_back(argument);
  if (target.max_model_len > 0) out.push_back("--max-model-len=" + std::to_string(target.max_model_len));
  if (!target.ours()) {
    if (target.expert_parallel > 1) out.emplace_back("--enable-expert-parallel");
    // docs.vllm.ai, "Parallelism and Scaling", multi-node with multiprocessing: no Ray.
    if (of_several) {
      for (const char* argument : {"--distributed-executor-backend=mp", "--nnodes=$(LWS_GROUP_SIZE)",
                                   "--node-rank=$(LWS_WORKER_INDEX)", "--master-addr=$(LWS_LEADER_ADDRESS)"})
        out.emplace_back(argument);
      out.push_back("--master-port=" + std::to_string(kGroupPort));
      if (!choice.leads) out.emplace_back("--headless");
    }
    return out;
  }
  out.emplace_back("--device=cuda");
  if (of_several)
    for (const char* argument :
         {"--nnodes=$(LWS_GROUP_SIZE)", "--node-rank=$(LWS_WORKER_INDEX)", "--master-addr=$(LWS_LEADER_ADDRESS)"})
      out.emplace_back(argument);
  if (of_several) out.push_back("--master-port=" + std::to_string(kGroupPort));
  out.emplace_back(kNoLimitOfKey);
  out.push_back("--shutdown-timeout=" + std::to_string(ending_of(target, choice).drain));
  out.emplace_back("--log-format=json");
  return out;
}

Object pod_template_of(const Target& target, const PodChoice& choice) {
  const std::string image = choice.image.empty() ? target.options.image : choice.image;
  Object labels = labels_of(target);
  labels[kTrackLabel] = choice.track;
  labels[kPoolLabel] = choice.pool;

  Object environment = target.simulate() ? Object::array() : cache_variables(target);
  environment.push_back(
      secret_variable(target.ours() ? "SEXTANT_API_KEY" : "VLLM_API_KEY", secret_name_of(target), "api-key"));
  const bool of_several = choice.in_group && target.num_nodes > 1;
  if (of_several && target.ours())
    environment.push_back(secret_variable("SEXTANT_GROUP_SECRET", secret_name_of(target), "group-secret"));

  if (of_several && !target.ours())
    environment.push_back({{"name", "VLLM_HOST_IP"}, {"valueFrom", {{"fieldRef", {{"fieldPath", "status.podIP"}}}}}});

  Object ports = {{{"name", "http"}, {"containerPort", kHttpPort}}};
  if (of_several) ports.push_back({{"name", "group"}, {"containerPort", kGroupPort}});

  Object container = {{"name", "server"},
                      {"image", image},
                      {"args", arguments_of(target, choice)},
                      {"env", environment},
                      {"ports", ports},
                      {"resources", resources_of(target)},
                      {"securityContext", locked_down()},
                      {"volumeMounts", mounts_of(target)}};
  // The other pods of a group of vLLM's answer nobody: they end with their leader, and the group starts anew.
  if (choice.leads) add_probes(target, container);
  // Balancers take the pod off their lists while it still answers.
  const Ending ending = ending_of(target, choice);
  container["lifecycle"] = {{"preStop", {{"sleep", {{"seconds", ending.leave}}}}}};

  Object spec = {{"serviceAccountName", target.name()},
                 {"automountServiceAccountToken", false},
                 {"terminationGracePeriodSeconds", ending.grace},
                 {"securityContext",
                  {{"runAsNonRoot", true},
                   {"runAsUser", 65532},
                   {"runAsGroup", 65532},
                   {"fsGroup", 65532},
                   {"seccompProfile", {{"type", "RuntimeDefault"}}}}}};
  place(target, choice, spec);
  if (target.ours() && !target.simulate()) {
    Object pull = {
        {"name", "pull"},
        {"image", image},
        {"args", {"pull", argument_text(target.model_id)}},
        {"env", cache_variables(target)},
        {"resources", {{"requests", {{"cpu", "1"}, {"memory", "1Gi"}}}, {"limits", {{"memory", "1Gi"}}}}},
        {"securityContext", locked_down()},
        {"volumeMounts", {{{"name", "models"}, {"mountPath", "/models"}}, {{"name", "tmp"}, {"mountPath", "/tmp"}}}}};
    spec["initContainers"] = {pull};
  }
  spec["containers"] = {container};
  spec["volumes"] = volumes_of(target);
  Object annotations = {{kLoadAnnotation, std::to_string(std::lround(target.start_seconds()))}};
  return {{"metadata", {{"labels", labels}, {"annotations", annotations}}}, {"spec", spec}};
}

}  // namespace sextant::deploy
