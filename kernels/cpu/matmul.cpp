// Matrix product over panels (matmul.h). Compiled once per instruction set.
//
// Tokens are taken in tiles of up to kMaxTile; a tile's x is copied into [K / 8][tile][8], so that the inner loop addresses all
// of it from one pointer. A tile runs over its panels kPanels at a time: a block's sums stay in registers, one per (panel,
// token), while the blocks' total lives in memory that the first-level cache holds. Short tiles and short panel groups are
// filled up with zero tokens and repeated panels whose results are dropped: each (row, token) has the same chain of operations.
#include "kernels/matmul.h"

#include "kernels/cpu/isa_entries.h"
#include "kernels/cpu/simd.h"

SEXTANT_DECLARE_ISA_ENTRIES(SEXTANT_ISA)

namespace sextant::kernels::cpu::SEXTANT_ISA {
namespace {

constexpr int kChunk = 8;  // columns between two looks at the weights' address

// How a block's weights become lanes, and how a block's sum joins the total.
template <PanelType kType>
struct Weights;

template <PanelType kType>
struct PlainWeights {
  static constexpr bool kNeedsSum = false;
  static constexpr int64_t kElement = kType == PanelType::kF32 ? 4 : 2;
  const uint8_t* p;

  SEXTANT_INLINE PlainWeights chunk(const uint8_t* block, int i) { return {block + i * kChunk * 16 * kElement}; }
  template <int kColumn>
  __attribute__((always_inline)) F32x16 column() const {
    const uint8_t* at = p + kColumn * 16 * kElement;
    if constexpr (kType == PanelType::kF32) return load(reinterpret_cast<const float*>(at));
    if constexpr (kType == PanelType::kF16) return load_f16(at);
    if constexpr (kType == PanelType::kBF16) return load_bf16(at);
  }
  struct Scales {};
  SEXTANT_INLINE Scales scales(const uint8_t*) { return {}; }
  SEXTANT_INLINE F32x16 join(F32x16 total, F32x16 sum, Scales, F32x16) { return add(total, sum); }
};
template <>
struct Weights<PanelType::kF32> : PlainWeights<PanelType::kF32> {};
template <>
struct Weights<PanelType::kF16> : PlainWeights<PanelType::kF16> {};
template <>
struct Weights<PanelType::kBF16> : PlainWeights<PanelType::kBF16> {};

template <>
struct Weights<PanelType::kQ8_0> {
  static constexpr bool kNeedsSum = false;
  const uint8_t* p;

  SEXTANT_INLINE Weights chunk(const uint8_t* block, int i) { return {block + i * kChunk * 16}; }
  template <int kColumn>
  __attribute__((always_inline)) F32x16 column() const {
    return load_i8(p + kColumn * 16);
  }
  struct Scales {
    F32x16 d;
  };
  SEXTANT_INLINE Scales scales(const uint8_t* block) { return {load_f16(block + 512)}; }
  SEXTANT_INLINE F32x16 join(F32x16 total, F32x16 sum, Scales s, F32x16) { return fma(s.d, sum, total); }
};

template <>
struct Weights<PanelType::kQ4_0> {
  static constexpr bool kNeedsSum = false;
  U32x16 nibbles;

  SEXTANT_INLINE Weights chunk(const uint8_t* block, int i) { return {load_u32(block + i * 64)}; }
  template <int kColumn>
  __attribute__((always_inline)) F32x16 column() const {
    return nibble_signed<kColumn>(nibbles);
  }
  struct Scales {
    F32x16 d;
  };
  SEXTANT_INLINE Scales scales(const uint8_t* block) { return {load_f16(block + 256)}; }
  SEXTANT_INLINE F32x16 join(F32x16 total, F32x16 sum, Scales s, F32x16) { return fma(s.d, sum, total); }
};

template <>
struct Weights<PanelType::kQ4_1> {
  static constexpr bool kNeedsSum = true;
  U32x16 nibbles;

