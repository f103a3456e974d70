// The tables that the program carries (advisor/data), parsed once per process. Any thread.
#pragma once

#include <vector>

#include "advisor/gpu_profile.h"
#include "advisor/model_facts.h"
#include "advisor/predict/serving_point.h"

namespace sextant::advisor {

const FactsTable& shipped_facts();
const GpuTable& shipped_gpus();
const std::vector<ServingPoint>& shipped_points();

}  // namespace sextant::advisor
