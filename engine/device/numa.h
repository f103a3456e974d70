// NUMA nodes of this machine, which CPUs are near one another and near a part of the memory, and where a rank's threads and memory go.
#pragma once

#include <string>
#include <vector>

#include "engine/base/result.h"

namespace sextant {

struct NumaNode {
  int id = 0;
  std::vector<int> cpus;
};

// The nodes that have CPUs of `usable`, with those; one node 0 with all of `usable` where nothing is known. `root` is "/" outside
// tests.
std::vector<NumaNode> numa_nodes(const std::vector<int>& usable, const std::string& root = "/");

// "0-3,8" -> 0, 1, 2, 3, 8; nothing of what is malformed.
std::vector<int> parse_cpu_list(const std::string& text);

// The CPUs of rank `rank` of `size` ranks: whole nodes in order, as many for each rank as the others have, give or take one. With more
// ranks than nodes those of a node share its CPUs evenly, or all of them where there are fewer CPUs than ranks. Never empty.
std::vector<int> cpus_of_rank(const std::vector<NumaNode>& nodes, int rank, int size);

struct RankPlace {
  std::vector<int> cpus;  // what the rank's threads are bound to; empty: not bound
  std::vector<int>
      interleave_nodes;  // nodes that the rank's memory is spread over, page by page; empty: where it is first touched
};

// What DeviceConfig::cpu_bind means for rank `rank` of this process' `size`, on a machine with these nodes:
//   auto   with several nodes: a rank's CPUs as cpus_of_rank() says, so that memory it touches first is near; one rank alone uses all
//          nodes, its memory spread over them, because any of its threads may read any weight. With one node: nothing
//   none   nothing
//   lists  "0-15|16-31": one list of CPUs per rank
// An error (of "cpu_bind") for lists that are malformed, of another number than ranks, or that name a CPU of no node.
Result<RankPlace> place_of_rank(const std::string& cpu_bind, const std::vector<NumaNode>& nodes, int rank, int size);

// The CPUs that the calling thread may run on.
std::vector<int> allowed_cpus();

// Both for the calling thread and those that it starts from now on. False where the system does not allow it (containers often do not
// allow interleaving): slower, not wrong.
bool bind_to_cpus(const std::vector<int>& cpus);
bool interleave_memory(const std::vector<int>& nodes);

}  // namespace sextant
