// Generation: the running of one HTTP request between client and engine: submits one engine request per
// prompt, turns events into text, answers exactly once, aborts when the client goes, pauses when it does not
// read. All state lives on the exchange's executor; nothing here locks or blocks. Must not know JSON or
// sockets.
#pragma once

#include <atomic>
#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "engine/engine.h"
#include "engine/text/tokenizer.h"
#include "server/gateway/token_budget.h"
#include "server/http/exchange.h"
#include "server/openai/choice_text.h"
#include "server/openai/engine_sink.h"
#include "server/openai/generation_spec.h"
#include "server/openai/generation_timings.h"
#include "server/openai/renderer.h"
#include "server/openai/response_cache.h"
#include "server/openai/seed_source.h"

namespace sextant {
class ServerMetrics;
}

namespace sextant::openai {

// What generations share; outlives them.
struct GenerationServices {
  Engine& engine;
  const Tokenizer& tokenizer;
  ServerMetrics* metrics = nullptr;  // may be null
  SeedSource& seeds;
  std::string system_fingerprint;
  size_t pause_above_buffered_bytes = 0;
  int64_t sse_heartbeat_s = 0;     // 0: none
  ResponseCache* cache = nullptr;  // null: none
  TokenBudget* budget = nullptr;   // may be null: nothing is reserved or counted
  bool note_prompts = false;
};

class Generation final : public EventReceiver, public std::enable_shared_from_this<Generation> {
 public:
  // On the exchange's executor, when the request arrived; watches the client from here on.
  static std::shared_ptr<Generation> create(std::shared_ptr<http::Exchange> exchange, GenerationServices& services,
                                            std::shared_ptr<EngineSink> sink);
  Generation(std::shared_ptr<http::Exchange> exchange, GenerationServices& services, std::shared_ptr<EngineSink> sink);

  // Runs what the text pool made of the body, or answers its error. Once, on the executor.
  void run(Result<GenerationSpec> spec);
  // Any thread: the client is gone, preparing can be left out.
  bool is_abandoned() const { return is_abandoned_.load(std::memory_order_relaxed); }

  boost::asio::any_io_executor executor() const override { return executor_; }
  void on_submitted(Result<std::vector<RequestId>> ids) override;
  void on_events(std::vector<OutputEvent> events) override;

 private:
  struct Choice {
    ChoiceText text;
    ChoiceUpdate whole;  // what came so far; only the tokens' count matters when streaming
    bool is_done = false;
  };

  void watch_client();
  void on_disconnect();
  void on_drained();
  void on_cancel();
  void cancel_now();
  bool answer_from_cache();  // true: it was there
  void keep_for_others();
  void schedule_heartbeat();
  void on_heartbeat();

  std::vector<Request> make_requests();
  void on_event(OutputEvent event, std::string* out);
  void on_first_event_of_prompt(size_t prompt_idx, OutputEvent* event);
  void apply(size_t prompt_idx, OutputEvent event, std::string* out);
  void begin_stream(std::string* out);
  Usage usage_of(size_t choice_idx) const;
  Usage total_usage() const;

  void send(std::string bytes);                               // streaming
  void complete(std::string* out);                            // every choice is done
  void fail(const Status& status, double retry_after_s = 0);  // an answer, or the stream's last event
  bool check_model();                                         // false: it was refused, and answered
  void reserve();                                             // then start()
  void on_granted(TokenBudget::Grant grant, int64_t asked_max_tokens);
  void start();
  void settle();
  void note_request();
  void note_usage();
  http::EnginePhases phases() const;
  void set_paused(bool paused);
  void close();

  std::shared_ptr<http::Exchange> exchange_;  // null once the request is answered or its client gone
  const boost::asio::any_io_executor executor_;
  GenerationServices& services_;
  const std::shared_ptr<EngineSink> sink_;
  const int64_t arrival_ns_;
  std::atomic<bool> is_abandoned_{false};

  std::optional<GenerationSpec> spec_;
  std::vector<RequestId> ids_;  // by prompt
  std::unordered_map<RequestId, size_t> prompt_by_id_;
  std::vector<PromptOutput> prompt_outputs_;
  std::vector<bool> has_prompt_output_;              // by prompt
  std::vector<std::vector<OutputEvent>> held_back_;  // by prompt: events that wait for its prompt logprobs
  std::vector<Choice> choices_;
  size_t num_done_ = 0;
  std::vector<GenerationTimings> timings_;  // by prompt
  std::unique_ptr<Renderer> renderer_;
  std::shared_ptr<const Identity> identity_;  // who asks; may be null
  std::optional<TokenBudget::Grant> grant_;   // until it is settled
  bool has_begun_ = false;                    // streaming: the header is sent
  bool is_paused_ = false;
  bool is_cancelled_ = false;
  bool is_noted_ = false;
  std::string tenant_;
  std::string cache_key_;  // empty: the answer is not kept
  std::optional<boost::asio::steady_timer> heartbeat_;
  int64_t last_sent_ns_ = 0;
};

}  // namespace sextant::openai
