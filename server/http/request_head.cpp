#include "server/http/request_head.h"

#include <algorithm>
#include <boost/beast/http/basic_parser.hpp>
#include <boost/beast/http/error.hpp>
#include <charconv>

#include "server/http/target.h"

namespace sextant::http {
namespace {

namespace beast_http = boost::beast::http;
using boost::beast::string_view;
using ErrorCode = boost::beast::error_code;

std::string to_string(string_view text) { return {text.data(), text.size()}; }

// Whether the request line ends as one of another HTTP version does, rather than in something else.
bool names_a_version(std::string_view text) {
  const std::string_view line = text.substr(0, text.find("\r\n"));
  const std::string_view last = line.substr(line.rfind(' ') + 1);
  return last.size() > 5 && last.starts_with("HTTP/") && last[5] >= '0' && last[5] <= '9';
}

// Beast's grammar for the request line and the fields; bodies are decoded elsewhere (body_decoder.h).
class HeadParser final : public beast_http::basic_parser<true> {
 public:
  HeadParser(const Limits& limits, RequestHead& head) : limits_(limits), head_(head) {
    skip(true);  // the body is not Beast's
    header_limit(static_cast<uint32_t>(limits.max_header_bytes));
  }

  std::optional<HttpError> error;
  size_t num_hosts = 0;
  size_t num_content_lengths = 0;
  size_t num_transfer_encodings = 0;

 private:
  void refuse(ErrorCode& ec, int status, std::string message) {
    error = HttpError{status, std::move(message)};
    ec = beast_http::error::bad_field;
  }

  void on_request_impl(beast_http::verb, string_view method, string_view target, int version, ErrorCode& ec) override {
    head_.request.method = to_string(method);
    head_.is_http10 = version == 10;
    head_.keep_alive = !head_.is_http10;
    Result<Target> parsed = http::parse_target(head_.request.method, {target.data(), target.size()});
    if (!parsed.ok()) return refuse(ec, 400, parsed.status().message());
    head_.request.path = std::move(parsed->path);
    head_.request.query = std::move(parsed->query);
  }

  void on_field_impl(beast_http::field field, string_view name, string_view value, ErrorCode& ec) override {
    if (head_.request.headers.size() >= limits_.max_headers) {
      return refuse(ec, 431, "more than " + std::to_string(limits_.max_headers) + " header fields");
    }
    head_.request.headers.push_back({to_string(name), to_string(value)});
    switch (field) {
      case beast_http::field::host: ++num_hosts; break;
      case beast_http::field::content_length: {
        ++num_content_lengths;
        const auto [end, errc] = std::from_chars(value.data(), value.data() + value.size(), head_.content_length);
        if (errc != std::errc() || end != value.data() + value.size()) {
          return refuse(ec, 400, "Content-Length is not one decimal number");
        }
        break;
      }
      case beast_http::field::transfer_encoding:
        ++num_transfer_encodings;
        if (!boost::beast::iequals(value, "chunked")) {
          return refuse(ec, 501, "the only Transfer-Encoding known here is chunked");
        }
        head_.is_chunked = true;
        break;
      case beast_http::field::expect:
        if (!boost::beast::iequals(value, "100-continue")) {
          return refuse(ec, 417, "the only Expect known here is 100-continue");
        }
        head_.expects_continue = true;
        break;
      default: break;
    }
  }

  void on_header_impl(ErrorCode&) override { head_.keep_alive = keep_alive(); }
  void on_response_impl(int, string_view, int, ErrorCode&) override {}
  void on_body_init_impl(const boost::optional<uint64_t>&, ErrorCode&) override {}
  size_t on_body_impl(string_view body, ErrorCode&) override { return body.size(); }
  void on_chunk_header_impl(uint64_t, string_view, ErrorCode&) override {}
  size_t on_chunk_body_impl(uint64_t, string_view body, ErrorCode&) override { return body.size(); }
  void on_finish_impl(ErrorCode&) override {}

  const Limits& limits_;
  RequestHead& head_;
};

}  // namespace

std::optional<HttpError> parse_request_head(std::string_view text, const Limits& limits, RequestHead& head) {
  // Obsolete line folding: programs disagree on what such a field holds (RFC 9112, section 5.2).
  if (text.find("\r\n ") != std::string_view::npos || text.find("\r\n\t") != std::string_view::npos) {
    return HttpError{400, "folded header lines are not accepted"};
  }
  HeadParser parser(limits, head);
  ErrorCode ec;
  const size_t used = parser.put(boost::asio::buffer(text.data(), text.size()), ec);
  if (parser.error) return parser.error;
  if (ec == beast_http::error::header_limit) return HttpError{431, "the request header is too large"};
  if (ec == beast_http::error::bad_version && names_a_version(text)) {
    return HttpError{505, "only HTTP/1.0 and HTTP/1.1 are spoken here"};
  }
  if (ec) return HttpError{400, "malformed HTTP request: " + ec.message()};
  if (!parser.is_header_done() || used != text.size()) return HttpError{400, "malformed HTTP request header"};

  // Request smuggling lives where two programs find different ends of one body (RFC 9112, section 6.3).
  if (parser.num_content_lengths > 1) return HttpError{400, "more than one Content-Length"};
  if (parser.num_transfer_encodings > 1) return HttpError{400, "more than one Transfer-Encoding"};
  if (parser.num_content_lengths > 0 && parser.num_transfer_encodings > 0) {
    return HttpError{400, "both Content-Length and Transfer-Encoding"};
  }
  if (head.is_http10 && parser.num_transfer_encodings > 0) return HttpError{400, "Transfer-Encoding in HTTP/1.0"};
  if (parser.num_hosts > 1) return HttpError{400, "more than one Host"};
  if (!head.is_http10 && parser.num_hosts == 0) return HttpError{400, "HTTP/1.1 needs a Host header"};
  if (head.is_http10) head.expects_continue = false;
  return std::nullopt;
}

}  // namespace sextant::http
