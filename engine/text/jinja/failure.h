// How the interpreter stops: by an exception that never leaves ChatTemplate::parse or render.
#pragma once

#include <string>

namespace sextant::jinja {

enum class FailureKind {
  kSyntax,
  kRuntime,
  kRaised,  // raise_exception(): the message is the template author's
  kLimit,
};

struct Failure {
  FailureKind kind = FailureKind::kRuntime;
  int line = 0;  // 0: filled in by the evaluator
  std::string message;
};

[[noreturn]] inline void fail(std::string message) { throw Failure{FailureKind::kRuntime, 0, std::move(message)}; }
[[noreturn]] inline void fail_limit(std::string message) { throw Failure{FailureKind::kLimit, 0, std::move(message)}; }

}  // namespace sextant::jinja
