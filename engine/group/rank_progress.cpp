#include "engine/group/rank_progress.h"

#include <algorithm>
#include <cstdio>
#include <map>

#include "engine/group/bytes.h"

namespace sextant {
namespace {

bool waits(const RankProgress& rank) { return rank.inside_ms >= 0 && !rank.silent; }

std::string list(const std::vector<std::string>& names) {
  std::string text;
  for (size_t i = 0; i < names.size(); ++i) text += (i == 0 ? "" : i + 1 == names.size() ? " and " : ", ") + names[i];
  return text;
}

}  // namespace

std::string serialize_progress(const std::vector<RankProgress>& ranks) {
  ByteWriter out;
  out.write(ranks.size());
  for (const RankProgress& rank : ranks) {
    out.write(rank.rank);
    out.write(rank.node);
    out.write(rank.steps_begun);
    out.write(rank.steps_done);
    out.write(rank.num_calls);
    out.write(rank.inside_ms);
    out.write(std::string_view(rank.call));
    out.write_list(rank.waits_for);
    out.write(rank.step_ms);
  }
  return out.take();
}

Result<std::vector<RankProgress>> parse_progress(std::string_view bytes) {
  ByteReader in(bytes);
  std::vector<RankProgress> ranks(in.read_count(12));
  for (RankProgress& rank : ranks) {
    rank.rank = in.read<int32_t>();
    rank.node = in.read<int32_t>();
    rank.steps_begun = in.read<uint64_t>();
    rank.steps_done = in.read<uint64_t>();
    rank.num_calls = in.read<uint64_t>();
    rank.inside_ms = in.read<int64_t>();
    rank.call = in.read_text();
    rank.waits_for = in.read_list<int32_t>();
    rank.step_ms = in.read_float();
  }
  if (!in.at_end()) return data_loss("a heartbeat is damaged");
  return ranks;
}

int64_t longest_inside_ms(const std::vector<RankProgress>& ranks) {
  int64_t longest = -1;
  for (const RankProgress& rank : ranks) {
    if (waits(rank)) longest = std::max(longest, rank.inside_ms);
  }
  return longest;
}

std::vector<int32_t> missing_ranks(const std::vector<RankProgress>& ranks) {
  std::vector<int32_t> missing;
  for (const RankProgress& candidate : ranks) {
    if (waits(candidate)) continue;
    const bool wanted = std::ranges::any_of(ranks, [&](const RankProgress& waiting) {
      return waits(waiting) && std::ranges::find(waiting.waits_for, candidate.rank) != waiting.waits_for.end();
    });
    if (wanted) missing.push_back(candidate.rank);
  }
  std::ranges::sort(missing);
  return missing;
}

std::vector<int64_t> lag_ms(const std::vector<RankProgress>& ranks) {
  std::vector<int64_t> lags;
  for (const RankProgress& candidate : ranks) {
    int64_t lag = 0;
    for (const RankProgress& waiting : ranks) {
      const bool wanted = std::ranges::find(waiting.waits_for, candidate.rank) != waiting.waits_for.end();
      if (waits(waiting) && !waits(candidate) && wanted) lag = std::max(lag, waiting.inside_ms);
      if (candidate.silent && waiting.steps_begun > candidate.steps_done) lag = std::max(lag, candidate.silent_ms);
    }
    lags.push_back(lag);
  }
  return lags;
}

std::string describe_stuck(const std::vector<RankProgress>& ranks) {
  const std::vector<int32_t> missing = missing_ranks(ranks);
  std::vector<std::string> absent;
  std::vector<std::string> waiting;
  for (const RankProgress& rank : ranks) {
    const std::string name = "rank " + std::to_string(rank.rank) + " (node " + std::to_string(rank.node) + ")";
    if (std::ranges::binary_search(missing, rank.rank)) absent.push_back(name);
    if (!waits(rank)) continue;
    char seconds[32];
    std::snprintf(seconds, sizeof seconds, "%.1f s", static_cast<double>(rank.inside_ms) * 1e-3);
    waiting.push_back(name + " has been in " + rank.call + " for " + seconds);
  }
  if (absent.empty()) return "ranks wait for one another: " + list(waiting);
  return list(absent) + " did not arrive: " + list(waiting);
}

}  // namespace sextant
