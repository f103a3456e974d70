// A request's line and fields, parsed and judged: what could be read in two ways by two programs is refused
// here. Pure; the Beast parser is in the .cpp.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "server/http/exchange.h"
#include "server/http/limits.h"

namespace sextant::http {

// Why a request is answered by HTTP itself; the connection is closed after it.
struct HttpError {
  int status = 400;
  std::string message;
};

struct RequestHead {
  HttpRequest request;  // without body, client_address and request_id
  bool is_http10 = false;
  bool keep_alive = true;
  bool expects_continue = false;
  bool is_chunked = false;
  uint64_t content_length = 0;

  bool has_body() const { return is_chunked || content_length > 0; }
};

// `text` ends with the empty line. On an error `head` holds what was understood so far (method and path, for
// the log).
std::optional<HttpError> parse_request_head(std::string_view text, const Limits& limits, RequestHead& head);

}  // namespace sextant::http
