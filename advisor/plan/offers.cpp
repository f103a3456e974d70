// What can be rented where and for how much, under a spec's regions, clouds, compliance and mix of prices; and what cannot, with the
// reason.
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

}  // namespace sextant::advisor
