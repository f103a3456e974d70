#include "server/http/request_reader.h"

namespace sextant::http {

void RequestReader::fail(HttpError error) {
  error_ = std::move(error);
  state_ = State::kError;
}

size_t RequestReader::feed(std::string_view in) {
  switch (state_) {
    case State::kHead: return feed_head(in);
    case State::kBody: {
      const size_t used = body_->feed(in);
      if (body_->error()) {
        fail(*body_->error());
      } else if (body_->done()) {
        state_ = State::kComplete;
      }
      return used;
    }
    case State::kComplete:
    case State::kError: return 0;
  }
  return 0;
}

size_t RequestReader::feed_head(std::string_view in) {
  // Some clients send a line break too many after a body (RFC 9112, section 2.2).
  if (num_scanned_ <= 1 && in.starts_with("\r\n")) {
    num_scanned_ = 0;
    if (++num_blank_lines_ > 4) fail({400, "blank lines instead of a request"});
    return 2;
  }
  // Every byte is judged when it arrives: what speaks no HTTP (TLS, say) is answered at once, not after a
  // time-out.
  for (; num_scanned_ < in.size(); ++num_scanned_) {
    if (num_scanned_ >= limits_.max_header_bytes) {
      fail({431, "the request header is larger than " + std::to_string(limits_.max_header_bytes) + " bytes"});
      return 0;
    }
    const auto c = static_cast<unsigned char>(in[num_scanned_]);
    const bool after_cr = num_scanned_ > 0 && in[num_scanned_ - 1] == '\r';
    if (!after_cr && ((c >= 0x20 && c != 0x7f) || c == '\t' || c == '\r')) continue;
    if (c != '\n' || !after_cr) {
      fail({400, c == '\n' ? "lines must end in CRLF" : "a control character in the request header"});
      return 0;
    }
    if (num_scanned_ >= 3 && in[num_scanned_ - 2] == '\n') {
      const size_t head_size = num_scanned_ + 1;
      if (auto error = parse_request_head(in.substr(0, head_size), limits_, head_)) {
        fail(std::move(*error));
        return 0;
      }
      body_.emplace(head_, limits_);
      if (body_->error()) {
        fail(*body_->error());
      } else {
        state_ = body_->done() ? State::kComplete : State::kBody;
      }
      return head_size;
    }
  }
  return 0;
}

}  // namespace sextant::http
