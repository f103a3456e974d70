// Grafana dashboards of one deployment: classic JSON (schemaVersion 39), which every version since 10 reads. Pure.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "deploy/kubernetes/objects.h"

namespace sextant::deploy {

// "system", "model", "business", "slo" and, where there are GPUs, "gpu".
std::vector<std::pair<std::string, Object>> dashboards_of(const Target& target);

}  // namespace sextant::deploy
