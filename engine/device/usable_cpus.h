// How many CPUs this process may really use: the affinity mask, limited by the CPU quota of its cgroups (v1 and v2).
#pragma once

#include <string>

namespace sextant {

// At least 1. A quota of 2.5 CPUs counts as 2.
int usable_cpus();

// The quota alone, in CPUs, as the files below `root` say ("" for the real ones): the smallest of this process' cgroup and all
// those above it; 0 when there is none. Files that are missing or malformed count as no limit.
double cgroup_cpu_quota(const std::string& root);

}  // namespace sextant
