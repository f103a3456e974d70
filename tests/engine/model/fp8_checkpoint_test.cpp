// What checkpoints say about FP8 weights: every form that is read, and each way in which one can be wrong.
#include "engine/model/fp8_checkpoint.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/model/weight_loader.h"
#include "tests/support/memory_source.h"

namespace sextant {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing_support::floats;
using testing_support::MemorySource;
using testing_support::words;

ModelConfig config_of(const std::string& quantization) {
  ModelConfig config;
  config.source = "config.json";
  const Status status = read_quantization_config(nlohmann::json::parse(quantization), config);
  EXPECT_TRUE(status.ok()) << status.message();
  return config;
}
std::string unread(const std::string& quantization) { return config_of(quantization).unread_quantization; }

TEST(QuantizationConfig, ReadsTheFormsOfFp8) {
  EXPECT_EQ(unread(R"({"quant_method": "fp8", "activation_scheme": "static"})"), "");
  const ModelConfig blocks = config_of(
      R"({"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [128, 128]})");
  EXPECT_EQ(blocks.unread_quantization, "");
  EXPECT_EQ(blocks.fp8_scale_block, 128);
  EXPECT_EQ(blocks.quantization, "fp8");
  for (const std::string strategy : {"tensor", "channel"}) {
    const ModelConfig config = config_of(
        R"({"quant_method": "compressed-tensors", "format": "float-quantized", "ignore": ["lm_head"], "config_groups":
           {"group_0": {"targets": ["Linear"], "input_activations": {"num_bits": 8, "type": "float", "dynamic": true},
            "weights": {"num_bits": 8, "type": "float", "strategy": ")" +
        strategy + R"("}}}})");
    EXPECT_EQ(config.unread_quantization, "");
    EXPECT_EQ(config.fp8_scale_block, 0);
  }
  EXPECT_EQ(config_of(R"({"quant_method": "compressed-tensors", "config_groups": {"g": {"weights":
                          {"num_bits": 8, "type": "float", "strategy": "block", "block_structure": [128, 128]}}}})")
                .fp8_scale_block,
            128);
}

TEST(QuantizationConfig, SaysWhatItDoesNotRead) {
  EXPECT_THAT(unread(R"({"quant_method": "gptq", "bits": 4})"), HasSubstr("known: fp8, compressed-tensors"));
  EXPECT_THAT(unread(R"({})"), HasSubstr("quant_method is missing"));
  EXPECT_THAT(unread("[]"), HasSubstr("quant_method is missing"));
  EXPECT_THAT(unread(R"({"quant_method": "fp8", "fmt": "e5m2"})"), AllOf(HasSubstr("e5m2"), HasSubstr("known: e4m3")));
  for (const char* block : {"[64, 128]", "[128]", "128", "[128, -128]", "[1e300, 128]", "{}", "\"128\""}) {
    EXPECT_THAT(unread(R"({"quant_method": "fp8", "weight_block_size": )" + std::string(block) + "}"),
                HasSubstr("known: [128, 128]"));
  }
  const auto compressed = [](const std::string& more) {
    return unread(R"({"quant_method": "compressed-tensors")" + more + "}");
  };
  const auto weights = [&](const std::string& text) {
    return compressed(R"(, "config_groups": {"group_0": {"weights": )" + text + "}}");
  };
  EXPECT_THAT(compressed(R"(, "format": "pack-quantized")"), HasSubstr("pack-quantized"));
  EXPECT_THAT(compressed(R"(, "sparsity_config": {"format": "sparse-24-bitmask"})"), HasSubstr("sparse-24-bitmask"));
  EXPECT_THAT(compressed(""), HasSubstr("config_groups is missing"));
  EXPECT_THAT(compressed(R"(, "config_groups": [1])"), HasSubstr("config_groups is missing"));
  EXPECT_THAT(compressed(R"(, "config_groups": {"g": 3})"), HasSubstr("config_groups.'g'.weights is missing"));
  EXPECT_THAT(weights(R"({"num_bits": 8, "type": "int"})"), HasSubstr("num_bits 8 of type float"));
  EXPECT_THAT(weights(R"({"num_bits": 4, "type": "float"})"), HasSubstr("num_bits 8 of type float"));
  EXPECT_THAT(weights(R"({"num_bits": 8, "type": "float", "strategy": "group"})"), HasSubstr("group"));
  EXPECT_THAT(weights(R"({"num_bits": 8, "type": "float", "strategy": "block", "block_structure": [1, 32]})"),
              HasSubstr("[1,32]"));
  ModelConfig config;
  EXPECT_EQ(read_quantization_config(nlohmann::json::parse(R"({"quant_method": 8})"), config).code(),
            StatusCode::kDataLoss);
}

