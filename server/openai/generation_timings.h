// GenerationTimings: the samples that one engine request (one prompt, n choices) owes the metrics: each
// exactly once, by vLLM's definitions. On its generation's strand. Engine and server intervals are never
// mixed.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/engine.h"

namespace sextant {
class ServerMetrics;
}

namespace sextant::openai {

class GenerationTimings {
 public:
  // From the engine's acceptance on. `metrics` may be null.
  GenerationTimings(ServerMetrics* metrics, int64_t arrival_ns, int32_t num_prompt_tokens, int32_t num_choices,
                    std::optional<int64_t> max_tokens, std::string tenant = {});

  // An event with `num_tokens` tokens that count (of the event's, the rest lies behind a stop string).
  void on_event(const OutputEvent& event, int32_t num_tokens, int64_t now_ns);
  void on_choice_finished(int32_t choice_idx, FinishReason reason, int64_t now_ns);
  // The client is gone or the engine failed: what has not finished finishes with `reason`.
  void on_ended(FinishReason reason, int64_t now_ns);

  // Of all choices so far, on the engine's clock; 0: has not happened.
  struct Phases {
    int64_t queued_ns = 0, first_scheduled_ns = 0, first_token_ns = 0;  // the first choice's to come there
    int64_t last_token_ns = 0;                                          // the last one's
  };
  Phases phases() const;

 private:
  struct Choice {
    std::optional<FinishReason> finish_reason;
    int32_t num_tokens = 0;
    int32_t num_preemptions = 0;
    int64_t queued_ns = 0;  // zero: has not happened
    int64_t first_scheduled_ns = 0;
    int64_t first_token_ns = 0;
    int64_t last_token_ns = 0;
  };
  void report(int64_t now_ns);

  ServerMetrics* metrics_;
  int64_t arrival_ns_;
  int32_t num_prompt_tokens_;
  int32_t num_cached_tokens_ = 0;
  std::optional<int64_t> max_tokens_;
  std::string tenant_;
  std::vector<Choice> choices_;
  size_t num_finished_ = 0;
};

}  // namespace sextant::openai
