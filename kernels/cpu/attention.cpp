// Attention over the paged cache (attention.h). Compiled once per instruction set.
//
// Per split of 256 positions: scores of all rows (lanes are 16 keys), softmax per row, then the weighted sum of values (lanes
// are 16 elements of a value) and the merge into the rows' running state. Rows are taken a few at a time for the sake of
// registers; which rows are neighbours never changes what is computed for one.
#include "kernels/attention.h"

#include "kernels/cpu/attention_cells.h"
#include "kernels/cpu/isa_entries.h"
#include "kernels/cpu/simd_math.h"

SEXTANT_DECLARE_ISA_ENTRIES(SEXTANT_ISA)

namespace sextant::kernels::cpu::SEXTANT_ISA {
namespace {

// Rows at a time for scores; rows and vectors of a value at a time for the weighted sum.
#if SEXTANT_ISA_LEVEL >= 10
constexpr int kScoreRows = 4, kValueRows = 2, kValueVectors = 2, kManyTiles = 2, kManyTilesRows = 1;
#elif SEXTANT_ISA_LEVEL == 3
// Sums enough for two products a cycle that take six, and fewer loads than products.
constexpr int kScoreRows = 6, kValueRows = 6, kValueVectors = 4, kManyTiles = 4, kManyTilesRows = 6;
#elif SEXTANT_ISA_LEVEL == 2
constexpr int kScoreRows = 8, kValueRows = 4, kValueVectors = 4, kManyTiles = 4, kManyTilesRows = 4;
#elif SEXTANT_ISA_LEVEL == 1
constexpr int kScoreRows = 4, kValueRows = 3, kValueVectors = 2, kManyTiles = 2, kManyTilesRows = 2;
#else
constexpr int kScoreRows = 2, kValueRows = 1, kValueVectors = 2, kManyTiles = 1, kManyTilesRows = 0;
#endif

SEXTANT_INLINE int32_t min_of(int32_t a, int32_t b) { return a < b ? a : b; }
SEXTANT_INLINE int32_t max_of(int32_t a, int32_t b) { return a > b ? a : b; }

struct Range {  // positions begin <= j < end
  int32_t begin, end;
};

// The part of split `split` that a row at `position` sees.
SEXTANT_INLINE Range visible(int32_t position, int32_t window, int32_t split) {
  const int32_t first = window > 0 ? max_of(0, position - window + 1) : 0;
  return {max_of(first, split * kAttentionSplit), min_of(position + 1, (split + 1) * kAttentionSplit)};
}

SEXTANT_INLINE float exp_one(float x) {
  float lane[16];
  store(lane, exp_lanes(broadcast(x)));
  return lane[0];
}

// The running state of a row: o [value_dim], m, l, as in a partial.
struct RowState {
  float* o;
  int64_t value_dim;
  float& m() const { return o[value_dim]; }
  float& l() const { return o[value_dim + 1]; }
};

// Merges the partial `part` into `state`; l == 0 says "nothing yet".
SEXTANT_INLINE void merge(RowState state, RowState part) {
  if (part.l() == 0) return;
  if (state.l() == 0) {
    for (int64_t d = 0; d < state.value_dim; d += 16) store(state.o + d, load(part.o + d));
    state.m() = part.m();
    state.l() = part.l();
    return;
  }
  // One of the two factors is exp(0).
  const bool keeps = state.m() > part.m();
  const float m = keeps ? state.m() : part.m();
  const float a = keeps ? 1.0f : exp_one(state.m() - m), b = keeps ? exp_one(part.m() - m) : 1.0f;
  const F32x16 av = broadcast(a), bv = broadcast(b);
  for (int64_t d = 0; d < state.value_dim; d += 16) {
    store(state.o + d, add(mul(load(state.o + d), av), mul(load(part.o + d), bv)));
  }
  state.m() = m;
  state.l() = state.l() * a + part.l() * b;
}

SEXTANT_INLINE void finish(RowState state, float* out, int32_t head_dim) {
  const F32x16 inverse = broadcast(1.0f / state.l());
  for (int32_t d = 0; d < head_dim; d += 16) {
    store_n(out + d, mul(load(state.o + d), inverse), min_of(16, head_dim - d));
  }
}

// Scores of kRows rows with kTiles tiles that follow one another.
template <typename Cells, int kRows, int kTiles>
void score_tiles(const float* q, const typename Cells::Element* const* keys, int32_t head_dim, float scale,
                 float softcap, const float* key_scales, float* scores) {
  F32x16 sum[kTiles][kRows];
#pragma GCC unroll 4
  for (int n = 0; n < kTiles; ++n) {
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) sum[n][r] = zero();
  }
  Cells::template add_scores<kRows, kTiles>(q, keys, head_dim, sum);
#pragma GCC unroll 4
  for (int n = 0; n < kTiles; ++n) {
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      F32x16 s = sum[n][r];
      if (Cells::kType == KvType::kInt8) s = mul(s, load(key_scales + n * kKvTile));
      s = mul(s, broadcast(scale));
      if (softcap > 0) s = mul(tanh_lanes(div(s, broadcast(softcap))), broadcast(softcap));
      store(scores + r * kAttentionSplit + n * kKvTile, s);
    }
  }
}