class Fp8Loading : public testing::Test {
 protected:
  // 130 x 260: two blocks of rows, three of columns, the last ones cut short.
  static constexpr int64_t kRows = 130, kCols = 260;
  Fp8Loading() { source_.add("x.weight", {kRows, kCols}, WeightType::kF8E4M3, std::vector<std::byte>(kRows * kCols)); }

  Result<HostTensor> load(int64_t scale_block = 0) {
    WeightLoader loader(source_, {.fp8_scale_block = scale_block});
    return loader.read_matrix("x.weight", kRows, kCols);
  }
  std::string message(int64_t scale_block = 0) { return load(scale_block).status().message(); }
  static std::vector<float> ascending(size_t n) {
    std::vector<float> values(n);
    for (size_t i = 0; i < n; ++i) values[i] = static_cast<float>(i + 1);
    return values;
  }

  MemorySource source_;
};

TEST_F(Fp8Loading, OneScaleForTheTensor) {
  source_.add("x.weight_scale", {}, WeightType::kF32, floats({0.5f}));
  const auto matrix = load();
  ASSERT_TRUE(matrix.ok()) << matrix.status().message();
  EXPECT_EQ(matrix->type, WeightType::kF8E4M3);
  EXPECT_THAT(matrix->scales.values, ElementsAre(0.5f));
  EXPECT_EQ(matrix->view().scale_block_rows, kRows);
  EXPECT_EQ(matrix->view().scale_block_cols, kCols);
}

TEST_F(Fp8Loading, OneScaleForEachRowInBf16) {
  source_.add("x.weight_scale", {kRows, 1}, WeightType::kBF16, words(std::vector<uint16_t>(kRows, 0x3FC0)));
  const auto matrix = load();
  ASSERT_TRUE(matrix.ok()) << matrix.status().message();
  EXPECT_EQ(matrix->scales.values, std::vector<float>(kRows, 1.5f));
  EXPECT_EQ(matrix->scales.block_rows, 1);
}

TEST_F(Fp8Loading, OneScaleForEachBlock) {
  source_.add("x.weight_scale_inv", {2, 3}, WeightType::kF32, floats(ascending(6)));
  const auto matrix = load(128);
  ASSERT_TRUE(matrix.ok()) << matrix.status().message();
  EXPECT_EQ(matrix->scales.values, ascending(6));
  EXPECT_EQ(matrix->scales.block_rows, 128);
  EXPECT_EQ(matrix->scales.block_cols, 128);
}

TEST_F(Fp8Loading, ScalesAreNoMatrices) {
  source_.add("x.weight_scale", {kRows, 1}, WeightType::kF32, floats(std::vector<float>(kRows, 1)));
  EXPECT_THAT(WeightLoader(source_, {}).matrix_types(), ElementsAre(WeightType::kF8E4M3));
}

TEST_F(Fp8Loading, MissingAndOddScalesAreNamed) {
  EXPECT_THAT(message(), AllOf(HasSubstr("x.weight is [130, 260] F8_E4M3"), HasSubstr("its scale is missing"),
                               HasSubstr("x.weight_scale_inv")));
  source_.add("x.weight_scale", {2, 3}, WeightType::kF32, floats(ascending(6)));
  EXPECT_THAT(message(), AllOf(HasSubstr("x.weight_scale is [2, 3] F32"), HasSubstr("[1] or [130, 1]"),
                               HasSubstr("weight_block_size")));
  source_.add("x.weight_scale_inv", {2, 3}, WeightType::kF32, floats(ascending(6)));
  EXPECT_THAT(message(128), HasSubstr("has both x.weight_scale and x.weight_scale_inv"));
}

