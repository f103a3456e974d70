// What the kernel says about this process (/proc/self). Any thread; a few small file reads.
#pragma once

#include <cstdint>

namespace sextant {

struct ProcessStats {
  double cpu_s = 0;
  double start_time_s = 0;  // since 1970
  int64_t resident_bytes = 0;
  int64_t virtual_bytes = 0;
  int64_t num_open_fds = 0;
  int64_t max_fds = 0;
  int64_t num_threads = 0;
};

ProcessStats read_process_stats();  // what cannot be read stays 0

}  // namespace sextant
