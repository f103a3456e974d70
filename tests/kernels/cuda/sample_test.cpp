#include "kernels/cuda/sample.h"

#include <cmath>
#include <limits>
#include <tuple>

#include "tests/kernels/cuda/sample_rows.h"

namespace sextant::kernels::cuda {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

class SampleTest : public SeededTest, public ::testing::Test {
 protected:
  std::vector<float> logits(int64_t vocab, float spread) {
    std::vector<float> out = normals(vocab);
    for (float& x : out) x *= spread;
    return out;
  }
  int32_t token_of(int64_t vocab) { return static_cast<int32_t>(uniform(0, vocab - 1)); }
  float real(float low, float high) { return std::uniform_real_distribution<float>(low, high)(random()); }
  SampledRow greedy(std::vector<float> values) {
    SampledRow row{std::move(values), {}};
    row.problem.temperature = 0;
    return row;
  }

  // Any parameters at all.
  SampledRow random_row(int64_t vocab) {
    SampledRow row{logits(vocab, real(0.5f, 4.0f)), {}};
    ref::SamplingProblem& p = row.problem;
    row.seed = random()();
    row.choice_idx = static_cast<uint32_t>(uniform(0, 3));
    row.output_idx = static_cast<uint64_t>(uniform(0, 5000));
    p.temperature = uniform(0, 9) == 0 ? 0.0f : real(0.1f, 2.0f);
    if (uniform(0, 1) == 0) p.top_k = static_cast<int32_t>(uniform(1, uniform(0, 3) == 0 ? 2 * vocab : 50));
    if (uniform(0, 1) == 0) p.top_p = real(0.02f, 1.0f);
    if (uniform(0, 2) == 0) p.min_p = real(0.0f, 0.4f);
    if (uniform(0, 2) == 0) {
      std::map<int32_t, float> biases;
      for (int64_t i = uniform(1, 40); i > 0; --i) biases[token_of(vocab)] = real(-20, 20);
      p.biases.assign(biases.begin(), biases.end());
    }
    if (uniform(0, 1) == 0) {
      p.repetition_penalty = uniform(0, 1) == 0 ? 1.0f : real(0.5f, 2.0f);
      p.presence_penalty = uniform(0, 1) == 0 ? 0.0f : real(-2, 2);
      p.frequency_penalty = uniform(0, 1) == 0 ? 0.0f : real(-2, 2);
      for (int64_t i = uniform(0, 60); i > 0; --i) p.prompt_tokens.push_back(token_of(vocab));
      for (int64_t i = uniform(0, 60); i > 0; --i) p.output_tokens.push_back(token_of(std::min<int64_t>(vocab, 40)));
      row.last_output_on_device = !p.output_tokens.empty() && uniform(0, 1) == 0;
    }
    if (uniform(0, 3) == 0) {
      for (int64_t i = uniform(1, 5); i > 0; --i) p.masked.push_back(token_of(vocab));
    }
    if (uniform(0, 4) == 0) {
      for (int64_t i = uniform(1, 300); i > 0; --i) p.allowed.push_back(token_of(vocab));
    }
    if (uniform(0, 3) == 0) {
      for (int64_t i = uniform(1, 10); i > 0; --i) row.logits[static_cast<size_t>(token_of(vocab))] = -kInf;
      row.logits[static_cast<size_t>(token_of(vocab))] = NAN;
    }
    return row;
  }

