#include "engine/device/host_memory.h"

#include <algorithm>
#include <fstream>
#include <limits>
#include <optional>

namespace sextant {
namespace {

// The first word of a file as a number; "max" and anything else is none.
std::optional<uint64_t> read_number(const std::string& path) {
  std::ifstream file(path);
  uint64_t value = 0;
  if (file >> value) return value;
  return std::nullopt;
}

}  // namespace

uint64_t available_host_memory_bytes(const std::string& root) {
  uint64_t available = 0;
  std::ifstream meminfo(root + "proc/meminfo");
  std::string key;
  uint64_t kib = 0;
  std::string unit;
  while (meminfo >> key >> kib) {
    std::getline(meminfo, unit);
    if (key == "MemAvailable:") available = kib * 1024;
  }
  // cgroup v2, as seen from inside a container, then v1.
  for (const auto& [limit_file, usage_file] :
       {std::pair{"sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory.current"},
        std::pair{"sys/fs/cgroup/memory/memory.limit_in_bytes", "sys/fs/cgroup/memory/memory.usage_in_bytes"}}) {
    const std::optional<uint64_t> limit = read_number(root + limit_file);
    if (!limit) continue;
    const uint64_t used = read_number(root + usage_file).value_or(0);
    available = std::min(available, *limit > used ? *limit - used : 0);
    break;
  }
  return available;
}

}  // namespace sextant
