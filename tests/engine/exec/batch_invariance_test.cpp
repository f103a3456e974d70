// A prompt's logits are the same bits alone, in a batch of 16, cut into chunks at random, in other blocks, and on any
// number of threads.
#include <cstring>
#include <random>

#include <gtest/gtest.h>

#include "tests/support/loaded_model.h"
#include "tests/support/random_seed.h"

namespace sextant {
namespace {

using testing_support::LoadedModel;
using testing_support::test_model_path;
using Rows = std::vector<std::vector<float>>;

std::vector<int32_t> random_ids(std::mt19937_64& rng, size_t count, int64_t vocab_size) {
  std::vector<int32_t> ids(count);
  for (int32_t& id : ids) id = static_cast<int32_t>(rng() % static_cast<uint64_t>(vocab_size));
  return ids;
}

void expect_same_bits(const Rows& expected, const Rows& actual, const std::string& what) {
  ASSERT_EQ(expected.size(), actual.size()) << what;
  for (size_t row = 0; row < expected.size(); ++row) {
    ASSERT_EQ(0, std::memcmp(expected[row].data(), actual[row].data(), expected[row].size() * sizeof(float)))
        << what << ": row " << row;
  }
}

void check_invariance(LoadedModel& model, std::mt19937_64& rng, size_t length, int rounds) {
  const std::vector<int32_t> ids = random_ids(rng, length, model.config.vocab_size);
  model.reset();
  const Rows alone = model.step({{0, ids}})[0];

  for (int round = 0; round < rounds; ++round) {
    // Chunked at random beside up to 15 others that come and go; blocks are whatever earlier rounds left.
    model.reset();
    std::shuffle(model.free_blocks.begin(), model.free_blocks.end(), rng);
    Rows chunked;
    int next_other = 1;
    size_t done = 0;
    while (done < ids.size()) {
      const size_t count = std::min<size_t>(ids.size() - done, 1 + rng() % (rng() % 2 ? 4 : length));
      std::vector<LoadedModel::Chunk> chunks;
      const size_t num_before = rng() % 16;
      const size_t num_after = num_before < 15 ? rng() % (16 - num_before) : 0;
      const auto add_other = [&] {
        const bool known = next_other > 1 && rng() % 2;
        int other = known ? static_cast<int>(1 + rng() % static_cast<uint64_t>(next_other - 1)) : next_other;
        for (const auto& chunk : chunks) {
          if (chunk.sequence == other) other = next_other;
        }
        if (other == next_other) ++next_other;
        chunks.push_back({other, random_ids(rng, rng() % 3 ? 1 : 1 + rng() % 20, model.config.vocab_size)});
      };
      for (size_t i = 0; i < num_before; ++i) add_other();
      const size_t place = chunks.size();
      chunks.push_back(
          {0,
           {ids.begin() + static_cast<std::ptrdiff_t>(done), ids.begin() + static_cast<std::ptrdiff_t>(done + count)}});
      for (size_t i = 0; i < num_after; ++i) add_other();
      const auto logits = model.step(chunks)[place];
      chunked.insert(chunked.end(), logits.begin(), logits.end());
      done += count;
    }
    expect_same_bits(alone, chunked, "chunked in a batch, round " + std::to_string(round));
  }
}

// One step of new sequences, each given whole: the last row's logits of those that sample.
Rows last_rows(LoadedModel& model, const std::vector<std::vector<int32_t>>& prompts, const std::vector<bool>& samples) {
  model.reset();
  SchedulerOutput output;
  std::vector<std::vector<BlockId>> blocks(prompts.size());
  for (size_t i = 0; i < prompts.size(); ++i) {
    ScheduledSequence scheduled;
    scheduled.num_scheduled_tokens = static_cast<int32_t>(prompts[i].size());
    scheduled.num_prompt_tokens = scheduled.num_scheduled_tokens;
    scheduled.token_offset = static_cast<int32_t>(output.token_ids.size());
    scheduled.samples = samples[i];
    output.token_ids.insert(output.token_ids.end(), prompts[i].begin(), prompts[i].end());
    output.sequences.push_back(scheduled);
    for (size_t slot = 0; slot < prompts[i].size(); slot += 16) {
      blocks[i].push_back(model.free_blocks.back());
      model.free_blocks.pop_back();
    }
  }
  ForwardBatch batch;
  batch.build(output, 16, [&](size_t i) { return ForwardBatch::SequenceView{blocks[i], {}, false}; });
  Rows rows;
  const Status status = model.runner->execute(batch, [&](int64_t, Tensor logits) {
    for (int64_t r = 0; r < logits.rows; ++r) {
      const float* row = logits.f32() + r * logits.row_stride;
      rows.emplace_back(row, row + logits.cols);
    }
  });
  EXPECT_TRUE(status.ok()) << status.message();
  for (const auto& of : blocks) model.free_blocks.insert(model.free_blocks.end(), of.begin(), of.end());
  return rows;
}

// Where few rows give logits the last layer ends with them alone: the same bits, whatever their number.
TEST(BatchInvariance, LastRowsAlone) {
  const uint64_t seed = random_seed();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 rng(seed);
  const std::string path = std::string(SEXTANT_TEST_DATA) + "/golden/tiny/llama";
  for (const int64_t num_threads : {1, 3}) {
    const auto model = LoadedModel::load(path, DType::kBFloat16, 900, 1100, num_threads);
    for (int round = 0; round < 6; ++round) {
      std::vector<std::vector<int32_t>> prompts;
      std::vector<bool> samples;
      Rows expected;
      const size_t count = 1 + rng() % 40;
      for (size_t i = 0; i < count; ++i) {
        prompts.push_back(random_ids(rng, 1 + rng() % (round < 3 ? 6 : 24), model->config.vocab_size));
        samples.push_back(i == 0 || rng() % 4 != 0);
        model->reset();
        if (samples[i]) expected.push_back(model->step({{0, prompts[i]}})[0].back());
      }
      expect_same_bits(expected, last_rows(*model, prompts, samples), "round " + std::to_string(round));
    }
  }
}

TEST(BatchInvariance, TinyLlama) {
  const uint64_t seed = random_seed();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 rng(seed);
  for (const DType kv_dtype : {DType::kBFloat16, DType::kFloat32, DType::kInt8}) {
    const auto model = LoadedModel::load(std::string(SEXTANT_TEST_DATA) + "/golden/tiny/llama", kv_dtype, 2000);
    check_invariance(*model, rng, 300, 6);
    check_invariance(*model, rng, 17, 6);
  }
}

TEST(BatchInvariance, SmolLm2) {
  if (test_model_path() == nullptr) GTEST_SKIP() << "SEXTANT_TEST_MODEL is not set: no model file to test with";
  const uint64_t seed = random_seed();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 rng(seed);
  const auto model = LoadedModel::load(test_model_path(), DType::kBFloat16, 1500);
  check_invariance(*model, rng, 60, 2);
}

TEST(BatchInvariance, NumberOfThreads) {
  const uint64_t seed = random_seed();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 rng(seed);
  const std::string path = std::string(SEXTANT_TEST_DATA) + "/golden/tiny/llama";
  const std::vector<int32_t> ids = random_ids(rng, 400, 320);
  const Rows one = LoadedModel::load(path, DType::kBFloat16, 600, 1100, 1)->step({{0, ids}})[0];
  for (const int64_t num_threads : {2, 3, 5}) {
    const Rows several = LoadedModel::load(path, DType::kBFloat16, 600, 1100, num_threads)->step({{0, ids}})[0];
    expect_same_bits(one, several, std::to_string(num_threads) + " threads");
  }
}

}  // namespace
}  // namespace sextant
