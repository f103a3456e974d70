#include "engine/device/numa.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/mempolicy.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <set>
#include <thread>

#include "tests/support/scratch_directory.h"

namespace sextant {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

std::string text_of(const std::vector<NumaNode>& nodes) {
  std::string text;
  for (const NumaNode& node : nodes) {
    text += (text.empty() ? "" : " ") + std::to_string(node.id) + ":";
    for (const int cpu : node.cpus) text += std::to_string(cpu) + ",";
  }
  return text;
}

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
  const auto nodes = [&](const std::vector<int>& usable) { return text_of(numa_nodes(usable, scratch.path())); };
  EXPECT_EQ(nodes({0, 1}), "0:0,1,") << "nothing is known";
  write(0, "0-1,4-5\n");
  write(2, "2-3\n");  // numbers may have gaps
  write(3, "\n");     // memory without CPUs
  EXPECT_EQ(nodes({0, 1, 2, 3, 4, 5}), "0:0,1,4,5, 2:2,3,");
  EXPECT_EQ(nodes({1, 4}), "0:1,4,");
  write(2, "garbage");
  EXPECT_EQ(nodes({0, 2}), "0:0,");
}

// Each CPU belongs to one rank, and none is left over: but where ranks are more than CPUs.
TEST(Numa, RanksShareAllCpusOfAllNodes) {
  for (int num_nodes = 1; num_nodes <= 5; ++num_nodes) {
    std::vector<NumaNode> nodes;
    int next = 0;
    for (int node = 0; node < num_nodes; ++node) {
      nodes.push_back({node, {}});
      for (int i = 0; i < 8 + node; ++i) nodes.back().cpus.push_back(next++);
    }
    for (int size = 1; size <= 16; ++size) {
      std::vector<int> taken(static_cast<size_t>(next), 0);
      for (int rank = 0; rank < size; ++rank) {
        const std::vector<int> cpus = cpus_of_rank(nodes, rank, size);
        ASSERT_FALSE(cpus.empty());
        std::set<int> touched;
        for (const int cpu : cpus) {
          ++taken[static_cast<size_t>(cpu)];
          for (const NumaNode& node : nodes) {
            if (std::find(node.cpus.begin(), node.cpus.end(), cpu) != node.cpus.end()) touched.insert(node.id);
          }
        }
        ASSERT_LE(touched.size(), static_cast<size_t>((num_nodes + size - 1) / size))
            << num_nodes << " nodes, rank " << rank << " of " << size;
      }
      const auto [least, most] = std::minmax_element(taken.begin(), taken.end());
      ASSERT_GE(*least, 1) << num_nodes << " nodes, " << size << " ranks";
      if (size <= 8 * num_nodes && (num_nodes > 1 || size <= 8)) {
        ASSERT_EQ(*most, 1) << num_nodes << " nodes, " << size << " ranks";
      }
    }
  }
  EXPECT_THAT(cpus_of_rank({{0, {3}}}, 1, 2), ElementsAre(3)) << "fewer CPUs than ranks";
}

std::string placed(const std::string& cpu_bind, const std::vector<NumaNode>& nodes, int rank, int size) {
  const Result<RankPlace> place = place_of_rank(cpu_bind, nodes, rank, size);
  if (!place.ok()) return std::string(place.status().message());
  std::string text = "cpus ";
  for (const int cpu : place->cpus) text += std::to_string(cpu) + ",";
  text += " over ";
  for (const int node : place->interleave_nodes) text += std::to_string(node) + ",";
  return text;
}

TEST(Numa, WhereRanksGo) {
  const std::vector<NumaNode> one = {{0, {0, 1, 2, 3}}}, two = {{0, {0, 1}}, {3, {2, 3}}};
  EXPECT_EQ(placed("auto", one, 0, 1), "cpus  over ");
  EXPECT_EQ(placed("auto", one, 1, 2), "cpus  over ") << "nothing to be near to";
  EXPECT_EQ(placed("auto", two, 0, 1), "cpus  over 0,3,");
  EXPECT_EQ(placed("auto", two, 1, 2), "cpus 2,3, over ");
  EXPECT_EQ(placed("auto", two, 3, 4), "cpus 3, over ");
  EXPECT_EQ(placed("none", two, 1, 2), "cpus  over ");
  EXPECT_EQ(placed("1,3|0", two, 0, 2), "cpus 1,3, over ");
  EXPECT_EQ(placed("1,3|0", two, 1, 2), "cpus 0, over ");
  EXPECT_EQ(placed("2", two, 0, 1), "cpus 2, over ");
}

TEST(Numa, WhatIsNoPlaceIsRefused) {
  const std::vector<NumaNode> nodes = {{0, {0, 1}}};
  EXPECT_THAT(placed("0|1", nodes, 0, 1), HasSubstr("2 lists of CPUs for 1 ranks"));
  EXPECT_THAT(placed("0", nodes, 0, 2), HasSubstr("1 lists of CPUs for 2 ranks"));
  EXPECT_THAT(placed("0|2", nodes, 1, 2), HasSubstr("may not run on CPU 2"));
  for (const char* malformed : {"", "on", "AUTO", "0-", "1-0", "0,,1", "0 1", "-1", "99999999999999999999"})
    EXPECT_THAT(placed(malformed, nodes, 0, 1), HasSubstr("is no list of CPUs")) << malformed;
  const Result<RankPlace> place = place_of_rank("x", nodes, 0, 1);
  ASSERT_FALSE(place.ok());
  EXPECT_EQ(place.status().param(), "cpu_bind");
}

// On a thread of its own, which takes its mask and policy with it.
TEST(Numa, ThreadsAndMemoryGoWhereTheyAreTold) {
  std::thread([] {
    const std::vector<int> before = allowed_cpus();
    ASSERT_FALSE(before.empty());
    ASSERT_TRUE(bind_to_cpus({before.back()}));
    EXPECT_THAT(allowed_cpus(), ElementsAre(before.back()));
    std::thread([&] { EXPECT_THAT(allowed_cpus(), ElementsAre(before.back())) << "inherited"; }).join();
    EXPECT_FALSE(bind_to_cpus({}));
    const int node = numa_nodes(before).front().id;
    if (!interleave_memory({node})) {
      GTEST_SKIP() << "this system does not let a process choose where its memory lies";
    }
    int policy = -1;
    ASSERT_EQ(syscall(SYS_get_mempolicy, &policy, nullptr, 0, nullptr, 0), 0);
    EXPECT_EQ(policy, MPOL_INTERLEAVE);
  }).join();
}

}  // namespace
}  // namespace sextant
