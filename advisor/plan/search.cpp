// The search: every combination is sized on the calibrated roofline; the most promising are predicted by the trained process.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <set>

#include "advisor/plan/plan.h"
#include "engine/base/nearest.h"

namespace sextant::advisor {
namespace {

using nlohmann::json;

constexpr double kRoughLoads[] = {1, 16, 64, 256};
constexpr double kLoads[] = {1, 4, 16, 48, 128, 384};
constexpr size_t kPredictedFirst = 14;
constexpr size_t kPredictedMost = 42;
constexpr size_t kWanted = 5;  // kinds of options

std::string ms(double value) {
  char text[40];
  std::snprintf(text, sizeof text, value < 10 ? "%.2f ms" : "%.0f ms", value);
  return text;
}

const char* tier_of_parameters(double parameters) {
  return parameters >= 30e9 ? "very_high" : parameters >= 7e9 ? "high" : "standard";
}
int tier_rank(const std::string& tier) { return tier == "very_high" ? 2 : tier == "high" ? 1 : 0; }

struct Candidate {
  Configuration configuration;
  const ModelFacts* facts = nullptr;
  const GpuProfile* gpu = nullptr;
  double parameters = 0;
  std::string quality;
  MemoryFit memory;
  double rough_usd = 0;  // per hour
  double rough_ms = 0;   // E2E mean, alone
};

class Search {
 public:
  Search(const World& world, const Spec& spec)
      : world_(world),
        spec_(spec),
        shape_(shape_of(spec)),
        targets_(targets_of(spec)),
        offers_(find_offers(world, spec)) {}

  Result<PlanOutcome> run() {
    RETURN_IF_ERROR(resolve());
    out_.left_out = offers_.left_out;
    out_.assumptions = offers_.notes;
    if (offers_.sites.empty()) {
      reject("", "", "no region of the spec is left: compliance", "regions with one that compliance allows");
      models_.clear();
    }
    for (const auto& [name, profile] : gpus_) priced_[name] = dearest_way(name);
    for (const auto& [id, facts] : models_) candidates_of(id, *facts);
    refine();
    for (auto& [key, rejection] : rejections_) out_.rejected.push_back(std::move(rejection));
    rank(spec_, options_, out_);
    return std::move(out_);
  }

  std::optional<Option> one(const Configuration& c, std::string* reason) {
    const Status resolved = resolve();
    const ModelFacts* facts = world_.snapshot.facts.find(c.model_id);
    const GpuProfile* gpu = world_.snapshot.gpus.find(c.gpu);
    if (!resolved.ok() || facts == nullptr || gpu == nullptr) return std::nullopt;
    Candidate candidate;
    candidate.configuration = c;
    candidate.configuration.gpu = gpu->name;
    candidate.facts = facts;
    candidate.gpu = gpu;
    candidate.parameters = count(*facts).stored();
    candidate.quality = tier_of_parameters(candidate.parameters);
    const auto memory = memory_of(candidate.configuration);
    if (!memory || !memory->fits()) {
      if (reason != nullptr) *reason = memory ? memory->reason : "the context is longer than the model's";
      return std::nullopt;
    }
    candidate.memory = *memory;
    std::optional<Option> option = predicted(candidate);
    if (!option && reason != nullptr && !rejections_.empty()) *reason = rejections_.begin()->second.reason;
    return option;
  }

