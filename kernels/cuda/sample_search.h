// The search for a threshold among a row's values, by one block: the largest key t for which the values of key >= t
// have at least a wanted weight: their number, or their mass. Keys are 32-bit numbers that a function gives to values.
// A round counts values by the top 11 bits of (key - low) into shared memory, scans the bins from above and goes on
// inside the bin where the weight is reached: three rounds for 32 bits. As soon as no more values than the list holds
// lie at or above that bin, they are gathered into shared memory, and rounds stop reading the row. Device code of
// sample.cu and logprobs.cu.
#pragma once

#include "kernels/cuda/sample_row.h"

namespace sextant::kernels::cuda {

inline constexpr int kBinBits = 11;
inline constexpr int kBins = 1 << kBinBits;

template <bool kHasMass, bool kHasPlace, int kCapacityOfList>
struct SearchMemory {
  static constexpr bool kByMass = kHasMass;
  static constexpr bool kKeepsPlace = kHasPlace;
  static constexpr uint32_t kCapacity = kCapacityOfList;
  uint32_t count[kBins];
  uint32_t mass_low[kHasMass ? kBins : 1];  // a 64-bit sum in two words: the shared memory has no 64-bit adder
  uint32_t mass_high[kHasMass ? kBins : 1];
  float value[kCapacityOfList];
  int32_t place[kHasPlace ? kCapacityOfList : 1];
  uint32_t num_values;
  uint64_t weight_of_warp[kRowWarps];
  uint32_t count_of_warp[kRowWarps];
  // Where the last round ended.
  uint64_t weight_above;
  uint32_t low;
  uint32_t count_above;
  uint32_t count_from;  // values with key >= low
};

// How a value takes part in a search.
struct SearchValue {
  bool counts;
  uint32_t key;
  float probability;  // for searches by mass
};

template <bool kByMass, typename Memory>
__device__ __forceinline__ void add_to_bin(Memory& memory, uint32_t bin, float probability) {
  atomicAdd(&memory.count[bin], 1u);
  if constexpr (kByMass) {
    const uint64_t mass = mass_of(probability);
    const auto low = static_cast<uint32_t>(mass);
    // The word wraps once for each sum that passes 2^32: whoever made it wrap carries.
    const uint32_t before = atomicAdd(&memory.mass_low[bin], low);
    const uint32_t high = static_cast<uint32_t>(mass >> 32) + (before + low < low ? 1u : 0u);
    if (high != 0) atomicAdd(&memory.mass_high[bin], high);
  }
}
template <bool kByMass, typename Memory>
__device__ __forceinline__ uint64_t weight_of_bin(const Memory& memory, int bin) {
  if constexpr (kByMass) return (uint64_t{memory.mass_high[bin]} << 32) + memory.mass_low[bin];
  return memory.count[bin];
}

// body(place, value) over the row, or over the list once it holds what matters.
template <typename Memory, typename Body>
__device__ __forceinline__ void for_each_value(const Memory& memory, const RowView& row, bool listed, Body&& body) {
  if (!listed) {
    for_each_of_run(row, body);
    return;
  }
  for (uint32_t i = threadIdx.x; i < memory.num_values; i += kRowThreads) {
    body(Memory::kKeepsPlace ? memory.place[i] : 0, memory.value[i]);
  }
}

// Puts all values of key >= low into the list. The caller knows that they fit.
template <typename Memory, typename ValueOf>
__device__ __forceinline__ void gather_values(Memory& memory, const RowView& row, uint32_t low, ValueOf&& value_of) {
  if (threadIdx.x == 0) memory.num_values = 0;
  __syncthreads();
  for_each_of_run(row, [&](int32_t i, float x) {
    const SearchValue v = value_of(i, x);
    if (!v.counts || v.key < low) return;
    const uint32_t slot = atomicAdd(&memory.num_values, 1u);
    memory.value[slot] = x;
    if constexpr (Memory::kKeepsPlace) memory.place[slot] = i;
  });
  __syncthreads();
}

struct Found {
  bool found;  // false: all values together do not have the wanted weight
  uint32_t key;
  uint32_t count_above;  // values with a larger key
  uint32_t count_from;   // and with this one
};

// Every thread of the block calls and gets the result. value_of(place, value) -> SearchValue; wanted_of(weight of all
// values with keys in [low, high]) -> the wanted weight, at least 1. `listed`: the list holds every value that matters;
// set when it comes to.
template <bool kByMass, typename Memory, typename ValueOf, typename WantedOf>
__device__ __forceinline__ Found search(Memory& memory, const RowView& row, bool& listed, uint32_t low, uint32_t high,
                                        ValueOf value_of, WantedOf wanted_of) {
  constexpr int kBinsPerThread = kBins / kRowThreads;
  const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32);
  uint64_t wanted = 0, weight_above = 0;  // above: of keys > high
  uint32_t count_above = 0;
  while (true) {
    const int bits = 32 - __clz(static_cast<int>(high - low));
    const int shift = bits > kBinBits ? bits - kBinBits : 0;
    for (int b = static_cast<int>(threadIdx.x); b < kBins; b += kRowThreads) {
      memory.count[b] = 0;
      if constexpr (kByMass) memory.mass_low[b] = memory.mass_high[b] = 0;
    }
    __syncthreads();
    for_each_value(memory, row, listed, [&](int32_t place, float x) {
      const SearchValue v = value_of(place, x);
      if (v.counts && v.key >= low && v.key <= high) add_to_bin<kByMass>(memory, (v.key - low) >> shift, v.probability);
    });
    __syncthreads();

    // What lies in the bins of the threads above this one, and in all.
    const int first_bin = static_cast<int>(threadIdx.x) * kBinsPerThread;
    uint64_t weight = 0;
    uint32_t count = 0;
    for (int b = 0; b < kBinsPerThread; ++b) {
      weight += weight_of_bin<kByMass>(memory, first_bin + b);
      count += memory.count[first_bin + b];
    }
    const uint64_t own_weight = weight;
    const uint32_t own_count = count;
    for (int distance = 1; distance < 32; distance *= 2) {
      const uint64_t more_weight = __shfl_down_sync(kFullWarp, weight, distance);
      const uint32_t more_count = __shfl_down_sync(kFullWarp, count, distance);
      if (lane + distance < 32) {
        weight += more_weight;
        count += more_count;
      }
    }
    if (lane == 0) {
      memory.weight_of_warp[warp] = weight;
      memory.count_of_warp[warp] = count;
    }
    __syncthreads();
    uint64_t total = 0;
    for (int w = num_row_warps() - 1; w >= 0; --w) {
      if (w == warp) {
        weight += total;
        count += count_above;
      }
      total += memory.weight_of_warp[w];
      count_above += memory.count_of_warp[w];
    }
    if (wanted == 0) {
      wanted = wanted_of(total);
      if (total < wanted) return {false, 0, 0, 0};
    }
    // Exactly one thread's bins hold the key.
    uint64_t reached = weight_above + weight - own_weight;
    uint32_t passed = count - own_count;
    if (reached < wanted && wanted <= reached + own_weight) {
      int b = first_bin + kBinsPerThread - 1;
      while (reached + weight_of_bin<kByMass>(memory, b) < wanted) {
        reached += weight_of_bin<kByMass>(memory, b);
        passed += memory.count[b];
        --b;
      }
      memory.weight_above = reached;
      memory.count_above = passed;
      memory.count_from = passed + memory.count[b];
      memory.low = low + (static_cast<uint32_t>(b) << shift);
    }
    __syncthreads();
    weight_above = memory.weight_above;
    count_above = memory.count_above;
    low = memory.low;
    if (shift == 0) return {true, low, count_above, memory.count_from};
    high = min(high, low + ((1u << shift) - 1));
    if (!listed && memory.count_from <= Memory::kCapacity) {
      gather_values(memory, row, low, value_of);
      listed = true;
    }
  }
}

