// An HTTP server on loopback that says exactly what a test tells it to, byte for byte: lies, cuts, redirects,
// refusals. One thread accepts and answers one connection after another; each gets one answer and is closed.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cctype>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

namespace sextant {

struct ScriptedRequest {
  std::string path;                            // with the query
  std::map<std::string, std::string> headers;  // names in lower case
  std::string header(const std::string& name) const {
    const auto it = headers.find(name);
    return it == headers.end() ? "" : it->second;
  }
};

class ScriptedHttpServer {
 public:
  // What to send before the connection is closed. Called on the server's thread.
  using Handler = std::function<std::string(const ScriptedRequest&)>;

  explicit ScriptedHttpServer(Handler handler) : handler_(std::move(handler)) {
    listener_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    ::bind(listener_, reinterpret_cast<sockaddr*>(&address), sizeof(address));
    ::listen(listener_, 64);
    socklen_t length = sizeof(address);
    ::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &length);
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this] { run(); });
  }
  ~ScriptedHttpServer() {
    ::shutdown(listener_, SHUT_RDWR);
    thread_.join();
    ::close(listener_);
  }
  ScriptedHttpServer(const ScriptedHttpServer&) = delete;
  ScriptedHttpServer& operator=(const ScriptedHttpServer&) = delete;

  std::string url() const { return "http://127.0.0.1:" + std::to_string(port_); }
  std::vector<ScriptedRequest> requests() const {
    std::lock_guard lock(mutex_);
    return requests_;
  }
  size_t num_requests() const { return requests().size(); }

  // An honest answer, for tests to send as it is or to spoil.
  static std::string reply(const std::string& status, const std::vector<std::string>& headers,
                           const std::string& body) {
    std::string text =
        "HTTP/1.1 " + status + "\r\nConnection: close\r\nContent-Length: " + std::to_string(body.size()) + "\r\n";
    for (const std::string& header : headers) text += header + "\r\n";
    return text + "\r\n" + body;
  }

 private:
  void run() {
    while (true) {
      const int connection = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
      if (connection < 0) return;
      serve(connection);
      ::close(connection);
    }
  }
  void serve(int connection) {
    std::string text;
    while (text.find("\r\n\r\n") == std::string::npos) {
      char buffer[4096];
      const ssize_t got = ::recv(connection, buffer, sizeof(buffer), 0);
      if (got <= 0) return;
      text.append(buffer, static_cast<size_t>(got));
    }
    const ScriptedRequest request = parse(text);
    {
      std::lock_guard lock(mutex_);
      requests_.push_back(request);
    }
    const std::string answer = handler_(request);
    size_t sent = 0;
    while (sent < answer.size()) {
      const ssize_t count = ::send(connection, answer.data() + sent, answer.size() - sent, MSG_NOSIGNAL);
      if (count <= 0) return;
      sent += static_cast<size_t>(count);
    }
    ::shutdown(connection, SHUT_WR);
    // Until the client has closed: closing with unread data would reset the connection and lose what was
    // sent.
    char rest[1024];
    while (::recv(connection, rest, sizeof(rest), 0) > 0) {
    }
  }
  static ScriptedRequest parse(const std::string& text) {
    ScriptedRequest request;
    const size_t space = text.find(' ');
    request.path = text.substr(space + 1, text.find(' ', space + 1) - space - 1);
    size_t line = text.find("\r\n") + 2;
    while (line < text.size() && text.compare(line, 2, "\r\n") != 0) {
      const size_t end = text.find("\r\n", line);
      const size_t colon = text.find(':', line);
      std::string name = text.substr(line, colon - line);
      for (char& c : name) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
      size_t value = colon + 1;
      while (value < end && text[value] == ' ') ++value;
      request.headers[name] = text.substr(value, end - value);
      line = end + 2;
    }
    return request;
  }

  Handler handler_;
  int listener_ = -1;
  int port_ = 0;
  std::thread thread_;
  mutable std::mutex mutex_;
  std::vector<ScriptedRequest> requests_;
};

}  // namespace sextant
