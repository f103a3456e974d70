#include "server/http/connection.h"

#include <sys/socket.h>
#include <sys/uio.h>

namespace sextant::http {

size_t Connection::write_now(std::span<const boost::asio::const_buffer> buffers) {
  if (tls_ != nullptr) return tls_->write(buffers).num_bytes;
  iovec pieces[8];
  size_t num_pieces = 0;
  for (const boost::asio::const_buffer& buffer : buffers) {
    if (buffer.size() > 0 && num_pieces < std::size(pieces))
      pieces[num_pieces++] = {const_cast<void*>(buffer.data()), buffer.size()};
  }
  msghdr message{};
  message.msg_iov = pieces;
  message.msg_iovlen = num_pieces;
  const ssize_t num_sent = ::sendmsg(socket_.native_handle(), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
  return num_sent > 0 ? static_cast<size_t>(num_sent) : 0;
}

void Connection::shutdown_send() {
  if (tls_ != nullptr) tls_->close_notify();
  ErrorCode ignored;
  socket_.shutdown(Socket::shutdown_send, ignored);
}

void Connection::close() {
  if (tls_ != nullptr) tls_->detach();
  ErrorCode ignored;
  socket_.close(ignored);
}

void Connection::reset() {
  ErrorCode ignored;
  socket_.set_option(boost::asio::socket_base::linger(true, 0), ignored);
  close();
}

}  // namespace sextant::http
