// BodyDecoder: a request body out of the byte stream, by Content-Length or chunked, in pieces of any size.
// Memory grows with what has arrived, never with what a header announces. Pure.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "server/http/request_head.h"

namespace sextant::http {

class BodyDecoder {
 public:
  BodyDecoder(const RequestHead& head, const Limits& limits);

  // Takes bytes from the front of `in` and says how many: all of them, up to the body's end or an error.
  size_t feed(std::string_view in);

  bool done() const { return state_ == State::kDone; }
  const std::optional<HttpError>& error() const { return error_; }
  uint64_t num_wire_bytes() const { return num_wire_bytes_; }   // taken so far, framing included
  std::string take_body() { return std::exchange(body_, {}); }  // what has come since the last call

 private:
  // Chunked (RFC 9112, section 7.1): each state names what the next byte is part of.
  enum class State {
    kLength,
    kChunkSize,
    kChunkExtension,
    kChunkSizeLf,
    kChunkData,
    kChunkDataCr,
    kChunkDataLf,
    kTrailerStart,
    kTrailer,
    kTrailerLf,
    kLastLf,
    kDone,
    kError
  };
  void step(char c);
  void fail(int status, std::string message);

  State state_;
  uint64_t num_left_ = 0;         // of the body, or of the present chunk
  size_t num_digits_ = 0;         // of the chunk size
  size_t num_framing_bytes_ = 0;  // of the present size line, or of all trailers
  uint64_t num_wire_bytes_ = 0;
  size_t max_body_bytes_;
  size_t max_framing_bytes_;
  std::string body_;
  std::optional<HttpError> error_;
};

}  // namespace sextant::http
