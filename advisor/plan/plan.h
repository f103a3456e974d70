// A plan: options that meet a spec, sized and priced, ranked by its priority; and what was left out, with the reason and the
// nearest change that would let it in. Deterministic: the same world and spec give the same plan, byte for byte. Pure.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "advisor/memory_fit.h"
#include "advisor/ownership_cost.h"
#include "advisor/plan/replica_model.h"
#include "advisor/spec/spec.h"
#include "advisor/world.h"

namespace sextant::advisor {

inline constexpr const char* kPlanSchema = "sextant.plan/1";
inline constexpr double kSecondsPerMonth = kHoursPerMonth * 3600;

// What an instance costs by the hour, mixed as the spec's pricing says.
struct Offer {
  std::string provider, instance, region, gpu;
  int gpu_count = 1;
  double usd_per_hour = 0;  // the mix
  std::optional<double> on_demand, spot, reserved;
  std::string effective_date, source;
  bool assumed = false;  // a figure of the user's is in it
};

// One region's part of an option.
struct Site {
  std::string region;  // as the spec names it; "any" when it names none
  double share = 1;
  double peak_rps = 0;
  int replicas_needed = 0;  // for the peak and the headroom
  int spares = 0;
  int instances = 0;
  Offer offer;
  double usd_per_hour = 0;

  int replicas() const { return replicas_needed + spares; }
};

// What the spec's compliance asks of a deployment, for whoever deploys the plan: `compliance` of the document. All off when the
// spec names none. Where two regulations differ, the stricter.
struct Compliance {
  struct Rule {
    std::string regulation, setting, why;  // why: the text that asks for it
  };
  std::vector<std::string> regulations;  // of gdpr, ccpa, hipaa, soc2
  bool audit_log = false;                // who asked what of which model, when, with what end; not the texts
  int audit_retention_days = 0;          // kept at least so long
  std::optional<int>
      content_retention_days_max;      // prompts and answers, if kept at all, no longer than this; nothing: any
  bool encryption_in_transit = false;  // TLS from the client to the replica
  bool encryption_at_rest = false;     // of volumes and secrets
  bool erasure_on_request = false;     // what is kept of one person can be found and deleted
  std::vector<Rule> rules;

  bool asks(const std::string& regulation) const;
  bool allows(const std::string& region) const;  // a name as clouds give it; "any" and unknown ones are nowhere
  std::string regions_rule() const;              // in words; empty: all are allowed
};
Compliance compliance_of(const Spec& spec);
nlohmann::ordered_json compliance_json(const Compliance& compliance);

struct Verdicts {
  LatencyTarget target;
  double predicted_ms = 0, low_ms = 0, high_ms = 0;  // 90% interval
  double probability = 0;
  Verdict verdict = Verdict::kUncertain;
};

// Twenty-four hours, minute by minute, with replicas that follow the load (KEDA's rules: each minute as many as the load of that
// minute needs; those asked for serve after autoscaling.scale_up_minutes, fewer are kept after five calm minutes).
struct Day {
  struct Hour {
    double requests_per_s = 0;  // means over the hour
    double replicas = 0;        // that are paid
    double utilization = 0;     // load / what the serving replicas can carry within the targets
    double usd = 0;
    double attainment = 1;  // share of the requests that meet all targets, by the queue at each minute's load
  };
  std::vector<Hour> hours;
  double usd_per_month = 0;
  double attainment = 1;
  int replicas_min = 0, replicas_max = 0;
};

struct Option {
  std::string model_id, gpu, quantization;
  int tensor_parallel = 1, expert_parallel = 1, pipeline_parallel = 1;
  double parameters = 0;
  std::string quality, quality_source;  // tier of the catalogue, or what the parameters suggest
  MemoryFit memory;
  ReplicaModel model;
  LimitedRate limit;                     // of one replica
  bool batch_limit_matters = false;      // the spec names it, or the search chose it: the figures hold under it
  std::vector<BatchTrial> batch_trials;  // the first: as many as the memory or the spec allows
  Operation at_peak;                     // of one replica, with the peak spread over those needed
  std::vector<Verdicts> verdicts;
  std::vector<Site> sites;
  double usd_per_hour = 0;   // of the instances, all running
  double usd_per_month = 0;  // with the other cost lines
  Day day;
  double score = 0;
  std::vector<std::string> best_at;  // "cost", "latency", "accuracy"
  bool on_frontier = false;
  std::string rationale;

