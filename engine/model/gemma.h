// The Gemma family, second and third generation: RMSNorm before and after each half, GeGLU, local and global layers, scaled
// embeddings; soft caps of logits (2) or norms of q and k and a second rotation for local layers (3)
// (Gemma Team 2024, arXiv:2408.00118; 2025, arXiv:2503.19786).
#pragma once

#include <memory>

#include "engine/model/model.h"

namespace sextant {

Result<std::unique_ptr<Model>> load_gemma(const ModelConfig& config, WeightLoader& loader, Backend& backend,
                                          const ModelLoadOptions& options);

}  // namespace sextant
