// A model whose matrices are of every block type that a backend holds as another, whole and cut between ranks: its logits are, bit by
// bit, those of the same model stored in what the backend says it holds. On every kind of device.
#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <string_view>

#include <gtest/gtest.h>

#include "tests/support/block_rows.h"
#include "tests/support/memory_source.h"
#include "tests/support/parallel_model.h"
#include "tests/support/random_seed.h"

namespace sextant {
namespace {

using testing_support::LoadedModel;
using testing_support::MemorySource;
using testing_support::ParallelModel;

// Two ranks have 256 inner columns and 256 columns of heads each: one block of the K types.
ModelConfig small_config() {
  ModelConfig config;
  config.source = "made up";
  config.architecture = "LlamaForCausalLM";
  config.family = ModelFamily::kLlama;
  config.vocab_size = 211;
  config.hidden_size = 256;
  config.intermediate_size = 512;
  config.num_hidden_layers = 2;  // 16 matrices: of ten types
  config.num_attention_heads = 8;
  config.num_key_value_heads = 4;
  config.head_dim = 64;
  config.max_position_embeddings = 128;
  config.rope.rotary_dim = 64;
  return config;
}

class Weights {
 public:
  explicit Weights(std::mt19937_64& random) : random_(random) {}

  MemorySource model(const ModelConfig& config) {
    MemorySource source;
    matrix(source, "model.embed_tokens.weight", config.vocab_size, config.hidden_size);
    for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
      const std::string name = "model.layers." + std::to_string(layer) + ".";
      const int64_t q = config.num_attention_heads * config.head_dim, kv = config.num_key_value_heads * config.head_dim;
      ones(source, name + "input_layernorm.weight", config.hidden_size);
      ones(source, name + "post_attention_layernorm.weight", config.hidden_size);
      matrix(source, name + "self_attn.q_proj.weight", q, config.hidden_size);
      matrix(source, name + "self_attn.k_proj.weight", kv, config.hidden_size);
      matrix(source, name + "self_attn.v_proj.weight", kv, config.hidden_size);
      matrix(source, name + "self_attn.o_proj.weight", config.hidden_size, q);
      matrix(source, name + "mlp.gate_proj.weight", config.intermediate_size, config.hidden_size);
      matrix(source, name + "mlp.up_proj.weight", config.intermediate_size, config.hidden_size);
      matrix(source, name + "mlp.down_proj.weight", config.hidden_size, config.intermediate_size);
    }
    ones(source, "model.norm.weight", config.hidden_size);
    matrix(source, "lm_head.weight", config.vocab_size, config.hidden_size);
    return source;
  }

 private:
  static void ones(MemorySource& source, const std::string& name, int64_t size) {
    source.add(name, {size}, WeightType::kF32,
               testing_support::floats(std::vector<float>(static_cast<size_t>(size), 1.0f)));
  }
  // Of one type after the other: neighbours differ.
  void matrix(MemorySource& source, const std::string& name, int64_t rows, int64_t cols) {
    const std::vector<WeightType>& types = testing_support::re_encoded_block_types();
    const WeightType type = types[next_++ % types.size()];
    const std::vector<uint8_t> blocks = testing_support::random_blocks(type, rows, cols, random_, 0.1f);
    const auto* bytes = reinterpret_cast<const std::byte*>(blocks.data());
    source.add(name, {rows, cols}, type, {bytes, bytes + blocks.size()});
  }

