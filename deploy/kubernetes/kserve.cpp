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
  Object metadata = metadata_of(target, target.name(), true);
  metadata["annotations"]["serving.kserve.io/deploymentMode"] = canary ? "Knative" : "RawDeployment";
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
  Object& container = pod["containers"][0];
  container["name"] = "main";
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
  return {{"inferenceService", inference_service(target)}};
}

}  // namespace sextant::deploy
