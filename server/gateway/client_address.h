// TrustedProxies: whose word about the client's address is taken. Pure; any thread.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include <boost/asio/ip/network_v4.hpp>
#include <boost/asio/ip/network_v6.hpp>

#include "engine/base/result.h"
#include "server/http/exchange.h"

namespace sextant {

// By which clients are counted: an IPv4 address (also as IPv6 writes it) itself, of IPv6 the /64 that one customer has of their
// provider. What is no address, itself.
std::string address_group(const std::string& address);

class TrustedProxies {
 public:
  // "10.0.0.0/8, 192.168.1.7, fd00::/8"; empty: nobody.
  static Result<TrustedProxies> parse(std::string_view list);

  // The peer's address; behind trusted proxies the last one in X-Forwarded-For that is not one of them (what stands before
  // it the client may have written itself).
  std::string client_of(const http::HttpRequest& request) const;
  bool trusts(std::string_view address) const;

 private:
  std::vector<boost::asio::ip::network_v4> v4_;
  std::vector<boost::asio::ip::network_v6> v6_;
};

}  // namespace sextant
