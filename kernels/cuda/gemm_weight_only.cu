#include "kernels/cuda/gemm_weight_only.h"

#include "kernels/cuda/element.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/ptx.h"
#include "kernels/cuda/shared_memory.h"
#include "kernels/cuda/tensor_core.h"
#include "kernels/cuda/weight_tile.h"

namespace sextant::kernels::cuda {
namespace {

constexpr int64_t kMaxCols = int64_t{1} << 20;
constexpr int kGroupedTokenTiles = 8;  // blocks of this many runs of tokens follow one another on the same weights
constexpr int64_t kFillingBlocks = 128;

// The shape of a block: kTokens8 x 8 tokens, 32 kWarpsN rows, kStageBlocks blocks of 32 columns in each of kStages stages.
template <WeightFormat kFormatOf, typename XOf, int kTokens8Of, int kWarpsNOf, int kWarpsKOf, int kStageBlocksOf,
          int kStagesOf>
struct Shape {
  using X = XOf;  // activations
  static constexpr WeightFormat kFormat = kFormatOf;
  static constexpr int kTokens8 = kTokens8Of, kTokens = 8 * kTokens8Of;
  static constexpr int kWarpsN = kWarpsNOf, kWarpsK = kWarpsKOf, kThreads = 32 * kWarpsNOf * kWarpsKOf;
  static constexpr int kStageBlocks = kStageBlocksOf, kStages = kStagesOf;
  static constexpr bool kHasMinimum = kFormat == WeightFormat::kQ4_1;

  // One stage in shared memory: x [kTokens][4 kStageBlocks] vectors of 8, swizzled; quants and scales [kWarpsN][kStageBlocks]
  // tiles; sums of x [kStageBlocks][kTokens].
  static constexpr int kXVectors = 4 * kStageBlocks;
  static constexpr int kQuants = kTokens * kXVectors * 16;
  static constexpr int kScales = kQuants + kWarpsN * kStageBlocks * kQuantTileBytes<kFormat>;
  static constexpr int kStageScales = kStageBlocks / kTilesPerScale<kFormat>;  // entries
  static constexpr int kSums = kScales + kWarpsN * kStageScales * kScaleTileBytes<kFormat>;
  static constexpr int kStageBytes = kSums + (kHasMinimum ? kStageBlocks * kTokens * 4 : 0);
  // After the last stage: [kWarpsK][kTokens][kOutStride] fp32. The stride lets a warp's lanes meet 32 banks.
  static constexpr int kOutStride = 32 * kWarpsN + 4;
  static constexpr int kOutBytes = kWarpsK * kTokens * kOutStride * 4;
  static constexpr int kSharedBytes = kStages * kStageBytes > kOutBytes ? kStages* kStageBytes : kOutBytes;
  static_assert(kStageBlocks % kWarpsK == 0 && kStageBlocks % 2 == 0 &&
                kStageScales * kTilesPerScale<kFormat> == kStageBlocks);
};

__device__ __forceinline__ int64_t padded_tokens_of(const GemmWeightOnlyArgs& args) {
  return (int64_t{args.num_tokens} + 63) / 64 * 64;
}

// Where vector `v` of token t's row stands: neighbouring rows in opposite halves of 128 bytes, so that the eight lanes of a
// 128-bit access (two rows, four vectors) meet all banks once.
__device__ __forceinline__ int swizzled(int t, int v) { return v ^ (t % 2 * 4); }

// Brings stages in. Pointers run along instead of being held for every copy: registers belong to the sums.
template <typename S>
struct StageLoader {
  const GemmWeightOnlyArgs& args;
  uint8_t* shared;
  int64_t first_tile;  // of rows
  int num_tiles;       // of rows, from first_tile on
  int64_t first_token;
  int num_tokens;  // from first_token on
  int num_blocks;  // of 32 columns

