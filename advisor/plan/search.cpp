// The search: every combination is sized on the calibrated roofline; the most promising are predicted by the trained process.
#include <algorithm>
#include <array>
#include <cmath>
#include <set>

#include "advisor/plan/candidates.h"

namespace sextant::advisor {
namespace {

constexpr size_t kPredictedFirst = 12;
constexpr size_t kPredictedMost = 42;
constexpr size_t kWanted = 5;  // kinds of options

class Search {
 public:
  Search(const World& world, const Spec& spec) : context_(world, spec) {}

  Result<PlanOutcome> run() {
    ASSIGN_OR_RETURN(set_, find_candidates(context_));
    out_.searched = set_.searched;
    out_.left_out = context_.offers.left_out;
    out_.assumptions = context_.offers.notes;
    out_.assumptions.insert(out_.assumptions.end(), set_.assumptions.begin(), set_.assumptions.end());
    refine();
    for (auto& [key, rejection] : set_.rejected) out_.rejected.push_back(std::move(rejection));
    rank(context_.spec, options_, out_);
    out_.mixed_gpus = mixed_gpus(context_, options_);
    for (Option& option : out_.options) finish_option(context_, option);
    return std::move(out_);
  }

 private:
  void refine() {
    const auto order = [&](auto key) {
      std::vector<size_t> index(set_.candidates.size());
      for (size_t i = 0; i < index.size(); ++i) index[i] = i;
      std::stable_sort(index.begin(), index.end(),
                       [&](size_t a, size_t b) { return key(set_.candidates[a]) < key(set_.candidates[b]); });
      return index;
    };
    const auto by_cost = order([](const Candidate& c) { return c.rough_usd; });
    const auto by_speed = order([](const Candidate& c) { return c.rough_ms * std::pow(c.rough_usd, 0.3); });
    const auto by_size = order([](const Candidate& c) { return c.rough_usd / std::pow(c.parameters, 0.8); });
    std::set<size_t> done;
    std::map<std::string, int> per_model;
    std::array<const std::vector<size_t>*, 3> lists = {&by_cost, &by_speed, &by_size};
    const std::string priority = context_.spec.text("priority");
    if (priority == "latency") std::swap(lists[0], lists[1]);
    if (priority == "accuracy") std::swap(lists[0], lists[2]);
    std::array<size_t, 3> next{};
    std::set<std::string> kinds;
    while (done.size() < set_.candidates.size() && done.size() < kPredictedMost &&
           (done.size() < kPredictedFirst || kinds.size() < kWanted)) {
      // Of the wanted order two, of the others one each.
      for (const size_t list : {size_t{0}, size_t{1}, size_t{0}, size_t{2}}) {
        size_t& at = next[list];
        const auto taken = [&](size_t i) {
          const Configuration& c = set_.candidates[i].configuration;
          return done.count(i) > 0 || per_model[c.model_id + c.gpu] >= 2 || per_model[c.model_id] >= 6;
        };
        while (at < set_.candidates.size() && taken((*lists[list])[at])) ++at;
        if (at == set_.candidates.size()) continue;
        const size_t i = (*lists[list])[at];
        done.insert(i);
        ++per_model[set_.candidates[i].configuration.model_id + set_.candidates[i].configuration.gpu];
        ++per_model[set_.candidates[i].configuration.model_id];
        Rejection rejection;
        ++out_.predicted;
        std::optional<Option> option = evaluate(context_, set_.candidates[i], rejection);
        if (!option) {
          set_.reject(rejection.model_id, rejection.gpu, rejection.reason, rejection.nearest_change);
        } else {
          kinds.insert(option->model_id + option->gpu);
          options_.push_back(*std::move(option));
        }
      }
      if (next[0] >= set_.candidates.size() && next[1] >= set_.candidates.size() && next[2] >= set_.candidates.size())
        break;
    }
    out_.feasible = options_.size();
    // What works on a GPU is no rejection there.
    for (const Option& option : options_) {
      set_.rejected.erase(option.model_id + '|' + option.gpu);
    }
  }

  const SearchContext context_;
  CandidateSet set_;
  std::vector<Option> options_;
  PlanOutcome out_;
};

}  // namespace

Result<PlanOutcome> search(const World& world, const Spec& spec) { return Search(world, spec).run(); }

}  // namespace sextant::advisor
