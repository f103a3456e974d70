// Scalar and obvious (sampling.h).
#include "kernels/ref/sampling.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <set>

namespace sextant::kernels::ref {
namespace {

constexpr double kUnit = 0x1p-24;       // unit roundoff of fp32
constexpr double kLeastMass = 0x1p-45;  // masses are whole multiples of it
constexpr float kMasked = -std::numeric_limits<float>::infinity();

// One token's probability before the cuts by mass, and how far fp32 may be off.
struct Weighted {
  int32_t id;
  float logit;
  double probability;  // 1 for the most likely
  double error;
};

// The argument is one difference, one product and one rounded reciprocal: three roundings, which move e^a by 3 |a|
// roundings; e^a itself is good to 2 units in the last place, 4 roundings.
double relative_error(double argument) { return (3 * std::fabs(argument) + 4) * kUnit; }

struct Cut {
  std::vector<Weighted> kept;  // by id
  double total = 0;
  double error = 0;  // of the total, and of every part of it
  bool certain = true;
};

void add_up(Cut& cut) {
  cut.total = cut.error = 0;
  for (const Weighted& w : cut.kept) {
    cut.total += w.probability;
    cut.error += w.error;
  }
}

// All cuts; `largest` is finite.
Cut cut_by(std::span<const float> edited, const SamplingProblem& problem, float largest) {
  std::vector<Weighted> all;
  for (size_t i = 0; i < edited.size(); ++i) {
    if (!(edited[i] > kMasked)) continue;
    const double argument = (static_cast<double>(edited[i]) - largest) / problem.temperature;
    const double p = std::exp(argument);
    all.push_back({static_cast<int32_t>(i), edited[i], p,
                   edited[i] == largest ? 0.0 : p * relative_error(argument) + kLeastMass});
  }
  const auto more_likely = [](const Weighted& a, const Weighted& b) { return a.logit > b.logit; };
  Cut cut;
  if (problem.top_k > 0 && static_cast<size_t>(problem.top_k) < all.size()) {
    std::vector<Weighted> order = all;
    std::stable_sort(order.begin(), order.end(), more_likely);
    const float least = order[static_cast<size_t>(problem.top_k) - 1].logit;
    std::erase_if(all, [&](const Weighted& w) { return w.logit < least; });
  }
  for (const Weighted& w : all) {
    if (w.error > 0 && problem.min_p > 0 && std::fabs(w.probability - problem.min_p) <= w.error) cut.certain = false;
    if (w.probability >= problem.min_p) cut.kept.push_back(w);
  }
  add_up(cut);
  if (problem.top_p >= 1.0f) return cut;

  std::vector<Weighted> order = cut.kept;
  std::stable_sort(order.begin(), order.end(), more_likely);
  const double target = static_cast<double>(problem.top_p) * cut.total;
  double mass = 0;
  size_t last = 0;
  for (;; ++last) {
    if (mass > 0 && std::fabs(mass - target) <= 2 * cut.error) cut.certain = false;
    mass += order[last].probability;
    if (mass >= target || last + 1 == order.size()) break;
  }
  if (last + 1 < order.size() && std::fabs(mass - target) <= 2 * cut.error) cut.certain = false;
  // The next ones may have the same probability in fp32; then they stay too.
  for (size_t next = last + 1; next < order.size(); ++next) {
    if (order[next].logit == order[last].logit) continue;
    if (order[next].probability >= order[last].probability - order[next].error - order[last].error) cut.certain = false;
    break;
  }
  const float least = order[last].logit;
  std::erase_if(cut.kept, [&](const Weighted& w) { return w.logit < least; });
  add_up(cut);
  return cut;
}

int32_t largest_at(std::span<const float> logits) {
  int32_t best = -1;
  for (size_t i = 0; i < logits.size(); ++i) {
    if (logits[i] > (best < 0 ? kMasked : logits[static_cast<size_t>(best)])) best = static_cast<int32_t>(i);
  }
  return best;
}

}  // namespace

std::vector<float> edited_logits(std::span<const float> logits, const SamplingProblem& problem) {
  std::vector<float> x(logits.begin(), logits.end());
  const auto at = [&](int32_t id) -> float& { return x[static_cast<size_t>(id)]; };
  if (!problem.allowed.empty()) {
    const std::set<int32_t> allowed(problem.allowed.begin(), problem.allowed.end());
    for (size_t i = 0; i < x.size(); ++i) {
      if (!allowed.contains(static_cast<int32_t>(i))) x[i] = kMasked;
    }
  }
  for (const auto& [id, bias] : problem.biases) at(id) += bias;
  std::map<int32_t, int32_t> counts;
  for (const int32_t id : problem.output_tokens) ++counts[id];
  std::set<int32_t> seen(problem.prompt_tokens.begin(), problem.prompt_tokens.end());
  for (const auto& [id, count] : counts) seen.insert(id);
  if (problem.repetition_penalty != 1.0f) {
    for (const int32_t id : seen) {
      at(id) = at(id) > 0 ? at(id) / problem.repetition_penalty : at(id) * problem.repetition_penalty;
    }
  }
  for (const auto& [id, count] : counts) {
    const float product = problem.frequency_penalty * static_cast<float>(count);
    const float sum = product + problem.presence_penalty;
    at(id) -= sum;
  }
  for (const int32_t id : problem.masked) at(id) = kMasked;
  return x;
}

SamplingChoice choose_token(std::span<const float> edited, const SamplingProblem& problem, double uniform) {
  const int32_t best = largest_at(edited);
  if (best < 0) return {0, true};
  const float largest = edited[static_cast<size_t>(best)];
  if (problem.temperature == 0 || std::isinf(largest)) return {best, true};
  const Cut cut = cut_by(edited, problem, largest);
  bool certain = cut.certain;
  const double target = uniform * cut.total;
  double mass = 0;
  for (size_t i = 0; i < cut.kept.size(); ++i) {
    if (mass > 0 && std::fabs(mass - target) <= 2 * cut.error) certain = false;
    mass += cut.kept[i].probability;
    if (mass <= target && i + 1 < cut.kept.size()) continue;
    if (i + 1 < cut.kept.size() && std::fabs(mass - target) <= 2 * cut.error) certain = false;
    return {cut.kept[i].id, certain};
  }
  return {best, false};
}

std::vector<double> sampling_probabilities(std::span<const float> edited, const SamplingProblem& problem) {
  std::vector<double> p(edited.size(), 0.0);
  const int32_t best = largest_at(edited);
  if (best < 0) return p;
  const Cut cut = cut_by(edited, problem, edited[static_cast<size_t>(best)]);
  for (const Weighted& w : cut.kept) p[static_cast<size_t>(w.id)] = w.probability / cut.total;
  return p;
}

RowLogprobs row_logprobs(std::span<const float> logits, int32_t chosen, int32_t num_top) {
  std::vector<double> x;
  for (const float l : logits) x.push_back(std::isnan(l) ? kMasked : l);
  const double largest = *std::max_element(x.begin(), x.end());
  const auto distance = [&](double v) { return v == largest ? 0.0 : v - largest; };
  double total = 0, error = 0;
  for (const double v : x) {
    const double p = std::exp(distance(v));
    total += p;
    // One difference, then e^a; and the cut to a whole multiple of the least mass.
    if (p > 0 && v != largest) error += p * (std::fabs(distance(v)) + 4) * kUnit + kLeastMass;
  }
  const double at_chosen = x[static_cast<size_t>(chosen)];
  RowLogprobs result{distance(at_chosen) - std::log(total), 1, {}, {}, error / (total - error)};
  for (const double v : x) result.rank += v > at_chosen ? 1 : 0;
  std::vector<int32_t> order(x.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int32_t a, int32_t b) { return x[static_cast<size_t>(a)] > x[static_cast<size_t>(b)]; });
  order.resize(std::min(order.size(), static_cast<size_t>(std::max(num_top, 0))));
  for (const int32_t id : order) result.top.push_back(distance(x[static_cast<size_t>(id)]) - std::log(total));
  result.top_ids = order;
  return result;
}

}  // namespace sextant::kernels::ref