TEST_F(Fp8Loading, ScalesOfTheWrongShapeOrTypeAreRefused) {
  source_.add("x.weight_scale", {3, 2}, WeightType::kF32, floats(ascending(6)));
  EXPECT_THAT(message(128), AllOf(HasSubstr("[3, 2] F32"), HasSubstr("are [2, 3]")));
}

TEST_F(Fp8Loading, ScalesOfTheWrongTypeAreRefused) {
  source_.add("x.weight_scale", {1}, WeightType::kI32, floats({1}));
  EXPECT_THAT(message(), HasSubstr("F32, F16 or BF16"));
}

TEST_F(Fp8Loading, ScalesThatAreNoNumbersAreRefused) {
  std::vector<float> values(kRows, 1);
  values[77] = NAN;
  source_.add("x.weight_scale", {kRows}, WeightType::kF32, floats(values));
  EXPECT_THAT(message(), HasSubstr("no finite number"));
}

TEST_F(Fp8Loading, InfiniteHalvesAreRefused) {
  source_.add("x.weight_scale", {1}, WeightType::kF16, words({0x7C00}));
  EXPECT_THAT(message(), HasSubstr("no finite number"));
}

TEST_F(Fp8Loading, AScaleOfAPlainMatrixIsRefused) {
  source_.add("y.weight", {1, 2}, WeightType::kF32, floats({1, 2}));
  source_.add("y.weight_scale", {1}, WeightType::kF32, floats({1}));
  WeightLoader loader(source_, {});
  EXPECT_THAT(loader.read_matrix("y.weight", 1, 2).status().message(), HasSubstr("takes no scale"));
}

TEST_F(Fp8Loading, PartsTakeTheirScalesAlong) {
  source_.add("x.weight_scale", {2, 3}, WeightType::kF32, floats(ascending(6)));
  uint64_t bytes = 0;
  const TensorInfo& weight = *source_.find("x.weight");
  const auto rows = read_fp8_scales(source_, weight, 128, 128, 130, 0, 260, bytes);
  ASSERT_TRUE(rows.ok()) << rows.status().message();
  EXPECT_THAT(rows->values, ElementsAre(4, 5, 6));
  const auto cols = read_fp8_scales(source_, weight, 128, 0, 130, 128, 256, bytes);
  ASSERT_TRUE(cols.ok()) << cols.status().message();
  EXPECT_THAT(cols->values, ElementsAre(2, 5));
  EXPECT_EQ(bytes, 48u);
  const auto through = read_fp8_scales(source_, weight, 128, 0, 65, 0, 260, bytes);
  EXPECT_EQ(through.status().code(), StatusCode::kUnsupported);
  EXPECT_THAT(through.status().message(), HasSubstr("blocks of 128 x 128"));
}

TEST_F(Fp8Loading, PartsOfATensorWithOneScaleAreAny) {
  source_.add("x.weight_scale", {1}, WeightType::kF32, floats({3}));
  uint64_t bytes = 0;
  const auto part = read_fp8_scales(source_, *source_.find("x.weight"), 0, 3, 70, 5, 17, bytes);
  ASSERT_TRUE(part.ok()) << part.status().message();
  EXPECT_THAT(part->values, ElementsAre(3));
  EXPECT_EQ(part->block_rows, 67);
  EXPECT_EQ(part->block_cols, 12);
}

TEST_F(Fp8Loading, PartsOfRowsWithTheirScales) {
  source_.add("x.weight_scale", {kRows, 1}, WeightType::kF32, floats(ascending(kRows)));
  uint64_t bytes = 0;
  const auto part = read_fp8_scales(source_, *source_.find("x.weight"), 0, 3, 6, 5, 17, bytes);
  ASSERT_TRUE(part.ok()) << part.status().message();
  EXPECT_THAT(part->values, ElementsAre(4, 5, 6));
}

}  // namespace
}  // namespace sextant
