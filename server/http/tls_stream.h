// TlsStream: the server's side of one TLS connection over a socket's descriptor: OpenSSL and two system calls. Nothing here waits:
// what cannot be done now says for what the socket is to be waited for, and is then called again with the same bytes. One thread at
// a time (a session's strand). Must not know Asio: connection.h does the waiting.
//
// Why not asio::ssl::stream: it keeps four buffers of 17 KiB per connection, idle ones included, and cannot write a token at once,
// from inside of the call that makes it (Exchange::write_now).
#pragma once

#include <boost/asio/buffer.hpp>
#include <boost/system/error_code.hpp>
#include <cstddef>
#include <memory>
#include <span>

struct ssl_st;
struct ssl_ctx_st;

namespace sextant::http {

// The first bytes of a connection are no TLS; handshake() has taken none of them.
inline constexpr auto kNotTls = boost::system::errc::wrong_protocol_type;

class TlsStream {
 public:
  enum class Want { kNothing, kReadable, kWritable };
  struct Outcome {
    size_t num_bytes = 0;
    Want want = Want::kNothing;       // else: not done
    boost::system::error_code error;  // asio::error::eof: the client has closed, with a close_notify or without
  };

  // `fd` stays the caller's; `context` may go before this.
  TlsStream(ssl_ctx_st* context, int fd);
  ~TlsStream();
  TlsStream(const TlsStream&) = delete;
  TlsStream& operator=(const TlsStream&) = delete;

  // kNotTls when the first byte is not one of a TLS record.
  Outcome handshake();
  Outcome read(boost::asio::mutable_buffer into);
  // One record at most: as much of the buffers as fits into it, in one system call. After kWritable the next write must begin
  // with the same bytes.
  Outcome write(std::span<const boost::asio::const_buffer> buffers);
  // Sends close_notify if the socket takes it: nothing more will be written.
  void close_notify();
  // The descriptor is about to be closed, and its number may be another connection's next.
  void detach();

 private:
  struct Pipe;  // what OpenSSL reads from and writes to
  Outcome outcome_of(int result);

  std::unique_ptr<Pipe> pipe_;
  std::unique_ptr<ssl_st, void (*)(ssl_st*)> ssl_;
  bool has_begun_ = false;
  bool is_broken_ = false;    // after a fatal error nothing more may be asked of OpenSSL
  size_t num_unwritten_ = 0;  // size of the write that the socket did not take
};

}  // namespace sextant::http
