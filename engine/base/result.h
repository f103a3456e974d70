// Result<T>: a value, or the Status that says why there is none.
#pragma once

#include <optional>
#include <utility>

#include "engine/base/check.h"
#include "engine/base/status.h"

namespace sextant {

template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : value_(std::move(value)) {}         // NOLINT(google-explicit-constructor): return value;
  Result(Status status) : status_(std::move(status)) {  // NOLINT(google-explicit-constructor): return status;
    CHECK(!status_.ok()) << "a Result made from an ok Status has no value";
  }

  bool ok() const { return value_.has_value(); }
  explicit operator bool() const { return ok(); }
  const Status& status() const { return status_; }

  T& value() & { return checked(), *value_; }
  const T& value() const& { return checked(), *value_; }
  T&& value() && { return checked(), std::move(*value_); }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(*this).value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }

 private:
  void checked() const { CHECK(value_.has_value()) << status_.message(); }

  std::optional<T> value_;
  Status status_;
};

}  // namespace sextant

// RETURN_IF_ERROR(expression of type Status);  ASSIGN_OR_RETURN(auto x, expression of type Result<T>);
#define SEXTANT_CONCAT_(a, b) a##b
#define SEXTANT_CONCAT(a, b) SEXTANT_CONCAT_(a, b)
#define RETURN_IF_ERROR(expression)                                                                   \
  do {                                                                                                \
    if (::sextant::Status sextant_status = (expression); !sextant_status.ok()) return sextant_status; \
  } while (false)
#define ASSIGN_OR_RETURN(declaration, expression) \
  SEXTANT_ASSIGN_OR_RETURN_(SEXTANT_CONCAT(result_, __LINE__), declaration, expression)
#define SEXTANT_ASSIGN_OR_RETURN_(result, declaration, expression) \
  auto result = (expression);                                      \
  if (!result.ok()) return result.status();                        \
  declaration = std::move(result).value()
