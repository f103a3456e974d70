// UpstreamAnswer: an answer out of the byte stream of a connection that we opened, in pieces of any size; and the text of
// what we ask there. Pure: no socket, no clock. One object per request.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "server/http/body_decoder.h"
#include "server/http/upstream.h"

namespace sextant::http {

// Request line and fields, with Host and Content-Length. No field can begin another one: control characters become spaces,
// fields whose name is no token are left out, and so are those of the connection (RFC 9110, section 7.6.1) and the framing.
std::string request_head_text(const UpstreamRequest& request, std::string_view authority);

// Fields that end at the next hop.
bool is_hop_field(std::string_view name);

class UpstreamAnswer {
 public:
  UpstreamAnswer(bool to_head_request, size_t max_head_bytes);
  ~UpstreamAnswer();
  UpstreamAnswer(const UpstreamAnswer&) = delete;
  UpstreamAnswer& operator=(const UpstreamAnswer&) = delete;

  // Empty, or why this is no answer. After an error, nothing more may be fed.
  std::string feed(std::string_view bytes);
  std::string feed_end();  // the peer closed

  bool has_begun() const { return has_begun_; }  // a byte has come
  bool has_head() const { return has_head_; }    // 1xx are skipped
  bool is_complete() const { return is_complete_; }
  bool may_keep_alive() const;  // once complete
  UpstreamHead take_head();
  std::string take_body();  // what has come since the last call

 private:
  class HeadParser;
  std::string feed_head(std::string_view& bytes);
  std::string begin_body();
  std::string feed_body(std::string_view bytes);

  const bool to_head_request_;
  const size_t max_head_bytes_;
  std::unique_ptr<HeadParser> parser_;
  std::string head_bytes_;  // until the parser has taken all of it
  UpstreamHead head_;
  std::optional<BodyDecoder> body_;  // none: the body goes on to the connection's end
  std::string body_to_end_;
  bool has_begun_ = false;
  bool has_head_ = false;
  bool is_complete_ = false;
  bool keeps_alive_ = false;
};

}  // namespace sextant::http
