// RequestReader: one request out of a byte stream that arrives in pieces: finds the head, has it parsed,
// decodes the body. Pure: no socket, no clock. One object per request.
#pragma once

#include <cstddef>
#include <optional>
#include <string_view>

#include "server/http/body_decoder.h"
#include "server/http/request_head.h"

namespace sextant::http {

class RequestReader {
 public:
  enum class State { kHead, kBody, kComplete, kError };

  explicit RequestReader(const Limits& limits) : limits_(limits) {}

  // `in` starts at the first byte not yet taken. Returns how many bytes were taken. A head is taken whole, so
  // the caller keeps what was not taken and adds to it; feed() stops after the head, so that the caller can
  // look at it.
  size_t feed(std::string_view in);

  void time_out(std::string message) { fail({408, std::move(message)}); }

  State state() const { return state_; }
  const HttpError& error() const { return error_; }  // in kError
  RequestHead& head() { return head_; }              // from kBody on; in kError what was understood
  uint64_t num_body_wire_bytes() const { return body_ ? body_->num_wire_bytes() : 0; }
  std::string take_body() { return body_ ? body_->take_body() : std::string(); }

 private:
  size_t feed_head(std::string_view in);
  void fail(HttpError error);

  const Limits& limits_;
  State state_ = State::kHead;
  size_t num_scanned_ = 0;      // bytes of the head that were looked at
  size_t num_blank_lines_ = 0;  // before the request line
  HttpError error_;
  RequestHead head_;
  std::optional<BodyDecoder> body_;
};

}  // namespace sextant::http
