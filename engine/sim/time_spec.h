// TimeSpec: what `--time` says, as text: KIND[:key=value,...].
//   constant:ttft=200ms,tpot=50ms[,jitter=5%]
//   roofline[:gpu=H100-SXM5-80GB][,compute=60%][,bandwidth=80%][,overhead=1ms][,jitter=5%]
//   record[:file=PATH][,jitter=5%]
// Durations carry a unit: ns, us, ms, s; 0 needs none. Pure.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "engine/base/result.h"
#include "engine/sim/sim_device.h"

namespace sextant::sim {

struct TimeSpec {
  enum class Kind { kConstant, kRoofline, kRecord };
  Kind kind = Kind::kConstant;
  ConstantTimes constant;           // kConstant
  std::string gpu;                  // kRoofline; empty: said elsewhere
  double compute_share = 1;         // of the device's peak FLOP/s that is reached
  double bandwidth_share = 1;       // of its memory bandwidth
  double overhead_s = 0;            // of every step
  std::string file;                 // kRecord; empty: said elsewhere
  std::optional<double> jitter_cv;  // nothing: 0, and for kRecord what was measured
};

// kInvalidArgument in one line that names the part at fault and an example.
Result<TimeSpec> parse_time_spec(std::string_view text);

// "200ms" -> 0.2; nothing when it is no duration.
std::optional<double> parse_duration_s(std::string_view text);

}  // namespace sextant::sim
