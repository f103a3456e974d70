#include "advisor/predict/predictor.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <set>

#include <nlohmann/json.hpp>

#include "advisor/embedded.h"
#include "engine/base/check.h"

namespace sextant::advisor {
namespace {

// Of left-out rows that an interval should hold: between 88 and 95% with room for samples of a few hundred.
constexpr double kCoverage = 0.895;
constexpr double kLargestStandardised = 6;
constexpr size_t kFewestSamples = 30;
constexpr size_t kFolds = 10;
constexpr double kWidestLogHalf = 3;
constexpr double kWidest = 0.98;  // of the shapes of rows left out
constexpr double kDecided = 0.70;
// Of the deviation and of the local size of errors: the pair that gives the narrowest median interval is taken.
constexpr std::pair<double, double> kPowers[] = {{1, 1},    {1.25, 1},    {1.5, 1},    {0.75, 1},    {0.5, 1},
                                                 {1, 1.25}, {1.25, 1.25}, {1.5, 1.25}, {0.75, 1.25}, {0.5, 1.25}};
constexpr double kNormal90 = 1.6448536269514722;

// How alike two points' errors are in size, by distance in these features: one noisy campaign says little of another.
struct SizeWeight {
  size_t feature;
  double weight;
};
constexpr SizeWeight kSizeNumbers[] = {{0, 0.3}, {1, 0.5}, {2, 0.3}, {3, 1}, {4, 1}, {6, 0.2}};
constexpr SizeWeight kSizeNames[] = {{0, 3}, {1, 2}, {2, 3}, {3, 2}, {4, 2}};
constexpr double kSizePrior = 0.5;
constexpr double kSizeFarthest = 15;

double quantile(std::vector<double> values, double p) {
  if (values.empty()) return 0;
  const size_t k = std::min(values.size() - 1, static_cast<size_t>(p * static_cast<double>(values.size())));
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(k), values.end());
  return values[k];
}

// The kernels that advisor/data/kernel.json holds (how they were found: advisor/README.md).
const Kernel& kernel_of(Metric metric) {
  static const std::array<Kernel, 2> kernels = [] {
    const nlohmann::json json = nlohmann::json::parse(embedded_file("kernel.json"));
    std::array<Kernel, 2> out;
    for (const Metric m : {Metric::kTpot, Metric::kTtft}) {
      Result<Kernel> kernel = Kernel::from_json(json.at(metric_name(m)).dump());
      CHECK(kernel.ok()) << kernel.status().message();
      out[static_cast<size_t>(m)] = *kernel;
    }
    return out;
  }();
  return kernels[static_cast<size_t>(metric)];
}

// GPUs have several names; rows meet under the profile's.
ServingPoint with_gpu_name(ServingPoint point, const GpuTable& gpus) {
  if (const GpuProfile* gpu = gpus.find(point.gpu)) point.gpu = gpu->name;
  return point;
}

// The same run, however it is labelled.
std::string run_key(const ServingPoint& p, const PointPhysics& x) {
  char numbers[160];
  std::snprintf(numbers, sizeof numbers, "|%g|%g|%g|%g|%g|%g|%.9g|%.9g", x.num_gpus, x.data_parallel, x.expert_parallel,
                p.concurrency, p.prompt_tokens, p.output_tokens, p.ttft_mean_ms, p.tpot_mean_ms);
  return x.configuration + '|' + p.gpu + '|' + p.engine + '|' + p.gemm_quant + '|' + p.moe_quant + numbers;
}

}  // namespace

const char* provenance_name(Provenance provenance) {
  switch (provenance) {
    case Provenance::kMeasured: return "measured";
    case Provenance::kInterpolated: return "interpolated";
    case Provenance::kEstimated: return "estimated";
  }
  return "";
}

const char* verdict_name(Verdict verdict) {
  switch (verdict) {
    case Verdict::kPass: return "pass";
    case Verdict::kFail: return "fail";
    case Verdict::kUncertain: return "uncertain";
  }
  return "";
}

