// NUMA nodes of this machine: which CPUs are near one another and near a part of the memory.
#pragma once

#include <string>
#include <vector>

namespace sextant {

// The CPUs of each node that are in `usable` too, nodes without such left out; one node with all of `usable` where nothing is
// known. `root` is "/" outside tests.
std::vector<std::vector<int>> numa_nodes(const std::vector<int>& usable, const std::string& root = "/");

// "0-3,8" -> 0, 1, 2, 3, 8; nothing of what is malformed.
std::vector<int> parse_cpu_list(const std::string& text);

// Where the machine has several nodes: binds the calling thread, and those that it starts from now on, to node
// rank * nodes / size, so that memory it touches first lies there. Nothing happens elsewhere.
void bind_to_numa_node(int rank, int size);

}  // namespace sextant
