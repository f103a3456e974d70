// The texts of data/gpu_profiles.csv and data/gpu_aliases.csv; the build writes their definitions.
#pragma once

#include <string_view>

namespace sextant::sim {

extern const std::string_view kGpuProfilesCsv;
extern const std::string_view kGpuAliasesCsv;

}  // namespace sextant::sim
