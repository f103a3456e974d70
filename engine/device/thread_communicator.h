// Communicators between threads of one process over host memory: the CPU backend's. Every rank reads the others' buffers in
// place; sums go over the ranks in order, in fp32, so that each rank gets the same bits at every run.
#pragma once

#include <memory>
#include <vector>

#include "engine/device/communicator.h"

namespace sextant {

// One per rank of a new group. A rank that waits `timeout_s` in a call for others fails the group and names them; 0: waits for
// ever. The objects may be used and destroyed on different threads, in any order.
std::vector<std::unique_ptr<Communicator>> make_thread_communicators(int size, double timeout_s);

}  // namespace sextant
