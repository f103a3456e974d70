// From the rate of one replica to replicas, whole instances and money.
#include <algorithm>
#include <cmath>
#include <set>

#include "advisor/kb/importers.h"
#include "advisor/plan/plan.h"

namespace sextant::advisor {
namespace {

using nlohmann::json;

std::optional<double> maybe_number(const json& body, const char* name) {
  const auto found = body.find(name);
  return found != body.end() && found->is_number() ? std::optional<double>(found->get<double>()) : std::nullopt;
}

std::string text_of(const json& body, const char* name) {
  const auto found = body.find(name);
  return found != body.end() && found->is_string() ? found->get<std::string>() : "";
}

// The hourly price of one instance under the spec's mix; nothing with the reason when a figure is missing.
std::optional<double> mixed(const Spec& spec, Offer& offer, std::string& reason) {
  const double spot_share = spec.number("pricing.spot_share");
  const double reserved_share = spec.number("pricing.reserved_share");
  const double rest = 1 - spot_share - reserved_share;
  double sum = 0;
  if (rest > 1e-9) {
    if (!offer.on_demand) {
      reason = "no on-demand price";
      return std::nullopt;
    }
    sum += rest * *offer.on_demand;
  }
  if (spot_share > 0) {
    if (!offer.spot || (offer.on_demand && *offer.spot >= *offer.on_demand)) {
      reason = offer.spot ? "spot costs as much as on-demand: no spot market" : "no spot price";
      return std::nullopt;
    }
    sum += spot_share * *offer.spot;
  }
  if (reserved_share > 0) {
    if (const auto discount = spec.maybe("pricing.reserved_discount_pct");
        !offer.reserved && discount && offer.on_demand) {
      offer.reserved = *offer.on_demand * (1 - *discount / 100);
      offer.assumed = true;
    }
    if (!offer.reserved) {
      reason = "no reserved price (pricing.reserved_discount_pct gives yours)";
      return std::nullopt;
    }
    sum += reserved_share * *offer.reserved;
  }
  return sum;
}

}  // namespace

Offers find_offers(const World& world, const Spec& spec) {
  Offers out;
  const Compliance compliance = compliance_of(spec);
  if (spec.has("regions")) {
    double allowed = 0;
    for (const json& region : spec.value("regions")) {
      const std::string name = region["name"].get<std::string>();
      if (!compliance.allows(name)) {
        out.left_out.push_back("region " + name + ": compliance allows only " + compliance.regions_rule());
        continue;
      }
      out.sites.emplace_back(name, region["share"].get<double>());
      allowed += out.sites.back().second;
    }
    if (!out.left_out.empty() && !out.sites.empty()) {
      for (auto& [name, share] : out.sites) share /= allowed;
      out.notes.emplace_back("regions that compliance does not allow carry nothing; their shares go to the others");
    }
  } else {
    out.sites.emplace_back("any", 1.0);
  }
  out.by_site.resize(out.sites.size());
  const std::vector<std::string> providers = spec.texts("providers");
  std::set<std::string> priced;
  std::vector<Offer> own;
  for (const json& price : spec.value("pricing.gpu_prices")) {
    const GpuProfile* gpu = world.snapshot.gpus.find(price["gpu"].get<std::string>());
    if (gpu == nullptr) continue;  // an error of its own
    for (const int count : {1, 2, 4, 8}) {
      Offer offer;
      offer.provider = "yours";
      offer.instance = std::to_string(count) + " x " + gpu->name;
      offer.region = "any";
      offer.gpu = gpu->name;
      offer.gpu_count = count;
      offer.on_demand = count * price["usd_per_gpu_hour"].get<double>();
      offer.effective_date = world.as_of;
      offer.source = "the spec";
      offer.assumed = true;
      own.push_back(std::move(offer));
    }
    priced.insert(gpu->name);
  }
  const auto place = [&](const Offer& offered) {
    bool used = false;
    for (size_t i = 0; i < out.sites.size(); ++i) {
      const std::string& region = out.sites[i].first;
      // A row without a region of its own is in none that a spec names; the user's own price is where the user says.
      const bool own_price = offered.assumed;
      if (region != "any" && !own_price && offered.region != region) continue;
      const std::string where = region != "any" ? region : offered.region;
      if (!compliance.allows(where)) continue;
      Offer offer = offered;
      std::string reason;
      const auto price = mixed(spec, offer, reason);
      if (!price) {
        out.left_out.push_back(offer.provider + " " + offer.instance + " (" + offer.region + "): " + reason);
        continue;
      }
      offer.usd_per_hour = *price;
      out.by_site[i].push_back(std::move(offer));
      used = true;
    }
    return used;
  };
  for (const Offer& offer : own) place(offer);
  for (const json& body : world.snapshot.prices) {
    Offer offer;
    offer.provider = text_of(body, "provider");
    offer.instance = text_of(body, "instance");
    offer.region = text_of(body, "region");
    const GpuProfile* gpu = world.snapshot.gpus.find(text_of(body, "gpu"));
    if (gpu == nullptr) {
      out.left_out.push_back(offer.provider + " " + offer.instance + ": its GPU '" + text_of(body, "gpu") +
                             "' has no profile (sextant kb add-gpu)");
      continue;
    }
    offer.gpu = gpu->name;
    if (priced.count(offer.gpu) > 0) continue;  // the user's own price wins
    if (!providers.empty() && std::find(providers.begin(), providers.end(), offer.provider) == providers.end())
      continue;
    offer.gpu_count = static_cast<int>(std::lround(maybe_number(body, "gpu_count").value_or(1)));
    offer.on_demand = maybe_number(body, "on_demand_usd_per_hour");
    // Of a range, the price that is surely paid.
    offer.spot = maybe_number(body, "spot_usd_per_hour_high");
    if (!offer.spot) offer.spot = maybe_number(body, "spot_usd_per_hour_low");
    offer.reserved = maybe_number(body, "reserved_usd_per_hour");
    offer.effective_date = text_of(body, "effective_date");
    offer.source = text_of(body, "source");
    if (offer.instance.find("GPU part only") != std::string::npos) {
      out.left_out.push_back(offer.provider + " " + offer.instance + ": the row has no price of the host");
      continue;
    }
    place(offer);
  }
  for (size_t i = 0; i < out.sites.size(); ++i)
    if (out.by_site[i].empty())
      out.left_out.push_back("region " + out.sites[i].first + ": no price of any instance there" +
                             (compliance.regions_rule().empty() ? "" : " among " + compliance.regions_rule()) +
                             "; sextant kb set-price adds one, pricing.gpu_prices gives your own");
  return out;
}

std::vector<LatencyTarget> targets_of(const Spec& spec) {
  std::vector<LatencyTarget> out;
  using M = LatencyTarget::Metric;
  for (const auto& [name, metric] : {std::pair{"ttft", M::kTtft}, {"tpot", M::kTpot}, {"e2e_latency", M::kE2e}})
    for (const int percentile : {90, 95, 99}) {
      const std::string field = std::string("target_") + name + "_p" + std::to_string(percentile) + "_ms";
      if (const auto limit = spec.maybe(field)) out.push_back({metric, percentile, *limit, field});
    }
  return out;
}

RequestShape shape_of(const Spec& spec) {
  RequestShape shape;
  shape.prompt_avg = spec.number("prompt_length_avg");
  shape.prompt_p95 = spec.number("prompt_length_p95");
  shape.output_avg = spec.number("generation_length_avg");
  shape.output_p95 = spec.number("generation_length_p95");
  const std::string pattern = spec.text("burstiness_pattern");
  shape.arrival_cv = pattern == "steady" ? 0.5 : pattern == "moderate" ? 2 : pattern == "high" ? 4 : 1;
  shape.outside_ms = spec.number("latency.network_ms") + spec.number("latency.gateway_ms");
  return shape;
}

double sized_rps(const Spec& spec) {
  return std::max(spec.number("peak_rps"), spec.maybe("target_throughput_rps").value_or(0));
}

int spares_for(int needed, double availability, double wanted) {
  if (availability >= 1 || needed <= 0) return 0;
  for (int spares = 0; spares < 1000; ++spares) {
    const int all = needed + spares;
    // P(at most `spares` of `all` are down), term by term in logarithms.
    double up = 0;
    for (int down = 0; down <= spares; ++down)
      up += std::exp(std::lgamma(all + 1.0) - std::lgamma(down + 1.0) - std::lgamma(all - down + 1.0) +
                     down * std::log(1 - availability) + (all - down) * std::log(availability));
    if (up >= wanted) return spares;
  }
  return 1000;
}

bool size_option(const Spec& spec, const Offers& offers, Option& option, std::string& reason) {
  const double rate = option.limit.operation.requests_per_s;
  const double peak = sized_rps(spec);
  const double headroom = 1 + spec.number("headroom_pct") / 100;
  const std::string survive = spec.text("survive_loss_of");
  const double zones = spec.number("zones");
  const double spot = spec.number("pricing.spot_share");
  double availability = spec.number("replica_availability_pct") / 100;
  if (spot > 0)
    availability *= 1 - spot * std::min(1.0, spec.number("pricing.spot_interruptions_per_day") *
                                                 spec.number("pricing.spot_recovery_minutes") / 1440);
  option.sites.clear();
  option.usd_per_hour = 0;
  const int gpus_per_replica = option.tensor_parallel;
  const bool rented = spec.text("deployment_model") == "cloud_rental";
  for (size_t i = 0; i < offers.sites.size(); ++i) {
    Site site;
    site.region = offers.sites[i].first;
    site.share = offers.sites[i].second;
    double share = site.share;
    if (survive == "region") {
      // The others take over what the largest of them carried.
      double largest = 0;
      for (size_t j = 0; j < offers.sites.size(); ++j)
        if (j != i) largest = std::max(largest, offers.sites[j].second);
      share = std::min(1.0, site.share / (1 - largest));
    }
    site.peak_rps = peak * site.share;
    const double wanted = peak * share * headroom / rate;
    if (wanted > 1e5) {
      reason = "more than 100,000 replicas";
      return false;
    }
    site.replicas_needed = std::max(1, static_cast<int>(std::ceil(wanted - 1e-9)));
    site.spares = spares_for(site.replicas_needed, availability, spec.number("reliability_target") / 100);
    if (survive == "zone") {
      const int per_zone = static_cast<int>(std::ceil(site.replicas_needed / (zones - 1)));
      site.spares = std::max(site.spares, per_zone * static_cast<int>(zones) - site.replicas_needed);
    }
    if (!rented) {
      site.offer.gpu = option.gpu;
      site.offer.provider = "owned";
      site.offer.instance = "GPU";
      site.instances = site.replicas() * gpus_per_replica;
      site.offer.assumed = true;
      option.sites.push_back(std::move(site));
      continue;
    }
    const Offer* best = nullptr;
    for (const Offer& offer : offers.by_site[i]) {
      const int per_instance = offer.gpu_count / gpus_per_replica;
      if (offer.gpu != option.gpu || per_instance < 1) continue;
      const int instances = (site.replicas() + per_instance - 1) / per_instance;
      const double usd = instances * offer.usd_per_hour;
      if (best == nullptr || usd < site.usd_per_hour - 1e-9) {
        best = &offer;
        site.usd_per_hour = usd;
        site.instances = instances;
      }
    }
    if (best == nullptr) {
      reason = "no price of an instance with " + std::to_string(gpus_per_replica) + " or more " + option.gpu +
               (site.region == "any" ? "" : " in " + site.region);
      return false;
    }
    site.offer = *best;
    option.usd_per_hour += site.usd_per_hour;
    option.sites.push_back(std::move(site));
  }
  double lines = 0;
  for (const char* line : {"load_balancer", "storage", "egress", "monitoring"})
    lines += spec.number(std::string("costs.") + line + "_usd_per_month");
  option.usd_per_month = option.usd_per_hour * kHoursPerMonth + lines;
  return true;
}

int Option::replicas() const {
  int sum = 0;
  for (const Site& site : sites) sum += site.replicas();
  return sum;
}

int Option::instances() const {
  int sum = 0;
  for (const Site& site : sites) sum += site.instances;
  return sum;
}

int Option::gpus() const {
  int sum = 0;
  for (const Site& site : sites) sum += site.instances * site.offer.gpu_count;
  return sum;
}

std::string Option::id() const {
  return model_id + "|" + gpu + "|" + quantization + "|tp" + std::to_string(tensor_parallel) + "|ep" +
         std::to_string(expert_parallel);
}

Day simulate_day(const Spec& spec, const Option& option) {
  Day day;
  const std::vector<double> shape = spec.value("hourly_multipliers").get<std::vector<double>>();
  const double rate = option.limit.operation.requests_per_s;
  const double average = spec.number("average_rps");
  const double headroom = 1 + spec.number("headroom_pct") / 100;
  const bool scales = spec.value("autoscaling.enabled").get<bool>();
  const int least = static_cast<int>(spec.number("autoscaling.min_replicas"));
  const double delay_h = spec.number("autoscaling.scale_up_minutes") / 60;
  day.hours.resize(24);
  const auto replicas_at = [&](const Site& site, size_t hour) {
    if (!scales) return site.replicas();
    const double wanted = average * shape[hour] * site.share * headroom / rate;
    const int needed =
        std::clamp(static_cast<int>(std::ceil(wanted - 1e-9)), std::min(1, site.replicas_needed), site.replicas_needed);
    return std::min(site.replicas(), std::max(needed + site.spares, std::min(least, site.replicas())));
  };
  double good = 0;
  double all = 0;
  double usd = 0;
  for (size_t h = 0; h < 24; ++h) {
    Day::Hour& hour = day.hours[h];
    double within = 0;
    double capacity = 0;
    for (const Site& site : option.sites) {
      const double load = average * shape[h] * site.share;
      const int now = replicas_at(site, h);
      const int before = replicas_at(site, (h + 23) % 24);
      // Until what was asked for serves, those of the hour before carry the new load.
      const double late = now > before ? std::min(delay_h, 1.0) : 0;
      const auto carried = [&](int replicas) { return load <= 0 ? 1.0 : std::min(1.0, replicas * rate / load); };
      within += load * (late * carried(before) + (1 - late) * carried(now));
      hour.requests_per_s += load;
      hour.replicas += now;
      capacity += now * rate;
      const int per_instance = std::max(1, site.offer.gpu_count / option.tensor_parallel);
      const int instances = (now + per_instance - 1) / per_instance;
      hour.usd += instances * site.offer.usd_per_hour;
    }
    hour.attainment = hour.requests_per_s > 0 ? within / hour.requests_per_s : 1;
    hour.utilization = capacity > 0 ? hour.requests_per_s / capacity : 0;
    good += within;
    all += hour.requests_per_s;
    usd += hour.usd;
  }
  day.attainment = all > 0 ? good / all : 1;
  day.usd_per_month = usd / 24 * kHoursPerMonth + (option.usd_per_month - option.usd_per_hour * kHoursPerMonth);
  return day;
}

}  // namespace sextant::advisor
