// compare_results: whether two measured points differ by more than chance explains. Pure; same input, same output.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "bench/report/json_report.h"

namespace sextant::bench {

struct Comparison {
  std::string metric;  // "ttft p50"
  std::string unit;
  bool lower_is_better = true;
  double a = 0, b = 0;
  std::optional<Bounds> difference_ci;  // 95%, of B - A
  double p = 1;                         // that chance alone does it; Holm-corrected over the table
  bool significant = false;             // p < 0.05
  std::string method;
  double change_pct() const { return a == 0 ? 0 : 100 * (b - a) / a; }
  // Significant, and in the wrong direction.
  bool is_worse() const { return significant && (lower_is_better ? b > a : b < a); }
};

// Latencies: Mann and Whitney on the requests' values, the interval of the difference of medians and p95 by bootstrap. Rates: Welch
// on ten equal parts of each window.
std::vector<Comparison> compare_points(const LoadedPoint& a, const LoadedPoint& b);

std::string comparison_text(const LoadedPoint& a, const LoadedPoint& b, const std::vector<Comparison>& rows);
nlohmann::ordered_json comparison_json(const LoadedPoint& a, const LoadedPoint& b, const std::vector<Comparison>& rows);

}  // namespace sextant::bench