double probability_within(const Prediction& prediction, double limit_ms) {
  const double deviation = std::max(prediction.log_half_width / kNormal90, 1e-9);
  return 0.5 * std::erfc(-std::log(limit_ms / prediction.mean) / deviation / std::sqrt(2.0));
}

Verdict verdict_of(const Prediction& prediction, double limit_ms) {
  const double p = probability_within(prediction, limit_ms);
  return p > kDecided ? Verdict::kPass : p < 1 - kDecided ? Verdict::kFail : Verdict::kUncertain;
}

void order_by_load(std::vector<Prediction>& predictions) {
  // Pool adjacent violators, weights 1 / width^2.
  struct Pool {
    double weight;
    double log_mean;
    size_t count;
  };
  std::vector<Pool> pools;
  for (const Prediction& p : predictions) {
    pools.push_back({1 / std::max(p.log_half_width * p.log_half_width, 1e-12), std::log(p.mean), 1});
    while (pools.size() > 1 && pools[pools.size() - 2].log_mean > pools.back().log_mean) {
      const Pool last = pools.back();
      pools.pop_back();
      Pool& pool = pools.back();
      pool.log_mean = (pool.weight * pool.log_mean + last.weight * last.log_mean) / (pool.weight + last.weight);
      pool.weight += last.weight;
      pool.count += last.count;
    }
  }
  size_t i = 0;
  for (const Pool& pool : pools) {
    for (size_t k = 0; k < pool.count; ++k, ++i) {
      Prediction& p = predictions[i];
      if (pool.count == 1) continue;
      p.mean = std::exp(pool.log_mean);
      p.low = p.mean * std::exp(-p.log_half_width);
      p.high = p.mean * std::exp(p.log_half_width);
    }
  }
}

Result<Predictor> Predictor::train(const std::vector<ServingPoint>& rows, const FactsTable& facts, const GpuTable& gpus,
                                   TrainedCache* cache) {
  Predictor out;
  out.facts_ = &facts;
  out.gpus_ = &gpus;
  out.report_.rows = rows.size();
  std::vector<PointPhysics> physics;
  std::vector<PointFeatures> features;
  std::set<std::string> seen;
  for (const ServingPoint& as_given : rows) {
    const ServingPoint row = with_gpu_name(as_given, gpus);
    Result<PointPhysics> x = physics_of(row, facts, gpus);
    if (!x.ok()) {
      if (out.report_.skipped.size() < 100) out.report_.skipped.push_back(x.status().message());
      continue;
    }
    out.pairs_.insert(pair_key(row));
    if (!seen.insert(run_key(row, *x)).second) continue;
    out.groups_[group_key(row)][row.concurrency].push_back(out.points_.size());
    features.push_back(features_of(row, *x));
    out.points_.push_back(row);
    physics.push_back(std::move(*x));
  }
  out.report_.distinct = out.points_.size();
  if (out.points_.size() < 20)
    return invalid_argument(
        "only " + std::to_string(out.points_.size()) + " usable measured rows; at least 20 are needed" +
        (out.report_.skipped.empty() ? "" : " (first skipped: " + out.report_.skipped.front() + ")"));
  std::string key;
  if (cache != nullptr) {
    key = cache->key(out.points_, features);
    if (const auto learned = cache->read(key); learned && out.restore(*learned, features, physics)) return out;
    cache->missed();
  }
  for (const Metric metric : {Metric::kTpot, Metric::kTtft}) out.roofline_.fit(metric, out.points_, physics);
  for (const Metric metric : {Metric::kTpot, Metric::kTtft}) out.fit_surface(metric, features, physics);
  if (cache != nullptr) cache->write(key, out.learned());
  return out;
}

std::vector<double> Predictor::residuals(Metric metric, const std::vector<PointPhysics>& physics) const {
  std::vector<double> y(points_.size());
  for (size_t i = 0; i < y.size(); ++i)
    y[i] = std::log(measured(points_[i], metric) / roofline_.milliseconds(metric, points_[i], physics[i]));
  return y;
}

