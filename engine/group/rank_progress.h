// RankProgress: how far each rank of a group is, as its node last said; and who holds the others up. Pure: no clock, no
// threads. World ranks throughout: stage * tensor_parallel_size + tensor-parallel rank.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/result.h"

namespace sextant {

struct RankProgress {
  int32_t rank = 0;
  int32_t node = 0;
  uint64_t steps_begun = 0;
  uint64_t steps_done = 0;
  uint64_t num_calls = 0;          // collectives, sends and receives that it has entered
  int64_t inside_ms = -1;          // for so long it has been inside one; -1: in none
  std::string call;                // which: "all_reduce of 576 float32"
  std::vector<int32_t> waits_for;  // the ranks that this call needs
  float step_ms = 0;               // a step's time outside of calls, smoothed
  bool silent = false;             // its node has not been heard of in time,
  int64_t silent_ms = 0;           // for so long
};

// How a rank does, for metrics.
struct RankReading {
  int32_t rank = 0;
  int32_t node = 0;
  double step_s = 0;             // a step's time outside of collectives, smoothed
  double lag_s = 0;              // for so long others have been waiting for it now
  double waited_for_s = 0;       // total since start, sampled at each heartbeat
  double heartbeat_age_s = 0;    // since its node was last heard of; 0 on the leader's own
  uint64_t num_steps = 0;        // done
  uint64_t num_collectives = 0;  // collectives, sends and receives that it has entered
};

std::string serialize_progress(const std::vector<RankProgress>& ranks);
Result<std::vector<RankProgress>> parse_progress(std::string_view bytes);

// The longest that any rank has been inside a call, in ms; -1 when none is in one.
int64_t longest_inside_ms(const std::vector<RankProgress>& ranks);

// Ranks that others wait for and that are in no call themselves, or silent; ascending. Empty while nobody waits, and when all
// wait for one another (calls in different orders).
std::vector<int32_t> missing_ranks(const std::vector<RankProgress>& ranks);

// By rank: for how long others have been waiting for it now, in ms; 0 when nobody is. A silent one holds up who has begun more
// steps than it has done, whether or not somebody waits inside a call.
std::vector<int64_t> lag_ms(const std::vector<RankProgress>& ranks);

// "rank 1 (node 1) did not arrive: rank 0 has been in all_reduce of 576 float32 for 5.0 s", for people.
std::string describe_stuck(const std::vector<RankProgress>& ranks);

}  // namespace sextant
