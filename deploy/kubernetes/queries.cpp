#include "deploy/kubernetes/queries.h"

#include <array>
#include <cstdio>

namespace sextant::deploy {

std::string number_text(double value) { return nlohmann::json(value).dump(); }

std::string figure_text(double value) {
  std::array<char, 64> text{};
  std::snprintf(text.data(), text.size(), "%.6g", value);
  return text.data();
}

std::string duration_text(double ms) { return ms >= 1000 ? figure_text(ms / 1000) + " s" : figure_text(ms) + " ms"; }

std::string Queries::of(const std::string& metric, const std::string& more) const {
  return metric + "{namespace=\"" + target_.ns() + "\",job=\"" + target_.name() + "\"" + more + "}";
}

std::string Queries::rate(const std::string& metric, const std::string& window, const std::string& more) const {
  return "rate(" + of(metric, more) + "[" + window + "])";
}

std::string Queries::quantile(double q, const std::string& histogram, const std::string& window) const {
  return "histogram_quantile(" + number_text(q) + ", sum by (le) (" + rate(histogram + "_bucket", window) + "))";
}

std::string Queries::recorded(const std::string& name) const {
  return name + "{namespace=\"" + target_.ns() + "\",service=\"" + target_.name() + "\"}";
}

std::string Queries::gpu_utilization() const {
  if (target_.ours()) return of(gpu_metric());
  return gpu_metric() + "{namespace=\"" + target_.ns() + "\",pod=~\"" + target_.name() + "-.+\"} / 100";
}

std::string Queries::error_ratio(const std::string& window) const {
  const std::string api = ",handler=~\"/v1/.+\"";
  return "(sum(" + rate("http_requests_total", window, api + ",status=\"5xx\"") + ") or vector(0)) / sum(" +
         rate("http_requests_total", window, api) + ")";
}

std::string Queries::histogram_of(const std::string& what) const {
  return what == "ttft"   ? "vllm:time_to_first_token_seconds"
         : what == "tpot" ? "vllm:request_time_per_output_token_seconds"
                          : "vllm:e2e_request_latency_seconds";
}

}  // namespace sextant::deploy
