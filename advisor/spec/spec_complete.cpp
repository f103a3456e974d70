// What the user left out: from the template of the use case, from what was given, or from defaults; and what contradicts.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <numeric>

#include "advisor/spec/spec.h"
#include "engine/base/nearest.h"

namespace sextant::advisor {
namespace {

using nlohmann::json;

// Names of requirements 003 and of everyday speech.
const std::map<std::string, std::string>& task_aliases() {
  static const std::map<std::string, std::string> aliases = {
      {"chatbot", "interactive_chatbot"},          {"chat", "interactive_chatbot"},
      {"summarization", "document_summarization"}, {"code-generation", "code_generation"},
      {"code-completion", "code_completion"},      {"content-creation", "content_creation"}};
  return aliases;
}

// A working day, mean 1 and peak 1.8: the shape of office traffic.
constexpr double kDiurnal[24] = {0.35, 0.25, 0.2,  0.2, 0.25, 0.35, 0.55, 0.85, 1.25, 1.6, 1.8, 1.75,
                                 1.55, 1.65, 1.75, 1.7, 1.55, 1.35, 1.2,  1.1,  0.95, 0.8, 0.6, 0.4};
constexpr double kSecondsPerDay = 86400;

std::string g(double value) {
  char text[40];
  std::snprintf(text, sizeof text, "%.6g", value);
  return text;
}

class Completion {
 public:
  Completion(const UseCases& use_cases, Spec& spec, std::vector<Status>& errors)
      : use_cases_(use_cases), spec_(spec), errors_(errors) {}

  void run() {
    if (!find_template()) return;
    for (const char* group : {"default_slos", "traffic_defaults"}) from_template(group);
    if (!errors_.empty()) return;
    defaults();
    traffic();
  }

 private:
  void fill(const std::string& path, json value, SpecSource source, std::string rule) {
    if (!spec_.has(path)) spec_.set(path, std::move(value), source, std::move(rule));
  }

  bool find_template() {
    fill("task_type", "interactive_chatbot", SpecSource::kDefault, "no task_type: the most common use case");
    const std::string given = spec_.text("task_type");
    const auto alias = task_aliases().find(given);
    task_ = alias == task_aliases().end() ? given : alias->second;
    const auto found = use_cases_.find(task_);
    if (found != use_cases_.end()) {
      template_ = &found->second;
      return true;
    }
    std::vector<std::string> names;
    std::string all;
    for (const auto& [name, ignored] : use_cases_) {
      names.push_back(name);
      all += (all.empty() ? "" : ", ") + name;
    }
    const auto near = nearest_name(given, names);
    errors_.push_back(invalid_argument("task_type '" + given.substr(0, 80) + "' is no use case of the knowledge base" +
                                           (near ? "; did you mean '" + *near + "'?" : "") + " Known are " + all,
                                       "task_type", "semantic"));
    return false;
  }

  // A limit the user gave on one percentile replaces the template's on another: both would be two wishes.
  bool has_target(const std::string& metric) const {
    for (const char* p : {"_p90_ms", "_p95_ms", "_p99_ms"})
      if (spec_.given("target_" + metric + p)) return true;
    return false;
  }

