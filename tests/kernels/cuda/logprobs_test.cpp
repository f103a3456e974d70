#include "kernels/cuda/logprobs.h"

#include <cmath>
#include <limits>

#include "kernels/ref/sampling.h"
#include "tests/kernels/cuda/cuda_test_support.h"

namespace sextant::kernels::cuda {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kUntouched = 77.0f;

class LogprobsTest : public SeededTest, public ::testing::Test {
 protected:
  struct Row {
    std::vector<float> logits;
    int32_t chosen;
    int32_t num_top;
  };

  // Runs the rows, which have one vocabulary size, and holds each to the reference.
  void expect_reference(const std::vector<Row>& rows, int32_t max_top, int64_t padding = 0) {
    const auto vocab = static_cast<int32_t>(rows[0].logits.size());
    const int64_t stride = vocab + padding;
    std::vector<float> logits;
    std::vector<int32_t> chosen, num_top;
    for (const Row& row : rows) {
      logits.insert(logits.end(), row.logits.begin(), row.logits.end());
      logits.insert(logits.end(), static_cast<size_t>(padding), NAN);
      chosen.push_back(row.chosen);
      num_top.insert(num_top.end(), {row.num_top, 12345, 12345});  // a field of a larger record
    }
    const size_t count = rows.size(), top_count = count * static_cast<size_t>(max_top);
    DeviceArray<float> in(logits), chosen_logprob(std::vector<float>(count, kUntouched)),
        top_logprob(std::vector<float>(top_count, kUntouched));
    DeviceArray<int32_t> chosen_ids(chosen), tops(num_top), rank(std::vector<int32_t>(count, -5)),
        top_id(std::vector<int32_t>(top_count, -5));
    ASSERT_EQ(token_logprobs({in.data(), stride, static_cast<int32_t>(count), vocab, chosen_ids.data(), tops.data(), 3,
                              max_top, chosen_logprob.data(), rank.data(), top_id.data(), top_logprob.data()},
                             nullptr),
              0);
    const std::vector<float> got_chosen = chosen_logprob.download(), got_top = top_logprob.download();
    const std::vector<int32_t> got_rank = rank.download(), got_id = top_id.download();
    for (size_t r = 0; r < count; ++r) {
      if (rows[r].num_top < 0) {
        EXPECT_EQ(got_chosen[r], kUntouched);
        EXPECT_EQ(got_rank[r], -5);
      } else {
        const ref::RowLogprobs expected = ref::row_logprobs(rows[r].logits, rows[r].chosen, rows[r].num_top);
        expect_near(got_chosen[r], expected.chosen, expected.log_total_error, r);
        EXPECT_EQ(got_rank[r], expected.rank) << "row " << r << " seed " << seed();
        for (size_t i = 0; i < expected.top.size(); ++i) {
          EXPECT_EQ(got_id[r * static_cast<size_t>(max_top) + i], expected.top_ids[i])
              << "row " << r << " place " << i << " of " << rows[r].num_top << " seed " << seed();
          expect_near(got_top[r * static_cast<size_t>(max_top) + i], expected.top[i], expected.log_total_error, r);
        }
      }
      const int32_t filled = std::min(std::max(rows[r].num_top, 0), vocab);
      for (int32_t i = filled; i < max_top; ++i) {
        EXPECT_EQ(got_top[r * static_cast<size_t>(max_top) + static_cast<size_t>(i)], kUntouched);
        EXPECT_EQ(got_id[r * static_cast<size_t>(max_top) + static_cast<size_t>(i)], -5);
      }
    }
  }

  static void expect_near(float got, double expected, double log_total_error, size_t row) {
    if (std::isinf(static_cast<float>(expected))) {  // past fp32's range, too
      EXPECT_EQ(got, static_cast<float>(expected)) << "row " << row;
    } else {
      EXPECT_NEAR(got, expected, log_total_error + std::fabs(expected) * kEpsilon) << "row " << row;
    }
  }

