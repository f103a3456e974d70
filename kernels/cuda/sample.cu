#include "kernels/cuda/sample.h"

#include "kernels/cuda/launch.h"
#include "kernels/cuda/ptx.h"
#include "kernels/cuda/sample_search.h"
#include "kernels/philox.h"

namespace sextant::kernels::cuda {
namespace {

using Memory = SearchMemory<true, false, 4096>;

// --- edits: applied for the call, taken back at its end --------------------------------------------------------------

struct SavedLogits {
  float* biases;
  float* counts;
  float* masked;
  float* previous;  // of this row
};
__device__ __forceinline__ SavedLogits saved_logits(const SampleArgs& args, int32_t row) {
  float* biases = args.saved + args.num_rows;
  return {biases, biases + args.num_biases, biases + args.num_biases + args.num_counts, args.saved + row};
}

__device__ __forceinline__ bool has_penalties(const SampleRow& row) {
  return row.repetition_penalty != 1.0f || row.presence_penalty != 0.0f || row.frequency_penalty != 0.0f;
}
__device__ __forceinline__ int32_t previous_token(const SampleArgs& args, const SampleRow& row) {
  return row.previous_row < 0 ? -1 : args.previous_tokens[row.previous_row];
}

// Separate roundings: a fused multiply-add would not give the host's bits.
__device__ __forceinline__ float penalised(const SampleRow& row, float x, int32_t output_count) {
  if (row.repetition_penalty != 1.0f) {
    x = x > 0.0f ? x / row.repetition_penalty : __fmul_rn(x, row.repetition_penalty);
  }
  if (output_count == 0) return x;
  const float less =
      __fadd_rn(__fmul_rn(row.frequency_penalty, static_cast<float>(output_count)), row.presence_penalty);
  return __fadd_rn(x, -less);
}

__device__ __forceinline__ void apply_edits(const SampleArgs& args, const SampleRow& row, const SavedLogits& saved,
                                            float* logits) {
  SEXTANT_SHARED(int32_t, previous_is_counted, [1]);
  const auto thread = static_cast<int32_t>(threadIdx.x);
  if (row.biases.count > 0) {
    for (int32_t i = row.biases.begin + thread; i < row.biases.begin + row.biases.count; i += kRowThreads) {
      float& x = logits[args.biases[i].token_id];
      saved.biases[i] = x;
      x = __fadd_rn(x, args.biases[i].bias);
    }
    __syncthreads();
  }
  if (has_penalties(row)) {
    const int32_t previous = previous_token(args, row);
    if (thread == 0) *previous_is_counted = 0;
    __syncthreads();
    for (int32_t i = row.counts.begin + thread; i < row.counts.begin + row.counts.count; i += kRowThreads) {
      const TokenCount entry = args.counts[i];
      const bool once_more = entry.token_id == previous;
      if (once_more) *previous_is_counted = 1;
      float& x = logits[entry.token_id];
      saved.counts[i] = x;
      if (once_more || entry.output_count > 0 || entry.in_prompt != 0) {
        x = penalised(row, x, entry.output_count + (once_more ? 1 : 0));
      }
    }
    __syncthreads();
    if (thread == 0 && previous >= 0 && *previous_is_counted == 0) {
      float& x = logits[previous];
      *saved.previous = x;
      x = penalised(row, x, 1);
    }
    __syncthreads();
  }
  if (row.masked.count > 0) {
    for (int32_t i = row.masked.begin + thread; i < row.masked.begin + row.masked.count; i += kRowThreads) {
      saved.masked[i] = atomicExch(&logits[args.masked_ids[i]], -INFINITY);  // an id named twice is saved once
    }
    __syncthreads();
  }
}

__device__ __forceinline__ void take_back_edits(const SampleArgs& args, const SampleRow& row, const SavedLogits& saved,
                                                float* logits) {
  const auto thread = static_cast<int32_t>(threadIdx.x);  // choose() ends with a barrier after its last look at the row
  if (row.masked.count > 0) {
    for (int32_t i = row.masked.begin + thread; i < row.masked.begin + row.masked.count; i += kRowThreads) {
      if (saved.masked[i] != -INFINITY) logits[args.masked_ids[i]] = saved.masked[i];
    }
    __syncthreads();
  }
  if (has_penalties(row)) {
    const int32_t previous = previous_token(args, row);
    SEXTANT_SHARED(int32_t, previous_is_counted, [1]);
    if (thread == 0) *previous_is_counted = 0;
    __syncthreads();
    for (int32_t i = row.counts.begin + thread; i < row.counts.begin + row.counts.count; i += kRowThreads) {
      if (args.counts[i].token_id == previous) *previous_is_counted = 1;
      logits[args.counts[i].token_id] = saved.counts[i];
    }
    __syncthreads();
    if (thread == 0 && previous >= 0 && *previous_is_counted == 0) logits[previous] = *saved.previous;
    __syncthreads();
  }
  for (int32_t i = row.biases.begin + thread; i < row.biases.begin + row.biases.count; i += kRowThreads) {
    logits[args.biases[i].token_id] = saved.biases[i];
  }
}

// --- one draw --------------------------------------------------------------------------------------------------------

// What is left of a row by the cuts so far; a probability of 0 is cut.
struct Kept {
  float largest;
  float inverse_temperature;
  uint32_t least_key;
  float least_probability;

