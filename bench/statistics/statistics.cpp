#include "bench/statistics/statistics.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "bench/load/random.h"

namespace sextant::bench {
namespace {

constexpr size_t kMinBeyond = 10;

double log_gamma(double x) {
  int sign = 0;
  return lgamma_r(x, &sign);  // the one that any thread may call
}

double beta_fraction(double a, double b, double x) {
  constexpr double kTiny = 1e-300;
  const double ab = a + b, ap = a + 1, am = a - 1;
  double c = 1;
  double d = 1 - ab * x / ap;
  if (std::fabs(d) < kTiny) d = kTiny;
  d = 1 / d;
  double h = d;
  for (int m = 1; m < 10000; ++m) {
    const double m2 = 2 * m;
    double term = m * (b - m) * x / ((am + m2) * (a + m2));
    d = 1 + term * d;
    if (std::fabs(d) < kTiny) d = kTiny;
    c = 1 + term / c;
    if (std::fabs(c) < kTiny) c = kTiny;
    d = 1 / d;
    h *= d * c;
    term = -(a + m) * (ab + m) * x / ((a + m2) * (ap + m2));
    d = 1 + term * d;
    if (std::fabs(d) < kTiny) d = kTiny;
    c = 1 + term / c;
    if (std::fabs(c) < kTiny) c = kTiny;
    d = 1 / d;
    const double step = d * c;
    h *= step;
    if (std::fabs(step - 1) < 1e-15) break;
  }
  return h;
}

}  // namespace

double normal_cdf(double z) { return 0.5 * std::erfc(-z / std::sqrt(2.0)); }

double normal_quantile(double p) {
  constexpr double a[] = {-3.969683028665376e+01, 2.209460984245205e+02,  -2.759285104469687e+02,
                          1.383577518672690e+02,  -3.066479806614716e+01, 2.506628277459239e+00};
  constexpr double b[] = {-5.447609879822406e+01, 1.615858368580409e+02, -1.556989798598866e+02, 6.680131188771972e+01,
                          -1.328068155288572e+01};
  constexpr double c[] = {-7.784894002430293e-03, -3.223964580411365e-01, -2.400758277161838e+00,
                          -2.549732539343734e+00, 4.374664141464968e+00,  2.938163982698783e+00};
  constexpr double d[] = {7.784695709041462e-03, 3.224671290700398e-01, 2.445134137142996e+00, 3.754408661907416e+00};
  double x;
  if (p < 0.02425 || p > 1 - 0.02425) {
    const double q = std::sqrt(-2 * std::log(p < 0.5 ? p : 1 - p));
    x = (((((c[0] * q + c[1]) * q + c[2]) * q + c[3]) * q + c[4]) * q + c[5]) /
        ((((d[0] * q + d[1]) * q + d[2]) * q + d[3]) * q + 1);
    if (p > 0.5) x = -x;
  } else {
    const double q = p - 0.5, r = q * q;
    x = (((((a[0] * r + a[1]) * r + a[2]) * r + a[3]) * r + a[4]) * r + a[5]) * q /
        (((((b[0] * r + b[1]) * r + b[2]) * r + b[3]) * r + b[4]) * r + 1);
  }
  const double error = normal_cdf(x) - p;
  const double step = error * std::sqrt(2 * M_PI) * std::exp(x * x / 2);
  return x - step / (1 + x * step / 2);
}

double incomplete_beta(double a, double b, double x) {
  if (x <= 0) return 0;
  if (x >= 1) return 1;
  const double front = std::exp(log_gamma(a + b) - log_gamma(a) - log_gamma(b) + a * std::log(x) + b * std::log1p(-x));
  if (x < (a + 1) / (a + b + 2)) return front * beta_fraction(a, b, x) / a;
  return 1 - front * beta_fraction(b, a, 1 - x) / b;
}

double binomial_cdf(int64_t k, int64_t n, double p) {
  if (k < 0) return 0;
  if (k >= n) return 1;
  return incomplete_beta(static_cast<double>(n - k), static_cast<double>(k + 1), 1 - p);
}

double student_cdf(double t, double degrees) {
  const double tail = 0.5 * incomplete_beta(degrees / 2, 0.5, degrees / (degrees + t * t));
  return t < 0 ? tail : 1 - tail;
}

double student_quantile(double p, double degrees) {
  if (p < 0.5) return -student_quantile(1 - p, degrees);
  double low = 0, high = 1;
  while (student_cdf(high, degrees) < p && high < 1e12) high *= 2;
  for (int i = 0; i < 200 && high - low > 1e-12 * (1 + high); ++i) {
    const double middle = (low + high) / 2;
    (student_cdf(middle, degrees) < p ? low : high) = middle;
  }
  return (low + high) / 2;
}

double percentile(std::span<const double> sorted, double q) {
  const double at = q * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(at);
  if (below + 1 >= sorted.size()) return sorted.back();
  return sorted[below] + (at - static_cast<double>(below)) * (sorted[below + 1] - sorted[below]);
}

bool enough_for_percentile(size_t n, double q) {
  const double thinner = std::min(q, 1 - q) * static_cast<double>(n);
  return thinner + 1e-9 >= static_cast<double>(kMinBeyond);
}

std::optional<Bounds> percentile_interval(std::span<const double> sorted, double q, double level) {
  const auto n = static_cast<int64_t>(sorted.size());
  if (n < 2) return std::nullopt;
  const double tail = (1 - level) / 2;
  // X_(l) <= quantile fails when at most l - 1 samples lie below it: P(Bin(n, q) <= l - 1). The largest l whose failure is
  // within the tail, the smallest u whose is: P(Bin >= u) <= tail.
  int64_t l = 0, high = n;
  while (l < high) {  // the largest l in 0..n with cdf(l - 1) <= tail
    const int64_t middle = (l + high + 1) / 2;
    if (binomial_cdf(middle - 1, n, q) <= tail) {
      l = middle;
    } else {
      high = middle - 1;
    }
  }
  int64_t u = 0;
  high = n + 1;
  while (u < high) {  // the smallest u in 0..n+1 with 1 - cdf(u - 1) <= tail
    const int64_t middle = (u + high) / 2;
    if (1 - binomial_cdf(middle - 1, n, q) <= tail) {
      high = middle;
    } else {
      u = middle + 1;
    }
  }
  if (l < 1 || u > n) return std::nullopt;
  return Bounds{sorted[static_cast<size_t>(l - 1)], sorted[static_cast<size_t>(u - 1)]};
}

double mean_of(std::span<const double> samples) {
  return samples.empty() ? 0
                         : std::accumulate(samples.begin(), samples.end(), 0.0) / static_cast<double>(samples.size());
}

double variance_of(std::span<const double> samples) {
  if (samples.size() < 2) return 0;
  const double mean = mean_of(samples);
  double sum = 0;
  for (const double x : samples) sum += (x - mean) * (x - mean);
  return sum / static_cast<double>(samples.size() - 1);
}

std::optional<Bounds> mean_interval(std::span<const double> samples, double level) {
  if (samples.size() < 2) return std::nullopt;
  const double n = static_cast<double>(samples.size());
  const double half = student_quantile(1 - (1 - level) / 2, n - 1) * std::sqrt(variance_of(samples) / n);
  const double mean = mean_of(samples);
  return Bounds{mean - half, mean + half};
}

std::optional<Bounds> grouped_mean_interval(std::span<const double> sums, std::span<const double> counts,
                                            double level) {
  const size_t groups = sums.size();
  const double total = std::accumulate(counts.begin(), counts.end(), 0.0);
  if (groups < 2 || total <= 0) return std::nullopt;
  const double mean = std::accumulate(sums.begin(), sums.end(), 0.0) / total;
  double residual = 0;
  for (size_t i = 0; i < groups; ++i) residual += (sums[i] - mean * counts[i]) * (sums[i] - mean * counts[i]);
  const double k = static_cast<double>(groups);
  const double half = student_quantile(1 - (1 - level) / 2, k - 1) * std::sqrt(residual * k / (k - 1)) / total;
  return Bounds{mean - half, mean + half};
}

Bounds proportion_interval(int64_t successes, int64_t trials, double level) {
  if (trials <= 0) return {0, 1};
  const double z = normal_quantile(1 - (1 - level) / 2);
  const double n = static_cast<double>(trials);
  const double p = static_cast<double>(successes) / n;
  const double centre = (p + z * z / (2 * n)) / (1 + z * z / n);
  const double half = z / (1 + z * z / n) * std::sqrt(p * (1 - p) / n + z * z / (4 * n * n));
  return {std::max(0.0, centre - half), std::min(1.0, centre + half)};
}

double mann_whitney_p(std::span<const double> a, std::span<const double> b) {
  if (a.empty() || b.empty()) return 1;
  std::vector<std::pair<double, bool>> all;
  all.reserve(a.size() + b.size());
  for (const double x : a) all.emplace_back(x, true);
  for (const double x : b) all.emplace_back(x, false);
  std::sort(all.begin(), all.end());
  const double na = static_cast<double>(a.size()), nb = static_cast<double>(b.size()), n = na + nb;
  double rank_sum = 0, ties = 0;
  for (size_t i = 0; i < all.size();) {
    size_t j = i;
    while (j < all.size() && all[j].first == all[i].first) ++j;
    const double count = static_cast<double>(j - i);
    const double rank = static_cast<double>(i + 1 + j) / 2;
    for (size_t k = i; k < j; ++k) rank_sum += all[k].second ? rank : 0;
    ties += count * count * count - count;
    i = j;
  }
  const double u = rank_sum - na * (na + 1) / 2;
  const double variance = na * nb / 12 * ((n + 1) - ties / (n * (n - 1)));
  if (variance <= 0) return 1;
  const double z = std::max(0.0, std::fabs(u - na * nb / 2) - 0.5) / std::sqrt(variance);
  return std::min(1.0, 2 * normal_cdf(-z));
}

double welch_p(std::span<const double> a, std::span<const double> b) {
  if (a.size() < 2 || b.size() < 2) return 1;
  const double va = variance_of(a) / static_cast<double>(a.size());
  const double vb = variance_of(b) / static_cast<double>(b.size());
  const double difference = mean_of(b) - mean_of(a);
  if (va + vb <= 0) return difference == 0 ? 1 : 0;
  const double degrees = (va + vb) * (va + vb) /
                         (va * va / static_cast<double>(a.size() - 1) + vb * vb / static_cast<double>(b.size() - 1));
  return 2 * student_cdf(-std::fabs(difference) / std::sqrt(va + vb), degrees);
}

Bounds bootstrap_difference(std::span<const double> a, std::span<const double> b, double q, double level,
                            uint64_t seed) {
  constexpr int kRounds = 1000;
  constexpr size_t kMost = 20000;  // of a larger sample a random part of this size stands for the whole
  Random random(seed, 17);
  std::vector<double> differences;
  const auto resampled = [&](std::span<const double> x) {
    std::vector<double> sample(std::min(x.size(), kMost));
    for (double& value : sample) value = x[random.below(x.size())];
    const auto at = static_cast<size_t>(q * static_cast<double>(sample.size() - 1));
    std::nth_element(sample.begin(), sample.begin() + static_cast<std::ptrdiff_t>(at), sample.end());
    return sample[at];
  };
  for (int i = 0; i < kRounds; ++i) {
    const double of_a = resampled(a);
    differences.push_back(resampled(b) - of_a);
  }
  std::sort(differences.begin(), differences.end());
  return {percentile(differences, (1 - level) / 2), percentile(differences, 1 - (1 - level) / 2)};
}

std::vector<double> holm(std::span<const double> p_values) {
  std::vector<size_t> order(p_values.size());
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [&](size_t x, size_t y) { return p_values[x] < p_values[y]; });
  std::vector<double> adjusted(p_values.size());
  double largest = 0;
  for (size_t i = 0; i < order.size(); ++i) {
    largest = std::max(largest, std::min(1.0, p_values[order[i]] * static_cast<double>(order.size() - i)));
    adjusted[order[i]] = largest;
  }
  return adjusted;
}

}  // namespace sextant::bench