  Row random_row(int64_t vocab, int32_t max_top) {
    Row row{normals(vocab), static_cast<int32_t>(uniform(0, vocab - 1)), static_cast<int32_t>(uniform(-1, max_top))};
    const bool coarse = uniform(0, 1) == 0;  // ties
    for (float& x : row.logits) x = coarse ? std::round(x * 4) / 2 : x * 4;
    if (uniform(0, 3) == 0) {
      row.logits[static_cast<size_t>(uniform(0, vocab - 1))] = -kInf;
      row.logits[static_cast<size_t>(uniform(0, vocab - 1))] = NAN;
    }
    return row;
  }
};

TEST_F(LogprobsTest, RandomRows) {
  for (const int64_t vocab : {1, 5, 33, 1000, 4001}) {
    for (const int32_t max_top : {20, 0, 3}) {
      std::vector<Row> rows;
      for (int i = 0; i < 24 / kRoundsDivisor; ++i) rows.push_back(random_row(vocab, max_top));
      expect_reference(rows, max_top, uniform(0, 3));
    }
  }
}

TEST_F(LogprobsTest, UnderThreadOrders) {
  std::vector<Row> rows;
  for (int i = 0; i < 10; ++i) rows.push_back(random_row(601, 20));
  under_thread_orders(seed(), [&] { expect_reference(rows, 20); });
}

// Thousands of equal values, and thousands within one step of the first histogram: the list in shared memory is too
// short.
TEST_F(LogprobsTest, CrowdedTops) {
  std::vector<float> equal(5003, 1.25f), close(5003), far(5003);
  for (float& x : close) x = 1.0f + 1e-6f * static_cast<float>(uniform(0, 4000));
  for (float& x : far) x = -100.0f - static_cast<float>(uniform(0, 100000)) * 1e-3f;  // past the histogram of distances
  far[1234] = 0;
  under_thread_orders(seed(), [&] {
    expect_reference({{equal, 17, 20}, {close, 4000, 20}, {far, 1234, 20}, {far, 5, 20}, {equal, 5002, 0}}, 20);
  });
  expect_reference({{equal, 1, kMaxTopLogprobs}, {close, 2, kMaxTopLogprobs}, {far, 3, 255}}, kMaxTopLogprobs);
}

TEST_F(LogprobsTest, DegenerateRows) {
  expect_reference({{{kInf, 1, kInf, NAN}, 0, 4},
                    {{-kInf, -kInf, -kInf, -kInf}, 2, 4},
                    {{NAN, NAN, NAN, NAN}, 1, 2},
                    {{-kInf, 3, NAN, 3}, 0, 4},
                    {{-0.0f, 0.0f, -0.0f, -1.0f}, 3, 4},
                    {{3e38f, -3e38f, 0, 3e38f}, 1, 3}},
                   4);
}

TEST_F(LogprobsTest, VocabularyOfSmolLM2) {
  std::vector<Row> rows;
  for (int i = 0; i < 4; ++i) rows.push_back(random_row(49152, 20));
  expect_reference(rows, 20);
}

TEST(LogprobsLimits, AreChecked) {
  LogprobsArgs args = {};
  args.vocab_size = 8;
  args.logits_stride = 8;
  args.num_top_stride = 1;
  EXPECT_EQ(token_logprobs(args, nullptr), 0);
  args.num_rows = 1;
  const auto refused = [&](auto change) {
    LogprobsArgs changed = args;
    change(changed);
    return token_logprobs(changed, nullptr) != 0;
  };
  EXPECT_TRUE(refused([](LogprobsArgs& a) { a.num_rows = -1; }));
  EXPECT_TRUE(refused([](LogprobsArgs& a) { a.vocab_size = 0; }));
  EXPECT_TRUE(refused([](LogprobsArgs& a) { a.vocab_size = a.logits_stride = (1 << 18) + 1; }));
  EXPECT_TRUE(refused([](LogprobsArgs& a) { a.logits_stride = 7; }));
  EXPECT_TRUE(refused([](LogprobsArgs& a) { a.num_top_stride = 0; }));
  EXPECT_TRUE(refused([](LogprobsArgs& a) { a.max_top = kMaxTopLogprobs + 1; }));
  EXPECT_TRUE(refused([](LogprobsArgs& a) { a.max_top = -1; }));
}

}  // namespace
}  // namespace sextant::kernels::cuda
