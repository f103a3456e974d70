// Options in the order of the spec's priority, with the reasons in words, and the frontier of cost, latency and size.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <set>

#include "advisor/plan/plan.h"

namespace sextant::advisor {
namespace {

constexpr size_t kShown = 5;

std::string ms(double value) {
  char text[40];
  std::snprintf(text, sizeof text, value < 10 ? "%.2f ms" : "%.0f ms", value);
  return text;
}

}  // namespace

std::string usd_text(double usd) {
  char text[64];
  std::snprintf(text, sizeof text, usd < 0.01 ? "%.6f" : usd < 1000 ? "%.2f" : "%.0f", usd);
  std::string digits = text;
  const size_t point = digits.find('.');
  for (size_t i = point == std::string::npos ? digits.size() : point; i > 3; i -= 3) digits.insert(i - 3, ",");
  return '$' + digits;
}

void rank(const Spec& spec, std::vector<Option>& options, PlanOutcome& outcome) {
  if (options.empty()) return;
  const bool rented = spec.text("deployment_model") == "cloud_rental";
  const auto cost = [&](const Option& o) { return rented ? o.usd_per_month : static_cast<double>(o.gpus()); };
  const auto latency = [](const Option& o) { return o.at_peak.e2e_ms.p95; };
  double cheapest = cost(options[0]);
  double fastest = latency(options[0]);
  double largest = options[0].parameters;
  for (const Option& o : options) {
    cheapest = std::min(cheapest, cost(o));
    fastest = std::min(fastest, latency(o));
    largest = std::max(largest, o.parameters);
  }
  const std::string priority = spec.text("priority");
  for (Option& o : options) {
    const double c = cheapest / std::max(cost(o), 1e-9);
    const double l = fastest / latency(o);
    const double a = std::log(o.parameters) / std::log(largest) *
                     (o.quality == "very_high" ? 1
                      : o.quality == "high"    ? 0.9
                                               : 0.75);
    o.score = priority == "cost"       ? 0.8 * c + 0.1 * l + 0.1 * a
              : priority == "latency"  ? 0.15 * c + 0.75 * l + 0.1 * a
              : priority == "accuracy" ? 0.2 * c + 0.1 * l + 0.7 * a
                                       : std::cbrt(c * l * a);
    if (cost(o) == cheapest) o.best_at.push_back("cost");
    if (latency(o) == fastest) o.best_at.push_back("latency");
    if (o.parameters == largest) o.best_at.push_back("accuracy");
    o.on_frontier = std::none_of(options.begin(), options.end(), [&](const Option& other) {
      return cost(other) <= cost(o) && latency(other) <= latency(o) && other.parameters >= o.parameters &&
             (cost(other) < cost(o) || latency(other) < latency(o) || other.parameters > o.parameters);
    });
  }
  std::stable_sort(options.begin(), options.end(), [](const Option& x, const Option& y) {
    return x.score != y.score ? x.score > y.score : x.id() < y.id();
  });
  for (const Option& o : options)
    if (o.on_frontier) outcome.frontier.push_back(o);
  std::stable_sort(outcome.frontier.begin(), outcome.frontier.end(),
                   [&](const Option& x, const Option& y) { return cost(x) < cost(y); });
  std::set<std::string> shown;
  for (Option& o : options) {
    if (outcome.options.size() == kShown) break;
    if (!shown.insert(o.model_id + '|' + o.gpu).second) continue;
    const std::string at = std::to_string(o.replicas()) + (o.replicas() == 1 ? " replica" : " replicas") + " of " +
                           std::to_string(o.gpus_per_replica()) + " x " + o.gpu + " each";
    std::string text = at + " carry the peak with " + std::to_string(static_cast<int>(spec.number("headroom_pct"))) +
                       "% headroom" + (rented ? " for " + usd_text(o.usd_per_month) + " a month" : "") + "; ";
    text += o.limit.binding ? "one replica's rate is ended by " + o.limit.binding->field + " (" +
                                  ms(o.limit.binding->limit_ms) + ")"
                            : "one replica is kept below 90% of its saturation";
    for (const std::string& best : o.best_at)
      text += best == "cost"      ? "; nothing searched costs less"
              : best == "latency" ? "; no answer is faster"
                                  : "; the largest model that meets the targets";
    if (shown.size() > 1 && rented) {
      const double more = o.usd_per_month / outcome.options[0].usd_per_month - 1;
      char compared[80];
      std::snprintf(compared, sizeof compared, "; %.0f%% %s than the first", std::abs(more) * 100,
                    more < 0 ? "cheaper" : "dearer");
      text += std::abs(more) < 0.005 ? "; the same price as the first" : compared;
    }
    o.rationale = text + ".";
    outcome.options.push_back(o);
  }
}

}  // namespace sextant::advisor