  void from_template(const char* group) {
    static const std::map<std::string, std::string> targets = {
        {"ttft_p90_ms", "ttft"}, {"tpot_p90_ms", "tpot"}, {"e2e_latency_p95_ms", "e2e_latency"}};
    static const std::map<std::string, std::string> names = {{"quality", "quality_threshold"},
                                                             {"reliability_pct", "reliability_target"},
                                                             {"typical_concurrency_ratio", "concurrency_ratio"}};
    const json defaults = template_->value(group, json::object());
    const std::string rule = "template " + task_;
    for (const auto& [key, value] : defaults.items()) {
      const auto target = targets.find(key);
      const auto name = names.find(key);
      const std::string path = target != targets.end() ? "target_" + key : name == names.end() ? key : name->second;
      if (value.is_null() || (target != targets.end() && has_target(target->second))) continue;
      const auto& fields = spec_fields();
      const auto field = std::find_if(fields.begin(), fields.end(), [&](const SpecField& f) { return path == f.path; });
      // Templates may hold more than specs know; what specs know must make sense there too.
      if (field == fields.end()) continue;
      if (const Status status = check_spec_value(*field, value); !status.ok()) {
        errors_.push_back(invalid_argument("the template " + task_ + " of the knowledge base: " + status.message(),
                                           "task_type", "semantic"));
        continue;
      }
      fill(path, value, SpecSource::kTemplate, rule);
    }
    // An average of the user's own makes the template's 95th percentile meaningless: keep its ratio.
    for (const std::string part : {"prompt_length", "generation_length"}) {
      const std::string avg = part + "_avg";
      const std::string p95 = part + "_p95";
      if (std::string(group) != "traffic_defaults" || !spec_.given(avg) || spec_.given(p95)) continue;
      const auto of = [&](const std::string& key, double otherwise) {
        const auto found = defaults.find(key);
        return found != defaults.end() && found->is_number() ? found->get<double>() : otherwise;
      };
      const double ratio = std::clamp(of(p95, 2.0) / std::max(of(avg, 1.0), 1.0), 1.0, 100.0);
      spec_.set(p95, std::round(spec_.number(avg) * ratio), SpecSource::kDerived,
                avg + " x " + g(ratio) + ", the ratio of template " + task_);
    }
    // The whole answer's limit follows the lengths and limits that the user changed.
    if (std::string(group) != "traffic_defaults" || has_target("e2e_latency") ||
        !(has_target("ttft") || has_target("tpot") || spec_.given("generation_length_avg")))
      return;
    const auto ttft = first_target("ttft");
    const auto tpot = first_target("tpot");
    if (ttft && tpot)
      spec_.set("target_e2e_latency_p95_ms", std::round(*ttft + (spec_.number("generation_length_avg") - 1) * *tpot),
                SpecSource::kDerived, "TTFT + (generation_length_avg - 1) x TPOT of the targets");
  }

  std::optional<double> first_target(const std::string& metric) const {
    for (const char* p : {"_p90_ms", "_p95_ms", "_p99_ms"})
      if (const auto limit = spec_.maybe("target_" + metric + p)) return limit;
    return std::nullopt;
  }

  void defaults() {
    const auto fixed = [&](const char* path, json value, const char* rule) {
      fill(path, std::move(value), SpecSource::kDefault, rule);
    };
    fixed("priority", "balanced", "no wish given");
    fixed("quality_threshold", "standard", "no wish given");
    fixed("reliability_target", 99.0, "no wish given");
    fixed("replica_availability_pct", 99.0, "an assumption: state your own");
    fixed("zones", 1, "one zone");
    fixed("survive_loss_of", "none", "no wish given");
    fixed("headroom_pct", 20, "for growth and for errors of the prediction");
    fixed("think_time_s", 10, "an assumption: state your own");
    fixed("concurrency_ratio", 0.1, "an assumption: state your own");
    fixed("prompt_length_avg", 512, "no template holds it");
    fixed("generation_length_avg", 256, "no template holds it");
    fixed("burstiness_pattern", "moderate", "no template holds it");
    fixed("engine", "vllm", "the engine of most measured points");
    fixed("deployment_model", "cloud_rental", "no wish given");
    fixed("pricing.spot_share", 0, "on-demand");
    fixed("pricing.reserved_share", 0, "on-demand");
    fixed("pricing.spot_recovery_minutes", 5, "an assumption: state your own");
    for (const char* cost : {"load_balancer", "storage", "egress", "monitoring"})
      fixed((std::string("costs.") + cost + "_usd_per_month").c_str(), 0, "not given: counted as 0");
    fixed("costs.output_input_ratio", 4, "as Google's GKE inference recommender defines cost per token");
    fixed("autoscaling.enabled", true, "no wish given");
    fixed("autoscaling.min_replicas", 1, "no wish given");
    fixed("autoscaling.scale_up_minutes", 5, "an assumption: state your own");
    fixed("latency.network_ms", 0, "not given: targets are taken at the server");
    fixed("latency.gateway_ms", 0, "not given: targets are taken at the server");
    for (const std::string part : {"prompt_length", "generation_length"})
      fill(part + "_p95", std::round(2 * spec_.number(part + "_avg")), SpecSource::kDefault, "twice the average");
    if (!spec_.has("max_context_tokens"))
      fill("max_context_tokens", std::ceil(spec_.number("prompt_length_p95") + spec_.number("generation_length_p95")),
           SpecSource::kDerived, "prompt_length_p95 + generation_length_p95");
    if (spec_.text("deployment_model") == "cloud_rental") return;
    fixed("datacenter_context.power_cost_per_kwh", 0, "not given: counted as 0");
    fixed("datacenter_context.cooling_overhead_pue", 1.3, "requirements 003");
    for (const char* cost : {"rack_space_cost_per_month", "staff_cost_per_month", "server_cost_usd",
                             "residual_value_usd", "host_power_w", "annual_discount_rate"})
      fixed((std::string("datacenter_context.") + cost).c_str(), 0, "not given: counted as 0");
    fixed("datacenter_context.amortization_period_months", 36, "requirements 003");
    fixed("datacenter_context.horizon_months", 36, "the amortisation period");
  }

