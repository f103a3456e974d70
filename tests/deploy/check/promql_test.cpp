// What is read of PromQL: selectors with their labels and the function around them, quantiles that mean nothing, and texts that
// are no PromQL. What Prometheus' own parser says of the same queries is asked in tests/e2e/test_deploy.py.
#include "deploy/check/promql.h"

#include <gtest/gtest.h>

#include <random>

#include "tests/support/random_seed.h"

namespace sextant::deploy {
namespace {

using Names = std::vector<std::string>;

Names metrics_of(const std::string& query) {
  Names out;
  const PromqlReading reading = read_promql(query);
  EXPECT_EQ(reading.error, "") << query;
  for (const PromqlSelector& selector : reading.selectors) out.push_back(selector.metric);
  return out;
}

TEST(Promql, NamesEachMetricAndNothingElse) {
  const std::pair<const char*, Names> cases[] = {
      {"up", {"up"}},
      {"sum(up) by (job)", {"up"}},
      {"sum by (job, pod) (rate(a_total{x=\"y\"}[5m])) / on (pod) group_left (node) b", {"a_total", "b"}},
      {"sum without (le) (c) unless d and e or f", {"c", "d", "e", "f"}},
      {"vllm:num_requests_waiting{namespace=\"a\"} > bool 3", {"vllm:num_requests_waiting"}},
      {"{__name__=\"g\"}", {"g"}},
      {"rate(h[5m:1m]) offset 1d", {"h"}},
      {"i @ end()", {"i"}},
      {"1.5e-3 * j + 0x1f - Inf + NaN", {"j"}},
      {"label_replace(k, \"dst\", \"$1\", \"src\", \"(.*)\")", {"k"}},
      {"l # m\n + n", {"l", "n"}},
      {"o{p=\"q\\\"r{s\"}", {"o"}},
      {"'t' == u", {"u"}},
      {"sum(avg by (pod) (v{w=~\"x-[^-]+\"}))", {"v"}},
  };
  for (const auto& [query, expected] : cases) EXPECT_EQ(metrics_of(query), expected) << query;
}

TEST(Promql, KnowsLabelsAndTheCallAround) {
  const PromqlReading reading = read_promql("sum(rate(a_total{b=\"1\", c!=\"2\", d=~\"3\", e!~\"4\"}[5m])) / f");
  ASSERT_EQ(reading.selectors.size(), 2u);
  EXPECT_EQ(reading.selectors[0].labels, (Names{"b", "c", "d", "e"}));
  EXPECT_EQ(reading.selectors[0].function, "rate");
  EXPECT_EQ(reading.selectors[1].function, "");
  // Not the text inside a matcher's value, nor a metric's name in one.
  EXPECT_EQ(read_promql("a{b=\"c=\\\"d\\\"\"}").selectors[0].labels, Names{"b"});
  EXPECT_EQ(read_promql("rate({__name__=\"x\",y=\"z\"}[1m])").selectors[0].function, "rate");
}

TEST(Promql, OnlyQuantilesOfRatesOfBucketsByLeAreGood) {
  for (const char* good : {
           "histogram_quantile(0.9, sum by (le) (rate(a_bucket[5m])))",
           "histogram_quantile(0.9, sum(rate(a_bucket{b=\"c\"}[5m])) by (le))",
           "histogram_quantile(0.99, sum by (pod, le) (irate(a_bucket[5m])))",
           "histogram_quantile(scalar(x), sum by (le) (increase(a_bucket[1h])))",
       })
    EXPECT_TRUE(read_promql(good).bad_quantiles.empty()) << good;
  for (const char* bad : {
           "histogram_quantile(0.9, a_bucket)",
           "histogram_quantile(0.9, rate(a_bucket[5m]))",
           "histogram_quantile(0.9, sum by (pod) (rate(a_bucket[5m])))",
           "histogram_quantile(0.9, sum(rate(a_bucket[5m])))",
           "histogram_quantile(0.9, sum by (le) (a_bucket))",
           "histogram_quantile(0.9, sum by (le) (rate(a_count[5m])))",
           "histogram_quantile(0.9, avg by (le) (rate(a_bucket[5m])))",
           "histogram_quantile(0.9, sum by (le) (rate(a_bucket[5m])) / 2)",
           "histogram_quantile(0.9)",
           "histogram_quantile()",
       })
    EXPECT_EQ(read_promql(bad).bad_quantiles.size(), 1u) << bad;
  // Each one of several.
  EXPECT_EQ(read_promql("histogram_quantile(0.5, a) + histogram_quantile(0.9, b)").bad_quantiles.size(), 2u);
}

TEST(Promql, WhatCannotBeOneIsAnError) {
  for (const char* text : {"", " ", "# only a comment", "sum(a", "a)", "a{b=\"c\"", "a[5m", "a{b=\"c}", "'", "a ; b",
                           "(]", "a $ b", "a\x01"})
    EXPECT_NE(read_promql(text).error, "") << text;
}

TEST(Promql, RandomTokensAreReadWithoutHarm) {
  std::mt19937_64 random(random_seed());
  const Names tokens = {"a",    "b_bucket", "histogram_quantile",
                        "sum",  "by",       "le",
                        "rate", "(",        ")",
                        "{",    "}",        "[",
                        "]",    "5m",       "\"x\"",
                        "=",    "!",        "~",
                        ",",    "0.9",      "or",
                        "on",   "#",        "\n",
                        ":",    "__name__"};
  for (int i = 0; i < 20000; ++i) {
    std::string query;
    for (uint64_t k = random() % 16; k > 0; --k)
      query += tokens[random() % tokens.size()] + (random() % 2 == 0 ? " " : "");
    const PromqlReading reading = read_promql(query);
    if (!reading.error.empty()) {
      EXPECT_TRUE(reading.selectors.empty()) << query;
    }
  }
}

}  // namespace
}  // namespace sextant::deploy
