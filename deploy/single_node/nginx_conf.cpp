// nginx in front of one server: answers stream through unbuffered, limits are the server's own, and what nginx itself has to
// say is in the API's form. Directives: nginx.org/en/docs, 1.22 and later.
#include <algorithm>
#include <cmath>

#include "deploy/single_node/single_node.h"

namespace sextant::deploy {
namespace {

constexpr int kMaxConnections = 4096;  // --max-connections
// A request that is not streamed is silent until its whole answer is there.
constexpr const char* kSilence = "600s";

NginxDirective set(std::string name, std::vector<std::string> arguments) {
  return {std::move(name), std::move(arguments), {}, false};
}

NginxDirective block(std::string name, std::vector<std::string> arguments, std::vector<NginxDirective> inner) {
  return {std::move(name), std::move(arguments), std::move(inner), true};
}

bool is_plain(char c) {
  const auto byte = static_cast<unsigned char>(c);
  return byte > 0x20 && byte < 0x7f && std::string("\"'\\{};#").find(c) == std::string::npos;
}

// An error of nginx's own as the API's: its status, what it says, when to come back.
NginxDirective error_location(const char* name, int status, const char* type, const char* code, const char* message,
                              const char* retry_after_s) {
  const nlohmann::ordered_json body = {
      {"error", {{"message", message}, {"type", type}, {"param", nullptr}, {"code", code}}}};
  std::vector<NginxDirective> inner = {set("internal", {}), set("default_type", {"application/json"})};
  if (retry_after_s != nullptr) inner.push_back(set("add_header", {"Retry-After", retry_after_s, "always"}));
  inner.push_back(set("return", {std::to_string(status), body.dump()}));
  return block("location", {name}, std::move(inner));
}

// "30r/s", or by the minute for what is below one a second.
std::string rate_of(double per_second) {
  if (per_second >= 1) return std::to_string(std::llround(std::ceil(per_second))) + "r/s";
  return std::to_string(std::max<long long>(1, std::llround(std::ceil(per_second * 60)))) + "r/m";
}

void write(const std::vector<NginxDirective>& directives, size_t depth, std::string& out) {
  for (const NginxDirective& directive : directives) {
    out += std::string(depth * 4, ' ') + nginx_word(directive.name);
    for (const std::string& argument : directive.arguments) out += " " + nginx_word(argument);
    if (!directive.is_block) {
      out += ";\n";
      continue;
    }
    out += " {\n";
    write(directive.block, depth + 1, out);
    out += std::string(depth * 4, ' ') + "}\n";
  }
}

}  // namespace

std::string nginx_word(const std::string& text) {
  if (!text.empty() && std::all_of(text.begin(), text.end(), is_plain)) return text;
  std::string out = "\"";
  for (const char c : text) {
    if (c == '\n' || c == '\r' || c == '\t') {
      out += c == '\n' ? "\\n" : c == '\r' ? "\\r" : "\\t";
      continue;
    }
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  return out + '"';
}

std::string nginx_text(const std::vector<NginxDirective>& directives, const std::string& comment) {
  std::string out = "# " + one_line(comment, comment.size()) + "\n";
  write(directives, 0, out);
  return out;
}

std::vector<NginxDirective> nginx_conf_of(const Target& target, const NginxPlace& place) {
  const bool tls = !target.options.tls_secret.empty();
  const std::string name = target.options.host.empty() ? "_" : target.options.host;

  std::vector<NginxDirective> proxy = {
      set("proxy_pass", {"http://sextant"}),
      set("proxy_http_version", {"1.1"}),
      set("proxy_set_header", {"Host", "$host"}),
      set("proxy_set_header", {"Connection", "$connection_header"}),
      set("proxy_set_header", {"Upgrade", "$http_upgrade"}),
      set("proxy_set_header", {"X-Forwarded-For", "$proxy_add_x_forwarded_for"}),
      set("proxy_set_header", {"X-Forwarded-Proto", "$scheme"}),
      // Tokens leave as they come, and a client that goes away ends its request.
      set("proxy_buffering", {"off"}),
      set("proxy_cache", {"off"}),
      set("gzip", {"off"}),
      set("proxy_ignore_client_abort", {"off"}),
      // A prompt is never run twice.
      set("proxy_next_upstream", {"off"}),
      set("proxy_connect_timeout", {"5s"}),
      set("proxy_send_timeout", {"30s"}),
      set("proxy_read_timeout", {kSilence}),
  };
  std::vector<NginxDirective> api = proxy;
  if (target.limit_rps_per_replica > 0)
    api.insert(api.begin(),
               set("limit_req", {"zone=requests", "burst=" + std::to_string(kMaxQueuedRequests), "nodelay"}));

  std::vector<NginxDirective> server;
  if (tls) {
    server.push_back(set("listen", {"443", "ssl", "http2"}));
    server.push_back(set("listen", {"[::]:443", "ssl", "http2"}));
    server.push_back(set("ssl_certificate", {place.certificates + "/tls.crt"}));
    server.push_back(set("ssl_certificate_key", {place.certificates + "/tls.key"}));
    server.push_back(set("ssl_protocols", {"TLSv1.2", "TLSv1.3"}));
    server.push_back(set("ssl_session_cache", {"shared:tls:10m"}));
    server.push_back(set("add_header", {"Strict-Transport-Security", "max-age=31536000", "always"}));
  } else {
    server.push_back(set("listen", {"80"}));
    server.push_back(set("listen", {"[::]:80"}));
  }
  const auto add = [&server](NginxDirective directive) { server.push_back(std::move(directive)); };
  add(set("server_name", {name}));
  add(set("limit_conn", {"connections", std::to_string(kMaxConnections)}));
  add(set("error_page", {"413", "=", "@too_large"}));
  add(set("error_page", {"429", "=", "@too_many"}));
  add(set("error_page", {"502", "=", "@down"}));
  add(set("error_page", {"504", "=", "@late"}));
  add(block("location", {"/v1/"}, api));
  add(block("location", {"/"}, proxy));
  // Prometheus asks the server itself.
  add(block("location", {"=", "/metrics"}, {set("deny", {"all"})}));
  add(error_location("@too_large", 413, "invalid_request_error", "request_too_large", "the request body is too large",
                     nullptr));
  add(error_location("@too_many", 429, "rate_limit_error", "rate_limit_exceeded",
                     "more requests than this server was sized for; try again", "1"));
  add(error_location("@down", 503, "server_error", "server_unavailable",
                     "the model server is not running or starts; try again", "5"));
  add(error_location("@late", 504, "server_error", "server_timeout", "the model server did not answer in time",
                     nullptr));

  std::vector<NginxDirective> http = {
      set("server_tokens", {"off"}),
      set("default_type", {"application/json"}),
      set("log_format", {"timed",
                         "$remote_addr [$time_iso8601] \"$request_method $uri\" $status $bytes_sent $request_time "
                         "$upstream_status $upstream_header_time"}),
      set("access_log", {place.access_log, "timed"}),
      set("client_max_body_size", {std::to_string(kMaxBodyBytes)}),
      set("client_body_buffer_size", {"1m"}),
      set("client_header_timeout", {"15s"}),
      set("client_body_timeout", {"30s"}),
      set("send_timeout", {"30s"}),
      set("keepalive_timeout", {"75s"}),
      set("reset_timedout_connection", {"on"}),
      set("limit_conn_zone", {"$server_name", "zone=connections:1m"}),
      set("limit_conn_status", {"429"}),
      set("limit_req_status", {"429"}),
  };
  if (target.limit_rps_per_replica > 0)
    http.push_back(
        set("limit_req_zone", {"$server_name", "zone=requests:1m", "rate=" + rate_of(target.limit_rps_per_replica)}));
  http.push_back(block("map", {"$http_upgrade", "$connection_header"}, {set("default", {"upgrade"}), set("", {""})}));
  http.push_back(block("upstream", {"sextant"},
                       {set("server", {place.upstream}),
                        // Closed here before the server closes it (--idle-timeout-ms is 75 s).
                        set("keepalive", {"64"}), set("keepalive_timeout", {"60s"})}));
  http.push_back(block("server", {}, std::move(server)));
  if (tls)
    http.push_back(block("server", {},
                         {set("listen", {"80"}), set("listen", {"[::]:80"}), set("server_name", {name}),
                          set("return", {"308", "https://$host$request_uri"})}));

  return {set("worker_processes", {"auto"}),
          set("worker_rlimit_nofile", {"65536"}),
          set("pid", {"/run/nginx.pid"}),
          set("error_log", {place.error_log, "warn"}),
          block("events", {}, {set("worker_connections", {std::to_string(4 * kMaxConnections)})}),
          block("http", {}, std::move(http))};
}

}  // namespace sextant::deploy
