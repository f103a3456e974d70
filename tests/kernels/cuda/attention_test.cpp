// Paged attention against fp64: ragged batches in shuffled blocks, every slot and every table entry that no row sees
// poisoned, work lists cut at random (engine/device's planner is tested beside it).
#include "kernels/cuda/attention.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "tests/kernels/cuda/cuda_test_support.h"

namespace sextant::kernels::cuda {
namespace {

struct Shape {
  int32_t group;
  int32_t num_kv_heads;
  int32_t head_dim_qk;
  int32_t head_dim_v;
  int32_t window = 0;
  float softcap = 0;
  bool causal = true;

  int32_t num_heads() const { return group * num_kv_heads; }
  KvLayout layout() const { return {num_kv_heads, head_dim_qk, head_dim_v}; }
  std::string text() const {
    return "group " + std::to_string(group) + " kv_heads " + std::to_string(num_kv_heads) + " dims " +
           std::to_string(head_dim_qk) + " " + std::to_string(head_dim_v) + " window " + std::to_string(window) +
           " cap " + std::to_string(softcap) + (causal ? " causal" : " full");
  }
};

// Rows as the element type holds them, [token][head][dim].
struct Sequence {
  int32_t num_queries;
  int32_t length;
  std::vector<float> q;
  std::vector<float> keys;
  std::vector<float> values;
};

enum class Path { kPrefill, kPrefillLarge, kPrefillSplit, kDecodeWhole, kDecodeSplit };

class AttentionTest : public ::testing::TestWithParam<ElementType>, public SeededTest {
 protected:
  std::vector<float> rounded(std::vector<float> values) {
    return from_16_bit(to_16_bit(values, GetParam()), GetParam());
  }

  Sequence random_sequence(const Shape& shape, int32_t num_queries, int32_t length) {
    // Scores of a spread of about 2: some positions matter, none alone.
    std::vector<float> q = normals(int64_t{num_queries} * shape.num_heads() * shape.head_dim_qk);
    for (float& x : q) x *= 2;
    return {num_queries, length, rounded(q), rounded(normals(int64_t{length} * shape.num_kv_heads * shape.head_dim_qk)),
            rounded(normals(int64_t{length} * shape.num_kv_heads * shape.head_dim_v))};
  }
  static float scale(const Shape& shape) { return 1.0f / std::sqrt(static_cast<float>(shape.head_dim_qk)); }

  static bool sees(const Shape& shape, int32_t position, int32_t j) {
    const bool near = shape.window == 0 || std::abs(position - j) < shape.window;
    return near && (!shape.causal || j <= position);
  }

