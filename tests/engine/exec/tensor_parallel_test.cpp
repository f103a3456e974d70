// A model cut between ranks against the whole one and against the reference, on the CPU and on CUDA (devices, or the emulator's).
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <random>
#include <string_view>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "engine/model/memory_model.h"
#include "tests/support/parallel_model.h"

namespace sextant {
namespace {

using testing_support::LoadedModel;
using testing_support::ParallelModel;
using testing_support::test_model_path;
using Rows = std::vector<std::vector<float>>;

std::string golden_path(const std::string& name) { return std::string(SEXTANT_TEST_DATA) + "/golden/" + name; }

nlohmann::json read_json(const std::string& name) {
  std::ifstream file(golden_path(name));
  EXPECT_TRUE(file.good()) << name;
  return nlohmann::json::parse(file);
}

int32_t top_1(const std::vector<float>& logits) {
  return static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

bool full_tests() {
  const char* full = std::getenv("SEXTANT_FULL_TESTS");
  return full != nullptr && std::string_view(full) == "1";
}

std::vector<int32_t> random_ids(std::mt19937_64& rng, size_t count, int64_t vocab_size) {
  std::vector<int32_t> ids(count);
  for (int32_t& id : ids) id = static_cast<int32_t>(rng() % static_cast<uint64_t>(vocab_size));
  return ids;
}

// How far logits may lie apart when the attention's and the MLP's output are summed in n parts instead of one. A sum of K products
// in another order differs by a random walk of K roundings: sqrt(K) u of its size (Higham, Accuracy and Stability, 2.8). A
// part held in 16 bits is rounded itself, n of them where the whole was rounded once: sqrt(n + 1) u16. L layers put 2 L such
// sums into the residual stream, independently: sqrt(2 L) of that, in proportion to the stream, and so to the logits. K
// and V in 16 bits turn what differs by a little into what differs by one rounding: u16 more, as often. Six standard
// deviations: of these thousands of logits none lies beyond.
// Where the CPU multiplies block-quantised weights, it rounds its inputs to int8 by blocks of 32, whose largest of 32 normal
// numbers is 2.1 standard deviations: 2.1 / 127 / sqrt(12) of an element, and 4 L inputs, not 2 L.
double tolerance(const ModelConfig& config, int num_ranks, DType activation, DType kv_dtype, bool int8_inputs,
                 const Rows& logits) {
  const auto unit = [](DType dtype) { return dtype == DType::kFloat32 ? 0x1p-24 : 0x1p-8; };
  const double longest = static_cast<double>(std::max(config.q_size(), config.intermediate_size));
  double of_sum = std::sqrt(longest) * 0x1p-24;
  if (activation != DType::kFloat32) of_sum += std::sqrt(num_ranks + 1.0) * unit(activation);
  if (kv_dtype != DType::kFloat32) of_sum += unit(kv_dtype);
  if (int8_inputs) of_sum += std::sqrt(2.0) * 2.1 / 127 / std::sqrt(12.0);
  double squares = 0, count = 0;
  for (const std::vector<float>& row : logits) {
    for (const float x : row) squares += static_cast<double>(x) * x;
    count += static_cast<double>(row.size());
  }
  return 6 * std::sqrt(2.0 * static_cast<double>(config.num_hidden_layers)) * of_sum * std::sqrt(squares / count);
}

double largest_difference(const Rows& a, const Rows& b) {
  EXPECT_EQ(a.size(), b.size());
  double largest = 0;
  for (size_t r = 0; r < std::min(a.size(), b.size()); ++r) {
    for (size_t i = 0; i < a[r].size(); ++i)
      largest = std::max(largest, std::abs(static_cast<double>(a[r][i]) - static_cast<double>(b[r][i])));
  }
  return largest;
}

// The parameter is "cpu" or "cuda".
class TensorParallel : public testing::TestWithParam<const char*> {
 protected:
  static bool is_cuda() { return std::string_view(GetParam()) == "cuda"; }
  static bool is_emulated() { return is_cuda() && cuda_is_emulated(); }
  static bool has_ranks(int count) { return !is_cuda() || testing_support::has_cuda_devices(count); }
  static LoadedModel::Options options(DType kv_dtype = DType::kBFloat16) {
    LoadedModel::Options made;
    made.device = is_cuda() ? testing_support::cuda_device_name() : "cpu";
    made.kv_dtype = is_cuda() ? DType::kBFloat16 : kv_dtype;
    return made;
  }
  static std::vector<DType> kv_dtypes() {
    return is_cuda() ? std::vector{DType::kBFloat16} : std::vector{DType::kFloat32, DType::kBFloat16};
  }
  // Random tokens in a prompt and a few steps after it: whole against cut.
  void expect_close(const ModelConfig& config, int num_ranks, DType kv_dtype, const ParallelModel::Load& load,
                    bool int8_inputs = false) {
    std::mt19937_64 rng(17);
    const std::vector<int32_t> ids = random_ids(rng, 45, config.vocab_size);
    Rows all[2];
    for (const int ranks : {1, num_ranks}) {
      ParallelModel model(ranks, options(kv_dtype), load);
      Rows& rows = all[ranks == 1 ? 0 : 1];
      rows = model.step({{0, {ids.begin(), ids.begin() + 40}}})[0];
      for (size_t i = 40; i < ids.size(); ++i) rows.push_back(model.step({{0, {ids[i]}}})[0][0]);
    }
    const double bound = tolerance(config, num_ranks, is_cuda() ? DType::kBFloat16 : DType::kFloat32,
                                   options(kv_dtype).kv_dtype, int8_inputs && !is_cuda(), all[0]);
    const double difference = largest_difference(all[0], all[1]);
    std::printf("%d ranks, KV in %s: logits differ by %.3g at most, %.3g are allowed\n", num_ranks,
                std::string(dtype_name(options(kv_dtype).kv_dtype)).c_str(), difference, bound);
    EXPECT_LE(difference, bound);
  }
};
INSTANTIATE_TEST_SUITE_P(Devices, TensorParallel, testing::Values("cpu", "cuda"),
                         [](const auto& parameter) { return std::string(parameter.param); });

#define NEEDS_RANKS(count) \
  if (!has_ranks(count)) GTEST_SKIP() << "needs " << (count) << " GPUs: this machine has fewer"

TEST_P(TensorParallel, TinyLlamasOnTwoRanksGiveTheReferencesTokensAndLogits) {
  NEEDS_RANKS(2);
  for (const std::string name : {"llama", "llama3_rope"}) {
    SCOPED_TRACE(name);
    const nlohmann::json golden = read_json("tiny/" + name + "/golden.json");
    for (const DType kv_dtype : kv_dtypes()) {
      // The bounds of golden_test.cpp.
      const double bound = kv_dtype == DType::kFloat32 ? 1e-3 : 0.1;
      const auto model = ParallelModel::open(golden_path("tiny/" + name), 2, options(kv_dtype));
      int judged = 0;
      for (const auto& golden_case : golden["cases"]) {
        auto ids = golden_case["ids"].get<std::vector<int32_t>>();
        const size_t prompt_length = ids.size();
        const auto greedy = golden_case["greedy"].get<std::vector<int32_t>>();
        ids.insert(ids.end(), greedy.begin(), greedy.end());
        model->reset();
        const Rows logits = model->step({{0, ids}})[0];
        const auto expected = golden_case["last_logits"].get<std::vector<float>>();
        ASSERT_EQ(logits[prompt_length - 1].size(), expected.size());
        for (size_t i = 0; i < expected.size(); ++i)
          ASSERT_NEAR(logits[prompt_length - 1][i], expected[i], bound) << "logit " << i;
        for (size_t i = 0; i < greedy.size(); ++i) {
          if (golden_case["gaps"][i].get<double>() < 0.03) continue;
          ++judged;
          EXPECT_EQ(top_1(logits[prompt_length + i - 1]), greedy[i]) << "step " << i;
        }
      }
      EXPECT_GT(judged, 30);
    }
  }
}

TEST_P(TensorParallel, SmolLm2OnThreeRanksGivesTheReferencesTokens) {
  if (test_model_path() == nullptr) GTEST_SKIP() << "SEXTANT_TEST_MODEL is not set: no model file to test with";
  NEEDS_RANKS(3);
  const bool all_cases = !is_emulated() || full_tests();
  const auto model = ParallelModel::open(test_model_path(), 3, options());
  const nlohmann::json golden = read_json("smollm2-135m-instruct-q4_1.json");
  int judged = 0, num_cases = 0;
  for (const char* kind : {"greedy", "chat"}) {
    for (const auto& golden_case : golden[kind]) {
      // On the CPU of CI three prompts are enough, too, but whole ones.
      if (!full_tests() && ++num_cases > 3) break;
      auto ids = golden_case["ids"].get<std::vector<int32_t>>();
      const size_t prompt_length = ids.size();
      const size_t num_steps = std::min<size_t>(all_cases ? SIZE_MAX : 8, golden_case["steps"].size());
      for (size_t i = 0; i < num_steps; ++i) ids.push_back(golden_case["steps"][i]["id"]);
      model->reset();
      const Rows logits = model->step({{0, ids}})[0];
      for (size_t i = 0; i < num_steps; ++i) {
        const auto& top = golden_case["steps"][i]["top"];
        if (top[0][1].get<double>() - top[1][1].get<double>() < 0.2) continue;
        ++judged;
        EXPECT_EQ(top_1(logits[prompt_length + i - 1]), top[0][0].get<int32_t>())
            << "step " << i << " of " << golden_case["ids"];
      }
    }
  }
  std::printf("judged %d steps\n", judged);
  EXPECT_GT(judged, full_tests() ? 300 : 12);
}

TEST_P(TensorParallel, LogitsAreTheWholeModelsWithinTheOrderOfTheSum) {
  NEEDS_RANKS(3);
  for (const DType kv_dtype : kv_dtypes()) {
    for (const std::string name : {"llama", "llama3_rope"}) {
      const std::string path = golden_path("tiny/" + name);
      const auto files = open_model(path);
      ASSERT_TRUE(files.ok());
      expect_close(*model_config_from_files(**files), 2, kv_dtype,
                   [&](const LoadedModel::Options& of_rank) { return LoadedModel::load(path, of_rank); });
    }
    if (test_model_path() == nullptr || (is_emulated() && !full_tests())) continue;
    const auto files = open_model(test_model_path());
    ASSERT_TRUE(files.ok());
    expect_close(
        *model_config_from_files(**files), 3, kv_dtype,
        [&](const LoadedModel::Options& of_rank) { return LoadedModel::load(test_model_path(), of_rank); }, true);
  }
}

ModelConfig made_up_config(int64_t heads, int64_t kv_heads) {
  ModelConfig config;
  config.source = "made up";
  config.architecture = "LlamaForCausalLM";
  config.family = ModelFamily::kLlama;
  config.vocab_size = 211;  // a prime: the vocabulary's parts differ
  config.hidden_size = 64;
  config.intermediate_size = 128;
  config.num_hidden_layers = 2;
  config.num_attention_heads = heads;
  config.num_key_value_heads = kv_heads;
  config.head_dim = 16;
  config.max_position_embeddings = 256;
  config.rope.rotary_dim = 16;
  config.attention_bias = true;
  config.mlp_bias = true;
  return config;
}

TEST_P(TensorParallel, HeadsOfKAndVAreCutOrOnSeveralRanks) {
  struct Case {
    int64_t heads, kv_heads;
    int num_ranks;
  };
  std::vector<Case> cases = {{8, 2, 4}, {4, 1, 2}, {8, 4, 2}};
  if (!is_emulated()) cases.insert(cases.end(), {{4, 1, 4}, {8, 1, 8}, {4, 4, 4}});
  NEEDS_RANKS(is_emulated() ? 4 : 8);
  for (const Case& each : cases) {
    SCOPED_TRACE(std::to_string(each.heads) + " heads, " + std::to_string(each.kv_heads) + " of K and V");
    const ModelConfig config = made_up_config(each.heads, each.kv_heads);
    expect_close(config, each.num_ranks, DType::kFloat32, [&](const LoadedModel::Options& of_rank) {
      WeightLoader loader = WeightLoader::dummy(WeightType::kBF16, 7);
      return LoadedModel::load(config, loader, of_rank);
    });
  }
}

// The recipe of batch_invariance_test.cpp, at this degree: alone, and in chunks beside others.
TEST(TensorParallelCpu, LogitsAreTheSameBitsInEveryBatch) {
  const std::string path = golden_path("tiny/llama");
  for (const int num_ranks : {2, 4}) {
    std::mt19937_64 rng(5);
    const auto model = ParallelModel::open(path, num_ranks, {});
    const std::vector<int32_t> ids = random_ids(rng, 120, 320);
    const Rows alone = model->step({{0, ids}})[0];
    for (int round = 0; round < 3; ++round) {
      model->reset();
      Rows chunked;
      for (size_t done = 0; done < ids.size();) {
        const size_t count = std::min<size_t>(ids.size() - done, 1 + rng() % (round == 0 ? 60 : 20));
        const auto begin = ids.begin() + static_cast<std::ptrdiff_t>(done);
        const auto logits = model->step({{1, random_ids(rng, 1 + rng() % 5, 320)},
                                         {0, {begin, begin + static_cast<std::ptrdiff_t>(count)}},
                                         {2, random_ids(rng, 1 + rng() % 9, 320)}})[1];
        chunked.insert(chunked.end(), logits.begin(), logits.end());
        done += count;
      }
      ASSERT_EQ(chunked.size(), alone.size());
      for (size_t row = 0; row < alone.size(); ++row) {
        ASSERT_EQ(0, std::memcmp(alone[row].data(), chunked[row].data(), alone[row].size() * sizeof(float)))
            << num_ranks << " ranks, row " << row;
      }
    }
  }
}

TEST_P(TensorParallel, CountersAreTheFormulas) {
  NEEDS_RANKS(2);
  LoadedModel::Options of_model = options();
  of_model.max_num_batched_tokens = 3000;
  const auto model = ParallelModel::open(golden_path("tiny/llama"), 2, of_model);
  std::mt19937_64 rng(3);
  Backend& backend = *(*model)[0].backend;
  const TensorParallelInputs inputs = {.num_ranks = 2,
                                       .activation = backend.activation_dtype(),
                                       .gathered_reduce_bytes = backend.gathered_reduce_bytes(),
                                       .logits_rows = backend.logits_rows(64),
                                       .shares_samples = false};  // no sampling in these steps
  int sequence = 0;
  // The longest is above what is gathered on CUDA.
  for (const size_t num_tokens : {size_t{1}, size_t{2}, size_t{77}, is_emulated() ? size_t{100} : size_t{480}}) {
    std::vector<CollectiveCounters> before;
    for (size_t rank = 0; rank < model->size(); ++rank) before.push_back((*model)[rank].group->counters());
    model->step({{sequence++, random_ids(rng, num_tokens, 320)}});
    const auto tokens = static_cast<int64_t>(num_tokens);
    const CollectiveTraffic traffic = tensor_parallel_traffic((*model)[0].config, inputs, tokens, tokens);
    for (size_t rank = 0; rank < model->size(); ++rank) {
      const CollectiveCounters after = (*model)[rank].group->counters();
      const auto expect = [&](CollectiveKind kind, const CollectiveTraffic::OfKind& expected) {
        EXPECT_EQ(after.of(kind).calls - before[rank].of(kind).calls, expected.calls) << collective_kind_name(kind);
        EXPECT_EQ(after.of(kind).bytes - before[rank].of(kind).bytes, expected.bytes) << collective_kind_name(kind);
      };
      SCOPED_TRACE(std::to_string(num_tokens) + " tokens, rank " + std::to_string(rank));
      expect(CollectiveKind::kAllReduce, traffic.all_reduce);
      expect(CollectiveKind::kAllGather, traffic.all_gather);
      expect(CollectiveKind::kGather, traffic.gather);
      expect(CollectiveKind::kBroadcast, traffic.broadcast);
      expect(CollectiveKind::kSend, {});
    }
  }
}

// Each rank reads what the plan says that it keeps: the parts together are the file, and what all need.
TEST(TensorParallelCpu, EachRankReadsItsOwnBytes) {
  std::vector<std::pair<std::string, int>> cases = {{golden_path("tiny/llama"), 2}, {golden_path("tiny/llama"), 4}};
  if (test_model_path() != nullptr) cases.emplace_back(test_model_path(), 3);
  for (const auto& [path, num_ranks] : cases) {
    SCOPED_TRACE(path);
    const auto files = open_model(path);
    ASSERT_TRUE(files.ok());
    const ModelConfig config = *model_config_from_files(**files);
    const std::vector<TensorInfo>& tensors = (*files)->tensors()->tensors();
    uint64_t stored = 0;
    for (const TensorInfo& info : tensors) stored += info.num_bytes;
    const auto model = ParallelModel::open(path, num_ranks, {});
    for (int rank = 0; rank < num_ranks; ++rank) {
      const Result<TensorShard> shard = make_tensor_shard(config, (*files)->is_gguf() ? 32 : 8, rank, num_ranks);
      ASSERT_TRUE(shard.ok()) << shard.status().message();
      EXPECT_EQ((*model)[static_cast<size_t>(rank)].bytes_read, shard_weight_bytes(config, tensors, *shard));
      EXPECT_LT((*model)[static_cast<size_t>(rank)].bytes_read, stored / static_cast<uint64_t>(num_ranks) * 2);
    }
  }
}

}  // namespace
}  // namespace sextant