  void traffic() {
    if (!spec_.has("average_rps") && spec_.has("daily_requests"))
      fill("average_rps", spec_.number("daily_requests") / kSecondsPerDay, SpecSource::kDerived,
           "daily_requests / 86400");
    std::vector<double> shape(24, 1.0);
    if (spec_.has("hourly_multipliers")) {
      shape = spec_.value("hourly_multipliers").get<std::vector<double>>();
    } else if (spec_.text("burstiness_pattern") != "steady") {
      shape.assign(std::begin(kDiurnal), std::end(kDiurnal));
      const double mean = std::accumulate(shape.begin(), shape.end(), 0.0) / 24;
      for (double& m : shape) m /= mean;
    }
    const double highest = *std::max_element(shape.begin(), shape.end());
    if (!spec_.has("peak_rps") && !spec_.has("average_rps")) from_users();
    if (!errors_.empty()) return;
    if (!spec_.has("peak_rps"))
      fill("peak_rps", spec_.number("average_rps") * highest, SpecSource::kDerived,
           "average_rps x " + g(highest) + ", the highest hourly multiplier");
    if (!spec_.has("average_rps"))
      fill("average_rps", spec_.number("peak_rps") / highest, SpecSource::kDerived,
           "peak_rps / " + g(highest) + ", the highest hourly multiplier");
    if (!spec_.has("daily_requests"))
      fill("daily_requests", spec_.number("average_rps") * kSecondsPerDay, SpecSource::kDerived, "average_rps x 86400");
    if (spec_.has("hourly_multipliers")) return;
    // Peak and average, when both are given, say how pointed the day is.
    const double wanted = std::max(1.0, spec_.number("peak_rps") / spec_.number("average_rps"));
    if (std::abs(wanted - highest) > 1e-6) {
      const double stretch = highest > 1 ? (wanted - 1) / (highest - 1) : 0;
      for (double& m : shape) m = std::max(0.0, 1 + (m - 1) * stretch);
      if (wanted > 1 && highest <= 1) shape[12] = wanted;
    }
    fill("hourly_multipliers", shape, SpecSource::kDefault,
         wanted > 1 ? "a working day, stretched to peak_rps / average_rps" : "the same all day");
  }

  void from_users() {
    if (!spec_.has("users") && !spec_.has("concurrent_users") && !spec_.has("target_throughput_rps")) {
      errors_.push_back(
          invalid_argument("peak_rps is needed, or one of average_rps, daily_requests, users, concurrent_users and "
                           "target_throughput_rps",
                           "peak_rps", "semantic"));
      return;
    }
    if (!spec_.has("users") && !spec_.has("concurrent_users")) {
      fill("peak_rps", spec_.number("target_throughput_rps"), SpecSource::kDerived, "target_throughput_rps");
      return;
    }
    const bool concurrent = spec_.has("concurrent_users");
    const double active =
        concurrent ? spec_.number("concurrent_users") : spec_.number("users") * spec_.number("concurrency_ratio");
    const double ttft = first_target("ttft").value_or(500);
    const double tpot = first_target("tpot").value_or(50);
    const double answer_s = (ttft + (spec_.number("generation_length_avg") - 1) * tpot) / 1000;
    fill("peak_rps", active / (spec_.number("think_time_s") + answer_s), SpecSource::kDerived,
         std::string(concurrent ? "concurrent_users" : "users x concurrency_ratio") + " (" + g(active) +
             " active) / (think_time_s + " + g(answer_s) + " s of an answer at the targets)");
  }