  // Runs the batch and gives [token][head][dim_v]. What is not listed stays NaN.
  std::vector<float> attend(const Shape& shape, const std::vector<Sequence>& sequences, Path path) {
    const KvLayout layout = shape.layout();
    int32_t num_blocks = 1, max_blocks = 1, num_tokens = 0;
    for (const Sequence& s : sequences) {
      const int32_t blocks = (s.length + kBlockSlots - 1) / kBlockSlots;
      num_blocks += blocks;
      max_blocks = std::max(max_blocks, blocks);
      num_tokens += s.num_queries;
    }
    num_blocks += 3;
    const int64_t q_cols = int64_t{shape.num_heads()} * layout.head_dim_qk, q_stride = q_cols + 8;
    const int64_t out_cols = int64_t{shape.num_heads()} * layout.head_dim_v, out_stride = out_cols + 16;
    std::vector<int32_t> ids(static_cast<size_t>(num_blocks - 1));
    std::iota(ids.begin(), ids.end(), 1);
    std::shuffle(ids.begin(), ids.end(), random());
    std::vector<float> q(static_cast<size_t>(num_tokens * q_stride), NAN);
    std::vector<float> keys(static_cast<size_t>(num_blocks * layout.keys_per_block()), NAN);
    std::vector<float> values(static_cast<size_t>(num_blocks * layout.values_per_block()), NAN);
    std::vector<int32_t> tables(sequences.size() * static_cast<size_t>(max_blocks), 0x7fffffff), cu_seqlens{0}, lengths;
    size_t next_id = 0;
    for (size_t n = 0; n < sequences.size(); ++n) {
      const Sequence& s = sequences[n];
      for (int32_t t = 0; t < s.num_queries; ++t) {
        std::copy_n(s.q.begin() + t * q_cols, q_cols, q.begin() + (cu_seqlens.back() + t) * q_stride);
      }
      for (int32_t j = 0; j < s.length; ++j) {
        bool seen = false;
        for (int32_t t = 0; t < s.num_queries; ++t) seen = seen || sees(shape, s.length - s.num_queries + t, j);
        int32_t& block = tables[n * static_cast<size_t>(max_blocks) + static_cast<size_t>(j / kBlockSlots)];
        if (!seen) continue;
        if (block == 0x7fffffff) block = ids[next_id++];
        for (int32_t h = 0; h < shape.num_kv_heads; ++h) {
          std::copy_n(s.keys.begin() + (int64_t{j} * shape.num_kv_heads + h) * layout.head_dim_qk, layout.head_dim_qk,
                      keys.begin() + layout.key_offset(block, h, j % kBlockSlots));
          std::copy_n(s.values.begin() + (int64_t{j} * shape.num_kv_heads + h) * layout.head_dim_v, layout.head_dim_v,
                      values.begin() + layout.value_offset(block, h, j % kBlockSlots));
        }
      }
      cu_seqlens.push_back(cu_seqlens.back() + s.num_queries);
      lengths.push_back(s.length);
    }

    const bool prefill = path != Path::kDecodeWhole && path != Path::kDecodeSplit;
    const bool split = path == Path::kPrefillSplit || path == Path::kDecodeSplit;
    const int32_t item_rows = path == Path::kPrefillLarge ? kPrefillRowsLarge : prefill ? kPrefillRows : kDecodeRows;
    const int32_t unit = prefill ? 4 : 1, partials_of_an_item = prefill ? kPrefillRows / kPartialRows : 1;
    std::vector<AttentionItem> items;
    std::vector<MergeItem> merges;
    int32_t num_partials = 0;
    for (size_t n = 0; n < sequences.size(); ++n) {
      const auto id = static_cast<int32_t>(n);
      const Sequence& s = sequences[n];
      const int32_t rows = s.num_queries * shape.group, first_position = s.length - s.num_queries;
      for (int32_t r = 0; r < rows; r += item_rows) {
        const int32_t last = std::min(r + item_rows, rows) - 1;
        const VisibleRange low = visible_range(shape.window, shape.causal, first_position + r / shape.group, s.length);
        const VisibleRange high =
            visible_range(shape.window, shape.causal, first_position + last / shape.group, s.length);
        const int32_t begin = low.low / kBlockSlots / unit * unit;
        const int32_t end = std::max(begin, (high.high + kBlockSlots - 1) / kBlockSlots);
        if (!split || end - begin <= unit) {
          items.push_back({id, r, begin, end, -1});
          continue;
        }
        const int32_t first_partial = num_partials;
        int32_t num_pieces = 0;
        for (int32_t at = begin; at < end; ++num_pieces) {
          const int32_t to = std::min(end, at + unit * static_cast<int32_t>(uniform(1, prefill ? 2 : 5)));
          items.push_back({id, r, at, to, num_partials});
          num_partials += partials_of_an_item;
          at = to;
        }
        for (int32_t i = 0; i * kPartialRows <= last - r; ++i) {
          merges.push_back({id, r + i * kPartialRows, first_partial + i, partials_of_an_item, num_pieces});
        }
      }
    }
    // What a bucket leaves empty.
    items.push_back({-1, 0, 0, 0, -1});
    merges.push_back({-1, 0, 0, 0, 0});

    DeviceArray<uint16_t> q_on_device(to_16_bit(q, GetParam()));
    DeviceArray<uint16_t> keys_on_device(to_16_bit(keys, GetParam()));
    DeviceArray<uint16_t> values_on_device(to_16_bit(values, GetParam()));
    DeviceArray<uint16_t> out_on_device(
        to_16_bit(std::vector<float>(static_cast<size_t>(num_tokens * out_stride), NAN), GetParam()));
    DeviceArray<int32_t> cu_seqlens_on_device(cu_seqlens), lengths_on_device(lengths), tables_on_device(tables);
    DeviceArray<AttentionItem> items_on_device(items);
    DeviceArray<MergeItem> merges_on_device(merges);
    const int64_t partial_floats = num_partials * shape.num_kv_heads * attention_partial_floats(layout.head_dim_v);
    DeviceArray<float> partials(std::vector<float>(static_cast<size_t>(std::max<int64_t>(1, partial_floats)), NAN));
    AttentionArgs args = {};
    args.q = q_on_device.data();
    args.q_stride = q_stride;
    args.keys = keys_on_device.data();
    args.values = values_on_device.data();
    args.layout = layout;
    args.out = out_on_device.data();
    args.out_stride = out_stride;
    args.type = GetParam();
    args.num_heads = shape.num_heads();
    args.scale = scale(shape);
    args.softcap = shape.softcap;
    args.window = shape.window;
    args.causal = shape.causal;
    args.cu_seqlens_q = cu_seqlens_on_device.data();
    args.seq_lens = lengths_on_device.data();
    args.block_tables = tables_on_device.data();
    args.block_table_stride = max_blocks;
    args.prefill_items = args.decode_items = items_on_device.data();
    (prefill ? args.num_prefill_items : args.num_decode_items) = static_cast<int32_t>(items.size());
    args.prefill_rows = prefill ? item_rows : kPrefillRows;
    args.merges = merges_on_device.data();
    args.num_merges = static_cast<int32_t>(merges.size());
    args.merge_rows = kPartialRows;
    args.partials = partials.data();
    EXPECT_EQ(attention_prefill(args, nullptr), 0);
    EXPECT_EQ(attention_decode(args, nullptr), 0);
    EXPECT_EQ(attention_merge(args, nullptr), 0);
    EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    const std::vector<float> strided = from_16_bit(out_on_device.download(), GetParam());
    std::vector<float> out;
    for (int32_t t = 0; t < num_tokens; ++t) {
      const auto row = strided.begin() + t * out_stride;
      out.insert(out.end(), row, row + out_cols);
      EXPECT_TRUE(std::all_of(row + out_cols, row + out_stride, [](float x) { return std::isnan(x); }));
    }
    return out;
  }

