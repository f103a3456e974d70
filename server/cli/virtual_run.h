// `sextant simulate --virtual-time`: a workload through the scheduler in discrete events; what comes of it as text, JSON or a
// benchmark record (source "simulated"). Nothing is served and nothing waits.
#pragma once

#include <string>

#include "server/cli/simulated_machine.h"

namespace sextant::cli {

struct VirtualSettings {
  bool virtual_time = false;
  int64_t num_requests = 1000;
  double request_rate = 0;   // per second; 0: concurrency
  double burstiness = 1;     // shape of the gamma distribution of gaps, as bench serve's
  int64_t concurrency = 16;  // with request_rate 0
  int64_t prompt_tokens = 512;
  int64_t output_tokens = 128;
  double prompt_tokens_cv = 0;  // standard deviation over mean, log-normal; 0: all alike
  double output_tokens_cv = 0;
  bool json = false;
  std::string record;
};

template <typename Config, typename Visitor>
void visit_virtual_settings(Config& config, Visitor&& visitor) {
  visitor("virtual_time", config.virtual_time, "serve nothing: run a workload through the scheduler without waiting");
  visitor("num_requests", config.num_requests, "of the workload (--virtual-time)");
  visitor("request_rate", config.request_rate, "requests per second (--virtual-time; default: --concurrency)");
  visitor("burstiness", config.burstiness, "1: Poisson; below 1: bursts, gamma gaps of this shape (--virtual-time)");
  visitor("concurrency", config.concurrency, "clients that send one request after another (--virtual-time)");
  visitor("prompt_tokens", config.prompt_tokens, "of each request, on average (--virtual-time)");
  visitor("output_tokens", config.output_tokens, "of each request, on average (--virtual-time)");
  visitor("prompt_tokens_cv", config.prompt_tokens_cv,
          "deviation over mean, log-normal; 0: all alike (--virtual-time)");
  visitor("output_tokens_cv", config.output_tokens_cv,
          "deviation over mean, log-normal; 0: all alike (--virtual-time)");
  visitor("json", config.json, "results as one JSON object (--virtual-time)");
  visitor("record", config.record, "append a benchmark record to this file (--virtual-time)");
}

// The process's exit code.
int run_virtual_time(const VirtualSettings& settings, const SimulateSettings& simulate, const SimulatedMachine& machine,
                     const ServeOptions& options);

}  // namespace sextant::cli
