#include "server/cli/serve_options.h"

#include <iterator>

#include <boost/asio/ip/address.hpp>

#include "engine/format/json_file.h"

namespace sextant::cli {
namespace {

// A config file is a page, not a disk.
constexpr size_t kMaxConfigBytes = 1 << 20;

void append(std::vector<Status>& errors, std::vector<Status> more) {
  errors.insert(errors.end(), std::make_move_iterator(more.begin()), std::make_move_iterator(more.end()));
}

}  // namespace

bool is_loopback_host(const std::string& host) {
  if (host == "localhost") return true;
  boost::system::error_code error;
  const auto address = boost::asio::ip::make_address(host, error);
  return !error && address.is_loopback();
}

std::vector<Status> ServerConfig::validate() const {
  std::vector<Status> errors;
  const auto check = [&](bool ok, const char* key, const std::string& message) {
    if (!ok) errors.push_back(invalid_argument(std::string(key) + " " + message, key));
  };
  const auto check_range = [&](int64_t value, int64_t low, int64_t high, const char* key) {
    check(value >= low && value <= high, key,
          "must be between " + std::to_string(low) + " and " + std::to_string(high) + ", not " + std::to_string(value));
  };
  constexpr int64_t kDayMs = 24 * 3600 * 1000;
  check(!host.empty(), "host", "must not be empty");
  check_range(port, 0, 65535, "port");
  check(api_key.find_first_of(" \t\r\n") == std::string::npos, "api_key", "must not hold white space");
  check(!api_key.empty() || allow_unauthenticated || is_loopback_host(host), "host",
        "'" + host +
            "' is reachable from other machines: set an API key (SEXTANT_API_KEY), or say "
            "--allow-unauthenticated to serve everyone who can connect");
  check_range(shutdown_timeout, 0, 24 * 3600, "shutdown_timeout");
  check_range(max_body_bytes, 1024, int64_t{1} << 32, "max_body_bytes");
  check_range(max_connections, 1, 1 << 20, "max_connections");
  check_range(header_timeout_ms, 1, kDayMs, "header_timeout_ms");
  check_range(body_timeout_ms, 1, kDayMs, "body_timeout_ms");
  check_range(idle_timeout_ms, 1, kDayMs, "idle_timeout_ms");
  check_range(write_timeout_ms, 1, kDayMs, "write_timeout_ms");
  check_range(num_io_threads, 1, 256, "num_io_threads");
  check_range(num_text_threads, 1, 256, "num_text_threads");
  check(log_level == "debug" || log_level == "info" || log_level == "warning" || log_level == "error", "log_level",
        "must be one of debug, info, warning, error, not '" + log_level + "'");
  check(log_format == "text" || log_format == "json", "log_format", "must be text or json, not '" + log_format + "'");
  return errors;
}

http::Limits ServerConfig::limits() const {
  http::Limits limits;
  limits.max_body_bytes = static_cast<size_t>(max_body_bytes);
  limits.max_connections = static_cast<size_t>(max_connections);
  limits.header_timeout = std::chrono::milliseconds(header_timeout_ms);
  limits.body_timeout = std::chrono::milliseconds(body_timeout_ms);
  limits.idle_timeout = std::chrono::milliseconds(idle_timeout_ms);
  limits.write_timeout = std::chrono::milliseconds(write_timeout_ms);
  return limits;
}

std::vector<Setting> ServeOptions::settings() {
  std::vector<Setting> settings = of_verb;
  SettingCollector collector(settings);
  visit_engine_config(engine, collector);
  visit_server_config(server, collector);
  return settings;
}

std::vector<Status> resolve_serve_options(const ServeArguments& arguments, const Environment& environment,
                                          ServeOptions& options) {
  std::vector<Status> errors;
  options.print_config = arguments.print_config;
  const std::vector<Setting> settings = options.settings();
  if (!arguments.config_path.empty()) {
    Result<std::string> text = read_text_file(arguments.config_path, kMaxConfigBytes);
    if (text.ok()) {
      append(errors, apply_config_text(settings, *text, arguments.config_path));
    } else {
      errors.push_back(text.status());
    }
  }
  if (const char* key = environment("SEXTANT_API_KEY"); key != nullptr && *key != '\0') options.server.api_key = key;
  if (const char* secret = environment("SEXTANT_GROUP_SECRET"); secret != nullptr && *secret != '\0') {
    options.engine.parallel.group_secret = secret;
  }
  append(errors, apply_flags(settings, arguments.flags));
  if (!arguments.positional_model.empty()) {
    for (const auto& [key, text] : arguments.flags) {
      if (key == "model") {
        errors.push_back(invalid_argument(
            "model is given twice: as '" + arguments.positional_model + "' and as --model '" + text + "'", "model"));
      }
    }
    options.engine.model.model = arguments.positional_model;
  }
  for (std::vector<Status> invalid : {options.engine.validate(), options.server.validate()}) {
    for (Status& error : invalid) {
      // What a server would need is no error of a printed configuration.
      const bool only_missing = error.param() == "model" && options.engine.model.model.empty();
      if (!(arguments.print_config && only_missing)) errors.push_back(std::move(error));
    }
  }
  return errors;
}

}  // namespace sextant::cli
