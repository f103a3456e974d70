#include "server/cli/simulated_gpu.h"

#include <gtest/gtest.h>

namespace sextant::cli {
namespace {

TEST(SimulatedGpu, IsFoundByNameAndAliasInAnyCase) {
  for (const char* name : {"H100-SXM5-80GB", "h100_sxm", "NVIDIA-H100", "h100-sxm5-80gb"}) {
    const auto gpu = find_simulated_gpu(name);
    ASSERT_TRUE(gpu.ok()) << gpu.status().message();
    EXPECT_EQ(gpu->name, "H100-SXM5-80GB");
    EXPECT_DOUBLE_EQ(gpu->memory_gib, 80);
    EXPECT_DOUBLE_EQ(gpu->bytes_per_s, 3350e9);
    EXPECT_DOUBLE_EQ(gpu->flops_per_s, 989e12);
    EXPECT_DOUBLE_EQ(gpu->link_bytes_per_s, 450e9);
  }
  EXPECT_DOUBLE_EQ(find_simulated_gpu("T4")->flops_per_s, 65e12) << "fp16, for want of bf16";
  const auto unknown = find_simulated_gpu("H100-SXM");
  ASSERT_FALSE(unknown.ok());
  EXPECT_EQ(unknown.status().param(), "gpu_type");
}

TEST(SimulatedGpu, ModelsAreListedOrNot) {
  const auto unknown = find_listed_model("nobody/nothing");
  ASSERT_TRUE(unknown.ok());
  EXPECT_FALSE(unknown->has_value());
  const auto dense = find_listed_model("meta-llama/Meta-Llama-3.1-8B");
  ASSERT_TRUE(dense.ok()) << dense.status().message();
  ASSERT_TRUE(dense->has_value());
  EXPECT_EQ((*dense)->hidden_size, 4096);
  EXPECT_EQ((*dense)->num_key_value_heads, 8);
  // Latent attention: not a sum that memory_model knows.
  EXPECT_FALSE(find_listed_model("deepseek-ai/DeepSeek-V3").ok());
}

}  // namespace
}  // namespace sextant::cli
