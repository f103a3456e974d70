// RequestOutcome: what one request came to. Plain data. Times are nanoseconds of one monotonic clock; a time is that of the read
// that held the bytes, or of the write that began to send them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace sextant::bench {

enum class OutcomeKind : uint8_t {
  kNotSent,      // the run ended before its turn
  kFinished,     // the whole answer came
  kInterrupted,  // Ctrl-C, or the run's end, cut it off
  kConnect,      // no connection
  kTimeout,      // --request-timeout
  kHttpStatus,   // an answer other than 200
  kNotStreamed,  // 200, but no event stream
  kMalformed,    // neither HTTP nor JSON where it should be
  kStreamError,  // the stream carried an error object
  kCutShort,     // the connection or the stream ended before the answer did
  kEmpty,        // a whole stream without a token
};

// "finished", "connect"...: names in JSON.
const char* outcome_name(OutcomeKind kind);

struct RequestOutcome {
  OutcomeKind kind = OutcomeKind::kNotSent;
  int status = 0;  // HTTP; 0: none
  bool new_connection = false;
  bool saw_done = false;  // "data: [DONE]" came
  bool counts_by_ids = false;
  int32_t num_events = 0;  // that carried text or token ids
  int64_t scheduled_ns = 0;
  int64_t ready_ns = 0;   // scheduled, and a slot of --max-concurrency free
  int64_t begin_ns = 0;   // when the client turned to it
  int64_t send_ns = 0;    // connected, about to write
  int64_t first_ns = 0;   // first event that carried text or token ids
  int64_t last_ns = 0;    // last such event, or the one that said finish_reason
  int64_t end_ns = 0;     // the answer's end, or when it failed
  int64_t token_ids = 0;  // counted in the chunks
  int64_t usage_prompt_tokens = -1;
  int64_t usage_completion_tokens = -1;
  int64_t usage_cached_tokens = -1;
  std::string finish_reason;
  std::string message;         // why it failed
  std::string text;            // JSON-escaped; kept only where it may have to be counted
  std::vector<float> gaps_ms;  // between successive events that carried something
};

}  // namespace sextant::bench
