// Endpoint: where a server is, from a URL. Pure.
#pragma once

#include <string>
#include <string_view>

#include "engine/base/result.h"

namespace sextant::bench {

struct Endpoint {
  bool tls = false;
  std::string host;  // without brackets
  std::string port;
  std::string path;  // of the base, without a slash at its end: "" or "/prefix"

  std::string host_header() const;
  std::string base_url() const;  // "http://host:port/prefix"
  bool is_this_machine() const;  // loopback
};

// "http://host:8000", "https://host/prefix", "host:8000"; a "/v1" at the end is dropped, so that both habits work.
Result<Endpoint> parse_url(std::string_view url);

}  // namespace sextant::bench
