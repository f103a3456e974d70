// KServe's two kinds. InferenceService: our pod as a custom predictor, as a plain Deployment under KServe, so that an HPA has
// something with /scale to aim at. LLMInferenceService: vLLM under KServe's own controller; scaling stands in its own object.
// KServe makes the Services and routes.
#include "deploy/kubernetes/objects.h"
#include "deploy/kubernetes/scaling.h"

namespace sextant::deploy {
namespace {

Object inference_service(const Target& target) {
  PodChoice choice;
  const bool canary = target.options.rollout == "canary";
  if (canary) choice.image = target.options.new_image;
  const Object pod = pod_template_of(target, choice);
  Object predictor = {
      {"minReplicas", target.options.autoscaler == "none" ? target.replicas : target.options.min_replicas},
      {"maxReplicas", target.options.autoscaler == "none" ? target.replicas : target.options.max_replicas}};
  // KServe keeps the revision before, and splits: in its Knative mode alone.
  if (canary) predictor["canaryTrafficPercent"] = target.options.new_weight;
  predictor["labels"] = pod["metadata"]["labels"];
  predictor["annotations"] = pod["metadata"]["annotations"];
  for (const auto& [key, value] : pod["spec"].items()) predictor[key] = value;
  predictor["containers"][0]["name"] = "kserve-container";
  if (canary) {
    // Knative refuses both, and wants no name of a port but its own; it drains by the request's timeout.
    Object& container = predictor["containers"][0];
    predictor.erase("terminationGracePeriodSeconds");
    container.erase("lifecycle");
    container["ports"] = {{{"containerPort", kHttpPort}}};
    for (const char* probe : {"startupProbe", "readinessProbe", "livenessProbe"})
      container[probe]["httpGet"]["port"] = kHttpPort;
    predictor["timeout"] = 3600;
  }
  Object metadata = metadata_of(target, target.name(), true);
  metadata["annotations"]["serving.kserve.io/deploymentMode"] = canary ? "Knative" : "Standard";
  // None: KServe keeps its hands off; external: an HPA or ScaledObject of ours scales its Deployment.
  if (!canary)
    metadata["annotations"]["serving.kserve.io/autoscalerClass"] =
        target.options.autoscaler == "none" ? "none" : "external";
  return {{"apiVersion", "serving.kserve.io/v1beta1"},
          {"kind", "InferenceService"},
          {"metadata", metadata},
          {"spec", {{"predictor", predictor}}}};
}

Object llm_inference_service(const Target& target) {
  Object pod = pod_template_of(target, {})["spec"];
  // The controller merges this over its preset, which says the model, its folder, the port, TLS and probes, and passes on the
  // arguments of the container (those of VLLM_ADDITIONAL_ARGS in older releases).
  const Object full = pod["containers"][0];
  Object arguments = Object::array();
  std::string text;
  for (const Object& argument : full["args"]) {
    const std::string flag = argument.get<std::string>();
    if (flag.starts_with("--model=") || flag.starts_with("--served-model-name=") || flag.starts_with("--host=") ||
        flag.starts_with("--port="))
      continue;
    arguments.push_back(flag);
    text += (text.empty() ? "" : " ") + flag;
  }
  Object environment = Object::array({{{"name", "VLLM_ADDITIONAL_ARGS"}, {"value", text}}});
  for (const Object& variable : full["env"])
    if (variable["name"] != "HF_HOME") environment.push_back(variable);
  Object container = {{"name", "main"}};
  container["image"] = full["image"];
  container["args"] = arguments;
  container["env"] = environment;
  container["ports"] = full["ports"];
  container["resources"] = full["resources"];
  container["securityContext"] = full["securityContext"];
  container["securityContext"].erase("readOnlyRootFilesystem");
  container["volumeMounts"] = {{{"name", "shared-memory"}, {"mountPath", "/dev/shm"}},
                               {{"name", "tmp"}, {"mountPath", "/tmp"}}};
  pod["containers"] = Object::array({container});
  Object volumes = Object::array();
  for (const Object& volume : pod["volumes"])
    if (volume["name"] != "models") volumes.push_back(volume);
  pod["volumes"] = volumes;
  Object spec = {{"model", {{"name", target.model_id}, {"uri", "hf://" + target.model_id}}}};
  if (target.options.autoscaler == "none") {
    spec["replicas"] = target.replicas;
  } else {
    spec["scaling"] = {{"minReplicas", target.options.min_replicas}, {"maxReplicas", target.options.max_replicas}};
    if (target.options.autoscaler == "keda")
      spec["scaling"]["keda"] = {{"pollingInterval", 15}, {"triggers", keda_triggers(target)}};
    else
      spec["scaling"]["wva"] = {{"hpa", Object::object()}};  // the controller's own autoscaler, acting through an HPA
  }
  spec["parallelism"] = {{"tensor", target.tensor_parallel}};
  spec["labels"] = labels_of(target);
  spec["router"] = {{"gateway", Object::object()}, {"route", Object::object()}, {"scheduler", Object::object()}};
  spec["template"] = pod;
  return {{"apiVersion", "serving.kserve.io/v1alpha2"},
          {"kind", "LLMInferenceService"},
          {"metadata", metadata_of(target, target.name(), true)},
          {"spec", spec}};
}

}  // namespace

Objects kserve_objects(const Target& target) {
  if (target.options.kind == "llmisvc") return {{"llmInferenceService", llm_inference_service(target)}};
  Objects out = {{"inferenceService", inference_service(target)}};
  if (target.options.rollout == "none") out.emplace_back("disruptionBudget", disruption_budget(target));
  return out;
}

}  // namespace sextant::deploy
