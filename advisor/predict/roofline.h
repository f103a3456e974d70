// The calibrated roofline: a latency as a sum of physical terms (weights streamed, cache read, FLOPs, transfers, launches,
// prefills that interfere), each times one non-negative coefficient fitted to measured rows. Pure; any thread.
#pragma once

#include <array>
#include <vector>

#include "advisor/predict/serving_point.h"

namespace sextant::advisor {

enum class Metric { kTpot, kTtft };
const char* metric_name(Metric metric);
inline double measured(const ServingPoint& p, Metric metric) {
  return metric == Metric::kTpot ? p.tpot_mean_ms : p.ttft_mean_ms;
}

class Roofline {
 public:
  static constexpr size_t kMaxTerms = 10;
  // Median-robust least squares of log(predicted / measured) (soft L1, scale 0.2), Levenberg-Marquardt on the logarithms of
  // the coefficients. TTFT's terms contain the TPOT roofline, which must be fitted before.
  void fit(Metric metric, const std::vector<ServingPoint>& points, const std::vector<PointPhysics>& physics);
  double milliseconds(Metric metric, const ServingPoint& point, const PointPhysics& physics) const;

  std::array<double, kMaxTerms> tpot{}, ttft{};  // coefficients, in the order of the terms
};

}  // namespace sextant::advisor