template <typename Cells>
class Tile {
  using Element = typename Cells::Element;
  using Weight = typename Cells::Weight;

 public:
  explicit Tile(const AttentionTileArgs& args)
      : args_(args),
        rows_(args.num_tokens * args.group),
        value_dim_(args.layout.value_dim()),
        cache_(kIsInt8 ? nullptr : static_cast<const Element*>(args.cache)) {
    const int64_t state = value_dim_ + 16;  // m and l behind o; the rest keeps rows aligned
    state_stride_ = state;
    q_ = args.scratch;
    scores_ = q_ + int64_t{rows_} * args.layout.head_dim;
    states_ = scores_ + int64_t{rows_} * kAttentionSplit;
    parts_ = states_ + rows_ * state;
    // fp32 weights take the place of their scores.
    weights_ = sizeof(Weight) == sizeof(float) ? reinterpret_cast<Weight*>(scores_)
                                               : reinterpret_cast<Weight*>(parts_ + rows_ * state);
    key_scales_ = parts_ + rows_ * (state + kAttentionSplit / 2);
    value_scales_ = key_scales_ + kAttentionSplit;
    if constexpr (kIsInt8) {
      keys_ = reinterpret_cast<Element*>(value_scales_ + kAttentionSplit);
      values_ = keys_ + int64_t{kAttentionSplit} * args.layout.head_dim;
    }
  }

  void run() {
    pack_queries();
    float* const parts = parts_;
    for (int32_t split = args_.split_begin; split < args_.split_end; ++split) {
      if constexpr (kIsInt8) widen(split);
      // The first split's parts are what nothing has been merged with.
      const bool merges = args_.partials == nullptr && split > args_.split_begin;
      parts_ = args_.partials == nullptr && !merges ? states_ : parts;
      compute_scores(split);
      for (int32_t r = 0; r < rows_; ++r) softmax(split, r);
      weigh_values(split);
      if (args_.partials == nullptr) {
        for (int32_t r = 0; merges && r < rows_; ++r) merge(state(states_, r), state(parts_, r));
      } else {
        float* out = args_.partials + (split - args_.split_begin) * rows_ * (value_dim_ + 2);
        for (int32_t r = 0; r < rows_; ++r) {
          __builtin_memcpy(out + r * (value_dim_ + 2), parts_ + r * state_stride_,
                           static_cast<size_t>(value_dim_ + 2) * sizeof(float));
        }
      }
    }
    if (args_.partials != nullptr) return;
    for (int32_t r = 0; r < rows_; ++r) {
      float* out = args_.out + r / args_.group * args_.out_stride + r % args_.group * args_.layout.head_dim;
      finish(state(states_, r), out, args_.layout.head_dim);
    }
  }

 private:
  RowState state(float* base, int32_t row) const { return {base + row * state_stride_, value_dim_}; }
  int32_t position(int32_t row) const { return args_.first_position + row / args_.group; }
  Range range(int32_t row, int32_t split) const { return visible(position(row), args_.window, split); }
  // Rows from `row` on that are computed together.
  int32_t rows_from(int32_t row) const { return min_of(kScoreRows, rows_ - row); }

