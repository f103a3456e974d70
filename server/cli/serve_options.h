// ServeOptions: all that `sextant serve` can be told, each default once: the engine's settings (engine/config.h) and the
// server's own. Filled from a config file, the environment and flags (which win), validated, then frozen.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "engine/base/status.h"
#include "engine/config.h"
#include "server/cli/settings.h"
#include "server/gateway/audit_log.h"
#include "server/gateway/fair_use.h"
#include "server/http/limits.h"
#include "server/http/tls_certificates.h"
#include "server/openai/api.h"

namespace sextant::cli {

struct ServerConfig {
  std::string host = "127.0.0.1";
  int64_t port = 8000;  // 0: the kernel picks one
  std::string api_key;  // inference key; never printed or logged
  bool allow_unauthenticated = false;
  http::TlsOptions tls;
  std::string state_dir;     // keys, tenants and usage, in SQLite
  std::string database_url;  // or in PostgreSQL; may hold a password
  std::string jwks;          // keys of signed tokens: a file or a URL
  int64_t jwks_refresh_s = 300;
  std::string jwt_audience;
  std::string jwt_issuer;
  std::string jwt_roles_claim = "roles";
  std::string jwt_tenant_claim = "tenant";
  int64_t jwt_leeway = 60;  // seconds
  UsageLimits key_limits;   // of a key that states no others, nor its tenant
  double unauthenticated_per_s = FairUse::Options{}.unauthenticated_per_s;
  double failed_logins_per_minute = FairUse::Options{}.failed_logins_per_minute;
  std::string trusted_proxies;
  std::string redis_url;       // limits of keys are shared by all that name it; may hold a password
  std::string redis_password;  // where the URL has none
  int64_t redis_timeout_ms = 100;
  int64_t shed_above_requests = FairUse::Options{}.shed_above_requests;
  int64_t shed_max_tokens = FairUse::Options{}.shed_max_tokens;
  std::string shed_fallback_model;
  int64_t shutdown_timeout = 30;  // seconds
  int64_t max_body_bytes = static_cast<int64_t>(http::Limits{}.max_body_bytes);
  int64_t max_connections = static_cast<int64_t>(http::Limits{}.max_connections);
  int64_t max_connections_per_address = static_cast<int64_t>(http::Limits{}.max_connections_of_client);
  int64_t header_timeout_ms = http::Limits{}.header_timeout.count();
  int64_t body_timeout_ms = http::Limits{}.body_timeout.count();
  int64_t idle_timeout_ms = http::Limits{}.idle_timeout.count();
  int64_t write_timeout_ms = http::Limits{}.write_timeout.count();
  int64_t response_cache_bytes = openai::ApiOptions{}.response_cache_bytes;
  int64_t response_cache_ttl_s = openai::ApiOptions{}.response_cache_ttl_s;
  std::string audit_log;       // folder; empty: no audit log
  std::string audit_key_file;  // empty: not encrypted
  int64_t audit_retention_days = 0;
  int64_t audit_file_bytes = AuditOptions{}.max_file_bytes;
  bool audit_prompts = false;
  bool audit_required = false;
  std::string backup_dir;       // empty: no backups are made
  int64_t backup_interval = 0;  // seconds; 0: only when asked
  int64_t backup_keep = 24;
  double price_usd_per_hour = 0;  // 0: unknown
  int64_t sse_heartbeat_s = openai::ApiOptions{}.sse_heartbeat_s;
  int64_t num_io_threads = 2;
  int64_t num_text_threads = static_cast<int64_t>(openai::ApiOptions{}.num_text_threads);
  std::string log_level = "info";   // debug, info, warning, error
  std::string log_format = "text";  // text, json
  bool access_log = false;
  std::string otlp_traces_endpoint;  // empty: no traces