std::string Predictor::learned() const {
  NumberWriter out;
  out.put(roofline_.tpot);
  out.put(roofline_.ttft);
  for (const Surface& surface : surfaces_) {
    out.put(surface.process.weights());
    out.put(surface.process.noise());
    for (const Calibration& c : surface.calibrations) {
      out.put(std::array<double, 5>{c.mean_standardised, c.quantile, c.power, c.size_power, c.widest_shape});
      std::vector<double> samples;
      for (const auto& s : c.samples)
        for (const double x :
             {static_cast<double>(s.row), static_cast<double>(s.block), s.deviation, s.standardised, s.error})
          samples.push_back(x);
      out.put(samples);
    }
  }
  return out.bytes();
}

bool Predictor::restore(std::string_view learned, const std::vector<PointFeatures>& features,
                        const std::vector<PointPhysics>& physics) {
  NumberReader in(learned);
  if (!in.get(roofline_.tpot) || !in.get(roofline_.ttft)) return false;
  for (const Metric metric : {Metric::kTpot, Metric::kTtft}) {
    Surface& surface = surfaces_[static_cast<size_t>(metric)];
    std::vector<double> weights, noise;
    if (!in.get(weights) || !in.get(noise) || weights.size() != points_.size() || noise.size() != points_.size())
      return false;
    surface.process.restore(kernel_of(metric), features, residuals(metric, physics), weights, noise);
    for (Calibration& c : surface.calibrations) {
      c = {};
      std::array<double, 5> scalars{};
      std::vector<double> samples;
      if (!in.get(scalars) || !in.get(samples) || samples.size() % 5 != 0) return false;
      c.mean_standardised = scalars[0];
      c.quantile = scalars[1];
      c.power = scalars[2];
      c.size_power = scalars[3];
      c.widest_shape = scalars[4];
      for (size_t i = 0; i < samples.size(); i += 5) {
        if (!(samples[i] >= 0 && samples[i] < static_cast<double>(points_.size()) && samples[i + 1] >= 0)) return false;
        c.samples.push_back({static_cast<size_t>(samples[i]), static_cast<size_t>(samples[i + 1]), samples[i + 2],
                             samples[i + 3], samples[i + 4]});
      }
    }
  }
  return in.done();
}

void Predictor::fit_surface(Metric metric, const std::vector<PointFeatures>& features,
                            const std::vector<PointPhysics>& physics) {
  Surface& surface = surfaces_[static_cast<size_t>(metric)];
  const std::vector<double> y = residuals(metric, physics);
  surface.process.fit(kernel_of(metric), features, y);

  using Block = ResidualProcess::Block;
  std::array<std::vector<Block>, 3> blocks;
  // A tenth of the loads, and of the configurations, at a time: a configuration that was never measured seldom comes alone.
  blocks[0].resize(kFolds);
  blocks[1].resize(kFolds);
  size_t next_point = 0;
  size_t next_group = 0;
  for (const auto& [key, loads] : groups_) {
    for (auto load = loads.begin(); load != loads.end(); ++load) {
      Block& whole = blocks[1][next_group % kFolds];
      whole.insert(whole.end(), load->second.begin(), load->second.end());
      if (load == loads.begin() || std::next(load) == loads.end()) continue;
      Block& points = blocks[0][next_point++ % kFolds];
      points.insert(points.end(), load->second.begin(), load->second.end());
    }
    // Neighbours in name are neighbours in kind: a step without a common divisor with the folds mixes them.
    next_group += 1 + key.size() % 3;
  }
  for (size_t level = 0; level < 2; ++level)
    for (Block& block : blocks[level]) std::sort(block.begin(), block.end());
  std::map<std::string, Block> by_pair;
  for (size_t i = 0; i < points_.size(); ++i) by_pair[pair_key(points_[i])].push_back(i);
  for (auto& [key, block] : by_pair) blocks[2].push_back(std::move(block));
  for (size_t level = 0; level < 3; ++level)
    calibrate(surface, surface.calibrations[level], blocks[level], features, y);
  surface.process.release_factor();
}

