// Where a Redis is: redis://[[user]:password@]host[:port][/database]. Pure.
#pragma once

#include <cstdint>
#include <string>

#include "engine/base/result.h"

namespace sextant::redis {

struct Address {
  std::string host;
  uint16_t port = 6379;
  std::string user;      // empty: the default one
  std::string password;  // never in a message
  int64_t database = 0;
};

// Parts may be percent-encoded; an IPv6 address stands in brackets. `password` is used where the URL has none. Errors name
// the setting redis_url and never show the URL, which may hold a password.
Result<Address> parse_url(const std::string& url, const std::string& password = {});

// "host:port/database", for logs.
std::string shown(const Address& address);

}  // namespace sextant::redis
