#include "advisor/predict/extra_trees.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace sextant::advisor {
namespace {

constexpr std::string ServingPoint::*kTexts[] = {&ServingPoint::model_id,   &ServingPoint::gpu,
                                                 &ServingPoint::engine,     &ServingPoint::engine_version,
                                                 &ServingPoint::gemm_quant, &ServingPoint::moe_quant};
constexpr double ServingPoint::*kNumbers[] = {
    &ServingPoint::tensor_parallel,     &ServingPoint::attention_data_parallel,
    &ServingPoint::moe_tensor_parallel, &ServingPoint::moe_expert_parallel,
    &ServingPoint::concurrency,         &ServingPoint::prompt_tokens,
    &ServingPoint::output_tokens};

// SplitMix64 (Steele, Lea and Flood 2014).
uint64_t next(uint64_t& state) {
  uint64_t z = (state += 0x9E3779B97F4A7C15u);
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}
double uniform(uint64_t& state) { return static_cast<double>(next(state) >> 11) * 0x1.0p-53; }

}  // namespace

std::vector<double> ExtraTrees::encode(const ServingPoint& point) const {
  std::vector<double> out;
  for (const auto field : kNumbers) out.push_back(std::log1p(point.*field));
  for (size_t i = 0; i < std::size(kTexts); ++i)
    for (const std::string& level : levels_[i]) out.push_back(point.*kTexts[i] == level ? 1.0 : 0.0);
  return out;
}

ExtraTrees::ExtraTrees(const std::vector<ServingPoint>& train, Metric metric, uint64_t seed) {
  for (const auto field : kTexts) {
    std::vector<std::string> names;
    for (const ServingPoint& point : train) names.push_back(point.*field);
    std::sort(names.begin(), names.end());
    names.erase(std::unique(names.begin(), names.end()), names.end());
    levels_.push_back(std::move(names));
  }
  for (const ServingPoint& point : train) {
    rows_.push_back(encode(point));
    y_.push_back(std::log(measured(point, metric)));
  }
  std::vector<size_t> ids(rows_.size());
  uint64_t random = seed;
  for (int t = 0; t < kTrees; ++t) {
    std::iota(ids.begin(), ids.end(), size_t{0});
    roots_.push_back(grow(ids, 0, ids.size(), random));
  }
  rows_.clear();
}

size_t ExtraTrees::grow(std::vector<size_t>& ids, size_t begin, size_t end, uint64_t& random) {
  const size_t index = nodes_.size();
  nodes_.emplace_back();
  double sum = 0;
  for (size_t i = begin; i < end; ++i) sum += y_[ids[i]];
  const double count = static_cast<double>(end - begin);
  nodes_[index].value = sum / count;
  if (end - begin < 2) return index;
  double best = -1;
  int best_feature = -1;
  double best_threshold = 0;
  for (size_t f = 0; f < rows_[0].size(); ++f) {
    double low = std::numeric_limits<double>::infinity();
    double high = -low;
    for (size_t i = begin; i < end; ++i) {
      low = std::min(low, rows_[ids[i]][f]);
      high = std::max(high, rows_[ids[i]][f]);
    }
    if (!(low < high)) continue;
    const double threshold = low + (high - low) * uniform(random);
    double left_sum = 0;
    double left = 0;
    for (size_t i = begin; i < end; ++i) {
      if (rows_[ids[i]][f] > threshold) continue;
      left_sum += y_[ids[i]];
      left += 1;
    }
    if (left == 0 || left == count) continue;
    const double difference = left_sum / left - (sum - left_sum) / (count - left);
    const double gain = left * (count - left) / count * difference * difference;
    if (gain > best) {
      best = gain;
      best_feature = static_cast<int>(f);
      best_threshold = threshold;
    }
  }
  if (best_feature < 0) return index;
  const auto middle =
      std::partition(ids.begin() + static_cast<std::ptrdiff_t>(begin), ids.begin() + static_cast<std::ptrdiff_t>(end),
                     [&](size_t id) { return rows_[id][static_cast<size_t>(best_feature)] <= best_threshold; });
  const auto split = static_cast<size_t>(middle - ids.begin());
  const size_t left = grow(ids, begin, split, random);
  const size_t right = grow(ids, split, end, random);
  nodes_[index].feature = best_feature;
  nodes_[index].threshold = best_threshold;
  nodes_[index].left = left;
  nodes_[index].right = right;
  return index;
}

double ExtraTrees::milliseconds(const ServingPoint& point) const {
  const std::vector<double> x = encode(point);
  double sum = 0;
  for (size_t node : roots_) {
    while (nodes_[node].feature >= 0) {
      const Node& at = nodes_[node];
      node = x[static_cast<size_t>(at.feature)] <= at.threshold ? at.left : at.right;
    }
    sum += nodes_[node].value;
  }
  return std::exp(sum / static_cast<double>(roots_.size()));
}

}  // namespace sextant::advisor
