#include "server/redis/redis_url.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <string_view>

namespace sextant::redis {
namespace {

Status refuse(const std::string& why) { return invalid_argument("redis_url " + why, "redis_url"); }

int digit_of(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// Nothing when it is not percent-encoded text, or holds a control character.
std::optional<std::string> decoded(std::string_view text) {
  std::string bytes;
  for (size_t i = 0; i < text.size(); ++i) {
    char c = text[i];
    if (c == '%') {
      if (i + 2 >= text.size() || digit_of(text[i + 1]) < 0 || digit_of(text[i + 2]) < 0) return std::nullopt;
      c = static_cast<char>(digit_of(text[i + 1]) * 16 + digit_of(text[i + 2]));
      i += 2;
    }
    if (static_cast<unsigned char>(c) < ' ' || c == 0x7f) return std::nullopt;
    bytes += c;
  }
  return bytes;
}

std::optional<int64_t> number(std::string_view text, int64_t most) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < 0 || value > most) return std::nullopt;
  return value;
}

}  // namespace

Result<Address> parse_url(const std::string& url, const std::string& password) {
  constexpr std::string_view kScheme = "redis://";
  if (url.starts_with("rediss://"))
    return refuse("must begin with redis://; TLS to Redis is not spoken: put a tunnel or a private network between");
  if (!url.starts_with(kScheme)) return refuse("must be redis://[:password@]host[:port][/database]");
  std::string_view rest = std::string_view(url).substr(kScheme.size());
  Address address;
  address.password = password;
  // A password may hold what should have been encoded, but for '/'.
  const size_t slash = rest.find('/', rest.rfind('@') == std::string_view::npos ? 0 : rest.rfind('@'));
  if (slash != std::string_view::npos) {
    const std::string_view path = rest.substr(slash + 1);
    rest = rest.substr(0, slash);
    if (!path.empty()) {
      const auto database = number(path, 1 << 20);
      if (!database) return refuse("must name its database by a number: redis://host:6379/0");
      address.database = *database;
    }
  }
  if (const size_t at = rest.rfind('@'); at != std::string_view::npos) {
    const std::string_view info = rest.substr(0, at);
    rest = rest.substr(at + 1);
    const size_t colon = info.find(':');
    const auto user = decoded(info.substr(0, colon));
    const auto secret = decoded(colon == std::string_view::npos ? std::string_view() : info.substr(colon + 1));
    if (!user || !secret) return refuse("holds a user or a password that is not percent-encoded text");
    address.user = *user;
    if (!secret->empty()) address.password = *secret;
    if (!address.user.empty() && address.password.empty())
      return refuse("names a user without a password (redis://user:password@host, or SEXTANT_REDIS_PASSWORD)");
  }
  std::string_view port;
  if (rest.starts_with('[')) {
    const size_t end = rest.find(']');
    if (end == std::string_view::npos) return refuse("has a bracket that does not end");
    address.host = rest.substr(1, end - 1);
    port = rest.substr(end + 1);
    if (!port.empty() && !port.starts_with(':')) return refuse("has something behind its address that is no port");
  } else {
    const size_t colon = rest.find(':');
    address.host = rest.substr(0, colon);
    port = colon == std::string_view::npos ? std::string_view() : rest.substr(colon);
  }
  const auto is_host = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '.' ||
           c == '_' || c == ':';
  };
  if (address.host.empty() || !std::ranges::all_of(address.host, is_host)) return refuse("does not name a host");
  if (!port.empty()) {
    const auto value = number(port.substr(1), 65535);
    if (!value || *value == 0) return refuse("has a port that is not a number from 1 to 65535");
    address.port = static_cast<uint16_t>(*value);
  }
  return address;
}

std::string shown(const Address& address) {
  const bool is_ipv6 = address.host.find(':') != std::string::npos;
  return (is_ipv6 ? "[" + address.host + "]" : address.host) + ":" + std::to_string(address.port) + "/" +
         std::to_string(address.database);
}

}  // namespace sextant::redis
