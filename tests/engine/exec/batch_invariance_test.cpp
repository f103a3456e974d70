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
