// The head of an answer as bytes. Whatever a handler puts into a field, no field can begin another one. Pure
// but for Date.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "server/http/exchange.h"

namespace sextant::http {

struct ResponseFraming {
  std::optional<uint64_t> content_length;
  bool is_chunked = false;
  bool keep_alive = true;
  bool to_http10 = false;  // keep-alive must be said
};

// Fields that belong to the framing (Content-Length, Transfer-Encoding, Connection, Date, Server,
// X-Request-Id) are dropped from `response.headers`; control characters in values become spaces; a field
// whose name is no token is dropped.
std::string response_head(const HttpResponse& response, const ResponseFraming& framing, std::string_view request_id);

// 204 and 304 (and 1xx) have neither a body nor a length.
bool status_has_body(int status);
std::string_view reason_phrase(int status);

}  // namespace sextant::http
