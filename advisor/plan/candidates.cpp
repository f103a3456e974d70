#include "advisor/plan/candidates.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <set>

#include "engine/base/nearest.h"

namespace sextant::advisor {
namespace {

using nlohmann::json;

constexpr double kRoughLoads[] = {1, 16, 64, 256};
constexpr size_t kGpusTold = 12;  // in one reason

const char* tier_of_parameters(double parameters) {
  return parameters >= 30e9 ? "very_high" : parameters >= 7e9 ? "high" : "standard";
}
int tier_rank(const std::string& tier) { return tier == "very_high" ? 2 : tier == "high" ? 1 : 0; }

struct Tier {
  std::string name, source;
  bool of_catalogue = false;
};
Tier tier_of(const json& document, const ModelFacts& facts) {
  const auto text = [&](const char* field) {
    const auto found = document.find(field);
    return found != document.end() && found->is_string() ? found->get<std::string>() : "";
  };
  if (const std::string tier = text("quality_tier"); !tier.empty()) {
    const std::string source = text("quality_source");
    return {tier, source.empty() ? "catalogue, without a source" : source, true};
  }
  return {tier_of_parameters(count(facts).stored()), "parameters, an assumption", false};
}

// The one format that a model's files have; empty: any that their 16 bits can be made into at load. Files of NVIDIA's ModelOpt say
// "modelopt" or nothing where their name says which.
std::string stored_format(const ModelFacts& facts) {
  if (bytes_per_parameter(facts.quantization)) return facts.quantization;
  const auto ends_with = [&](std::string_view end) {
    return facts.model_id.size() > end.size() &&
           facts.model_id.compare(facts.model_id.size() - end.size(), end.size(), end) == 0;
  };
  return ends_with("-NVFP4") ? "nvfp4" : ends_with("-FP8") ? "fp8" : "";
}

json document_of(const World& world, const std::string& id) {
  const auto document = world.models.find(id);
  return document == world.models.end() ? json::object() : document->second;
}

std::optional<MemoryFit> memory_of(const SearchContext& context, const Configuration& c) {
  FitInputs in;
  in.model_id = c.model_id;
  in.gpu = c.gpu;
  in.quantization = c.quantization;
  in.tensor_parallel = c.tensor_parallel;
  in.pipeline_parallel = c.pipeline_parallel;
  in.context_tokens = context.spec.number("max_context_tokens");
  const auto fit = memory_fit(in, context.world.snapshot.facts, context.world.snapshot.gpus);
  return fit.ok() ? std::optional<MemoryFit>(*fit) : std::nullopt;
}

class Candidates {
 public:
  explicit Candidates(const SearchContext& context) : context_(context) {}

  Result<CandidateSet> run() {
    RETURN_IF_ERROR(resolve());
    if (context_.offers.sites.empty()) {
      out_.reject("", "", "no region of the spec is left: compliance", "regions with one that compliance allows");
      models_.clear();
    }
    for (const auto& [name, profile] : gpus_) priced_[name] = dearest_way(name);
    if (!context_.offers.sites.empty() &&
        std::all_of(priced_.begin(), priced_.end(), [](const auto& entry) { return entry.second == 0; }))
      reject_for_prices();
    for (const auto& [id, facts] : models_) candidates_of(id, *facts);
    return std::move(out_);
  }

