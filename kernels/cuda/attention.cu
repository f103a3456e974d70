// The launchers' checks, and the merge of partial results. The rest: attention_prefill.cuh, attention_decode.cuh.
#include "kernels/cuda/attention.h"

#include "kernels/cuda/attention_instances.h"
#include "kernels/cuda/element.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/ptx.h"
#include "kernels/cuda/shared_memory.h"

namespace sextant::kernels::cuda {
namespace {

constexpr int kMergeThreads = 128;

// A running merge of partials, of four columns of a row.
struct Merged {
  float largest;
  float weight_sum;
  float4 sum;
};
__device__ __forceinline__ void merge_into(Merged& all, const Merged& part) {
  const float largest = fmaxf(all.largest, part.largest);
  if (largest == -INFINITY) return;  // neither has seen anything
  const float keep = exp2_approx(all.largest - largest);
  const float take = exp2_approx(part.largest - largest);
  all.largest = largest;
  all.weight_sum = all.weight_sum * keep + part.weight_sum * take;
  all.sum.x = all.sum.x * keep + part.sum.x * take;
  all.sum.y = all.sum.y * keep + part.sum.y * take;
  all.sum.z = all.sum.z * keep + part.sum.z * take;
  all.sum.w = all.sum.w * keep + part.sum.w * take;
}

// Threads in groups of head_dim_v / 4; a group takes every num_groups-th partial, then the first merges the groups.
template <typename T>
__global__ void __launch_bounds__(kMergeThreads) attention_merge_kernel(AttentionArgs args) {
  SEXTANT_SHARED(Merged, of_thread, [kMergeThreads]);
  grid_dependency_wait();
  const MergeItem item = args.merges[blockIdx.x];
  if (item.sequence < 0) return;
  const int kv_head = static_cast<int>(blockIdx.y);
  const int row = static_cast<int>(blockIdx.z);
  const int group = args.num_heads / args.layout.num_kv_heads;
  const int first_query = args.cu_seqlens_q[item.sequence];
  const int num_queries = args.cu_seqlens_q[item.sequence + 1] - first_query;
  const int packed = item.row_begin + row;
  if (packed >= num_queries * group) return;

  const int dim = args.layout.head_dim_v;
  const int width = dim / 4;
  const int num_groups = kMergeThreads / width;
  const int thread = static_cast<int>(threadIdx.x);
  const int own_group = thread / width;
  const int column = thread % width * 4;
  Merged merged = {-INFINITY, 0.0f, {0.0f, 0.0f, 0.0f, 0.0f}};
  if (own_group < num_groups) {
    const int64_t of_head = int64_t{kPartialRows} * (dim + 2);
    const int64_t of_partial = of_head * args.layout.num_kv_heads;
    const float* first = args.partials + item.partial_begin * of_partial + kv_head * of_head;
    const int64_t stride = item.partial_stride * of_partial;
    for (int p = own_group; p < item.num_partials; p += num_groups) {
      const float* partial = first + p * stride;
      merge_into(merged, {partial[kPartialRows * dim + row], partial[kPartialRows * (dim + 1) + row],
                          *reinterpret_cast<const float4*>(partial + row * dim + column)});
    }
  }
  of_thread[thread] = merged;
  __syncthreads();
  grid_dependency_launch();
  if (own_group != 0) return;
  for (int g = 1; g < num_groups; ++g) merge_into(merged, of_thread[g * width + thread]);
  const float inverse = merged.weight_sum > 0 ? 1.0f / merged.weight_sum : 0.0f;
  T* out = static_cast<T*>(args.out) + (first_query + packed / group) * args.out_stride +
           int64_t{kv_head * group + packed % group} * dim + column;
  struct alignas(8) {
    T at[4];
  } rounded;
  rounded.at[0] = from_float<T>(merged.sum.x * inverse);
  rounded.at[1] = from_float<T>(merged.sum.y * inverse);
  rounded.at[2] = from_float<T>(merged.sum.z * inverse);
  rounded.at[3] = from_float<T>(merged.sum.w * inverse);
  *reinterpret_cast<decltype(rounded)*>(out) = rounded;
}

bool is_aligned(const void* p) { return p != nullptr && reinterpret_cast<uintptr_t>(p) % 16 == 0; }

// Items without a partial need no memory for partials.
bool partials_are_valid(const AttentionArgs& args) { return args.partials == nullptr || is_aligned(args.partials); }

bool within_limits(const AttentionArgs& args) {
  const KvLayout& layout = args.layout;
  const auto dim_is_valid = [](int32_t dim) { return dim >= 16 && dim <= 256 && dim % 16 == 0; };
  return (args.type == ElementType::kBFloat16 || args.type == ElementType::kFloat16) && layout.num_kv_heads > 0 &&
         layout.num_kv_heads <= 65535 && args.num_heads > 0 && args.num_heads % layout.num_kv_heads == 0 &&
         dim_is_valid(layout.head_dim_qk) && dim_is_valid(layout.head_dim_v) && is_aligned(args.q) &&
         is_aligned(args.keys) && is_aligned(args.values) && is_aligned(args.out) && args.q_stride % 8 == 0 &&
         args.out_stride % 8 == 0 && args.scale > 0 && args.softcap >= 0 && args.window >= 0 && args.window < (1 << 30);
}

}  // namespace

int attention_prefill(const AttentionArgs& args, Stream stream) {
  if (args.num_prefill_items == 0) return cudaSuccess;
  const bool rows_are_valid =
      args.prefill_rows == kPrefillRows || (args.prefill_rows == kPrefillRowsLarge &&
                                            prefill_takes_large_tiles(args.layout.head_dim_qk, args.layout.head_dim_v));
  if (args.num_prefill_items < 0 || !rows_are_valid || !partials_are_valid(args) || !within_limits(args)) {
    return cudaErrorInvalidValue;
  }
  return args.type == ElementType::kBFloat16 ? launch_prefill<bf16>(args, stream) : launch_prefill<fp16>(args, stream);
}

int attention_decode(const AttentionArgs& args, Stream stream) {
  if (args.num_decode_items == 0) return cudaSuccess;
  if (args.num_decode_items < 0 || !partials_are_valid(args) || !within_limits(args)) return cudaErrorInvalidValue;
  return args.type == ElementType::kBFloat16 ? launch_decode<bf16>(args, stream) : launch_decode<fp16>(args, stream);
}

int attention_merge(const AttentionArgs& args, Stream stream) {
  if (args.num_merges == 0) return cudaSuccess;
  if (args.num_merges < 0 || args.merge_rows < 1 || args.merge_rows > kPartialRows || !is_aligned(args.partials) ||
      !within_limits(args)) {
    return cudaErrorInvalidValue;
  }
  const LaunchShape shape{
      .grid = dim3(static_cast<unsigned>(args.num_merges), static_cast<unsigned>(args.layout.num_kv_heads),
                   static_cast<unsigned>(args.merge_rows)),
      .block = dim3(kMergeThreads),
      .overlaps_previous = true};
  return args.type == ElementType::kBFloat16 ? launch(shape, stream, attention_merge_kernel<bf16>, args)
                                             : launch(shape, stream, attention_merge_kernel<fp16>, args);
}

}  // namespace sextant::kernels::cuda
