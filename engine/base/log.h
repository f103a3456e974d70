// Logging for code below server/: a line goes to the sink that server/ installs (spdlog there), to stderr before that.
// Threads: log() from any; set_log_sink() before the threads start.
#pragma once

#include <functional>
#include <sstream>
#include <string>
#include <string_view>

namespace sextant {

enum class LogLevel { kDebug, kInfo, kWarning, kError };

using LogSink = std::function<void(LogLevel, std::string_view message)>;

void set_log_sink(LogSink sink);
void log(LogLevel level, std::string_view message);

namespace internal {
class LogLine {
 public:
  explicit LogLine(LogLevel level) : level_(level) {}
  ~LogLine() { log(level_, stream_.str()); }
  std::ostream& stream() { return stream_; }

 private:
  LogLevel level_;
  std::ostringstream stream_;
};
}  // namespace internal

}  // namespace sextant

#define LOG_DEBUG ::sextant::internal::LogLine(::sextant::LogLevel::kDebug).stream()
#define LOG_INFO ::sextant::internal::LogLine(::sextant::LogLevel::kInfo).stream()
#define LOG_WARNING ::sextant::internal::LogLine(::sextant::LogLevel::kWarning).stream()
#define LOG_ERROR ::sextant::internal::LogLine(::sextant::LogLevel::kError).stream()