 private:
  Status resolve() {
    const KbSnapshot& kb = context_.world.snapshot;
    for (const json& price : context_.spec.value("pricing.gpu_prices"))
      if (kb.gpus.find(price["gpu"].get<std::string>()) == nullptr)
        return unknown_gpu(price["gpu"], "pricing.gpu_prices");
    if (context_.spec.has("available_gpus")) {
      for (const std::string& name : context_.spec.texts("available_gpus")) {
        const GpuProfile* gpu = kb.gpus.find(name);
        if (gpu == nullptr) return unknown_gpu(name, "available_gpus");
        gpus_[gpu->name] = gpu;
      }
    } else {
      for (const auto& [name, profile] : kb.gpus.all()) gpus_[name] = &profile;
    }
    const bool named = context_.spec.has("preferred_models");
    const int least = tier_rank(context_.spec.text("quality_threshold"));
    std::vector<std::string> ids = context_.spec.texts("preferred_models");
    if (!named)
      for (const auto& [id, facts] : kb.facts.all()) ids.push_back(id);
    const std::string domain = context_.spec.text("subject_matter");
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
      const auto document = context_.world.models.find(id);
      const json body = document == context_.world.models.end() ? json::object() : document->second;
      if (body.value("approved_for_production", json()) == false && !named) {
        out_.reject(id, "", "the catalogue says that it is not approved for production", "name it in preferred_models");
        continue;
      }
      const Tier quality = tier_of(body, *facts);
      const std::string& tier = quality.name;
      any_tier = any_tier || quality.of_catalogue;
      quality_[id] = quality;
      if (tier_rank(tier) < least && !named) {
        out_.reject(id, "", "quality " + tier + " is below " + context_.spec.text("quality_threshold"),
                    "quality_threshold " + tier);
        continue;
      }
      if (!domain.empty() && body.contains("domains") && body["domains"].is_array() && !body["domains"].empty() &&
          std::find(body["domains"].begin(), body["domains"].end(), domain) == body["domains"].end()) {
        out_.reject(id, "", "its domains in the catalogue do not name " + domain, "name it in preferred_models");
        continue;
      }
      // A fine-tune and its base are one to the search, unless both were asked for.
      char twin[200];
      const FactCounts counts = count(*facts);
      std::snprintf(twin, sizeof twin, "%.0f|%.0f|%.0f|%s", counts.stored(), counts.active(), facts->hidden_size,
                    (stored_format(*facts) + facts->quantization).c_str());
      if (!named && !twins.insert(twin).second) {
        ++num_twins_;
        continue;
      }
      models_[id] = facts;
    }
    if (!any_tier)
      out_.assumptions.push_back(
          "quality: no model of the catalogue has a tier of its own; below 7e9 parameters counts as standard, from 7e9 "
          "as high, from 30e9 as very_high (sextant kb import of a model with quality_tier and quality_source sets "
          "one)");
    if (num_twins_ > 0)
      out_.assumptions.push_back(std::to_string(num_twins_) +
                                 " models of the very size and form of another were not searched beside it");
    return ok_status();
  }

  std::string known_gpus() const {
    std::string out;
    for (const auto& [name, profile] : context_.world.snapshot.gpus.all()) out += (out.empty() ? "" : ", ") + name;
    return out;
  }

  Status unknown_gpu(const std::string& name, const std::string& field) const {
    const auto near = nearest_name(name, context_.world.snapshot.gpus.names());
    return not_found(field + ": unknown GPU '" + name.substr(0, 100) + "'" +
                         (near ? "; did you mean '" + *near + "'?" : "; known are " + known_gpus()) +
                         " (sextant kb add-gpu adds one)",
                     field);
  }

  // Largest instance of this GPU that every site can buy, or nothing.
  int dearest_way(const std::string& gpu) const {
    if (context_.spec.text("deployment_model") != "cloud_rental") return 8;
    int least = 1 << 20;
    for (const auto& site : context_.offers.by_site) {
      int most = 0;
      for (const Offer& offer : site)
        if (offer.gpu == gpu) most = std::max(most, offer.gpu_count);
      least = std::min(least, most);
    }
    return least;
  }

  // No GPU can be bought in every region: which can be, in each.
  void reject_for_prices() {
    const Offers& offers = context_.offers;
    std::string text = offers.sites.size() == 1 ? "no GPU has a price where it is wanted"
                                                : "no GPU has a price in each of the regions";
    for (size_t i = 0; i < offers.sites.size(); ++i) {
      std::set<std::string> here;
      for (const Offer& offer : offers.by_site[i])
        if (gpus_.count(offer.gpu) > 0) here.insert(offer.gpu);
      text += std::string(i == 0 ? ": " : "; ") +
              (offers.sites[i].first == "any" ? "any region" : offers.sites[i].first) + " has ";
      size_t told = 0;
      for (const std::string& gpu : here) {
        if (told == kGpusTold) break;
        text += (told++ > 0 ? ", " : "") + gpu;
      }
      if (here.size() > told) text += " and " + std::to_string(here.size() - told) + " more";
      if (here.empty()) text += "none";
    }
    out_.reject("", "", text,
                offers.sites.size() == 1
                    ? "pricing.gpu_prices with your own price, a region that has prices, or sextant kb set-price"
                    : "one region alone, pricing.gpu_prices with your own price, or sextant kb set-price for the "
                      "region without one");
  }

