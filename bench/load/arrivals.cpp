#include "bench/load/arrivals.h"

#include <cmath>
#include <cstdlib>
#include <limits>
#include <numeric>

#include "bench/load/random.h"

namespace sextant::bench {
namespace {

constexpr struct {
  LoadKind kind;
  const char* name;
} kLoads[] = {
    {LoadKind::kConstant, "constant"},       {LoadKind::kPoisson, "poisson"},       {LoadKind::kGamma, "gamma"},
    {LoadKind::kConcurrency, "concurrency"}, {LoadKind::kAllAtOnce, "all_at_once"}, {LoadKind::kRamp, "ramp"},
    {LoadKind::kStages, "stages"},           {LoadKind::kTrace, "trace"},           {LoadKind::kDiurnal, "diurnal"},
};

// A weekday of a service with office users: quiet nights, a morning and an afternoon peak. Relative; normalised to mean 1.
constexpr double kWeekday[24] = {0.35, 0.28, 0.25, 0.24, 0.26, 0.35, 0.55, 0.85, 1.25, 1.60, 1.75, 1.70,
                                 1.50, 1.60, 1.75, 1.70, 1.55, 1.35, 1.15, 1.05, 0.95, 0.80, 0.65, 0.48};

bool parse_number(std::string_view text, double* value) {
  const std::string copy(text);
  char* end = nullptr;
  *value = std::strtod(copy.c_str(), &end);
  return !copy.empty() && end == copy.c_str() + copy.size() && std::isfinite(*value);
}

}  // namespace

const char* load_name(LoadKind kind) {
  for (const auto& load : kLoads) {
    if (load.kind == kind) return load.name;
  }
  return "unknown";
}

Result<LoadKind> parse_load(std::string_view name) {
  std::string plain(name);
  for (char& c : plain) c = c == '-' ? '_' : c;
  std::string known;
  for (const auto& load : kLoads) {
    if (plain == load.name) return load.kind;
    known += (known.empty() ? "" : ", ") + std::string(load.name);
  }
  return invalid_argument("load must be one of " + known + "; got '" + std::string(name) + "'", "load");
}

RateCurve constant_rate(double requests_per_s) { return {{0, requests_per_s}}; }

RateCurve ramp_rate(double begin, double end, double duration_s, bool exponential) {
  if (!exponential) return {{0, begin}, {duration_s, end}};
  RateCurve curve;
  constexpr int kPieces = 64;
  for (int i = 0; i <= kPieces; ++i) {
    const double part = static_cast<double>(i) / kPieces;
    curve.push_back({part * duration_s, begin * std::pow(end / begin, part)});
  }
  return curve;
}

Result<RateCurve> parse_stages(std::string_view text) {
  RateCurve curve;
  double time_s = 0;
  while (!text.empty()) {
    const size_t comma = text.find(',');
    std::string_view stage = text.substr(0, comma);
    text.remove_prefix(comma == std::string_view::npos ? text.size() : comma + 1);
    const size_t colon = stage.find(':');
    double rate = 0, duration_s = 0, unit_s = 1;
    if (colon != std::string_view::npos) {
      if (stage.ends_with('s')) stage.remove_suffix(1);
      if (stage.ends_with('m')) stage.remove_suffix(1), unit_s = 60;
      if (stage.ends_with('h')) stage.remove_suffix(1), unit_s = 3600;
    }
    if (colon == std::string_view::npos || !parse_number(stage.substr(0, colon), &rate) ||
        !parse_number(stage.substr(colon + 1), &duration_s) || rate < 0 || duration_s <= 0) {
      return invalid_argument(
          "stages must be RATE:SECONDS pairs such as 2:30,4:30,8:60; '" + std::string(stage) + "' is none", "stages");
    }
    curve.push_back({time_s, rate});
    time_s += duration_s * unit_s;
    curve.push_back({time_s, rate});
  }
  if (curve.empty()) return invalid_argument("stages is empty", "stages");
  return curve;
}

Result<RateCurve> daily_rate(double mean, const std::vector<double>& hours, double day_s) {
  std::vector<double> shape = hours;
  if (shape.empty()) shape.assign(std::begin(kWeekday), std::end(kWeekday));
  if (shape.size() != 24) return invalid_argument("daily_shape must hold 24 numbers, one per hour", "daily_shape");
  double sum = 0;
  for (const double hour : shape) {
    if (!(hour >= 0) || !std::isfinite(hour))
      return invalid_argument("daily_shape must hold numbers from 0", "daily_shape");
    sum += hour;
  }
  if (sum <= 0) return invalid_argument("daily_shape is 0 all day", "daily_shape");
  RateCurve curve;
  for (size_t i = 0; i < 24; ++i) {
    const double rate = mean * shape[i] * 24 / sum;
    curve.push_back({day_s * static_cast<double>(i) / 24, rate});
    curve.push_back({day_s * static_cast<double>(i + 1) / 24, rate});
  }
  return curve;
}

double curve_end_s(const RateCurve& curve) { return curve.empty() ? 0 : curve.back().time_s; }

double expected_arrivals(const RateCurve& curve, double until_s) {
  double total = 0;
  for (size_t i = 0; i < curve.size(); ++i) {
    const bool is_last = i + 1 == curve.size();
    const double begin = curve[i].time_s;
    if (begin >= until_s) break;
    const double end = is_last ? until_s : std::min(until_s, curve[i + 1].time_s);
    const double span = is_last ? 1 : curve[i + 1].time_s - begin;
    if (end <= begin) continue;
    const double end_rate =
        is_last
            ? curve[i].requests_per_s
            : curve[i].requests_per_s + (curve[i + 1].requests_per_s - curve[i].requests_per_s) * (end - begin) / span;
    total += (curve[i].requests_per_s + end_rate) / 2 * (end - begin);
  }
  return total;
}

std::vector<int64_t> arrival_times(const ArrivalSpec& spec, size_t max_requests, double max_time_s) {
  Random random(spec.seed, 0);
  std::vector<int64_t> times;
  double target = 0;  // of the integral
  double passed = 0;  // integral up to the begin of piece `i`
  size_t i = 0;
  while (times.size() < max_requests) {
    if (std::isinf(spec.burstiness)) {
      target += times.empty() ? 0 : 1;
    } else {
      target += spec.burstiness == 1 ? random.exponential() : random.gamma(spec.burstiness) / spec.burstiness;
    }
    double time_s = 0;
    for (;; ++i) {
      const RatePoint& a = spec.rate[i];
      if (i + 1 == spec.rate.size()) {
        if (a.requests_per_s <= 0 && target > passed) return times;
        time_s = a.requests_per_s > 0 ? a.time_s + (target - passed) / a.requests_per_s : a.time_s;
        break;
      }
      const RatePoint& b = spec.rate[i + 1];
      const double span = b.time_s - a.time_s;
      const double area = (a.requests_per_s + b.requests_per_s) / 2 * span;
      if (target > passed + area || span <= 0) {
        passed += area;
        continue;
      }
      // Solve rate_a * t + slope / 2 * t^2 = rest, in the form that stays exact for small slopes.
      const double rest = target - passed;
      const double slope = (b.requests_per_s - a.requests_per_s) / span;
      const double root = std::sqrt(std::max(0.0, a.requests_per_s * a.requests_per_s + 2 * slope * rest));
      const double denominator = a.requests_per_s + root;
      time_s = a.time_s + (denominator > 0 ? 2 * rest / denominator : 0);
      break;
    }
    if (time_s > max_time_s) return times;
    times.push_back(static_cast<int64_t>(std::llround(time_s * 1e9)));
  }
  return times;
}

}  // namespace sextant::bench