  void pack_queries() {
    const int32_t dim = args_.layout.head_dim;
    for (int32_t first = 0; first < rows_; first += kScoreRows) {
      const int32_t count = rows_from(first);
      for (int32_t r = 0; r < count; ++r) {
        const int32_t row = first + r;
        const float* q = args_.q + row / args_.group * args_.q_stride + row % args_.group * dim;
        Cells::pack_query(q, dim, count, r, q_ + int64_t{first} * dim);
      }
    }
  }

  // Positions of the split that any of rows [first, first + count) sees; rows are in the order of position.
  Range seen_by(int32_t first, int32_t count, int32_t split) const {
    return {range(first, split).begin, range(first + count - 1, split).end};
  }

  // What the rows see of a split as bf16 cells of one run of positions, and its scales.
  void widen(int32_t split) {
    const KvCellLayout& layout = args_.layout;
    const auto* cache = static_cast<const int8_t*>(args_.cache);
    const Range all = seen_by(0, rows_, split);
    for (int32_t tile = all.begin / kKvTile * kKvTile; tile < all.end; tile += kKvTile) {
      const int64_t block = args_.block_table[tile / layout.block_size];
      const int32_t place = tile % layout.block_size, head = args_.kv_head, at = tile - split * kAttentionSplit;
      Cells::widen(cache + layout.key_offset(block, head, place, 0, KvType::kInt8), int64_t{kKvTile} * layout.head_dim,
                   keys_ + int64_t{at} * layout.head_dim);
      Cells::widen(cache + layout.value_offset(block, head, place, 0, KvType::kInt8), kKvTile * value_dim_,
                   values_ + at * value_dim_);
      __builtin_memcpy(key_scales_ + at, cache + layout.key_scale_offset(block, head, place), kKvTile * sizeof(float));
      __builtin_memcpy(value_scales_ + at, cache + layout.value_scale_offset(block, head, place),
                       kKvTile * sizeof(float));
    }
  }

  const Element* keys_of(int32_t tile) const {
    const KvCellLayout& layout = args_.layout;
    if constexpr (kIsInt8) return keys_ + int64_t{tile % kAttentionSplit} * layout.head_dim;
    const int64_t block = args_.block_table[tile / layout.block_size];
    return cache_ + layout.key_offset(block, args_.kv_head, tile % layout.block_size, 0, Cells::kType);
  }

  void compute_scores(int32_t split) {
    const KvCellLayout& layout = args_.layout;
    const int32_t start = split * kAttentionSplit;
    const Range all = seen_by(0, rows_, split);
    // Few rows are computed with several tiles at a time, for the sake of sums that do not wait for one another.
    const int32_t step = (min_of(rows_, kScoreRows) <= kManyTilesRows ? kManyTiles : 1) * kKvTile;
    for (int32_t tile = all.begin / kKvTile * kKvTile; tile < all.end;) {
      const Element* keys[kManyTiles];
      const int32_t left = (all.end - tile + kKvTile - 1) / kKvTile * kKvTile;
      const int32_t taken = left >= step ? step : left >= 2 * kKvTile && step > kKvTile ? 2 * kKvTile : kKvTile;
      for (int32_t n = 0; n < kManyTiles; ++n) keys[n] = keys_of(tile + min_of(n * kKvTile, taken - kKvTile));
      for (int32_t first = 0; first < rows_; first += kScoreRows) {
        const int32_t count = rows_from(first);
        const Range seen = seen_by(first, count, split);
        if (tile >= seen.end || tile + taken <= seen.begin) continue;
        const float* q = q_ + int64_t{first} * layout.head_dim;
        float* scores = scores_ + int64_t{first} * kAttentionSplit + (tile - start);
        const float* key_scales = key_scales_ + (tile - start);
        unroll<kScoreRows>([&](auto i) {
          constexpr int kRows = decltype(i)::value + 1;
          if (count != kRows) return;
          unroll<3>([&](auto n) {
            constexpr int kTiles = 1 << decltype(n)::value;
            if constexpr (kTiles == 1 || (kTiles <= kManyTiles && kRows <= kManyTilesRows)) {
              if (taken == kTiles * kKvTile)
                score_tiles<Cells, kRows, kTiles>(q, keys, layout.head_dim, args_.scale, args_.softcap, key_scales,
                                                  scores);
            }
          });
        });
      }
      tile += taken;
    }
  }

