// LengthSpec: how long prompts and answers are, in tokens: one number, or a distribution. Pure.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "bench/load/random.h"
#include "engine/base/result.h"

namespace sextant::bench {

struct LengthSpec {
  enum class Kind { kFixed, kUniform, kNormal, kLognormal, kEmpirical };
  Kind kind = Kind::kFixed;
  double mean = 1;
  double deviation = 0;  // of the lengths themselves, for the lognormal too
  int64_t min = 1;       // draws outside [min, max] are drawn again, at most 1,000 times
  int64_t max = int64_t{1} << 24;
  std::vector<int64_t> values;  // empirical: one is drawn with replacement

  int64_t draw(Random& random) const;
  std::string text() const;  // for reports: "lognormal(mean 512, sd 256)"
};

// "512", "uniform:256,768", "normal:512,64", "lognormal:512,256" (mean, standard deviation), "empirical:FILE" (whole numbers
// separated by white space or commas). With ",min=16,max=4096" behind them, limits.
Result<LengthSpec> parse_lengths(std::string_view text, const std::string& param);

}  // namespace sextant::bench
