#include "bench/report/matrix_report.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "bench/report/html_page.h"
#include "bench/report/svg_chart.h"
#include "bench/report/text_report.h"

namespace sextant::bench {
namespace {

// The median where there were requests enough for one, else the mean.
std::optional<double> typical(const std::optional<MetricSummary>& metric) {
  if (!metric) return std::nullopt;
  return metric->p50 ? metric->p50 : metric->mean;
}

std::string cell(const std::optional<double>& value, const char* otherwise = "–") {
  return "<td>" + (value && std::isfinite(*value) ? short_number(*value) : std::string(otherwise)) + "</td>";
}

std::vector<std::string> distinct(const std::vector<MatrixRow>& rows, std::string MatrixRow::*field) {
  std::vector<std::string> all;
  for (const MatrixRow& row : rows) {
    if (std::find(all.begin(), all.end(), row.*field) == all.end()) all.push_back(row.*field);
  }
  return all;
}

using Axis = std::optional<double> (*)(const MatrixRow&);

std::optional<double> concurrency_of(const MatrixRow& row) {
  if (!row.concurrency) return std::nullopt;
  return static_cast<double>(*row.concurrency);
}
std::optional<double> rate_of(const MatrixRow& row) {
  if (row.concurrency) return std::nullopt;
  return row.request_rate;
}
std::optional<double> output_rate_of(const MatrixRow& row) { return row.record->metrics.output_tokens_per_s; }
std::optional<double> ttft_of(const MatrixRow& row) { return typical(row.record->metrics.ttft_ms); }
std::optional<double> tpot_of(const MatrixRow& row) { return typical(row.record->metrics.tpot_ms); }
std::optional<double> user_rate_of(const MatrixRow& row) {
  if (!row.concurrency) return std::nullopt;
  const std::optional<double> tpot = tpot_of(row);
  if (!tpot || *tpot <= 0) return std::nullopt;
  return 1000 / *tpot;
}

std::string chart_of(const std::vector<MatrixRow>& rows, const std::string& lengths,
                     const std::vector<std::string>& settings, Chart chart, Axis x, Axis y) {
  for (const std::string& setting : settings) {
    ChartSeries series{setting.empty() ? chart.y_label : setting, {}, false};
    for (const MatrixRow& row : rows) {
      if (!row.record || row.lengths != lengths || row.settings != setting) continue;
      const std::optional<double> at = x(row), value = y(row);
      if (at && value) series.points.emplace_back(*at, *value);
    }
    std::sort(series.points.begin(), series.points.end());
    if (!series.points.empty()) chart.series.push_back(std::move(series));
  }
  return chart_html(chart);
}

std::string charts_of(const std::vector<MatrixRow>& rows, const std::string& lengths,
                      const std::vector<std::string>& settings) {
  std::string out = "<h2>" + html_escaped(lengths) + "</h2>\n<div class=\"charts\">\n";
  const auto against = [&](const std::string& load, bool log_x, Axis x) {
    out += chart_of(rows, lengths, settings, {"Output", load, "output tokens/s", {}, log_x, false, 0, ""}, x,
                    output_rate_of);
    out += chart_of(rows, lengths, settings, {"First token", load, "TTFT (ms)", {}, log_x, false, 0, ""}, x, ttft_of);
    out +=
        chart_of(rows, lengths, settings, {"Between tokens", load, "TPOT (ms)", {}, log_x, false, 0, ""}, x, tpot_of);
  };
  const auto has = [&](Axis x) {
    return std::any_of(rows.begin(), rows.end(),
                       [&](const MatrixRow& row) { return row.record && row.lengths == lengths && x(row); });
  };
  if (has(concurrency_of)) against("requests at once", true, concurrency_of);
  if (has(concurrency_of)) {
    out += chart_of(rows, lengths, settings,
                    {"What one user gets, and all together",
                     "tokens/s for each user (1000 / TPOT)",
                     "output tokens/s",
                     {},
                     false,
                     false,
                     0,
                     ""},
                    user_rate_of, output_rate_of);
  }
  if (has(rate_of)) against("requests/s asked for", false, rate_of);
  return out + "</div>\n";
}

std::string table_of(const std::vector<MatrixRow>& rows, bool with_settings) {
  std::string out = "<h2>All figures</h2>\n<div class=\"scroll\"><table><tr>";
  out += with_settings ? "<th>server</th><th>lengths</th>" : "<th>lengths</th>";
  out +=
      "<th>load</th><th>requests</th><th>req/s</th><th>out tok/s</th><th>TTFT mean</th><th>TTFT p50</th><th>TTFT "
      "p95</th>"
      "<th>TPOT mean</th><th>TPOT p50</th><th>TPOT p95</th><th>E2E mean</th><th>failed</th></tr>\n";
  for (const MatrixRow& row : rows) {
    out += "<tr>";
    if (with_settings) out += "<td>" + html_escaped(row.settings) + "</td>";
    out +=
        "<td>" + html_escaped(row.lengths) + "</td><td>" +
        (row.concurrency ? std::to_string(*row.concurrency) + " at once" : short_number(row.request_rate) + " req/s") +
        "</td>";
    if (!row.record) {
      out += "<td colspan=\"11\">not measured</td></tr>\n";
      continue;
    }
    const RecordMetrics& m = row.record->metrics;
    out += "<td>" + std::to_string(row.record->test_conditions.num_requests) + "</td>" + cell(m.request_rps) +
           cell(m.output_tokens_per_s);
    for (const auto& metric : {m.ttft_ms, m.tpot_ms}) {
      out += cell(metric ? std::optional(metric->mean) : std::nullopt);
      out += cell(metric ? metric->p50 : std::nullopt, "n too small");
      out += cell(metric ? metric->p95 : std::nullopt, "n too small");
    }
    out += cell(m.e2e_ms ? std::optional(m.e2e_ms->mean) : std::nullopt);
    out += "<td>" + (m.error_rate ? short_number(*m.error_rate * 100) + "%" : std::string("–")) + "</td></tr>\n";
  }
  return out +
         "</table></div>\n<p class=\"sub\">Latencies in milliseconds. TTFT: from the send to the first token. TPOT: "
         "(E2E - TTFT) "
         "/ (n - 1), one sample per request. Lines show the median, or the mean where there were too few requests for "
         "one.</p>\n";
}

}  // namespace

std::string html_matrix_report(const std::vector<MatrixRow>& rows) {
  std::set<std::string> models, engines, gpus, warnings;
  std::string first, last;
  size_t num_measured = 0;
  for (const MatrixRow& row : rows) {
    if (!row.record) continue;
    const BenchmarkRecord& record = *row.record;
    ++num_measured;
    models.insert(record.model_id);
    engines.insert(record.engine + (record.engine_version ? " " + *record.engine_version : ""));
    if (record.gpu_type) gpus.insert(std::to_string(record.num_gpus) + " x " + *record.gpu_type);
    if (first.empty() || record.timestamp < first) first = record.timestamp;
    last = std::max(last, record.timestamp);
    const std::string where =
        (row.settings.empty() ? "" : row.settings + ", ") + row.lengths + ", " +
        (row.concurrency ? std::to_string(*row.concurrency) + " at once" : short_number(row.request_rate) + " req/s");
    for (const std::string& warning : record.validity.warnings) warnings.insert(where + ": " + warning);
  }
  const auto listed = [](const std::set<std::string>& names) {
    std::string text;
    for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
    return text;
  };
  const std::string title = models.empty() ? "Nothing measured yet" : listed(models);
  std::string body = "<h1>" + html_escaped(title) + "</h1>\n<p class=\"sub\">" + html_escaped(listed(engines)) +
                     (gpus.empty() ? "" : " on " + html_escaped(listed(gpus))) + " · " + std::to_string(num_measured) +
                     " of " + std::to_string(rows.size()) + " measured" +
                     (first.empty() ? "" : " · " + html_escaped(first) + " to " + html_escaped(last)) + "</p>\n";
  const MatrixRow* best = nullptr;
  for (const MatrixRow& row : rows) {
    if (row.record && row.record->metrics.output_tokens_per_s &&
        (!best || *row.record->metrics.output_tokens_per_s > *best->record->metrics.output_tokens_per_s)) {
      best = &row;
    }
  }
  if (best != nullptr) {
    body += "<div class=\"tiles\">" +
            tile(short_number(*best->record->metrics.output_tokens_per_s),
                 "output tokens/s at most: " + html_escaped(best->lengths) + ", " +
                     (best->concurrency ? std::to_string(*best->concurrency) + " at once"
                                        : short_number(best->request_rate) + " req/s") +
                     (best->settings.empty() ? "" : ", " + html_escaped(best->settings))) +
            "</div>\n";
  }
  for (const std::string& warning : warnings) body += "<p class=\"note\">" + html_escaped(warning) + "</p>\n";
  const std::vector<std::string> settings = distinct(rows, &MatrixRow::settings);
  for (const std::string& lengths : distinct(rows, &MatrixRow::lengths)) {
    if (std::any_of(rows.begin(), rows.end(),
                    [&](const MatrixRow& row) { return row.record && row.lengths == lengths; })) {
      body += charts_of(rows, lengths, settings);
    }
  }
  body += table_of(rows, settings.size() > 1 || (!settings.empty() && !settings.front().empty()));
  return html_page(title + " – sextant bench matrix", body);
}

}  // namespace sextant::bench
