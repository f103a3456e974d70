#include "engine/device/numa.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "tests/support/scratch_directory.h"

namespace sextant {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

TEST(Numa, CpuLists) {
  EXPECT_THAT(parse_cpu_list("0-3,8\n"), ElementsAre(0, 1, 2, 3, 8));
  EXPECT_THAT(parse_cpu_list("5"), ElementsAre(5));
  EXPECT_THAT(parse_cpu_list(""), IsEmpty());
  EXPECT_THAT(parse_cpu_list("3-1"), IsEmpty());
  for (const char* malformed : {"a", "1-", "-1", "0,,2", "0-x", "99999999999", "0-65536", "1;2"})
    EXPECT_THAT(parse_cpu_list(malformed), IsEmpty()) << malformed;
}

TEST(Numa, NodesHoldTheCpusThatMayBeUsed) {
  const ScratchDirectory scratch;
  const auto write = [&](int node, const std::string& text) {
    const std::string folder = scratch.path() + "/sys/devices/system/node/node" + std::to_string(node);
    std::filesystem::create_directories(folder);
    std::ofstream(folder + "/cpulist") << text;
  };
  EXPECT_THAT(numa_nodes({0, 1}, scratch.path()), ElementsAre(ElementsAre(0, 1))) << "nothing is known";
  write(0, "0-1,4-5\n");
  write(2, "2-3\n");  // numbers may have gaps
  write(3, "\n");     // memory without CPUs
  EXPECT_THAT(numa_nodes({0, 1, 2, 3, 4, 5}, scratch.path()), ElementsAre(ElementsAre(0, 1, 4, 5), ElementsAre(2, 3)));
  EXPECT_THAT(numa_nodes({1, 4}, scratch.path()), ElementsAre(ElementsAre(1, 4)));
}

}  // namespace
}  // namespace sextant
