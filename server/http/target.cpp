#include "server/http/target.h"

namespace sextant::http {
namespace {

int hex_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

bool is_control(char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }

bool starts_with_scheme(std::string_view target, std::string_view scheme) {
  if (target.size() < scheme.size()) return false;
  for (size_t i = 0; i < scheme.size(); ++i) {
    if ((target[i] | 0x20) != (scheme[i] | 0x20)) return false;
  }
  return true;
}

Result<std::string> percent_decode(std::string_view text) {
  std::string decoded;
  decoded.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    char c = text[i];
    if (c == '%') {
      const int high = i + 2 < text.size() ? hex_value(text[i + 1]) : -1;
      const int low = i + 2 < text.size() ? hex_value(text[i + 2]) : -1;
      if (high < 0 || low < 0) return invalid_argument("the request target holds a broken percent escape");
      c = static_cast<char>(high * 16 + low);
      i += 2;
    }
    if (is_control(c)) return invalid_argument("the request target holds a control character");
    decoded += c;
  }
  return decoded;
}

}  // namespace

Result<Target> parse_target(std::string_view method, std::string_view target) {
  if (target == "*" && method == "OPTIONS") return Target{.path = "*", .query = {}};
  for (const std::string_view scheme : {"http://", "https://"}) {
    if (!starts_with_scheme(target, scheme)) continue;
    target.remove_prefix(scheme.size());
    const size_t authority_end = target.find_first_of("/?#");
    if (target.empty() || authority_end == 0) {
      return invalid_argument("the request target names no host");
    }
    target = authority_end == std::string_view::npos ? std::string_view() : target.substr(authority_end);
    if (target.empty()) return Target{.path = "/", .query = {}};
    if (target.front() == '?') return Target{.path = "/", .query = std::string(target.substr(1))};
    break;
  }
  if (target.empty() || target.front() != '/') {
    return invalid_argument("the request target must be a path that begins with '/' or an http URL");
  }
  if (target.find('#') != std::string_view::npos) return invalid_argument("the request target holds a fragment ('#')");
  const size_t question = target.find('?');
  Target parsed;
  ASSIGN_OR_RETURN(parsed.path, percent_decode(target.substr(0, question)));
  if (question != std::string_view::npos) parsed.query = target.substr(question + 1);
  return parsed;
}

}  // namespace sextant::http
