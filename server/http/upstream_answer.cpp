#include "server/http/upstream_answer.h"

#include <algorithm>
#include <array>
#include <boost/asio/buffer.hpp>
#include <boost/beast/http/basic_parser.hpp>
#include <boost/beast/http/error.hpp>
#include <cctype>
#include <cstdint>
#include <utility>

#include "server/http/response_head.h"

namespace sextant::http {
namespace {

namespace beast = boost::beast;

bool equals(std::string_view a, std::string_view b) {
  return std::ranges::equal(a, b, [](char x, char y) {
    return std::tolower(static_cast<unsigned char>(x)) == std::tolower(static_cast<unsigned char>(y));
  });
}

bool is_token(std::string_view name) {
  constexpr std::string_view kMarks = "!#$%&'*+-.^_`|~";
  return !name.empty() && std::ranges::all_of(name, [&](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 || kMarks.find(c) != kMarks.npos;
  });
}

bool is_framing_field(std::string_view name) {
  return equals(name, "Content-Length") || equals(name, "Host") || equals(name, "Expect");
}

}  // namespace

bool is_hop_field(std::string_view name) {
  constexpr std::array<std::string_view, 9> kHop = {"Connection",
                                                    "Keep-Alive",
                                                    "Proxy-Authenticate",
                                                    "Proxy-Authorization",
                                                    "Proxy-Connection",
                                                    "TE",
                                                    "Trailer",
                                                    "Transfer-Encoding",
                                                    "Upgrade"};
  return std::ranges::any_of(kHop, [&](std::string_view hop) { return equals(name, hop); });
}

std::string request_head_text(const UpstreamRequest& request, std::string_view authority) {
  const auto add_value = [](std::string& out, std::string_view value) {
    for (const char c : value) out += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? ' ' : c;
  };
  std::string out = request.method + " ";
  for (const char c : request.target)
    if (static_cast<unsigned char>(c) > 0x20 && c != 0x7f) out += c;
  out += " HTTP/1.1\r\nHost: ";
  out += authority;
  out += "\r\n";
  for (const Header& header : request.headers) {
    if (!is_token(header.name) || is_hop_field(header.name) || is_framing_field(header.name)) continue;
    out += header.name + ": ";
    add_value(out, header.value);
    out += "\r\n";
  }
  if (request.body || request.method == "POST" || request.method == "PUT" || request.method == "PATCH")
    out += "Content-Length: " + std::to_string(request.body ? request.body->size() : 0) + "\r\n";
  return out + "\r\n";
}

// Of the head alone: its body is BodyDecoder's, which takes pieces of any size.
class UpstreamAnswer::HeadParser final : public beast::http::basic_parser<false> {
 public:
  explicit HeadParser(size_t max_head_bytes) {
    header_limit(static_cast<uint32_t>(max_head_bytes));
    body_limit(boost::none);
  }

  UpstreamHead head;
  std::string transfer_encoding;  // all of them

 private:
  using Field = beast::http::field;
  using View = beast::string_view;
  using Error = beast::error_code;

