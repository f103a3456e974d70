// Matrix product over panels (matmul.h). Compiled once per instruction set.
//
// Tokens are taken in tiles whose sums fit the registers: as many of the largest as there are, and the smallest that holds the
// rest, filled up with zeros whose results are dropped. So each (row, token) has the same chain of operations in every tile.
#include "kernels/matmul.h"

#include "kernels/cpu/isa_entries.h"
#include "kernels/cpu/matmul_int8.h"
#include "kernels/cpu/matmul_plain.h"

SEXTANT_DECLARE_ISA_ENTRIES(SEXTANT_ISA)

namespace sextant::kernels::cpu::SEXTANT_ISA {
namespace {

// The smallest tile of `Tiles` that holds `tokens`, or the largest.
template <typename Tiles>
SEXTANT_INLINE int tile_index(int64_t tokens) {
  int index = 0;
  while (index + 1 < Tiles::kNumTiles && Tiles::tokens(index) < tokens) ++index;
  return index;
}
template <typename Tiles>
constexpr int kLargestTile = Tiles::tokens(Tiles::kNumTiles - 1);

// The two halves of block b of a row; zeros from column `columns` on.
SEXTANT_INLINE void load_block(const float* row, int64_t b, int64_t columns, F32x16 half[2]) {
  for (int h = 0; h < 2; ++h) {
    const float* from = row + b * kPanelBlock + 16 * h;
    const int64_t n = columns - b * kPanelBlock - 16 * h;
    half[h] = n >= 16 ? load(from) : n > 0 ? load_n(from, static_cast<int>(n)) : zero();
  }
}

// One tile of kTile tokens, of which there are `count`.
template <typename Input, int kTile>
void bring_in_tile(const MatmulInputArgs& args, int64_t first, int count, uint8_t* to) {
  constexpr int64_t kBlockBytes = kTile * matmul_input_block_bytes(Input::kKind);
  const int64_t blocks = num_panel_blocks(args.cols);
  const float* x = args.x + first * args.x_stride;
  for (int64_t b = 0; b < blocks; ++b, to += kBlockBytes) {
    F32x16 half[kTile][2];
#pragma GCC unroll 16
    for (int t = 0; t < kTile; ++t) load_block(x + t * args.x_stride, b, t < count ? args.cols : 0, half[t]);
    if (Input::template put_rows<kTile>(half, to)) continue;
    for (int t = 0; t < kTile; ++t) Input::put(half[t][0], half[t][1], to, kTile, t);
  }
}

template <typename Input, typename Tiles>
void bring_in(const MatmulInputArgs& args) {
  static_assert(kMatmulTileMultiple % kLargestTile<Tiles> == 0);
  const int64_t token_bytes = num_panel_blocks(args.cols) * matmul_input_block_bytes(Input::kKind);
  for (int64_t first = args.token_begin; first < args.token_end; first += kLargestTile<Tiles>) {
    const int64_t left = args.num_tokens - first;
    const int index = tile_index<Tiles>(left);
    unroll<Tiles::kNumTiles>([&](auto i) {
      constexpr int kTile = Tiles::tokens(decltype(i)::value);
      if (index != decltype(i)::value) return;
      bring_in_tile<Input, kTile>(args, first, left < kTile ? static_cast<int>(left) : kTile,
                                  args.input + first * token_bytes);
    });
  }
}

template <typename Input, typename Tiles>
void multiply(const MatmulArgs& args) {
  const int64_t token_bytes = num_panel_blocks(args.cols) * matmul_input_block_bytes(Input::kKind);
  // With several tiles, a few panels at a time meet all of them while they are in the cache.
  constexpr int64_t kPanelsPerRound = 8;
  const int64_t round = args.num_tokens <= kLargestTile<Tiles> ? args.panel_end - args.panel_begin : kPanelsPerRound;
  for (int64_t begin = args.panel_begin; begin < args.panel_end; begin += round) {
    const int64_t end = begin + round < args.panel_end ? begin + round : args.panel_end;
    for (int64_t first = 0; first < args.num_tokens; first += kLargestTile<Tiles>) {
      const int64_t left = args.num_tokens - first;
      const int index = tile_index<Tiles>(left), tile = Tiles::tokens(index);
      const TileJob job{
          &args, begin, end, args.input + first * token_bytes, first, left < tile ? static_cast<int>(left) : tile};
      unroll<Tiles::kNumTiles>([&](auto i) {
        if (index == decltype(i)::value) Tiles::template run<decltype(i)::value>(job);
      });
    }
  }
}

}  // namespace

void matmul_input(const MatmulInputArgs& args) {
  switch (args.kind) {
    case MatmulInputKind::kPlain: return bring_in<PlainInput, PlainTiles<PanelType::kF32>>(args);
    case MatmulInputKind::kBf16: return;  // matmul_bf16.cpp
    case MatmulInputKind::kInt8: return bring_in<Int8Input, Int8Tiles<PanelType::kQ8_0>>(args);
  }
}

void matmul(const MatmulArgs& args) {
  if (args.panel_begin >= args.panel_end) return;
  switch (args.type) {
    case PanelType::kF32: return multiply<PlainInput, PlainTiles<PanelType::kF32>>(args);
    case PanelType::kF16: return multiply<PlainInput, PlainTiles<PanelType::kF16>>(args);
    case PanelType::kBF16: return multiply<PlainInput, PlainTiles<PanelType::kBF16>>(args);
    case PanelType::kQ8_0: return multiply<Int8Input, Int8Tiles<PanelType::kQ8_0>>(args);
    case PanelType::kQ4_0: return multiply<Int8Input, Int8Tiles<PanelType::kQ4_0>>(args);
    case PanelType::kQ4_1: return multiply<Int8Input, Int8Tiles<PanelType::kQ4_1>>(args);
    case PanelType::kQ4K: return multiply<Int8Input, Int8Tiles<PanelType::kQ4K>>(args);
    case PanelType::kQ5K: return multiply<Int8Input, Int8Tiles<PanelType::kQ5K>>(args);
    case PanelType::kQ6K: return multiply<Int8Input, Int8Tiles<PanelType::kQ6K>>(args);
  }
}

}  // namespace sextant::kernels::cpu::SEXTANT_ISA
