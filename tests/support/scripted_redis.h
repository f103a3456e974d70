// ScriptedRedis: what a Redis might be, over a loopback socket: reads commands, and answers each as a function says. Hangs,
// closes in the middle and nonsense are answers too.
#pragma once

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

namespace sextant::testing_support {

class ScriptedRedis {
 public:
  using Words = std::vector<std::string>;
  // The bytes that answer a command; none: the connection is closed. On the thread of its connection.
  using Answer = std::function<std::optional<std::string>(const Words&)>;

  // port 0: the kernel picks one.
  explicit ScriptedRedis(Answer answer, uint16_t port = 0)
      : answer_(std::move(answer)), listener_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    const int on = 1;
    ::setsockopt(listener_, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(port);
    socklen_t size = sizeof address;
    EXPECT_EQ(::bind(listener_, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    EXPECT_EQ(::listen(listener_, 16), 0);
    EXPECT_EQ(::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size), 0);
    port_ = ntohs(address.sin_port);
    acceptor_ = std::thread([this] { accept_all(); });
  }
  ~ScriptedRedis() {
    ::shutdown(listener_, SHUT_RDWR);  // accept() ends
    acceptor_.join();
    {
      const std::lock_guard lock(mutex_);
      for (const int fd : connections_) ::shutdown(fd, SHUT_RDWR);
    }
    for (std::thread& thread : threads_) thread.join();
    for (const int fd : connections_) ::close(fd);
    ::close(listener_);
  }
  ScriptedRedis(const ScriptedRedis&) = delete;
  ScriptedRedis& operator=(const ScriptedRedis&) = delete;

  uint16_t port() const { return port_; }
  // All that was asked, the log-ins too.
  std::vector<Words> asked() const {
    const std::lock_guard lock(mutex_);
    return asked_;
  }

 private:
  void accept_all() {
    for (;;) {
      const int fd = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
      if (fd < 0) return;
      const int on = 1;  // an answer is not held back for the one before it
      ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
      const std::lock_guard lock(mutex_);
      connections_.push_back(fd);
      threads_.emplace_back([this, fd] { serve(fd); });
    }
  }
  // One line without its end; none at the end.
  static std::optional<std::string> take_line(int fd, std::string* buffer) {
    size_t end = 0;
    while ((end = buffer->find("\r\n")) == std::string::npos) {
      if (!read_more(fd, buffer)) return std::nullopt;
    }
    std::string line = buffer->substr(0, end);
    buffer->erase(0, end + 2);
    return line;
  }
  static bool read_more(int fd, std::string* buffer) {
    char bytes[4096];
    const ssize_t num = ::recv(fd, bytes, sizeof bytes, 0);
    if (num <= 0) return false;
    buffer->append(bytes, static_cast<size_t>(num));
    return true;
  }
  void serve(int fd) {
    std::string buffer;
    while (const auto head = take_line(fd, &buffer)) {
      Words words;
      for (size_t i = 0; i < std::stoul(head->substr(1)); ++i) {
        const auto length = take_line(fd, &buffer);
        if (!length) return;
        const size_t size = std::stoul(length->substr(1));
        while (buffer.size() < size + 2) {
          if (!read_more(fd, &buffer)) return;
        }
        words.push_back(buffer.substr(0, size));
        buffer.erase(0, size + 2);
      }
      {
        const std::lock_guard lock(mutex_);
        asked_.push_back(words);
      }
      const std::optional<std::string> answer = answer_(words);
      if (!answer) break;
      if (::send(fd, answer->data(), answer->size(), MSG_NOSIGNAL) < 0) break;
    }
    ::shutdown(fd, SHUT_RDWR);
  }

  const Answer answer_;
  const int listener_;
  uint16_t port_ = 0;
  mutable std::mutex mutex_;
  std::vector<int> connections_;      // guarded by mutex_; closed at the end, so that no number is used twice
  std::vector<std::thread> threads_;  // likewise
  std::vector<Words> asked_;          // likewise
  std::thread acceptor_;
};

// PING, AUTH and SELECT as a Redis answers them; none for what else there is.
inline std::optional<std::string> greeting(const ScriptedRedis::Words& words) {
  if (words[0] == "PING") return "+PONG\r\n";
  if (words[0] == "AUTH" || words[0] == "SELECT") return "+OK\r\n";
  return std::nullopt;
}

}  // namespace sextant::testing_support
