// Reads /sys/devices/system/node; any thread.
#include "engine/device/numa.h"

#include <sched.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <string_view>

#include "engine/base/log.h"

namespace sextant {
namespace {

constexpr int kMaxCpu = 1 << 16;
constexpr int kMaxNodes = 1024;

bool parse_cpu(std::string_view text, int& cpu) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), cpu);
  return error == std::errc() && end == text.data() + text.size() && cpu >= 0 && cpu < kMaxCpu;
}

}  // namespace

std::vector<int> parse_cpu_list(const std::string& text) {
  std::vector<int> cpus;
  std::string_view left = text;
  while (!left.empty() && (left.back() == '\n' || left.back() == ' ')) left.remove_suffix(1);
  while (!left.empty()) {
    const size_t comma = std::min(left.find(','), left.size());
    const std::string_view range = left.substr(0, comma);
    left.remove_prefix(std::min(comma + 1, left.size()));
    const size_t dash = range.find('-');
    int first = 0, last = 0;
    if (!parse_cpu(range.substr(0, dash), first)) return {};
    last = first;
    if (dash != std::string_view::npos && !parse_cpu(range.substr(dash + 1), last)) return {};
    for (int cpu = first; cpu <= last; ++cpu) cpus.push_back(cpu);
  }
  return cpus;
}

std::vector<std::vector<int>> numa_nodes(const std::vector<int>& usable, const std::string& root) {
  std::vector<std::vector<int>> nodes;
  for (int node = 0; node < kMaxNodes; ++node) {
    std::ifstream file(root + "/sys/devices/system/node/node" + std::to_string(node) + "/cpulist");
    if (!file) continue;
    std::string text;
    std::getline(file, text);
    std::vector<int> cpus;
    for (const int cpu : parse_cpu_list(text)) {
      if (std::find(usable.begin(), usable.end(), cpu) != usable.end()) cpus.push_back(cpu);
    }
    if (!cpus.empty()) nodes.push_back(std::move(cpus));
  }
  if (nodes.empty()) nodes.push_back(usable);
  return nodes;
}

void bind_to_numa_node(int rank, int size) {
  cpu_set_t mask;
  if (sched_getaffinity(0, sizeof mask, &mask) != 0) return;
  std::vector<int> usable;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &mask)) usable.push_back(cpu);
  }
  const std::vector<std::vector<int>> nodes = numa_nodes(usable);
  if (nodes.size() < 2) return;
  const size_t node = static_cast<size_t>(rank) * nodes.size() / static_cast<size_t>(size);
  CPU_ZERO(&mask);
  for (const int cpu : nodes[node]) CPU_SET(cpu, &mask);
  if (sched_setaffinity(0, sizeof mask, &mask) == 0)
    LOG_INFO << "rank " << rank << " runs on NUMA node " << node << " of " << nodes.size();
}

}  // namespace sextant
