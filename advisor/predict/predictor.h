// Predictor: mean TTFT and TPOT of a configuration under a load, each with a 90% interval and where it comes from.
// Measured rows fit a roofline, a Gaussian process learns what is left, and the intervals are set by what the fitted
// process says of its own rows left out: one calibration for points between measured loads, one for configurations never
// measured of a measured model and GPU, one for pairs of model and GPU never measured. Any thread once trained.
#pragma once

#include <array>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "advisor/predict/residual_process.h"
#include "advisor/predict/roofline.h"
#include "advisor/predict/trained_cache.h"

namespace sextant::advisor {

// How far a point is from what was measured.
enum class Nearness { kInterpolated, kConfiguration, kPair };
enum class Provenance { kMeasured, kInterpolated, kEstimated };
const char* provenance_name(Provenance provenance);

struct Prediction {
  double mean = 0;  // milliseconds
  double low = 0;   // 90% interval
  double high = 0;
  Provenance provenance = Provenance::kEstimated;
  double log_half_width = 0;  // ln(high / mean)
};

enum class Verdict { kPass, kFail, kUncertain };
const char* verdict_name(Verdict verdict);
// Whether the metric is at most `limit_ms`. Pass and fail need 70% probability.
Verdict verdict_of(const Prediction& prediction, double limit_ms);
double probability_within(const Prediction& prediction, double limit_ms);

// Predictions of one configuration at growing loads: a latency does not fall when the load grows, so neighbours that say
// otherwise are drawn to their common value, the surer one less.
void order_by_load(std::vector<Prediction>& predictions);

struct TrainingReport {
  size_t rows = 0;
  size_t distinct = 0;               // a run that stands in a file twice, under whatever label, counts once
  std::vector<std::string> skipped;  // rows whose model, GPU or quantisation is unknown
};

class Predictor {
 public:
  // The tables must outlive the predictor. Fails when fewer than 20 rows can be used. With a cache, what the very same rows
  // taught before is read from it, and what is learned now is left there.
  static Result<Predictor> train(const std::vector<ServingPoint>& rows, const FactsTable& facts, const GpuTable& gpus,
                                 TrainedCache* cache = nullptr);

  Result<Prediction> predict(Metric metric, const ServingPoint& point) const;
  // The same configuration at several loads (requests in flight), for little more than one costs.
  Result<std::vector<Prediction>> predict_loads(Metric metric, const ServingPoint& point,
                                                const std::vector<double>& loads) const;
  // What the calibrated roofline alone says.
  Result<double> roofline_ms(Metric metric, const ServingPoint& point) const;
  Nearness nearness(const ServingPoint& point) const;
  const TrainingReport& report() const { return report_; }
  const Roofline& roofline() const { return roofline_; }
  Result<PointPhysics> physics(const ServingPoint& point) const { return physics_of(point, *facts_, *gpus_); }

 private:
  // Errors of the rows left out, and how they become a half-width: q * deviation^power * (their local size)^size_power.
  struct Calibration {
    struct Sample {
      size_t row;
      size_t block;
      double deviation;
      double standardised;  // |error| / deviation, at most 6
      double error;         // |log error|
    };
    std::vector<Sample> samples;
    double mean_standardised = 1;
    double quantile = 2;
    double power = 1;
    double size_power = 1;
    double widest_shape = 1;
  };
  struct Surface {
    ResidualProcess process;
    std::array<Calibration, 3> calibrations;  // by Nearness
  };

  // What training found out, beyond what the rows say: to bytes, and back onto the same rows.
  std::string learned() const;
  bool restore(std::string_view learned, const std::vector<PointFeatures>& features,
               const std::vector<PointPhysics>& physics);
  std::vector<double> residuals(Metric metric, const std::vector<PointPhysics>& physics) const;
  void fit_surface(Metric metric, const std::vector<PointFeatures>& features, const std::vector<PointPhysics>& physics);
  void calibrate(Surface& surface, Calibration& calibration, const std::vector<ResidualProcess::Block>& blocks,
                 const std::vector<PointFeatures>& features, const std::vector<double>& y);
  double local_size(const Surface& surface, const Calibration& calibration, const PointFeatures& point,
                    std::optional<size_t> without_block) const;
  // Of points with the same names.
  std::vector<double> local_sizes(const Surface& surface, const Calibration& calibration,
                                  const std::vector<PointFeatures>& points,
                                  std::optional<size_t> without_block = std::nullopt) const;

  const FactsTable* facts_ = nullptr;
  const GpuTable* gpus_ = nullptr;
  std::vector<ServingPoint> points_;  // distinct
  Roofline roofline_;
  std::array<Surface, 2> surfaces_;                                      // by Metric
  std::map<std::string, std::map<double, std::vector<size_t>>> groups_;  // group -> concurrency -> rows
  std::set<std::string> pairs_;
  TrainingReport report_;
};

}  // namespace sextant::advisor
