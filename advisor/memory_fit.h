// Whether a model fits on GPUs, and how many sequences its cache then holds: memory of one GPU, part by part. Pure.
#pragma once

#include <string>
#include <vector>

#include "advisor/gpu_profile.h"
#include "advisor/model_facts.h"
#include "engine/base/result.h"

namespace sextant::advisor {

struct FitInputs {
  std::string model_id;
  std::string gpu;
  std::string quantization = "bf16";
  double tensor_parallel = 1;
  double pipeline_parallel = 1;  // stages, of whole layers; the fullest counts
  double context_tokens = 4096;  // prompt and answer of one request
  double kv_bytes_per_element = 2;
  double memory_share = 0.9;  // of the GPU, that an engine may use
};

// Per GPU, in GiB.
struct MemoryFit {
  double total_gib = 0;
  double usable_gib = 0;
  double weights_gib = 0;
  double activations_gib = 0;     // as vLLM was seen to take: 5.2 dense, 7.4 mixture of experts
  double overhead_gib = 0;        // of the runtime: 0.13 alone, 0.55 in a group
  double kv_cache_gib = 0;        // what is left for the cache, 0 when nothing is
  double kv_bytes_per_token = 0;  // on each GPU
  double sequences = 0;           // of context_tokens, that the cache holds at once; 0: it does not fit
  std::string reason;             // why it does not fit; empty when it does

  bool fits() const { return sequences >= 1; }
};

// Errors name the input: unknown model, GPU or quantisation, heads that the group cannot share, a context beyond the model's.
Result<MemoryFit> memory_fit(const FitInputs& inputs, const FactsTable& facts, const GpuTable& gpus);

}  // namespace sextant::advisor
