#include "server/cli/serve_options.h"

#include <iterator>

#include <boost/asio/ip/address.hpp>

#include "engine/format/json_file.h"
#include "server/gateway/client_address.h"
#include "server/gateway/jwks_source.h"
#include "server/otlp/trace_exporter.h"
#include "server/redis/redis_url.h"

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
  check(asks_for_keys() || allow_unauthenticated || is_loopback_host(host), "host",
        "'" + host +
            "' is reachable from other machines: set an API key (SEXTANT_API_KEY), keep keys in --state-dir, or say "
            "--allow-unauthenticated to serve everyone who can connect");
  append(errors, http::TlsCertificates::check(tls));
  check(state_dir.empty() || database_url.empty(), "database_url",
        "and state_dir exclude each other: state is in one place");
  check(database_url.empty() || database_url.starts_with("postgresql://") || database_url.starts_with("postgres://"),
        "database_url", "must begin with postgresql://; for a folder there is state_dir");
  check_range(jwks_refresh_s, 1, 24 * 3600, "jwks_refresh_s");
  check(jwks.empty() || !jwt_audience.empty(), "jwt_audience",
        "must be given with jwks: else tokens made for other services would be taken");
  check(jwks.empty() || !jwt_issuer.empty(), "jwt_issuer", "must be given with jwks");
  check(!jwks.empty() || (jwt_audience.empty() && jwt_issuer.empty()), "jwks",
        "must be given with jwt_audience and jwt_issuer");
  if (is_jwks_url(jwks)) {
    if (Status status = check_jwks_url(jwks); !status.ok()) errors.push_back(std::move(status));
  }
  check(!jwt_roles_claim.empty(), "jwt_roles_claim", "must not be empty");
  check(!jwt_tenant_claim.empty(), "jwt_tenant_claim", "must not be empty");
  check_range(jwt_leeway, 0, 3600, "jwt_leeway");
  const auto check_rate = [&](double value, const char* key) {
    check(value >= 0 && value <= 1e9, key, "must be from 0 to 1e9");
  };
  check_rate(key_limits.requests_per_s, "limit_requests_per_s");
  check_rate(key_limits.request_burst, "limit_request_burst");
  check_rate(unauthenticated_per_s, "unauthenticated_per_s");
  check_rate(failed_logins_per_minute, "failed_logins_per_minute");
  constexpr int64_t kMostTokens = int64_t{1} << 50;
  check_range(key_limits.tokens_per_minute, 0, int64_t{1} << 30, "limit_tokens_per_minute");
  check_range(key_limits.tokens_per_day, 0, kMostTokens, "limit_tokens_per_day");
  check_range(key_limits.concurrent_requests, 0, 1 << 20, "limit_concurrent_requests");
  check_range(key_limits.max_tokens, 0, kMostTokens, "limit_max_tokens");
  check_range(key_limits.max_n, 0, 1 << 20, "limit_max_n");
  check_range(key_limits.max_context, 0, kMostTokens, "limit_max_context");
  check_range(shed_above_requests, 0, 1 << 20, "shed_above_requests");
  check_range(shed_max_tokens, 0, kMostTokens, "shed_max_tokens");
  check(shed_fallback_model.empty(), "shed_fallback_model",
        "needs a second model in this process, which cannot be served yet; shed_max_tokens and refusal are there");
  if (const auto proxies = TrustedProxies::parse(trusted_proxies); !proxies.ok()) errors.push_back(proxies.status());
  if (!redis_url.empty()) {
    if (const auto address = redis::parse_url(redis_url, redis_password); !address.ok())
      errors.push_back(address.status());
    check(asks_for_keys(), "redis_url", "shares limits of keys, and this server asks nobody for a key");
  }
  check_range(redis_timeout_ms, 1, 60'000, "redis_timeout_ms");
  check_range(shutdown_timeout, 0, 24 * 3600, "shutdown_timeout");
  check_range(max_body_bytes, 1024, int64_t{1} << 32, "max_body_bytes");
  check_range(max_connections, 1, 1 << 20, "max_connections");
  check_range(max_connections_per_address, 0, 1 << 20, "max_connections_per_address");
  check_range(header_timeout_ms, 1, kDayMs, "header_timeout_ms");
  check_range(body_timeout_ms, 1, kDayMs, "body_timeout_ms");
  check_range(idle_timeout_ms, 1, kDayMs, "idle_timeout_ms");
  check_range(write_timeout_ms, 1, kDayMs, "write_timeout_ms");
  check_range(response_cache_bytes, 0, int64_t{1} << 40, "response_cache_bytes");
  check_range(response_cache_ttl_s, 1, 365 * 24 * 3600, "response_cache_ttl_s");
  check(
      !audit_log.empty() || (audit_key_file.empty() && !audit_prompts && !audit_required && audit_retention_days == 0),
      "audit_log", "must be given with the other settings of the audit log");
  if (const auto key = read_audit_key(audit_key_file); !key.ok()) errors.push_back(key.status());
  check_range(audit_retention_days, 0, 36500, "audit_retention_days");
  check_range(audit_file_bytes, 4096, int64_t{1} << 40, "audit_file_bytes");
  check(!backup_dir.empty() || backup_interval == 0, "backup_dir", "must be given with backup_interval");
  check(backup_dir.empty() || !state_dir.empty(), "backup_dir",
        "needs --state-dir, which it copies (of PostgreSQL there are pg_dump and continuous archiving)");
  check_range(backup_interval, 0, 365 * 24 * 3600, "backup_interval");
  check_range(backup_keep, 0, 1 << 20, "backup_keep");
  check(price_usd_per_hour >= 0 && price_usd_per_hour <= 1e6, "price_usd_per_hour", "must be between 0 and 1000000");
  check_range(sse_heartbeat_s, 0, 24 * 3600, "sse_heartbeat_s");
  check_range(num_io_threads, 1, 256, "num_io_threads");
  check_range(num_text_threads, 1, 256, "num_text_threads");
  check(log_level == "debug" || log_level == "info" || log_level == "warning" || log_level == "error", "log_level",
        "must be one of debug, info, warning, error, not '" + log_level + "'");
  check(log_format == "text" || log_format == "json", "log_format", "must be text or json, not '" + log_format + "'");
  if (!otlp_traces_endpoint.empty()) {
    if (auto url = otlp::traces_url(otlp_traces_endpoint); !url.ok()) errors.push_back(url.status());
  }
  return errors;
}