  // Worst-case error of one row: relative to the weighted mean of |v| (`spread`) and to the result.
  struct Bound {
    double relative;
    double absolute;
  };
  Bound bound(const Shape& shape, double top, double num_visible) const {
    // Tensor cores may truncate where they sum: twice the unit roundoff.
    const double u = kEpsilon, sum_u = 2 * kEpsilon;
    // A score: a sum over head_dim; products with constants, the difference to the maximum. tanh_of: 2^-21 and its
    // argument's.
    const double score = top * ((shape.head_dim_qk + 2) * sum_u + 6 * u) + shape.softcap * (0x1p-21 + 8 * u);
    // A weight: the score's error, its own and (as many tiles as there are, of at least 16 positions) the running
    // exp2's.
    const double tiles = num_visible / 16 + 2;
    const double weight = 2 * score + 0x1p-22 + tiles * (0x1p-22 + 2 * u);
    // Weights are rounded to the type before they meet v; sums run over what is visible.
    const double relative = epsilon(GetParam()) + 2 * weight + 2 * (num_visible + 2 * tiles + 8) * sum_u;
    // fp16: half of its least subnormal for each weight, of which the largest is 1.
    return {relative, GetParam() == ElementType::kFloat16 ? 0x1p-25 : 0.0};
  }

