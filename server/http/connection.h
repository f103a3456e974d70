// Connection: the bytes of one client: a TCP socket, or TLS over one. To Asio and Beast it is a stream; plain ones cost a test of
// one pointer more than their socket. On the socket's strand. Private to server/http. Includes no Beast header.
#pragma once

#include <boost/asio/compose.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/strand.hpp>
#include <cstddef>
#include <memory>
#include <span>
#include <utility>

#include "server/http/tls_stream.h"

namespace sextant::http {

using Strand = boost::asio::strand<boost::asio::io_context::executor_type>;
using Socket = boost::asio::basic_stream_socket<boost::asio::ip::tcp, Strand>;

class Connection {
 public:
  using executor_type = Strand;
  using ErrorCode = boost::system::error_code;

  explicit Connection(Socket socket) : socket_(std::move(socket)) {}
  // Only between two operations.
  Connection(Connection&&) = default;
  Connection& operator=(Connection&&) = delete;

  executor_type get_executor() { return socket_.get_executor(); }
  int native_handle() { return socket_.native_handle(); }

  // Before anything else, and then async_handshake(); or end_tls(), and the connection is plain.
  void begin_tls(ssl_ctx_st* context) { tls_ = std::make_unique<TlsStream>(context, native_handle()); }
  void end_tls() { tls_.reset(); }
  bool is_tls() const { return tls_ != nullptr; }

  // One read and one write may be under way at a time. The handler is never called from inside of these.
  template <typename Handler>  // void(ErrorCode): kNotTls, or what TlsStream says
  void async_handshake(Handler handler) {
    start([tls = tls_.get()] { return tls->handshake(); },
          [handler = std::move(handler)](ErrorCode error, size_t) mutable { handler(error); });
  }
  template <typename Buffers, typename Token>
  auto async_read_some(const Buffers& buffers, Token&& token) {
    if (tls_ == nullptr) return socket_.async_read_some(buffers, std::forward<Token>(token));
    return start([tls = tls_.get(), into = first_of(buffers)] { return tls->read(into); }, std::forward<Token>(token));
  }
  template <typename Buffers, typename Token>
  auto async_write_some(const Buffers& buffers, Token&& token) {
    if (tls_ == nullptr) return socket_.async_write_some(buffers, std::forward<Token>(token));
    return start([tls = tls_.get(), pieces = Pieces(buffers)] { return tls->write(pieces.span()); },
                 std::forward<Token>(token));
  }

  // What the socket takes of these bytes at once; 0 on errors too, which come up again in the write that waits. The bytes that
  // were not taken must be those of the next write.
  size_t write_now(std::span<const boost::asio::const_buffer> buffers);
  // Nothing more will be sent: close_notify and FIN. Reading goes on.
  void shutdown_send();
  void close();
  void reset();  // closes, and the client sees that it was not regular

 private:
  // A buffer sequence as an array: TLS needs to go through it again.
  class Pieces {
   public:
    template <typename Buffers>
    explicit Pieces(const Buffers& buffers) {
      const auto end = boost::asio::buffer_sequence_end(buffers);
      for (auto at = boost::asio::buffer_sequence_begin(buffers); at != end && num_ < kMost; ++at) {
        const boost::asio::const_buffer piece = *at;
        if (piece.size() > 0) pieces_[num_++] = piece;
      }
    }
    std::span<const boost::asio::const_buffer> span() const { return {pieces_, num_}; }

   private:
    static constexpr size_t kMost = 16;  // what is beyond is for the next write
    boost::asio::const_buffer pieces_[kMost];
    size_t num_ = 0;
  };

  template <typename Buffers>
  static boost::asio::mutable_buffer first_of(const Buffers& buffers) {
    const auto end = boost::asio::buffer_sequence_end(buffers);
    for (auto at = boost::asio::buffer_sequence_begin(buffers); at != end; ++at) {
      const boost::asio::mutable_buffer buffer = *at;
      if (buffer.size() > 0) return buffer;
    }
    return {};
  }

  // Tries, waits for the socket as the attempt says, tries again.
  template <typename Attempt>
  struct Operation {
    Socket& socket;
    Attempt attempt;
    bool has_waited = false;
    bool is_done = false;
    TlsStream::Outcome outcome = {};

    template <typename Self>
    void operator()(Self& self, ErrorCode error = {}) {
      if (is_done) return self.complete(outcome.error, outcome.num_bytes);
      if (!error && !socket.is_open()) error = boost::asio::error::operation_aborted;
      if (error) {
        outcome.error = error;
      } else {
        outcome = attempt();
        if (outcome.want != TlsStream::Want::kNothing) {
          has_waited = true;
          return socket.async_wait(outcome.want == TlsStream::Want::kReadable ? Socket::wait_read : Socket::wait_write,
                                   std::move(self));
        }
      }
      if (has_waited) return self.complete(outcome.error, outcome.num_bytes);
      is_done = true;
      boost::asio::post(socket.get_executor(), std::move(self));
    }
  };
  template <typename Attempt, typename Token>
  auto start(Attempt attempt, Token&& token) {
    return boost::asio::async_compose<Token, void(ErrorCode, size_t)>(
        Operation<Attempt>{.socket = socket_, .attempt = std::move(attempt)}, token, socket_);
  }

  Socket socket_;
  std::unique_ptr<TlsStream> tls_;
};

}  // namespace sextant::http
