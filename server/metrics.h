// ServerMetrics: what /metrics shows: vLLM's names and definitions, the llm_* names, http_* and process_*.
// Every family is registered at start; observing one is a lock-free or briefly locked add, without look-ups.
// Any thread. Must not know HTTP sessions or JSON. Intervals never mix clocks: engine intervals come from the
// engine's clock, front-end ones (TTFT, e2e) from the server's.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/base/clock.h"
#include "engine/core/request.h"
#include "engine/engine.h"
#include "server/http/listener.h"
#include "server/metrics_gateway.h"

namespace sextant {

// One choice of a request, when it ended.
struct ChoiceTimings {
  FinishReason finish_reason = FinishReason::kStop;
  int32_t num_generated_tokens = 0;
  int32_t num_preemptions = 0;
  // Engine clock. Unset when the interval did not end (aborted in the queue, say): no sample is better than a
  // wrong one.
  std::optional<double> queue_s;    // queued -> first scheduled; waiting again after a preemption is not counted
  std::optional<double> prefill_s;  // first scheduled -> first token
  std::optional<double>
      decode_s;  // first -> last token. TPOT = decode_s / (num_generated_tokens - 1), from 2 tokens on
};

// One API request that the engine accepted, when its last choice ended.
struct RequestTimings {
  int32_t num_prompt_tokens = 0;
  int32_t num_cached_tokens = 0;       // of the prompt, found in the prefix cache
  std::optional<int32_t> max_tokens;   // as the client asked
  double e2e_s = 0;                    // arrival (before tokenization) -> last token at the server
  std::vector<ChoiceTimings> choices;  // n of them
  std::string tenant;                  // empty: nobody in particular
};

// Of the response cache, since start; bytes and answers are of now.
struct ResponseCacheReading {
  uint64_t hits = 0;
  uint64_t misses = 0;
  uint64_t evictions = 0;
  size_t num_bytes = 0;
};

// A family as the registry has it.
struct ExportedFamily {
  std::string name, type;  // counter, gauge, histogram
  std::vector<std::string> labels;
};

class ServerMetrics {
 public:
  // Every family that /metrics may show, those included whose series come only with GPUs, groups or requests.
  static std::vector<ExportedFamily> exported();
  // `model_name` is the label of every family; clock must outlive this.
  explicit ServerMetrics(std::string model_name, const Clock& clock = SteadyClock::instance());
  ~ServerMetrics();
  ServerMetrics(const ServerMetrics&) = delete;
  ServerMetrics& operator=(const ServerMetrics&) = delete;

  // By server/openai.
  void on_request_accepted();                       // the engine took it
  void on_request_rejected();                       // 4xx/5xx before the engine took it (status "rejected")
  void on_first_token(double ttft_s);               // once per choice: arrival -> first token at the server
  void on_token_interval(double interval_s);        // ITL: once per step and choice after its first (engine clock)
  void on_finished(const RequestTimings& timings);  // exactly once per accepted request

  // By the engine.
  void on_step(const StepInfo& step);
  void set_engine_stats(const EngineStats& stats);  // totals since start: they only grow
  // render() asks this first, so that a scrape shows the present. May be empty.
  void set_engine_stats_source(std::function<EngineStats()> source);
  // Likewise; gauges of GPUs are there as far as they are read. Called without a lock held; may be empty.
  void set_device_readings_source(std::function<std::vector<DeviceReading>()> source);
  // Likewise, of the ranks of a group.
  void set_rank_readings_source(std::function<std::vector<RankReading>()> source);
  void set_engine_info(const EngineInfo& info,
                       const EngineConfig& config);  // once, after loading: cache_config_info

  // Series that come with what is configured: each at most once, before the first render().
  void set_price(double usd_per_hour);  // llm_cost_*
  void set_response_cache_source(std::function<ResponseCacheReading()> source);
  // Asked here too, for which series there are; from then on it has as many or more.
  void set_gateway_source(std::function<GatewayReading()> source);
  void set_connections_source(std::function<size_t()> source);
  void on_startup_phase(const std::string& phase, double seconds);  // once per phase

  // By the HTTP server (HttpServer::Options::on_request).
  void on_http_request(const http::RequestRecord& record);

  // The Prometheus text format, version 0.0.4.
  std::string render();
  static const char* content_type();

 private:
  struct Families;
  std::unique_ptr<Families> families_;
};

}  // namespace sextant