  int replicas() const;
  int gpus() const;  // of the instances
  int instances() const;
  int gpus_per_replica() const { return tensor_parallel * pipeline_parallel; }
  // Sequences in a batch at most; where any limit does, the one that at the highest load makes hardly anyone wait.
  int batch_limit() const;
  std::string id() const;  // "model|gpu|quantization|tp2|ep1", with "|pp2" where there are stages
};

struct Rejection {
  std::string model_id, gpu;  // empty gpu: on all
  std::string reason;
  std::string nearest_change;
};

struct PlanOutcome {
  std::vector<Option> options;   // best first, at most five
  std::vector<Option> frontier;  // by cost, none beaten by another in cost, latency and accuracy at once
  std::vector<Rejection> rejected;
  size_t searched = 0;   // combinations of model, GPU, quantisation and parallelism
  size_t predicted = 0;  // of them, by the trained predictor
  size_t feasible = 0;
  std::vector<std::string> left_out;        // prices, regions and GPUs without what is needed to use them
  std::vector<std::string> not_considered;  // fields of the spec that the search did not use, and axes it has not
  std::vector<std::string> assumptions;
  nlohmann::ordered_json mixed_gpus;
};

// The search. Errors: an unknown model, GPU or engine of the spec, with the nearest name.
Result<PlanOutcome> search(const World& world, const Spec& spec);

struct Configuration {
  std::string model_id, gpu, quantization;
  int tensor_parallel = 1, expert_parallel = 1, pipeline_parallel = 1;
};

// The parts of the search, for the files of this folder.
struct Offers {
  std::vector<std::vector<Offer>> by_site;  // per region of the spec
  std::vector<std::pair<std::string, double>> sites;
  std::vector<std::string> left_out;
  std::vector<std::string> notes;  // what compliance did to the regions
};
Offers find_offers(const World& world, const Spec& spec);
std::vector<LatencyTarget> targets_of(const Spec& spec);
RequestShape shape_of(const Spec& spec);
double sized_rps(const Spec& spec);
// Spares so that `needed` of all are up with the wanted probability; 0 when one alone always is.
int spares_for(int needed, double availability, double wanted);
double share_of_time_enough(int needed, int spares, double availability);
// Of one replica: pricing.spot_share of them lose what interruptions take.
double availability_of(const Spec& spec);
// Mixes of on-demand, reserved and spot instances for one option, each with its price and risk: `purchase_mixes` of the document.
nlohmann::ordered_json purchase_mixes(const World& world, const Spec& spec, const Option& option);
// Replicas, instances and money of an option whose rate is known; false with a reason when there is no way to buy it.
bool size_option(const Spec& spec, const Offers& offers, Option& option, std::string& reason);
int instances_for(int replicas, const Offer& offer, const Option& option);
void rank(const Spec& spec, std::vector<Option>& options, PlanOutcome& outcome);
std::string usd_text(double usd);  // at least 0; "$2,717", below a thousand with cents

// sextant.plan/1: the whole document, from which markdown and HTML are made. `revision` may be given to plan with an earlier
// state of the knowledge base.
struct PlanRequest {
  Spec spec;
  std::vector<std::string> solve_for;  // gpus, max_rate, max_users, max_context, cheapest_slo_relaxation
};
const std::vector<std::string>& known_questions();
Result<nlohmann::ordered_json> make_plan(const World& world, const PlanRequest& request);
nlohmann::ordered_json answer_questions(const World& world, const Spec& spec, const PlanOutcome& outcome,
                                        const std::vector<std::string>& questions);
nlohmann::ordered_json sensitivities(const World& world, const Spec& spec, const Option& option);

}  // namespace sextant::advisor
