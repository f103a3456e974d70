#include "advisor/memory_fit.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "engine/base/nearest.h"

namespace sextant::advisor {
namespace {

constexpr double kGib = 1024.0 * 1024 * 1024;
// Measured on vLLM by the llm-d planner (docs/empirical-vllm-memory-results.md): estimates for any other engine.
constexpr double kDenseActivationsGib = 5.2;
constexpr double kMoeActivationsGib = 7.4;
constexpr double kAloneOverheadGib = 0.13;
constexpr double kGroupOverheadGib = 0.55;

Status unknown(const char* what, const std::string& name, const std::vector<std::string>& names, const char* param) {
  const auto near = nearest_name(name, names);
  return not_found(std::string("unknown ") + what + " '" + name + "'" + (near ? "; did you mean '" + *near + "'?" : ""),
                   param);
}

}  // namespace

Result<MemoryFit> memory_fit(const FitInputs& in, const FactsTable& facts, const GpuTable& gpus) {
  const ModelFacts* f = facts.find(in.model_id);
  if (f == nullptr) return unknown("model", in.model_id, facts.names(), "model_id");
  const GpuProfile* gpu = gpus.find(in.gpu);
  if (gpu == nullptr) return unknown("GPU", in.gpu, gpus.names(), "gpu");
  const auto bytes = bytes_per_parameter(in.quantization);
  if (!bytes)
    return invalid_argument("unknown quantisation '" + in.quantization +
                                "'; known are bf16, fp16, fp8, int8, nvfp4, mxfp4, int4_wo, q8_0, q4_0, q4_1, q4_k_m",
                            "quantization");
  const double tensor = in.tensor_parallel;
  if (!(tensor >= 1 && tensor <= 4096) || tensor != std::floor(tensor))
    return invalid_argument("tensor_parallel must be a whole number from 1 to 4096", "tensor_parallel");
  if (std::fmod(f->num_attention_heads, tensor) != 0)
    return invalid_argument("tensor_parallel " + std::to_string(std::lround(tensor)) + " does not divide the model's " +
                                std::to_string(std::lround(f->num_attention_heads)) + " attention heads",
                            "tensor_parallel");
  if (!(in.context_tokens >= 1 && in.context_tokens <= 1e9))
    return invalid_argument("context_tokens must be from 1 to 1e9", "context_tokens");
  if (f->max_position_embeddings > 0 && in.context_tokens > f->max_position_embeddings)
    return invalid_argument("the model's context is " + std::to_string(std::lround(f->max_position_embeddings)) +
                                " tokens, fewer than " + std::to_string(std::lround(in.context_tokens)),
                            "context_tokens");
  const double stages = in.pipeline_parallel;
  if (!(stages >= 1 && stages <= f->num_hidden_layers) || stages != std::floor(stages))
    return invalid_argument("pipeline_parallel must be a whole number from 1 to the model's " +
                                std::to_string(std::lround(f->num_hidden_layers)) + " layers",
                            "pipeline_parallel");
  const double stage = std::ceil(f->num_hidden_layers / stages) / f->num_hidden_layers;  // of all layers
  const FactCounts counts = count(*f);
  MemoryFit fit;
  fit.total_gib = gpu->memory_gib;
  fit.usable_gib = gpu->memory_gib * in.memory_share;
  // Input table and head stay at 16 bits in quantised checkpoints.
  const double table_bytes = std::max(*bytes, 2.0);
  fit.weights_gib =
      ((counts.dense() + counts.experts) * *bytes * stage +
       (stages > 1 ? std::max(counts.head, counts.embedding) : counts.head + counts.embedding) * table_bytes) /
      tensor / kGib;
  fit.activations_gib = f->moe() ? kMoeActivationsGib : kDenseActivationsGib;
  fit.overhead_gib = tensor * stages > 1 ? kGroupOverheadGib : kAloneOverheadGib;
  fit.kv_bytes_per_token = kv_elements_per_token(*f) * in.kv_bytes_per_element * stage /
                           std::min(tensor, f->latent() ? 1.0 : f->num_key_value_heads);
  fit.kv_cache_gib = std::max(0.0, fit.usable_gib - fit.weights_gib - fit.activations_gib - fit.overhead_gib);
  fit.sequences = std::floor(fit.kv_cache_gib * kGib / fit.kv_bytes_per_token / in.context_tokens);
  if (!fit.fits()) {
    char text[200];
    if (fit.kv_cache_gib == 0) {
      std::snprintf(
          text, sizeof text,
          "weights %.1f, activations %.1f and overhead %.2f GiB need more than the usable %.1f GiB of each GPU",
          fit.weights_gib, fit.activations_gib, fit.overhead_gib, fit.usable_gib);
    } else {
      std::snprintf(text, sizeof text, "the cache of %.2f GiB holds %.0f tokens, fewer than one request's %.0f",
                    fit.kv_cache_gib, std::floor(fit.kv_cache_gib * kGib / fit.kv_bytes_per_token), in.context_tokens);
    }
    fit.reason = text;
  }
  return fit;
}

}  // namespace sextant::advisor
