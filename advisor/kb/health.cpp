#include "advisor/kb/health.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>

#include "advisor/kb/importers.h"
#include "engine/base/check.h"

namespace sextant::advisor {
namespace {

constexpr int kStaleDays = 30;
constexpr int kOldDays = 90;
// Clocks and rounded figures: what is within it of a bound is not called impossible.
constexpr double kSlack = 0.98;
constexpr double kGib = 1024.0 * 1024 * 1024;

// Least bytes that one decode step streams on each GPU: dense weights, and of experts those of one token.
double floor_ms(const ModelFacts& f, double bytes, double expert_bytes, double attention_gpus, double gpus,
                const GpuProfile& gpu) {
  const FactCounts counts = count(f);
  const double streamed =
      counts.dense() * bytes / attention_gpus + (counts.head * bytes + counts.active_experts * expert_bytes) / gpus;
  return streamed / (gpu.memory_gb_per_s * 1e6);
}

std::string format(const char* form, double a, double b) {
  char text[200];
  std::snprintf(text, sizeof text, form, a, b);
  return text;
}

}  // namespace

std::optional<int> days_between(const std::string& from, const std::string& to) {
  if (!is_date(from) || !is_date(to)) return std::nullopt;
  const auto day = [](const std::string& date) {
    return std::chrono::sys_days(
        std::chrono::year_month_day(std::chrono::year(std::stoi(date.substr(0, 4))),
                                    std::chrono::month(static_cast<unsigned>(std::stoi(date.substr(5, 2)))),
                                    std::chrono::day(static_cast<unsigned>(std::stoi(date.substr(8, 2))))));
  };
  return static_cast<int>((day(to) - day(from)).count());
}

Result<std::vector<HealthIssue>> check_claim(const OperatingClaim& c, const FactsTable& facts, const GpuTable& gpus) {
  const ModelFacts* f = facts.find(c.model_id);
  const GpuProfile* gpu = gpus.find(c.gpu);
  if (f == nullptr) return not_found("unknown model '" + c.model_id + "'", "model_id");
  if (gpu == nullptr) return not_found("unknown GPU '" + c.gpu + "'", "gpu");
  const auto bytes = bytes_per_parameter(c.quantization);
  if (!bytes) return invalid_argument("unknown quantisation '" + c.quantization + "'", "quantization");
  std::vector<HealthIssue> issues;
  const auto impossible = [&](const char* rule, std::string message) {
    issues.push_back(
        {HealthIssue::Severity::kImpossible, "benchmarks", c.model_id + " on " + c.gpu, rule, std::move(message)});
  };
  const double weights = count(*f).stored() * *bytes / c.tensor_parallel;
  const double memory = gpu->memory_gib * kGib;
  if (weights > memory)
    impossible("does_not_fit", format("weights take %.1f GiB of each GPU's %.1f GiB", weights / kGib, gpu->memory_gib));
  const double floor = floor_ms(*f, *bytes, *bytes, c.tensor_parallel, c.tensor_parallel, *gpu);
  if (c.tpot_ms && *c.tpot_ms < kSlack * floor)
    impossible("below_bandwidth_floor",
               format("TPOT %.2f ms; reading the weights once takes %.2f ms", *c.tpot_ms, floor));
  const double step = c.tpot_ms ? std::max(*c.tpot_ms, floor) : floor;
  // Little's law: c requests in flight, each giving a token per step.
  if (c.concurrency && c.output_tokens_per_s && *c.output_tokens_per_s * kSlack > *c.concurrency / step * 1e3)
    impossible("contradicts_littles_law", format("%.0f tokens/s; at most %.0f with so many requests in flight",
                                                 *c.output_tokens_per_s, *c.concurrency / step * 1e3));
  if (c.output_tokens_per_s && c.requests_per_s && c.output_tokens) {
    const double implied = *c.requests_per_s * *c.output_tokens;
    if (implied * kSlack > *c.output_tokens_per_s || *c.output_tokens_per_s * kSlack > implied)
      impossible("rates_disagree",
                 format("%.0f tokens/s, but requests/s times output tokens is %.0f", *c.output_tokens_per_s, implied));
  }
  // The requests that a rate needs in flight must find room in the cache.
  const double rate = c.output_tokens_per_s                 ? *c.output_tokens_per_s
                      : c.requests_per_s && c.output_tokens ? *c.requests_per_s * *c.output_tokens
                                                            : 0;
  if (rate > 0 && weights < memory) {
    const double context = c.prompt_tokens.value_or(0) + c.output_tokens.value_or(2) / 2;
    const double room =
        (memory - weights) * c.tensor_parallel / (kv_elements_per_token(*f) * std::max(context, 1.0)) * c.replicas;
    const double needed = rate * step / 1e3;
    if (needed > room)
      impossible("no_room_for_cache",
                 format("the rate needs %.0f requests in flight, there is room for %.0f", needed, room));
  }
  return issues;
}

HealthReport check_health(const KbSnapshot& snapshot, const std::string& as_of) {
  HealthReport report;
  report.benchmarks = snapshot.points.size();
  report.gpus = snapshot.gpus.all().size();
  report.prices = snapshot.prices.size();
  report.models = snapshot.facts.all().size();
  const auto add = [&](HealthIssue::Severity severity, const char* kind, const std::string& id, const char* rule,
                       std::string message) {
    report.issues.push_back({severity, kind, id, rule, std::move(message)});
    if (severity == HealthIssue::Severity::kImpossible && std::string_view(kind) == "benchmarks")
      report.quarantined.insert(id);
  };
  using enum HealthIssue::Severity;
  for (size_t i = 0; i < snapshot.points.size(); ++i) {
    const ServingPoint& p = snapshot.points[i];
    const std::string& id = snapshot.point_ids[i];
    const ModelFacts* f = snapshot.facts.find(p.model_id);
    const GpuProfile* gpu = snapshot.gpus.find(p.gpu);
    if (f == nullptr) add(kWarning, "benchmarks", id, "unknown_model", "names the unknown model " + p.model_id);
    if (gpu == nullptr) add(kWarning, "benchmarks", id, "unknown_gpu", "names the unknown GPU " + p.gpu);
    const auto physics = physics_of(p, snapshot.facts, snapshot.gpus);
    if (f == nullptr || gpu == nullptr) continue;
    if (!physics.ok()) {
      add(kWarning, "benchmarks", id, "unknown_quantization", physics.status().message());
      continue;
    }
    // An unknown quantisation may be as little as 4 bits.
    const double bytes = p.gemm_quant.empty() ? 0.5 : *bytes_per_parameter(p.gemm_quant);
    const double expert_bytes = p.moe_quant.empty() ? bytes : *bytes_per_parameter(p.moe_quant);
    const FactCounts counts = count(*f);
    const double weights = (counts.dense() * bytes + counts.experts * expert_bytes) / physics->num_gpus;
    if (weights > gpu->memory_gib * kGib)
      add(kImpossible, "benchmarks", id, "does_not_fit",
          format("weights take %.1f GiB of each GPU's %.1f GiB", weights / kGib, gpu->memory_gib));
    // In a point of few GPUs each GPU streams its share; a split that is not known is taken as the finest.
    const double floor = floor_ms(*f, bytes, expert_bytes, physics->num_gpus, physics->num_gpus, *gpu);
    if (p.tpot_mean_ms < kSlack * floor)
      add(kImpossible, "benchmarks", id, "below_bandwidth_floor",
          format("TPOT %.2f ms; reading the weights once takes %.2f ms", p.tpot_mean_ms, floor));
    // The prompt's FLOPs at the peak of 4-bit units, where there are such.
    const double prefill = physics->prefill * kSlack / 4;
    if (p.ttft_mean_ms < prefill)
      add(kImpossible, "benchmarks", id, "faster_than_peak_flops",
          format("TTFT %.2f ms; the prompt's FLOPs take %.2f ms", p.ttft_mean_ms, prefill));
  }
  for (const nlohmann::json& price : snapshot.prices) {
    const std::string id =
        price.value("provider", "") + "/" + price.value("instance", "") + "/" + price.value("region", "");
    const auto number = [&](const char* name) -> std::optional<double> {
      return price.contains(name) && price[name].is_number() ? std::optional<double>(price[name].get<double>())
                                                             : std::nullopt;
    };
    const std::string gpu_name = price.value("gpu", "");
    if (snapshot.gpus.find(gpu_name) == nullptr)
      add(kWarning, "prices", id, "unknown_gpu", "names the unknown GPU " + gpu_name);
    const auto on_demand = number("on_demand_usd_per_hour");
    const auto spot_low = number("spot_usd_per_hour_low");
    const auto spot_high = number("spot_usd_per_hour_high");
    if (on_demand && spot_low && *spot_low > *on_demand)
      add(kImpossible, "prices", id, "spot_above_on_demand",
          format("spot $%.4f above on-demand $%.4f", *spot_low, *on_demand));
    else if (on_demand && spot_high && *spot_high > *on_demand)
      add(kWarning, "prices", id, "spot_above_on_demand",
          format("spot up to $%.4f, on-demand $%.4f", *spot_high, *on_demand));
    if (on_demand && spot_low && *spot_low == *on_demand)
      add(kWarning, "prices", id, "no_spot_market", "spot equals on-demand: there is no spot market");
    const double count = number("gpu_count").value_or(0);
    if (count != std::floor(count) || (count > 1 && std::fmod(count, 2) != 0) ||
        (count > 8 && std::fmod(count, 8) != 0 && std::fmod(count, 36) != 0))
      add(kImpossible, "prices", id, "impossible_gpu_count",
          std::to_string(std::lround(count)) + " GPUs in one instance");
    const std::string date = price.contains("effective_date") && price["effective_date"].is_string()
                                 ? price["effective_date"].get<std::string>()
                                 : "";
    const auto age = days_between(date, as_of);
    if (!age) {
      add(kWarning, "prices", id, "undated_price",
          date.empty() || date == "undated" ? "has no date: low confidence"
                                            : "date '" + date + "' is no day: low confidence");
    } else if (*age < 0) {
      add(kWarning, "prices", id, "price_from_the_future", "is of " + date + ", after " + as_of);
    } else if (*age > kOldDays) {
      add(kWarning, "prices", id, "old_price", "is " + std::to_string(*age) + " days old: low confidence");
    } else if (*age > kStaleDays) {
      add(kWarning, "prices", id, "stale_price", "is " + std::to_string(*age) + " days old");
    }
  }
  std::sort(report.issues.begin(), report.issues.end(), [](const HealthIssue& a, const HealthIssue& b) {
    return std::tie(b.severity, a.kind, a.id, a.rule) < std::tie(a.severity, b.kind, b.id, b.rule);
  });
  return report;
}

nlohmann::ordered_json to_json(const HealthReport& report) {
  nlohmann::ordered_json issues = nlohmann::ordered_json::array();
  std::map<std::string, size_t> by_rule;
  bool impossible = false;
  for (const HealthIssue& issue : report.issues) {
    const bool is_impossible = issue.severity == HealthIssue::Severity::kImpossible;
    impossible = impossible || is_impossible;
    ++by_rule[issue.rule];
    issues.push_back({{"severity", is_impossible ? "impossible" : "warning"},
                      {"kind", issue.kind},
                      {"id", issue.id},
                      {"rule", issue.rule},
                      {"message", issue.message}});
  }
  return {{"status", impossible              ? "impossible_rows"
                     : report.issues.empty() ? "ok"
                                             : "warnings"},
          {"counts",
           {{"benchmarks", report.benchmarks},
            {"gpus", report.gpus},
            {"prices", report.prices},
            {"models", report.models}}},
          {"rules", by_rule},
          {"quarantined", report.quarantined},
          {"issues", std::move(issues)}};
}

}  // namespace sextant::advisor