  std::vector<Status> validate() const;
  http::Limits limits() const;
  bool asks_for_keys() const { return !api_key.empty() || keeps_state() || !jwks.empty(); }
  bool keeps_state() const { return !state_dir.empty() || !database_url.empty(); }
};

// uvicorn's and vLLM's names.
template <typename Config, typename Visitor>
void visit_tls_options(Config& tls, Visitor&& visitor) {
  visitor("ssl_certfile", tls.certfile,
          "serve HTTPS: PEM file of the certificate and those between it and its root; read again when it changes");
  visitor("ssl_keyfile", tls.keyfile, "PEM file of its private key, where that is not in ssl_certfile");
  visitor("ssl_keyfile_password", tls.keyfile_password,
          "of an encrypted key; better in SEXTANT_SSL_KEYFILE_PASSWORD, where ps does not show it");
  visitor("ssl_ca_certs", tls.ca_certs, "PEM file of the authorities that may sign clients' certificates");
  visitor("ssl_cert_reqs", tls.cert_reqs,
          "certificates of clients: 0 none, 1 a bad one is refused, 2 demanded; keys are asked for as well");
}

// As visit_engine_config.
template <typename Config, typename Visitor>
void visit_server_config(Config& config, Visitor&& visitor) {
  visitor("host", config.host, "address or name to listen on; 0.0.0.0 and :: are all interfaces");
  visitor("port", config.port, "port to listen on; 0 lets the kernel pick one");
  visitor("api_key", config.api_key,
          "key that API requests must carry; better in SEXTANT_API_KEY, where ps does not show it");
  visitor("allow_unauthenticated", config.allow_unauthenticated, "listen beyond this machine without an API key");
  visit_tls_options(config.tls, visitor);
  visitor("state_dir", config.state_dir,
          "folder of API keys, tenants and usage: from then on a key is asked for (sextant admin keys create makes the "
          "first)");
  visitor("database_url", config.database_url, "the same in PostgreSQL: postgresql://user@host/name, for replicas");
  visitor("jwks", config.jwks,
          "keys of signed tokens (JWT; HS256, RS256, ES256), a JWK set in a file or at an http(s) URL");
  visitor("jwks_refresh_s", config.jwks_refresh_s,
          "seconds after which these are read again; sooner, but not within 10 s, for a key id that is not known");
  visitor("jwt_audience", config.jwt_audience, "what a token's aud must hold");
  visitor("jwt_issuer", config.jwt_issuer, "what a token's iss must be");
  visitor("jwt_roles_claim", config.jwt_roles_claim, "claim that lists roles; a.b is b inside a");
  visitor("jwt_tenant_claim", config.jwt_tenant_claim, "claim that names the tenant");
  visitor("jwt_leeway", config.jwt_leeway, "seconds by which clocks may differ");
  visitor("limit_requests_per_s", config.key_limits.requests_per_s,
          "requests per second of a key that states no other limit; 0: any");
  visitor("limit_request_burst", config.key_limits.request_burst, "of these, so many at once");
  visitor("limit_tokens_per_minute", config.key_limits.tokens_per_minute,
          "tokens per minute of a key, reserved as prompt + max_tokens, given back at the end; 0: any");
  visitor("limit_tokens_per_day", config.key_limits.tokens_per_day, "tokens per day (UTC) of a tenant; 0: any");
  visitor("limit_concurrent_requests", config.key_limits.concurrent_requests, "requests at once of a key; 0: any");
  visitor("limit_max_tokens", config.key_limits.max_tokens, "largest max_tokens of a key; 0: any");
  visitor("limit_max_n", config.key_limits.max_n, "most choices of a key's request; 0: any");
  visitor("limit_max_context", config.key_limits.max_context, "longest prompt and answer of a key; 0: the model's");
  visitor("unauthenticated_per_s", config.unauthenticated_per_s,
          "requests per second without a key from one address, where keys are asked for; 0: any");
  visitor("failed_logins_per_minute", config.failed_logins_per_minute,
          "wrong keys per minute from one address; more get 429; 0: any");
  visitor("trusted_proxies", config.trusted_proxies,
          "addresses and networks whose X-Forwarded-For is believed: 10.0.0.0/8, 192.168.1.7");
  visitor(
      "redis_url", config.redis_url,
      "limits of keys are one for all servers that name this Redis: redis://[:password@]host:port/0; without an answer "
      "each counts alone");
  visitor("redis_password", config.redis_password,
          "of Redis, where the URL has none; better in SEXTANT_REDIS_PASSWORD, where ps does not show it");
  visitor("redis_timeout_ms", config.redis_timeout_ms, "time Redis has for an answer; later the server decides alone");
  visitor("shed_above_requests", config.shed_above_requests,
          "with more waiting requests than these, load is shed; 0: never");
  visitor("shed_max_tokens", config.shed_max_tokens,
          "what is shed gets at most so many tokens; 0: it is refused with 503");
  visitor("shed_fallback_model", config.shed_fallback_model, "what is shed goes to this model (needs a second model)");
  visitor("shutdown_timeout", config.shutdown_timeout, "seconds that running requests get to finish on SIGTERM");
  visitor("max_body_bytes", config.max_body_bytes, "largest request body; a larger one gets 413");
  visitor("max_connections", config.max_connections, "connections at once; one more gets 503");
  visitor("max_connections_per_address", config.max_connections_per_address,
          "connections at once of one address (of IPv6, one /64) that is no trusted proxy; one more gets 503; 0: any");
  visitor("header_timeout_ms", config.header_timeout_ms, "time a client has to send a request's header");
  visitor("body_timeout_ms", config.body_timeout_ms, "time a client has to begin sending a body at a fair rate");
  visitor("idle_timeout_ms", config.idle_timeout_ms, "time a connection may stay open between requests");
  visitor("write_timeout_ms", config.write_timeout_ms, "time a client may take no byte of an answer");
  visitor("response_cache_bytes", config.response_cache_bytes,
          "room for answers to requests at temperature 0 or with a seed, such as 256MiB, by tenant; 0: none are kept");
  visitor("response_cache_ttl_s", config.response_cache_ttl_s, "age at which a kept answer is forgotten");
  visitor("audit_log", config.audit_log,
          "folder of the audit log: each request, admin action and refusal, chained by hashes (sextant admin audit)");
  visitor("audit_key_file", config.audit_key_file,
          "file of 64 hexadecimal digits (openssl rand -hex 32) that the audit log is encrypted with");
  visitor("audit_retention_days", config.audit_retention_days, "age at which audit records are deleted; 0: never");
  visitor("audit_file_bytes", config.audit_file_bytes, "size at which the audit log goes on in another file");
  visitor("audit_prompts", config.audit_prompts, "prompts go into the audit log");
  visitor("audit_required", config.audit_required,
          "while the audit log cannot be written (a full disk) requests get 503, rather than be served unrecorded");
  visitor("backup_dir", config.backup_dir,
          "folder for backups of the state, the configuration and the knowledge base (sextant admin restore)");
  visitor("backup_interval", config.backup_interval, "seconds from one backup to the next, such as 300; 0: when asked");
  visitor("backup_keep", config.backup_keep, "so many backups stay, the newest; 0: all");
  visitor("price_usd_per_hour", config.price_usd_per_hour,
          "what this process's machine costs, for llm_cost_usd_total; 0: no such series");
  visitor("sse_heartbeat_s", config.sse_heartbeat_s,
          "seconds of silence after which a stream gets a comment, for proxies that close silent ones; 0: none");
  visitor("num_io_threads", config.num_io_threads, "threads that read and write sockets");
  visitor("num_text_threads", config.num_text_threads, "threads for JSON, templates and tokenisation");
  visitor("log_level", config.log_level, "debug, info, warning, error");
  visitor("log_format", config.log_format, "text, or json: one object per line");
  visitor("access_log", config.access_log, "a line for each request at level info, not debug");
  visitor("otlp_traces_endpoint", config.otlp_traces_endpoint,
          "collector of traces (OTLP/HTTP JSON): http://collector:4318/v1/traces; headers: OTEL_EXPORTER_OTLP_HEADERS");
}

struct ServeOptions {
  EngineConfig engine;
  ServerConfig server;
  bool print_config = false;
  std::vector<Setting> of_verb;  // a verb's own, beside the server's and the engine's

  // In the order of --help. The pointers are into this object.
  std::vector<Setting> settings();
};

// What was typed, before it means anything.
struct ServeArguments {
  GivenFlags flags;
  std::string positional_model;
  std::string config_path;
  bool print_config = false;
};

using Environment = std::function<const char*(const char* name)>;

// Every error at once; `options` is only meaningful when there is none. Environment: SEXTANT_API_KEY,
// SEXTANT_STATE_DIR, SEXTANT_DATABASE_URL, SEXTANT_REDIS_URL, SEXTANT_REDIS_PASSWORD, SEXTANT_GROUP_SECRET,
// SEXTANT_SSL_KEYFILE_PASSWORD.
std::vector<Status> resolve_serve_options(const ServeArguments& arguments, const Environment& environment,
                                          ServeOptions& options);

// 127.0.0.0/8, ::1 and "localhost".
bool is_loopback_host(const std::string& host);

}  // namespace sextant::cli