  // Planes of entries for kBlocks blocks of columns each: those of a stage stand side by side, those past K or past N are zeros.
  template <int kTileBytes, int kBlocks>
  __device__ __forceinline__ void copy_tiles(uint8_t* to, const void* plane, int step) const {
    constexpr int kTileVectors = kTileBytes / 16, kVectors = S::kStageBlocks / kBlocks * kTileVectors;
    const int num_entries = (num_blocks + kBlocks - 1) / kBlocks, first_entry = step * (S::kStageBlocks / kBlocks);
    const auto* from = static_cast<const uint8_t*>(plane) + (first_tile * num_entries + first_entry) * kTileBytes;
    SEXTANT_ROLLED
    for (int n = 0; n < S::kWarpsN; ++n) {
      SEXTANT_UNROLL
      for (int i = 0; i < kVectors; i += S::kThreads) {
        const int v = i + static_cast<int>(threadIdx.x);
        if (kVectors % S::kThreads != 0 && v >= kVectors) continue;
        const bool read = n < num_tiles && first_entry + v / kTileVectors < num_entries;
        cp_async_16(to + v * 16, read ? from + v * 16 : plane, read);
      }
      to += kVectors * 16;
      from += int64_t{num_entries} * kTileBytes;
    }
  }

  __device__ __forceinline__ void load_weights(int step) const {
    uint8_t* stage = shared + step % S::kStages * S::kStageBytes;
    copy_tiles<kQuantTileBytes<S::kFormat>, 1>(stage + S::kQuants, args.quants, step);
    copy_tiles<kScaleTileBytes<S::kFormat>, kTilesPerScale<S::kFormat>>(stage + S::kScales, args.scales, step);
  }

