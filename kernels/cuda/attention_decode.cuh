// The decode kernel (attention.h) for one element type; instantiated by attention_decode_*.cu.
#pragma once

#include "kernels/cuda/attention_fragments.cuh"
#include "kernels/cuda/attention_instances.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/shared_memory.h"

namespace sextant::kernels::cuda {
namespace {

// Each warp has a ring of stages of its own, a block of keys and values each. What matters is bytes in flight: 16 to
// 32 KB a block, two blocks a multiprocessor.
template <typename T, int kQk, int kV>
struct DecodeShape {
  static constexpr int kWarps = kQk + kV > 384 ? 2 : 4;
  static constexpr int kThreads = 32 * kWarps;
  static constexpr int kStages = kQk + kV > 128 ? 2 : 3;
  static constexpr int kKeyElements = kBlockSlots * kTileStride<kQk>;
  static constexpr int kValueElements = kBlockSlots * kTileStride<kV>;
  static constexpr int kStageElements = kKeyElements + kValueElements;
  static constexpr int kQueryElements = kDecodeRows * kTileStride<kQk>;
  static constexpr int kRingsElements = kWarps * kStages * kStageElements;
  // Queries, rings, and of each warp the rows' maxima and sums of weights.
  static constexpr size_t kSharedBytes =
      (kQueryElements + kRingsElements) * sizeof(T) + 2 * kWarps * kDecodeRows * sizeof(float);
  static_assert(kQk == 192 || fits_twice(kSharedBytes));
  // At the end a warp's ring holds its sums, fp32.
  static constexpr int kSumStride = kV + 8;
  static_assert(kDecodeRows * kSumStride * sizeof(float) <= kStages * kStageElements * sizeof(T));
};

template <typename T, int kQk, int kV>
__global__ void __launch_bounds__(DecodeShape<T, kQk, kV>::kThreads)
    attention_decode_kernel(AttentionArgs args, ScoreScale scale) {
  using Shape = DecodeShape<T, kQk, kV>;
  constexpr int kWarps = Shape::kWarps;
  constexpr int kStages = Shape::kStages;
  SEXTANT_DYNAMIC_SHARED(T, queries);
  float* warp_largest = reinterpret_cast<float*>(queries + Shape::kQueryElements + Shape::kRingsElements);
  float* warp_weight_sum = warp_largest + kWarps * kDecodeRows;
  grid_dependency_wait();

  const AttentionItem item = args.decode_items[blockIdx.x];
  if (item.sequence < 0) return;
  const int thread = static_cast<int>(threadIdx.x);
  const int lane = thread % 32;
  const int warp = thread / 32;
  const int kv_head = static_cast<int>(blockIdx.y);
  const int dim_qk = args.layout.head_dim_qk;
  const int dim_v = args.layout.head_dim_v;
  const int group = args.num_heads / args.layout.num_kv_heads;
  const int first_query = args.cu_seqlens_q[item.sequence];
  const int num_queries = args.cu_seqlens_q[item.sequence + 1] - first_query;
  const int length = args.seq_lens[item.sequence];
  const int first_position = length - num_queries;
  const int num_rows = min(kDecodeRows, num_queries * group - item.row_begin);
  const VisibleRange of_first =
      visible_range(args.window, args.causal, first_position + item.row_begin / group, length);
  const VisibleRange of_last =
      visible_range(args.window, args.causal, first_position + (item.row_begin + num_rows - 1) / group, length);
  const VisibleRange seen = {of_first.low, of_last.high};
  const int block_end = min(item.block_end, (seen.high + kBlockSlots - 1) / kBlockSlots);

  // This warp's blocks are block_begin + warp, then every kWarps-th. Ids are looked up a stage ahead.
  T* ring = queries + Shape::kQueryElements + warp * kStages * Shape::kStageElements;
  const int32_t* table = args.block_tables + item.sequence * args.block_table_stride;
  int next_block = max(item.block_begin, seen.low / kBlockSlots) + warp;
  int next_id = next_block < block_end ? table[next_block] : 0;
  int next_stage = 0;
  const auto copy_next = [&] {
    if (next_block < block_end) {
      T* stage = ring + next_stage * Shape::kStageElements;
      const int first = next_block * kBlockSlots;
      copy_rows<T, kQk, kBlockSlots>(stage,
                                     static_cast<const T*>(args.keys) + args.layout.key_offset(next_id, kv_head, 0),
                                     first, seen, dim_qk, lane);
      copy_rows<T, kV, kBlockSlots>(stage + Shape::kKeyElements,
                                    static_cast<const T*>(args.values) + args.layout.value_offset(next_id, kv_head, 0),
                                    first, seen, dim_v, lane);
      next_block += kWarps;
      next_id = next_block < block_end ? table[next_block] : 0;
    }
    cp_async_commit();
    next_stage = next_stage + 1 == kStages ? 0 : next_stage + 1;
  };
  int block = next_block;
  for (int s = 0; s < kStages - 1; ++s) copy_next();

  for (int chunk = thread; chunk < kDecodeRows * (kQk / 8); chunk += Shape::kThreads) {
    const int row = chunk / (kQk / 8);
    const int column = chunk % (kQk / 8) * 8;
    Vector<T> q = {};
    if (row < num_rows && column < dim_qk) {
      const int packed = item.row_begin + row;
      q = load_vector(static_cast<const T*>(args.q) + (first_query + packed / group) * args.q_stride +
                      int64_t{kv_head * group + packed % group} * dim_qk + column);
    }
    store_vector(queries + row * kTileStride<kQk> + column, q);
  }
  __syncthreads();
  uint32_t query[kQk / 16][4];
  if (block < block_end) {
    SEXTANT_UNROLL
    for (int k = 0; k < kQk / 16; ++k) ldmatrix_x4(query[k], query_address<T, kQk>(queries, lane) + k * 16);
  }

  float sums[kV / 8][4] = {};
  float largest[2] = {-INFINITY, -INFINITY};
  float weight_sum[2] = {};
  int stage_index = 0;
  for (; block < block_end; block += kWarps) {
    cp_async_wait<kStages - 2>();
    __syncwarp();  // the stage has arrived; no lane reads the one before, which is next to be filled
    copy_next();
    const T* stage = ring + stage_index * Shape::kStageElements;
    stage_index = stage_index + 1 == kStages ? 0 : stage_index + 1;

    float scores[2][4] = {};
    SEXTANT_UNROLL
    for (int k = 0; k < kQk / 16; ++k) {
      uint32_t b[4];
      ldmatrix_x4(b, key_address<T, kQk>(stage, lane) + k * 16);
      mma_pair<T>(scores[0], scores[1], query[k], b);
    }
    if (scale.before_cap != 0) {
      SEXTANT_UNROLL
      for (int i = 0; i < 8; ++i) scores[i / 4][i % 4] = tanh_of(scores[i / 4][i % 4] * scale.before_cap);
    }
    const bool masked = block * kBlockSlots < of_last.low || (block + 1) * kBlockSlots > of_first.high;
    uint32_t weights[4];
    SEXTANT_UNROLL
    for (int half = 0; half < 2; ++half) {
      if (masked) {
        const VisibleRange of_row = visible_range(
            args.window, args.causal, first_position + (item.row_begin + lane / 4 + 8 * half) / group, length);
        SEXTANT_UNROLL
        for (int i = 0; i < 4; ++i) {
          const int position = block * kBlockSlots + i / 2 * 8 + lane % 4 * 2 + i % 2;
          if (position < of_row.low || position >= of_row.high) scores[i / 2][2 * half + i % 2] = -INFINITY;
        }
      }
      const float of_tile = fmaxf(fmaxf(scores[0][2 * half], scores[0][2 * half + 1]),
                                  fmaxf(scores[1][2 * half], scores[1][2 * half + 1]));
      const SoftmaxStep step = advance_softmax(largest[half], of_tile, scale.to_log2);
      float added = 0;
      SEXTANT_UNROLL
      for (int n = 0; n < 2; ++n) {
        const float low = exp2_approx(fmaf(scores[n][2 * half], scale.to_log2, -step.offset));
        const float high = exp2_approx(fmaf(scores[n][2 * half + 1], scale.to_log2, -step.offset));
        added += low + high;
        weights[2 * n + half] = pack<T>(low, high);
      }
      weight_sum[half] = weight_sum[half] * step.keep + added;
      SEXTANT_UNROLL
      for (int n = 0; n < kV / 8; ++n) {
        sums[n][2 * half] *= step.keep;
        sums[n][2 * half + 1] *= step.keep;
      }
    }
    SEXTANT_UNROLL
    for (int n = 0; n < kV / 16; ++n) {
      uint32_t b[4];
      ldmatrix_x4_trans(b, value_address<T, kV>(stage + Shape::kKeyElements, lane) + n * 16);
      mma_pair<T>(sums[2 * n], sums[2 * n + 1], weights, b);
    }
  }
  cp_async_wait<0>();
  grid_dependency_launch();

  // Merge the warps. Maxima as exponents to base 2 from here on.
  __syncwarp();  // no lane reads the ring any more
  float* own_sums = reinterpret_cast<float*>(ring);
  SEXTANT_UNROLL
  for (int half = 0; half < 2; ++half) {
    const int row = lane / 4 + 8 * half;
    const float total = quad_sum(weight_sum[half]);
    if (lane % 4 == 0) {
      warp_largest[warp * kDecodeRows + row] = largest[half] * scale.to_log2;
      warp_weight_sum[warp * kDecodeRows + row] = total;
    }
    SEXTANT_UNROLL
    for (int n = 0; n < kV / 8; ++n) {
      *reinterpret_cast<float2*>(own_sums + row * Shape::kSumStride + n * 8 + lane % 4 * 2) =
          make_float2(sums[n][2 * half], sums[n][2 * half + 1]);
    }
  }
  __syncthreads();
  constexpr int kSumsOfWarp = static_cast<int>(kStages * Shape::kStageElements * sizeof(T) / sizeof(float));
  const float* all_sums = reinterpret_cast<const float*>(queries + Shape::kQueryElements);
  float* partial = nullptr;
  if (item.partial >= 0) {
    partial = args.partials + (int64_t{item.partial} * args.layout.num_kv_heads + kv_head) * kPartialRows * (dim_v + 2);
  }
  for (int chunk = thread; chunk < num_rows * (kV / 8); chunk += Shape::kThreads) {
    const int row = chunk / (kV / 8);
    const int column = chunk % (kV / 8) * 8;
    if (column >= dim_v) continue;
    float top = -INFINITY;
    SEXTANT_UNROLL
    for (int w = 0; w < kWarps; ++w) top = fmaxf(top, warp_largest[w * kDecodeRows + row]);
    float total = 0;
    float out[8] = {};
    SEXTANT_UNROLL
    for (int w = 0; w < kWarps; ++w) {
      const float keep = top == -INFINITY ? 0.0f : exp2_approx(warp_largest[w * kDecodeRows + row] - top);
      total += keep * warp_weight_sum[w * kDecodeRows + row];
      const float* from = all_sums + w * kSumsOfWarp + row * Shape::kSumStride + column;
      SEXTANT_UNROLL
      for (int i = 0; i < 8; ++i) out[i] += keep * from[i];
    }
    if (partial != nullptr) {
      float* to = partial + row * dim_v + column;
      *reinterpret_cast<float4*>(to) = make_float4(out[0], out[1], out[2], out[3]);
      *reinterpret_cast<float4*>(to + 4) = make_float4(out[4], out[5], out[6], out[7]);
      if (column == 0) {
        partial[kPartialRows * dim_v + row] = top;
        partial[kPartialRows * (dim_v + 1) + row] = total;
      }
    } else {
      const float inverse = total > 0 ? 1.0f / total : 0.0f;
      const int packed = item.row_begin + row;
      Vector<T> rounded;
      SEXTANT_UNROLL
      for (int i = 0; i < 8; ++i) rounded.at[i] = from_float<T>(out[i] * inverse);
      store_vector(static_cast<T*>(args.out) + (first_query + packed / group) * args.out_stride +
                       int64_t{kv_head * group + packed % group} * dim_v + column,
                   rounded);
    }
  }
}

template <typename T, int kQk, int kV>
int launch_decode_kernel(const AttentionArgs& args, Stream stream) {
  using Shape = DecodeShape<T, kQk, kV>;
  auto* kernel = attention_decode_kernel<T, kQk, kV>;
  if (const cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                     static_cast<int>(Shape::kSharedBytes));
      error != cudaSuccess) {
    return error;
  }
  const LaunchShape shape{
      .grid = dim3(static_cast<unsigned>(args.num_decode_items), static_cast<unsigned>(args.layout.num_kv_heads)),
      .block = dim3(Shape::kThreads),
      .dynamic_shared_bytes = Shape::kSharedBytes,
      .overlaps_previous = true};
  return launch(shape, stream, kernel, args, score_scale(args));
}

}  // namespace

template <typename T>
int launch_decode(const AttentionArgs& args, Stream stream) {
  switch (template_dims(args.layout)) {
    case TemplateDims::k64: return launch_decode_kernel<T, 64, 64>(args, stream);
    case TemplateDims::k96: return launch_decode_kernel<T, 96, 96>(args, stream);
    case TemplateDims::k128: return launch_decode_kernel<T, 128, 128>(args, stream);
    case TemplateDims::k192And128: return launch_decode_kernel<T, 192, 128>(args, stream);
    case TemplateDims::k256: return launch_decode_kernel<T, 256, 256>(args, stream);
  }
  return cudaErrorInvalidValue;
}

}  // namespace sextant::kernels::cuda
