// Random: a stream of random numbers that is the same on every machine for the same seed (the standard library's
// distributions are not). xoshiro256** (Blackman, Vigna 2018) seeded by splitmix64. One thread.
#pragma once

#include <cstdint>

namespace sextant::bench {

class Random {
 public:
  // Streams of one seed are independent: 0 arrivals, 1 lengths, ...
  explicit Random(uint64_t seed, uint64_t stream = 0);

  uint64_t next();
  double uniform();                // [0, 1)
  uint64_t below(uint64_t bound);  // 0..bound-1, without bias; bound > 0
  double normal();                 // mean 0, deviation 1 (polar method)
  double exponential();            // mean 1
  double gamma(double shape);      // scale 1: mean `shape` (Marsaglia, Tsang 2000); shape > 0

 private:
  uint64_t state_[4];
  double spare_normal_ = 0;
  bool has_spare_ = false;
};

}  // namespace sextant::bench
