#include "server/redis/redis_connection.h"

#include <hiredis/hiredis.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

namespace sextant::redis {
namespace {

constexpr int kMaxElements = 64;  // of one array; hiredis bounds the depth

const redisReplyObjectFunctions& default_functions() {
  static const redisReplyObjectFunctions functions = [] {
    redisReader* const reader = redisReaderCreate();
    const redisReplyObjectFunctions found = *reader->fn;
    redisReaderFree(reader);
    return found;
  }();
  return functions;
}

// hiredis would allocate what the other end announces.
void* create_bounded_array(const redisReadTask* task, int num_elements) {
  return num_elements > kMaxElements ? nullptr : default_functions().createArray(task, num_elements);
}

redisReplyObjectFunctions* bounded_functions() {
  static redisReplyObjectFunctions functions = [] {
    redisReplyObjectFunctions bounded = default_functions();
    bounded.createArray = create_bounded_array;
    return bounded;
  }();
  return &functions;
}

Reply reply_of(const redisReply& from) {
  Reply reply;
  switch (from.type) {
    case REDIS_REPLY_INTEGER:
      reply.kind = Reply::Kind::kInteger;
      reply.integer = from.integer;
      break;
    case REDIS_REPLY_STATUS:
    case REDIS_REPLY_STRING:
      reply.kind = Reply::Kind::kText;
      reply.text.assign(from.str, from.len);
      break;
    case REDIS_REPLY_ERROR:
      reply.kind = Reply::Kind::kError;
      reply.text.assign(from.str, from.len);
      break;
    case REDIS_REPLY_ARRAY:
      reply.kind = Reply::Kind::kArray;
      for (size_t i = 0; i < from.elements; ++i) reply.elements.push_back(reply_of(*from.element[i]));
      break;
    default: break;
  }
  return reply;
}

std::string bytes_of(const Command& command) {
  std::string bytes = "*" + std::to_string(command.size()) + "\r\n";
  for (const std::string& word : command) bytes += "$" + std::to_string(word.size()) + "\r\n" + word + "\r\n";
  return bytes;
}

Status wait_for(int fd, short events, Connection::Clock::time_point deadline) {
  for (;;) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Connection::Clock::now()).count();
    if (left <= 0) return unavailable("no answer in time");
    pollfd entry{fd, events, 0};
    const int ready = ::poll(&entry, 1, static_cast<int>(std::min<int64_t>(left, 60'000)));
    if (ready > 0) return ok_status();
    if (ready < 0 && errno != EINTR) return unavailable(std::strerror(errno));
  }
}

// The first word alone: the rest of an error may repeat what was sent.
std::string error_code(const Reply& reply) {
  const std::string code = reply.text.substr(0, reply.text.find(' '));
  const bool is_code =
      !code.empty() && code.size() <= 32 && std::ranges::all_of(code, [](char c) { return c >= 'A' && c <= 'Z'; });
  return is_code ? code : "an error";
}

}  // namespace

std::string shown_text(const std::string& text) {
  std::string shown = text.substr(0, 120);
  std::ranges::replace_if(
      shown, [](char c) { return static_cast<unsigned char>(c) < ' ' || static_cast<unsigned char>(c) >= 0x7f; }, '?');
  return shown;
}

Connection::Connection(redisContext* context, size_t max_reply_bytes)
    : context_(context, redisFree), max_reply_bytes_(max_reply_bytes) {}
Connection::Connection(Connection&&) noexcept = default;
Connection& Connection::operator=(Connection&&) noexcept = default;
Connection::~Connection() = default;

Result<Connection> Connection::open(const Address& address, Clock::time_point deadline, size_t max_reply_bytes) {
  Connection connection(redisConnectNonBlock(address.host.c_str(), address.port), max_reply_bytes);
  redisContext* const context = connection.context_.get();
  if (context == nullptr) return unavailable("out of memory");
  if (context->err != 0) return unavailable(context->errstr);
  context->reader->fn = bounded_functions();
  std::vector<Command> commands;
  if (!address.password.empty()) {
    commands.push_back({"AUTH"});
    if (!address.user.empty()) commands.back().push_back(address.user);
    commands.back().push_back(address.password);
  }
  if (address.database != 0) commands.push_back({"SELECT", std::to_string(address.database)});
  commands.push_back({"PING"});
  ASSIGN_OR_RETURN(const std::vector<Reply> replies, connection.exchange(commands, deadline));
  for (size_t i = 0; i < replies.size(); ++i) {
    if (replies[i].kind == Reply::Kind::kError)
      return unavailable(commands[i][0] + " was answered with " + error_code(replies[i]));
    const char* const expected = commands[i][0] == "PING" ? "PONG" : "OK";
    if (replies[i].text != expected) return unavailable("what answers is no Redis");
  }
  return connection;
}

Status Connection::send(const std::string& bytes, Clock::time_point deadline) {
  for (size_t sent = 0; sent < bytes.size();) {
    const ssize_t num = ::send(context_->fd, bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (num > 0) {
      sent += static_cast<size_t>(num);
    } else if (num < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOTCONN)) {
      RETURN_IF_ERROR(wait_for(context_->fd, POLLOUT, deadline));
    } else if (errno != EINTR) {
      return unavailable(std::strerror(errno));
    }
  }
  return ok_status();
}

Result<std::vector<Reply>> Connection::exchange(std::span<const Command> commands, Clock::time_point deadline) {
  std::string bytes;
  for (const Command& command : commands) bytes += bytes_of(command);
  RETURN_IF_ERROR(wait_for(context_->fd, POLLOUT, deadline));  // also the end of connecting
  RETURN_IF_ERROR(send(bytes, deadline));
  std::vector<Reply> replies;
  size_t num_bytes = 0;
  std::array<char, 16 * 1024> buffer;
  while (replies.size() < commands.size()) {
    void* object = nullptr;
    if (redisReaderGetReply(context_->reader, &object) != REDIS_OK)
      return unavailable("what answers is no Redis: " + shown_text(context_->reader->errstr));
    if (object != nullptr) {
      const std::unique_ptr<void, void (*)(void*)> owned(object, freeReplyObject);
      replies.push_back(reply_of(*static_cast<redisReply*>(object)));
      continue;
    }
    RETURN_IF_ERROR(wait_for(context_->fd, POLLIN, deadline));
    const ssize_t num = ::recv(context_->fd, buffer.data(), buffer.size(), MSG_DONTWAIT);
    if (num == 0) return unavailable("the connection was closed");
    if (num < 0) {
      if (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR) continue;
      return unavailable(std::strerror(errno));
    }
    num_bytes += static_cast<size_t>(num);
    if (num_bytes > max_reply_bytes_) return unavailable("the answer is too long");
    if (redisReaderFeed(context_->reader, buffer.data(), static_cast<size_t>(num)) != REDIS_OK)
      return unavailable("out of memory");
  }
  // More than was asked for: the next answers would be others'.
  if (context_->reader->pos < context_->reader->len) return unavailable("what answers is no Redis: it goes on");
  return replies;
}

}  // namespace sextant::redis
