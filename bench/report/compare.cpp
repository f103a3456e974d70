#include "bench/report/compare.h"

#include <algorithm>
#include <cmath>

#include "bench/report/text_report.h"

namespace sextant::bench {
namespace {

constexpr double kLevel = 0.95;
constexpr double kSignificant = 0.05;

std::string padded(const std::string& text, size_t width, bool left = false) {
  const std::string space(text.size() < width ? width - text.size() : 0, ' ');
  return left ? text + space : space + text;
}

}  // namespace

std::vector<Comparison> compare_points(const LoadedPoint& a, const LoadedPoint& b) {
  std::vector<Comparison> rows;
  for (const char* name : {"ttft", "tpot", "e2e"}) {
    const auto in_a = a.samples.find(name), in_b = b.samples.find(name);
    if (in_a == a.samples.end() || in_b == b.samples.end()) continue;
    std::vector<double> x = in_a->second, y = in_b->second;
    const double p = mann_whitney_p(x, y);
    std::sort(x.begin(), x.end());
    std::sort(y.begin(), y.end());
    for (const double q : {0.5, 0.95}) {
      if (!enough_for_percentile(x.size(), q) || !enough_for_percentile(y.size(), q)) continue;
      Comparison row;
      row.metric = std::string(name) + (q == 0.5 ? " p50" : " p95");
      row.unit = "ms";
      row.a = percentile(x, q), row.b = percentile(y, q);
      row.difference_ci = bootstrap_difference(x, y, q, kLevel, 1);
      row.p = p;
      row.method = "Mann-Whitney on requests";
      rows.push_back(row);
    }
  }
  for (const auto& [name, unit] :
       {std::pair<const char*, const char*>{"request_rps", "req/s"}, {"output_tokens_per_s", "tok/s"}}) {
    const auto in_a = a.batches.find(name), in_b = b.batches.find(name);
    if (in_a == a.batches.end() || in_b == b.batches.end() || !a.values.contains(name) || !b.values.contains(name))
      continue;
    Comparison row;
    row.metric = name;
    row.unit = unit;
    row.lower_is_better = false;
    row.a = a.values.at(name), row.b = b.values.at(name);
    row.p = welch_p(in_a->second, in_b->second);
    row.method = "Welch on ten parts of the window";
    rows.push_back(row);
  }
  std::vector<double> p_values;
  for (const Comparison& row : rows) p_values.push_back(row.p);
  const std::vector<double> adjusted = holm(p_values);
  for (size_t i = 0; i < rows.size(); ++i) {
    rows[i].p = adjusted[i];
    // The rank test speaks of the whole distribution; a percentile differs only if its own interval leaves 0 out as well.
    const auto& ci = rows[i].difference_ci;
    rows[i].significant = adjusted[i] < kSignificant && (!ci || ci->low > 0 || ci->high < 0);
  }
  return rows;
}

std::string comparison_text(const LoadedPoint& a, const LoadedPoint& b, const std::vector<Comparison>& rows) {
  std::string out = "\n  A: " + a.label + " (" + a.model + ")\n  B: " + b.label + " (" + b.model + ")\n\n";
  out += "  " + padded("metric", 22, true) + padded("A", 11) + padded("B", 11) + padded("change", 10) + "   " +
         padded("95% of B - A", 24, true) + padded("p", 9) + "   verdict\n";
  for (const Comparison& row : rows) {
    const std::string change = (row.change_pct() > 0 ? "+" : "") + short_number(row.change_pct()) + "%";
    const std::string ci = row.difference_ci ? "[" + short_number(row.difference_ci->low) + ", " +
                                                   short_number(row.difference_ci->high) + "] " + row.unit
                                             : "";
    const std::string verdict = !row.significant ? "no difference shown"
                                : row.is_worse() ? "B is worse"
                                                 : "B is better";
    out += "  " + padded(row.metric, 22, true) + padded(short_number(row.a), 11) + padded(short_number(row.b), 11) +
           padded(change, 10) + "   " + padded(ci, 24, true) +
           padded(row.p < 1e-4 ? "<0.0001" : short_number(row.p), 9) + "   " + verdict + "\n";
  }
  if (!a.valid || !b.valid) out += "  warning: a run that is INVALID by its own report is compared\n";
  out +=
      "  p: Holm-corrected; latencies by Mann and Whitney over requests (taken as independent), rates by Welch over "
      "ten parts of\n"
      "  the window. \"No difference shown\" is not \"equal\": longer runs see smaller differences.\n";
  return out;
}

nlohmann::ordered_json comparison_json(const LoadedPoint& a, const LoadedPoint& b,
                                       const std::vector<Comparison>& rows) {
  nlohmann::ordered_json json = {{"a", a.label}, {"b", b.label}, {"metrics", nlohmann::ordered_json::array()}};
  for (const Comparison& row : rows) {
    nlohmann::ordered_json item = {{"metric", row.metric},
                                   {"unit", row.unit},
                                   {"a", row.a},
                                   {"b", row.b},
                                   {"change_pct", row.change_pct()},
                                   {"p", row.p},
                                   {"significant", row.significant},
                                   {"worse", row.is_worse()},
                                   {"method", row.method}};
    item["difference_ci95"] = row.difference_ci
                                  ? nlohmann::ordered_json::array({row.difference_ci->low, row.difference_ci->high})
                                  : nlohmann::ordered_json();
    json["metrics"].push_back(std::move(item));
  }
  return json;
}

}  // namespace sextant::bench
