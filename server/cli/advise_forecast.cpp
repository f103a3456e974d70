#include "server/cli/advise_forecast.h"

#include <cmath>
#include <cstdio>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "server/cli/command_line.h"

namespace sextant::cli {
namespace {

using advisor::LatencyFigures;
using advisor::LatencyShare;
using nlohmann::ordered_json;

double rounded(double value) { return std::round(value * 1000) / 1000; }

// A figure in milliseconds with what 90% of runs, and the fit's own error, leave of it.
ordered_json figure(const LatencyShare& share, double log_error) {
  const double spread = share.value > 0 && share.high > 0 ? std::log(share.high / share.value) : 0;
  const double widened = std::sqrt(spread * spread + 1.645 * 1.645 * log_error * log_error);
  return {{"value_ms", rounded(share.value * 1e3)},
          {"low90_ms", rounded(share.value * std::exp(-widened) * 1e3)},
          {"high90_ms", rounded(share.value * std::exp(widened) * 1e3)}};
}

ordered_json figures(const LatencyFigures& figures, double log_error) {
  ordered_json out;
  for (const auto& [name, share] : {std::pair("mean", &figures.mean),
                                    {"p50", &figures.p50},
                                    {"p90", &figures.p90},
                                    {"p95", &figures.p95},
                                    {"p99", &figures.p99}}) {
    out[name] = figure(*share, log_error);
  }
  return out;
}

void print_row(const char* name, const LatencyFigures& f) {
  std::printf("  %-5s mean %10.2f ms   p50 %10.2f   p90 %10.2f   p95 %10.2f   p99 %10.2f (%.2f to %.2f)\n", name,
              f.mean.value * 1e3, f.p50.value * 1e3, f.p90.value * 1e3, f.p95.value * 1e3, f.p99.value * 1e3,
              f.p99.low * 1e3, f.p99.high * 1e3);
}

}  // namespace

void declare_forecast(CLI::App& app, ForecastSettings& s) {
  app.add_option("--records", s.records,
                 "predict from these benchmark records (`bench serve --record`) instead of the knowledge base")
      ->type_name("FILE");
  app.add_option("--request-rate", s.rates, "percentiles under so many requests per second")
      ->type_name("R")
      ->delimiter(',');
  app.add_option("--burstiness", s.burstiness, "1: Poisson; below 1: bursts (gamma gaps of this shape)")
      ->type_name("S")
      ->capture_default_str();
  app.add_option("--prompt-tokens-cv", s.prompt_cv, "standard deviation of the lengths over their mean, log-normal")
      ->type_name("X")
      ->capture_default_str();
  app.add_option("--output-tokens-cv", s.output_cv)->type_name("X")->capture_default_str();
  app.add_option("--num-requests", s.num_requests, "of one run of the queue")->type_name("N")->capture_default_str();
  app.add_option("--num-runs", s.num_runs, "runs with other arrivals")->type_name("N")->capture_default_str();
  app.add_option("--seed", s.seed, "of the arrivals")->type_name("N")->capture_default_str();
  app.add_option("--max-num-seqs", s.max_num_seqs, "sequences at once [as recorded, else 256]")->type_name("N");
  app.add_option("--max-num-batched-tokens", s.max_num_batched_tokens,
                 "token budget of a step [as recorded, else 8192]")
      ->type_name("N");
}

std::vector<Status> validate(const ForecastSettings& s) {
  std::vector<Status> errors;
  const auto range = [&](const char* flag, double value, double low, double high) {
    if (value >= low && value <= high) return;
    char text[120];
    std::snprintf(text, sizeof text, "%s must be from %g to %g, not %g", flag, low, high, value);
    errors.push_back(invalid_argument(text, flag));
  };
  for (const double rate : s.rates) range("--request-rate", rate, 1e-6, 1e6);
  range("--burstiness", s.burstiness, 0.01, 1e6);
  range("--prompt-tokens-cv", s.prompt_cv, 0, 10);
  range("--output-tokens-cv", s.output_cv, 0, 10);
  range("--num-requests", static_cast<double>(s.num_requests), 1, 100'000);
  range("--num-runs", static_cast<double>(s.num_runs), 1, 100);
  range("--max-num-seqs", static_cast<double>(s.max_num_seqs.value_or(1)), 1, 1e6);
  range("--max-num-batched-tokens", static_cast<double>(s.max_num_batched_tokens.value_or(1)), 1, 1e8);
  return errors;
}

int forecast_from_loads(const ForecastSettings& settings, const ForecastQuestion& question,
                        const advisor::RecordedDeployment& deployment, const advisor::StepShape& shape,
                        const std::string& provenance) {
  advisor::QueueServer limits = deployment.server;
  if (settings.max_num_seqs) limits.max_num_seqs = *settings.max_num_seqs;
  if (settings.max_num_batched_tokens) limits.max_num_batched_tokens = *settings.max_num_batched_tokens;
  limits.max_num_batched_tokens = std::max(limits.max_num_batched_tokens, limits.max_num_seqs);
  limits.cost.sharpness = advisor::likely_sharpness(deployment);
  const auto fit = advisor::fit_step_cost(limits, shape, deployment.loads);
  if (!fit.ok()) return report_bad_input(question.verb, {fit.status()});
  const advisor::StepCost& cost = fit->server.cost;
  ordered_json out = {{"schema", "sextant.forecast/1"},
                      {"model_id", deployment.model_id},
                      {"gpu", deployment.gpu_type.empty() ? ordered_json(nullptr) : ordered_json(deployment.gpu_type)},
                      {"engine", deployment.engine},
                      {"tensor_parallel", deployment.tensor_parallel},
                      {"provenance", provenance},
                      {"prompt_tokens", question.prompt_tokens},
                      {"output_tokens", question.output_tokens},
                      {"step",
                       {{"overhead_ms", cost.overhead * 1e3},
                        {"per_sequence_us", cost.per_sequence * 1e6},
                        {"stream_weights_ms", cost.stream_weights * 1e3},
                        {"per_context_token_ns", cost.per_context_token * 1e9},
                        {"per_token_us", cost.per_token * 1e6},
                        {"per_pair_ns", cost.per_pair * 1e9},
                        {"sharpness", cost.sharpness},
                        {"outside_of_steps_ms", fit->server.fixed_ttft_s * 1e3},
                        {"fitted_to_loads", deployment.loads.size()},
                        {"tpot_median_error", rounded(fit->tpot_error)},
                        {"ttft_median_error", rounded(fit->ttft_error)}}},
                      {"assumed", deployment.assumed},
                      {"left_out", deployment.left_out}};
  if (!question.json) {
    std::printf(
        "%s on %s, %s; a step fitted to %zu loads (mean TPOT within %.1f%%, TTFT within %.1f%% in the median):\n"
        "  %.3g ms + %.3g us per sequence + %.3g ms for weights, %.3g ns per token of context, %.3g us per token "
        "computed; %.3g ms outside of steps\n",
        deployment.model_id.c_str(), deployment.gpu_type.empty() ? "a CPU" : deployment.gpu_type.c_str(),
        provenance.c_str(), deployment.loads.size(), fit->tpot_error * 100, fit->ttft_error * 100, cost.overhead * 1e3,
        cost.per_sequence * 1e6, cost.stream_weights * 1e3, cost.per_context_token * 1e9, cost.per_token * 1e6,
        fit->server.fixed_ttft_s * 1e3);
    for (const std::string& assumed : deployment.assumed) std::printf("  assumed: %s\n", assumed.c_str());
  }
  for (const std::string& reason : deployment.left_out) {
    std::fprintf(stderr, "sextant %s: left out: %s\n", question.verb.c_str(), reason.c_str());
  }

  std::vector<advisor::Traffic> asked;
  advisor::Traffic traffic;
  traffic.prompt = {question.prompt_tokens, settings.prompt_cv, 0};
  traffic.output = {question.output_tokens, settings.output_cv, 0};
  traffic.arrival_cv = 1 / std::sqrt(settings.burstiness);
  for (const double rate : settings.rates) {
    traffic.request_rate = rate;
    asked.push_back(traffic);
  }
  traffic.request_rate = 0;
  for (const int64_t concurrency : question.concurrencies) {
    traffic.concurrency = concurrency;
    asked.push_back(traffic);
  }
  ordered_json loads = ordered_json::array();
  for (const advisor::Traffic& each : asked) {
    const auto result = advisor::forecast(
        fit->server, each,
        {.num_requests = settings.num_requests, .num_runs = settings.num_runs, .seed = settings.seed});
    if (!result.ok()) return report_bad_input(question.verb, {result.status()});
    ordered_json load;
    if (each.request_rate > 0) {
      load["request_rate"] = each.request_rate;
      load["burstiness_cv"] = rounded(each.arrival_cv);
    } else {
      load["concurrency"] = each.concurrency;
    }
    load["ttft"] = figures(result->ttft, fit->ttft_log_error);
    load["tpot"] = figures(result->tpot, fit->tpot_log_error);
    load["e2e"] = figures(result->e2e, fit->tpot_log_error);
    load["queue"] = figures(result->queue, fit->ttft_log_error);
    load["requests_per_s"] = rounded(result->request_rps);
    load["output_tokens_per_s"] = rounded(result->output_tokens_per_s);
    load["device_busy_share"] = rounded(result->busy_share);
    load["mean_sequences"] = rounded(result->mean_running);
    load["saturated"] = result->saturated;
    load["within_limits"] = result->ttft.p95.value * 1e3 <= question.ttft_limit_ms &&
                            result->tpot.p95.value * 1e3 <= question.tpot_limit_ms && !result->saturated;
    if (!question.json) {
      if (each.request_rate > 0) {
        std::printf(
            "\n%g requests/s, CV of the gaps %.2g: %.1f output tokens/s, device busy %.0f%%, %.1f sequences%s\n",
            each.request_rate, each.arrival_cv, result->output_tokens_per_s, result->busy_share * 100,
            result->mean_running,
            result->saturated ? "; SATURATED: the queue grows, latencies are those of the first requests" : "");
      } else {
        std::printf("\n%ld requests at once: %.3g requests/s, %.1f output tokens/s\n", each.concurrency,
                    result->request_rps, result->output_tokens_per_s);
      }
      print_row("TTFT", result->ttft);
      print_row("TPOT", result->tpot);
      print_row("E2E", result->e2e);
      std::printf("  p95 of TTFT within %g ms and of TPOT within %g ms: %s\n", question.ttft_limit_ms,
                  question.tpot_limit_ms, load["within_limits"].get<bool>() ? "yes" : "no");
    }
    loads.push_back(std::move(load));
  }
  out["limits"] = {{"ttft_p95_ms", question.ttft_limit_ms}, {"tpot_p95_ms", question.tpot_limit_ms}};
  out["loads"] = std::move(loads);
  if (question.json) std::printf("%s\n", out.dump(2).c_str());
  return kExitDone;
}

int forecast_from_records(const ForecastSettings& settings, const ForecastQuestion& question,
                          const advisor::RecordFilter& filter) {
  const auto records = bench::read_record_file(settings.records);
  if (!records.ok())
    return report_bad_input(question.verb, {invalid_argument("--records: " + records.status().message(), "--records")});
  const auto deployment = advisor::loads_of_records(*records, filter);
  if (!deployment.ok())
    return report_bad_input(question.verb,
                            {invalid_argument("--records: " + deployment.status().message(), "--records")});
  return forecast_from_loads(settings, question, *deployment, {},
                             deployment->simulated ? "estimated from simulated records" : "estimated from records");
}

}  // namespace sextant::cli
