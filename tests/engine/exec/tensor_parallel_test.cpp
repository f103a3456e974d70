// A model cut between ranks against the whole one and against the reference, on the CPU and on CUDA (devices, or the emulator's).
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string_view>

#include <gtest/gtest.h>

#include "engine/device/host_matrix.h"
#include "engine/model/memory_model.h"
#include "kernels/ref/reference.h"
#include "tests/support/golden_cases.h"
#include "tests/support/memory_source.h"
#include "tests/support/parallel_model.h"

namespace sextant {
namespace {

using testing_support::full_tests;
using testing_support::golden_path;
using testing_support::JudgedSteps;
using testing_support::LoadedModel;
using testing_support::MemorySource;
using testing_support::ParallelModel;
using testing_support::test_model_path;
using Rows = std::vector<std::vector<float>>;

std::vector<int32_t> random_ids(std::mt19937_64& rng, size_t count, int64_t vocab_size) {
  std::vector<int32_t> ids(count);
  for (int32_t& id : ids) id = static_cast<int32_t>(rng() % static_cast<uint64_t>(vocab_size));
  return ids;
}

// How far logits may lie apart when the attention's and the MLP's output are summed in n parts instead of one. A sum of K products
// in another order differs by a random walk of K roundings: sqrt(K) u of its size (Higham, Accuracy and Stability, 2.8).
// Activations, and K and V, in 16 bits: a part is rounded itself, n of them where the whole was rounded once, sqrt(n + 1) u16;
// and K and V are rounded apart once more, u16. L layers put 2 L such sums into the residual stream, independently: sqrt(2 L) of
// that, in proportion to the stream, and so to the logits. Six standard deviations: of these thousands of logits none lies
// beyond.
double tolerance(const ModelConfig& config, int num_ranks, DType activation, const Rows& logits) {
  const double longest = static_cast<double>(std::max(config.q_size(), config.intermediate_size));
  double of_sum = std::sqrt(longest) * 0x1p-24;
  if (activation != DType::kFloat32)
    of_sum += (std::sqrt(num_ranks + 1.0) + 1) * (activation == DType::kBFloat16 ? 0x1p-8 : 0x1p-11);
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
  // On CUDA K and V are of the activations' type.
  static LoadedModel::Options options(DType kv_dtype = DType::kBFloat16) {
    LoadedModel::Options made;
    made.device = is_cuda() ? testing_support::cuda_device_name() : "cpu";
    made.kv_dtype = kv_dtype;
    if (is_cuda()) made.activation = kv_dtype;
    return made;
  }
  static std::vector<DType> kv_dtypes() {
    return is_cuda() ? std::vector{DType::kBFloat16, DType::kFloat16} : std::vector{DType::kFloat32, DType::kBFloat16};
  }
  // Where sums are the only difference, or on CUDA what is rounded before them.
  static std::vector<DType> summed_in() { return is_cuda() ? kv_dtypes() : std::vector{DType::kFloat32}; }
  // Random tokens in a prompt and a few steps after it: whole against cut.
  void expect_close(const ModelConfig& config, int num_ranks, DType kv_dtype, const ParallelModel::Load& load) {
    std::mt19937_64 rng(17);
    const std::vector<int32_t> ids = random_ids(rng, 45, config.vocab_size);
    Rows all[2];
    for (const int ranks : {1, num_ranks}) {
      ParallelModel model(ranks, options(kv_dtype), load);
      Rows& rows = all[ranks == 1 ? 0 : 1];
      rows = model.step({{0, {ids.begin(), ids.begin() + 40}}})[0];
      for (size_t i = 40; i < ids.size(); ++i) rows.push_back(model.step({{0, {ids[i]}}})[0][0]);
    }
    const double bound = tolerance(config, num_ranks, kv_dtype, all[0]);
    const double difference = largest_difference(all[0], all[1]);
    std::printf("%d ranks on %s in %s: logits differ by %.3g at most, %.3g are allowed\n", num_ranks, GetParam(),
                std::string(dtype_name(kv_dtype)).c_str(), difference, bound);
    EXPECT_LE(difference, bound);
  }
};
INSTANTIATE_TEST_SUITE_P(Devices, TensorParallel, testing::Values("cpu", "cuda"),
                         [](const auto& parameter) { return std::string(parameter.param); });

#define NEEDS_RANKS(count) \
  if (!has_ranks(count)) GTEST_SKIP() << "needs " << (count) << " GPUs: this machine has fewer"

TEST_P(TensorParallel, TinyLlamasOnTwoRanksGiveTheReferencesTokensAndLogits) {
  NEEDS_RANKS(2);
  for (const std::string& name : testing_support::tiny_models()) {
    SCOPED_TRACE(name);
    if (name == "olmo2") continue;  // its norms of q and k are over all heads: refused, model_config_shard_test.cpp
    for (const DType kv_dtype : kv_dtypes()) {
      if (kv_dtype == DType::kFloat16 && name != "llama") continue;  // one is enough
      // The bounds of golden_test.cpp.
      const double bound = kv_dtype == DType::kFloat32 ? 1e-3 : kv_dtype == DType::kFloat16 ? 0.1 / 8 : 0.1;
      const auto model = ParallelModel::open(golden_path("tiny/" + name), 2, options(kv_dtype));
      testing_support::expect_tiny_llama(*model, name, bound);
    }
  }
}

TEST_P(TensorParallel, SmolLm2OnThreeRanksGivesTheReferencesTokens) {
  if (test_model_path() == nullptr) GTEST_SKIP() << "SEXTANT_TEST_MODEL is not set: no model file to test with";
  NEEDS_RANKS(3);
  const bool all_steps = !is_emulated() || full_tests();
  const auto model = ParallelModel::open(test_model_path(), 3, options());
  // On the CPU of CI three prompts are enough, too, but whole ones.
  const JudgedSteps judged =
      judge_smollm2(*model, {.max_cases = full_tests() ? SIZE_MAX : 3, .max_steps = all_steps ? SIZE_MAX : 8});
  if (is_cuda()) {
    EXPECT_TRUE(judged.missed_gaps.empty());
  } else {  // the rule of int8 activations (golden_test.cpp): 99%, or one of few
    EXPECT_LE(static_cast<double>(judged.missed_gaps.size()), std::max(1.0, 0.01 * judged.steps));
    for (const double gap : judged.missed_gaps) EXPECT_LT(gap, 0.5);
  }
  std::printf("judged %d steps\n", judged.steps);
  EXPECT_GT(judged.steps, full_tests() ? 300 : 12);
}

// The same tensors without block quantisation, so that on the CPU, with K and V in fp32, sums are the only difference. Where it
// multiplies block-quantised weights it rounds its inputs to int8, and there no bound that comes from the order of a sum can be
// tight (nor with K and V in 16 bits): inputs that differ by d are rounded apart in d / step of all elements, which is
// sqrt(d step) in the root of their squares, and so again in each layer: after a few layers the two models' roundings have
// nothing in common, however small d was. What that does to the tokens is SmolLm2OnThreeRanksGivesTheReferencesTokens'.
MemorySource plain_weights(const TensorSource& file) {
  MemorySource plain;
  for (const TensorInfo& info : file.tensors()) {
    std::vector<std::byte> stored(info.num_bytes);
    EXPECT_TRUE(file.read(info, stored).ok());
    if (!is_block_quantized(info.type)) {
      plain.add(info.name, info.shape, info.type, std::move(stored));
      continue;
    }
    const int64_t cols = info.shape.back();
    const size_t row_bytes = *encoded_bytes(info.type, 1, static_cast<uint64_t>(cols));
    std::vector<uint16_t> as_bf16;
    as_bf16.reserve(info.num_elements());
    for (size_t at = 0; at < stored.size(); at += row_bytes) {
      const auto* row = reinterpret_cast<const uint8_t*>(stored.data() + at);
      for (const double x : kernels::ref::dequantize_row(*panel_type_of(info.type), row, cols))
        as_bf16.push_back(static_cast<uint16_t>(std::bit_cast<uint32_t>(static_cast<float>(x)) >> 16));
    }
    plain.add(info.name, info.shape, WeightType::kBF16, testing_support::words(as_bf16));
  }
  return plain;
}

TEST_P(TensorParallel, LogitsAreTheWholeModelsWithinTheOrderOfTheSum) {
  NEEDS_RANKS(3);
  for (const std::string name : {"llama", "llama3_rope"}) {
    const std::string path = golden_path("tiny/" + name);
    const auto files = open_model(path);
    ASSERT_TRUE(files.ok());
    for (const DType dtype : summed_in()) {
      expect_close(*model_config_from_files(**files), 2, dtype,
                   [&](const LoadedModel::Options& of_rank) { return LoadedModel::load(path, of_rank); });
    }
  }
  if (test_model_path() == nullptr || (is_emulated() && !full_tests())) return;
  const auto files = open_model(test_model_path());
  ASSERT_TRUE(files.ok());
  const ModelConfig config = *model_config_from_files(**files);
  if (is_cuda()) {
    expect_close(config, 3, DType::kBFloat16,
                 [](const LoadedModel::Options& of_rank) { return LoadedModel::load(test_model_path(), of_rank); });
    return;
  }
  const MemorySource plain = plain_weights(*(*files)->tensors());
  expect_close(config, 3, DType::kFloat32, [&](const LoadedModel::Options& of_rank) {
    WeightLoader loader(plain, {.gguf_names = (*files)->is_gguf()});
    return LoadedModel::load(config, loader, of_rank);
  });
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
  config.qkv_bias = config.attention_output_bias = true;
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
    expect_close(config, each.num_ranks, summed_in()[0], [&](const LoadedModel::Options& of_rank) {
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
