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

// exp of the summed distances, feature by feature so that the loops run over rows.
std::vector<double> ResidualProcess::covariances(const PointFeatures& point) const {
  const size_t n = y_.size();
  std::array<std::vector<double>, kNumComponents> distance;
  for (auto& d : distance) d.assign(n, 0.0);
  for (size_t f = 0; f < kNumNumbers + kNumNames; ++f) {
    for (size_t c = 0; c < kNumComponents; ++c) {
      const double w = kernel_.weight[c][f];
      if (w < kLeastWeight) continue;
      double* out = distance[c].data();
      if (f < kNumNumbers) {
        const double at = point.numbers[f];
        const double* in = numbers_[f].data();
        for (size_t i = 0; i < n; ++i) out[i] += w * ((in[i] - at) * (in[i] - at));
      } else {
        const int32_t id = name_id(f - kNumNumbers, point.names[f - kNumNumbers]);
        const int32_t* in = names_[f - kNumNumbers].data();
        for (size_t i = 0; i < n; ++i) out[i] += in[i] != id ? w : 0.0;
      }
    }
  }
  std::vector<double> sum(n, 0.0);
  for (size_t c = 0; c < kNumComponents; ++c)
    for (size_t i = 0; i < n; ++i)
      if (distance[c][i] < 30) sum[i] += kernel_.amplitude[c] * std::exp(-distance[c][i]);
  return sum;
}

SquareMatrix ResidualProcess::covariance_matrix() const {
  const size_t n = y_.size();
  SquareMatrix matrix(n);
  std::vector<double> distance(n);
  for (size_t i = 0; i < n; ++i) {
    double* out = matrix.row(i);
    for (size_t c = 0; c < kNumComponents; ++c) {
      std::fill(distance.begin(), distance.begin() + static_cast<std::ptrdiff_t>(i) + 1, 0.0);
      for (size_t f = 0; f < kNumNumbers; ++f) {
        const double w = kernel_.weight[c][f];
        if (w < kLeastWeight) continue;
        const double* in = numbers_[f].data();
        const double at = in[i];
        for (size_t j = 0; j <= i; ++j) distance[j] += w * ((in[j] - at) * (in[j] - at));
      }
      for (size_t f = 0; f < kNumNames; ++f) {
        const double w = kernel_.weight[c][kNumNumbers + f];
        if (w < kLeastWeight) continue;
        const int32_t* in = names_[f].data();
        const int32_t id = in[i];
        for (size_t j = 0; j <= i; ++j) distance[j] += in[j] != id ? w : 0.0;
      }
      for (size_t j = 0; j <= i; ++j)
        if (distance[j] < 30) out[j] += kernel_.amplitude[c] * std::exp(-distance[j]);
    }
  }
  return matrix;
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
  const SquareMatrix covariance = covariance_matrix();
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
  const std::vector<double> k = covariances(point);
  Estimate out;
  for (size_t i = 0; i < k.size(); ++i) out.mean += k[i] * alpha_[i];
  std::vector<size_t> order(k.size());
  std::iota(order.begin(), order.end(), size_t{0});
  const size_t m = std::min(kLocal, order.size());
  std::partial_sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(m), order.end(),
                    [&](size_t a, size_t b) { return k[a] != k[b] ? k[a] > k[b] : a < b; });
  SquareMatrix local(m);
  for (size_t i = 0; i < m; ++i) {
    for (size_t j = 0; j <= i; ++j) {
      std::array<double, kNumComponents> distance{};
      for (size_t c = 0; c < kNumComponents; ++c) {
        for (size_t f = 0; f < kNumNumbers; ++f) {
          const double d = numbers_[f][order[i]] - numbers_[f][order[j]];
          distance[c] += kernel_.weight[c][f] * d * d;
        }
        for (size_t f = 0; f < kNumNames; ++f)
          distance[c] += names_[f][order[i]] != names_[f][order[j]] ? kernel_.weight[c][kNumNumbers + f] : 0.0;
        local.row(i)[j] += kernel_.amplitude[c] * std::exp(-distance[c]);
      }
    }
    local.row(i)[i] += noise_[order[i]];
  }
  std::vector<double> near(m);
  for (size_t i = 0; i < m; ++i) near[i] = k[order[i]];
  const std::vector<double> weights = solve_small(std::move(local), near);
  double explained = 0;
  for (size_t i = 0; i < m; ++i) explained += weights[i] * near[i];
  out.deviation = std::sqrt(std::max(variance_at_zero() - explained, 0.0) + kernel_.noise);
  return out;
}

}  // namespace sextant::advisor
