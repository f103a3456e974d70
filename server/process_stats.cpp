#include "server/process_stats.h"

#include <dirent.h>
#include <sys/resource.h>
#include <unistd.h>
#include <fstream>
#include <sstream>
#include <string>

namespace sextant {
namespace {

double boot_time_s() {
  std::ifstream file("/proc/stat");
  std::string word;
  double value = 0;
  while (file >> word) {
    if (word == "btime" && file >> value) return value;
    file.ignore(1 << 20, '\n');
  }
  return 0;
}

}  // namespace

ProcessStats read_process_stats() {
  ProcessStats stats;
  std::ifstream file("/proc/self/stat");
  std::string line;
  std::getline(file, line);
  const size_t name_end = line.rfind(')');  // the name in parentheses may hold anything
  if (name_end != std::string::npos) {
    std::istringstream fields(line.substr(name_end + 1));
    const double ticks_per_s = static_cast<double>(sysconf(_SC_CLK_TCK));
    std::string skipped;
    double user_ticks = 0, system_ticks = 0, start_ticks = 0;
    int64_t resident_pages = 0;
    for (int field = 3; field <= 24 && fields; ++field) {  // proc(5) counts from 1
      switch (field) {
        case 14: fields >> user_ticks; break;
        case 15: fields >> system_ticks; break;
        case 20: fields >> stats.num_threads; break;
        case 22: fields >> start_ticks; break;
        case 23: fields >> stats.virtual_bytes; break;
        case 24: fields >> resident_pages; break;
        default: fields >> skipped;
      }
    }
    stats.cpu_s = (user_ticks + system_ticks) / ticks_per_s;
    static const double boot_s = boot_time_s();
    stats.start_time_s = boot_s + start_ticks / ticks_per_s;
    stats.resident_bytes = resident_pages * sysconf(_SC_PAGESIZE);
  }
  if (DIR* directory = opendir("/proc/self/fd")) {
    while (const dirent* entry = readdir(directory)) stats.num_open_fds += entry->d_name[0] != '.';
    closedir(directory);
    stats.num_open_fds -= 1;  // the directory itself
  }
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0) stats.max_fds = static_cast<int64_t>(limit.rlim_cur);
  return stats;
}

}  // namespace sextant
