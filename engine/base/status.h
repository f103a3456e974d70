// Status: the outcome of an operation that can fail for a reason the caller should hear about.
// A failed Status says what is wrong in a sentence a user can act on; `param` names the request field or flag at fault.
// Programming errors are not Status: they are CHECK (check.h).
#pragma once

#include <string>
#include <utility>

namespace sextant {

enum class StatusCode {
  kOk,
  kInvalidArgument,    // the caller's input is wrong                      -> HTTP 400
  kNotFound,           // no such model, file or route                     -> 404
  kTooLarge,           // input larger than a stated limit                 -> 413
  kResourceExhausted,  // a limit of this key or client is reached         -> 429
  kUnavailable,        // the server cannot take work now (queue, drain)   -> 503
  kDeadlineExceeded,   // took longer than allowed                         -> 408/504
  kCancelled,          // the caller went away
  kDataLoss,           // a file is truncated, corrupt or hostile
  kUnsupported,        // valid, but this build or model cannot do it      -> 400
  kDeviceError,        // the device failed; requests in flight are lost   -> 500
  kInternal,           // our bug                                          -> 500
};

class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(StatusCode code, std::string message, std::string param = {}, std::string error_code = {})
      : code_(code), message_(std::move(message)), param_(std::move(param)), error_code_(std::move(error_code)) {}

  bool ok() const { return code_ == StatusCode::kOk; }
  StatusCode code() const { return code_; }
  const std::string& message() const { return message_; }
  // The request field or flag at fault; empty when there is none.
  const std::string& param() const { return param_; }
  // OpenAI's machine-readable code such as "context_length_exceeded"; empty when there is none.
  const std::string& error_code() const { return error_code_; }

 private:
  StatusCode code_ = StatusCode::kOk;
  std::string message_;
  std::string param_;
  std::string error_code_;
};

inline Status ok_status() { return {}; }
inline Status invalid_argument(std::string message, std::string param = {}, std::string error_code = {}) {
  return {StatusCode::kInvalidArgument, std::move(message), std::move(param), std::move(error_code)};
}
inline Status not_found(std::string message, std::string param = {}) {
  return {StatusCode::kNotFound, std::move(message), std::move(param)};
}
inline Status data_loss(std::string message) { return {StatusCode::kDataLoss, std::move(message)}; }
inline Status unsupported(std::string message, std::string param = {}) {
  return {StatusCode::kUnsupported, std::move(message), std::move(param)};
}
inline Status unavailable(std::string message) { return {StatusCode::kUnavailable, std::move(message)}; }
inline Status internal_error(std::string message) { return {StatusCode::kInternal, std::move(message)}; }

}  // namespace sextant
