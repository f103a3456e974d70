#include "kernels/cuda/embed.h"

#include "kernels/cuda/element.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/ptx.h"
#include "kernels/cuda/weight_tile.h"

namespace sextant::kernels::cuda {
namespace {

constexpr int kThreads = 128;

// Columns 8 i .. 8 i + 7 of a row.
template <WeightFormat kFormat>
__device__ __forceinline__ void read_8(const EmbedArgs& args, int64_t row, int64_t i, float (&values)[8]) {
  if constexpr (kIsPlain<kFormat>) {
    using Weight = std::conditional_t<kFormat == WeightFormat::kFloat16, fp16, bf16>;
    unpack_8<Weight>(static_cast<const uint4*>(args.weights)[row * (args.cols / 8) + i], values);
  } else if constexpr (kIsF8RowMajor<kFormat>) {
    const uint2 q = static_cast<const uint2*>(args.weights)[row * (args.cols / 8) + i];
    unpack_8_e4m3(q.x, q.y, values);
    const auto* scales = static_cast<const float*>(args.scales);
    const float d =
        kFormat == WeightFormat::kF8Rows ? scales[row] : scales[row / 128 * ((args.cols + 511) / 512 * 4) + i / 16];
    SEXTANT_UNROLL
    for (int k = 0; k < 8; ++k) values[k] *= d;
  } else {
    // The one row of a lane's tile that is wanted, as if it were row 0 of four.
    const int64_t tile = row / kTileRows * (args.cols / kTileCols) + i / 4;
    const int in_tile = static_cast<int>(row % kTileRows), group = in_tile % 8, j = in_tile / 8;
    const int lane = group * 4 + static_cast<int>(i % 4);
    const uint8_t* quants = static_cast<const uint8_t*>(args.weights) + tile * kQuantTileBytes<kFormat>;
    LaneTile<kFormat> one;
    SEXTANT_UNROLL
    for (int v = 0; v < LaneTile<kFormat>::kVectors; ++v) {
      one.quants[v].x = reinterpret_cast<const uint32_t*>(quants + v * 512 + lane * 16)[j];
    }
    one.to_float_with_offset(0, values);
    LaneScales<kFormat> scales;
    const int64_t entry = row / kTileRows * num_scale_entries<kFormat>(static_cast<int>(args.cols / kTileCols)) +
                          i / (4 * kTilesPerScale<kFormat>);
    scales.load(static_cast<const uint8_t*>(args.scales) + entry * kScaleTileBytes<kFormat>, group);
    float d = 0, m = 0;
    SEXTANT_UNROLL
    for (int at = 0; at < 4; ++at) {
      if (at != j) continue;
      d = scales.d(at);
      if constexpr (LaneScales<kFormat>::kHasMinimum) m = scales.m(at);
    }
    SEXTANT_UNROLL
    for (int k = 0; k < 8; ++k) values[k] = __fmaf_rn(d, values[k] - LaneTile<kFormat>::offset(k), m);
  }
}

template <WeightFormat kFormat>
__global__ void __launch_bounds__(kThreads) embed_kernel(EmbedArgs args) {
  grid_dependency_wait();
  grid_dependency_launch();
  const int64_t row = args.ids[blockIdx.x] - args.first_row;
  if (row < 0 || row >= args.rows) return;
  float* out = args.out + blockIdx.x * args.out_stride;
  for (int64_t i = threadIdx.x; i < args.cols / 8; i += kThreads) {
    float values[8];
    read_8<kFormat>(args, row, i, values);
    SEXTANT_UNROLL
    for (int k = 0; k < 8; ++k) values[k] *= args.factor;
    float4* to = reinterpret_cast<float4*>(out + 8 * i);
    to[0] = make_float4(values[0], values[1], values[2], values[3]);
    to[1] = make_float4(values[4], values[5], values[6], values[7]);
  }
}

}  // namespace

int embed(const EmbedArgs& args, Stream stream) {
  if (args.num_tokens == 0) return cudaSuccess;
  if (args.num_tokens < 0 || args.rows < 1 || args.cols < 1 || args.cols % column_multiple(args.format) != 0 ||
      args.out_stride < args.cols || args.out_stride % 4 != 0 || reinterpret_cast<uintptr_t>(args.out) % 16 != 0 ||
      reinterpret_cast<uintptr_t>(args.weights) % 16 != 0 || reinterpret_cast<uintptr_t>(args.scales) % 16 != 0) {
    return cudaErrorInvalidValue;
  }
  const LaunchShape shape{
      .grid = dim3(static_cast<unsigned>(args.num_tokens)), .block = dim3(kThreads), .overlaps_previous = true};
  switch (args.format) {
    case WeightFormat::kBFloat16: return launch(shape, stream, embed_kernel<WeightFormat::kBFloat16>, args);
    case WeightFormat::kFloat16: return launch(shape, stream, embed_kernel<WeightFormat::kFloat16>, args);
    case WeightFormat::kQ8_0: return launch(shape, stream, embed_kernel<WeightFormat::kQ8_0>, args);
    case WeightFormat::kQ4_0: return launch(shape, stream, embed_kernel<WeightFormat::kQ4_0>, args);
    case WeightFormat::kQ4_1: return launch(shape, stream, embed_kernel<WeightFormat::kQ4_1>, args);
    case WeightFormat::kF8Tiles: return launch(shape, stream, embed_kernel<WeightFormat::kF8Tiles>, args);
    case WeightFormat::kF8Rows: return launch(shape, stream, embed_kernel<WeightFormat::kF8Rows>, args);
    case WeightFormat::kF8Blocks: return launch(shape, stream, embed_kernel<WeightFormat::kF8Blocks>, args);
  }
  return cudaErrorInvalidValue;
}

}  // namespace sextant::kernels::cuda