  __device__ __forceinline__ float probability(float x) const {
    if (!(x > -INFINITY) || order_key(x) < least_key) return 0.0f;
    if (x == largest) return 1.0f;  // also where the inverse of a tiny temperature is infinite
    const float p = exp_of_nonpositive(__fmul_rn(__fadd_rn(x, -largest), inverse_temperature));
    return p < least_probability ? 0.0f : p;
  }
};

// By the bits of the probability, counted from the least that has a mass.
struct ByProbability {
  Kept kept;
  static __device__ __forceinline__ uint32_t lowest() { return __float_as_uint(kLeastMass); }
  __device__ __forceinline__ SearchValue operator()(int32_t, float x) const {
    const float p = kept.probability(x);
    return {p >= kLeastMass, __float_as_uint(p) - lowest(), p};
  }
};

__device__ __forceinline__ uint64_t share(double fraction, uint64_t total) {
  return static_cast<uint64_t>(fraction * static_cast<double>(total));
}

// The place of the first value whose cumulated mass exceeds uniform * (mass of all), in every thread.
__device__ __forceinline__ int32_t draw(const RowView& row, const Kept& kept, double uniform) {
  SEXTANT_SHARED(uint64_t, mass_of_warp, [kRowWarps]);
  SEXTANT_SHARED(int32_t, drawn, [1]);
  const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32);
  uint64_t mass = 0;
  for_each_of_run(row, [&](int32_t, float x) { mass += mass_of(kept.probability(x)); });
  for (int distance = 16; distance > 0; distance /= 2) mass += __shfl_xor_sync(kFullWarp, mass, distance);
  if (lane == 0) mass_of_warp[warp] = mass;
  __syncthreads();
  uint64_t total = 0;
  for (int w = 0; w < num_row_warps(); ++w) total += mass_of_warp[w];
  uint64_t target = share(uniform, total);
  if (target >= total) target = total - 1;
  int run = 0;
  while (target >= mass_of_warp[run]) target -= mass_of_warp[run++];