  // Compares all rows with the reference; returns how many hang on less than rounding.
  int expect_reference(const std::vector<SampledRow>& rows, int32_t padding = 0, int32_t offset = 0) {
    const std::vector<int32_t> tokens = sample_rows(rows, padding, offset);
    int skipped = 0;
    for (size_t r = 0; r < rows.size(); ++r) {
      const ref::SamplingChoice expected = rows[r].expected();
      if (!expected.certain) {
        ++skipped;
        continue;
      }
      EXPECT_EQ(tokens[r], expected.token)
          << "row " << r << " of vocabulary " << rows[r].logits.size() << ": temperature "
          << rows[r].problem.temperature << " top_k " << rows[r].problem.top_k << " top_p " << rows[r].problem.top_p
          << " min_p " << rows[r].problem.min_p << " seed " << seed();
    }
    return skipped;
  }
};

TEST_F(SampleTest, GreedyTakesTheLowestIdOfTheLargest) {
  under_thread_orders(seed(), [&] {
    for (const int64_t vocab : {1, 3, 63, 64, 65, 2048, 4099}) {
      std::vector<SampledRow> rows;
      for (int i = 0; i < 4; ++i) {
        rows.push_back(greedy(logits(vocab, 1)));
        const float top = 9.0f;
        for (int ties = 0; ties <= i; ++ties) rows.back().logits[static_cast<size_t>(token_of(vocab))] = top;
      }
      for (const int32_t offset : {0, 1, 2, 3}) EXPECT_EQ(expect_reference(rows, 1, offset), 0);
    }
  });
}

TEST_F(SampleTest, NaNAndInfinities) {
  const std::vector<std::pair<std::vector<float>, int32_t>> cases = {
      {{NAN, NAN, NAN}, 0},         {{-kInf, -kInf}, 0},    {{NAN, -kInf, -3e38f, NAN}, 2}, {{1, kInf, kInf, 5}, 1},
      {{-kInf, NAN, kInf, NAN}, 2}, {{-0.0f, 0.0f, -1}, 0}, {{NAN, 3.4e38f, -3.4e38f}, 1}};
  under_thread_orders(seed(), [&] {
    for (const auto& [values, expected] : cases) {
      for (const float temperature : {0.0f, 1e-45f, 1e-6f}) {
        SampledRow row = greedy(values);
        row.problem.temperature = temperature;
        row.problem.top_p = 0.9f;
        row.problem.top_k = 2;
        row.problem.min_p = 0.1f;
        row.seed = 3;
        const int32_t token = sample_rows({row})[0];
        if (temperature == 0 || expected != 0 || values[0] != 0) {
          EXPECT_EQ(token, expected) << values[0] << " " << temperature;
        } else {
          EXPECT_LT(token, 2);  // -0 and 0 are equal: both may be drawn
        }
      }
    }
  });
}

TEST_F(SampleTest, TopKOfOneIsGreedyWithoutTies) {
  std::vector<SampledRow> rows, best;
  for (int i = 0; i < 20; ++i) {
    rows.push_back({logits(777, 3), {}});
    best.push_back(greedy(rows.back().logits));
    rows.back().seed = random()();
    rows.back().problem.temperature = 2.0f;
    rows.back().problem.top_k = 1;
    rows.back().problem.top_p = i % 2 == 0 ? 1.0f : 0.5f;
  }
  under_thread_orders(seed(), [&] { EXPECT_EQ(sample_rows(rows), sample_rows(best)); });
}

TEST_F(SampleTest, TiesAtTheCutStay) {
  // Five equal logits at the cut: with top_k 2, and with a top_p that the first of them passes, each is drawn
  // sometimes.
  std::vector<float> values(100, -30.0f);
  for (const size_t i : {3u, 50u, 51u, 52u, 99u}) values[i] = 2.0f;
  for (const bool by_count : {true, false}) {
    std::vector<SampledRow> rows;
    for (uint64_t i = 0; i < 200; ++i) {
      SampledRow row{values, {}};
      row.output_idx = i;
      row.seed = 11;
      if (by_count) {
        row.problem.top_k = 2;
      } else {
        row.problem.top_p = 0.15f;
      }
      rows.push_back(row);
    }
    EXPECT_EQ(expect_reference(rows), 0);
    const std::vector<int32_t> tokens = sample_rows(rows);
    EXPECT_EQ(std::set<int32_t>(tokens.begin(), tokens.end()), (std::set<int32_t>{3, 50, 51, 52, 99}));
  }
}

TEST_F(SampleTest, BiasAllowedMaskedAndPenaltiesAreExact) {
  // Greedy and over few distinct values, so that every step decides: no row may be skipped.
  under_thread_orders(seed(), [&] {
    std::vector<SampledRow> rows;
    for (int i = 0; i < 100; ++i) {
      rows.push_back(random_row(90));
      rows.back().problem.temperature = 0;
      for (float& x : rows.back().logits) x = std::isfinite(x) ? std::round(x * 2) : x;
    }
    EXPECT_EQ(expect_reference(rows), 0);
  });
}

TEST_F(SampleTest, TheTokenOfTheStepBeforeIsCounted) {
  SampledRow row = greedy({5, 4.5f, 4, 3});
  row.problem.frequency_penalty = 0.4f;
  row.problem.output_tokens = {0, 0};  // 5 - 0.8 = 4.2
  EXPECT_EQ(sample_rows({row})[0], 1);
  for (const auto& [last, expected] : std::vector<std::pair<int32_t, int32_t>>{{0, 1}, {1, 0}, {3, 1}}) {
    SampledRow overlapped = row;
    overlapped.problem.output_tokens.push_back(last);  // 1: 4.5 - 0.4 = 4.1 < 4.2
    overlapped.last_output_on_device = true;
    EXPECT_EQ(sample_rows({overlapped})[0], expected) << last;
  }
}

TEST_F(SampleTest, RandomRowsAgreeWithTheReference) {
  int skipped = 0, total = 0;
  for (int round = 0; round < 24 / kRoundsDivisor; ++round) {
    const int64_t vocab = uniform(1, round % 3 == 0 ? 5000 : 700);
    std::vector<SampledRow> rows;
    for (int i = 0; i < 100; ++i) rows.push_back(random_row(vocab));
    skipped += expect_reference(rows, static_cast<int32_t>(uniform(0, 5)), static_cast<int32_t>(uniform(0, 3)));
    total += 100;
  }
  std::cout << skipped << " of " << total << " rows hang on less than rounding\n";
  // A target hangs on rounding within 2 E of a boundary, E at most (3 * 10 + 4) units = 2e-6 of the total; with about
  // 1000 boundaries (the mean size) that is 0.8% of all targets at most, for each of the two cuts by mass.
  EXPECT_LT(skipped, total / 50);
}

TEST_F(SampleTest, RandomRowsUnderThreadOrders) {
  std::vector<SampledRow> rows;
  for (int i = 0; i < 60 / kRoundsDivisor; ++i) rows.push_back(random_row(301));
  std::vector<std::vector<int32_t>> results;
  under_thread_orders(seed(), [&] {
    expect_reference(rows);
    results.push_back(sample_rows(rows));
  });
  for (const auto& tokens : results) EXPECT_EQ(tokens, results[0]);  // uncertain ones too: sums have no order
}

// More values at the cut than the list in shared memory takes: all searches go over the row again and again.
TEST_F(SampleTest, CrowdedCuts) {
  const int64_t vocab = 9001;
  std::vector<SampledRow> rows;
  for (int i = 0; i < 12; ++i) {
    SampledRow row{std::vector<float>(static_cast<size_t>(vocab)), {}};
    for (float& x : row.logits) {
      x = i % 3 == 0 ? 1.5f : i % 3 == 1 ? 1.0f + 1e-4f * static_cast<float>(uniform(0, 50)) : real(-60, 1);
    }
    row.seed = random()();
    if (i % 2 == 0) row.problem.top_k = static_cast<int32_t>(uniform(4500, 8500));
    if (i % 4 < 2) row.problem.top_p = 0.97f;
    row.problem.temperature = 40.0f;
    rows.push_back(row);
  }
  const int skipped = expect_reference(rows);
  EXPECT_LT(skipped, 4);
  // A count can always be held against the reference: the k-th largest itself is drawn from, or not.
  for (const int32_t k : {4097, 8999, 9000}) {
    SampledRow row{std::vector<float>(static_cast<size_t>(vocab)), {}};
    for (size_t i = 0; i < row.logits.size(); ++i) row.logits[i] = static_cast<float>(i) * 1e-3f;
    row.problem.top_k = k;
    row.problem.temperature = 1e6f;  // all alike
    std::vector<SampledRow> draws(50, row);
    int64_t least = vocab;
    for (size_t i = 0; i < draws.size(); ++i) draws[i].output_idx = i;
    for (const int32_t token : sample_rows(draws)) least = std::min<int64_t>(least, token);
    EXPECT_GE(least, vocab - k);
    EXPECT_LE(expect_reference(draws), 8);
  }
}

TEST_F(SampleTest, VocabularyOfSmolLM2) {
  std::vector<SampledRow> rows;
  for (int i = 0; i < 10; ++i) rows.push_back(random_row(49152));
  const int skipped = expect_reference(rows);
  std::cout << skipped << " of 10 rows hang on less than rounding\n";
}

TEST_F(SampleTest, LargestVocabulary) {
  SampledRow row{logits(kMaxSampleVocab, 0), {}};  // the greatest total: all alike
  row.seed = random()();
  const int32_t token = sample_rows({row})[0];
  // Sums of equal masses are exact: the quantile itself.
  EXPECT_EQ(token, static_cast<int32_t>(std::floor(row.uniform() * kMaxSampleVocab)));
}

TEST_F(SampleTest, FrequenciesFollowTheDistribution) {
  SampledRow row{{0.3f, -1.0f, 2.0f, 1.1f, NAN, 0.0f, 1.9f, -0.4f, 0.8f, -kInf, 1.5f, -2.0f}, {}};
  row.problem.temperature = 1.3f;
  row.seed = random()();
  std::cout << "Philox seed " << row.seed << "\n";
  // Degrees of freedom 9 and 7: chi-squared is above these with probability 1e-6.
  for (const auto& [top_p, draws, num_cells, limit] : std::vector<std::tuple<float, int, int, double>>{
           {1.0f, 16000 / kRoundsDivisor, 10, 44.8}, {0.93f, 4000 / kRoundsDivisor, 8, 40.5}}) {
    row.problem.top_p = top_p;
    std::vector<SampledRow> rows(static_cast<size_t>(draws), row);
    for (size_t i = 0; i < rows.size(); ++i) rows[i].output_idx = i;
    std::vector<int> counts(row.logits.size());
    for (const int32_t token : sample_rows(rows)) ++counts[static_cast<size_t>(token)];
    const std::vector<double> p = ref::sampling_probabilities(row.logits, row.problem);
    double chi_squared = 0;
    int cells = 0;
    for (size_t i = 0; i < counts.size(); ++i) {
      if (p[i] == 0) {
        EXPECT_EQ(counts[i], 0) << i;
        continue;
      }
      ++cells;
      chi_squared += std::pow(counts[i] - p[i] * draws, 2) / (p[i] * draws);
    }
    EXPECT_EQ(cells, num_cells);
    EXPECT_LT(chi_squared, limit);
  }
}

TEST(SampleLimits, AreChecked) {
  SampleArgs args = {};
  args.vocab_size = 8;
  args.logits_stride = 8;
  EXPECT_EQ(sample(args, nullptr), 0);
  args.num_rows = -1;
  EXPECT_NE(sample(args, nullptr), 0);
  args.num_rows = 1;
  args.logits_stride = 7;
  EXPECT_NE(sample(args, nullptr), 0);
  args.logits_stride = 1 << 20;
  args.vocab_size = kMaxSampleVocab + 1;
  EXPECT_NE(sample(args, nullptr), 0);
  args.vocab_size = 0;
  EXPECT_NE(sample(args, nullptr), 0);
  args.vocab_size = 8;
  args.num_masked = -1;
  EXPECT_NE(sample(args, nullptr), 0);
}

}  // namespace
}  // namespace sextant::kernels::cuda
