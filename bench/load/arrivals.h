// Arrivals: when requests are sent in an open loop. A rate over time and the burstiness of the gaps give the times; the same
// seed gives the same times. Pure.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/result.h"

namespace sextant::bench {

enum class LoadKind { kConstant, kPoisson, kGamma, kConcurrency, kAllAtOnce, kRamp, kStages, kTrace, kDiurnal };

const char* load_name(LoadKind kind);  // "constant", "all_at_once"... as in a record
Result<LoadKind> parse_load(std::string_view name);

// The rate goes in straight lines from point to point; where two points share a time it jumps. Constant behind the last one.
struct RatePoint {
  double time_s = 0;
  double requests_per_s = 0;
};
using RateCurve = std::vector<RatePoint>;

RateCurve constant_rate(double requests_per_s);
// From `begin` to `end` in `duration_s`, in a straight line or by a constant factor per second.
RateCurve ramp_rate(double begin, double end, double duration_s, bool exponential);
// "2:30,4:30s,8:1m": 2 requests/s for 30 s, then 4...
Result<RateCurve> parse_stages(std::string_view text);
// A day of hourly multipliers compressed into `day_s`, `mean` requests/s on average. Empty `hours`: a built-in weekday.
Result<RateCurve> daily_rate(double mean, const std::vector<double>& hours, double day_s);

double curve_end_s(const RateCurve& curve);                        // of the last point
double expected_arrivals(const RateCurve& curve, double until_s);  // the integral of the rate

struct ArrivalSpec {
  RateCurve rate;
  // Shape of the gamma distribution of gaps, as vLLM's --burstiness: 1 Poisson, infinity constant, less than 1 bursty. The
  // coefficient of variation is 1 / sqrt(burstiness).
  double burstiness = 1;
  uint64_t seed = 0;
};

// Times in nanoseconds from the begin, ascending: the first `max_requests` of them, and none later than `max_time_s`.
// Gaps of mean 1 are drawn and laid out along the integral of the rate, so every shape keeps its burstiness.
std::vector<int64_t> arrival_times(const ArrivalSpec& spec, size_t max_requests, double max_time_s);

}  // namespace sextant::bench
