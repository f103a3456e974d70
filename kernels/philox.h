// Philox4x32-10, the counter-based generator of every random choice, on every backend
// (Salmon, Moraes, Dror, Shaw: "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011).
// Formula: ten rounds of (hi, lo products, key xor) over a 128-bit counter and a 64-bit key. No state: equal key and counter
// give equal numbers whatever else runs. Plain arithmetic, so that CUDA sources can include it.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#define SEXTANT_HOST_DEVICE __host__ __device__
#else
#define SEXTANT_HOST_DEVICE
#endif

namespace sextant::kernels {

struct PhiloxBlock {
  uint32_t words[4];
};

SEXTANT_HOST_DEVICE constexpr PhiloxBlock philox4x32_10(uint64_t key, uint64_t counter_low, uint64_t counter_high) {
  uint32_t k0 = static_cast<uint32_t>(key);
  uint32_t k1 = static_cast<uint32_t>(key >> 32);
  uint32_t c0 = static_cast<uint32_t>(counter_low);
  uint32_t c1 = static_cast<uint32_t>(counter_low >> 32);
  uint32_t c2 = static_cast<uint32_t>(counter_high);
  uint32_t c3 = static_cast<uint32_t>(counter_high >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = uint64_t{0xD2511F53u} * c0;
    const uint64_t product1 = uint64_t{0xCD9E8D57u} * c2;
    const uint32_t next0 = static_cast<uint32_t>(product1 >> 32) ^ c1 ^ k0;
    const uint32_t next2 = static_cast<uint32_t>(product0 >> 32) ^ c3 ^ k1;
    c1 = static_cast<uint32_t>(product1);
    c3 = static_cast<uint32_t>(product0);
    c0 = next0;
    c2 = next2;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

// Uniform in [0, 1) with 53 bits: the draw for output token `output_idx` of choice `choice_idx` under `seed`.
SEXTANT_HOST_DEVICE constexpr double philox_uniform(uint64_t seed, uint32_t choice_idx, uint64_t output_idx) {
  const PhiloxBlock block = philox4x32_10(seed, output_idx, choice_idx);
  const uint64_t bits = (static_cast<uint64_t>(block.words[0]) << 32) | block.words[1];
  return static_cast<double>(bits >> 11) * 0x1.0p-53;
}

}  // namespace sextant::kernels
