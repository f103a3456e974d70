// Reads the affinity mask and the cgroup files; any thread.
#include "engine/device/usable_cpus.h"

#include <sched.h>

#include <algorithm>
#include <fstream>
#include <sstream>
#include <vector>

namespace sextant {
namespace {

// Keeps the smaller of two quotas, where 0 is "none".
void limit(double& quota, double other) {
  if (other > 0 && (quota == 0 || other < quota)) quota = other;
}

// cgroup v2: "max 100000" or "150000 100000".
double quota_of_cpu_max(const std::string& path) {
  std::ifstream file(path);
  double budget = 0, period = 0;
  return file >> budget >> period && budget > 0 && period > 0 ? budget / period : 0;
}

// cgroup v1: two files; a budget of -1 is none.
double quota_of_cfs(const std::string& folder) {
  std::ifstream budget_file(folder + "/cpu.cfs_quota_us"), period_file(folder + "/cpu.cfs_period_us");
  double budget = 0, period = 0;
  return budget_file >> budget && period_file >> period && budget > 0 && period > 0 ? budget / period : 0;
}

// The group itself and all above it, up to the root: "/a/b" -> "/a/b", "/a", "". Inside a container the path that the
// process sees may not exist below its mount; the mount itself then is its group.
std::vector<std::string> with_parents(std::string group) {
  std::vector<std::string> groups;
  while (!group.empty() && group != "/") {
    groups.push_back(group);
    const size_t slash = group.find_last_of('/');
    group = slash == std::string::npos ? "" : group.substr(0, slash);
  }
  groups.emplace_back();
  return groups;
}

}  // namespace

double cgroup_cpu_quota(const std::string& root) {
  double quota = 0;
  std::ifstream file(root + "/proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {  // "0::/path" (v2) or "4:cpu,cpuacct:/path" (v1)
    const size_t first = line.find(':'), second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1), group = line.substr(second + 1);
    if (controllers.empty()) {
      for (const std::string& name : with_parents(group))
        limit(quota, quota_of_cpu_max(root + "/sys/fs/cgroup" + name + "/cpu.max"));
      continue;
    }
    std::istringstream names(controllers);
    bool is_cpu = false;
    for (std::string name; std::getline(names, name, ',');) is_cpu |= name == "cpu";
    if (!is_cpu) continue;
    for (const std::string& mount : {controllers, std::string("cpu")}) {
      for (const std::string& name : with_parents(group))
        limit(quota, quota_of_cfs(root + "/sys/fs/cgroup/" + mount + name));
    }
  }
  return quota;
}

int usable_cpus() {
  int cpus = 1;
  cpu_set_t mask;
  CPU_ZERO(&mask);
  if (sched_getaffinity(0, sizeof mask, &mask) == 0) cpus = std::max(1, CPU_COUNT(&mask));
  const double quota = cgroup_cpu_quota("");
  if (quota > 0) cpus = std::min(cpus, std::max(1, static_cast<int>(std::min(quota, 65536.0))));
  return cpus;
}

}  // namespace sextant