  void expect_close(const Shape& shape, const std::vector<Sequence>& sequences, const std::vector<float>& out) {
    const auto qk = static_cast<size_t>(shape.head_dim_qk), v = static_cast<size_t>(shape.head_dim_v);
    const size_t dim = std::max(qk, v), kv_heads = static_cast<size_t>(shape.num_kv_heads);
    size_t row = 0;  // of [token][head]
    for (const Sequence& s : sequences) {
      for (int32_t t = 0; t < s.num_queries; ++t) {
        const int32_t position = s.length - s.num_queries + t;
        for (int32_t h = 0; h < shape.num_heads(); ++h, ++row) {
          const size_t kv_head = static_cast<size_t>(h / shape.group);
          // Only what the row sees, filled up to one dimension: for the reference all of it lies before the query.
          std::vector<double> q(dim, 0.0), keys, values, sizes;
          const auto from_q =
              (static_cast<size_t>(t) * static_cast<size_t>(shape.num_heads()) + static_cast<size_t>(h)) * qk;
          for (size_t d = 0; d < qk; ++d) q[d] = s.q[from_q + d];
          int64_t num_visible = 0;
          double top = 0;
          for (int32_t j = 0; j < s.length; ++j) {
            if (!sees(shape, position, j)) continue;
            ++num_visible;
            double products = 0;
            const size_t at = static_cast<size_t>(j) * kv_heads + kv_head;
            for (size_t d = 0; d < dim; ++d) {
              keys.push_back(d < qk ? s.keys[at * qk + d] : 0.0);
              values.push_back(d < v ? s.values[at * v + d] : 0.0);
              sizes.push_back(std::fabs(values.back()));
              products += std::fabs(q[d] * keys.back());
            }
            top = std::max(top, products * scale(shape));
          }
          if (num_visible == 0) {
            for (size_t d = 0; d < v; ++d) ASSERT_EQ(out[row * v + d], 0.0f) << "row " << row << " sees nothing";
            continue;
          }
          const ref::AttentionProblem problem{scale(shape), shape.softcap, 0};
          const std::vector<double> expected = ref::attention(q, keys, values, num_visible - 1, problem);
          const std::vector<double> spread = ref::attention(q, keys, sizes, num_visible - 1, problem);
          const Bound b = bound(shape, top, static_cast<double>(num_visible));
          for (size_t d = 0; d < v; ++d) {
            double all = 0;
            for (size_t j = 0; j < static_cast<size_t>(num_visible); ++j) all += sizes[j * dim + d];
            const double rounding = epsilon(GetParam()) * std::fabs(expected[d]) + b.absolute;
            ASSERT_NEAR(out[row * v + d], expected[d],
                        (b.relative * spread[d] + b.absolute * all) * (1 + epsilon(GetParam())) + rounding)
                << "position " << position << " of " << s.length << " head " << h << " d " << d;
          }
        }
      }
    }
  }