http::Limits ServerConfig::limits() const {
  http::Limits limits;
  limits.max_body_bytes = static_cast<size_t>(max_body_bytes);
  limits.max_websocket_message_bytes = std::min(limits.max_websocket_message_bytes, limits.max_body_bytes);
  limits.max_connections = static_cast<size_t>(max_connections);
  limits.max_connections_of_client = static_cast<size_t>(max_connections_per_address);
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
  if (const char* dir = environment("SEXTANT_STATE_DIR"); dir != nullptr && *dir != '\0')
    options.server.state_dir = dir;
  if (const char* url = environment("SEXTANT_DATABASE_URL"); url != nullptr && *url != '\0') {
    options.server.database_url = url;
  }
  if (const char* url = environment("SEXTANT_REDIS_URL"); url != nullptr && *url != '\0')
    options.server.redis_url = url;
  if (const char* password = environment("SEXTANT_REDIS_PASSWORD"); password != nullptr && *password != '\0') {
    options.server.redis_password = password;
  }
  if (const char* secret = environment("SEXTANT_GROUP_SECRET"); secret != nullptr && *secret != '\0') {
    options.engine.parallel.group_secret = secret;
  }
  if (const char* password = environment("SEXTANT_SSL_KEYFILE_PASSWORD"); password != nullptr && *password != '\0') {
    options.server.tls.keyfile_password = password;
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
