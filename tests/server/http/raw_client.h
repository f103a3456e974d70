// RawClient: a blocking TCP client that sends exactly the bytes it is told to, well-formed or not, and reads
// answers.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace sextant::http {

struct RawResponse {
  int status = 0;
  std::string version;
  std::multimap<std::string, std::string> headers;  // names in lower case
  std::string body;
  bool complete = false;  // the framing says that all of it came

  std::string header(const std::string& name) const {
    const auto found = headers.find(name);
    return found == headers.end() ? std::string() : found->second;
  }
};

class RawClient {
 public:
  explicit RawClient(uint16_t port, int receive_buffer_bytes = 0) : fd_(socket(AF_INET, SOCK_STREAM, 0)) {
    if (receive_buffer_bytes > 0) {
      setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &receive_buffer_bytes, sizeof(receive_buffer_bytes));
    }
    const int on = 1;
    setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    is_connected_ = connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0;
  }
  RawClient(RawClient&& other) noexcept
      : fd_(std::exchange(other.fd_, -1)), is_connected_(other.is_connected_), buffer_(std::move(other.buffer_)) {}
  RawClient(const RawClient&) = delete;
  RawClient& operator=(const RawClient&) = delete;
  virtual ~RawClient() { close(); }

  bool is_connected() const { return is_connected_; }
  void close() {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
  }
  void reset() {
    const linger hard{.l_onoff = 1, .l_linger = 0};
    setsockopt(fd_, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
    close();
  }
  void shutdown_write() { ::shutdown(fd_, SHUT_WR); }

  // False when the server closed the connection meanwhile.
  bool send(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t num = transmit(bytes);
      if (num <= 0) return false;
      bytes.remove_prefix(static_cast<size_t>(num));
    }
    return true;
  }

  // One more read into the buffer; false at the end of the stream, on a reset or at the time-out.
  bool read_more(int timeout_ms = 30'000) {
    pollfd poll_fd{.fd = fd_, .events = POLLIN, .revents = 0};
    timed_out_ = !has_pending() && poll(&poll_fd, 1, timeout_ms) == 0;
    if (timed_out_) return false;
    char chunk[65536];
    const ssize_t num = receive(chunk, sizeof(chunk));
    was_reset_ = num < 0 && errno == ECONNRESET;
    at_eof_ = num == 0;
    if (num <= 0) return false;
    buffer_.append(chunk, static_cast<size_t>(num));
    return true;
  }
  std::string read_until(std::string_view needle) {
    size_t at;
    while ((at = buffer_.find(needle)) == std::string::npos) {
      if (!read_more()) return take(buffer_.size());
    }
    return take(at + needle.size());
  }
  std::string read_to_end() {
    while (read_more()) {
    }
    return take(buffer_.size());
  }
  // The connection is at its end (after what is buffered and still comes).
  bool is_closed_by_server(int timeout_ms = 30'000) {
    while (read_more(timeout_ms)) {
    }
    return at_eof_ || was_reset_;
  }
  bool at_eof() const { return at_eof_; }
  bool was_reset() const { return was_reset_; }
  bool timed_out() const { return timed_out_; }
  const std::string& buffered() const { return buffer_; }

  RawResponse read_response(bool is_head_request = false) {
    RawResponse response;
    std::string head;
    do {
      head = read_until("\r\n\r\n");
      if (!head.ends_with("\r\n\r\n") || head.size() < 12) return response;
      response.status = std::atoi(head.c_str() + 9);
    } while (response.status == 100);
    response.version = head.substr(0, 8);
    size_t at = head.find("\r\n") + 2;
    while (at + 2 < head.size()) {
      const size_t end = head.find("\r\n", at);
      const size_t colon = head.find(": ", at);
      std::string name = head.substr(at, colon - at);
      for (char& c : name) c = static_cast<char>(std::tolower(c));
      response.headers.emplace(name, head.substr(colon + 2, end - colon - 2));
      at = end + 2;
    }
    if (is_head_request || response.status == 204 || response.status == 304) {
      response.complete = true;
    } else if (response.headers.contains("content-length")) {
      const size_t size = std::stoul(response.header("content-length"));
      while (buffer_.size() < size && read_more()) {
      }
      response.complete = buffer_.size() >= size;
      response.body = take(std::min(size, buffer_.size()));
    } else if (response.header("transfer-encoding") == "chunked") {
      while (true) {
        const std::string line = read_until("\r\n");
        if (!line.ends_with("\r\n")) return response;
        const size_t size = std::stoul(line, nullptr, 16);
        while (buffer_.size() < size + 2 && read_more()) {
        }
        if (buffer_.size() < size + 2) return response;
        response.body += take(size);
        if (take(2) != "\r\n") return response;
        ++num_chunks_;
        if (size == 0) break;
      }
      response.complete = true;
    } else {
      response.body = read_to_end();
      response.complete = at_eof_;
    }
    return response;
  }
  RawResponse get(std::string_view path) {
    send("GET " + std::string(path) + " HTTP/1.1\r\nHost: x\r\n\r\n");
    return read_response();
  }
  RawResponse post(std::string_view path, std::string_view body) {
    send("POST " + std::string(path) + " HTTP/1.1\r\nHost: x\r\nContent-Length: " + std::to_string(body.size()) +
         "\r\n\r\n" + std::string(body));
    return read_response();
  }
  size_t num_chunks() const { return num_chunks_; }

 protected:
  // What a client over TLS does otherwise; as send() and recv() without flags.
  virtual ssize_t transmit(std::string_view bytes) { return ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL); }
  virtual ssize_t receive(char* into, size_t size) { return recv(fd_, into, size, 0); }
  virtual bool has_pending() const { return false; }  // bytes that poll() does not know of
  int descriptor() const { return fd_; }

 private:
  std::string take(size_t num) {
    std::string taken = buffer_.substr(0, num);
    buffer_.erase(0, num);
    return taken;
  }

  int fd_ = -1;
  bool is_connected_ = false;
  bool timed_out_ = false;
  bool at_eof_ = false;
  bool was_reset_ = false;
  size_t num_chunks_ = 0;
  std::string buffer_;
};

}  // namespace sextant::http
