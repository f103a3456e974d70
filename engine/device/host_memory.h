// How much memory of this machine the process may still take: what the kernel calls available, within its cgroup's limit.
#pragma once

#include <cstdint>
#include <string>

namespace sextant {

// Bytes; 0 when it cannot be told. `root` is "/" outside tests.
uint64_t available_host_memory_bytes(const std::string& root = "/");

}  // namespace sextant
