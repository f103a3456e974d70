// SeedSource: seeds for requests that give none: unpredictable at start, then never the same twice. Any
// thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <random>

namespace sextant::openai {

class SeedSource {
 public:
  SeedSource() : counter_(random_64_bits()) {}

  uint64_t next() {
    // SplitMix64 (Steele, Lea, Flood 2014): a bijection of the counter, so seeds repeat only after 2^64.
    uint64_t z = counter_.fetch_add(0x9E3779B97F4A7C15u, std::memory_order_relaxed) + 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
  }

 private:
  static uint64_t random_64_bits() {
    std::random_device device;
    return (static_cast<uint64_t>(device()) << 32) | device();
  }

  std::atomic<uint64_t> counter_;
};

}  // namespace sextant::openai
