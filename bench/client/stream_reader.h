// StreamReader: one streamed answer, from bytes to a RequestOutcome: HTTP, then server-sent events, then chunks. Pure; the time
// of each read is passed in. Must not know sockets.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "bench/client/http_response.h"
#include "bench/client/request_outcome.h"

namespace sextant::bench {

class StreamReader {
 public:
  // `keep_text`: collect the answer's text, for counting its tokens afterwards.
  explicit StreamReader(bool keep_text);

  void begin(RequestOutcome* outcome);  // of the next answer; outlives its reading
  // Bytes that one read gave at `now_ns`. False when reading on is of no use: the outcome says why.
  bool append(std::string_view bytes, int64_t now_ns);
  void close(int64_t now_ns);  // the peer closed
  bool done() const { return response_.done() || failed_; }
  bool keeps_alive() const { return !failed_ && response_.done() && response_.keeps_alive(); }
  bool began() const { return response_.began(); }
  // The outcome's kind from all that was read; call once, at the end.
  void finish(int64_t now_ns);

 private:
  void on_body(std::string_view bytes);
  void on_line(std::string_view line);
  void on_event(std::string_view data);
  void fail(OutcomeKind kind, std::string message);

  const bool keep_text_;
  HttpResponse response_;
  RequestOutcome* outcome_ = nullptr;
  int64_t now_ns_ = 0;
  bool failed_ = false;
  std::string pending_;  // an unfinished line
  std::string data_;     // data lines of an event of several
  bool has_data_ = false;
  std::string other_body_;  // of an answer that is no event stream
};

// "The model `x` does not exist" from an OpenAI-style error body, else the body's beginning on one line.
std::string error_message_of(std::string_view body);

}  // namespace sextant::bench
