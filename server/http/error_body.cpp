#include "server/http/error_body.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <string>

namespace sextant::http {
namespace {

const char* type_of(int http_status) {
  if (http_status == 429) return "rate_limit_error";
  return http_status >= 500 ? "server_error" : "invalid_request_error";
}

}  // namespace

HttpResponse error_response(int http_status, std::string_view message, std::string_view param, std::string_view code) {
  using nlohmann::json;
  const json body = {{"error",
                      {{"message", message},
                       {"type", type_of(http_status)},
                       {"param", param.empty() ? json(nullptr) : json(param)},
                       {"code", code.empty() ? json(nullptr) : json(code)}}}};
  HttpResponse response;
  response.status = http_status;
  // Messages may quote what the client sent: bytes that are not UTF-8 become U+FFFD.
  response.body = body.dump(-1, ' ', false, json::error_handler_t::replace);
  if (http_status == 503 || http_status == 429) response.headers.push_back({"Retry-After", "1"});
  return response;
}

HttpResponse error_response(const Status& status) {
  return error_response(http_status_of(status.code()), status.message(), status.param(), status.error_code());
}

void set_retry_after(HttpResponse& response, double seconds) {
  if (!(seconds > 0)) return;
  std::erase_if(response.headers, [](const Header& header) { return header.name == "Retry-After"; });
  response.headers.push_back({"Retry-After", std::to_string(static_cast<int64_t>(std::ceil(std::min(seconds, 1e9))))});
}

int http_status_of(StatusCode code) {
  switch (code) {
    case StatusCode::kOk: return 200;
    case StatusCode::kInvalidArgument: return 400;
    case StatusCode::kNotFound: return 404;
    case StatusCode::kTooLarge: return 413;
    case StatusCode::kResourceExhausted: return 429;
    case StatusCode::kUnavailable: return 503;
    case StatusCode::kDeadlineExceeded: return 504;
    case StatusCode::kCancelled: return 499;
    case StatusCode::kUnsupported: return 400;
    case StatusCode::kDataLoss:
    case StatusCode::kDeviceError:
    case StatusCode::kInternal: return 500;
  }
  return 500;
}

}  // namespace sextant::http
