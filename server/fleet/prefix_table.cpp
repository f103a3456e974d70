#include "server/fleet/prefix_table.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace sextant::fleet {
namespace {

// Of a chain: the finaliser of MurmurHash3 (Appleby) over words. Clashes cost a wrong guess, nothing more.
uint64_t mixed(uint64_t x) {
  x ^= x >> 33;
  x *= 0xff51afd7ed558ccdULL;
  x ^= x >> 33;
  x *= 0xc4ceb9fe1a85ec53ULL;
  return x ^ (x >> 33);
}

uint64_t hash_of(uint64_t before, std::string_view bytes) {
  uint64_t hash = mixed(before + bytes.size());
  for (size_t i = 0; i < bytes.size(); i += 8) {
    uint64_t word = 0;
    std::memcpy(&word, bytes.data() + i, std::min<size_t>(8, bytes.size() - i));
    hash = mixed(hash ^ word) + 0x9e3779b97f4a7c15ULL;
  }
  return hash;
}

}  // namespace

std::vector<uint64_t> PrefixTable::hashes_of(std::string_view prompt) {
  std::vector<uint64_t> hashes;
  hashes.reserve(std::min(prompt.size() / kRunBytes, kMaxRuns));
  uint64_t hash = 0;
  for (size_t i = 0; i + kRunBytes <= prompt.size() && hashes.size() < kMaxRuns; i += kRunBytes) {
    hash = hash_of(hash, prompt.substr(i, kRunBytes));
    hashes.push_back(hash);
  }
  return hashes;
}

uint64_t PrefixTable::first_hash(std::string_view prompt) { return hash_of(0, prompt.substr(0, kRunBytes)); }

PrefixTable::Members* PrefixTable::find_run(uint64_t hash) {
  if (const auto found = young_.find(hash); found != young_.end()) return &found->second;
  const auto found = old_.find(hash);
  if (found == old_.end()) return nullptr;
  const Members members = found->second;
  old_.erase(found);
  age();
  return &young_.emplace(hash, members).first->second;
}

void PrefixTable::age() {
  if (young_.size() < max_runs_) return;
  old_ = std::exchange(young_, {});
}

std::vector<PrefixTable::Match> PrefixTable::find(const std::vector<uint64_t>& hashes) {
  std::vector<Match> matches;
  for (size_t run = 0; run < hashes.size(); ++run) {
    const Members* members = find_run(hashes[run]);
    if (members == nullptr) break;
    bool any = false;
    for (const MemberId member : *members) {
      if (member == 0) continue;
      const auto known = std::ranges::find(matches, member, &Match::member);
      if (run == 0 && known == matches.end()) matches.push_back({member, 1});
      if (run > 0 && known != matches.end() && known->num_runs == run) known->num_runs = run + 1;
      any = any || run == 0 || (known != matches.end() && known->num_runs == run + 1);
    }
    if (!any) break;
  }
  std::ranges::stable_sort(matches, std::ranges::greater(), &Match::num_runs);
  return matches;
}

void PrefixTable::add(const std::vector<uint64_t>& hashes, MemberId member) {
  for (const uint64_t hash : hashes) {
    Members* members = find_run(hash);
    if (members == nullptr) {
      age();
      members = &young_.emplace(hash, Members{}).first->second;
    }
    const auto end = std::ranges::find(*members, member);
    const auto last = end == members->end() ? members->end() - 1 : end;
    std::move_backward(members->begin(), last, last + 1);
    members->front() = member;
  }
}

}  // namespace sextant::fleet
