#include "kernels/cuda/gemv.h"

#include "kernels/cuda/element.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/ptx.h"
#include "kernels/cuda/warp.h"
#include "kernels/cuda/weight_tile.h"

namespace sextant::kernels::cuda {
namespace {

constexpr int64_t kMaxCols = int64_t{1} << 20;

template <typename T>
__device__ __forceinline__ void store_output(const GemvArgs& args, int token, int64_t row, float value) {
  const int64_t at = token * args.out_stride + row;
  if (args.out_type == ElementType::kFloat32) {
    static_cast<float*>(args.out)[at] = value;
  } else {
    static_cast<T*>(args.out)[at] = from_float<T>(value);
  }
}

// --- bf16, fp16 -------------------------------------------------------------------------------------------------------

constexpr int kPlainWarps = 4;
constexpr int kRowsPerGroup = 2;
constexpr int kPlainUnroll = 4;

// What a lane has under way: of each of its rows kPlainUnroll vectors, kLanes vectors apart; zeros past the end of the row.
template <int kLanes>
struct PlainBatch {
  uint4 w[kPlainUnroll][kRowsPerGroup];

  __device__ __forceinline__ void load(const uint4* const (&rows)[kRowsPerGroup], int first, int num_vectors) {
    SEXTANT_UNROLL
    for (int u = 0; u < kPlainUnroll; ++u) {
      const int v = first + u * kLanes;
      SEXTANT_UNROLL
      for (int r = 0; r < kRowsPerGroup; ++r) {
        w[u][r] = v < num_vectors ? load_streaming(rows[r] + v) : make_uint4(0, 0, 0, 0);
      }
    }
  }
};

template <typename T, int kLanes, int kTokens>
__global__ void __launch_bounds__(kPlainWarps * 32) gemv_plain_kernel(GemvArgs args) {
  const int lane = static_cast<int>(threadIdx.x) % kLanes;
  const int64_t group = (int64_t{blockIdx.x} * kPlainWarps * 32 + threadIdx.x) / kLanes;
  const int64_t first_row = group * kRowsPerGroup;
  const int num_vectors = static_cast<int>(args.cols / 8);
  const uint4* rows[kRowsPerGroup];
  SEXTANT_UNROLL
  for (int r = 0; r < kRowsPerGroup; ++r) {  // a row past the end computes the last one again and writes nothing
    const int64_t row = first_row + r < args.rows ? first_row + r : args.rows - 1;
    rows[r] = static_cast<const uint4*>(args.weights) + row * num_vectors;
  }
  PlainBatch<kLanes> batch;
  batch.load(rows, lane, num_vectors);
  grid_dependency_wait();
  grid_dependency_launch();

  float sums[kTokens][kRowsPerGroup] = {};
  for (int first = lane;;) {
    SEXTANT_UNROLL
    for (int u = 0; u < kPlainUnroll; ++u) {
      const int v = first + u * kLanes;
      float w[kRowsPerGroup][8];
      SEXTANT_UNROLL
      for (int r = 0; r < kRowsPerGroup; ++r) unpack_8<T>(batch.w[u][r], w[r]);
      SEXTANT_UNROLL
      for (int t = 0; t < kTokens; ++t) {
        // Zeros times zeros past the end: a branch would keep the loads of one vector behind the sums of the one before.
        const T* from = static_cast<const T*>(args.x) + t * args.x_stride + v * 8;
        float x[8];
        unpack_8<T>(v < num_vectors ? *reinterpret_cast<const uint4*>(from) : make_uint4(0, 0, 0, 0), x);
        SEXTANT_UNROLL
        for (int r = 0; r < kRowsPerGroup; ++r) {
          SEXTANT_UNROLL
          for (int k = 0; k < 8; ++k) sums[t][r] += w[r][k] * x[k];
        }
      }
    }
    first += kPlainUnroll * kLanes;
    // The bound is the group's, not the lane's: every lane of a warp makes the same number of rounds.
    if (first - lane >= num_vectors) break;
    batch.load(rows, first, num_vectors);
  }

  SEXTANT_UNROLL
  for (int t = 0; t < kTokens; ++t) {
    // Lane 0 goes on with the first row, lane 1 with the second: one exchange for both.
    const bool second = lane % 2 != 0;
    float sum = (second ? sums[t][1] : sums[t][0]) + __shfl_xor_sync(kFullWarp, second ? sums[t][0] : sums[t][1], 1);
    SEXTANT_UNROLL
    for (int distance = 2; distance < kLanes; distance *= 2) sum += __shfl_xor_sync(kFullWarp, sum, distance);
    if (lane < kRowsPerGroup && first_row + lane < args.rows) store_output<T>(args, t, first_row + lane, sum);
  }
}

// --- e4m3, row-major ---------------------------------------------------------------------------------------------------

constexpr int kF8Vector = 16;  // weights of a load

template <WeightFormat kFormat, typename T, int kTokens>
__global__ void __launch_bounds__(kPlainWarps * 32, kFormat == WeightFormat::kF8Blocks && kTokens > 2 ? 4 : 5)
    gemv_f8_kernel(GemvArgs args) {
  constexpr bool kBlocks = kFormat == WeightFormat::kF8Blocks;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t group = (int64_t{blockIdx.x} * kPlainWarps * 32 + threadIdx.x) / 32;
  const int64_t first_row = group * kRowsPerGroup;
  const int num_vectors = static_cast<int>(args.cols / kF8Vector);
  const uint4* rows[kRowsPerGroup];
  const float* scales[kRowsPerGroup];
  SEXTANT_UNROLL
  for (int r = 0; r < kRowsPerGroup; ++r) {  // a row past the end computes the last one again and writes nothing
    const int64_t row = first_row + r < args.rows ? first_row + r : args.rows - 1;
    rows[r] = static_cast<const uint4*>(args.weights) + row * num_vectors;
    scales[r] = static_cast<const float*>(args.scales) + (kBlocks ? row / 128 * ((args.cols + 511) / 512 * 4) : row);
  }
  PlainBatch<32> batch;
  batch.load(rows, lane, num_vectors);
  grid_dependency_wait();
  grid_dependency_launch();

  float sums[kTokens][kRowsPerGroup] = {};
  for (int first = lane;;) {
    SEXTANT_UNROLL
    for (int u = 0; u < kPlainUnroll; ++u) {
      const int v = first + u * 32;
      float of_block[kTokens][kRowsPerGroup] = {};
      SEXTANT_UNROLL
      for (int half = 0; half < 2; ++half) {
        float w[kRowsPerGroup][8];
        SEXTANT_UNROLL
        for (int r = 0; r < kRowsPerGroup; ++r) {
          const uint4& q = batch.w[u][r];
          unpack_8_e4m3(half == 0 ? q.x : q.z, half == 0 ? q.y : q.w, w[r]);
        }
        SEXTANT_UNROLL
        for (int t = 0; t < kTokens; ++t) {
          const T* from = static_cast<const T*>(args.x) + t * args.x_stride + v * kF8Vector + half * 8;
          float x[8];
          unpack_8<T>(v < num_vectors ? *reinterpret_cast<const uint4*>(from) : make_uint4(0, 0, 0, 0), x);
          SEXTANT_UNROLL
          for (int r = 0; r < kRowsPerGroup; ++r) {
            float& sum = kBlocks ? of_block[t][r] : sums[t][r];
            SEXTANT_UNROLL
            for (int k = 0; k < 8; ++k) sum += w[r][k] * x[k];
          }
        }
      }
      if constexpr (kBlocks) {
        SEXTANT_UNROLL
        for (int r = 0; r < kRowsPerGroup; ++r) {
          const float scale = v < num_vectors ? scales[r][v / (128 / kF8Vector)] : 0.0f;
          SEXTANT_UNROLL
          for (int t = 0; t < kTokens; ++t) sums[t][r] += scale * of_block[t][r];
        }
      }
    }
    first += kPlainUnroll * 32;
    if (first - lane >= num_vectors) break;
    batch.load(rows, first, num_vectors);
  }

  SEXTANT_UNROLL
  for (int t = 0; t < kTokens; ++t) {
    const bool second = lane % 2 != 0;
    float sum = (second ? sums[t][1] : sums[t][0]) + __shfl_xor_sync(kFullWarp, second ? sums[t][0] : sums[t][1], 1);
    SEXTANT_UNROLL
    for (int distance = 2; distance < 32; distance *= 2) sum += __shfl_xor_sync(kFullWarp, sum, distance);
    if (lane < kRowsPerGroup && first_row + lane < args.rows) {
      store_output<T>(args, t, first_row + lane, kBlocks ? sum : sum * (second ? scales[1] : scales[0])[0]);
    }
  }
}

// --- tiles --------------------------------------------------------------------------------------------------------

constexpr int kMaxTileWarps = 16;
constexpr int kMaxTileTokens = 2;

template <WeightFormat kFormat>
struct TileBatch {
  // 64 bytes of quants under way; kQ4_1 48 and as many of scales: what 64 registers hold at one token.
  static constexpr int kUnroll = kQuantTileBytes<kFormat> == 1024 ? 2 : kFormat == WeightFormat::kQ4_1 ? 3 : 4;
  LaneTile<kFormat> tiles[kUnroll];
  LaneScales<kFormat> scales[kUnroll];