  // Turns a row's scores into weights exp(s - m), 0 where it sees nothing, and starts its part. (Several rows side by side were
  // not quicker.)
  void softmax(int32_t split, int32_t row) {
    constexpr int32_t kStep = Cells::kWeightStep;
    const RowState part = state(parts_, row);
    for (int64_t d = 0; d < value_dim_; d += 16) store(part.o + d, zero());
    part.m() = -__builtin_inff();
    part.l() = 0;
    const Range seen = range(row, split);
    if (seen.begin >= seen.end) return;
    const int32_t begin = seen.begin - split * kAttentionSplit, end = seen.end - split * kAttentionSplit;
    // Whole steps: what is beside the row's positions, computed or not, counts as -inf.
    const int32_t first = begin / kStep * kStep, last = (end + kStep - 1) / kStep * kStep;
    float* scores = scores_ + int64_t{row} * kAttentionSplit;
    const F32x16 nothing = broadcast(-__builtin_inff());
    F32x16 top = nothing;
    for (int32_t i = first; i < last; i += kKvTile) {
      F32x16 s = load(scores + i);
      if (i < begin || i + kKvTile > end) {
        s = select(lanes(min_of(kKvTile, max_of(0, begin - i)), max_of(0, min_of(kKvTile, end - i))), s, nothing);
        store(scores + i, s);
      }
      top = max(top, s);
    }
    const float m = reduce_max(top);
    const F32x16 offset = broadcast(m * -kLog2e);
    Weight* weights = weights_ + int64_t{row} * kAttentionSplit;
    F32x16 sum = zero();
    for (int32_t i = first; i < last; i += kStep) {
      if constexpr (kIsInt8) {
        sum = Cells::add_weights(scores + i, value_scales_ + i, offset, weights + i, sum);
      } else {
        sum = Cells::add_weights(scores + i, offset, weights + i, sum);
      }
    }
    part.m() = m;
    part.l() = reduce_add(sum);
  }

  void weigh_values(int32_t split) {
    for (int32_t first = 0; first < rows_; first += kValueRows) {
      const int32_t count = min_of(kValueRows, rows_ - first);
      // What all of these rows see is done together; what only some see, before and after it, row by row.
      Range together = range(first, split);
      for (int32_t r = 1; r < count; ++r) {
        const Range seen = range(first + r, split);
        together = {max_of(together.begin, seen.begin), min_of(together.end, seen.end)};
      }
      // Slots that are multiplied in pairs are for no row taken apart where it sees both.
      together = {(together.begin + Cells::kPair - 1) / Cells::kPair * Cells::kPair,
                  together.end / Cells::kPair * Cells::kPair};
      if (together.begin >= together.end) {
        by_token(first, count, [&](int32_t row, int32_t rows) { weigh_rows(row, rows, range(row, split), split); });
        continue;
      }
      by_token(first, count, [&](int32_t row, int32_t rows) {
        weigh_rows(row, rows, {range(row, split).begin, together.begin}, split);
      });
      weigh_rows(first, count, together, split);
      by_token(first, count, [&](int32_t row, int32_t rows) {
        weigh_rows(row, rows, {together.end, range(row, split).end}, split);
      });
    }
  }

  // body(row, rows) for each run of rows of one token, which see the same.
  template <typename Body>
  void by_token(int32_t first, int32_t count, Body&& body) const {
    for (int32_t row = first; row < first + count;) {
      const int32_t end = min_of(first + count, (row / args_.group + 1) * args_.group);
      body(row, end - row);
      row = end;
    }
  }

  void weigh_rows(int32_t first, int32_t rows, Range seen, int32_t split) {
    if (seen.begin >= seen.end) return;
    unroll<kValueRows>([&](auto i) {
      constexpr int kRows = decltype(i)::value + 1;
      if (rows == kRows) weigh<kRows>(first, seen, split);
    });
  }

