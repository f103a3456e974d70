// Statistics of samples, with the intervals that say how far to trust them. Pure. Formulas are named where they come from.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace sextant::bench {

struct Bounds {
  double low = 0;
  double high = 0;
};

// --- distributions ------------------------------------------------------------------------------------------------------

double normal_cdf(double z);
double normal_quantile(double p);                      // 0 < p < 1 (Acklam's approximation, one Newton step)
double incomplete_beta(double a, double b, double x);  // regularised (continued fraction, Numerical Recipes 6.4)
double binomial_cdf(int64_t k, int64_t n, double p);   // P(X <= k)
double student_cdf(double t, double degrees);
double student_quantile(double p, double degrees);

// --- one sample ---------------------------------------------------------------------------------------------------------

// By linear interpolation between order statistics (Hyndman and Fan's type 7: numpy's default). `sorted` ascending, not empty.
double percentile(std::span<const double> sorted, double q);

// Whether at least 10 samples lie beyond the q-quantile, on its thinner side.
bool enough_for_percentile(size_t n, double q);

// Distribution-free interval from order statistics: the binomial law of how many samples lie below the quantile. Nothing where
// no pair of samples reaches the level.
std::optional<Bounds> percentile_interval(std::span<const double> sorted, double q, double level);

double mean_of(std::span<const double> samples);
double variance_of(std::span<const double> samples);  // n - 1; 0 for fewer than two

// Student's interval. Nothing for fewer than two samples.
std::optional<Bounds> mean_interval(std::span<const double> samples, double level);

// The interval of a mean over samples that come in dependent groups (gaps of one request): Student's over groups, with the
// ratio estimator's variance (Cochran, Sampling Techniques, 6.4). `sums` and `counts` are per group.
std::optional<Bounds> grouped_mean_interval(std::span<const double> sums, std::span<const double> counts, double level);

// Wilson's score interval of a proportion.
Bounds proportion_interval(int64_t successes, int64_t trials, double level);

// --- two samples --------------------------------------------------------------------------------------------------------

// Two-sided p-value that A and B come from one distribution: Mann and Whitney's rank sum with tie and continuity corrections
// (normal approximation). 1 when either is empty.
double mann_whitney_p(std::span<const double> a, std::span<const double> b);

// Two-sided p-value that the means are equal: Welch. 1 when either holds fewer than two samples.
double welch_p(std::span<const double> a, std::span<const double> b);

// Interval of quantile_q(B) - quantile_q(A) by bootstrap percentiles; the same seed gives the same interval.
Bounds bootstrap_difference(std::span<const double> a, std::span<const double> b, double q, double level,
                            uint64_t seed);

// Holm's correction: adjusted p-values in the order given.
std::vector<double> holm(std::span<const double> p_values);

}  // namespace sextant::bench