// Values by their distance from the largest, in steps of 1/64 up to 32: one round tells where a count is reached.
struct ByDistance {
  float largest;
  __device__ __forceinline__ SearchValue operator()(int32_t, float x) const {
    const float distance = largest - x;
    if (!(distance < 32.0f)) return {false, 0, 0.0f};
    return {true, static_cast<uint32_t>(kBins - 1) - static_cast<uint32_t>(distance * 64.0f), 0.0f};
  }
};
struct ByOrder {
  __device__ __forceinline__ SearchValue operator()(int32_t, float x) const { return {true, order_key(x), 0.0f}; }
};

// The order_key of the k-th largest value, 1 <= k <= the row's size; afterwards the list may hold all values from it on
// up.
template <typename Memory>
__device__ __forceinline__ Found kth_largest(Memory& memory, const RowView& row, bool& listed, float largest,
                                             uint64_t k) {
  const auto wanted = [k](uint64_t) { return k; };
  const ByDistance by_distance{largest};
  const Found near = search<false>(memory, row, listed, 0u, static_cast<uint32_t>(kBins - 1), by_distance, wanted);
  if (near.found && near.count_from <= Memory::kCapacity) {
    gather_values(memory, row, near.key, by_distance);
    listed = true;
  }
  return search<false>(memory, row, listed, 0u, order_key(largest), ByOrder{}, wanted);
}

}  // namespace sextant::kernels::cuda
