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
#include "server/http/limits.h"
#include "server/openai/api.h"

namespace sextant::cli {

struct ServerConfig {
  std::string host = "127.0.0.1";
  int64_t port = 8000;  // 0: the kernel picks one
  std::string api_key;  // inference key; never printed or logged
  bool allow_unauthenticated = false;
  int64_t shutdown_timeout = 30;  // seconds
  int64_t max_body_bytes = static_cast<int64_t>(http::Limits{}.max_body_bytes);
  int64_t max_connections = static_cast<int64_t>(http::Limits{}.max_connections);
  int64_t header_timeout_ms = http::Limits{}.header_timeout.count();
  int64_t body_timeout_ms = http::Limits{}.body_timeout.count();
  int64_t idle_timeout_ms = http::Limits{}.idle_timeout.count();
  int64_t write_timeout_ms = http::Limits{}.write_timeout.count();
  int64_t num_io_threads = 2;
  int64_t num_text_threads = static_cast<int64_t>(openai::ApiOptions{}.num_text_threads);
  std::string log_level = "info";   // debug, info, warning, error
  std::string log_format = "text";  // text, json

  std::vector<Status> validate() const;
  http::Limits limits() const;
};

// As visit_engine_config.
template <typename Config, typename Visitor>
void visit_server_config(Config& config, Visitor&& visitor) {
  visitor("host", config.host, "address or name to listen on; 0.0.0.0 and :: are all interfaces");
  visitor("port", config.port, "port to listen on; 0 lets the kernel pick one");
  visitor("api_key", config.api_key,
          "key that API requests must carry; better in SEXTANT_API_KEY, where ps does not show it");
  visitor("allow_unauthenticated", config.allow_unauthenticated, "listen beyond this machine without an API key");
  visitor("shutdown_timeout", config.shutdown_timeout, "seconds that running requests get to finish on SIGTERM");
  visitor("max_body_bytes", config.max_body_bytes, "largest request body; a larger one gets 413");
  visitor("max_connections", config.max_connections, "connections at once; one more gets 503");
  visitor("header_timeout_ms", config.header_timeout_ms, "time a client has to send a request's header");
  visitor("body_timeout_ms", config.body_timeout_ms, "time a client has to begin sending a body at a fair rate");
  visitor("idle_timeout_ms", config.idle_timeout_ms, "time a connection may stay open between requests");
  visitor("write_timeout_ms", config.write_timeout_ms, "time a client may take no byte of an answer");
  visitor("num_io_threads", config.num_io_threads, "threads that read and write sockets");
  visitor("num_text_threads", config.num_text_threads, "threads for JSON, templates and tokenisation");
  visitor("log_level", config.log_level, "debug, info, warning, error");
  visitor("log_format", config.log_format, "text, or json: one object per line");
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

// Every error at once; `options` is only meaningful when there is none. Environment: SEXTANT_API_KEY, SEXTANT_GROUP_SECRET.
std::vector<Status> resolve_serve_options(const ServeArguments& arguments, const Environment& environment,
                                          ServeOptions& options);

// 127.0.0.0/8, ::1 and "localhost".
bool is_loopback_host(const std::string& host);

}  // namespace sextant::cli