void Predictor::calibrate(Surface& surface, Calibration& calibration, const std::vector<ResidualProcess::Block>& blocks,
                          const std::vector<PointFeatures>& features, const std::vector<double>& y) {
  for (size_t b = 0; b < blocks.size(); ++b) {
    // The only block there is says nothing of the rest.
    if (blocks[b].empty() || blocks[b].size() == y.size()) continue;
    const auto left_out = surface.process.leave_out(blocks[b]);
    for (size_t i = 0; i < blocks[b].size(); ++i) {
      const double error = std::abs(left_out[i].mean - y[blocks[b][i]]);
      calibration.samples.push_back({blocks[b][i], b, left_out[i].deviation,
                                     std::min(error / left_out[i].deviation, kLargestStandardised), error});
    }
  }
  if (calibration.samples.size() < kFewestSamples) {
    calibration.samples.clear();
    calibration.quantile = 2.5;
    return;
  }
  double sum = 0;
  for (const auto& sample : calibration.samples) sum += sample.standardised;
  calibration.mean_standardised = sum / static_cast<double>(calibration.samples.size());
  std::vector<double> sizes;
  for (const auto& sample : calibration.samples)
    sizes.push_back(local_size(surface, calibration, features[sample.row], sample.block));
  // The shape that gives the narrowest median interval of the wanted coverage.
  double narrowest = 0;
  std::vector<double> shapes(sizes.size());
  for (const auto& [power, size_power] : kPowers) {
    for (size_t i = 0; i < sizes.size(); ++i)
      shapes[i] = std::pow(calibration.samples[i].deviation, power) * std::pow(sizes[i], size_power);
    std::vector<double> ratios, widths;
    for (size_t i = 0; i < sizes.size(); ++i) ratios.push_back(calibration.samples[i].error / shapes[i]);
    const double q = quantile(ratios, kCoverage);
    for (const double shape : shapes) widths.push_back(q * shape);
    const double width = quantile(widths, 0.5);
    if (narrowest == 0 || width < narrowest) {
      narrowest = width;
      calibration.quantile = q;
      calibration.power = power;
      calibration.size_power = size_power;
      calibration.widest_shape = quantile(shapes, kWidest);
    }
  }
}

double Predictor::local_size(const Surface& surface, const Calibration& calibration, const PointFeatures& point,
                             std::optional<size_t> without_block) const {
  return local_sizes(surface, calibration, {point}, without_block).front();
}

std::vector<double> Predictor::local_sizes(const Surface& surface, const Calibration& calibration,
                                           const std::vector<PointFeatures>& points,
                                           std::optional<size_t> without_block) const {
  if (calibration.samples.empty()) return std::vector<double>(points.size(), 1.0);
  std::vector<double> weights(points.size(), kSizePrior);
  std::vector<double> sums(points.size(), kSizePrior * calibration.mean_standardised);
  std::array<int32_t, std::size(kSizeNames)> ids{};
  for (size_t k = 0; k < ids.size(); ++k)
    ids[k] = surface.process.name_id(kSizeNames[k].feature, points[0].names[kSizeNames[k].feature]);
  for (const auto& sample : calibration.samples) {
    if (without_block && sample.block == *without_block) continue;
    double names = 0;
    for (size_t k = 0; k < ids.size(); ++k)
      names += surface.process.name(sample.row, kSizeNames[k].feature) != ids[k] ? kSizeNames[k].weight : 0.0;
    if (names > kSizeFarthest) continue;
    for (size_t p = 0; p < points.size(); ++p) {
      double distance = names;
      for (const SizeWeight& w : kSizeNumbers) {
        const double d = surface.process.number(sample.row, w.feature) - points[p].numbers[w.feature];
        distance += w.weight * d * d;
      }
      if (distance > kSizeFarthest) continue;
      const double weight = std::exp(-distance);
      weights[p] += weight;
      sums[p] += weight * sample.standardised;
    }
  }
  for (size_t p = 0; p < points.size(); ++p) sums[p] /= weights[p];
  return sums;
}

