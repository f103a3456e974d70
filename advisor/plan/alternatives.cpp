// Other ways to run what a search found: other mixes of on-demand, reserved and spot instances with what they risk, and replicas on two
// types of GPU.
#include <algorithm>
#include <cmath>

#include "advisor/plan/candidates.h"
#include "advisor/report/plan_json.h"

namespace sextant::advisor {
namespace {

using nlohmann::ordered_json;

}  // namespace

ordered_json purchase_mixes(const World& world, const Spec& spec, const Option& option) {
  ordered_json out = ordered_json::array();
  if (spec.text("deployment_model") != "cloud_rental") return out;
  struct Mix {
    const char* name;
    double spot, reserved;
  };
  for (const Mix& mix : {Mix{"on_demand", 0, 0},
                         {"reserved", 0, 1},
                         {"reserved_half", 0, 0.5},
                         {"spot_30", 0.3, 0},
                         {"spot_30_reserved_70", 0.3, 0.7},
                         {"spot_70", 0.7, 0},
                         {"spot", 1, 0}}) {
    ordered_json row = {{"mix", mix.name}, {"spot_share", mix.spot}, {"reserved_share", mix.reserved}};
    if (mix.spot > 0 && !spec.has("pricing.spot_interruptions_per_day")) {
      row["left_out"] = "pricing.spot_interruptions_per_day is needed: no row holds how often spot instances go";
      out.push_back(std::move(row));
      continue;
    }
    Spec changed = spec;
    changed.set("pricing.spot_share", mix.spot, SpecSource::kDerived, "mix");
    changed.set("pricing.reserved_share", mix.reserved, SpecSource::kDerived, "mix");
    Option sized = option;
    std::string reason;
    const Offers offers = find_offers(world, changed);
    if (!size_option(changed, offers, sized, reason)) {
      for (const std::string& left : offers.left_out)
        if (left.find(option.sites.front().offer.instance) != std::string::npos) reason = left;
      row["left_out"] = reason;
      out.push_back(std::move(row));
      continue;
    }
    double enough = 1;
    double interruptions = 0;
    bool assumed = false;
    for (const Site& site : sized.sites) {
      enough *= share_of_time_enough(site.replicas_needed, site.spares, availability_of(changed));
      interruptions += mix.spot * site.instances * spec.maybe("pricing.spot_interruptions_per_day").value_or(0);
      assumed = assumed || site.offer.assumed;
    }
    row["usd_per_month"] = shown(sized.usd_per_month);
    row["change_pct"] = shown(100 * (sized.usd_per_month / option.usd_per_month - 1));
    row["replicas"] = sized.replicas();
    row["instances"] = sized.instances();
    row["instance"] = sized.sites.front().offer.instance;
    row["interruptions_per_day"] = shown(interruptions);
    row["too_few_replicas_pct"] = shown(100 * (1 - enough));
    row["assumed"] = assumed || mix.spot > 0;
    out.push_back(std::move(row));
  }
  return out;
}

ordered_json mixed_gpus(const SearchContext& context, const std::vector<Option>& options) {
  const Spec& spec = context.spec;
  if (spec.text("deployment_model") != "cloud_rental" || context.offers.sites.size() != 1 ||
      spec.text("survive_loss_of") != "none")
    return {{"searched", false}, {"why", "only for rented instances of one region without survive_loss_of"}};
  const double wanted = sized_rps(spec) * (1 + spec.number("headroom_pct") / 100);
  const double reliable = spec.number("reliability_target") / 100;
  const double availability = availability_of(spec);
  double lines = 0;
  for (const char* line : {"load_balancer", "storage", "egress", "monitoring"})
    lines += spec.number(std::string("costs.") + line + "_usd_per_month");
  ordered_json best = nullptr;
  double least = 0;
  size_t tried = 0;
  for (const Option& a : options)
    for (const Option& b : options) {
      if (a.model_id != b.model_id || a.gpu >= b.gpu) continue;
      const Site& at = a.sites.front();
      const Site& bt = b.sites.front();
      for (int n = 1; n < std::min(at.replicas_needed, 1000); ++n) {
        ++tried;
        const int m =
            static_cast<int>(std::ceil((wanted - n * a.limit.requests_per_s) / b.limit.requests_per_s - 1e-9));
        if (m < 1) break;
        // A replica that fails may be of either kind: each keeps its own spares.
        const int all_a = n + spares_for(n, availability, reliable);
        const int all_b = m + spares_for(m, availability, reliable);
        const double hour = instances_for(all_a, at.offer, a) * at.offer.usd_per_hour +
                            instances_for(all_b, bt.offer, b) * bt.offer.usd_per_hour;
        const double month = hour * kHoursPerMonth + lines;
        if (!best.is_null() && month >= least) continue;
        least = month;
        const auto pool = [&](const Option& o, const Site& site, int needed, int all) {
          return ordered_json{{"id", o.id()},
                              {"gpu", o.gpu},
                              {"replicas_needed", needed},
                              {"spares", all - needed},
                              {"instances", instances_for(all, site.offer, o)},
                              {"instance", site.offer.instance},
                              {"share_of_traffic", shown(needed * o.limit.requests_per_s /
                                                         (n * a.limit.requests_per_s + m * b.limit.requests_per_s))}};
        };
        const double single = std::min(a.usd_per_month, b.usd_per_month);
        best = {{"searched", true},
                {"model_id", a.model_id},
                {"pools", {pool(a, at, n, all_a), pool(b, bt, m, all_b)}},
                {"usd_per_month", shown(month)},
                {"one_type_usd_per_month", shown(single)},
                {"cheaper", month < single - 0.005}};
      }
    }
  if (best.is_null())
    return {{"searched", true}, {"why", "no model is feasible on two types of GPU with more than one replica on each"}};
  best["combinations"] = tried;
  best["rule"] = "each type gets requests by its rate within targets, so each keeps them as it does alone";
  return best;
}

}  // namespace sextant::advisor
