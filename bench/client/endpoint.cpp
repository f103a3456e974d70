#include "bench/client/endpoint.h"

namespace sextant::bench {

std::string Endpoint::host_header() const {
  const std::string name = host.find(':') == std::string::npos ? host : "[" + host + "]";
  return port == (tls ? "443" : "80") ? name : name + ":" + port;
}

std::string Endpoint::base_url() const { return (tls ? "https://" : "http://") + host_header() + path; }

bool Endpoint::is_this_machine() const { return host == "localhost" || host == "::1" || host.starts_with("127."); }

Result<Endpoint> parse_url(std::string_view url) {
  const auto bad = [&](const std::string& why) {
    return invalid_argument("url is not one that this client can ask: " + why + " (http://127.0.0.1:8000 would be)",
                            "url");
  };
  for (const char c : url) {
    if (static_cast<unsigned char>(c) <= 0x20 || c == 0x7f) return bad("it holds a space or a control character");
  }
  Endpoint endpoint;
  if (const size_t scheme = url.find("://"); scheme != std::string_view::npos) {
    const std::string_view name = url.substr(0, scheme);
    if (name != "http" && name != "https") return bad("its scheme is neither http nor https");
    endpoint.tls = name == "https";
    url.remove_prefix(scheme + 3);
  }
  if (url.find_first_of("?#") != std::string_view::npos) return bad("it has a query");
  const size_t slash = url.find('/');
  std::string_view authority = url.substr(0, slash);
  std::string_view path = slash == std::string_view::npos ? std::string_view() : url.substr(slash);
  if (authority.find('@') != std::string_view::npos) return bad("it holds a user name; keys go into --api-key");
  if (authority.starts_with('[')) {
    const size_t close = authority.find(']');
    if (close == std::string_view::npos) return bad("a bracket is not closed");
    endpoint.host = authority.substr(1, close - 1);
    authority.remove_prefix(close + 1);
  } else {
    const size_t colon = authority.find(':');
    endpoint.host = authority.substr(0, colon);
    authority.remove_prefix(colon == std::string_view::npos ? authority.size() : colon);
  }
  if (endpoint.host.empty()) return bad("it names no host");
  endpoint.port = endpoint.tls ? "443" : "80";
  if (!authority.empty()) {
    if (authority[0] != ':') return bad("something stands behind the host");
    authority.remove_prefix(1);
    if (authority.empty() || authority.size() > 5 ||
        authority.find_first_not_of("0123456789") != std::string_view::npos ||
        std::stoi(std::string(authority)) > 65535 || std::stoi(std::string(authority)) == 0) {
      return bad("its port is no number in 1..65535");
    }
    endpoint.port = authority;
  }
  while (path.ends_with('/')) path.remove_suffix(1);
  if (path.ends_with("/v1")) path.remove_suffix(3);
  while (path.ends_with('/')) path.remove_suffix(1);
  endpoint.path = path;
  return endpoint;
}

}  // namespace sextant::bench
