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

class TrustedProxies {
 public:
  // "10.0.0.0/8, 192.168.1.7, fd00::/8"; empty: nobody.
  static Result<TrustedProxies> parse(std::string_view list);

  // The peer's address; behind trusted proxies the last one in X-Forwarded-For that is not one of them (what stands before
  // it the client may have written itself).
  std::string client_of(const http::HttpRequest& request) const;

 private:
  bool trusts(std::string_view address) const;
  std::vector<boost::asio::ip::network_v4> v4_;
  std::vector<boost::asio::ip::network_v6> v6_;
};

}  // namespace sextant
