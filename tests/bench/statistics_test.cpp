// Statistics and arrivals against what is known of them exactly.
#include "bench/statistics/statistics.h"

#include <gtest/gtest.h>
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "bench/load/arrivals.h"
#include "bench/load/random.h"
#include "bench/prompts/lengths.h"

namespace sextant::bench {
namespace {

// Values of R's qnorm, pbeta, pbinom, pt, qt.
TEST(Statistics, DistributionsAreTheTextbooks) {
  EXPECT_NEAR(normal_quantile(0.975), 1.959963984540054, 1e-12);
  EXPECT_NEAR(normal_quantile(0.0001), -3.719016485455709, 1e-10);
  EXPECT_NEAR(normal_cdf(-1.5), 0.0668072012688581, 1e-14);
  EXPECT_NEAR(incomplete_beta(2, 3, 0.4), 0.5248, 1e-12);
  EXPECT_NEAR(incomplete_beta(0.5, 0.5, 0.25), 1.0 / 3, 1e-12);  // the arcsine law
  EXPECT_NEAR(binomial_cdf(3, 10, 0.5), 0.171875, 1e-12);
  EXPECT_NEAR(student_cdf(2.0, 1), 0.5 + std::atan(2.0) / M_PI, 1e-12);  // Cauchy
  EXPECT_NEAR(student_quantile(0.95, 9), 1.833112932656236, 1e-9);
  EXPECT_NEAR(student_quantile(0.975, 1e6), 1.959966, 1e-5);
}

TEST(Statistics, BinomialSumsToItsTerms) {
  Random random(1);
  for (int round = 0; round < 50; ++round) {
    const auto n = static_cast<int64_t>(1 + random.below(60));
    const double p = random.uniform();
    double sum = 0, term = std::pow(1 - p, static_cast<double>(n));
    for (int64_t k = 0; k <= n; ++k) {
      sum += term;
      ASSERT_NEAR(binomial_cdf(k, n, p), std::min(1.0, sum), 1e-9) << n << " " << p << " " << k;
      term *= static_cast<double>(n - k) / static_cast<double>(k + 1) * p / (1 - p);
    }
  }
}

TEST(Statistics, PercentilesInterpolate) {
  const std::vector<double> x = {1, 2, 3, 4};
  EXPECT_DOUBLE_EQ(percentile(x, 0.5), 2.5);
  EXPECT_DOUBLE_EQ(percentile(x, 0), 1);
  EXPECT_DOUBLE_EQ(percentile(x, 1), 4);
  EXPECT_DOUBLE_EQ(percentile(x, 0.9), 3.7);
  EXPECT_TRUE(enough_for_percentile(1000, 0.99));
  EXPECT_FALSE(enough_for_percentile(999, 0.99));
  EXPECT_TRUE(enough_for_percentile(20, 0.5));
  EXPECT_FALSE(enough_for_percentile(19, 0.5));
}

// How often intervals of 90% hold the truth, over many samples of an exponential (quantile q is -ln(1 - q), mean 1). Order-statistic
// intervals hold it at least that often. Bounds: 4 standard deviations of a binomial of 1,000 rounds, 0.9 +- 0.038; Student's interval
// of a skewed sample of 100 covers a little less than it says, by no more than 0.02 (Bartlett's expansion).
TEST(Statistics, IntervalsHoldTheTruthAsOftenAsTheySay) {
  Random random(2);
  int median_held = 0, p90_held = 0, mean_held = 0;
  for (int round = 0; round < 1000; ++round) {
    std::vector<double> x(200);
    for (double& value : x) value = random.exponential();
    const auto mean = mean_interval(x, 0.9);
    mean_held += mean->low <= 1 && 1 <= mean->high;
    std::sort(x.begin(), x.end());
    const auto median = percentile_interval(x, 0.5, 0.9), p90 = percentile_interval(x, 0.9, 0.9);
    median_held += median->low <= std::log(2) && std::log(2) <= median->high;
    p90_held += p90->low <= std::log(10) && std::log(10) <= p90->high;
  }
  EXPECT_GE(median_held, 862);
  EXPECT_LE(median_held, 965);
  EXPECT_GE(p90_held, 862);
  EXPECT_LE(p90_held, 970);
  EXPECT_NEAR(mean_held, 900, 58);
  EXPECT_FALSE(percentile_interval(std::vector<double>{1, 2, 3}, 0.99, 0.9).has_value());
}

// Gaps of one request hang together: an interval that takes them as independent would be five times too narrow.
TEST(Statistics, GroupedIntervalKnowsDependentSamples) {
  Random random(3);
  int held = 0, naive_held = 0;
  for (int round = 0; round < 500; ++round) {
    std::vector<double> sums, counts, all;
    for (int group = 0; group < 40; ++group) {
      const double level = 10 + random.normal();
      sums.push_back(0), counts.push_back(25);
      for (int i = 0; i < 25; ++i) all.push_back(level + 0.1 * random.normal()), sums.back() += all.back();
    }
    const auto grouped = grouped_mean_interval(sums, counts, 0.9), naive = mean_interval(all, 0.9);
    held += grouped->low <= 10 && 10 <= grouped->high;
    naive_held += naive->low <= 10 && 10 <= naive->high;
  }
  EXPECT_NEAR(held, 450, 4 * std::sqrt(500 * 0.9 * 0.1));
  EXPECT_LT(naive_held, 200);
}

TEST(Statistics, TestsOfTwoSamples) {
  Random random(4);
  int false_alarms = 0, welch_alarms = 0;
  for (int round = 0; round < 1000; ++round) {
    std::vector<double> a(40), b(60);
    for (double& x : a) x = random.exponential();
    for (double& x : b) x = random.exponential();
    false_alarms += mann_whitney_p(a, b) < 0.05;
    for (double& x : a) x = random.normal();
    for (double& x : b) x = 3 * random.normal();
    welch_alarms += welch_p(a, b) < 0.05;
  }
  const double deviation = std::sqrt(1000 * 0.05 * 0.95);
  EXPECT_NEAR(false_alarms, 50, 4 * deviation);
  EXPECT_NEAR(welch_alarms, 50, 4 * deviation);
  std::vector<double> a(200), b(200);
  for (double& x : a) x = 10 + random.normal();
  for (double& x : b) x = 11 + random.normal();
  EXPECT_LT(mann_whitney_p(a, b), 1e-6);
  EXPECT_LT(welch_p(a, b), 1e-6);
  const Bounds difference = bootstrap_difference(a, b, 0.5, 0.95, 1);
  EXPECT_LE(difference.low, 1);
  EXPECT_GE(difference.high, 1);
  EXPECT_EQ(bootstrap_difference(a, b, 0.5, 0.95, 1).low, difference.low);
  EXPECT_EQ(mann_whitney_p({}, a), 1);
  const std::vector<double> same(50, 2.0);
  EXPECT_EQ(mann_whitney_p(same, same), 1);
  EXPECT_EQ(holm(std::vector<double>{0.01, 0.04, 0.03}), (std::vector<double>{0.03, 0.06, 0.06}));
  const Bounds wilson = proportion_interval(8, 10, 0.95);  // Wilson 1927, as in R's prop.test(correct = FALSE)
  EXPECT_NEAR(wilson.low, 0.4901625, 1e-6);
  EXPECT_NEAR(wilson.high, 0.9433178, 1e-6);
}

// Mean and variance of n draws lie within 5 standard errors of the law's.
TEST(Random, DrawsFollowTheirLaws) {
  constexpr int kDraws = 200000;
  const auto check = [](const char* name, double mean, double variance, auto draw) {
    double sum = 0, squares = 0, fourth = 0;
    std::vector<double> x(kDraws);
    for (double& value : x) value = draw(), sum += value;
    const double m = sum / kDraws;
    for (const double value : x) squares += (value - m) * (value - m), fourth += std::pow(value - m, 4);
    const double v = squares / (kDraws - 1);
    EXPECT_NEAR(m, mean, 5 * std::sqrt(variance / kDraws)) << name;
    EXPECT_NEAR(v, variance, 5 * std::sqrt((fourth / kDraws - v * v) / kDraws)) << name;
  };
  Random random(5);
  check("uniform", 0.5, 1.0 / 12, [&] { return random.uniform(); });
  check("normal", 0, 1, [&] { return random.normal(); });
  check("exponential", 1, 1, [&] { return random.exponential(); });
  check("gamma 0.25", 0.25, 0.25, [&] { return random.gamma(0.25); });
  check("gamma 4", 4, 4, [&] { return random.gamma(4); });
  check("below 7", 3, 4, [&] { return static_cast<double>(random.below(7)); });
  LengthSpec lognormal;
  lognormal.kind = LengthSpec::Kind::kLognormal;
  lognormal.mean = 512, lognormal.deviation = 256;
  // Rounding to whole tokens adds 1/12 to the variance.
  check("lognormal", 512, 256 * 256 + 1.0 / 12, [&] { return static_cast<double>(lognormal.draw(random)); });
}

TEST(Arrivals, GapsHaveTheRateAndTheBurstinessAskedFor) {
  for (const double burstiness : {0.25, 1.0, 4.0}) {
    const auto times = arrival_times({constant_rate(100), burstiness, 7}, 50000, INFINITY);
    ASSERT_EQ(times.size(), 50000u);
    std::vector<double> gaps;
    for (size_t i = 1; i < times.size(); ++i) gaps.push_back(static_cast<double>(times[i] - times[i - 1]) * 1e-9);
    const double cv = 1 / std::sqrt(burstiness);
    EXPECT_NEAR(mean_of(gaps), 0.01, 5 * 0.01 * cv / std::sqrt(50000));
    EXPECT_NEAR(std::sqrt(variance_of(gaps)) / mean_of(gaps), cv, 0.05 * cv);
  }
  const auto constant = arrival_times({constant_rate(8), std::numeric_limits<double>::infinity(), 7}, 100, 10);
  ASSERT_EQ(constant.size(), 81u);
  for (size_t i = 0; i < constant.size(); ++i) EXPECT_EQ(constant[i], static_cast<int64_t>(i) * 125000000);
}

// Over any part of a curve, Poisson arrivals number the integral of the rate: within 5 of its roots.
TEST(Arrivals, FollowTheRateOverTime) {
  const RateCurve stages = *parse_stages("10:50s,200:50,0:20,40:1m");
  const RateCurve day = *daily_rate(50, {}, 100);
  for (const RateCurve& curve : {ramp_rate(10, 300, 100, false), ramp_rate(1, 500, 100, true), stages, day}) {
    const auto times = arrival_times({curve, 1, 11}, 1000000, curve_end_s(curve));
    EXPECT_TRUE(std::is_sorted(times.begin(), times.end()));
    for (double from = 0; from < curve_end_s(curve); from += 20) {
      const double expected = expected_arrivals(curve, from + 20) - expected_arrivals(curve, from);
      const auto count = std::count_if(times.begin(), times.end(), [&](int64_t t) {
        return static_cast<double>(t) * 1e-9 >= from && static_cast<double>(t) * 1e-9 < from + 20;
      });
      EXPECT_NEAR(static_cast<double>(count), expected, 5 * std::sqrt(expected) + 1e-9) << from;
    }
  }
  EXPECT_NEAR(expected_arrivals(day, 100), 5000, 1e-6) << "the mean rate of the day is the one asked for";
  EXPECT_EQ(arrival_times({stages, 1, 3}, 1000, 180), arrival_times({stages, 1, 3}, 1000, 180));
  EXPECT_NE(arrival_times({stages, 1, 3}, 1000, 180), arrival_times({stages, 1, 4}, 1000, 180));
  for (const char* bad : {"", "1", "1:", ":2", "1:0", "-1:5", "1:2x", "1:2,,", "nan:1"}) {
    EXPECT_FALSE(parse_stages(bad).ok()) << bad;
  }
  EXPECT_FALSE(daily_rate(1, {1, 2}, 10).ok());
  EXPECT_FALSE(daily_rate(1, std::vector<double>(24, 0.0), 10).ok());
}

TEST(Lengths, ParseAndDraw) {
  Random random(6);
  EXPECT_EQ(parse_lengths("512", "x")->draw(random), 512);
  const LengthSpec clipped = *parse_lengths("normal:100,50,min=90,max=110", "x");
  for (int i = 0; i < 1000; ++i) {
    const int64_t length = clipped.draw(random);
    EXPECT_GE(length, 90);
    EXPECT_LE(length, 110);
  }
  for (const char* bad : {"", "0", "-1", "1.5", "x", "normal:1", "uniform:9,3", "uniform:0,3", "lognormal:5,-1",
                          "normal:5,1,min=9,max=3", "empirical:", "empirical:/nowhere", "99999999999", "gauss:1,2"}) {
    EXPECT_FALSE(parse_lengths(bad, "x").ok()) << bad;
  }
}

}  // namespace
}  // namespace sextant::bench
