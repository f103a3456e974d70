#include "bench/report/text_report.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace sextant::bench {
namespace {

std::string padded(const std::string& text, size_t width, bool left = false) {
  // Width in characters: "±" is two bytes.
  size_t length = 0;
  for (const char c : text) length += (static_cast<unsigned char>(c) & 0xc0) != 0x80;
  const std::string space(length < width ? width - length : 0, ' ');
  return left ? text + space : space + text;
}

std::string interval(const std::optional<Bounds>& bounds) {
  return bounds ? " [" + short_number(bounds->low) + ", " + short_number(bounds->high) + "]" : "";
}

std::string upper(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return std::toupper(c); });
  return text;
}

std::string percent_name(double p) { return "p" + short_number(p); }

}  // namespace

std::string short_number(double value) {
  char text[40];
  const double size = std::fabs(value);
  if (size >= 1000) {
    std::snprintf(text, sizeof text, "%.0f", value);
  } else {
    std::snprintf(text, sizeof text, "%.4g", value);
  }
  return text;
}

std::string point_text(const BenchResult& result, const BenchPoint& point, const ReportOptions& options) {
  const Measurement& m = point.measurement;
  std::string out;
  const auto line = [&](const std::string& name, const std::string& value) {
    out += "  " + padded(name, 24, true) + value + "\n";
  };
  out += "\n" + point.label + "  (" + result.model + " at " + result.url + result.endpoint + "; " + options.prompts +
         ")\n";
  std::string counts = std::to_string(m.num_finished) + " finished of " + std::to_string(m.num_planned);
  if (m.num_failed > 0) counts += ", " + std::to_string(m.num_failed) + " failed";
  if (m.num_interrupted > 0) counts += ", " + std::to_string(m.num_interrupted) + " cut off";
  line("requests", counts + (m.num_measured != m.num_sent ? ", " + std::to_string(m.num_measured) + " measured" : ""));
  for (const auto& [name, count] : m.errors)
    line("  " + name, std::to_string(count) + ": " + m.error_examples.at(name));
  line("window", short_number(m.window_s()) + " s, " + short_number(m.mean_running) + " requests in flight on average");
  if (m.num_finished > 0) {
    line("requests/s", short_number(m.request_rps));
    line("output tok/s", short_number(m.output_tokens_per_s));
    if (m.input_tokens_known) {
      line("input tok/s", short_number(m.input_tokens_per_s));
      line("total tok/s", short_number(m.total_tokens_per_s));
    }
    const std::string in = m.prompt_lengths ? short_number(m.prompt_lengths->mean) + " in" : "unknown in";
    const std::string counted = m.output_lengths ? short_number(m.output_lengths->mean) + " out" : "unknown out";
    line("tokens per request", in + ", " + counted + " (means; counted by " + m.tokens_counted_by + ")");
  }
  if (m.goodput_rps) {
    const Bounds share = proportion_interval(*m.num_good, static_cast<int64_t>(m.num_measured), 0.90);
    line("goodput", short_number(*m.goodput_rps) + " requests/s; " + std::to_string(*m.num_good) + " of " +
                        std::to_string(m.num_measured) + " keep the limits (90% interval " +
                        short_number(100 * share.low) + ".." + short_number(100 * share.high) + "%)");
  }
  if (m.prefix_hit_ratio) line("prefix cache hits", short_number(100 * *m.prefix_hit_ratio) + "% of prompt tokens");
  if (m.queue_mean_ms) line("server queue", short_number(*m.queue_mean_ms) + " ms on average");
  if (m.memory_used_gib) line("GPU memory", short_number(*m.memory_used_gib) + " GiB");
  if (m.gpu_utilization_pct) line("GPU utilisation", short_number(*m.gpu_utilization_pct) + "%");
  if (m.power_w) {
    line("GPU power",
         short_number(*m.power_w) + " W" +
             (m.energy_j_per_token ? ", " + short_number(*m.energy_j_per_token) + " J per output token" : ""));
  }
  if (!m.ttft.empty()) {
    constexpr size_t kColumn = 11;
    out += "\n  " + padded("ms", 10, true) + padded("mean", kColumn);
    for (const double p : options.percentiles) out += padded(percent_name(p), kColumn);
    out += "   90% interval of the mean\n";
    const auto row = [&](const std::string& name, const LatencyResult& latency) {
      if (latency.empty()) return;
      out += "  " + padded(name, 10, true) + padded(short_number(latency.mean_ms), kColumn);
      for (const double p : options.percentiles) {
        const auto value = latency.at(p / 100);
        out += padded(value ? short_number(*value) : "n small", kColumn);
      }
      out += "  " + interval(latency.mean_ci) + "\n";
    };
    for (const Latency latency : options.latencies) row(upper(latency_name(latency)), m.latency(latency));
    row("NTPOT", m.normalized_tpot);
    if (m.validity.send_lag_p99_ms) {
      row("TTFT*", m.ttft_scheduled);
      row("E2E*", m.e2e_scheduled);
      out += "  * from the scheduled time, not from the send\n";
    }
    bool small = false;
    for (const double p : options.percentiles) small = small || !m.ttft.at(p / 100);
    if (small) out += "  n small: n too small, fewer than 10 samples beyond that percentile\n";
  }
  out += "\n";
  std::string client = short_number(m.validity.client_self_time_pct.value_or(0)) + "% of one core";
  if (m.num_events > 0) client += ", " + short_number(m.client_us_per_event) + " us per streamed event";
  line("client", client + ", " + std::to_string(m.num_connections) + " connections");
  if (m.validity.send_lag_p99_ms) {
    std::string sent = "lag p99 " + short_number(*m.validity.send_lag_p99_ms) + " ms";
    if (m.validity.achieved_ratio)
      sent += ", " + short_number(100 * *m.validity.achieved_ratio) + "% of the rate asked for";
    line("sent", sent);
  }
  for (const RunGoal& goal : options.slo) {
    const auto met = goal_met(m, goal);
    line("SLO " + goal.text(), !met ? "n too small to say" : *met ? "met" : "MISSED");
  }
  for (const std::string& warning : m.validity.warnings) out += "  warning: " + warning + "\n";
  return out;
}

std::string table_text(const BenchResult& result, const ReportOptions& options) {
  std::string out = "\n  " + padded("load", 26, true);
  for (const char* name : {"req/s", "out tok/s", "TTFT p50", "TTFT p95", "TPOT p50", "TPOT p95", "E2E p50"})
    out += padded(name, 11);
  out += options.slo.empty() ? "\n" : "   SLO\n";
  for (const BenchPoint& point : result.points) {
    const Measurement& m = point.measurement;
    const auto at = [](const LatencyResult& latency, double q) {
      const auto value = latency.at(q);
      return padded(value ? short_number(*value) : "n small", 11);
    };
    out += "  " + padded(point.label, 26, true) + padded(short_number(m.request_rps), 11) +
           padded(short_number(m.output_tokens_per_s), 11) + at(m.ttft, 0.5) + at(m.ttft, 0.95) + at(m.tpot, 0.5) +
           at(m.tpot, 0.95) + at(m.e2e, 0.5);
    if (!options.slo.empty()) out += !point.slo_met ? "   n small" : *point.slo_met ? "   met" : "   missed";
    if (m.validity.over_saturated.value_or(false)) out += "   over-saturated";
    if (!m.valid) out += "   INVALID";
    out += "\n";
  }
  return out;
}

std::string formulas_text() {
  std::string out = "\n  formulas\n";
  for (const auto& [name, formula] : measurement_formulas()) out += "  " + padded(name, 14, true) + formula + "\n";
  return out;
}

}  // namespace sextant::bench
