// Api: the OpenAI endpoints, and the only thing of this folder that main.cpp sees. Registers its routes on a
// router; each request then runs parse -> text pool -> engine -> render on its exchange's executor. Threads:
// construct and register before the I/O threads start; destroy after they have been joined. Must not know
// Beast, sockets, flags or the scheduler.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "engine/text/chat_template.h"
#include "engine/text/tokenizer.h"
#include "server/gateway/token_budget.h"
#include "server/http/router.h"

namespace sextant {

class ServerMetrics;

namespace openai {

struct ApiOptions {
  std::vector<std::string>
      served_model_names;          // at least one; any of them is accepted, answers carry the one asked for
  std::string model_root;          // `root` in /v1/models: what --model named
  std::string system_fingerprint;  // the same for equal weights and numerics; empty: null in answers
  TokenBudget* budget = nullptr;   // what each key may use; null: everything. Outlives the Api
  size_t num_text_threads = 2;     // JSON, templates and tokenisation run here, not on I/O threads
  // Requests waiting for those threads; more get 503. As many as there may be connections (http::Limits), each with one
  // request at a time, so that a burst of short ones is never refused here; of long ones the bodies' bytes are bounded.
  size_t max_queued_texts = 4096;
  size_t max_queued_text_bytes = 256 * 1024 * 1024;
  size_t num_event_sinks = 2;  // threads that run the io_context; the engine wakes each once per step
  size_t pause_above_buffered_bytes = 256 * 1024;  // unread bytes of one client after which its sequences pause
  int64_t response_cache_bytes = 0;                // 0: no response cache
  int64_t response_cache_ttl_s = 3600;
  bool note_prompts = false;            // in RequestNotes::prompt
  int64_t sse_heartbeat_s = 0;          // silence after which a stream gets a comment; 0: none
  std::function<int64_t()> unix_now_s;  // wall clock for `created` and strftime_now; empty: the system's
};

class Api {
 public:
  // The references outlive this object; `chat_template` (null: chat answers 400) and `metrics` (null: none)
  // too. Order of life: io_context, engine, Api; destroy in reverse, after the I/O threads were joined.
  Api(ApiOptions options, Engine& engine, const Tokenizer& tokenizer, const ChatTemplate* chat_template,
      ServerMetrics* metrics);
  ~Api();  // drops queued text jobs, waits for the running ones

  // POST /v1/completions, /v1/chat/completions, /v1/stream, /generate, /tokenize, /detokenize; GET /v1/models, /v1/models/*.
  // The handlers point at this object.
  void register_routes(http::Router& router);

  // Of the response cache: texts of a tenant's answers; forgets them, and says how many there were. Any thread.
  std::vector<std::string> cached_texts(const std::string& tenant) const;
  size_t forget_cached(const std::string& tenant);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace openai
}  // namespace sextant