  const UseCases& use_cases_;
  Spec& spec_;
  std::vector<Status>& errors_;
  std::string task_;
  const json* template_ = nullptr;
};

}  // namespace

void complete_spec(const UseCases& use_cases, Spec& spec, std::vector<Status>& errors) {
  Completion(use_cases, spec, errors).run();
}

void find_contradictions(const Spec& spec, std::vector<Status>& errors) {
  const auto against = [&](const std::string& a, const std::string& b, const std::string& what) {
    errors.push_back(invalid_argument(a + " and " + b + " contradict: " + what, a, "contradiction"));
  };
  const auto at_most = [&](const std::string& small, const std::string& large) {
    const auto low = spec.maybe(small);
    const auto high = spec.maybe(large);
    if (low && high && *low > *high * (1 + 1e-9))
      against(small, large, small + " is " + g(*low) + " and must be at most " + large + ", " + g(*high));
  };
  at_most("concurrent_users", "users");
  at_most("average_rps", "peak_rps");
  at_most("prompt_length_avg", "prompt_length_p95");
  at_most("generation_length_avg", "generation_length_p95");
  for (const std::string metric : {"target_ttft", "target_tpot", "target_e2e_latency"}) {
    at_most(metric + "_p90_ms", metric + "_p95_ms");
    at_most(metric + "_p95_ms", metric + "_p99_ms");
    at_most(metric + "_p90_ms", metric + "_p99_ms");
  }
  for (const char* p : {"_p90_ms", "_p95_ms", "_p99_ms"})
    at_most(std::string("target_ttft") + p, std::string("target_e2e_latency") + p);
  at_most("target_ttft_p90_ms", "target_e2e_latency_p95_ms");
  if (spec.number("max_context_tokens") < spec.number("prompt_length_avg") + spec.number("generation_length_avg"))
    against("max_context_tokens", "prompt_length_avg + generation_length_avg",
            "an average request has " + g(spec.number("prompt_length_avg") + spec.number("generation_length_avg")) +
                " tokens, max_context_tokens is " + g(spec.number("max_context_tokens")));
  const double daily = spec.number("average_rps") * kSecondsPerDay;
  if (std::abs(spec.number("daily_requests") - daily) > 0.01 * daily)
    against("daily_requests", "average_rps",
            g(spec.number("daily_requests")) + " a day are " + g(spec.number("daily_requests") / kSecondsPerDay) +
                " per second, not " + g(spec.number("average_rps")));
  const auto hours = spec.value("hourly_multipliers").get<std::vector<double>>();
  const double mean = std::accumulate(hours.begin(), hours.end(), 0.0) / 24;
  if (std::abs(mean - 1) > 0.01)
    errors.push_back(invalid_argument("hourly_multipliers must have the mean 1 (within 1%), not " + g(mean),
                                      "hourly_multipliers", "semantic"));
  const double highest = *std::max_element(hours.begin(), hours.end());
  if (spec.given("hourly_multipliers") &&
      std::abs(spec.number("peak_rps") - spec.number("average_rps") * highest) > 0.02 * spec.number("peak_rps"))
    against("peak_rps", "hourly_multipliers",
            "average_rps x the highest multiplier is " + g(spec.number("average_rps") * highest) + ", peak_rps is " +
                g(spec.number("peak_rps")));
  if (spec.number("pricing.spot_share") + spec.number("pricing.reserved_share") > 1 + 1e-9)
    against("pricing.spot_share", "pricing.reserved_share", "together they are more than all instances");
  if (spec.number("pricing.spot_share") > 0 && !spec.has("pricing.spot_interruptions_per_day"))
    errors.push_back(
        invalid_argument("pricing.spot_interruptions_per_day is needed with pricing.spot_share: no row holds how often "
                         "spot instances go",
                         "pricing.spot_interruptions_per_day", "semantic"));
  if (spec.has("models") && spec.has("preferred_models"))
    against("models", "preferred_models", "the one serves several models at once, the other picks one of several");
  for (const char* list : {"models", "regions"}) {
    if (!spec.has(list)) continue;
    double sum = 0;
    for (const json& item : spec.value(list)) sum += item["share"].get<double>();
    if (std::abs(sum - 1) > 1e-3)
      errors.push_back(
          invalid_argument(std::string(list) + " must have shares that sum to 1, not " + g(sum), list, "semantic"));
  }
  if (spec.text("survive_loss_of") == "zone" && spec.number("zones") < 2)
    against("survive_loss_of", "zones", "one zone cannot be lost and survived; give at least 2");
  if (spec.text("survive_loss_of") == "region" && (!spec.has("regions") || spec.value("regions").size() < 2))
    against("survive_loss_of", "regions", "surviving the loss of a region needs at least 2 regions");
  if (spec.text("deployment_model") != "cloud_rental" && !spec.has("available_gpus"))
    against("deployment_model", "available_gpus", "say which GPUs are there or would be bought");
  if (spec.text("deployment_model") == "purchase" && !spec.has("datacenter_context.purchase_price_usd_per_gpu"))
    errors.push_back(
        invalid_argument("datacenter_context.purchase_price_usd_per_gpu is needed to plan a purchase: no row holds "
                         "what GPUs cost to buy",
                         "datacenter_context.purchase_price_usd_per_gpu", "semantic"));
}

}  // namespace sextant::advisor
