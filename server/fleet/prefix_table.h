// PrefixTable: which members of a pool have lately had which beginnings of prompts: hashes of runs of bytes, each over all that
// came before it, and for each the last few members. Two generations: what is not asked for is forgotten with the older one.
// Not a promise: members evict as they please. One thread at a time.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace sextant::fleet {

using MemberId = uint32_t;  // never 0

class PrefixTable {
 public:
  static constexpr size_t kRunBytes = 128;  // about 32 tokens
  static constexpr size_t kMaxRuns = 1024;
  static constexpr size_t kMembersPerRun = 4;

  explicit PrefixTable(size_t max_runs_per_generation = size_t{1} << 17) : max_runs_(max_runs_per_generation) {}

  // Of the whole runs of `prompt`, at most kMaxRuns.
  static std::vector<uint64_t> hashes_of(std::string_view prompt);
  // Of its first run, or of all when it is shorter: where prompts that nobody has had go together.
  static uint64_t first_hash(std::string_view prompt);

  struct Match {
    MemberId member = 0;
    size_t num_runs = 0;
  };
  // Each member that has had at least the first run, the longest first.
  std::vector<Match> find(const std::vector<uint64_t>& hashes);
  void add(const std::vector<uint64_t>& hashes, MemberId member);
  size_t num_runs() const { return young_.size() + old_.size(); }

 private:
  using Members = std::array<MemberId, kMembersPerRun>;  // the latest first; 0: none
  Members* find_run(uint64_t hash);
  void age();

  const size_t max_runs_;
  std::unordered_map<uint64_t, Members> young_;
  std::unordered_map<uint64_t, Members> old_;
};

}  // namespace sextant::fleet
