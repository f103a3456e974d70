#include "server/http/response_head.h"

#include <algorithm>
#include <array>
#include <ctime>

namespace sextant::http {
namespace {

bool is_token(std::string_view name) {
  return !name.empty() && std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           std::string_view("!#$%&'*+-.^_`|~").find(c) != std::string_view::npos;
  });
}

bool equals_ignoring_case(std::string_view a, std::string_view b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](char x, char y) {
    const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; };
    return lower(x) == lower(y);
  });
}

bool is_ours(std::string_view name) {
  static constexpr std::array<std::string_view, 6> kOurs = {"Content-Length", "Transfer-Encoding", "Connection", "Date",
                                                            "Server",         "X-Request-Id"};
  return std::any_of(kOurs.begin(), kOurs.end(),
                     [name](std::string_view ours) { return equals_ignoring_case(name, ours); });
}

void append_field(std::string& head, std::string_view name, std::string_view value) {
  head += name;
  head += ": ";
  for (const char c : value) {
    const bool is_control = (static_cast<unsigned char>(c) < 0x20 && c != '\t') || c == 0x7f;
    head += is_control ? ' ' : c;
  }
  head += "\r\n";
}

// IMF-fixdate (RFC 9110, section 5.6.7), formatted once per second and thread; not by strftime, which has a
// locale.
const std::string& http_date() {
  thread_local time_t formatted_s = -1;
  thread_local std::string text;
  const time_t now_s = time(nullptr);
  if (now_s != formatted_s) {
    static constexpr const char* kDays[] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
    static constexpr const char* kMonths[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                              "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    tm utc{};
    gmtime_r(&now_s, &utc);
    std::array<char, 64> buffer{};
    snprintf(buffer.data(), buffer.size(), "%s, %02d %s %04d %02d:%02d:%02d GMT", kDays[utc.tm_wday], utc.tm_mday,
             kMonths[utc.tm_mon], utc.tm_year + 1900, utc.tm_hour, utc.tm_min, utc.tm_sec);
    text = buffer.data();
    formatted_s = now_s;
  }
  return text;
}

}  // namespace

bool status_has_body(int status) { return status >= 200 && status != 204 && status != 304; }

std::string_view reason_phrase(int status) {
  switch (status) {
    case 200: return "OK";
    case 201: return "Created";
    case 202: return "Accepted";
    case 204: return "No Content";
    case 301: return "Moved Permanently";
    case 302: return "Found";
    case 304: return "Not Modified";
    case 307: return "Temporary Redirect";
    case 308: return "Permanent Redirect";
    case 400: return "Bad Request";
    case 401: return "Unauthorized";
    case 403: return "Forbidden";
    case 404: return "Not Found";
    case 405: return "Method Not Allowed";
    case 408: return "Request Timeout";
    case 409: return "Conflict";
    case 413: return "Content Too Large";
    case 415: return "Unsupported Media Type";
    case 417: return "Expectation Failed";
    case 422: return "Unprocessable Content";
    case 429: return "Too Many Requests";
    case 431: return "Request Header Fields Too Large";
    case 499: return "Client Closed Request";
    case 500: return "Internal Server Error";
    case 501: return "Not Implemented";
    case 502: return "Bad Gateway";
    case 503: return "Service Unavailable";
    case 504: return "Gateway Timeout";
    case 505: return "HTTP Version Not Supported";
    default: return "Status";
  }
}

std::string response_head(const HttpResponse& response, const ResponseFraming& framing, std::string_view request_id) {
  std::string head;
  head.reserve(256);
  head += "HTTP/1.1 ";
  head += std::to_string(response.status);
  head += ' ';
  head += reason_phrase(response.status);
  head += "\r\n";
  append_field(head, "Date", http_date());
  append_field(head, "Server", "sextant");
  if (!request_id.empty()) append_field(head, "X-Request-Id", request_id);
  if (!response.content_type.empty() && status_has_body(response.status)) {
    append_field(head, "Content-Type", response.content_type);
  }
  for (const Header& header : response.headers) {
    if (is_token(header.name) && !is_ours(header.name)) append_field(head, header.name, header.value);
  }
  if (framing.content_length) append_field(head, "Content-Length", std::to_string(*framing.content_length));
  if (framing.is_chunked) append_field(head, "Transfer-Encoding", "chunked");
  if (!framing.keep_alive) {
    append_field(head, "Connection", "close");
  } else if (framing.to_http10) {
    append_field(head, "Connection", "keep-alive");
  }
  head += "\r\n";
  return head;
}

}  // namespace sextant::http
