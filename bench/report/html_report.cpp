#include "bench/report/html_report.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "bench/report/html_page.h"
#include "bench/report/svg_chart.h"
#include "bench/report/text_report.h"

namespace sextant::bench {
namespace {

using Json = nlohmann::ordered_json;

std::string text_of(const Json& json, const std::string& otherwise = "") {
  return json.is_string() ? json.get<std::string>() : otherwise;
}

const Json& at(const Json& json, std::initializer_list<const char*> path) {
  static const Json nothing;
  const Json* here = &json;
  for (const char* key : path) {
    if (!here->is_object() || !here->contains(key)) return nothing;
    here = &(*here)[key];
  }
  return *here;
}

std::string number_of(const Json& json, const std::string& unit = "", const std::string& otherwise = "–") {
  return json.is_number() ? short_number(json.get<double>()) + unit : otherwise;
}

std::vector<double> numbers(const Json& json) {
  std::vector<double> values;
  if (!json.is_array()) return values;
  for (const Json& value : json) values.push_back(value.is_number() ? value.get<double>() : NAN);
  return values;
}

constexpr struct {
  const char* key;
  const char* name;
} kLatencies[] = {{"ttft", "TTFT"},
                  {"tpot", "TPOT"},
                  {"itl", "ITL"},
                  {"e2e", "E2E"},
                  {"normalized_tpot", "NTPOT"},
                  {"ttft_from_schedule", "TTFT from schedule"},
                  {"e2e_from_schedule", "E2E from schedule"}};

std::string latency_table(const Json& point) {
  const bool open_loop = at(point, {"validity", "send_lag_p99_ms"}).is_number();
  std::string out =
      "<div "
      "class=\"scroll\"><table><tr><th>milliseconds</th><th>n</th><th>mean</th><th>p50</th><th>p90</th><th>p95</th>"
      "<th>p99</th><th>p99.9</th><th>max</th></tr>\n";
  for (const auto& [key, name] : kLatencies) {
    const Json& latency = at(point, {"latency_ms", key});
    if (!latency.is_object() || (!open_loop && std::string(key).ends_with("schedule"))) continue;
    out += "<tr><td>" + std::string(name) + "</td><td>" + number_of(latency["n"]) + "</td>";
    for (const char* statistic : {"mean", "p50", "p90", "p95", "p99", "p99_9"}) {
      out += "<td>" + number_of(latency[statistic], "", "n too small");
      const Json& ci = at(latency, {"ci90", statistic});
      if (ci.is_array()) out += "<small>" + number_of(ci[0]) + " … " + number_of(ci[1]) + "</small>";
      out += "</td>";
    }
    out += "<td>" + number_of(latency["max"]) + "</td></tr>\n";
  }
  return out + "</table></div>\n<p class=\"sub\">Small figures: 90% confidence intervals.</p>\n";
}

Chart distribution(const Json& point, const char* title,
                   std::initializer_list<std::pair<const char*, const char*>> which) {
  Chart chart{title, "milliseconds", "% of samples at or below", {}, false, false, 0, ""};
  for (const auto& [key, name] : which) {
    ChartSeries series{name, {}, false};
    const std::vector<double> quantiles = numbers(at(point, {"latency_ms", key, "quantiles_by_half_percent"}));
    for (size_t i = 0; i < quantiles.size(); ++i) series.points.emplace_back(quantiles[i], static_cast<double>(i) / 2);
    if (!series.points.empty()) chart.series.push_back(std::move(series));
  }
  return chart;
}

Chart timeline(const Json& point, const char* title, const char* unit,
               std::initializer_list<std::pair<const char*, const char*>> which) {
  Chart chart{title, "seconds", unit, {}, false, true, 0, ""};
  const double bin_s =
      at(point, {"timeline", "bin_s"}).is_number() ? at(point, {"timeline", "bin_s"}).get<double>() : 1;
  for (const auto& [key, name] : which) {
    ChartSeries series{name, {}, false};
    const std::vector<double> values = numbers(at(point, {"timeline", key}));
    for (size_t i = 0; i < values.size(); ++i) series.points.emplace_back(static_cast<double>(i) * bin_s, values[i]);
    // The last value lasts as long as the others.
    if (!values.empty()) series.points.emplace_back(static_cast<double>(values.size()) * bin_s, values.back());
    chart.series.push_back(std::move(series));
  }
  return chart;
}

Chart sampled(const Json& series_json, const char* title, const char* unit,
              std::initializer_list<std::pair<const char*, const char*>> which) {
  Chart chart{title, "seconds", unit, {}, false, false, 0, ""};
  const std::vector<double> times = numbers(at(series_json, {"time_s"}));
  for (const auto& [key, name] : which) {
    ChartSeries series{name, {}, false};
    const std::vector<double> values = numbers(at(series_json, {key}));
    bool any = false;
    for (size_t i = 0; i < std::min(times.size(), values.size()); ++i) {
      series.points.emplace_back(std::max(0.0, times[i]), values[i]);
      any = any || std::isfinite(values[i]);
    }
    if (any) chart.series.push_back(std::move(series));
  }
  return chart;
}

std::string point_charts(const Json& point) {
  std::string out = "<div class=\"charts\">\n";
  out += chart_html(distribution(point, "First token", {{"ttft", "TTFT"}}));
  out += chart_html(distribution(point, "Between tokens", {{"tpot", "TPOT, per request"}, {"itl", "ITL, pooled"}}));
  out += chart_html(distribution(point, "Whole answer", {{"e2e", "E2E"}}));
  ChartSeries dots{"TTFT", {}, true};
  const std::vector<double> sent = numbers(at(point, {"requests", "sent_s"})),
                            ttft = numbers(at(point, {"requests", "ttft_ms"}));
  for (size_t i = 0; i < std::min(sent.size(), ttft.size()); ++i) dots.points.emplace_back(sent[i], ttft[i]);
  out += chart_html({"First token of each request", "sent at (s)", "TTFT (ms)", {dots}, false, false, 0, ""});
  out += chart_html(timeline(point, "Requests", "requests/s", {{"sent_rps", "sent"}, {"finished_rps", "finished"}}));
  out += chart_html(
      timeline(point, "In flight", "requests",
               {{"requests_in_flight", "in flight"}, {"waiting_for_first_token", "waiting for the first token"}}));
  out += chart_html(timeline(point, "Output", "tokens/s", {{"output_tokens_per_s", "output tokens/s"}}));
  out += chart_html(sampled(at(point, {"server"}), "What the server says", "requests",
                            {{"running", "running"}, {"waiting", "waiting"}}));
  out += chart_html(sampled(at(point, {"server"}), "KV cache in use", "share of 1", {{"kv_usage", "KV cache"}}));
  out += chart_html(sampled(at(point, {"gpu_series"}), "GPU", "% busy", {{"utilization_pct", "utilisation"}}));
  out += chart_html(sampled(at(point, {"gpu_series"}), "Power", "W", {{"power_w", "power"}}));
  return out + "</div>\n";
}

std::string warnings_html(const Json& warnings) {
  std::string out;
  if (!warnings.is_array()) return out;
  for (const Json& warning : warnings) {
    const std::string text = text_of(warning);
    out += "<p class=\"note" + std::string(text.starts_with("INVALID") ? " bad" : "") + "\">" + html_escaped(text) +
           "</p>\n";
  }
  return out;
}

std::string point_html(const Json& point) {
  const Json& rates = at(point, {"rates"});
  std::string out = "<div class=\"tiles\">\n";
  out += tile(number_of(at(rates, {"output_tokens_per_s"})), "output tokens/s");
  out += tile(number_of(at(rates, {"request_rps"})), "requests/s");
  out += tile(number_of(at(point, {"latency_ms", "ttft", "p50"}), " ms",
                        number_of(at(point, {"latency_ms", "ttft", "mean"}), " ms")),
              at(point, {"latency_ms", "ttft", "p50"}).is_number() ? "TTFT, median" : "TTFT, mean");
  out += tile(number_of(at(point, {"latency_ms", "tpot", "p50"}), " ms",
                        number_of(at(point, {"latency_ms", "tpot", "mean"}), " ms")),
              at(point, {"latency_ms", "tpot", "p50"}).is_number() ? "TPOT, median" : "TPOT, mean");
  if (at(rates, {"goodput_rps"}).is_number()) out += tile(number_of(at(rates, {"goodput_rps"})), "goodput, requests/s");
  out += tile(number_of(at(point, {"counts", "finished"})) + " / " + number_of(at(point, {"counts", "planned"})),
              "requests finished");
  if (at(point, {"slo_met"}).is_boolean()) {
    const bool met = at(point, {"slo_met"}).get<bool>();
    out += tile(met ? "<span class=\"good\">met</span>" : "<span class=\"bad\">missed</span>", "SLO");
  }
  out += "</div>\n" + warnings_html(at(point, {"validity", "warnings"}));
  const Json& errors = at(point, {"errors"});
  if (errors.is_object()) {
    for (const auto& [name, error] : errors.items()) {
      out += "<p class=\"note bad\">" + html_escaped(name) + ": " + number_of(at(error, {"count"})) +
             " requests, such as: " + html_escaped(text_of(at(error, {"example"}))) + "</p>\n";
    }
  }
  out += latency_table(point) + point_charts(point);
  out += "<p class=\"sub\">Window " + number_of(at(point, {"window", "duration_s"})) + " s; tokens per request " +
         number_of(at(point, {"tokens", "prompt_lengths", "mean"})) + " in, " +
         number_of(at(point, {"tokens", "output_lengths", "mean"})) + " out (counted by " +
         html_escaped(text_of(at(point, {"tokens", "counted_by"}))) + "); client " +
         number_of(at(point, {"client", "self_time_pct"})) + "% of one core, " +
         number_of(at(point, {"client", "us_per_event"})) + " µs per event; send lag p99 " +
         number_of(at(point, {"validity", "send_lag_p99_ms"}), " ms", "does not apply") + "</p>\n";
  return out;
}

// Latency and throughput against the rate, over the points of a sweep or search.
std::string sweep_html(const Json& result) {
  const Json& points = at(result, {"points"});
  const auto against_rate = [&](const char* title, const char* unit,
                                std::initializer_list<std::array<const char*, 3>> which) {
    Chart chart{title, "requests/s achieved", unit, {}, false, false, 0, ""};
    for (const auto& [key, statistic, name] : which) {
      ChartSeries series{name, {}, false};
      for (const Json& point : points) {
        const Json& rate = at(point, {"rates", "request_rps"});
        const Json& value =
            std::string(key) == "rates" ? at(point, {"rates", statistic}) : at(point, {"latency_ms", key, statistic});
        if (rate.is_number() && value.is_number()) series.points.emplace_back(rate.get<double>(), value.get<double>());
      }
      std::sort(series.points.begin(), series.points.end());
      if (!series.points.empty()) chart.series.push_back(std::move(series));
    }
    return chart_html(chart);
  };
  std::string out = "<h2>Against the rate</h2>\n<div class=\"charts\">\n";
  out += against_rate("First token", "TTFT (ms)",
                      {{"ttft", "p50", "p50"}, {"ttft", "p95", "p95"}, {"ttft", "mean", "mean"}});
  out += against_rate("Between tokens", "TPOT (ms)",
                      {{"tpot", "p50", "p50"}, {"tpot", "p95", "p95"}, {"tpot", "mean", "mean"}});
  out +=
      against_rate("Whole answer", "E2E (ms)", {{"e2e", "p50", "p50"}, {"e2e", "p95", "p95"}, {"e2e", "mean", "mean"}});
  out += against_rate("Output", "tokens/s", {{"rates", "output_tokens_per_s", "output tokens/s"}});
  out +=
      "</div>\n<div class=\"scroll\"><table><tr><th>load</th><th>req/s</th><th>out tok/s</th><th>TTFT "
      "mean</th><th>TTFT p95</th>"
      "<th>TPOT mean</th><th>TPOT p95</th><th>E2E mean</th><th>SLO</th></tr>\n";
  for (const Json& point : points) {
    const Json& met = at(point, {"slo_met"});
    out += "<tr><td>" + html_escaped(text_of(at(point, {"label"}))) + "</td>";
    out += "<td>" + number_of(at(point, {"rates", "request_rps"})) + "</td><td>" +
           number_of(at(point, {"rates", "output_tokens_per_s"})) + "</td>";
    for (const auto& [key, statistic] : {std::pair<const char*, const char*>{"ttft", "mean"},
                                         {"ttft", "p95"},
                                         {"tpot", "mean"},
                                         {"tpot", "p95"},
                                         {"e2e", "mean"}}) {
      out += "<td>" + number_of(at(point, {"latency_ms", key, statistic}), "", "n too small") + "</td>";
    }
    out += std::string("<td>") +
           (!met.is_boolean() ? at(result, {"slo"}).empty() ? "–" : "n too small"
            : met.get<bool>() ? "<span class=\"good\">met</span>"
                              : "<span class=\"bad\">missed</span>") +
           "</td></tr>\n";
  }
  return out + "</table></div>\n";
}

}  // namespace

std::string html_report(const nlohmann::ordered_json& result) {
  const std::string model = text_of(at(result, {"target", "model"}), "?");
  const Json& points = at(result, {"points"});
  std::string out;
  const std::string engine = text_of(at(result, {"target", "engine"}));
  const std::string version = text_of(at(result, {"target", "engine_version"}));
  out += "<h1>" + html_escaped(model) + "</h1>\n<p class=\"sub\">" +
         html_escaped((engine.empty() ? "" : engine + (version.empty() ? "" : " " + version) + " at ") +
                      text_of(at(result, {"target", "url"})) + text_of(at(result, {"target", "endpoint"})) + " · " +
                      text_of(at(result, {"prompts"})));
  if (points.is_array() && !points.empty()) out += " · " + html_escaped(text_of(at(points[0], {"timestamp"})));
  out += "</p>\n";
  if (at(result, {"interrupted"}) == true)
    out += "<p class=\"note\">Interrupted: this is what was measured until then.</p>\n";
  if (const std::string failed = text_of(at(result, {"failed"})); !failed.empty()) {
    out += "<p class=\"note bad\">Ended early: " + html_escaped(failed) + "</p>\n";
  }
  out += warnings_html(at(result, {"warnings"}));
  if (const Json& rate = at(result, {"max_rate"}); rate.is_object()) {
    std::string goals;
    for (const Json& goal : at(result, {"slo"})) goals += (goals.empty() ? "" : ", ") + text_of(goal);
    out += "<div class=\"tiles\">" +
           tile(number_of(at(rate, {"kept_rps"}), "", "none"), "highest requests/s that keep " + html_escaped(goals)) +
           tile(number_of(at(rate, {"missed_rps"})), "requests/s: the lowest that does not") + "</div>\n";
  }
  if (points.is_array() && points.size() == 1) {
    out += "<h2>" + html_escaped(text_of(at(points[0], {"label"}))) + "</h2>\n" + point_html(points[0]);
  } else if (points.is_array()) {
    out += sweep_html(result);
    for (const Json& point : points) {
      out += "<details><summary>" + html_escaped(text_of(at(point, {"label"}))) + "</summary>\n" + point_html(point) +
             "</details>\n";
    }
  }
  out += "<h2>What the numbers mean</h2>\n<details><summary>Formulas</summary><dl>\n";
  if (const Json& formulas = at(result, {"formulas"}); formulas.is_object()) {
    for (const auto& [name, formula] : formulas.items()) {
      out += "<dt>" + html_escaped(name) + "</dt><dd>" + html_escaped(text_of(formula)) + "</dd>\n";
    }
  }
  out += "</dl></details>\n<footer>" + html_escaped(text_of(at(result, {"tool"}))) + "</footer>\n";
  return html_page(model + " – sextant bench", out);
}

}  // namespace sextant::bench
