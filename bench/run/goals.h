// Goals: limits on latencies, per request (goodput) or on a statistic of the run (SLO). Pure.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/result.h"

namespace sextant::bench {

enum class Latency { kTtft, kTpot, kItl, kE2e };

const char* latency_name(Latency latency);  // "ttft"...

struct RequestLimit {
  Latency latency = Latency::kTtft;
  double limit_ms = 0;
};

struct RunGoal {
  Latency latency = Latency::kTtft;
  std::optional<double> quantile;  // absent: the mean
  double limit_ms = 0;
  std::string text() const;  // "ttft:p95<300ms"
};

// "ttft:300 tpot:50", as vLLM's --goodput: milliseconds that each request keeps. Not itl.
Result<std::vector<RequestLimit>> parse_goodput(std::string_view text);
// "ttft:p95<300ms tpot:p95<50ms e2e:mean<2s".
Result<std::vector<RunGoal>> parse_slo(std::string_view text);

}  // namespace sextant::bench