 private:
  Status resolve() {
    const KbSnapshot& kb = world_.snapshot;
    for (const json& price : spec_.value("pricing.gpu_prices"))
      if (kb.gpus.find(price["gpu"].get<std::string>()) == nullptr)
        return unknown_gpu(price["gpu"], "pricing.gpu_prices");
    if (spec_.has("available_gpus")) {
      for (const std::string& name : spec_.texts("available_gpus")) {
        const GpuProfile* gpu = kb.gpus.find(name);
        if (gpu == nullptr) return unknown_gpu(name, "available_gpus");
        gpus_[gpu->name] = gpu;
      }
    } else {
      for (const auto& [name, profile] : kb.gpus.all()) gpus_[name] = &profile;
    }
    const bool named = spec_.has("preferred_models");
    const int least = tier_rank(spec_.text("quality_threshold"));
    std::vector<std::string> ids = spec_.texts("preferred_models");
    if (!named)
      for (const auto& [id, facts] : kb.facts.all()) ids.push_back(id);
    const std::string domain = spec_.text("subject_matter");
    bool any_tier = false;
    std::set<std::string> twins;
    for (const std::string& id : ids) {
      const ModelFacts* facts = kb.facts.find(id);
      if (facts == nullptr) {
        const auto near = nearest_name(id, kb.facts.names());
        return not_found("preferred_models: unknown model '" + id.substr(0, 100) + "'" +
                             (near ? "; did you mean '" + *near + "'?" : "") + " (sextant kb add-model adds one)",
                         "preferred_models");
      }
      const auto document = world_.models.find(id);
      const json body = document == world_.models.end() ? json::object() : document->second;
      if (body.value("approved_for_production", json()) == false && !named) {
        reject(id, "", "the catalogue says that it is not approved for production", "name it in preferred_models");
        continue;
      }
      std::string tier = tier_of_parameters(count(*facts).stored());
      if (body.contains("quality_tier") && body["quality_tier"].is_string()) {
        tier = body["quality_tier"].get<std::string>();
        any_tier = true;
      }
      quality_[id] = tier;
      if (tier_rank(tier) < least && !named) {
        reject(id, "", "quality " + tier + " is below " + spec_.text("quality_threshold"), "quality_threshold " + tier);
        continue;
      }
      if (!domain.empty() && body.contains("domains") && body["domains"].is_array() && !body["domains"].empty() &&
          std::find(body["domains"].begin(), body["domains"].end(), domain) == body["domains"].end()) {
        reject(id, "", "its domains in the catalogue do not name " + domain, "name it in preferred_models");
        continue;
      }
      // A fine-tune and its base are one to the search, unless both were asked for.
      char twin[200];
      const FactCounts counts = count(*facts);
      std::snprintf(twin, sizeof twin, "%.0f|%.0f|%.0f|%s", counts.stored(), counts.active(), facts->hidden_size,
                    facts->quantization.c_str());
      if (!named && !twins.insert(twin).second) {
        ++num_twins_;
        continue;
      }
      models_[id] = facts;
    }
    if (!any_tier)
      out_.assumptions.push_back(
          "quality: no model of the catalogue has a tier of its own; below 7e9 parameters counts as standard, from 7e9 "
          "as "
          "high, from 30e9 as very_high");
    if (num_twins_ > 0)
      out_.assumptions.push_back(std::to_string(num_twins_) +
                                 " models of the very size and form of another were not searched beside it");
    return ok_status();
  }

  Status unknown_gpu(const std::string& name, const std::string& field) const {
    const auto near = nearest_name(name, world_.snapshot.gpus.names());
    return not_found(field + ": unknown GPU '" + name.substr(0, 100) + "'" +
                         (near ? "; did you mean '" + *near + "'?" : "") + " (sextant kb add-gpu adds one)",
                     field);
  }

  void reject(const std::string& model, const std::string& gpu, const std::string& reason, const std::string& change) {
    rejections_.try_emplace(model + '|' + gpu, Rejection{model, gpu, reason, change});
  }

  // Largest instance of this GPU that every site can buy, or nothing.
  int dearest_way(const std::string& gpu) const {
    if (spec_.text("deployment_model") != "cloud_rental") return 8;
    int least = 1 << 20;
    for (const auto& site : offers_.by_site) {
      int most = 0;
      for (const Offer& offer : site)
        if (offer.gpu == gpu) most = std::max(most, offer.gpu_count);
      least = std::min(least, most);
    }
    return least;
  }

  double cheapest_per_gpu_hour(const std::string& gpu, int at_least) const {
    double best = 0;
    for (const auto& site : offers_.by_site)
      for (const Offer& offer : site)
        if (offer.gpu == gpu && offer.gpu_count >= at_least) {
          const int used = offer.gpu_count / at_least * at_least;  // those of an instance that whole replicas take
          if (const double usd = offer.usd_per_hour / used; best == 0 || usd < best) best = usd;
        }
    return best;
  }

  std::vector<std::string> formats(const ModelFacts& facts, const GpuProfile& gpu) const {
    if (spec_.has("quantizations")) return spec_.texts("quantizations");
    if (!facts.quantization.empty() && bytes_per_parameter(facts.quantization)) return {facts.quantization};
    std::vector<std::string> out = {gpu.bf16_tflops ? "bf16" : "fp16"};
    if (gpu.fp8_tflops) out.emplace_back("fp8");
    return out;
  }

  std::optional<MemoryFit> memory_of(const Configuration& c) const {
    FitInputs in;
    in.model_id = c.model_id;
    in.gpu = c.gpu;
    in.quantization = c.quantization;
    in.tensor_parallel = c.tensor_parallel;
    in.context_tokens = spec_.number("max_context_tokens");
    const auto fit = memory_fit(in, world_.snapshot.facts, world_.snapshot.gpus);
    return fit.ok() ? std::optional<MemoryFit>(*fit) : std::nullopt;
  }

