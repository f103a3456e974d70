// The seed of a test with random input: SEXTANT_TEST_SEED, else chance. It is in the output, so that whoever sees a test
// fail can repeat it. tests/run.sh sets one seed for all, so that its answer depends on the commit alone; chance is for
// runs by hand and for `tests/run.sh --full`.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <random>

namespace sextant {

inline uint64_t random_seed() {
  const char* given = std::getenv("SEXTANT_TEST_SEED");
  const uint64_t seed = given != nullptr ? std::strtoull(given, nullptr, 10) : std::random_device{}();
  std::cout << "seed " << seed << " (repeat with SEXTANT_TEST_SEED=" << seed << ")\n";
  return seed;
}

}  // namespace sextant
