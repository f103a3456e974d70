#include "kernels/cuda/logprobs.h"

#include "kernels/cuda/launch.h"
#include "kernels/cuda/ptx.h"
#include "kernels/cuda/sample_search.h"

namespace sextant::kernels::cuda {
namespace {

using Memory = SearchMemory<false, true, 2048>;

__device__ __forceinline__ float number(float x) { return x > -INFINITY ? x : -INFINITY; }  // NaN counts as -infinity

// Places of values with one key, the lower place with the larger key.
struct ByPlace {
  uint32_t key;
  uint32_t size;
  __device__ __forceinline__ SearchValue operator()(int32_t place, float x) const {
    return {order_key(x) == key, size - 1 - static_cast<uint32_t>(place), 0.0f};
  }
};

struct Top {
  int32_t id[kMaxTopLogprobs];
  float value[kMaxTopLogprobs];
  uint32_t count;
};

// The `wanted` best of the row into `top`, in no order.
__device__ __forceinline__ void find_top(const RowView& row, float largest, uint32_t wanted, Memory& memory, Top& top) {
  bool listed = false;
  const Found nth = kth_largest(memory, row, listed, largest, wanted);
  // Of the ties at the end, those up to a place.
  uint32_t last_place = static_cast<uint32_t>(row.size) - 1;
  if (nth.count_from > wanted) {
    const uint32_t ties = wanted - nth.count_above;
    const auto size = static_cast<uint32_t>(row.size);
    const Found place = search<false>(memory, row, listed, 0u, size - 1, ByPlace{nth.key, size},
                                      [ties](uint64_t) { return uint64_t{ties}; });
    last_place = size - 1 - place.key;
  }
  if (threadIdx.x == 0) top.count = 0;
  __syncthreads();
  for_each_value(memory, row, listed, [&](int32_t i, float x) {
    const uint32_t key = order_key(x);
    if (key < nth.key || (key == nth.key && static_cast<uint32_t>(i) > last_place)) return;
    const uint32_t slot = atomicAdd(&top.count, 1u);
    top.id[slot] = i;
    top.value[slot] = number(x);
  });
  __syncthreads();
}

__global__ void __launch_bounds__(kRowThreads, 2) logprobs_kernel(LogprobsArgs args) {
  SEXTANT_SHARED(Memory, memory, [1]);
  SEXTANT_SHARED(Top, top, [1]);
  SEXTANT_SHARED(double, log_of_total, [1]);
  grid_dependency_wait();
  const auto r = static_cast<int32_t>(blockIdx.x);
  const int32_t num_top = args.num_top[r * args.num_top_stride];
  if (num_top < 0) return;
  const RowView row{args.logits + r * args.logits_stride, nullptr, args.vocab_size};
  const float chosen = number(row.logits[args.chosen[r]]);
  const float largest = block_largest(row).value;
  uint64_t mass = 0, larger = 0;
  for_each_of_run(row, [&](int32_t, float x) {
    mass += mass_of(number(x) == largest ? 1.0f : exp_of_nonpositive(__fadd_rn(x, -largest)));
    if (x > chosen) ++larger;
  });
  const uint64_t total = block_sum_u64(mass);
  const uint64_t rank = block_sum_u64(larger) + 1;
  if (threadIdx.x == 0) *log_of_total = log(static_cast<double>(total) * 0x1p-45);
  __syncthreads();
  const auto logprob = [&](float x) {
    const double distance = x == largest ? 0.0 : static_cast<double>(x) - static_cast<double>(largest);
    return static_cast<float>(distance - *log_of_total);
  };
  if (threadIdx.x == 0) {
    args.chosen_logprob[r] = logprob(chosen);
    args.rank[r] = static_cast<int32_t>(rank);
  }
  const auto wanted = static_cast<uint32_t>(min(min(num_top, args.max_top), args.vocab_size));
  if (wanted == 0) return;
  find_top(row, largest, wanted, *memory, *top);
  const uint32_t i = threadIdx.x;
  if (i >= wanted) return;
  const uint32_t key = order_key(top->value[i]);
  uint32_t place = 0;
  for (uint32_t j = 0; j < wanted; ++j) {
    const uint32_t other = order_key(top->value[j]);
    if (other > key || (other == key && top->id[j] < top->id[i])) ++place;
  }
  args.top_ids[int64_t{r} * args.max_top + place] = top->id[i];
  args.top_logprobs[int64_t{r} * args.max_top + place] = logprob(top->value[i]);
}

}  // namespace

int token_logprobs(const LogprobsArgs& args, Stream stream) {
  if (args.num_rows == 0) return cudaSuccess;
  if (args.num_rows < 0 || args.vocab_size < 1 || args.vocab_size > (1 << 18)) return cudaErrorInvalidValue;
  if (args.logits_stride < args.vocab_size || args.num_top_stride < 1) return cudaErrorInvalidValue;
  if (args.max_top < 0 || args.max_top > kMaxTopLogprobs) return cudaErrorInvalidValue;
  const LaunchShape shape{
      .grid = dim3(static_cast<unsigned>(args.num_rows)), .block = dim3(kRowThreads), .overlaps_previous = true};
  return launch(shape, stream, logprobs_kernel, args);
}

}  // namespace sextant::kernels::cuda