Nearness Predictor::nearness(const ServingPoint& as_given) const {
  const ServingPoint point = with_gpu_name(as_given, *gpus_);
  const auto group = groups_.find(group_key(point));
  if (group != groups_.end() && group->second.begin()->first <= point.concurrency &&
      point.concurrency <= group->second.rbegin()->first)
    return Nearness::kInterpolated;
  return pairs_.count(pair_key(point)) > 0 ? Nearness::kConfiguration : Nearness::kPair;
}

Result<double> Predictor::roofline_ms(Metric metric, const ServingPoint& point) const {
  const Result<PointPhysics> physics = physics_of(point, *facts_, *gpus_);
  if (!physics.ok()) return physics.status();
  return roofline_.milliseconds(metric, point, *physics);
}

Result<Prediction> Predictor::predict(Metric metric, const ServingPoint& point) const {
  ASSIGN_OR_RETURN(const std::vector<Prediction> all, predict_loads(metric, point, {point.concurrency}));
  return all.front();
}

Result<std::vector<Prediction>> Predictor::predict_loads(Metric metric, const ServingPoint& as_given,
                                                         const std::vector<double>& loads) const {
  ServingPoint point = with_gpu_name(as_given, *gpus_);
  const Surface& surface = surfaces_[static_cast<size_t>(metric)];
  std::vector<PointFeatures> features;
  std::vector<double> means;
  for (const double load : loads) {
    point.concurrency = load;
    const Result<PointPhysics> physics = physics_of(point, *facts_, *gpus_);
    if (!physics.ok()) return physics.status();
    features.push_back(features_of(point, *physics));
    means.push_back(roofline_.milliseconds(metric, point, *physics));
  }
  const std::vector<ResidualProcess::Estimate> estimates = surface.process.estimate_all(features);
  const std::string group_name = group_key(point);
  const auto group = point.pipeline_parallel > 1 ? groups_.end() : groups_.find(group_name);
  const bool pair = point.pipeline_parallel == 1 && pairs_.count(pair_key(point)) > 0;
  std::vector<Nearness> near;
  for (const double load : loads)
    near.push_back(group != groups_.end() && group->second.begin()->first <= load &&
                           load <= group->second.rbegin()->first
                       ? Nearness::kInterpolated
                   : pair ? Nearness::kConfiguration
                          : Nearness::kPair);
  std::vector<Prediction> out(loads.size());
  for (const Nearness kind : {Nearness::kInterpolated, Nearness::kConfiguration, Nearness::kPair}) {
    std::vector<size_t> those;
    std::vector<PointFeatures> points;
    for (size_t i = 0; i < loads.size(); ++i)
      if (near[i] == kind) those.push_back(i), points.push_back(features[i]);
    if (those.empty()) continue;
    const Calibration& calibration = surface.calibrations[static_cast<size_t>(kind)];
    const std::vector<double> sizes = local_sizes(surface, calibration, points);
    for (size_t i = 0; i < those.size(); ++i) {
      Prediction& p = out[those[i]];
      const ResidualProcess::Estimate& estimate = estimates[those[i]];
      p.mean = means[those[i]] * std::exp(estimate.mean);
      // A point stranger than all rows left out is no better known than the strangest of them.
      const double shape =
          std::min(std::pow(estimate.deviation, calibration.power) * std::pow(sizes[i], calibration.size_power),
                   calibration.widest_shape);
      p.log_half_width = std::min(calibration.quantile * shape, kWidestLogHalf);
      p.low = p.mean * std::exp(-p.log_half_width);
      p.high = p.mean * std::exp(p.log_half_width);
      p.provenance = kind == Nearness::kInterpolated ? Provenance::kInterpolated : Provenance::kEstimated;
      if (kind != Nearness::kInterpolated) continue;
      const auto rows = group->second.find(loads[those[i]]);
      if (rows == group->second.end()) continue;
      for (const size_t row : rows->second)
        if (points_[row].engine_version == point.engine_version) p.provenance = Provenance::kMeasured;
    }
  }
  return out;
}

}  // namespace sextant::advisor
