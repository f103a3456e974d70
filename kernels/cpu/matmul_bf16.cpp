// Products of bf16 weights with inputs rounded to bf16 (matmul.h, kBf16) by vdpbf16ps, which takes two columns at a time. Compiled for
// instruction sets that have it.
#include "kernels/cpu/isa_entries.h"
#include "kernels/cpu/matmul_tile.h"

SEXTANT_DECLARE_MATMUL_BF16_ENTRIES(SEXTANT_ISA)

namespace sextant::kernels::cpu::SEXTANT_ISA {
namespace {

constexpr int kPairs = kPanelBlock / 2;
constexpr int64_t kBlockBytes = panel_block_stride(PanelType::kBF16), kPairBytes = kBlockBytes / kPairs;
constexpr int64_t kTokenBytes = matmul_input_block_bytes(MatmulInputKind::kBf16);
// Sums enough for two products a cycle, and fewer loads than products.
constexpr TileShape kTiles[] = {{1, 4}, {2, 4}, {4, 4}, {8, 2}, {12, 2}};
constexpr int kNumTiles = sizeof(kTiles) / sizeof(kTiles[0]), kLargest = kTiles[kNumTiles - 1].tokens;
static_assert(kMatmulTileMultiple % kLargest == 0);

// The smallest tile that holds `tokens`, or the largest.
SEXTANT_INLINE int tile_index(int64_t tokens) {
  int index = 0;
  while (index + 1 < kNumTiles && kTiles[index].tokens < tokens) ++index;
  return index;
}

// 16 rows of two columns that stand one after the other, as pairs.
SEXTANT_INLINE __m512bh load_pairs(const uint8_t* columns) {
  const __m512i low = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21,
                                       5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  return (__m512bh)_mm512_permutexvar_epi16(low, _mm512_loadu_si512(columns));
}

// kPanels at a time; a short group repeats its last panel, whose results are dropped.
template <int kPanels, int kTokens>
void run_tile(const TileJob& job) {
  const int64_t blocks = num_panel_blocks(job.args->cols);
  for (int64_t group = job.begin; group < job.end; group += kPanels) {
    const uint8_t* w[kPanels];
    for (int r = 0; r < kPanels; ++r) {
      const int64_t panel = group + r < job.end ? group + r : job.end - 1;
      w[r] = job.args->panels + panel * blocks * kBlockBytes;
    }
    F32x16 sum[kPanels][kTokens];
#pragma GCC unroll 16
    for (int r = 0; r < kPanels; ++r) {
#pragma GCC unroll 16
      for (int t = 0; t < kTokens; ++t) sum[r][t] = zero();
    }
    const uint8_t* x = job.input;
    for (int64_t pair = 0; pair < blocks * kPairs; ++pair, x += 4 * kTokens) {
      __m512bh weights[kPanels];
#pragma GCC unroll 16
      for (int r = 0; r < kPanels; ++r, w[r - 1] += kPairBytes) weights[r] = load_pairs(w[r]);
#pragma GCC unroll 16
      for (int t = 0; t < kTokens; ++t) {
        int32_t two;
        __builtin_memcpy(&two, x + 4 * t, 4);
        const __m512bh same = (__m512bh)_mm512_set1_epi32(two);
#pragma GCC unroll 16
        for (int r = 0; r < kPanels; ++r) sum[r][t].v = _mm512_dpbf16_ps(sum[r][t].v, weights[r], same);
      }
    }
    for (int r = 0; r < kPanels && group + r < job.end; ++r) {
      for (int t = 0; t < job.num_tokens; ++t) store_outputs(job, group + r, t, sum[r][t]);
    }
  }
}

}  // namespace

void matmul_bf16_input(const MatmulInputArgs& args) {
  const int64_t padded = num_panel_blocks(args.cols) * kPanelBlock;
  for (int64_t first = args.token_begin; first < args.token_end; first += kLargest) {
    const int64_t tile = kTiles[tile_index(args.num_tokens - first)].tokens;
    uint8_t* const to = args.input + first * (padded / kPanelBlock) * kTokenBytes;
    for (int64_t t = 0; t < tile; ++t) {
      const float* x = args.x + (first + t) * args.x_stride;
      for (int64_t k = 0; k < padded; k += 16) {
        const int64_t left = first + t < args.num_tokens ? args.cols - k : 0;
        const F32x16 lanes = left >= 16 ? load(x + k) : left > 0 ? load_n(x + k, static_cast<int>(left)) : zero();
        alignas(32) uint16_t rounded[16];
        _mm256_store_si256(reinterpret_cast<__m256i*>(rounded), (__m256i)_mm512_cvtneps_pbh(lanes.v));
        for (int64_t i = 0; i < 8; ++i) __builtin_memcpy(to + ((k / 2 + i) * tile + t) * 4, rounded + 2 * i, 4);
      }
    }
  }
}

void matmul_bf16(const MatmulArgs& args) {
  const int64_t token_bytes = num_panel_blocks(args.cols) * kTokenBytes;
  // With several tiles, a few panels at a time meet all of them while they are in the cache.
  constexpr int64_t kPanelsPerRound = 8;
  const int64_t round = args.num_tokens <= kLargest ? args.panel_end - args.panel_begin : kPanelsPerRound;
  for (int64_t begin = args.panel_begin; begin < args.panel_end; begin += round) {
    const int64_t end = begin + round < args.panel_end ? begin + round : args.panel_end;
    for (int64_t first = 0; first < args.num_tokens; first += kLargest) {
      const int64_t left = args.num_tokens - first;
      const int index = tile_index(left), tile = kTiles[index].tokens;
      const TileJob job{
          &args, begin, end, args.input + first * token_bytes, first, left < tile ? static_cast<int>(left) : tile};
      unroll<kNumTiles>([&](auto i) {
        constexpr TileShape kShape = kTiles[decltype(i)::value];
        if (index == decltype(i)::value) run_tile<kShape.panels, kShape.tokens>(job);
      });
    }
  }
}

}  // namespace sextant::kernels::cpu::SEXTANT_ISA
