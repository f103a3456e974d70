#include "bench/client/http_response.h"

#include <algorithm>
#include <optional>

namespace sextant::bench {
namespace {

constexpr size_t kMaxHeadBytes = 64 << 10;
constexpr size_t kMaxLineBytes = 4 << 10;

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + ('a' - 'A')) : c; }

std::string lower(std::string_view text) {
  std::string result(text);
  std::transform(result.begin(), result.end(), result.begin(), [](char c) { return lower(c); });
  return result;
}

std::string_view trim(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

}  // namespace

void HttpResponse::reset() {
  state_ = State::kHead;
  pending_.clear();
  line_.clear();
  remaining_ = 0;
  status_ = 0;
  keep_alive_ = true;
  until_close_ = false;
  is_event_stream_ = false;
  began_ = false;
  content_type_.clear();
  error_.clear();
}

bool HttpResponse::fail(std::string message) {
  if (error_.empty()) error_ = std::move(message);
  return false;
}

bool HttpResponse::append(std::string_view bytes) {
  if (!error_.empty()) return false;
  if (!bytes.empty()) began_ = true;
  while (!bytes.empty()) {
    switch (state_) {
      case State::kHead: {
        // The end may lie across two appends: look from a little before what is new.
        const size_t from = pending_.size() < 3 ? 0 : pending_.size() - 3;
        const size_t had = pending_.size();
        pending_.append(bytes.substr(0, std::min(bytes.size(), kMaxHeadBytes + 4 - std::min(had, kMaxHeadBytes))));
        const size_t end = pending_.find("\r\n\r\n", from);
        if (end == std::string::npos) {
          if (pending_.size() >= kMaxHeadBytes) return fail("the response's head is longer than 64 KiB");
          if (pending_.size() >= 5 && !pending_.starts_with("HTTP/")) return fail("the answer is not HTTP");
          return true;
        }
        bytes.remove_prefix(end + 4 - had);
        const std::string head = pending_.substr(0, end + 2);
        pending_.clear();
        if (!parse_head(head)) return false;
        break;
      }
      case State::kBodyLength:
      case State::kChunkData: {
        const size_t n = static_cast<size_t>(std::min<uint64_t>(remaining_, bytes.size()));
        on_body_(bytes.substr(0, n));
        bytes.remove_prefix(n);
        remaining_ -= n;
        if (remaining_ == 0) state_ = state_ == State::kBodyLength ? State::kDone : State::kChunkEnd;
        break;
      }
      case State::kBodyUntilClose: on_body_(bytes); return true;
      case State::kChunkSize:
      case State::kChunkEnd:
      case State::kTrailer: {
        std::string_view line;
        if (!take_line(bytes, line)) return error_.empty();
        if (state_ == State::kChunkEnd) {
          if (!line.empty()) return fail("a chunk is longer than it said");
          state_ = State::kChunkSize;
        } else if (state_ == State::kTrailer) {
          if (line.empty()) state_ = State::kDone;
        } else if (!parse_chunk_size(line)) {
          return false;
        }
        break;
      }
      case State::kDone: return fail("bytes after the end of the response");
    }
  }
  return true;
}

bool HttpResponse::take_line(std::string_view& bytes, std::string_view& line) {
  const size_t end = bytes.find('\n');
  if (end == std::string_view::npos) {
    pending_.append(bytes);
    bytes = {};
    if (pending_.size() > kMaxLineBytes) fail("a line of the chunked body is longer than 4 KiB");
    return false;
  }
  if (pending_.empty()) {
    line = bytes.substr(0, end);
  } else {
    pending_.append(bytes.substr(0, end));
    line_.swap(pending_);
    pending_.clear();
    line = line_;
  }
  bytes.remove_prefix(end + 1);
  if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
  return true;
}

bool HttpResponse::parse_chunk_size(std::string_view line) {
  uint64_t size = 0;
  size_t num_digits = 0;
  for (const char c : line) {
    int digit;
    if (c >= '0' && c <= '9') {
      digit = c - '0';
    } else if (lower(c) >= 'a' && lower(c) <= 'f') {
      digit = lower(c) - 'a' + 10;
    } else {
      break;
    }
    if (++num_digits > 12) return fail("a chunk's size is absurd");
    size = size * 16 + static_cast<uint64_t>(digit);
  }
  if (num_digits == 0 || (num_digits < line.size() && line[num_digits] != ';' && line[num_digits] != ' ')) {
    return fail("the chunked body is malformed: a chunk does not begin with its size");
  }
  remaining_ = size;
  state_ = size == 0 ? State::kTrailer : State::kChunkData;
  return true;
}

bool HttpResponse::parse_head(std::string_view head) {
  const size_t first_end = head.find("\r\n");
  const std::string_view first = head.substr(0, first_end);
  if (!first.starts_with("HTTP/1.") || first.size() < 12 || first[8] != ' ') return fail("the answer is not HTTP/1");
  status_ = 0;
  for (const char c : first.substr(9, 3)) {
    if (c < '0' || c > '9') return fail("the answer's status is not a number");
    status_ = status_ * 10 + (c - '0');
  }
  keep_alive_ = first[7] != '0';
  std::optional<uint64_t> length;
  bool chunked = false;
  head.remove_prefix(first_end + 2);
  while (!head.empty()) {
    const size_t end = head.find("\r\n");
    const std::string_view line = head.substr(0, end);
    head.remove_prefix(end + 2);
    const size_t colon = line.find(':');
    if (colon == std::string_view::npos) continue;
    const std::string name = lower(line.substr(0, colon));
    const std::string_view value = trim(line.substr(colon + 1));
    if (name == "content-length") {
      uint64_t n = 0;
      if (value.empty() || value.size() > 15) return fail("the answer's Content-Length is not a number");
      for (const char c : value) {
        if (c < '0' || c > '9') return fail("the answer's Content-Length is not a number");
        n = n * 10 + static_cast<uint64_t>(c - '0');
      }
      length = n;
    } else if (name == "transfer-encoding") {
      chunked = lower(value).find("chunked") != std::string::npos;
    } else if (name == "connection") {
      const std::string words = lower(value);
      if (words.find("close") != std::string::npos) keep_alive_ = false;
      if (words.find("keep-alive") != std::string::npos) keep_alive_ = true;
    } else if (name == "content-type") {
      content_type_ = lower(trim(value.substr(0, value.find(';'))));
      is_event_stream_ = content_type_ == "text/event-stream";
    }
  }
  if (status_ >= 100 && status_ < 200) {  // an interim answer; the real one follows
    state_ = State::kHead;
    content_type_.clear();
    return true;
  }
  if (status_ == 204 || status_ == 304) {
    state_ = State::kDone;
  } else if (chunked) {
    state_ = State::kChunkSize;
  } else if (length) {
    remaining_ = *length;
    state_ = *length == 0 ? State::kDone : State::kBodyLength;
  } else {
    until_close_ = true;
    state_ = State::kBodyUntilClose;
  }
  return true;
}

bool HttpResponse::close() {
  if (!error_.empty()) return false;
  if (state_ == State::kBodyUntilClose) state_ = State::kDone;
  if (state_ == State::kDone) return true;
  return fail(began_ ? "the connection was closed in the middle of the answer"
                     : "the connection was closed without an answer");
}

}  // namespace sextant::bench
