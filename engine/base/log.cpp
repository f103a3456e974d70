#include "engine/base/log.h"

#include <cstdio>
#include <utility>

namespace sextant {
namespace {

LogSink& sink() {
  static LogSink instance;
  return instance;
}

}  // namespace

void set_log_sink(LogSink new_sink) { sink() = std::move(new_sink); }

void log(LogLevel level, std::string_view message) {
  if (sink()) {
    sink()(level, message);
    return;
  }
  if (level == LogLevel::kDebug) return;
  static constexpr const char* kNames[] = {"debug", "info", "warning", "error"};
  std::fprintf(stderr, "[%s] %.*s\n", kNames[static_cast<int>(level)], static_cast<int>(message.size()),
               message.data());
}

}  // namespace sextant