  void candidates_of(const std::string& id, const ModelFacts& facts) {
    if (facts.max_position_embeddings > 0 && spec_.number("max_context_tokens") > facts.max_position_embeddings) {
      char text[120];
      std::snprintf(text, sizeof text, "its context is %.0f tokens, max_context_tokens asks for %.0f",
                    facts.max_position_embeddings, spec_.number("max_context_tokens"));
      std::snprintf(change_, sizeof change_, "max_context_tokens %.0f", facts.max_position_embeddings);
      reject(id, "", text, change_);
      return;
    }
    const double parameters = count(facts).stored();
    const int most = static_cast<int>(spec_.maybe("gpu_constraints.max_tensor_parallel").value_or(8));
    for (const auto& [name, gpu] : gpus_) {
      const int instance = priced_[name];
      if (instance == 0) {
        if (spec_.has("available_gpus"))
          reject(id, name, "no price for it in the wanted regions and mix", "pricing.gpu_prices with your own price");
        continue;
      }
      for (const std::string& format : formats(facts, *gpu)) {
        int fitting = 0;
        std::string reason;
        for (int tensor = 1; tensor <= std::min({most, instance, 8}) && fitting < 3; tensor *= 2) {
          Candidate c;
          c.configuration = {id, name, format, tensor, 1};
          c.facts = &facts;
          c.gpu = gpu;
          c.parameters = parameters;
          c.quality = quality_[id];
          ++out_.searched;
          const auto memory = memory_of(c.configuration);
          if (!memory) continue;
          if (!memory->fits()) {
            reason = memory->reason;
            continue;
          }
          ++fitting;
          c.memory = *memory;
          if (rough(c)) candidates_.push_back(c);
          if (facts.moe() && tensor > 1) {
            c.configuration.expert_parallel = tensor;
            ++out_.searched;
            if (rough(c)) candidates_.push_back(c);
          }
        }
        if (fitting == 0)
          reject(id, name, reason.empty() ? "no tensor parallelism divides its heads" : reason,
                 "more GPUs per replica (gpu_constraints.max_tensor_parallel), or a smaller format of the weights");
      }
    }
  }

  ServingPoint point_of(const Configuration& c) const {
    ServingPoint p;
    p.model_id = c.model_id;
    p.gpu = c.gpu;
    p.engine = spec_.text("engine");
    p.engine_version = spec_.text("engine_version");
    p.gemm_quant = p.moe_quant = c.quantization;
    p.tensor_parallel = c.tensor_parallel;
    p.moe_expert_parallel = c.expert_parallel;
    p.moe_tensor_parallel = std::max(1, c.tensor_parallel / c.expert_parallel);
    p.prompt_tokens = shape_.prompt_avg;
    p.output_tokens = shape_.output_avg;
    return p;
  }

  // What the roofline says of cost and speed; false when no target can be met by far.
  bool rough(Candidate& c) {
    ServingPoint p = point_of(c.configuration);
    double rate = 0;
    for (const double load : kRoughLoads) {
      p.concurrency = std::min(load, c.memory.sequences);
      const auto physics = world_.predictor().physics(p);
      if (!physics.ok()) return false;
      const double tpot = world_.predictor().roofline().milliseconds(Metric::kTpot, p, *physics);
      const double ttft = world_.predictor().roofline().milliseconds(Metric::kTtft, p, *physics);
      const double answer = ttft + (shape_.output_avg - 1) * tpot;
      if (load == 1) c.rough_ms = answer;
      bool keeps = true;
      for (const LatencyTarget& target : targets_) {
        const double value = target.metric == LatencyTarget::Metric::kTtft   ? ttft
                             : target.metric == LatencyTarget::Metric::kTpot ? tpot
                                                                             : answer;
        // The roofline is off by half at times: only what is far from the target goes.
        if (load == 1 && value > 2.5 * target.limit_ms) {
          reject(c.configuration.model_id, c.configuration.gpu,
                 target.field + ": about " + ms(value) + " on average even alone, the limit is " + ms(target.limit_ms),
                 target.field + " of " + ms(value) + " or more");
          return false;
        }
        keeps = keeps && value * (target.metric == LatencyTarget::Metric::kTpot ? 1.2 : 1.6) <= target.limit_ms;
      }
      if (!keeps && load > 1) break;
      rate = std::max(rate, p.concurrency / answer * 1000);
      if (p.concurrency < load) break;
    }
    const double per_gpu = cheapest_per_gpu_hour(c.configuration.gpu, c.configuration.tensor_parallel);
    const double replicas =
        std::max(1.0, sized_rps(spec_) * (1 + spec_.number("headroom_pct") / 100) / std::max(rate, 1e-9));
    c.rough_usd = replicas * c.configuration.tensor_parallel * (per_gpu > 0 ? per_gpu : 1);
    return true;
  }

