#include "server/cli/log_sink.h"

#include <chrono>
#include <cmath>
#include <cstdio>
#include <memory>
#include <string_view>

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>
#include <nlohmann/json.hpp>

#include "engine/base/log.h"
#include "server/gateway/identity.h"

namespace sextant::cli {
namespace {

constexpr size_t kMaxLoggedPath = 512;

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

bool& writes_json() {
  static bool is_json = false;
  return is_json;
}

// `fields` come after what every line has.
std::string json_line(LogLevel level, std::string_view message, const nlohmann::ordered_json& fields = {}) {
  const auto since_epoch = std::chrono::system_clock::now().time_since_epoch();
  const double now_s = std::chrono::duration<double>(since_epoch).count();
  nlohmann::ordered_json object = {{"time", now_s}, {"level", level_name(level)}, {"message", message}};
  if (fields.is_object()) object.update(fields);
  // Messages may quote what a client or a file said.
  return object.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace

void install_log_sink(const std::string& level, const std::string& format) {
  auto logger = std::make_shared<spdlog::logger>("sextant", std::make_shared<spdlog::sinks::stderr_sink_mt>());
  const bool as_json = format == "json";
  writes_json() = as_json;
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

void log_request(const http::RequestRecord& record, bool at_info) {
  const LogLevel level = at_info ? LogLevel::kInfo : LogLevel::kDebug;
  const std::shared_ptr<spdlog::logger>& logger = installed_logger();
  if (!logger || !logger->should_log(spdlog_level(level))) return;
  const http::RequestNotes* notes = record.notes;
  const bool has_trace = notes != nullptr && notes->trace;
  // A path is whatever a client sent: it ends no line here.
  std::string path;
  for (const char c : record.path.substr(0, kMaxLoggedPath)) path += (c >= 0 && c < ' ') || c == 0x7f ? '?' : c;
  const std::string message = std::string(record.method) + " " + path + " " + std::to_string(record.status);
  if (!writes_json()) {
    char duration[32];
    std::snprintf(duration, sizeof duration, "%.3f", record.duration_s * 1e3);
    std::string line = message + " from " + std::string(record.client_address) + " in " + duration +
                       " ms, request id " + std::string(record.request_id);
    if (has_trace) line += ", trace id " + notes->trace->trace_id_text();
    logger->log(spdlog_level(level), spdlog::string_view_t(line));
    return;
  }
  nlohmann::ordered_json fields;
  fields["request_id"] = record.request_id;
  if (has_trace) {
    fields["trace_id"] = notes->trace->trace_id_text();
    fields["span_id"] = http::hex_text(notes->trace->span_id.data(), notes->trace->span_id.size());
  }
  fields["method"] = record.method;
  fields["path"] = path;
  fields["status"] = record.status;
  fields["duration_ms"] = std::round(record.duration_s * 1e6) / 1e3;
  fields["client_address"] = record.client_address;
  fields["request_bytes"] = record.request_bytes;
  fields["response_bytes"] = record.response_bytes;
  if (record.client_gone) fields["client_gone"] = true;
  if (notes != nullptr && notes->identity != nullptr && !notes->identity->key_id.empty()) {
    fields["tenant"] = notes->identity->tenant;
    fields["key_id"] = notes->identity->key_id;
  }
  if (notes != nullptr && !notes->model.empty()) {
    fields["model"] = notes->model;
    fields["prompt_tokens"] = notes->prompt_tokens;
    fields["completion_tokens"] = notes->completion_tokens;
    fields["finish_reason"] = notes->finish_reason;
  }
  logger->log(spdlog_level(level), spdlog::string_view_t(json_line(level, message, fields)));
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
