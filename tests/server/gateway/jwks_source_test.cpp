#include "server/gateway/jwks_source.h"

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <functional>
#include <thread>

namespace sextant {
namespace {

using std::chrono::milliseconds;

// Answers one connection on this machine with what `answer` writes to it.
class OneAnswer {
 public:
  explicit OneAnswer(std::function<void(int fd)> answer) : listener_(::socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    EXPECT_EQ(::bind(listener_, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    EXPECT_EQ(::listen(listener_, 4), 0);
    EXPECT_EQ(::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size), 0);
    url_ = "http://127.0.0.1:" + std::to_string(ntohs(address.sin_port)) + "/keys";
    thread_ = std::thread([this, answer = std::move(answer)] {
      const int fd = ::accept(listener_, nullptr, nullptr);
      if (fd < 0) return;
      char request[4096];
      if (::recv(fd, request, sizeof request, 0) > 0) answer(fd);
      ::close(fd);
    });
  }
  ~OneAnswer() {
    ::shutdown(listener_, SHUT_RDWR);  // accept() ends
    thread_.join();
    ::close(listener_);
  }
  OneAnswer(const OneAnswer&) = delete;
  OneAnswer& operator=(const OneAnswer&) = delete;
  const std::string& url() const { return url_; }

 private:
  const int listener_;
  std::string url_;
  std::thread thread_;
};

void send_all(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t num = ::send(fd, text.data(), text.size(), MSG_NOSIGNAL);
    if (num <= 0) return;
    text.remove_prefix(static_cast<size_t>(num));
  }
}

Result<std::string> read_from(const std::string& url, milliseconds timeout = milliseconds(60'000)) {
  const std::atomic<bool> cancelled{false};
  return read_jwks(url, timeout, cancelled);
}

std::string whole(const std::string& status, const std::string& body, const std::string& more = "") {
  return "HTTP/1.1 " + status + "\r\nContent-Length: " + std::to_string(body.size()) + "\r\n" + more + "\r\n" + body;
}

TEST(JwksSource, TakesTheBodyOf200) {
  OneAnswer server([](int fd) { send_all(fd, whole("200 OK", R"({"keys":[]})")); });
  const Result<std::string> text = read_from(server.url());
  ASSERT_TRUE(text.ok()) << text.status().message();
  EXPECT_EQ(*text, R"({"keys":[]})");
}

// Redirections among them: their body is no key set, and where they lead nobody named.
TEST(JwksSource, NoOtherStatusBringsKeys) {
  for (const char* status :
       {"201 Created", "203 Non-Authoritative Information", "206 Partial Content", "301 Moved Permanently", "302 Found",
        "307 Temporary Redirect", "304 Not Modified", "401 Unauthorized", "404 Not Found", "429 Too Many Requests",
        "500 Internal Server Error", "503 Service Unavailable"}) {
    const bool has_body = std::string_view(status).substr(0, 3) != "304";
    OneAnswer elsewhere([](int fd) { send_all(fd, whole("200 OK", R"({"keys":["of somebody else"]})")); });
    OneAnswer server([&](int fd) {
      send_all(fd, whole(status, has_body ? R"({"keys":[1]})" : "", "Location: " + elsewhere.url() + "\r\n"));
    });
    const Result<std::string> text = read_from(server.url());
    EXPECT_FALSE(text.ok()) << status;
    EXPECT_NE(text.status().message().find(std::string(status, 3)), std::string::npos) << text.status().message();
  }
}

TEST(JwksSource, WhatIsTooLargeOrTornIsRefused) {
  {
    OneAnswer server([](int fd) { send_all(fd, whole("200 OK", std::string(kMaxJwksBytes + 1, ' '))); });
    const Result<std::string> text = read_from(server.url());
    ASSERT_FALSE(text.ok());
    EXPECT_NE(text.status().message().find("1 MiB"), std::string::npos) << text.status().message();
  }
  {
    OneAnswer server([](int fd) { send_all(fd, whole("200 OK", std::string(kMaxJwksBytes, ' '))); });
    EXPECT_TRUE(read_from(server.url()).ok());
  }
  {  // without an end: it is cut off, not kept
    OneAnswer server([](int fd) {
      send_all(fd, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
      const std::string chunk = "10000\r\n" + std::string(0x10000, 'x') + "\r\n";
      for (int i = 0; i < 64; ++i) send_all(fd, chunk);
    });
    EXPECT_FALSE(read_from(server.url()).ok());
  }
  for (const std::string torn : {"", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"keys\":[", "nonsense\r\n\r\n",
                                 "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"}) {
    OneAnswer server([&](int fd) { send_all(fd, torn); });
    EXPECT_FALSE(read_from(server.url()).ok()) << torn;
  }
}

TEST(JwksSource, WhoDoesNotAnswerIsNotWaitedForLong) {
  std::atomic<bool> done{false};
  const auto hold = [&](int fd) {
    while (!done) {
      send_all(fd, "H");  // a byte now and then does not help
      std::this_thread::sleep_for(milliseconds(20));
    }
  };
  {
    OneAnswer server(hold);
    EXPECT_FALSE(read_from(server.url(), milliseconds(300)).ok());
    done = true;
  }
  // Nobody listens.
  std::string url;
  {
    url = OneAnswer([](int) {}).url();
  }
  EXPECT_FALSE(read_from(url).ok());
}

TEST(JwksSource, AFetchIsGivenUpWhenTheServerStops) {
  std::atomic<bool> cancelled{false}, done{false};
  OneAnswer server([&](int) {
    cancelled = true;
    while (!done) std::this_thread::sleep_for(milliseconds(1));
  });
  EXPECT_FALSE(read_jwks(server.url(), milliseconds(600'000), cancelled).ok());
  done = true;
}

TEST(JwksSource, FilesHaveTheSameBound) {
  const std::string path = testing::TempDir() + "jwks_source_test.json";
  for (const size_t size : {size_t{0}, kMaxJwksBytes, kMaxJwksBytes + 1}) {
    std::ofstream(path, std::ios::binary | std::ios::trunc) << std::string(size, ' ');
    EXPECT_EQ(read_from(path).ok(), size <= kMaxJwksBytes) << size;
  }
  std::remove(path.c_str());
  EXPECT_FALSE(read_from(path).ok());
  EXPECT_FALSE(read_from("file:///etc/passwd").ok());
}

TEST(JwksSource, UrlsHoldNoSecrets) {
  EXPECT_TRUE(check_jwks_url("https://id.example/realms/a/keys?x=1").ok());
  EXPECT_TRUE(check_jwks_url("http://127.0.0.1:8080/keys").ok());
  for (const char* url :
       {"https://user:word@id.example/keys", "https://user@id.example/keys", "https://", "http://a b/"})
    EXPECT_FALSE(check_jwks_url(url).ok()) << url;
  EXPECT_EQ(check_jwks_url("https://user:hidden@id.example/keys").message().find("hidden"), std::string::npos);
}

}  // namespace
}  // namespace sextant
