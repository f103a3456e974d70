// What is asked of Prometheus, each question once: alerts, dashboards, autoscalers and the adapter use these texts. Metric names
// are the ones that the runtime exports; `sextant deploy validate` holds them to the server's own list. Pure.
#pragma once

#include <string>

#include "deploy/target.h"

namespace sextant::deploy {

class Queries {
 public:
  explicit Queries(const Target& target) : target_(target) {}

  // namespace="...",job="...": what a ServiceMonitor's series carry; `more` as `,x="y"`.
  std::string of(const std::string& metric, const std::string& more = "") const;
  std::string rate(const std::string& metric, const std::string& window, const std::string& more = "") const;
  // histogram_quantile(q, sum by (le) (rate(metric_bucket[window])))
  std::string quantile(double q, const std::string& histogram, const std::string& window = "5m") const;
  // A rule's own series.
  std::string recorded(const std::string& name) const;

  std::string queue_depth_metric() const { return target_.ours() ? "llm_queue_depth" : "vllm:num_requests_waiting"; }
  // 0 to 1 per GPU; vLLM does not say it: NVIDIA's exporter does, in percent.
  std::string gpu_utilization() const;
  std::string gpu_metric() const { return target_.ours() ? "sextant_gpu_utilization_ratio" : "DCGM_FI_DEV_GPU_UTIL"; }
  // Share of the API's requests that the server failed.
  std::string error_ratio(const std::string& window) const;
  std::string histogram_of(const std::string& what) const;  // ttft, tpot, e2e
  // Of pods of one workload only.
  std::string pods_of(const std::string& workload) const { return ",pod=~\"" + workload + "-[^-]+-[^-]+\""; }

 private:
  const Target& target_;
};

std::string figure_text(double value);  // for people: "6", "0.1"
std::string duration_text(double ms);   // for people: "600 ms", "12 s"
std::string number_text(double value);  // as PromQL reads it: shortest that reads back

}  // namespace sextant::deploy
