// OLMo-2: RMSNorm after each half instead of before it, and of all heads of q and k (Team OLMo 2025, arXiv:2501.00656).
#pragma once

#include <memory>

#include "engine/model/model.h"

namespace sextant {

Result<std::unique_ptr<Model>> load_olmo2(const ModelConfig& config, WeightLoader& loader, Backend& backend,
                                          const ModelLoadOptions& options);

}  // namespace sextant
