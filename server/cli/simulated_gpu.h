// What the advisor's tables know, as a simulation needs it: GPUs by name, and models that are not on this machine.
#pragma once

#include <optional>
#include <string>

#include "engine/base/result.h"
#include "engine/model/model_config.h"
#include "engine/sim/roofline_time.h"

namespace sextant::cli {

// By name or alias, case aside. kInvalidArgument with the nearest name, and all of them.
Result<sim::SimGpu> find_simulated_gpu(const std::string& name);

// Facts by model id; nothing for a model that is not listed. kUnsupported for one whose bytes and FLOPs memory_model does not know.
Result<std::optional<ModelConfig>> find_listed_model(const std::string& model_id);

}  // namespace sextant::cli
