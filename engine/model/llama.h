// The Llama family: GQA attention with RoPE, RMSNorm before each half, SwiGLU, tied or untied head
// (Touvron et al. 2023, arXiv:2302.13971; GQA: arXiv:2305.13245). Granite is one with multipliers.
#pragma once

#include <memory>

#include "engine/model/model.h"

namespace sextant {

Result<std::unique_ptr<Model>> load_llama(const ModelConfig& config, WeightLoader& loader, Backend& backend,
                                          const ModelLoadOptions& options);

}  // namespace sextant
