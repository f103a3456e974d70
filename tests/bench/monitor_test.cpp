// What a server's /metrics say: sums, labels and the number of series; and what malformed text does not.
#include "bench/run/monitor.h"

#include <string>

#include <gtest/gtest.h>

namespace sextant::bench {
namespace {

constexpr const char* kText =
    "# HELP vllm:cache_config_info The KV cache's settings\n"
    "vllm:cache_config_info{cache_dtype=\"auto\",x_block_size=\"7\",block_size=\"16\",num_gpu_blocks=\"27001\"} 1\n"
    "vllm:cache_config_information{block_size=\"8\"} 1\n"
    "sextant_gpu_power_watts{gpu=\"0\",name=\"a }\\\" b\"} 310.5\n"
    "sextant_gpu_power_watts{gpu=\"1\"} 289.5\n"
    "sextant_gpu_power_watts_total 9\n"
    "plain 2\n";

TEST(ServerMetricsText, SumsLabelsAndSeries) {
  const auto metrics = parse_metrics(kText);
  EXPECT_DOUBLE_EQ(metrics.at("sextant_gpu_power_watts"), 600);
  EXPECT_DOUBLE_EQ(metrics.at("plain"), 2);
  EXPECT_EQ(num_series(kText, "sextant_gpu_power_watts"), 2u);
  EXPECT_EQ(num_series(kText, "plain"), 1u);
  EXPECT_EQ(num_series(kText, "absent"), 0u);
  EXPECT_EQ(whole_label(kText, "vllm:cache_config_info", "block_size"), 16);
  EXPECT_EQ(whole_label(kText, "vllm:cache_config_info", "num_gpu_blocks"), 27001);
  EXPECT_EQ(whole_label(kText, "vllm:cache_config_info", "cache_dtype"), std::nullopt);
  EXPECT_EQ(whole_label(kText, "vllm:cache_config", "block_size"), std::nullopt);
}

TEST(ServerMetricsText, WhatIsMalformedIsLeftOut) {
  for (const char* text :
       {"", "\n\n", "a", "a{", "a{b=\"", "a{b=\"1", "a{b=\"-5\"} 1", "a{b=\"99999999999999999999\"} 1",
        "a{b=\"1.5\"} 1", "a{b=\"\"} 1", "{b=\"1\"} 1", "a{cb=\"1\"} 1"}) {
    EXPECT_EQ(whole_label(text, "a", "b"), std::nullopt) << text;
    EXPECT_LE(num_series(text, "a"), 1u) << text;
    EXPECT_LE(parse_metrics(text).size(), 2u) << text;
  }
}

}  // namespace
}  // namespace sextant::bench