  std::mt19937_64& random_;
  size_t next_ = 0;
};

// The same tensors as `backend` says that it holds them: fp32 on CUDA, which rounds that to the activations' type itself.
MemorySource as_held(const MemorySource& blocks, const Backend& backend) {
  MemorySource plain;
  for (const TensorInfo& info : blocks.tensors()) {
    std::vector<std::byte> stored(info.num_bytes);
    EXPECT_TRUE(blocks.read(info, stored).ok());
    const WeightType held = backend.held_type(info.type);
    if (!is_block_quantized(info.type) || held == info.type) {
      plain.add(info.name, info.shape, info.type, std::move(stored));
      continue;
    }
    const auto* bytes = reinterpret_cast<const uint8_t*>(stored.data());
    const auto count = static_cast<int64_t>(info.num_elements());
    if (held == WeightType::kQ8_0) {
      std::vector<std::byte> recoded(*encoded_bytes(held, 1, info.num_elements()));
      recode_row_as_q8_0(info.type, bytes, count, reinterpret_cast<uint8_t*>(recoded.data()));
      plain.add(info.name, info.shape, held, std::move(recoded));
      continue;
    }
    std::vector<float> values(static_cast<size_t>(count));
    decode_row(info.type, bytes, count, values.data());
    if (backend.activation_dtype() != DType::kFloat32) {
      plain.add(info.name, info.shape, WeightType::kF32, testing_support::floats(values));
      continue;
    }
    EXPECT_EQ(held, WeightType::kF16);
    std::vector<uint16_t> halves;
    for (const float value : values) halves.push_back(f16_of_f32(value));
    plain.add(info.name, info.shape, held, testing_support::words(halves));
  }
  return plain;
}

// The parameter is "cpu" or "cuda".
class BlockModel : public testing::TestWithParam<const char*> {
 protected:
  static bool is_cuda() { return std::string_view(GetParam()) == "cuda"; }
  static LoadedModel::Options options(DType dtype) {
    LoadedModel::Options made;
    made.device = is_cuda() ? testing_support::cuda_device_name() : "cpu";
    made.kv_dtype = dtype;
    if (is_cuda()) made.activation = dtype;
    made.num_blocks = 20;
    made.max_num_batched_tokens = 64;
    made.num_threads = 2;
    return made;
  }
};
INSTANTIATE_TEST_SUITE_P(Devices, BlockModel, testing::Values("cpu", "cuda"),
                         [](const auto& parameter) { return std::string(parameter.param); });

TEST_P(BlockModel, LogitsAreThoseOfTheModelAsItIsHeldWholeAndCut) {
  if (is_cuda() && !testing_support::has_cuda_devices(2)) GTEST_SKIP() << "needs 2 GPUs: this machine has fewer";
  const uint64_t seed = random_seed();
  std::mt19937_64 random(seed);
  const ModelConfig config = small_config();
  const MemorySource blocks = Weights(random).model(config);
  std::vector<int32_t> ids(11);
  for (int32_t& id : ids) id = static_cast<int32_t>(random() % 211);
  for (const DType dtype : is_cuda() ? std::vector{DType::kBFloat16, DType::kFloat16} : std::vector{DType::kFloat32}) {
    for (const int num_ranks : {1, 2}) {
      SCOPED_TRACE(std::to_string(num_ranks) + " ranks, " + std::string(dtype_name(dtype)));
      const auto run = [&](const MemorySource& source, uint64_t& weight_bytes) {
        ParallelModel model(num_ranks, options(dtype), [&](const LoadedModel::Options& of_rank) {
          WeightLoader loader(source, {});
          return LoadedModel::load(config, loader, of_rank);
        });
        weight_bytes = 0;
        for (size_t rank = 0; rank < model.size(); ++rank) weight_bytes += model[rank].runner->model().weight_bytes();
        auto logits = model.step({{0, {ids.begin(), ids.begin() + 10}}})[0];
        logits.push_back(model.step({{0, {ids[10]}}})[0][0]);
        return logits;
      };
      const auto backend = make_rank_backend({.device = options(dtype).device}, 0, 1, dtype);
      ASSERT_TRUE(backend.ok()) << backend.status().message();
      uint64_t bytes = 0, bytes_as_held = 0;
      const auto got = run(blocks, bytes);
      const auto expected = run(as_held(blocks, **backend), bytes_as_held);
      EXPECT_EQ(bytes, bytes_as_held);
      ASSERT_EQ(got.size(), expected.size());
      for (size_t row = 0; row < got.size(); ++row) {
        ASSERT_EQ(got[row].size(), 211u);
        for (const float logit : got[row]) ASSERT_TRUE(std::isfinite(logit));
        ASSERT_EQ(0, std::memcmp(got[row].data(), expected[row].data(), got[row].size() * sizeof(float)))
            << "row " << row << " seed " << seed;
      }
    }
  }
}

// Half a block would be cut off.
TEST(BlockModelCut, RanksTakeWholeBlocks) {
  ModelConfig config = small_config();
  const std::vector<WeightType> types = {WeightType::kQ4K, WeightType::kQ5_0};
  ASSERT_EQ(column_block(types), 256);
  EXPECT_TRUE(make_tensor_shard(config, column_block(types), 1, 2).ok());
  const auto refused = make_tensor_shard(config, column_block(types), 1, 4);
  ASSERT_FALSE(refused.ok());
  EXPECT_NE(refused.status().message().find("cut at multiples of 256"), std::string::npos);
}

}  // namespace
}  // namespace sextant
