// The day: load that changes by the minute, an autoscaler that follows it, and what the queue says of the requests then.
#include <algorithm>
#include <cmath>

#include "advisor/plan/candidates.h"

namespace sextant::advisor {
namespace {

constexpr int kMinutes = 24 * 60;
constexpr int kCalmMinutes = 5;  // before fewer are kept: KEDA's and the HPA's default of 300 s
constexpr double kShares[] = {0.1, 0.5, 0.8, 0.95, 1.2};  // of saturation, where attainment is worked out

// Share of requests that meet all targets, by the rate of one replica; between the rates worked out, linear.
class Attainment {
 public:
  Attainment(const SearchContext& context, const Option& option) {
    for (const double share : kShares) {
      const double rate = share * option.model.saturation_rps;
      rates_.push_back(rate);
      shares_.push_back(attainment(option.model, context.sample, rate, context.targets));
    }
  }
  double at(double rate) const {
    const auto above = std::upper_bound(rates_.begin(), rates_.end(), rate);
    if (above == rates_.begin()) return shares_.front();
    // A queue that grows by a fifth meets less and less as the hour goes on.
    if (above == rates_.end()) return 0;
    const auto i = static_cast<size_t>(above - rates_.begin());
    return std::lerp(shares_[i - 1], shares_[i], (rate - rates_[i - 1]) / (rates_[i] - rates_[i - 1]));
  }

 private:
  std::vector<double> rates_, shares_;
};

}  // namespace

Day simulate_day(const SearchContext& context, const Option& option) {
  const Spec& spec = context.spec;
  const std::vector<double> shape = spec.value("hourly_multipliers").get<std::vector<double>>();
  const double rate = option.limit.requests_per_s;
  const double average = spec.number("average_rps");
  const double headroom = 1 + spec.number("headroom_pct") / 100;
  const bool scales = spec.value("autoscaling.enabled").get<bool>();
  const int least = static_cast<int>(spec.number("autoscaling.min_replicas"));
  const int delay = static_cast<int>(std::ceil(spec.number("autoscaling.scale_up_minutes")));
  const Attainment attained(context, option);
  Day day;
  day.hours.resize(24);
  double good = 0, all = 0, usd = 0;
  std::vector<double> met(24), sent(24), carried(24);
  // Each hour has its own mean: the load goes straight through the hours' middles.
  const auto load_at = [&](int minute) {
    const double at = (static_cast<double>(minute) + 0.5) / 60 - 0.5;
    const double floor = std::floor(at);
    const auto hour = static_cast<size_t>(static_cast<int>(floor) + 24) % 24;
    return average * std::lerp(shape[hour], shape[(hour + 1) % 24], at - floor);
  };
  std::vector<int> paid_by_minute(kMinutes, 0);
  for (const Site& site : option.sites) {
    const auto wanted_at = [&](int minute) {
      if (!scales) return site.replicas();
      const double wanted = load_at(minute) * site.share * headroom / rate;
      const int needed = std::clamp(static_cast<int>(std::ceil(wanted - 1e-9)), std::min(1, site.replicas_needed),
                                    site.replicas_needed);
      return std::min(site.replicas(), std::max(needed + site.spares, std::min(least, site.replicas())));
    };
    int paid = wanted_at(kMinutes - 1);
    int serving = paid;
    int calm = 0;
    std::vector<std::pair<int, int>> coming;  // minute, replicas then
    // A day before, so that midnight is as it is after many days.
    for (int minute = -kMinutes; minute < kMinutes; ++minute) {
      const int of_day = (minute + kMinutes) % kMinutes;
      const int wanted = wanted_at(of_day);
      if (wanted > paid) {
        coming.emplace_back(minute + delay, wanted - paid);
        paid = wanted;
        calm = 0;
      } else if (wanted < paid && ++calm >= kCalmMinutes) {
        // Those that do not serve yet go first.
        int surplus = paid - wanted;
        while (surplus > 0 && !coming.empty()) {
          const int some = std::min(surplus, coming.back().second);
          coming.back().second -= some;
          surplus -= some;
          if (coming.back().second == 0) coming.pop_back();
        }
        serving -= surplus;
        paid = wanted;
        calm = 0;
      } else if (wanted == paid) {
        calm = 0;
      }
      std::erase_if(coming, [&](const std::pair<int, int>& some) {
        if (some.first > minute) return false;
        serving += some.second;
        return true;
      });
      if (minute < 0) continue;
      const auto h = static_cast<size_t>(minute / 60);
      const double load = load_at(of_day) * site.share;
      met[h] += load * attained.at(load / std::max(serving, 1));
      sent[h] += load;
      carried[h] += serving * rate;
      day.hours[h].replicas += paid / 60.0;
      day.hours[h].usd += instances_for(paid, site.offer, option) * site.offer.usd_per_hour / 60;
      paid_by_minute[static_cast<size_t>(minute)] += paid;
    }
  }
  for (size_t h = 0; h < 24; ++h) {
    Day::Hour& hour = day.hours[h];
    hour.requests_per_s = sent[h] / 60;
    hour.attainment = sent[h] > 0 ? met[h] / sent[h] : 1;
    hour.utilization = carried[h] > 0 ? sent[h] / carried[h] : 0;
    good += met[h];
    all += sent[h];
    usd += hour.usd;
  }
  const auto [fewest, most] = std::minmax_element(paid_by_minute.begin(), paid_by_minute.end());
  day.replicas_min = *fewest;
  day.replicas_max = *most;
  day.attainment = all > 0 ? good / all : 1;
  day.usd_per_month = usd / 24 * kHoursPerMonth + (option.usd_per_month - option.usd_per_hour * kHoursPerMonth);
  return day;
}

}  // namespace sextant::advisor
