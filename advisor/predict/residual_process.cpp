#include "advisor/predict/residual_process.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include <nlohmann/json.hpp>

#include "engine/base/check.h"

namespace sextant::advisor {
namespace {

constexpr double kJitter = 1e-6;
constexpr double kDegreesOfFreedom = 3;
constexpr double kLeastWeight = 1e-5;
constexpr double kFarthest = 30;  // beyond it a covariance is nothing

}  // namespace

const std::array<const char*, kNumNumbers + kNumNames> kFeatureNames = {"log_concurrency",
                                                                        "log_prompt",
                                                                        "log_output",
                                                                        "log_gpus",
                                                                        "log_data_parallel",
                                                                        "log_expert_parallel",
                                                                        "log_kv_ratio",
                                                                        "log_stream_weights",
                                                                        "log_prefill",
                                                                        "log_prefill_per_step",
                                                                        "log_active_parameters",
                                                                        "log_bandwidth",
                                                                        "log_layers",
                                                                        "log_weight_bytes",
                                                                        "latent",
                                                                        "moe",
                                                                        "configuration",
                                                                        "gpu",
                                                                        "engine",
                                                                        "engine_version",
                                                                        "quantization",
                                                                        "group"};

PointFeatures features_of(const ServingPoint& p, const PointPhysics& x) {
  PointFeatures f;
  f.numbers = {std::log(p.concurrency),
               std::log(p.prompt_tokens),
               std::log(p.output_tokens),
               std::log(x.num_gpus),
               std::log(x.data_parallel),
               std::log(x.expert_parallel),
               std::log(std::clamp(x.kv_ratio, 0.02, 20.0)),
               std::log(x.stream_weights),
               std::log(x.prefill),
               std::log(x.prefill_per_step),
               std::log(x.active_parameters),
               std::log(x.memory_gb_per_s * 1e9),
               std::log(x.layers),
               std::log(x.weight_bytes),
               x.latent ? 1.0 : 0.0,
               x.moe ? 1.0 : 0.0};
  const std::string quantization = p.gemm_quant + '/' + p.moe_quant;
  const auto whole = [](double value) { return std::to_string(std::llround(value)); };
  f.names = {x.configuration,
             p.gpu,
             p.engine,
             p.engine + ' ' + p.engine_version,
             quantization,
             x.configuration + '|' + p.gpu + '|' + p.engine + '|' + quantization + '|' + whole(x.num_gpus) + '|' +
                 whole(x.data_parallel) + '|' + whole(x.expert_parallel) + '|' + whole(p.prompt_tokens) + '|' +
                 whole(p.output_tokens)};
  return f;
}

Result<Kernel> Kernel::from_json(std::string_view text) {
  const nlohmann::json json = nlohmann::json::parse(text, nullptr, false);
  Kernel kernel;
  try {
    kernel.noise = json.at("noise").get<double>();
    kernel.amplitude = json.at("amplitude").get<std::array<double, kNumComponents>>();
    for (size_t i = 0; i < kFeatureNames.size(); ++i) {
      const auto weights = json.at("weights").at(kFeatureNames[i]).get<std::array<double, kNumComponents>>();
      for (size_t c = 0; c < kNumComponents; ++c) kernel.weight[c][i] = weights[c];
    }
  } catch (const nlohmann::json::exception& error) {
    return data_loss(std::string("kernel: ") + error.what());
  }
  return kernel;
}

double ResidualProcess::variance_at_zero() const {
  return std::accumulate(kernel_.amplitude.begin(), kernel_.amplitude.end(), 0.0);
}

int32_t ResidualProcess::name_id(size_t feature, const std::string& name) const {
  const auto found = ids_[feature].find(name);
  return found == ids_[feature].end() ? -1 : found->second;
}

// Of each component, feature by feature so that the loops run over rows: of the names, and of the numbers that `counted` says.
std::array<std::vector<double>, kNumComponents> ResidualProcess::distances(
    const PointFeatures& point, const std::array<bool, kNumNumbers>& counted) const {
  const size_t n = y_.size();
  std::array<std::vector<double>, kNumComponents> distance;
  for (auto& d : distance) d.assign(n, 0.0);
  for (size_t f = 0; f < kNumNumbers + kNumNames; ++f) {
    if (f < kNumNumbers && !counted[f]) continue;
    const int32_t id = f < kNumNumbers ? 0 : name_id(f - kNumNumbers, point.names[f - kNumNumbers]);
    for (size_t c = 0; c < kNumComponents; ++c) {
      const double w = kernel_.weight[c][f];
      if (w < kLeastWeight) continue;
      double* out = distance[c].data();
      if (f < kNumNumbers) {
        const double at = point.numbers[f];
        const double* in = numbers_[f].data();
        for (size_t i = 0; i < n; ++i) out[i] += w * ((in[i] - at) * (in[i] - at));
      } else {
        const int32_t* in = names_[f - kNumNumbers].data();
        for (size_t i = 0; i < n; ++i) out[i] += in[i] != id ? w : 0.0;
      }
    }
  }
  return distance;
}

// exp of the summed distances.
std::vector<double> ResidualProcess::covariances(const PointFeatures& point) const {
  std::array<bool, kNumNumbers> all;
  all.fill(true);
  const auto distance = distances(point, all);
  std::vector<double> sum(y_.size(), 0.0);
  for (size_t c = 0; c < kNumComponents; ++c)
    for (size_t i = 0; i < sum.size(); ++i)
      if (distance[c][i] < kFarthest) sum[i] += kernel_.amplitude[c] * std::exp(-distance[c][i]);
  return sum;
}

void ResidualProcess::set_rows(const Kernel& kernel, const std::vector<PointFeatures>& rows,
                               const std::vector<double>& y) {
  CHECK_EQ(rows.size(), y.size());
  kernel_ = kernel;
  y_ = y;
  const size_t n = y.size();
  for (size_t f = 0; f < kNumNumbers; ++f) {
    numbers_[f].resize(n);
    for (size_t i = 0; i < n; ++i) numbers_[f][i] = rows[i].numbers[f];
  }
  for (size_t f = 0; f < kNumNames; ++f) {
    ids_[f].clear();
    names_[f].resize(n);
    for (size_t i = 0; i < n; ++i)
      names_[f][i] = ids_[f].try_emplace(rows[i].names[f], static_cast<int32_t>(ids_[f].size())).first->second;
  }
}

void ResidualProcess::restore(const Kernel& kernel, const std::vector<PointFeatures>& rows,
                              const std::vector<double>& y, std::vector<double> weights, std::vector<double> noise) {
  CHECK(weights.size() == y.size() && noise.size() == y.size());
  set_rows(kernel, rows, y);
  alpha_ = std::move(weights);
  noise_ = std::move(noise);
}

void ResidualProcess::fit(const Kernel& kernel, const std::vector<PointFeatures>& rows, const std::vector<double>& y,
                          int noise_rounds) {
  set_rows(kernel, rows, y);
  const size_t n = y.size();
  noise_.assign(n, kernel.noise + kJitter);
  std::vector<size_t> all(n);
  std::iota(all.begin(), all.end(), size_t{0});
  const SquareMatrix covariance = covariance_among(all);
  for (int round = 0; round <= noise_rounds; ++round) {
    SquareMatrix factor = covariance;
    for (size_t i = 0; i < n; ++i) factor.row(i)[i] += noise_[i];
    CHECK(cholesky_in_place(factor)) << "a covariance with noise on its diagonal is positive definite";
    lower_inverse_ = invert_lower(factor);
    alpha_ = solve(lower_inverse_, y_);
    if (round == noise_rounds) break;
    const std::vector<double> diagonal = inverse_diagonal(lower_inverse_);
    for (size_t i = 0; i < n; ++i) {
      const double z2 = alpha_[i] * alpha_[i] / diagonal[i];  // squared standardised error of the row left out
      const double scale = (noise_[i] - kJitter) / kernel.noise * (z2 + kDegreesOfFreedom) / (kDegreesOfFreedom + 1);
      noise_[i] = kernel.noise * std::clamp(scale, 0.25, 1e4) + kJitter;
    }
  }
}

std::vector<ResidualProcess::LeftOut> ResidualProcess::leave_out(const Block& block) const {
  // With B the block: mean_B = y_B - S alpha_B and covariance S, where S = ((K^-1)_BB)^-1.
  SquareMatrix inverse = inverse_block(lower_inverse_, block);
  CHECK(cholesky_in_place(inverse)) << "a block of an inverse of a positive definite matrix";
  const SquareMatrix lower = invert_lower(inverse);
  std::vector<double> alpha(block.size());
  for (size_t i = 0; i < block.size(); ++i) alpha[i] = alpha_[block[i]];
  const std::vector<double> shift = solve(lower, alpha);
  const std::vector<double> variance = inverse_diagonal(lower);
  std::vector<LeftOut> out(block.size());
  for (size_t i = 0; i < block.size(); ++i) {
    out[i].mean = y_[block[i]] - shift[i];
    // A new row would have the common noise, not what this one turned out to have.
    out[i].deviation = std::sqrt(std::max(variance[i] - noise_[block[i]], 0.0) + kernel_.noise);
  }
  return out;
}

double ResidualProcess::mean(const PointFeatures& point) const {
  const std::vector<double> k = covariances(point);
  double sum = 0;
  for (size_t i = 0; i < k.size(); ++i) sum += k[i] * alpha_[i];
  return sum;
}

ResidualProcess::Estimate ResidualProcess::estimate(const PointFeatures& point) const {
  return estimate_all({point}).front();
}

std::vector<ResidualProcess::Estimate> ResidualProcess::estimate_all(const std::vector<PointFeatures>& points) const {
  std::vector<Estimate> out(points.size());
  if (points.empty()) return out;
  std::vector<size_t> varied;
  std::array<bool, kNumNumbers> shared{};
  for (size_t f = 0; f < kNumNumbers; ++f) {
    shared[f] = std::all_of(points.begin(), points.end(),
                            [&](const PointFeatures& p) { return p.numbers[f] == points[0].numbers[f]; });
    if (!shared[f]) varied.push_back(f);
  }
  for (const PointFeatures& point : points) CHECK(point.names == points[0].names) << "points of one configuration";
  // What the shared features leave near, of all rows.
  const std::array<std::vector<double>, kNumComponents> base = distances(points[0], shared);
  std::vector<size_t> rows;
  for (size_t i = 0; i < y_.size(); ++i)
    if (std::min({base[0][i], base[1][i], base[2][i]}) < kFarthest) rows.push_back(i);
  const size_t n = rows.size();
  std::array<std::vector<double>, kNumComponents> near;
  for (size_t c = 0; c < kNumComponents; ++c)
    for (const size_t row : rows) near[c].push_back(base[c][row]);
  std::vector<std::vector<double>> numbers(varied.size());
  for (size_t v = 0; v < varied.size(); ++v)
    for (const size_t row : rows) numbers[v].push_back(numbers_[varied[v]][row]);
  std::vector<std::vector<double>> k(points.size());
  std::vector<double> closest(n, 0.0);
  std::vector<double> distance;
  for (size_t p = 0; p < points.size(); ++p) {
    k[p].assign(n, 0.0);
    for (size_t c = 0; c < kNumComponents; ++c) {
      distance = near[c];
      for (size_t v = 0; v < varied.size(); ++v) {
        const double w = kernel_.weight[c][varied[v]];
        if (w < kLeastWeight) continue;
        const double at = points[p].numbers[varied[v]];
        const double* in = numbers[v].data();
        for (size_t i = 0; i < n; ++i) distance[i] += w * ((in[i] - at) * (in[i] - at));
      }
      for (size_t i = 0; i < n; ++i)
        if (distance[i] < kFarthest) k[p][i] += kernel_.amplitude[c] * std::exp(-distance[i]);
    }
    for (size_t i = 0; i < n; ++i) {
      out[p].mean += k[p][i] * alpha_[rows[i]];
      closest[i] = std::max(closest[i], k[p][i]);
    }
  }
  std::vector<size_t> order(n);
  std::iota(order.begin(), order.end(), size_t{0});
  const size_t m = std::min(kLocal, n);
  std::partial_sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(m), order.end(),
                    [&](size_t a, size_t b) { return closest[a] != closest[b] ? closest[a] > closest[b] : a < b; });
  order.resize(m);
  std::vector<size_t> local;
  for (const size_t i : order) local.push_back(rows[i]);
  SquareMatrix factor = covariance_among(local);
  for (size_t i = 0; i < m; ++i) factor.row(i)[i] += noise_[local[i]];
  CHECK(cholesky_in_place(factor)) << "a covariance with noise on its diagonal is positive definite";
  std::vector<double> solved(m);
  for (size_t p = 0; p < points.size(); ++p) {
    double explained = 0;  // |L^-1 k|^2
    for (size_t i = 0; i < m; ++i) {
      const double* row = factor.row(i);
      double sum = k[p][order[i]];
      for (size_t j = 0; j < i; ++j) sum -= row[j] * solved[j];
      solved[i] = sum / row[i];
      explained += solved[i] * solved[i];
    }
    out[p].deviation = std::sqrt(std::max(variance_at_zero() - explained, 0.0) + kernel_.noise);
  }
  return out;
}