  void on_request_impl(beast::http::verb /*method*/, View /*name*/, View /*target*/, int /*version*/,
                       Error& error) override {
    error = {};
  }
  void on_response_impl(int code, View /*reason*/, int /*version*/, Error& error) override {
    error = {};
    head.status = code;
  }
  void on_field_impl(Field field, View name, View value, Error& error) override {
    error = {};
    const std::string_view key(name.data(), name.size());
    std::string text(value.data(), value.size());
    if (field == Field::content_type) {
      head.content_type = std::move(text);
    } else if (field == Field::transfer_encoding) {
      transfer_encoding += (transfer_encoding.empty() ? "" : ", ") + text;
    } else if (!is_hop_field(key) && field != Field::content_length) {
      head.headers.push_back({std::string(key), std::move(text)});
    }
  }
  void on_header_impl(Error& error) override { error = {}; }
  void on_body_init_impl(const boost::optional<uint64_t>& /*length*/, Error& error) override { error = {}; }
  size_t on_body_impl(View /*bytes*/, Error& error) override {
    error = {};
    return 0;
  }
  void on_chunk_header_impl(uint64_t /*size*/, View /*extensions*/, Error& error) override { error = {}; }
  size_t on_chunk_body_impl(uint64_t /*left*/, View /*bytes*/, Error& error) override {
    error = {};
    return 0;
  }
  void on_finish_impl(Error& error) override { error = {}; }
};

UpstreamAnswer::UpstreamAnswer(bool to_head_request, size_t max_head_bytes)
    : to_head_request_(to_head_request),
      max_head_bytes_(max_head_bytes),
      parser_(std::make_unique<HeadParser>(max_head_bytes)) {}

UpstreamAnswer::~UpstreamAnswer() = default;

std::string UpstreamAnswer::feed(std::string_view bytes) {
  has_begun_ = has_begun_ || !bytes.empty();
  while (!has_head_ && !bytes.empty()) {
    if (std::string error = feed_head(bytes); !error.empty()) return error;
  }
  return has_head_ ? feed_body(bytes) : "";
}

// Takes bytes to the end of one head, or all of them. The parser is given a head from its first byte on each time.
std::string UpstreamAnswer::feed_head(std::string_view& bytes) {
  const size_t searched = head_bytes_.size() < 3 ? 0 : head_bytes_.size() - 3;
  const size_t num_before = head_bytes_.size();
  head_bytes_ += bytes;
  const size_t end = head_bytes_.find("\r\n\r\n", searched);
  if (end == head_bytes_.npos) {
    bytes = {};
    if (head_bytes_.size() > max_head_bytes_)
      return "its head is longer than " + std::to_string(max_head_bytes_) + " bytes";
    return "";
  }
  bytes.remove_prefix(end + 4 - num_before);
  head_bytes_.resize(end + 4);
  beast::error_code error;
  const size_t taken = parser_->put(boost::asio::buffer(head_bytes_), error);
  if (error && error != beast::http::error::need_more) return "it does not speak HTTP/1.1: " + error.message();
  if (!parser_->is_header_done() || taken != head_bytes_.size()) return "it does not speak HTTP/1.1";
  const int status = parser_->head.status;
  if (status >= 100 && status < 200) {
    parser_ = std::make_unique<HeadParser>(max_head_bytes_);
    head_bytes_.clear();
    return status == 101 ? "it changed the protocol, which nobody asked for" : "";
  }
  return begin_body();
}

std::string UpstreamAnswer::begin_body() {
  RequestHead framing;
  framing.is_chunked = !parser_->transfer_encoding.empty();
  if (framing.is_chunked && !equals(parser_->transfer_encoding, "chunked"))
    return "its transfer encoding is '" + parser_->transfer_encoding.substr(0, 60) + "', which is not known";
  const auto length = parser_->content_length();
  if (length && !framing.is_chunked) framing.content_length = *length;
  head_ = std::move(parser_->head);
  has_head_ = true;
  head_bytes_.clear();
  keeps_alive_ = parser_->keep_alive();
  Limits limits;
  limits.max_body_bytes = SIZE_MAX / 2;
  limits.max_header_bytes = max_head_bytes_;  // of trailers
  if (to_head_request_ || !status_has_body(head_.status)) {
    framing = {};
    body_.emplace(framing, limits);
  } else if (framing.is_chunked || length) {
    if (!framing.is_chunked) head_.content_length = *length;
    body_.emplace(framing, limits);
  } else {
    keeps_alive_ = false;
  }
  is_complete_ = body_ && body_->done();
  return "";
}

std::string UpstreamAnswer::feed_body(std::string_view bytes) {
  if (!body_) {
    body_to_end_ += bytes;
    return "";
  }
  const size_t used = body_->feed(bytes);
  if (body_->error()) return "its body is broken: " + body_->error()->message;
  is_complete_ = body_->done();
  if (used < bytes.size()) keeps_alive_ = false;  // more than its answer: it cannot be trusted
  return "";
}

std::string UpstreamAnswer::feed_end() {
  if (has_head_ && !body_) is_complete_ = true;
  keeps_alive_ = false;
  return is_complete_ ? "" : "the connection ended in the middle of its answer";
}

bool UpstreamAnswer::may_keep_alive() const { return is_complete_ && keeps_alive_; }
UpstreamHead UpstreamAnswer::take_head() { return std::move(head_); }
std::string UpstreamAnswer::take_body() { return body_ ? body_->take_body() : std::exchange(body_to_end_, {}); }

}  // namespace sextant::http