  std::optional<Option> predicted(const Candidate& c) {
    ++out_.predicted;
    Option o;
    o.model_id = c.configuration.model_id;
    o.gpu = c.configuration.gpu;
    o.quantization = c.configuration.quantization;
    o.tensor_parallel = c.configuration.tensor_parallel;
    o.expert_parallel = c.configuration.expert_parallel;
    o.parameters = c.parameters;
    o.quality = c.quality;
    o.memory = c.memory;
    // Sequences of an average length: the cache is taken as it is used.
    const double average = shape_.prompt_avg + shape_.output_avg;
    o.curve.max_sequences =
        std::clamp(std::floor(c.memory.sequences * spec_.number("max_context_tokens") / average), 1.0, 1024.0);
    ServingPoint p = point_of(c.configuration);
    for (const double load : kLoads) {
      p.concurrency = std::min(load, o.curve.max_sequences);
      if (!o.curve.loads.empty() && p.concurrency <= o.curve.loads.back()) break;
      const auto ttft = world_.predictor().predict(Metric::kTtft, p);
      const auto tpot = world_.predictor().predict(Metric::kTpot, p);
      if (!ttft.ok() || !tpot.ok()) {
        reject(o.model_id, o.gpu, (ttft.ok() ? tpot : ttft).status().message(), "");
        return std::nullopt;
      }
      o.curve.loads.push_back(p.concurrency);
      o.curve.ttft.push_back(*ttft);
      o.curve.tpot.push_back(*tpot);
    }
    o.curve.max_sequences = std::min(o.curve.max_sequences, o.curve.loads.back());
    o.curve.finish();
    o.limit = limited_rate(o.curve, shape_, targets_);
    if (!o.limit.feasible) {
      const LatencyTarget& t = *o.limit.binding;
      const double at = percentile_of(o.limit.operation, t);
      reject(o.model_id, o.gpu,
             t.field + ": " + ms(at) + (at <= t.limit_ms ? " is within" : " is above") + " the limit of " +
                 ms(t.limit_ms) + (at <= t.limit_ms ? ", but not surely enough" : "") + " with next to no load",
             t.field + " of " + ms(o.limit.best_ms) + " or more");
      return std::nullopt;
    }
    std::string reason;
    if (!size_option(spec_, offers_, o, reason)) {
      reject(o.model_id, o.gpu, reason, "pricing.gpu_prices with your own price");
      return std::nullopt;
    }
    if (const auto most = spec_.maybe("gpu_constraints.max_gpus"); most && o.gpus() > *most) {
      reject(o.model_id, o.gpu,
             "needs " + std::to_string(o.gpus()) + " GPUs, gpu_constraints.max_gpus is " +
                 std::to_string(static_cast<long>(*most)),
             "gpu_constraints.max_gpus " + std::to_string(o.gpus()));
      return std::nullopt;
    }
    const double per_1k = o.usd_per_month / (spec_.number("average_rps") * kSecondsPerMonth * shape_.output_avg) * 1000;
    struct {
      const char* field;
      double value;
    } const budgets[] = {{"budget.max_monthly_cost_usd", o.usd_per_month},
                         {"budget.max_hourly_cost_usd", o.usd_per_hour},
                         {"budget.cost_per_1k_tokens", per_1k}};
    for (const auto& [field, value] : budgets) {
      const auto limit = spec_.maybe(field);
      if (!limit || value <= *limit) continue;
      char text[160];
      std::snprintf(text, sizeof text, "costs $%.6g, %s is $%.6g", value, field, *limit);
      std::snprintf(change_, sizeof change_, "%s %.6g", field, value);
      reject(o.model_id, o.gpu, text, change_);
      return std::nullopt;
    }
    // Each replica's part of the peak, and what it does then.
    double needed = 0;
    for (const Site& site : o.sites) needed += site.replicas_needed;
    const double each = sized_rps(spec_) / needed;
    double low = 0;
    double high = o.limit.operation.concurrency;
    for (int i = 0; i < 24; ++i) {
      const double middle = (low + high) / 2;
      const LoadCurve::Means means = o.curve.at(middle);
      const double rate = middle / (means.ttft_ms + (shape_.output_avg - 1) * means.tpot_ms) * 1000;
      (rate < each ? low : high) = middle;
    }
    o.at_peak = operate(o.curve, shape_, high);
    for (const LatencyTarget& target : targets_) {
      Verdicts v;
      v.target = target;
      v.predicted_ms = percentile_of(o.at_peak, target);
      v.probability = probability_of(o.curve, o.at_peak, target);
      const double half = target.metric == LatencyTarget::Metric::kTpot ? o.curve.tpot_log_half_width(high)
                                                                        : o.curve.ttft_log_half_width(high);
      v.low_ms = v.predicted_ms * std::exp(-half);
      v.high_ms = v.predicted_ms * std::exp(half);
      v.verdict = v.probability > 0.7 ? Verdict::kPass : v.probability < 0.3 ? Verdict::kFail : Verdict::kUncertain;
      o.verdicts.push_back(v);
    }
    o.day = simulate_day(spec_, o);
    return o;
  }