  void expect_agreement(const Shape& shape, const std::vector<std::pair<int32_t, int32_t>>& queries_and_lengths,
                        const std::vector<Path>& paths) {
    std::vector<Sequence> sequences;
    for (const auto& [num_queries, length] : queries_and_lengths) {
      sequences.push_back(random_sequence(shape, num_queries, length));
    }
    for (const Path path : paths) {
      SCOPED_TRACE(shape.text() + " path " + std::to_string(static_cast<int>(path)) + " seed " +
                   std::to_string(seed()));
      const std::vector<float> out = attend(shape, sequences, path);
      expect_close(shape, sequences, out);
      if (HasFatalFailure()) return;
    }
  }
};

const std::vector<Path> kSmallPaths = {Path::kPrefill, Path::kPrefillSplit, Path::kDecodeWhole, Path::kDecodeSplit};
const std::vector<Path> kAllPaths = {Path::kPrefill, Path::kPrefillLarge, Path::kPrefillSplit, Path::kDecodeWhole,
                                     Path::kDecodeSplit};

TEST_P(AttentionTest, SmolLm2sShapeUnderSeveralThreadOrders) {
  const Shape shape{3, 3, 64, 64};
  under_thread_orders(seed(), [&] {
    expect_agreement(shape, {{1, 133}, {7, 7}, {1, 1}, {45, 100}}, {Path::kPrefill, Path::kPrefillSplit});
    expect_agreement(shape, {{47, 47}}, {Path::kPrefillLarge});
    expect_agreement(shape, {{1, 133}, {5, 70}, {1, 1}}, {Path::kDecodeWhole, Path::kDecodeSplit});
  });
}

TEST_P(AttentionTest, AnyHeadDimAndGroup) {
  struct Dims {
    int32_t group, qk, v;
  };
  for (const Dims dims : {Dims{1, 16, 16}, Dims{4, 32, 64}, Dims{8, 80, 80}, Dims{3, 96, 48}, Dims{5, 112, 128},
                          Dims{4, 128, 128}, Dims{1, 192, 128}}) {
    const Shape shape{dims.group, 2, dims.qk, dims.v};
    expect_agreement(shape, {{3, 50}, {9, 81}}, dims.qk <= 128 ? kAllPaths : kSmallPaths);
  }
  expect_agreement({2, 1, 256, 256}, {{2, 40}, {19, 67}}, kSmallPaths);
  expect_agreement({2, 1, 64, 208}, {{2, 40}}, kSmallPaths);
  expect_agreement({2, 1, 176, 96}, {{2, 40}}, kSmallPaths);
}

TEST_P(AttentionTest, WindowsSoftCapsAndBothDirections) {
  for (const int32_t window : {1, 16, 37, 70}) {
    expect_agreement({4, 1, 64, 64, window}, {{1, 150}, {20, 150}, {2, 2}}, kAllPaths);
  }
  expect_agreement({4, 1, 64, 64, 0, 3.0f}, {{1, 100}, {20, 70}}, kAllPaths);
  expect_agreement({2, 1, 256, 256, 30, 50.0f}, {{1, 64}, {5, 70}}, kSmallPaths);
  expect_agreement({2, 2, 64, 64, 0, 0, false}, {{1, 90}, {33, 33}, {10, 75}}, kAllPaths);
  expect_agreement({2, 1, 64, 64, 20, 2.0f, false}, {{40, 140}}, kAllPaths);
}

TEST_P(AttentionTest, MultiQueryWithMoreHeadsThanATileOfDecode) {
  expect_agreement({71, 1, 64, 64}, {{1, 65}, {2, 33}}, kSmallPaths);
}

// More partials than the groups of threads that merge them.
TEST_P(AttentionTest, LongContextsMergeManyPartials) {
  expect_agreement({4, 1, 64, 64}, {{1, 900}, {3, 650}}, {Path::kDecodeSplit, Path::kPrefillSplit});
  expect_agreement({2, 1, 128, 128, 300, 5.0f}, {{2, 900}}, {Path::kDecodeSplit, Path::kPrefillSplit});
}

// All scores are equal and values count: element d is the number of visible j with j % dim = d, exactly, over the
// number of visible j. One position too many or too few shows whatever the type's precision.
TEST_P(AttentionTest, SeesExactlyWhatIsVisible) {
  for (const Shape& shape : {Shape{3, 1, 64, 64}, Shape{3, 1, 64, 64, 40}, Shape{3, 1, 64, 64, 40, 0, false},
                             Shape{3, 1, 64, 64, 0, 0, false}}) {
    Sequence s = random_sequence(shape, 12, 150);
    std::fill(s.q.begin(), s.q.end(), 0.0f);
    for (size_t i = 0; i < s.values.size(); ++i) s.values[i] = i / 64 % 64 == i % 64 ? 1.0f : 0.0f;
    for (const Path path : kAllPaths) {
      SCOPED_TRACE(shape.text() + " path " + std::to_string(static_cast<int>(path)));
      const std::vector<float> out = attend(shape, {s}, path);
      for (int32_t t = 0; t < s.num_queries; ++t) {
        double counts[64] = {}, total = 0;
        for (int32_t j = 0; j < s.length; ++j) {
          if (!sees(shape, s.length - s.num_queries + t, j)) continue;
          ++counts[j % 64];
          ++total;
        }
        for (size_t i = 0; i < static_cast<size_t>(shape.group) * 64; ++i) {
          const double expected = counts[i % 64] / total;
          // One rounding to the type, after a quotient and a product in fp32.
          ASSERT_NEAR(out[static_cast<size_t>(t) * static_cast<size_t>(shape.group) * 64 + i], expected,
                      expected * (epsilon(GetParam()) + 3 * kEpsilon))
              << "token " << t << " element " << i;
        }
      }
    }
  }
}

// Tiles of positions begin at fixed places, so a row's arithmetic does not depend on its neighbours.
TEST_P(AttentionTest, ChunksOfAPromptGiveTheBitsOfTheWhole) {
  for (const Shape& shape : {Shape{3, 2, 64, 64}, Shape{2, 1, 128, 128, 50}}) {
    const Sequence whole = random_sequence(shape, 150, 150);
    const std::vector<float> expected = attend(shape, {whole}, Path::kPrefill);
    EXPECT_EQ(attend(shape, {whole}, Path::kPrefillLarge), expected) << "seed " << seed();
    const auto row = static_cast<size_t>(shape.num_heads());
    int32_t done = 0;
    std::vector<float> joined;
    while (done < whole.length) {
      const int32_t count = std::min(whole.length - done, static_cast<int32_t>(uniform(1, 70)));
      Sequence chunk{count, done + count, {}, whole.keys, whole.values};
      const auto q_row = static_cast<int64_t>(row) * shape.head_dim_qk;
      chunk.q.assign(whole.q.begin() + done * q_row, whole.q.begin() + (done + count) * q_row);
      const std::vector<float> out = attend(shape, {chunk, whole}, Path::kPrefill);
      joined.insert(joined.end(), out.begin(),
                    out.begin() + static_cast<int64_t>(count) * shape.num_heads() * shape.head_dim_v);
      done += count;
    }
    EXPECT_EQ(joined, expected) << shape.text() << " seed " << seed();
  }
}

TEST_P(AttentionTest, RowsThatSeeNothingAreZero) {
  // Rows that stand before the sequence begins: as padding does with a length of 0.
  const Shape shape{3, 1, 64, 64};
  under_thread_orders(seed(), [&] { expect_agreement(shape, {{2, 0}, {5, 3}, {1, 17}, {43, 0}}, kAllPaths); });
}

TEST_P(AttentionTest, LimitsAreChecked) {
  alignas(16) uint16_t memory[8] = {};
  AttentionArgs valid = {};
  valid.q = valid.keys = valid.values = valid.out = memory;
  valid.partials = reinterpret_cast<float*>(memory);
  valid.layout = {1, 64, 64};
  valid.type = GetParam();
  valid.num_heads = 2;
  valid.scale = 1;
  valid.prefill_rows = kPrefillRows;
  valid.merge_rows = kPartialRows;
  const auto refused = [&](auto change) {
    AttentionArgs args = valid;
    change(args);
    // With nothing to do all is well; with work the limits count.
    EXPECT_EQ(attention_prefill(args, nullptr), 0);
    args.num_prefill_items = args.num_decode_items = args.num_merges = 1;
    return attention_prefill(args, nullptr) != 0 && attention_decode(args, nullptr) != 0 &&
           attention_merge(args, nullptr) != 0;
  };
  EXPECT_TRUE(refused([](AttentionArgs& a) { a.layout.head_dim_qk = 72; }));
  EXPECT_TRUE(refused([](AttentionArgs& a) { a.layout.head_dim_v = 272; }));
  EXPECT_TRUE(refused([](AttentionArgs& a) { a.layout.num_kv_heads = 0; }));
  EXPECT_TRUE(refused([](AttentionArgs& a) { a.num_heads = 3, a.layout.num_kv_heads = 2; }));
  EXPECT_TRUE(refused([](AttentionArgs& a) { a.type = ElementType::kFloat32; }));
  EXPECT_TRUE(refused([](AttentionArgs& a) { a.scale = 0; }));
  EXPECT_TRUE(refused([](AttentionArgs& a) { a.softcap = -1; }));
  EXPECT_TRUE(refused([](AttentionArgs& a) { a.window = -1; }));
  EXPECT_TRUE(refused([](AttentionArgs& a) { a.q_stride = 4; }));
  EXPECT_TRUE(refused([](AttentionArgs& a) { a.q = static_cast<const char*>(a.q) + 2; }));
  AttentionArgs args = valid;
  args.num_prefill_items = args.num_merges = 1;
  args.prefill_rows = 32;
  EXPECT_NE(attention_prefill(args, nullptr), 0);
  args.prefill_rows = kPrefillRowsLarge;
  args.layout.head_dim_qk = 256;
  EXPECT_NE(attention_prefill(args, nullptr), 0);
  args.merge_rows = kPartialRows + 1;
  EXPECT_NE(attention_merge(args, nullptr), 0);
}

INSTANTIATE_TEST_SUITE_P(Types, AttentionTest, ::testing::Values(ElementType::kBFloat16, ElementType::kFloat16),
                         [](const auto& type) {
                           return std::string(type.param == ElementType::kBFloat16 ? "bf16" : "fp16");
                         });

}  // namespace
}  // namespace sextant::kernels::cuda
