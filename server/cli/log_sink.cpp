#include "server/cli/log_sink.h"

#include <chrono>
#include <memory>
#include <string_view>

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>
#include <nlohmann/json.hpp>

#include "engine/base/log.h"

namespace sextant::cli {
namespace {

spdlog::level::level_enum spdlog_level(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug: return spdlog::level::debug;
    case LogLevel::kInfo: return spdlog::level::info;
    case LogLevel::kWarning: return spdlog::level::warn;
    case LogLevel::kError: return spdlog::level::err;
  }
  return spdlog::level::info;
}

const char* level_name(LogLevel level) {
  static constexpr const char* kNames[] = {"debug", "info", "warning", "error"};
  return kNames[static_cast<int>(level)];
}

spdlog::level::level_enum level_of(const std::string& name) {
  return name == "warning" ? spdlog::level::warn : name == "error" ? spdlog::level::err : spdlog::level::from_str(name);
}

// Set once, before threads start; its level is atomic.
std::shared_ptr<spdlog::logger>& installed_logger() {
  static std::shared_ptr<spdlog::logger> logger;
  return logger;
}

std::string json_line(LogLevel level, std::string_view message) {
  const auto since_epoch = std::chrono::system_clock::now().time_since_epoch();
  const double now_s = std::chrono::duration<double>(since_epoch).count();
  const nlohmann::ordered_json object = {{"time", now_s}, {"level", level_name(level)}, {"message", message}};
  // Messages may quote what a client or a file said.
  return object.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace

void install_log_sink(const std::string& level, const std::string& format) {
  auto logger = std::make_shared<spdlog::logger>("sextant", std::make_shared<spdlog::sinks::stderr_sink_mt>());
  const bool as_json = format == "json";
  logger->set_pattern(as_json ? "%v" : "%Y-%m-%d %H:%M:%S.%e %l: %v");
  logger->set_level(level_of(level));
  installed_logger() = logger;
  logger->flush_on(spdlog::level::trace);
  set_log_sink([logger, as_json](LogLevel line_level, std::string_view message) {
    if (!logger->should_log(spdlog_level(line_level))) return;
    if (as_json) {
      logger->log(spdlog_level(line_level), spdlog::string_view_t(json_line(line_level, message)));
    } else {
      logger->log(spdlog_level(line_level), spdlog::string_view_t(message.data(), message.size()));
    }
  });
}

bool set_log_level(const std::string& level) {
  if (level != "debug" && level != "info" && level != "warning" && level != "error") return false;
  if (installed_logger()) installed_logger()->set_level(level_of(level));
  return true;
}

std::string log_level() {
  if (!installed_logger()) return "info";
  switch (installed_logger()->level()) {
    case spdlog::level::debug: return "debug";
    case spdlog::level::warn: return "warning";
    case spdlog::level::err: return "error";
    default: return "info";
  }
}

}  // namespace sextant::cli