  void refine() {
    const auto order = [&](auto key) {
      std::vector<size_t> index(candidates_.size());
      for (size_t i = 0; i < index.size(); ++i) index[i] = i;
      std::stable_sort(index.begin(), index.end(),
                       [&](size_t a, size_t b) { return key(candidates_[a]) < key(candidates_[b]); });
      return index;
    };
    const auto by_cost = order([](const Candidate& c) { return c.rough_usd; });
    const auto by_speed = order([](const Candidate& c) { return c.rough_ms * std::pow(c.rough_usd, 0.3); });
    const auto by_size = order([](const Candidate& c) { return c.rough_usd / std::pow(c.parameters, 0.8); });
    std::set<size_t> done;
    std::map<std::string, int> per_model;
    std::array<const std::vector<size_t>*, 3> lists = {&by_cost, &by_speed, &by_size};
    const std::string priority = spec_.text("priority");
    if (priority == "latency") std::swap(lists[0], lists[1]);
    if (priority == "accuracy") std::swap(lists[0], lists[2]);
    std::array<size_t, 3> next{};
    std::set<std::string> kinds;
    while (done.size() < candidates_.size() && done.size() < kPredictedMost &&
           (done.size() < kPredictedFirst || kinds.size() < kWanted)) {
      // Of the wanted order two, of the others one each.
      for (const size_t list : {size_t{0}, size_t{1}, size_t{0}, size_t{2}}) {
        size_t& at = next[list];
        const auto taken = [&](size_t i) {
          const Configuration& c = candidates_[i].configuration;
          return done.count(i) > 0 || per_model[c.model_id + c.gpu] >= 2 || per_model[c.model_id] >= 6;
        };
        while (at < candidates_.size() && taken((*lists[list])[at])) ++at;
        if (at == candidates_.size()) continue;
        const size_t i = (*lists[list])[at];
        done.insert(i);
        ++per_model[candidates_[i].configuration.model_id + candidates_[i].configuration.gpu];
        ++per_model[candidates_[i].configuration.model_id];
        if (std::optional<Option> option = predicted(candidates_[i])) {
          kinds.insert(option->model_id + option->gpu);
          options_.push_back(*std::move(option));
        }
      }
      if (next[0] >= candidates_.size() && next[1] >= candidates_.size() && next[2] >= candidates_.size()) break;
    }
    out_.feasible = options_.size();
    // What works on a GPU is no rejection there.
    for (const Option& option : options_) {
      rejections_.erase(option.model_id + '|' + option.gpu);
    }
  }

  const World& world_;
  const Spec& spec_;
  RequestShape shape_;
  std::vector<LatencyTarget> targets_;
  Offers offers_;
  std::map<std::string, const GpuProfile*> gpus_;
  std::map<std::string, const ModelFacts*> models_;
  std::map<std::string, std::string> quality_;
  std::map<std::string, int> priced_;
  std::vector<Candidate> candidates_;
  std::vector<Option> options_;
  std::map<std::string, Rejection> rejections_;
  PlanOutcome out_;
  size_t num_twins_ = 0;
  char change_[200] = {};
};

}  // namespace

Result<PlanOutcome> search(const World& world, const Spec& spec) { return Search(world, spec).run(); }

std::optional<Option> plan_configuration(const World& world, const Spec& spec, const Configuration& configuration,
                                         std::string* reason) {
  return Search(world, spec).one(configuration, reason);
}

}  // namespace sextant::advisor