  double cheapest_per_gpu_hour(const std::string& gpu, int at_least) const {
    double best = 0;
    for (const auto& site : context_.offers.by_site)
      for (const Offer& offer : site)
        if (offer.gpu == gpu && offer.gpu_count >= at_least) {
          const int used = offer.gpu_count / at_least * at_least;  // those of an instance that whole replicas take
          if (const double usd = offer.usd_per_hour / used; best == 0 || usd < best) best = usd;
        }
    return best;
  }

  std::vector<std::string> formats(const ModelFacts& facts, const GpuProfile& gpu) const {
    if (context_.spec.has("quantizations")) return context_.spec.texts("quantizations");
    if (const std::string stored = stored_format(facts); !stored.empty()) return {stored};
    std::vector<std::string> out = {gpu.bf16_tflops ? "bf16" : "fp16"};
    if (gpu.fp8_tflops) out.emplace_back("fp8");
    return out;
  }

  void candidates_of(const std::string& id, const ModelFacts& facts) {
    if (facts.max_position_embeddings > 0 &&
        context_.spec.number("max_context_tokens") > facts.max_position_embeddings) {
      char text[120];
      std::snprintf(text, sizeof text, "its context is %.0f tokens, max_context_tokens asks for %.0f",
                    facts.max_position_embeddings, context_.spec.number("max_context_tokens"));
      std::snprintf(change_, sizeof change_, "max_context_tokens %.0f", facts.max_position_embeddings);
      out_.reject(id, "", text, change_);
      return;
    }
    const double parameters = count(facts).stored();
    const int most = static_cast<int>(context_.spec.maybe("gpu_constraints.max_tensor_parallel").value_or(8));
    for (const auto& entry : gpus_) {
      const std::string& name = entry.first;
      const GpuProfile* gpu = entry.second;
      const int instance = priced_[name];
      if (instance == 0) {
        if (context_.spec.has("available_gpus"))
          out_.reject(id, name, "no price for it in the wanted regions and mix",
                      "pricing.gpu_prices with your own price");
        continue;
      }
      for (const std::string& format : formats(facts, *gpu)) {
        int fitting = 0;
        std::string reason;
        Candidate c;
        c.facts = &facts;
        c.gpu = gpu;
        c.parameters = parameters;
        c.quality = quality_[id].name;
        c.quality_source = quality_[id].source;
        const auto consider = [&](int tensor, int stages) {
          c.configuration = {id, name, format, tensor, 1, stages};
          ++out_.searched;
          const auto memory = memory_of(context_, c.configuration);
          if (!memory) return;
          if (!memory->fits()) {
            reason = memory->reason;
            return;
          }
          ++fitting;
          c.memory = *memory;
          if (rough(c)) out_.candidates.push_back(c);
          if (facts.moe() && tensor > 1 && stages == 1) {
            c.configuration.expert_parallel = tensor;
            ++out_.searched;
            if (rough(c)) out_.candidates.push_back(c);
          }
        };
        for (int tensor = 1; tensor <= std::min({most, instance, 8}) && fitting < 3; tensor *= 2) consider(tensor, 1);
        // Stages where one group of tensor parallelism has no room, and where nothing but PCIe joins the GPUs.
        const int widest = std::min({most, instance, 8});
        for (int stages = 2; stages <= 4 && most_stages_ >= stages && fitting == 0; stages *= 2)
          consider(widest, stages);
        if (gpu->nvlink_gb_per_s == 0 && fitting > 0)
          for (int stages = 2; stages <= std::min({4, instance, most_stages_}); stages *= 2) consider(1, stages);
        if (fitting == 0)
          out_.reject(
              id, name, reason.empty() ? "no tensor parallelism divides its heads" : reason,
              "more GPUs per replica (gpu_constraints.max_tensor_parallel), or a smaller format of the weights");
      }
    }
  }

