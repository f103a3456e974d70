// What a search looks at: every combination of model, GPU, weight format and parallelism that the catalogue, the spec and the
// memory allow, with what the calibrated roofline says of its cost and speed. Pure; one thread.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "advisor/plan/plan.h"

namespace sextant::advisor {

// What all parts of one search share.
struct SearchContext {
  SearchContext(const World& of_world, const Spec& of_spec)
      : world(of_world),
        spec(of_spec),
        sample(shape_of(of_spec)),
        targets(targets_of(of_spec)),
        offers(find_offers(of_world, of_spec)) {}

  const World& world;
  const Spec& spec;
  RequestSample sample;
  std::vector<LatencyTarget> targets;
  Offers offers;
};

struct Candidate {
  Configuration configuration;
  const ModelFacts* facts = nullptr;
  const GpuProfile* gpu = nullptr;
  double parameters = 0;
  std::string quality, quality_source;
  MemoryFit memory;
  double rough_usd = 0;  // per hour
  double rough_ms = 0;   // E2E mean, alone
};

struct CandidateSet {
  std::vector<Candidate> candidates;
  std::map<std::string, Rejection> rejected;  // by model|gpu; the first reason stays
  std::vector<std::string> assumptions;
  size_t searched = 0;

  void reject(const std::string& model, const std::string& gpu, const std::string& reason, const std::string& change) {
    rejected.try_emplace(model + '|' + gpu, Rejection{model, gpu, reason, change});
  }
};

// Errors: an unknown model or GPU of the spec, with the nearest name.
Result<CandidateSet> find_candidates(const SearchContext& context);
// One, as named. Nothing, with the reason, when it does not fit.
std::optional<Candidate> candidate_of(const SearchContext& context, const Configuration& configuration,
                                      std::string& reason);
ServingPoint point_of(const SearchContext& context, const Configuration& configuration);

// The predictor's means of a candidate as a queue; kNotFound and the like as the predictor says them.
Result<ReplicaModel> model_of(const SearchContext& context, const Candidate& candidate);
// Predicted, sized, priced and judged; nothing when it is rejected, with why and what would let it in.
std::optional<Option> evaluate(const SearchContext& context, const Candidate& candidate, Rejection& rejection);
// The same for a model that is there already: for questions that leave the predictions as they are.
std::optional<Option> evaluate(const SearchContext& context, const Candidate& candidate, ReplicaModel model,
                               Rejection& rejection);

// What only the options that are shown need: the operation at the limit and the day.
void finish_option(const SearchContext& context, Option& option);
Day simulate_day(const SearchContext& context, const Option& option);

// The cheapest way to run one model on two types of GPU, of the options found: `mixed_gpus` of the document.
nlohmann::ordered_json mixed_gpus(const SearchContext& context, const std::vector<Option>& options);

std::string ms_text(double value);

}  // namespace sextant::advisor