  __device__ __forceinline__ void load(const uint8_t* quants, const uint8_t* tile_scales, int first, int step,
                                       int num_blocks, int lane) {
    SEXTANT_UNROLL
    for (int u = 0; u < kUnroll; ++u) {
      const int b = first + u * step;
      if (b >= num_blocks) continue;
      tiles[u].load(quants + int64_t{b} * kQuantTileBytes<kFormat>, lane,
                    [](const uint4* p) { return load_streaming(p); });
      scales[u].load(tile_scales + int64_t{b / kTilesPerScale<kFormat>} * kScaleTileBytes<kFormat>, lane / 4);
    }
  }
};

template <WeightFormat kFormat, typename T, int kTokens>
__global__ void __launch_bounds__(kMaxTileWarps * 32, 3 - kTokens) gemv_tile_kernel(GemvArgs args) {
  using Tile = LaneTile<kFormat>;
  using Batch = TileBatch<kFormat>;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int num_warps = static_cast<int>(blockDim.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int member = lane % 4;
  const int num_blocks = static_cast<int>(args.cols / kTileCols);
  const int64_t first_tile = int64_t{blockIdx.x} * num_blocks;
  const uint8_t* quants = static_cast<const uint8_t*>(args.weights) + first_tile * kQuantTileBytes<kFormat>;
  const uint8_t* tile_scales = static_cast<const uint8_t*>(args.scales) +
                               int64_t{blockIdx.x} * num_scale_entries<kFormat>(num_blocks) * kScaleTileBytes<kFormat>;
  Batch batch;
  batch.load(quants, tile_scales, warp, num_warps, num_blocks, lane);
  grid_dependency_wait();
  grid_dependency_launch();

  float sums[kTokens][4] = {};
  for (int first = warp; first < num_blocks;) {
    SEXTANT_UNROLL
    for (int u = 0; u < Batch::kUnroll; ++u) {
      const int b = first + u * num_warps;
      if (b >= num_blocks) continue;
      float x[kTokens][8], total[kTokens], offset[kTokens];
      SEXTANT_UNROLL
      for (int t = 0; t < kTokens; ++t) {
        const T* from = static_cast<const T*>(args.x) + t * args.x_stride + b * kTileCols + member * 8;
        unpack_8<T>(*reinterpret_cast<const uint4*>(from), x[t]);
        total[t] = 0;
        offset[t] = 0;
        SEXTANT_UNROLL
        for (int k = 0; k < 8; ++k) {
          if constexpr (LaneScales<kFormat>::kHasMinimum) total[t] += x[t][k];
          if constexpr (Tile::kHasOffset) offset[t] += Tile::offset(k) * x[t][k];
        }
      }
      SEXTANT_UNROLL
      for (int j = 0; j < 4; ++j) {
        float e[8];
        batch.tiles[u].to_float_with_offset(j, e);
        const float d = batch.scales[u].d(j);
        SEXTANT_UNROLL
        for (int t = 0; t < kTokens; ++t) {
          float s = 0;
          SEXTANT_UNROLL
          for (int k = 0; k < 8; ++k) s += e[k] * x[t][k];
          if constexpr (Tile::kHasOffset) s -= offset[t];
          sums[t][j] += d * s;
          if constexpr (LaneScales<kFormat>::kHasMinimum) sums[t][j] += batch.scales[u].m(j) * total[t];
        }
      }
    }
    first += Batch::kUnroll * num_warps;
    batch.load(quants, tile_scales, first, num_warps, num_blocks, lane);
  }

  SEXTANT_SHARED(float, of_warp, [kMaxTileWarps][kMaxTileTokens][kTileRows]);
  SEXTANT_UNROLL
  for (int t = 0; t < kTokens; ++t) {
    // Four rows over four lanes in three exchanges: member i ends with row group + 8 i.
    const bool odd = member % 2 != 0, upper = member >= 2;
    const float low = (odd ? sums[t][1] : sums[t][0]) + __shfl_xor_sync(kFullWarp, odd ? sums[t][0] : sums[t][1], 1);
    const float high = (odd ? sums[t][3] : sums[t][2]) + __shfl_xor_sync(kFullWarp, odd ? sums[t][2] : sums[t][3], 1);
    of_warp[warp][t][lane / 4 + 8 * member] = (upper ? high : low) + __shfl_xor_sync(kFullWarp, upper ? low : high, 2);
  }
  __syncthreads();
  if (warp >= kTokens) return;
  for (int t = warp; t < kTokens; t += num_warps) {
    const int64_t row = int64_t{blockIdx.x} * kTileRows + lane;
    float sum = of_warp[0][t][lane];
    for (int w = 1; w < num_warps; ++w) sum += of_warp[w][t][lane];
    if (row < args.rows) store_output<T>(args, t, row, sum);
  }
}

// --- launches ---------------------------------------------------------------------------------------------------------

template <typename T, int kTokens>
int launch_plain(const GemvArgs& args, Stream stream) {
  const int lanes = args.cols >= 1024 ? 32 : 8;
  const int64_t rows_per_block = kPlainWarps * 32 / lanes * kRowsPerGroup;
  const LaunchShape shape{.grid = dim3(static_cast<unsigned>((args.rows + rows_per_block - 1) / rows_per_block)),
                          .block = dim3(kPlainWarps * 32),
                          .overlaps_previous = true};
  return lanes == 32 ? launch(shape, stream, gemv_plain_kernel<T, 32, kTokens>, args)
                     : launch(shape, stream, gemv_plain_kernel<T, 8, kTokens>, args);
}

template <WeightFormat kFormat, typename T>
int launch_f8(const GemvArgs& args, Stream stream) {
  constexpr int64_t kRowsPerBlock = kPlainWarps * kRowsPerGroup;
  const LaunchShape shape{.grid = dim3(static_cast<unsigned>((args.rows + kRowsPerBlock - 1) / kRowsPerBlock)),
                          .block = dim3(kPlainWarps * 32),
                          .overlaps_previous = true};
  switch (args.num_tokens) {
    case 1: return launch(shape, stream, gemv_f8_kernel<kFormat, T, 1>, args);
    case 2: return launch(shape, stream, gemv_f8_kernel<kFormat, T, 2>, args);
    case 3: return launch(shape, stream, gemv_f8_kernel<kFormat, T, 3>, args);
    default: return launch(shape, stream, gemv_f8_kernel<kFormat, T, 4>, args);
  }
}

template <WeightFormat kFormat, typename T>
int launch_tiles(const GemvArgs& args, Stream stream) {
  const int64_t wanted = args.cols / kTileCols / 8;
  const auto warps = static_cast<unsigned>(wanted < 1 ? 1 : wanted > kMaxTileWarps ? kMaxTileWarps : wanted);
  const LaunchShape shape{.grid = dim3(static_cast<unsigned>(num_row_tiles(args.rows))),
                          .block = dim3(warps * 32),
                          .overlaps_previous = true};
  return args.num_tokens == 1 ? launch(shape, stream, gemv_tile_kernel<kFormat, T, 1>, args)
                              : launch(shape, stream, gemv_tile_kernel<kFormat, T, 2>, args);
}

template <typename T>
int launch_plain(const GemvArgs& args, Stream stream) {
  switch (args.num_tokens) {
    case 1: return launch_plain<T, 1>(args, stream);
    case 2: return launch_plain<T, 2>(args, stream);
    case 3: return launch_plain<T, 3>(args, stream);
    default: return launch_plain<T, 4>(args, stream);
  }
}

// Of x_type T.
template <typename T>
int launch_format(const GemvArgs& args, Stream stream) {
  switch (args.format) {
    case WeightFormat::kBFloat16:
    case WeightFormat::kFloat16: return launch_plain<T>(args, stream);
    case WeightFormat::kQ8_0: return launch_tiles<WeightFormat::kQ8_0, T>(args, stream);
    case WeightFormat::kQ4_0: return launch_tiles<WeightFormat::kQ4_0, T>(args, stream);
    case WeightFormat::kQ4_1: return launch_tiles<WeightFormat::kQ4_1, T>(args, stream);
    case WeightFormat::kF8Tiles: return launch_tiles<WeightFormat::kF8Tiles, T>(args, stream);
    case WeightFormat::kF8Rows: return launch_f8<WeightFormat::kF8Rows, T>(args, stream);
    case WeightFormat::kF8Blocks: return launch_f8<WeightFormat::kF8Blocks, T>(args, stream);
  }
  return cudaErrorInvalidValue;
}

}  // namespace

int gemv(const GemvArgs& args, Stream stream) {
  const auto is_aligned = [](const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; };
  if (args.num_tokens == 0) return cudaSuccess;
  if (args.num_tokens < 0 || args.num_tokens > max_gemv_tokens(args.format) || args.rows < 1 ||
      args.rows > 0x7fffffff || args.cols < 1 || args.cols > kMaxCols ||
      args.cols % column_multiple(args.format) != 0 || args.x_stride % 8 != 0 || args.out_stride < args.rows ||
      !is_aligned(args.x) || !is_aligned(args.weights) || !is_aligned(args.scales) ||
      !takes_types(args.format, args.x_type, args.out_type)) {
    return cudaErrorInvalidValue;
  }
  return args.x_type == ElementType::kBFloat16 ? launch_format<bf16>(args, stream) : launch_format<fp16>(args, stream);
}

}  // namespace sextant::kernels::cuda
