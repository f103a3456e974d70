#include "server/gateway/client_address.h"

#include <algorithm>
#include <boost/asio/ip/address.hpp>

namespace sextant {
namespace {

namespace ip = boost::asio::ip;

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

bool is_forwarded_for(std::string_view name) {
  constexpr std::string_view kName = "x-forwarded-for";
  return std::equal(name.begin(), name.end(), kName.begin(), kName.end(),
                    [](char a, char b) { return (a >= 'A' && a <= 'Z' ? a - 'A' + 'a' : a) == b; });
}

bool holds(const ip::network_v4& network, const ip::address_v4& address) {
  return (address.to_uint() & network.netmask().to_uint()) == network.network().to_uint();
}

bool holds(const ip::network_v6& network, const ip::address_v6& address) {
  return ip::network_v6(address, network.prefix_length()).network() == network.network();
}

}  // namespace

std::string address_group(const std::string& text) {
  boost::system::error_code error;
  const ip::address address = ip::make_address(text, error);
  if (error || address.is_v4()) return text;
  ip::address_v6 v6 = address.to_v6();
  if (v6.is_v4_mapped()) return ip::make_address_v4(ip::v4_mapped, v6).to_string();
  if (v6.is_loopback()) return text;
  return ip::network_v6(ip::address_v6(v6.to_bytes()), 64).canonical().to_string();
}

Result<TrustedProxies> TrustedProxies::parse(std::string_view list) {
  TrustedProxies proxies;
  while (!list.empty()) {
    const size_t end = std::min(list.find(','), list.size());
    const std::string entry(trimmed(list.substr(0, end)));
    list.remove_prefix(std::min(end + 1, list.size()));
    if (entry.empty()) continue;
    boost::system::error_code error;
    const bool is_v6 = entry.find(':') != std::string::npos;
    const std::string network = entry.find('/') != std::string::npos ? entry : entry + (is_v6 ? "/128" : "/32");
    if (is_v6) {
      const ip::network_v6 made = ip::make_network_v6(network, error);
      if (!error) proxies.v6_.push_back(made);
    } else {
      const ip::network_v4 made = ip::make_network_v4(network, error);
      if (!error) proxies.v4_.push_back(made);
    }
    if (error)
      return invalid_argument(
          "trusted_proxies must list addresses and networks such as 10.0.0.0/8, not '" + entry + "'",
          "trusted_proxies");
  }
  return proxies;
}

bool TrustedProxies::trusts(std::string_view text) const {
  boost::system::error_code error;
  ip::address address = ip::make_address(std::string(text), error);
  if (error) return false;
  if (address.is_v6() && address.to_v6().is_v4_mapped()) address = ip::make_address_v4(ip::v4_mapped, address.to_v6());
  if (address.is_v4())
    return std::ranges::any_of(v4_, [&](const ip::network_v4& one) { return holds(one, address.to_v4()); });
  return std::ranges::any_of(v6_, [&](const ip::network_v6& one) { return holds(one, address.to_v6()); });
}

std::string TrustedProxies::client_of(const http::HttpRequest& request) const {
  std::string client = request.client_address;
  if (!trusts(client)) return client;
  std::string all;  // several fields are one list (RFC 9110, 5.3)
  for (const http::Header& header : request.headers) {
    if (is_forwarded_for(header.name)) all += (all.empty() ? "" : ",") + header.value;
  }
  std::string_view rest = all;
  while (!rest.empty()) {
    const size_t comma = rest.rfind(',');
    const std::string_view last = trimmed(comma == std::string_view::npos ? rest : rest.substr(comma + 1));
    boost::system::error_code error;
    (void)ip::make_address(std::string(last), error);
    if (error) return client;  // not an address: what stands before it is nobody's word
    client = std::string(last);
    if (!trusts(last)) return client;
    rest = comma == std::string_view::npos ? std::string_view() : rest.substr(0, comma);
  }
  return client;
}

}  // namespace sextant
