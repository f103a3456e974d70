// ResidualProcess: a Gaussian process over log(measured / roofline). Its kernel is a sum of products over features of the
// point (numbers by squared distance, names by equality), so one model both interpolates between loads of a measured
// configuration and carries what it learned to configurations, models and GPUs never measured. Rows that disagree with all
// their neighbours get more noise (EM of a Student t with 3 degrees of freedom). Any thread once fitted.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "advisor/predict/dense_solver.h"
#include "advisor/predict/serving_point.h"
#include "engine/base/result.h"

namespace sextant::advisor {

inline constexpr size_t kNumNumbers = 16;
inline constexpr size_t kNumNames = 6;
inline constexpr size_t kNumComponents = 3;
extern const std::array<const char*, kNumNumbers + kNumNames> kFeatureNames;

struct PointFeatures {
  std::array<double, kNumNumbers> numbers{};
  std::array<std::string, kNumNames> names;
};
PointFeatures features_of(const ServingPoint& point, const PointPhysics& physics);

struct Kernel {
  std::array<double, kNumComponents> amplitude{};
  std::array<std::array<double, kNumNumbers + kNumNames>, kNumComponents> weight{};
  double noise = 0;

  // {"amplitude": [..], "noise": x, "weights": {"log_concurrency": [..], ...}}
  static Result<Kernel> from_json(std::string_view text);
};

class ResidualProcess {
 public:
  // One fold of rows left out together.
  using Block = std::vector<size_t>;  // ascending
  struct LeftOut {
    double mean = 0;
    double deviation = 0;
  };

  // `noise_rounds` 0 leaves every row the kernel's noise.
  void fit(const Kernel& kernel, const std::vector<PointFeatures>& rows, const std::vector<double>& y,
           int noise_rounds = 1);
  // As fit left it, without fitting: `weights` and `noise` of the same rows and kernel. No leave_out after it.
  void restore(const Kernel& kernel, const std::vector<PointFeatures>& rows, const std::vector<double>& y,
               std::vector<double> weights, std::vector<double> noise);
  const std::vector<double>& weights() const { return alpha_; }
  const std::vector<double>& noise() const { return noise_; }
  // What the process, its noise weights as they stand, says of each row of `block` from all other rows. Exact. Only before
  // release_factor.
  std::vector<LeftOut> leave_out(const Block& block) const;
  void release_factor() { lower_inverse_ = SquareMatrix(); }

  struct Estimate {
    double mean = 0;
    double deviation = 0;  // from the kLocal rows nearest by the kernel: a little wide, never narrow
  };
  static constexpr size_t kLocal = 96;
  Estimate estimate(const PointFeatures& point) const;
  // Of points that differ in numbers alone, as loads of one configuration do: what they share is worked out once, and one set of
  // near rows serves all.
  std::vector<Estimate> estimate_all(const std::vector<PointFeatures>& points) const;
  double mean(const PointFeatures& point) const;

  size_t size() const { return y_.size(); }
  // Of rows i and j.
  double number(size_t row, size_t feature) const { return numbers_[feature][row]; }
  int32_t name(size_t row, size_t feature) const { return names_[feature][row]; }
  // The id that rows have for this name; -1 for one that no row has.
  int32_t name_id(size_t feature, const std::string& name) const;

 private:
  void set_rows(const Kernel& kernel, const std::vector<PointFeatures>& rows, const std::vector<double>& y);
  std::vector<double> covariances(const PointFeatures& point) const;
  std::array<std::vector<double>, kNumComponents> distances(const PointFeatures& point,
                                                            const std::array<bool, kNumNumbers>& counted) const;
  SquareMatrix covariance_among(const std::vector<size_t>& rows) const;
  double variance_at_zero() const;

  Kernel kernel_;
  std::array<std::vector<double>, kNumNumbers> numbers_;
  std::array<std::vector<int32_t>, kNumNames> names_;
  std::array<std::map<std::string, int32_t>, kNumNames> ids_;
  std::vector<double> y_, alpha_, noise_;  // noise_: variance of each row's own
  SquareMatrix lower_inverse_;
};

}  // namespace sextant::advisor