// Lower triangle.
SquareMatrix ResidualProcess::covariance_among(const std::vector<size_t>& rows) const {
  const size_t m = rows.size();
  SquareMatrix out(m);
  std::array<std::vector<double>, kNumNumbers> numbers;
  for (size_t f = 0; f < kNumNumbers; ++f)
    for (const size_t row : rows) numbers[f].push_back(numbers_[f][row]);
  std::array<std::vector<int32_t>, kNumNames> names;
  for (size_t f = 0; f < kNumNames; ++f)
    for (const size_t row : rows) names[f].push_back(names_[f][row]);
  std::vector<double> distance(m);
  for (size_t i = 0; i < m; ++i) {
    double* sum = out.row(i);
    for (size_t c = 0; c < kNumComponents; ++c) {
      std::fill(distance.begin(), distance.begin() + static_cast<std::ptrdiff_t>(i) + 1, 0.0);
      for (size_t f = 0; f < kNumNumbers; ++f) {
        const double w = kernel_.weight[c][f];
        if (w < kLeastWeight) continue;
        const double* in = numbers[f].data();
        const double at = in[i];
        for (size_t j = 0; j <= i; ++j) distance[j] += w * ((in[j] - at) * (in[j] - at));
      }
      for (size_t f = 0; f < kNumNames; ++f) {
        const double w = kernel_.weight[c][kNumNumbers + f];
        if (w < kLeastWeight) continue;
        const int32_t* in = names[f].data();
        const int32_t id = in[i];
        for (size_t j = 0; j <= i; ++j) distance[j] += in[j] != id ? w : 0.0;
      }
      for (size_t j = 0; j <= i; ++j)
        if (distance[j] < kFarthest) sum[j] += kernel_.amplitude[c] * std::exp(-distance[j]);
    }
  }
  return out;
}

}  // namespace sextant::advisor