  // Within that run: a piece of consecutive values per thread.
  const int32_t begin = min(run * row.run_length(), row.size), end = min(begin + row.run_length(), row.size);
  const int32_t per_thread = (end - begin + kRowThreads - 1) / kRowThreads;
  const int32_t first = min(begin + static_cast<int32_t>(threadIdx.x) * per_thread, end);
  const int32_t last = min(first + per_thread, end);
  uint64_t own = 0;
  for (int32_t i = first; i < last; ++i) own += mass_of(kept.probability(row.value(i)));
  uint64_t up_to = own;
  for (int distance = 1; distance < 32; distance *= 2) {
    const uint64_t below = __shfl_up_sync(kFullWarp, up_to, distance);
    if (lane >= distance) up_to += below;
  }
  __syncthreads();  // mass_of_warp has been read
  if (lane == 31) mass_of_warp[warp] = up_to;
  __syncthreads();
  for (int w = 0; w < warp; ++w) up_to += mass_of_warp[w];
  if (target < up_to && target >= up_to - own) {
    uint64_t reached = up_to - own;
    int32_t i = first;
    while (reached + mass_of(kept.probability(row.value(i))) <= target) {
      reached += mass_of(kept.probability(row.value(i)));
      ++i;
    }
    *drawn = i;
  }
  __syncthreads();
  return *drawn;
}

__device__ __forceinline__ int32_t choose(const RowView& view, const SampleRow& row, Memory& memory) {
  const Largest largest = block_largest(view);
  if (!(largest.value > -INFINITY)) return 0;
  if (row.temperature == 0.0f || largest.value == INFINITY) return view.id(largest.at);
  Kept kept{largest.value, 1.0f / row.temperature, 0, row.min_p};
  bool listed = false;
  if (row.top_k > 0 && row.top_k < view.size) {
    kept.least_key = kth_largest(memory, view, listed, largest.value, static_cast<uint64_t>(row.top_k)).key;
  }
  if (row.top_p < 1.0f) {
    const double top_p = row.top_p;
    const auto wanted = [top_p](uint64_t total) {
      uint64_t mass = share(top_p, total);
      if (static_cast<double>(mass) < top_p * static_cast<double>(total)) ++mass;
      return mass < 1 ? uint64_t{1} : mass > total ? total : mass;
    };
    const uint32_t lowest = ByProbability::lowest();
    const Found found =
        search<true>(memory, view, listed, 0u, __float_as_uint(1.0f) - lowest, ByProbability{kept}, wanted);
    kept.least_probability = __uint_as_float(found.key + lowest);
  }
  return view.id(draw(view, kept, philox_uniform(row.seed, row.choice_idx, row.output_idx)));
}

__global__ void __launch_bounds__(kRowThreads, 2) sample_kernel(SampleArgs args) {
  SEXTANT_SHARED(Memory, memory, [1]);
  grid_dependency_wait();
  const auto r = static_cast<int32_t>(blockIdx.x);
  const SampleRow& row = args.rows[r];  // read where needed: a copy would hold 22 registers
  float* logits = args.logits + r * args.logits_stride;
  const SavedLogits saved = saved_logits(args, r);
  apply_edits(args, row, saved, logits);
  const bool all = row.allowed.count == 0;
  const RowView view{logits, all ? nullptr : args.allowed_ids + row.allowed.begin,
                     all ? args.vocab_size : row.allowed.count};
  const int32_t token = choose(view, row, *memory);
  grid_dependency_launch();
  if (threadIdx.x == 0) args.tokens[r] = token;
  take_back_edits(args, row, saved, logits);
}

}  // namespace

int sample(const SampleArgs& args, Stream stream) {
  if (args.num_rows == 0) return cudaSuccess;
  if (args.num_rows < 0 || args.vocab_size < 1 || args.vocab_size > kMaxSampleVocab) return cudaErrorInvalidValue;
  if (args.logits_stride < args.vocab_size) return cudaErrorInvalidValue;
  if (args.num_biases < 0 || args.num_counts < 0 || args.num_masked < 0) return cudaErrorInvalidValue;
  const LaunchShape shape{
      .grid = dim3(static_cast<unsigned>(args.num_rows)), .block = dim3(kRowThreads), .overlaps_previous = true};
  return launch(shape, stream, sample_kernel, args);
}

}  // namespace sextant::kernels::cuda