  __device__ __forceinline__ void load_activations(int step) const {
    constexpr int kRowsPerPass = S::kThreads / S::kXVectors;
    static_assert(S::kThreads % (2 * S::kXVectors) == 0);  // a thread keeps to rows of one parity
    uint8_t* stage = shared + step % S::kStages * S::kStageBytes;
    const int first_block = step * S::kStageBlocks;
    const int first = static_cast<int>(threadIdx.x) / S::kXVectors;
    const int v = swizzled(first, static_cast<int>(threadIdx.x) % S::kXVectors);  // its own inverse
    const bool in_row = first_block + v / 4 < num_blocks;
    const auto* from = static_cast<const typename S::X*>(args.x) + (first_token + first) * args.x_stride +
                       first_block * kTileCols + v * 8;
    uint8_t* to = stage + threadIdx.x * 16;
    SEXTANT_ROLLED
    for (int t = first; t < S::kTokens; t += kRowsPerPass) {
      const bool read = in_row && t < num_tokens;
      cp_async_16(to, read ? static_cast<const void*>(from) : args.x, read);
      from += kRowsPerPass * args.x_stride;
      to += S::kThreads * 16;
    }
    if constexpr (S::kHasMinimum) {
      constexpr int kVectors = S::kTokens / 4;  // of a block's sums
      const int b = static_cast<int>(threadIdx.x) / kVectors;
      static_assert(S::kStageBlocks * kVectors <= S::kThreads);
      if (b < S::kStageBlocks) {
        const int64_t at = (first_block + b) * padded_tokens_of(args) + first_token + threadIdx.x % kVectors * 4;
        const bool read = first_block + b < num_blocks;
        cp_async_16(stage + S::kSums + threadIdx.x * 16, static_cast<const float*>(args.workspace) + (read ? at : 0),
                    read);
      }
    }
  }
};

// sums += a block of 32 columns of 32 rows with all tokens. `block` is the block's place in the stage.
template <typename S>
__device__ __forceinline__ void multiply_block(const uint8_t* stage, int warp_n, int block, int lane,
                                               float (&sums)[2][S::kTokens8][4]) {
  const int group = lane / 4, member = lane % 4;
  const int tile = warp_n * S::kStageBlocks + block;
  LaneTile<S::kFormat> quants;
  quants.load(stage + S::kQuants + tile * kQuantTileBytes<S::kFormat>, lane, [](const uint4* p) { return *p; });
  LaneScales<S::kFormat> scales;
  scales.load(stage + S::kScales + tile / kTilesPerScale<S::kFormat> * kScaleTileBytes<S::kFormat>, group);
  // Columns are dealt to the fragments so that a lane's eight are neighbours: step s, register i, half h of member m is
  // column 8 m + 4 s + 2 i + h, on both sides.
  uint32_t a[2][2][4];
  SEXTANT_UNROLL
  for (int half = 0; half < 2; ++half) {
    SEXTANT_UNROLL
    for (int s = 0; s < 2; ++s) {
      SEXTANT_UNROLL
      for (int r = 0; r < 4; ++r)
        a[half][s][r] = quants.template to_pair<typename S::X>(2 * half + r % 2, 2 * s + r / 2);
    }
  }
  SEXTANT_UNROLL
  for (int tokens = 0; tokens < S::kTokens8; ++tokens) {
    const int t = 8 * tokens + group;
    const uint4 x = reinterpret_cast<const uint4*>(stage)[t * S::kXVectors + swizzled(t, 4 * block + member)];
    const uint32_t b[2][2] = {{x.x, x.y}, {x.z, x.w}};
    float total[2] = {};
    if constexpr (S::kHasMinimum) {
      const float2 pair =
          reinterpret_cast<const float2*>(stage + S::kSums)[(block * S::kTokens + 8 * tokens) / 2 + member];
      total[0] = pair.x;
      total[1] = pair.y;
    }
    SEXTANT_UNROLL
    for (int half = 0; half < 2; ++half) {
      float s[4] = {};
      mma_m16n8k16<typename S::X>(s, a[half][0], b[0]);
      mma_m16n8k16<typename S::X>(s, a[half][1], b[1]);
      SEXTANT_UNROLL
      for (int i = 0; i < 4; ++i) {
        float& sum = sums[half][tokens][i];
        sum += scales.d(2 * half + i / 2) * s[i];
        if constexpr (S::kHasMinimum) sum += scales.m(2 * half + i / 2) * total[i % 2];
      }
    }
  }
}

template <typename S>
__global__ void __launch_bounds__(S::kThreads, S::kTokens == 64 ? 2 : 3)
    gemm_weight_only_kernel(GemmWeightOnlyArgs args) {
  SEXTANT_DYNAMIC_SHARED(uint8_t, shared);
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int warp_n = warp % S::kWarpsN, warp_k = warp / S::kWarpsN;
  // Groups of kGroupedTokenTiles runs of tokens, in each all rows: those runs take turns fastest.
  const int64_t row_blocks = (args.rows + 32 * S::kWarpsN - 1) / (32 * S::kWarpsN);
  const int64_t token_blocks = (args.num_tokens + S::kTokens - 1) / S::kTokens;
  const int64_t before = blockIdx.x / (kGroupedTokenTiles * row_blocks) * kGroupedTokenTiles;
  const int64_t in_group = token_blocks - before < kGroupedTokenTiles ? token_blocks - before : kGroupedTokenTiles;
  const int64_t place = blockIdx.x - before * row_blocks;
  const int64_t row_block = place / in_group;
  const int64_t first_token = (before + place % in_group) * S::kTokens;

  const int num_blocks = static_cast<int>(args.cols / kTileCols);
  const int num_steps = (num_blocks + S::kStageBlocks - 1) / S::kStageBlocks;
  const int64_t first_tile = row_block * S::kWarpsN;
  const StageLoader<S> loader{args,        shared,
                              first_tile,  static_cast<int>((args.rows + kTileRows - 1) / kTileRows - first_tile),
                              first_token, static_cast<int>(args.num_tokens - first_token),
                              num_blocks};
  for (int step = 0; step < S::kStages - 1 && step < num_steps; ++step) loader.load_weights(step);
  grid_dependency_wait();
  grid_dependency_launch();
  for (int step = 0; step < S::kStages - 1; ++step) {
    if (step < num_steps) loader.load_activations(step);
    cp_async_commit();
  }

  float sums[2][S::kTokens8][4] = {};
  SEXTANT_ROLLED
  for (int step = 0; step < num_steps; ++step) {
    cp_async_wait<S::kStages - 2>();
    __syncthreads();  // this stage has arrived for all; the one before it has been used by all
    const int ahead = step + S::kStages - 1;
    if (ahead < num_steps) {
      loader.load_weights(ahead);
      loader.load_activations(ahead);
    }
    cp_async_commit();
    const uint8_t* stage = shared + step % S::kStages * S::kStageBytes;
    const int left = num_blocks - step * S::kStageBlocks;
    SEXTANT_ROLLED
    for (int block = warp_k; block < S::kStageBlocks && block < left; block += S::kWarpsK) {
      multiply_block<S>(stage, warp_n, block, lane, sums);
    }
  }
  cp_async_wait<0>();
  __syncthreads();

  float* partial = reinterpret_cast<float*>(shared);
  SEXTANT_UNROLL
  for (int half = 0; half < 2; ++half) {
    SEXTANT_UNROLL
    for (int tokens = 0; tokens < S::kTokens8; ++tokens) {
      SEXTANT_UNROLL
      for (int i = 0; i < 4; ++i) {
        const int t = 8 * tokens + 2 * (lane % 4) + i % 2;
        const int n = 32 * warp_n + 16 * half + 8 * (i / 2) + lane / 4;
        partial[(warp_k * S::kTokens + t) * S::kOutStride + n] = sums[half][tokens][i];
      }
    }
  }
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < S::kTokens * 32 * S::kWarpsN; i += S::kThreads) {
    const int t = i / (32 * S::kWarpsN), n = i % (32 * S::kWarpsN);
    const int64_t token = first_token + t, row = row_block * 32 * S::kWarpsN + n;
    if (token >= args.num_tokens || row >= args.rows) continue;
    float sum = partial[t * S::kOutStride + n];
    SEXTANT_UNROLL
    for (int k = 1; k < S::kWarpsK; ++k) sum += partial[(k * S::kTokens + t) * S::kOutStride + n];
    if (args.out_type == ElementType::kFloat32) {
      static_cast<float*>(args.out)[token * args.out_stride + row] = sum;
    } else {
      static_cast<typename S::X*>(args.out)[token * args.out_stride + row] = from_float<typename S::X>(sum);
    }
  }
}

// sums[b, t] = the sum of token t's 32 columns of block b, in order; 0 for t past the last token. One thread each.
constexpr int kSumThreads = 128;
template <typename T>
__global__ void __launch_bounds__(kSumThreads) block_sums_kernel(GemmWeightOnlyArgs args) {
  grid_dependency_wait();
  grid_dependency_launch();
  const int64_t num_blocks = args.cols / kTileCols, stride = padded_tokens_of(args);
  const int64_t at = int64_t{blockIdx.x} * kSumThreads + threadIdx.x;
  const int64_t t = at / num_blocks, b = at % num_blocks;
  if (t >= stride) return;
  float sum = 0;
  if (t < args.num_tokens) {
    const uint4* x = reinterpret_cast<const uint4*>(static_cast<const T*>(args.x) + t * args.x_stride + b * kTileCols);
    SEXTANT_UNROLL
    for (int v = 0; v < 4; ++v) {
      float values[8];
      unpack_8<T>(x[v], values);
      SEXTANT_UNROLL
      for (int k = 0; k < 8; ++k) sum += values[k];
    }
  }
  static_cast<float*>(args.workspace)[b * stride + t] = sum;
}

template <typename S>
int launch_shape(const GemmWeightOnlyArgs& args, Stream stream) {
  static_assert(S::kSharedBytes <= 100 << 10);
  const int64_t blocks =
      (args.rows + 32 * S::kWarpsN - 1) / (32 * S::kWarpsN) * ((args.num_tokens + S::kTokens - 1) / S::kTokens);
  if (blocks > 0x7fffffff) return cudaErrorInvalidValue;
  if (S::kSharedBytes > 48 << 10) {
    const cudaError_t error =
        cudaFuncSetAttribute(gemm_weight_only_kernel<S>, cudaFuncAttributeMaxDynamicSharedMemorySize, S::kSharedBytes);
    if (error != cudaSuccess) return error;
  }
  const LaunchShape shape{.grid = dim3(static_cast<unsigned>(blocks)),
                          .block = dim3(S::kThreads),
                          .dynamic_shared_bytes = S::kSharedBytes,
                          .overlaps_previous = true};
  return launch(shape, stream, gemm_weight_only_kernel<S>, args);
}

template <WeightFormat kFormat, typename T>
int launch_format(const GemmWeightOnlyArgs& args, Stream stream) {
  if (kFormat == WeightFormat::kQ4_1) {
    const int64_t sums = padded_tokens(args.num_tokens) * (args.cols / kTileCols);
    const LaunchShape shape{.grid = dim3(static_cast<unsigned>((sums + kSumThreads - 1) / kSumThreads)),
                            .block = dim3(kSumThreads),
                            .overlaps_previous = true};
    const cudaError_t error = launch(shape, stream, block_sums_kernel<T>, args);
    if (error != cudaSuccess) return error;
  }
  if (args.num_tokens <= 8) return launch_shape<Shape<kFormat, T, 1, 1, 8, 8, 4>>(args, stream);
  if (args.num_tokens <= 16) return launch_shape<Shape<kFormat, T, 2, 1, 8, 8, 4>>(args, stream);
  if (args.num_tokens <= 32) return launch_shape<Shape<kFormat, T, 4, 2, 2, 4, 4>>(args, stream);
  if ((args.rows + 127) / 128 * ((args.num_tokens + 63) / 64) < kFillingBlocks) {
    return launch_shape<Shape<kFormat, T, 8, 2, 2, 4, 3>>(args, stream);
  }
  return launch_shape<Shape<kFormat, T, 8, 4, 1, 4, 3>>(args, stream);
}

// Of x_type T.
template <typename T>
int launch_type(const GemmWeightOnlyArgs& args, Stream stream) {
  switch (args.format) {
    case WeightFormat::kQ8_0: return launch_format<WeightFormat::kQ8_0, T>(args, stream);
    case WeightFormat::kQ4_0: return launch_format<WeightFormat::kQ4_0, T>(args, stream);
    case WeightFormat::kQ4_1: return launch_format<WeightFormat::kQ4_1, T>(args, stream);
    case WeightFormat::kF8Tiles: return launch_format<WeightFormat::kF8Tiles, T>(args, stream);
    default: return cudaErrorInvalidValue;  // cuBLASLt's
  }
}

}  // namespace

int gemm_weight_only(const GemmWeightOnlyArgs& args, Stream stream) {
  const auto is_aligned = [](const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; };
  if (args.num_tokens == 0) return cudaSuccess;
  if (args.num_tokens < 0 || args.rows < 1 || args.rows > 0x7fffffff || args.cols < 1 || args.cols > kMaxCols ||
      args.cols % kTileCols != 0 || args.x_stride % 8 != 0 || args.out_stride < args.rows || !is_aligned(args.x) ||
      !is_aligned(args.quants) || !is_aligned(args.scales) || !is_aligned(args.workspace) ||
      (args.workspace == nullptr && args.format == WeightFormat::kQ4_1) ||
      !takes_types(args.format, args.x_type, args.out_type)) {
    return cudaErrorInvalidValue;
  }
  return args.x_type == ElementType::kBFloat16 ? launch_type<bf16>(args, stream) : launch_type<fp16>(args, stream);
}

}  // namespace sextant::kernels::cuda
