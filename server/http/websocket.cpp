// What a WebSocket reads of requests and messages, without a connection.
#include "server/http/websocket.h"

#include <nlohmann/json.hpp>

namespace sextant::http {
namespace {

// Stops where it cannot be an object that we know.
class PeekSax final : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit PeekSax(MessagePeek* peek) : peek_(*peek) {}
  bool null() override { return value(); }
  bool boolean(bool value_given) override {
    if (depth_ == 1 && key_ == "cancel") peek_.is_cancel = value_given;
    return value();
  }
  bool number_integer(number_integer_t) override { return value(); }
  bool number_unsigned(number_unsigned_t) override { return value(); }
  bool number_float(number_float_t, const string_t&) override { return value(); }
  bool string(string_t& text) override {
    if (depth_ == 1 && key_ == "api_key") peek_.api_key = text;
    return value();
  }
  bool binary(binary_t&) override { return false; }
  bool start_object(size_t) override { return open(true); }
  bool key(string_t& name) override {
    if (depth_ == 1) key_ = name;
    return true;
  }
  bool end_object() override { return --depth_ >= 0; }
  bool start_array(size_t) override { return open(false); }
  bool end_array() override { return --depth_ >= 0; }
  bool parse_error(size_t, const std::string&, const nlohmann::detail::exception&) override { return false; }

 private:
  bool value() const { return depth_ > 0; }
  bool open(bool is_object) {
    if (depth_ == 0 && !is_object) return false;
    return ++depth_ <= 64;
  }

  MessagePeek& peek_;
  int depth_ = 0;
  std::string key_;
};

std::string_view host_of_origin(std::string_view origin) {
  const size_t scheme = origin.find("://");
  return scheme == std::string_view::npos ? std::string_view() : origin.substr(scheme + 3);
}

bool has_token(std::string_view list, std::string_view token) {
  while (!list.empty()) {
    const size_t comma = list.find(',');
    std::string_view item = list.substr(0, comma);
    while (!item.empty() && (item.front() == ' ' || item.front() == '\t')) item.remove_prefix(1);
    while (!item.empty() && (item.back() == ' ' || item.back() == '\t')) item.remove_suffix(1);
    if (item.size() == token.size()) {
      bool equal = true;
      for (size_t i = 0; i < item.size(); ++i) {
        const char c = item[i];
        equal &= (c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c) == token[i];
      }
      if (equal) return true;
    }
    if (comma == std::string_view::npos) return false;
    list.remove_prefix(comma + 1);
  }
  return false;
}

}  // namespace

bool asks_for_websocket(const HttpRequest& request) {
  return request.method == "GET" && has_token(request.header("Upgrade"), "websocket");
}

bool is_cross_site(const HttpRequest& handshake) {
  const std::string_view origin = handshake.header("Origin");
  return !origin.empty() && host_of_origin(origin) != handshake.header("Host");
}

MessagePeek peek_message(std::string_view message) {
  MessagePeek peek;
  // Most messages say neither: they are not read twice. (An escaped spelling of a name is not looked for.)
  if (message.find("\"cancel\"") == std::string_view::npos && message.find("\"api_key\"") == std::string_view::npos) {
    return peek;
  }
  PeekSax sax(&peek);
  if (!nlohmann::json::sax_parse(message.begin(), message.end(), &sax)) return {};
  return peek;
}

}  // namespace sextant::http
