// HttpResponse: an HTTP/1.x response as its bytes arrive, however they are cut: status, head, body pieces, end. Own and small,
// because it runs for every streamed token. Pure; one thread. Must not know sockets or what the body means.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

namespace sextant::bench {

class HttpResponse {
 public:
  // Body bytes, already freed of chunk framing; valid during the call.
  using OnBody = std::function<void(std::string_view)>;

  explicit HttpResponse(OnBody on_body) : on_body_(std::move(on_body)) {}

  // Takes bytes off the wire. False when they are not HTTP: error() says what is wrong. Bytes behind the end are an error.
  bool append(std::string_view bytes);
  // The connection was closed. False when that cuts the response short.
  bool close();
  void reset();  // for the next response of the connection

  bool has_head() const { return state_ > State::kHead; }
  bool done() const { return state_ == State::kDone; }
  int status() const { return status_; }
  bool is_event_stream() const { return is_event_stream_; }
  const std::string& content_type() const { return content_type_; }  // lower case, without parameters
  bool keeps_alive() const { return keep_alive_ && !until_close_; }
  bool began() const { return began_; }  // a byte of this response has come
  const std::string& error() const { return error_; }

 private:
  enum class State { kHead, kBodyLength, kBodyUntilClose, kChunkSize, kChunkData, kChunkEnd, kTrailer, kDone };

  bool fail(std::string message);
  bool parse_head(std::string_view head);
  bool parse_chunk_size(std::string_view line);
  // A line that may be cut over several appends: nullptr until its end came.
  bool take_line(std::string_view& bytes, std::string_view& line);

  OnBody on_body_;
  State state_ = State::kHead;
  std::string pending_;  // an unfinished head or line
  std::string line_;     // a finished line that began in an earlier append
  uint64_t remaining_ = 0;
  int status_ = 0;
  bool keep_alive_ = true;
  bool until_close_ = false;
  bool is_event_stream_ = false;
  bool began_ = false;
  std::string content_type_;
  std::string error_;
};

}  // namespace sextant::bench
