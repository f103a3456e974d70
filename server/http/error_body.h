// OpenAI's error object as an HTTP answer, for the errors that HTTP itself makes and for handlers.
#pragma once

#include <string>
#include <string_view>

#include "engine/base/status.h"
#include "server/http/exchange.h"

namespace sextant::http {

// {"error": {"message", "type", "param", "code"}}; `param` and `code` are null when empty. The type follows
// the status, as OpenAI's does: 429 "rate_limit_error", other 4xx "invalid_request_error", 5xx
// "server_error". 429 and 503 carry Retry-After: 1.
HttpResponse error_response(int http_status, std::string_view message, std::string_view param = {},
                            std::string_view code = {});
HttpResponse error_response(const Status& status);
// In whole seconds, upwards; instead of what is there. 0 and less: left as it is.
void set_retry_after(HttpResponse& response, double seconds);
int http_status_of(StatusCode code);

}  // namespace sextant::http