  template <int kRows>
  void weigh(int32_t first, Range seen, int32_t split) {
    const Weight* p = weights_ + int64_t{first} * kAttentionSplit - split * kAttentionSplit;
    int32_t v = 0;
    const int32_t vectors = static_cast<int32_t>(value_dim_ / 16);
    for (; v + kValueVectors <= vectors; v += kValueVectors) weigh_vectors<kRows, kValueVectors>(first, seen, p, v);
    for (; v < vectors; ++v) weigh_vectors<kRows, 1>(first, seen, p, v);
  }

  template <int kRows, int kVectors>
  void weigh_vectors(int32_t first, Range seen, const Weight* p, int32_t v) {
    const KvCellLayout& layout = args_.layout;
    F32x16 sum[kRows][kVectors];
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
      for (int i = 0; i < kVectors; ++i) sum[r][i] = load(parts_ + (first + r) * state_stride_ + (v + i) * 16);
    }
    const int32_t* block = args_.block_table + seen.begin / layout.block_size;
    int32_t place = seen.begin % layout.block_size;
    if (kIsInt8) {
      place = seen.begin % kAttentionSplit;
      const Element* values = values_ + place / Cells::kPair * Cells::kPair * value_dim_;
      Cells::template add_values<kRows, kVectors>(values + v * 16 * Cells::kPair, value_dim_, p + seen.begin, place,
                                                  seen.end - seen.begin, sum);
    }
    for (int32_t j = kIsInt8 ? seen.end : seen.begin; j < seen.end; ++block, place = 0) {
      const int32_t count = min_of(layout.block_size - place, seen.end - j);
      // Of the pair that holds the slot, where slots stand in pairs.
      const Element* values =
          cache_ + layout.value_offset(*block, args_.kv_head, place / Cells::kPair * Cells::kPair, 0, Cells::kType);
      Cells::template add_values<kRows, kVectors>(values + v * 16 * Cells::kPair, value_dim_, p + j, place, count, sum);
      j += count;
    }
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
      for (int i = 0; i < kVectors; ++i) store(parts_ + (first + r) * state_stride_ + (v + i) * 16, sum[r][i]);
    }
  }

  static constexpr bool kIsInt8 = Cells::kType == KvType::kInt8;
  const AttentionTileArgs& args_;
  int32_t rows_;
  int64_t value_dim_;
  int64_t state_stride_;
  const Element* cache_;
  float* q_;         // per group of kScoreRows rows, as Cells packs them
  float* scores_;    // [rows][256]
  float* states_;    // [rows][state_stride]
  float* parts_;     // [rows][state_stride]
  Weight* weights_;  // [rows][256]
  // int8: the split at hand.
  float* key_scales_;    // [256]
  float* value_scales_;  // [256]
  Element* keys_ = nullptr;
  Element* values_ = nullptr;
};

}  // namespace

void attention_tile(const AttentionTileArgs& args) {
  switch (args.cache_type) {
    case KvType::kFp32: Tile<Fp32Cells>(args).run(); break;
    case KvType::kBf16: Tile<Bf16Cells>(args).run(); break;
    case KvType::kInt8: Tile<Int8Cells>(args).run(); break;
  }
}

void attention_merge(const AttentionMergeArgs& args) {
  const int64_t value_dim = (args.head_dim + 15) / 16 * 16, stride = value_dim + 2;
  const RowState state{args.scratch, value_dim};
  for (int32_t r = 0; r < args.rows; ++r) {
    state.l() = 0;
    for (int32_t s = 0; s < args.num_splits; ++s) {
      // A partial is read only, but a state is what merge takes.
      const float* part = args.partials + (int64_t{s} * args.rows + r) * stride;
      merge(state, RowState{const_cast<float*>(part), value_dim});
    }
    finish(state, args.out + r / args.group * args.out_stride + r % args.group * args.head_dim, args.head_dim);
  }
}

}  // namespace sextant::kernels::cpu::SEXTANT_ISA