  SEXTANT_INLINE Weights chunk(const uint8_t* block, int i) { return {load_u32(block + i * 64)}; }
  template <int kColumn>
  __attribute__((always_inline)) F32x16 column() const {
    return nibble_unsigned<kColumn>(nibbles);
  }
  struct Scales {
    F32x16 d, m;
  };
  SEXTANT_INLINE Scales scales(const uint8_t* block) { return {load_f16(block + 256), load_f16(block + 288)}; }
  SEXTANT_INLINE F32x16 join(F32x16 total, F32x16 sum, Scales s, F32x16 x_sum) {
    return fma(s.m, x_sum, fma(s.d, sum, total));
  }
};

// One tile of tokens against panels [begin, end).
struct TileJob {
  const MatmulArgs* args;
  int64_t begin;
  int64_t end;
  const float* x;      // [blocks * 4][tile][8]
  const float* x_sum;  // [blocks][tile]
  float* totals;       // [kPanels * kTokens][16]
  int64_t first_token;
  int num_tokens;  // <= kTokens; the rest of the tile is zeros
};

template <PanelType kType, int kPanels, int kTokens>
void run_tile(const TileJob& job) {
  using W = Weights<kType>;
  constexpr int64_t kBlockBytes = panel_block_bytes(kType);
  const MatmulArgs& args = *job.args;
  const int64_t blocks = num_panel_blocks(args.cols), stride = blocks * kBlockBytes;
  for (int64_t group = job.begin; group < job.end; group += kPanels) {
    const uint8_t* block[kPanels];
    for (int r = 0; r < kPanels; ++r) {
      const int64_t panel = group + r < job.end ? group + r : job.end - 1;
      block[r] = args.panels + panel * stride;
    }
    F32x16 total[kPanels][kTokens];
    for (int r = 0; r < kPanels; ++r) {
      for (int t = 0; t < kTokens; ++t) total[r][t] = zero();
    }
    const float* x = job.x;
    for (int64_t b = 0; b < blocks; ++b) {
      F32x16 sum[kPanels][kTokens];
#pragma GCC unroll 16
      for (int r = 0; r < kPanels; ++r) {
#pragma GCC unroll 16
        for (int t = 0; t < kTokens; ++t) sum[r][t] = zero();
      }
      for (int i = 0; i < kPanelBlock / kChunk; ++i) {
        decltype(W::chunk(nullptr, 0)) w[kPanels];
#pragma GCC unroll 16
        for (int r = 0; r < kPanels; ++r) w[r] = W::chunk(block[r], i);
        unroll<kChunk>([&](auto column) __attribute__((always_inline)) {
          constexpr int kColumn = decltype(column)::value;
          F32x16 lane[kPanels];
#pragma GCC unroll 16
          for (int r = 0; r < kPanels; ++r) lane[r] = w[r].template column<kColumn>();
#pragma GCC unroll 16
          for (int t = 0; t < kTokens; ++t) {
            const F32x16 xk = broadcast(x[t * kChunk + kColumn]);
#pragma GCC unroll 16
            for (int r = 0; r < kPanels; ++r) sum[r][t] = fma(lane[r], xk, sum[r][t]);
          }
        });
        x += kTokens * kChunk;
      }
#pragma GCC unroll 16
      for (int r = 0; r < kPanels; ++r) {
        const auto scales = W::scales(block[r]);
        block[r] += kBlockBytes;
#pragma GCC unroll 16
        for (int t = 0; t < kTokens; ++t) {
          F32x16 x_sum = zero();
          if constexpr (W::kNeedsSum) x_sum = broadcast(job.x_sum[b * kTokens + t]);
          total[r][t] = W::join(total[r][t], sum[r][t], scales, x_sum);
        }
      }
    }
    for (int r = 0; r < kPanels && group + r < job.end; ++r) {
      const int64_t row = (group + r) * kPanelRows;
      const int count = args.rows - row < kPanelRows ? static_cast<int>(args.rows - row) : kPanelRows;
      for (int t = 0; t < job.num_tokens; ++t) {
        float* out = args.out + (job.first_token + t) * args.out_stride + row;
        if (count == kPanelRows) {
          store(out, total[r][t]);
        } else {
          store_n(out, total[r][t], count);
        }
      }
    }
  }
}

using RunTile = void(const TileJob& job);

struct TileShape {
  int tokens;
  int panels;
};

// Ascending; the last is the largest. Sized so that sums, weights and a broadcast fit the registers.
#if SEXTANT_ISA_LEVEL == 2
constexpr TileShape kTiles[] = {{1, 4}, {2, 4}, {4, 4}, {8, 2}, {12, 2}};
#elif SEXTANT_ISA_LEVEL == 1
constexpr TileShape kTiles[] = {{1, 2}, {2, 2}, {4, 1}, {6, 1}};
#else
constexpr TileShape kTiles[] = {{1, 1}, {2, 1}};
#endif
constexpr int kNumTiles = sizeof(kTiles) / sizeof(kTiles[0]);
constexpr int kMaxTile = kTiles[kNumTiles - 1].tokens;
static_assert(kMatmulTokensPerPass % kMaxTile == 0);

template <PanelType kType>
RunTile* tile_function(int index) {
  RunTile* function = nullptr;
  unroll<kNumTiles>([&](auto i) {
    constexpr TileShape kShape = kTiles[decltype(i)::value];
    if (index == decltype(i)::value) function = run_tile<kType, kShape.panels, kShape.tokens>;
  });
  return function;
}

// Copies a tile's x into its place, zeros past the last column and token, and sums each block's x.
void fill_tile(const MatmulArgs& args, int64_t first_token, int num_tokens, int tile, float* x, float* x_sum) {
  const int64_t blocks = num_panel_blocks(args.cols);
  for (int t = 0; t < tile; ++t) {
    const float* row = args.x + (first_token + t) * args.x_stride;
    for (int64_t b = 0; b < blocks; ++b) {
      F32x16 half[2] = {zero(), zero()};
      if (t < num_tokens) {
        const int64_t left = args.cols - b * kPanelBlock;
        for (int h = 0; h < 2; ++h) {
          const int64_t n = left - 16 * h;
          if (n >= 16) {
            half[h] = load(row + b * kPanelBlock + 16 * h);
          } else if (n > 0) {
            half[h] = load_n(row + b * kPanelBlock + 16 * h, static_cast<int>(n));
          }
        }
      }
      x_sum[b * tile + t] = reduce_add(add(half[0], half[1]));
      float lane[32];
      store(lane, half[0]);
      store(lane + 16, half[1]);
      for (int i = 0; i < 4; ++i) __builtin_memcpy(x + ((b * 4 + i) * tile + t) * kChunk, lane + i * kChunk, 32);
    }
  }
}

template <PanelType kType>
void run(const MatmulArgs& args) {
  const int64_t blocks = num_panel_blocks(args.cols);
  for (int64_t pass = 0; pass < args.num_tokens; pass += kMatmulTokensPerPass) {
    const int64_t left = args.num_tokens - pass;
    const int pass_tokens = left < kMatmulTokensPerPass ? static_cast<int>(left) : kMatmulTokensPerPass;
    TileJob jobs[kMatmulTokensPerPass];
    RunTile* functions[kMatmulTokensPerPass];
    int num_jobs = 0;
    float* next = args.scratch;
    for (int t = 0; t < pass_tokens;) {
      const int rest = pass_tokens - t;
      int index = 0;
      while (index + 1 < kNumTiles && kTiles[index].tokens < rest) ++index;
      const int tile = kTiles[index].tokens, tokens = rest < tile ? rest : tile;
      float* x = next;
      float* x_sum = x + blocks * kPanelBlock * tile;
      next = x_sum + blocks * tile;
      fill_tile(args, pass + t, tokens, tile, x, x_sum);
      functions[num_jobs] = tile_function<kType>(index);
      jobs[num_jobs++] = {&args, args.panel_begin, args.panel_end, x, x_sum, nullptr, pass + t, tokens};
      t += tokens;
    }
    // With several tiles, a few panels at a time meet all of them while they are in the cache.
    constexpr int64_t kPanelsPerRound = 8;
    const int64_t round = num_jobs == 1 ? args.panel_end - args.panel_begin : kPanelsPerRound;
    for (int64_t begin = args.panel_begin; begin < args.panel_end; begin += round) {
      for (int j = 0; j < num_jobs; ++j) {
        jobs[j].begin = begin;
        jobs[j].end = begin + round < args.panel_end ? begin + round : args.panel_end;
        functions[j](jobs[j]);
      }
    }
  }
}

}  // namespace

void matmul(const MatmulArgs& args) {
  if (args.panel_begin >= args.panel_end) return;
  switch (args.type) {
    case PanelType::kF32: return run<PanelType::kF32>(args);
    case PanelType::kF16: return run<PanelType::kF16>(args);
    case PanelType::kBF16: return run<PanelType::kBF16>(args);
    case PanelType::kQ8_0: return run<PanelType::kQ8_0>(args);
    case PanelType::kQ4_0: return run<PanelType::kQ4_0>(args);
    case PanelType::kQ4_1: return run<PanelType::kQ4_1>(args);
  }
}

}  // namespace sextant::kernels::cpu::SEXTANT_ISA
