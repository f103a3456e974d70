// The prefill kernel (attention.h) for one element type; instantiated by attention_prefill_*.cu, one file per type
// because these templates take long to compile.
#pragma once

#include "kernels/cuda/attention_fragments.cuh"
#include "kernels/cuda/attention_instances.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/shared_memory.h"

namespace sextant::kernels::cuda {
namespace {

constexpr int kPrefillWarps = 4;
constexpr int kPrefillThreads = 32 * kPrefillWarps;

// Queries, one tile of keys, one of values. Outputs leave through the queries' place.
template <typename T, int kQk, int kV, int kSubtiles>
struct PrefillShape {
  static_assert(kV <= kQk);
  static constexpr int kWarpRows = 16 * kSubtiles;
  static constexpr int kRows = kPrefillWarps * kWarpRows;
  static constexpr int kCols = kQk > 192 ? 32 : 64;  // positions of a tile
  static constexpr int kQueryElements = kRows * kTileStride<kQk>;
  static constexpr int kKeyElements = kCols * kTileStride<kQk>;
  static constexpr int kValueElements = kCols * kTileStride<kV>;
  static constexpr size_t kSharedBytes = (kQueryElements + kKeyElements + kValueElements) * sizeof(T);
  static_assert(fits_twice(kSharedBytes));
};

template <typename T, int kQk, int kV, int kSubtiles>
__global__ void __launch_bounds__(kPrefillThreads, 2) attention_prefill_kernel(AttentionArgs args, ScoreScale scale) {
  using Shape = PrefillShape<T, kQk, kV, kSubtiles>;
  constexpr int kCols = Shape::kCols;
  constexpr int kShare = kCols / kPrefillWarps;
  SEXTANT_DYNAMIC_SHARED(T, queries);
  T* keys = queries + Shape::kQueryElements;
  T* values = keys + Shape::kKeyElements;
  grid_dependency_wait();

  const AttentionItem item = args.prefill_items[blockIdx.x];
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
  const int num_rows = min(Shape::kRows, num_queries * group - item.row_begin);

  // What the first and the last row see bounds what any row sees.
  const VisibleRange of_first =
      visible_range(args.window, args.causal, first_position + item.row_begin / group, length);
  const VisibleRange of_last =
      visible_range(args.window, args.causal, first_position + (item.row_begin + num_rows - 1) / group, length);
  const VisibleRange seen = {of_first.low, of_last.high};
  const int tile_begin = max(item.block_begin * kBlockSlots, seen.low) / kCols;
  const int tile_end = (min(item.block_end * kBlockSlots, seen.high) + kCols - 1) / kCols;  // may be before tile_begin

  {
    const T* q = static_cast<const T*>(args.q);
    constexpr int kChunks = kQk / 8;
    for (int chunk = thread; chunk < Shape::kRows * kChunks; chunk += kPrefillThreads) {
      const int row = chunk / kChunks;
      const int column = chunk % kChunks * 8;
      const bool read = row < num_rows && column < dim_qk;
      const int packed = item.row_begin + (read ? row : 0);
      const T* from = q + (first_query + packed / group) * args.q_stride +
                      int64_t{kv_head * group + packed % group} * dim_qk + (read ? column : 0);
      cp_async_16(queries + row * kTileStride<kQk> + column, from, read);
    }
  }

  // Each warp copies kShare positions of a tile, which lie in one block. Its id is looked up a tile ahead.
  const int32_t* table = args.block_tables + item.sequence * args.block_table_stride;
  const auto block_of = [&](int t) {
    const int first = t * kCols + warp * kShare;
    return first < seen.high && first + kShare > seen.low ? table[first / kBlockSlots] : 0;
  };
  const auto copy_keys = [&](int t, int block) {
    const int first = t * kCols + warp * kShare;
    const T* head = static_cast<const T*>(args.keys) + args.layout.key_offset(block, kv_head, first % kBlockSlots);
    copy_rows<T, kQk, kShare>(keys + warp * kShare * kTileStride<kQk>, head, first, seen, dim_qk, lane);
    cp_async_commit();
  };
  const auto copy_values = [&](int t, int block) {
    const int first = t * kCols + warp * kShare;
    const T* head = static_cast<const T*>(args.values) + args.layout.value_offset(block, kv_head, first % kBlockSlots);
    copy_rows<T, kV, kShare>(values + warp * kShare * kTileStride<kV>, head, first, seen, dim_v, lane);
    cp_async_commit();
  };

  T* own_queries = queries + warp * Shape::kWarpRows * kTileStride<kQk>;
  const T* query_at = query_address<T, kQk>(own_queries, lane);
  const T* key_at = key_address<T, kQk>(keys, lane);
  const T* value_at = value_address<T, kV>(values, lane);
  // Of the row that registers 0, 1 (half 0) or 2, 3 (half 1) of a subtile belong to.
  const auto row_of = [&](int subtile, int half) {
    return warp * Shape::kWarpRows + subtile * 16 + lane / 4 + 8 * half;
  };

  float sums[kSubtiles][kV / 8][4] = {};
  float largest[kSubtiles][2];
  float weight_sum[kSubtiles][2] = {};
  SEXTANT_UNROLL
  for (int m = 0; m < kSubtiles; ++m) largest[m][0] = largest[m][1] = -INFINITY;

  int block = block_of(tile_begin);
  copy_keys(tile_begin, block);
  for (int t = tile_begin; t < tile_end; ++t) {
    cp_async_wait<0>();
    __syncthreads();  // keys have arrived; nobody reads the values of the tile before
    copy_values(t, block);
    block = block_of(t + 1);

    float scores[kSubtiles][kCols / 8][4] = {};
    SEXTANT_UNROLL
    for (int k = 0; k < kQk / 16; ++k) {
      uint32_t a[kSubtiles][4];
      SEXTANT_UNROLL
      for (int m = 0; m < kSubtiles; ++m) ldmatrix_x4(a[m], query_at + m * 16 * kTileStride<kQk> + k * 16);
      SEXTANT_UNROLL
      for (int n = 0; n < kCols / 16; ++n) {
        uint32_t b[4];
        ldmatrix_x4(b, key_at + n * 16 * kTileStride<kQk> + k * 16);
        SEXTANT_UNROLL
        for (int m = 0; m < kSubtiles; ++m) mma_pair<T>(scores[m][2 * n], scores[m][2 * n + 1], a[m], b);
      }
    }

    const bool masked = t * kCols < of_last.low || (t + 1) * kCols > of_first.high;  // some row sees a part of the tile
    uint32_t weights[kSubtiles][kCols / 16][4];  // the scores' exponentials as fragments a
    SEXTANT_UNROLL
    for (int m = 0; m < kSubtiles; ++m) {
      if (scale.before_cap != 0) {
        SEXTANT_UNROLL
        for (int n = 0; n < kCols / 8; ++n) {
          SEXTANT_UNROLL
          for (int i = 0; i < 4; ++i) scores[m][n][i] = tanh_of(scores[m][n][i] * scale.before_cap);
        }
      }
      SEXTANT_UNROLL
      for (int half = 0; half < 2; ++half) {
        if (masked) {
          const VisibleRange of_row = visible_range(
              args.window, args.causal, first_position + (item.row_begin + row_of(m, half)) / group, length);
          const int column = t * kCols + lane % 4 * 2;
          SEXTANT_UNROLL
          for (int n = 0; n < kCols / 8; ++n) {
            SEXTANT_UNROLL
            for (int i = 0; i < 2; ++i) {
              const int position = column + n * 8 + i;
              if (position < of_row.low || position >= of_row.high) scores[m][n][2 * half + i] = -INFINITY;
            }
          }
        }
        float of_tile = -INFINITY;
        SEXTANT_UNROLL
        for (int n = 0; n < kCols / 8; ++n) {
          of_tile = fmaxf(of_tile, fmaxf(scores[m][n][2 * half], scores[m][n][2 * half + 1]));
        }
        const SoftmaxStep step = advance_softmax(largest[m][half], of_tile, scale.to_log2);
        float added = 0;
        SEXTANT_UNROLL
        for (int n = 0; n < kCols / 8; ++n) {
          SEXTANT_UNROLL
          for (int i = 0; i < 2; ++i) {
            float& score = scores[m][n][2 * half + i];
            score = exp2_approx(fmaf(score, scale.to_log2, -step.offset));
            added += score;
          }
        }
        SEXTANT_UNROLL
        for (int n = 0; n < kCols / 8; ++n) {
          weights[m][n / 2][n % 2 * 2 + half] = pack<T>(scores[m][n][2 * half], scores[m][n][2 * half + 1]);
        }
        weight_sum[m][half] = weight_sum[m][half] * step.keep + added;
        SEXTANT_UNROLL
        for (int n = 0; n < kV / 8; ++n) {
          sums[m][n][2 * half] *= step.keep;
          sums[m][n][2 * half + 1] *= step.keep;
        }
      }
    }

    cp_async_wait<0>();
    __syncthreads();  // values have arrived; nobody reads the keys any more
    if (t + 1 < tile_end) copy_keys(t + 1, block);

    SEXTANT_UNROLL
    for (int k = 0; k < kCols / 16; ++k) {
      SEXTANT_UNROLL
      for (int n = 0; n < kV / 16; ++n) {
        uint32_t b[4];
        ldmatrix_x4_trans(b, value_at + k * 16 * kTileStride<kV> + n * 16);
        SEXTANT_UNROLL
        for (int m = 0; m < kSubtiles; ++m) mma_pair<T>(sums[m][2 * n], sums[m][2 * n + 1], weights[m][k], b);
      }
    }
  }
  cp_async_wait<0>();
  __syncthreads();  // without a tile, others' copies of queries were still on their way
  grid_dependency_launch();

  if constexpr (kSubtiles == 1) {
    if (item.partial >= 0) {
      float* partial = args.partials +
                       (int64_t{item.partial + warp} * args.layout.num_kv_heads + kv_head) * kPartialRows * (dim_v + 2);
      SEXTANT_UNROLL
      for (int half = 0; half < 2; ++half) {
        const float total = quad_sum(weight_sum[0][half]);
        const int row = lane / 4 + 8 * half;
        if (lane % 4 == 0) {
          partial[kPartialRows * dim_v + row] = largest[0][half] * scale.to_log2;
          partial[kPartialRows * (dim_v + 1) + row] = total;
        }
        SEXTANT_UNROLL
        for (int n = 0; n < kV / 8; ++n) {
          if (n * 8 >= dim_v) break;
          *reinterpret_cast<float2*>(partial + row * dim_v + n * 8 + lane % 4 * 2) =
              make_float2(sums[0][n][2 * half], sums[0][n][2 * half + 1]);
        }
      }
      return;
    }
  }

  // Through the warp's own rows of queries, which no other warp reads, so that rows leave in runs of 16 bytes.
  SEXTANT_UNROLL
  for (int m = 0; m < kSubtiles; ++m) {
    SEXTANT_UNROLL
    for (int half = 0; half < 2; ++half) {
      const float total = quad_sum(weight_sum[m][half]);
      const float inverse = total > 0 ? 1.0f / total : 0.0f;
      T* row = own_queries + (m * 16 + lane / 4 + 8 * half) * kTileStride<kQk> + lane % 4 * 2;
      SEXTANT_UNROLL
      for (int n = 0; n < kV / 8; ++n) {
        *reinterpret_cast<uint32_t*>(row + n * 8) =
            pack<T>(sums[m][n][2 * half] * inverse, sums[m][n][2 * half + 1] * inverse);
      }
    }
  }
  __syncwarp();
  const int first_token = args.cu_seqlens_q[item.sequence];  // loaded anew: no register across the loop
  constexpr int kChunks = kV / 8;
  for (int chunk = lane; chunk < Shape::kWarpRows * kChunks; chunk += 32) {
    const int row = chunk / kChunks;
    const int column = chunk % kChunks * 8;
    if (warp * Shape::kWarpRows + row >= num_rows || column >= dim_v) continue;
    const int packed = item.row_begin + warp * Shape::kWarpRows + row;
    T* to = static_cast<T*>(args.out) + (first_token + packed / group) * args.out_stride +
            int64_t{kv_head * group + packed % group} * dim_v + column;
    store_vector(to, load_vector(own_queries + row * kTileStride<kQk> + column));
  }
}

template <typename T, int kQk, int kV, int kSubtiles>
int launch_prefill_kernel(const AttentionArgs& args, Stream stream) {
  constexpr size_t kBytes = PrefillShape<T, kQk, kV, kSubtiles>::kSharedBytes;
  auto* kernel = attention_prefill_kernel<T, kQk, kV, kSubtiles>;
  if (const cudaError_t error =
          cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(kBytes));
      error != cudaSuccess) {
    return error;
  }
  const LaunchShape shape{
      .grid = dim3(static_cast<unsigned>(args.num_prefill_items), static_cast<unsigned>(args.layout.num_kv_heads)),
      .block = dim3(kPrefillThreads),
      .dynamic_shared_bytes = kBytes,
      .overlaps_previous = true};
  return launch(shape, stream, kernel, args, score_scale(args));
}

}  // namespace

template <typename T>
int launch_prefill(const AttentionArgs& args, Stream stream) {
  const bool large = args.prefill_rows == kPrefillRowsLarge;
  switch (template_dims(args.layout)) {
    case TemplateDims::k64:
      return large ? launch_prefill_kernel<T, 64, 64, 2>(args, stream)
                   : launch_prefill_kernel<T, 64, 64, 1>(args, stream);
    case TemplateDims::k96:
      return large ? launch_prefill_kernel<T, 96, 96, 2>(args, stream)
                   : launch_prefill_kernel<T, 96, 96, 1>(args, stream);
    case TemplateDims::k128:
      return large ? launch_prefill_kernel<T, 128, 128, 2>(args, stream)
                   : launch_prefill_kernel<T, 128, 128, 1>(args, stream);
    case TemplateDims::k192And128: return launch_prefill_kernel<T, 192, 128, 1>(args, stream);
    case TemplateDims::k256: return launch_prefill_kernel<T, 256, 256, 1>(args, stream);
  }
  return cudaErrorInvalidValue;
}

}  // namespace sextant::kernels::cuda
