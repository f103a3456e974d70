#include "server/http/body_decoder.h"

#include <algorithm>

namespace sextant::http {
namespace {

constexpr size_t kMaxChunkLineBytes = 1024;  // a size and its extensions, which nobody uses

int hex_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

}  // namespace

BodyDecoder::BodyDecoder(const RequestHead& head, const Limits& limits)
    : max_body_bytes_(limits.max_body_bytes), max_framing_bytes_(limits.max_header_bytes) {
  if (head.is_chunked) {
    state_ = State::kChunkSize;
  } else {
    num_left_ = head.content_length;
    state_ = num_left_ > 0 ? State::kLength : State::kDone;
    if (num_left_ > max_body_bytes_) {
      fail(413,
           "the body has " + std::to_string(num_left_) + " bytes, the limit is " + std::to_string(max_body_bytes_));
    }
  }
}

void BodyDecoder::fail(int status, std::string message) {
  state_ = State::kError;
  error_ = HttpError{status, std::move(message)};
}

size_t BodyDecoder::feed(std::string_view in) {
  size_t used = 0;
  while (used < in.size() && state_ != State::kDone && state_ != State::kError) {
    if (state_ == State::kLength || state_ == State::kChunkData) {
      const size_t num = static_cast<size_t>(std::min<uint64_t>(num_left_, in.size() - used));
      body_.append(in.substr(used, num));
      used += num;
      num_left_ -= num;
      if (num_left_ == 0) state_ = state_ == State::kLength ? State::kDone : State::kChunkDataCr;
    } else {
      step(in[used++]);
    }
  }
  num_wire_bytes_ += used;
  return used;
}

void BodyDecoder::step(char c) {
  const bool is_control = (static_cast<unsigned char>(c) < 0x20 && c != '\t') || c == 0x7f;
  switch (state_) {
    case State::kChunkSize: {
      const int digit = hex_value(c);
      if (digit >= 0) {
        // 15 digits cannot overflow; more than the limit is refused when the line ends.
        if (++num_digits_ > 15) return fail(400, "a chunk size with too many digits");
        num_left_ = num_left_ * 16 + static_cast<uint64_t>(digit);
        return;
      }
      if (num_digits_ == 0) return fail(400, "a chunk without a size");
      if (c == ';') {
        num_framing_bytes_ = 0;
        state_ = State::kChunkExtension;
      } else if (c == '\r') {
        state_ = State::kChunkSizeLf;
      } else {
        fail(400, "a chunk size that is not hexadecimal");
      }
      return;
    }
    case State::kChunkExtension:
      if (c == '\r') {
        state_ = State::kChunkSizeLf;
      } else if (is_control || ++num_framing_bytes_ > kMaxChunkLineBytes) {
        fail(400, "a malformed or too long chunk extension");
      }
      return;
    case State::kChunkSizeLf:
      if (c != '\n') return fail(400, "a chunk size line that does not end in CRLF");
      if (num_left_ > max_body_bytes_ - body_.size()) {
        return fail(413, "the body is larger than the limit of " + std::to_string(max_body_bytes_) + " bytes");
      }
      num_digits_ = 0;
      num_framing_bytes_ = 0;
      state_ = num_left_ > 0 ? State::kChunkData : State::kTrailerStart;
      return;
    case State::kChunkDataCr:
      if (c != '\r') return fail(400, "a chunk that is longer than its size");
      state_ = State::kChunkDataLf;
      return;
    case State::kChunkDataLf:
      if (c != '\n') return fail(400, "a chunk that is longer than its size");
      state_ = State::kChunkSize;
      return;
    case State::kTrailerStart:  // trailers are read over: nothing here needs them, and merging them would be
                                // unsafe
      if (c == '\r') {
        state_ = State::kLastLf;
        return;
      }
      state_ = State::kTrailer;
      [[fallthrough]];
    case State::kTrailer:
      if (c == '\r') {
        state_ = State::kTrailerLf;
      } else if (is_control) {
        fail(400, "a malformed trailer");
      } else if (++num_framing_bytes_ > max_framing_bytes_) {
        fail(431, "the trailers are too large");
      }
      return;
    case State::kTrailerLf:
      if (c != '\n') return fail(400, "a trailer line that does not end in CRLF");
      state_ = State::kTrailerStart;
      return;
    case State::kLastLf:
      if (c != '\n') return fail(400, "a chunked body that does not end in CRLF");
      state_ = State::kDone;
      return;
    case State::kLength:
    case State::kChunkData:
    case State::kDone:
    case State::kError: return;
  }
}

}  // namespace sextant::http