  // What the roofline says of cost and speed; false when no target can be met by far.
  bool rough(Candidate& c) {
    ServingPoint p = point_of(context_, c.configuration);
    double rate = 0;
    for (const double load : kRoughLoads) {
      p.concurrency = std::min(load, c.memory.sequences);
      const auto physics = context_.world.predictor().physics(p);
      if (!physics.ok()) return false;
      const double tpot = context_.world.predictor().roofline().milliseconds(Metric::kTpot, p, *physics);
      const double ttft = context_.world.predictor().roofline().milliseconds(Metric::kTtft, p, *physics);
      const double answer = ttft + (context_.sample.output_mean() - 1) * tpot;
      if (load == 1) c.rough_ms = answer;
      bool keeps = true;
      for (const LatencyTarget& target : context_.targets) {
        const double value = target.metric == LatencyTarget::Metric::kTtft   ? ttft
                             : target.metric == LatencyTarget::Metric::kTpot ? tpot
                                                                             : answer;
        // The roofline is off by half at times: only what is far from the target goes.
        if (load == 1 && value > 2.5 * target.limit_ms) {
          out_.reject(c.configuration.model_id, c.configuration.gpu,
                      target.field + ": about " + ms_text(value) + " on average even alone, the limit is " +
                          ms_text(target.limit_ms),
                      target.field + " of " + ms_text(value) + " or more");
          return false;
        }
        keeps = keeps && value * (target.metric == LatencyTarget::Metric::kTpot ? 1.2 : 1.6) <= target.limit_ms;
      }
      if (!keeps && load > 1) break;
      rate = std::max(rate, p.concurrency / answer * 1000);
      if (p.concurrency < load) break;
    }
    const double per_gpu = cheapest_per_gpu_hour(c.configuration.gpu, c.configuration.tensor_parallel);
    const double replicas = std::max(
        1.0, sized_rps(context_.spec) * (1 + context_.spec.number("headroom_pct") / 100) / std::max(rate, 1e-9));
    c.rough_usd =
        replicas * c.configuration.tensor_parallel * c.configuration.pipeline_parallel * (per_gpu > 0 ? per_gpu : 1);
    return true;
  }

  const SearchContext& context_;
  std::map<std::string, const GpuProfile*> gpus_;
  std::map<std::string, const ModelFacts*> models_;
  std::map<std::string, Tier> quality_;
  std::map<std::string, int> priced_;
  const int most_stages_ = static_cast<int>(context_.spec.maybe("gpu_constraints.max_pipeline_parallel").value_or(4));
  CandidateSet out_;
  size_t num_twins_ = 0;
  char change_[200] = {};
};

}  // namespace

std::string ms_text(double value) {
  char text[40];
  std::snprintf(text, sizeof text, value < 10 ? "%.2f ms" : "%.0f ms", value);
  return text;
}

ServingPoint point_of(const SearchContext& context, const Configuration& c) {
  ServingPoint p;
  p.model_id = c.model_id;
  p.gpu = c.gpu;
  p.engine = context.spec.text("engine");
  p.engine_version = context.spec.text("engine_version");
  p.gemm_quant = p.moe_quant = c.quantization;
  p.tensor_parallel = c.tensor_parallel;
  p.pipeline_parallel = c.pipeline_parallel;
  p.moe_expert_parallel = c.expert_parallel;
  p.moe_tensor_parallel = std::max(1, c.tensor_parallel / c.expert_parallel);
  p.prompt_tokens = context.sample.prompt_mean();
  p.output_tokens = context.sample.output_mean();
  return p;
}

Result<CandidateSet> find_candidates(const SearchContext& context) { return Candidates(context).run(); }

std::optional<Candidate> candidate_of(const SearchContext& context, const Configuration& c, std::string& reason) {
  Candidate out;
  out.configuration = c;
  out.facts = context.world.snapshot.facts.find(c.model_id);
  out.gpu = context.world.snapshot.gpus.find(c.gpu);
  if (out.facts == nullptr || out.gpu == nullptr) {
    reason = "unknown model or GPU";
    return std::nullopt;
  }
  out.configuration.gpu = out.gpu->name;
  out.parameters = count(*out.facts).stored();
  const Tier quality = tier_of(document_of(context.world, c.model_id), *out.facts);
  out.quality = quality.name;
  out.quality_source = quality.source;
  const auto memory = memory_of(context, out.configuration);
  if (!memory || !memory->fits()) {
    reason = memory ? memory->reason : "the context is longer than the model's";
    return std::nullopt;
  }
  out.memory = *memory;
  return out;
}

}  // namespace sextant::advisor
