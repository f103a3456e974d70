// Reads /sys/devices/system/node and sets the calling thread's CPU mask and memory policy; any thread.
#include "engine/device/numa.h"

#include <linux/mempolicy.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <fstream>
#include <string_view>

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

std::vector<NumaNode> numa_nodes(const std::vector<int>& usable, const std::string& root) {
  std::vector<NumaNode> nodes;
  for (int id = 0; id < kMaxNodes; ++id) {
    std::ifstream file(root + "/sys/devices/system/node/node" + std::to_string(id) + "/cpulist");
    if (!file) continue;
    std::string text;
    std::getline(file, text);
    NumaNode node{id, {}};
    for (const int cpu : parse_cpu_list(text)) {
      if (std::find(usable.begin(), usable.end(), cpu) != usable.end()) node.cpus.push_back(cpu);
    }
    if (!node.cpus.empty()) nodes.push_back(std::move(node));
  }
  if (nodes.empty()) nodes.push_back({0, usable});
  return nodes;
}

std::vector<int> cpus_of_rank(const std::vector<NumaNode>& nodes, int rank, int size) {
  const auto num_nodes = static_cast<int>(nodes.size());
  if (size <= num_nodes) {
    std::vector<int> cpus;
    for (int node = rank * num_nodes / size; node < (rank + 1) * num_nodes / size; ++node) {
      const std::vector<int>& of_node = nodes[static_cast<size_t>(node)].cpus;
      cpus.insert(cpus.end(), of_node.begin(), of_node.end());
    }
    return cpus;
  }
  const int node = static_cast<int>(int64_t{rank} * num_nodes / size);
  // Ranks first, ..., last - 1 are on this node.
  const int first = (node * size + num_nodes - 1) / num_nodes, last = ((node + 1) * size + num_nodes - 1) / num_nodes;
  const std::vector<int>& cpus = nodes[static_cast<size_t>(node)].cpus;
  const auto count = static_cast<int>(cpus.size()), sharing = last - first, place = rank - first;
  if (count < sharing) return cpus;
  return {cpus.begin() + place * count / sharing, cpus.begin() + (place + 1) * count / sharing};
}

Result<RankPlace> place_of_rank(const std::string& cpu_bind, const std::vector<NumaNode>& nodes, int rank, int size) {
  RankPlace place;
  if (cpu_bind == "none") return place;
  if (cpu_bind == "auto") {
    if (nodes.size() < 2) return place;
    if (size > 1) {
      place.cpus = cpus_of_rank(nodes, rank, size);
    } else {
      for (const NumaNode& node : nodes) place.interleave_nodes.push_back(node.id);
    }
    return place;
  }
  std::vector<std::string> lists(1);
  for (const char c : cpu_bind) {
    if (c == '|') {
      lists.emplace_back();
    } else {
      lists.back() += c;
    }
  }
  if (lists.size() != static_cast<size_t>(size)) {
    return invalid_argument("cpu_bind has " + std::to_string(lists.size()) + " lists of CPUs for " +
                                std::to_string(size) +
                                " ranks of this process; give auto, none, or one list per rank, such as 0-3|4-7",
                            "cpu_bind");
  }
  const std::string& list = lists[static_cast<size_t>(rank)];
  place.cpus = parse_cpu_list(list);
  if (place.cpus.empty())
    return invalid_argument("cpu_bind: \"" + list + "\" is no list of CPUs such as 0-3,8; auto and none are the words",
                            "cpu_bind");
  for (const int cpu : place.cpus) {
    const bool known = std::any_of(nodes.begin(), nodes.end(), [&](const NumaNode& node) {
      return std::find(node.cpus.begin(), node.cpus.end(), cpu) != node.cpus.end();
    });
    if (!known) return invalid_argument("cpu_bind: this process may not run on CPU " + std::to_string(cpu), "cpu_bind");
  }
  return place;
}

std::vector<int> allowed_cpus() {
  std::vector<int> cpus;
  cpu_set_t mask;
  if (sched_getaffinity(0, sizeof mask, &mask) != 0) return cpus;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &mask)) cpus.push_back(cpu);
  }
  return cpus;
}

bool bind_to_cpus(const std::vector<int>& cpus) {
  cpu_set_t mask;
  CPU_ZERO(&mask);
  for (const int cpu : cpus) {
    if (cpu < CPU_SETSIZE) CPU_SET(cpu, &mask);
  }
  return sched_setaffinity(0, sizeof mask, &mask) == 0;
}

bool interleave_memory(const std::vector<int>& nodes) {
  constexpr size_t kBits = 8 * sizeof(unsigned long);   // NOLINT(google-runtime-int): the system call's word
  std::array<unsigned long, kMaxNodes / kBits> mask{};  // NOLINT(google-runtime-int)
  for (const int node : nodes) mask[static_cast<size_t>(node) / kBits] |= 1ul << (static_cast<size_t>(node) % kBits);
  // The kernel takes one bit less than it is told (set_mempolicy(2) has it as a bug).
  return syscall(SYS_set_mempolicy, MPOL_INTERLEAVE, mask.data(), kMaxNodes + 1) == 0;
}

}  // namespace sextant
