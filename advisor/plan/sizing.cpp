// From the rate of one replica to replicas, whole instances and money.
#include <algorithm>
#include <cmath>

#include "advisor/plan/plan.h"

namespace sextant::advisor {

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
  shape.context_max = spec.number("max_context_tokens");
  shape.outside_ms = spec.number("latency.network_ms") + spec.number("latency.gateway_ms");
  return shape;
}

double sized_rps(const Spec& spec) {
  return std::max(spec.number("peak_rps"), spec.maybe("target_throughput_rps").value_or(0));
}

// P(at most `spares` of all are down), term by term in logarithms.
double share_of_time_enough(int needed, int spares, double availability) {
  if (availability >= 1 || needed <= 0) return 1;
  const int all = needed + spares;
  double up = 0;
  for (int down = 0; down <= spares; ++down)
    up += std::exp(std::lgamma(all + 1.0) - std::lgamma(down + 1.0) - std::lgamma(all - down + 1.0) +
                   down * std::log(1 - availability) + (all - down) * std::log(availability));
  return std::min(up, 1.0);
}

int spares_for(int needed, double availability, double wanted) {
  for (int spares = 0; spares < 1000; ++spares)
    if (share_of_time_enough(needed, spares, availability) >= wanted) return spares;
  return 1000;
}

double availability_of(const Spec& spec) {
  const double spot = spec.number("pricing.spot_share");
  double availability = spec.number("replica_availability_pct") / 100;
  if (spot > 0)
    availability *= 1 - spot * std::min(1.0, spec.maybe("pricing.spot_interruptions_per_day").value_or(0) *
                                                 spec.number("pricing.spot_recovery_minutes") / 1440);
  return availability;
}

// Whole ones. Replicas share an instance when more than one fits; stages may lie on several, a tensor group never does.
int instances_for(int replicas, const Offer& offer, const Option& option) {
  if (const int per_instance = offer.gpu_count / option.gpus_per_replica(); per_instance >= 1)
    return (replicas + per_instance - 1) / per_instance;
  const int stages_per_instance = offer.gpu_count / option.tensor_parallel;
  if (stages_per_instance == 0) return replicas * option.gpus_per_replica();  // owned GPUs, one by one
  return (replicas * option.pipeline_parallel + stages_per_instance - 1) / stages_per_instance;
}

bool size_option(const Spec& spec, const Offers& offers, Option& option, std::string& reason) {
  const double rate = option.limit.requests_per_s;
  const double peak = sized_rps(spec);
  const double headroom = 1 + spec.number("headroom_pct") / 100;
  const std::string survive = spec.text("survive_loss_of");
  const double zones = spec.number("zones");
  const double availability = availability_of(spec);
  option.sites.clear();
  option.usd_per_hour = 0;
  const int gpus_per_replica = option.gpus_per_replica();
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
      if (offer.gpu != option.gpu || offer.gpu_count < option.tensor_parallel) continue;
      const int instances = instances_for(site.replicas(), offer, option);
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

int Option::batch_limit() const {
  const int64_t most = model.fit.server.max_num_seqs * model.stages;
  if (batch_limit_matters) return static_cast<int>(most);
  return static_cast<int>(std::clamp(std::ceil(limit.operation.concurrency_p99), 1.0, static_cast<double>(most)));
}

std::string Option::id() const {
  return model_id + "|" + gpu + "|" + quantization + "|tp" + std::to_string(tensor_parallel) + "|ep" +
         std::to_string(expert_parallel) + (pipeline_parallel > 1 ? "|pp" + std::to_string(pipeline_parallel) : "");
}

}  // namespace sextant::advisor
