#include "server/http/tls_stream.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <boost/asio/error.hpp>
#include <cerrno>
#include <cstring>

#include "engine/base/check.h"

namespace sextant::http {
namespace {

namespace asio = boost::asio;

constexpr size_t kMaxRecordBytes = 16 * 1024;  // RFC 8446, section 5.1
constexpr unsigned char kHandshakeRecord = 22;

TlsStream::Outcome wants(TlsStream::Want want) { return {0, want, {}}; }
TlsStream::Outcome failed(boost::system::error_code error) { return {0, TlsStream::Want::kNothing, error}; }
boost::system::error_code system_error(int number) { return {number, boost::system::system_category()}; }

}  // namespace

struct TlsStream::Pipe {
  explicit Pipe(int descriptor) : fd(descriptor) {}
  int fd;
  bool at_eof = false;
  int failure = 0;  // errno of the last call that failed

  static int read(BIO* bio, char* into, size_t size, size_t* num) {
    Pipe& pipe = *static_cast<Pipe*>(BIO_get_data(bio));
    BIO_clear_retry_flags(bio);
    const ssize_t got = pipe.fd < 0 ? -1 : ::recv(pipe.fd, into, size, MSG_DONTWAIT);
    if (pipe.fd < 0) errno = ECONNABORTED;
    if (got > 0) *num = static_cast<size_t>(got);
    if (got == 0) pipe.at_eof = true;
    if (got < 0) pipe.note(bio, BIO_set_retry_read_of);
    return got > 0 ? 1 : 0;
  }
  static int write(BIO* bio, const char* from, size_t size, size_t* num) {
    Pipe& pipe = *static_cast<Pipe*>(BIO_get_data(bio));
    BIO_clear_retry_flags(bio);
    const ssize_t put = pipe.fd < 0 ? -1 : ::send(pipe.fd, from, size, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (pipe.fd < 0) errno = ECONNABORTED;
    if (put >= 0) *num = static_cast<size_t>(put);
    if (put < 0) pipe.note(bio, BIO_set_retry_write_of);
    return put >= 0 ? 1 : 0;
  }
  static long control(BIO* bio, int command, long, void*) {
    const Pipe& pipe = *static_cast<Pipe*>(BIO_get_data(bio));
    if (command == BIO_CTRL_FLUSH) return 1;
    if (command == BIO_CTRL_EOF) return pipe.at_eof ? 1 : 0;
    return 0;
  }
  static void BIO_set_retry_read_of(BIO* bio) { BIO_set_retry_read(bio); }
  static void BIO_set_retry_write_of(BIO* bio) { BIO_set_retry_write(bio); }

  void note(BIO* bio, void (*set_retry)(BIO*)) {
    if (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR) {
      set_retry(bio);
    } else {
      failure = errno;
    }
  }
  static const BIO_METHOD* method() {
    static const BIO_METHOD* const made = [] {
      BIO_METHOD* m = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "sextant socket");
      CHECK(m != nullptr);
      BIO_meth_set_read_ex(m, &Pipe::read);
      BIO_meth_set_write_ex(m, &Pipe::write);
      BIO_meth_set_ctrl(m, &Pipe::control);
      BIO_meth_set_create(m, [](BIO* bio) {
        BIO_set_init(bio, 1);
        return 1;
      });
      return m;
    }();
    return made;
  }
};

TlsStream::TlsStream(ssl_ctx_st* context, int fd)
    : pipe_(std::make_unique<Pipe>(fd)), ssl_(SSL_new(context), SSL_free) {
  BIO* bio = ssl_ ? BIO_new(Pipe::method()) : nullptr;
  CHECK(bio != nullptr) << "no memory for a TLS connection";
  BIO_set_data(bio, pipe_.get());
  SSL_set_bio(ssl_.get(), bio, bio);
  SSL_set_accept_state(ssl_.get());
}

TlsStream::~TlsStream() = default;

TlsStream::Outcome TlsStream::handshake() {
  if (!has_begun_) {
    unsigned char first = 0;
    const ssize_t num = pipe_->fd < 0 ? 0 : ::recv(pipe_->fd, &first, 1, MSG_PEEK | MSG_DONTWAIT);
    if (num == 0) return failed(asio::error::eof);
    if (num < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) return wants(Want::kReadable);
    if (num < 0) return failed(system_error(errno));
    if (first != kHandshakeRecord) return failed(make_error_code(kNotTls));
    has_begun_ = true;
  }
  ERR_clear_error();
  return outcome_of(SSL_do_handshake(ssl_.get()));
}

TlsStream::Outcome TlsStream::read(asio::mutable_buffer into) {
  if (is_broken_) return failed(asio::error::connection_aborted);
  ERR_clear_error();
  size_t num = 0;
  const int result = SSL_read_ex(ssl_.get(), into.data(), into.size(), &num);
  if (result == 1) return {num, Want::kNothing, {}};
  return outcome_of(result);
}

TlsStream::Outcome TlsStream::write(std::span<const asio::const_buffer> buffers) {
  if (is_broken_) return failed(asio::error::connection_aborted);
  thread_local std::array<char, kMaxRecordBytes> gathered;
  const size_t size = num_unwritten_ > 0 ? num_unwritten_ : std::min(kMaxRecordBytes, asio::buffer_size(buffers));
  if (size == 0) return {};
  const auto first =
      std::find_if(buffers.begin(), buffers.end(), [](const asio::const_buffer& buffer) { return buffer.size() > 0; });
  const void* bytes = first->data();
  if (first->size() < size) {
    CHECK(asio::buffer_copy(asio::buffer(gathered.data(), size), buffers) == size) << "a write was not repeated whole";
    bytes = gathered.data();
  }
  ERR_clear_error();
  size_t num = 0;
  const int result = SSL_write_ex(ssl_.get(), bytes, size, &num);
  num_unwritten_ = 0;
  if (result == 1) return {num, Want::kNothing, {}};
  const Outcome outcome = outcome_of(result);
  if (outcome.want != Want::kNothing) num_unwritten_ = size;
  return outcome;
}

TlsStream::Outcome TlsStream::outcome_of(int result) {
  switch (SSL_get_error(ssl_.get(), result)) {
    case SSL_ERROR_NONE: return {};
    case SSL_ERROR_WANT_READ: return wants(Want::kReadable);
    case SSL_ERROR_WANT_WRITE: return wants(Want::kWritable);
    case SSL_ERROR_ZERO_RETURN: return failed(asio::error::eof);
    default: break;
  }
  is_broken_ = true;
  if (pipe_->failure != 0) return failed(system_error(pipe_->failure));
  if (pipe_->at_eof) return failed(asio::error::eof);
  return failed(boost::system::errc::make_error_code(boost::system::errc::protocol_error));
}

void TlsStream::close_notify() {
  if (is_broken_ || !SSL_is_init_finished(ssl_.get())) return;
  ERR_clear_error();
  // -1 with an unfinished write before it, or a full socket: then the client sees the close of TCP alone.
  if (SSL_shutdown(ssl_.get()) < 0) ERR_clear_error();
}

void TlsStream::detach() { pipe_->fd = -1; }

}  // namespace sextant::http
