// Connection: one connection to a Redis (RESP2, read by hiredis), every step with a deadline and every answer bounded in bytes,
// elements and depth: what is at the other end is not trusted to be a Redis. One thread at a time. An error ends it: what
// was asked may or may not have been done.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/base/result.h"
#include "server/redis/redis_url.h"

struct redisContext;

namespace sextant::redis {

struct Reply {
  enum class Kind { kNil, kInteger, kText, kArray, kError };
  Kind kind = Kind::kNil;
  int64_t integer = 0;
  std::string text;  // of an error: its message
  std::vector<Reply> elements;

  bool is_error(std::string_view code) const { return kind == Kind::kError && text.starts_with(code); }
};

using Command = std::vector<std::string>;

class Connection {
 public:
  using Clock = std::chrono::steady_clock;
  // Connects, logs in, chooses the database. Looking up a name may take longer than the deadline. Errors hold no password,
  // nor anything that the other end might have made of one.
  static Result<Connection> open(const Address& address, Clock::time_point deadline, size_t max_reply_bytes);
  Connection(Connection&&) noexcept;
  Connection& operator=(Connection&&) noexcept;
  ~Connection();

  // Sends all, then reads as many answers, which `max_reply_bytes` bounds together. Redis' own errors are answers.
  Result<std::vector<Reply>> exchange(std::span<const Command> commands, Clock::time_point deadline);

 private:
  Connection(redisContext* context, size_t max_reply_bytes);
  Status send(const std::string& bytes, Clock::time_point deadline);

  std::unique_ptr<redisContext, void (*)(redisContext*)> context_;
  size_t max_reply_bytes_;
};

// A text of the other end as a log may show it: short, without control characters.
std::string shown_text(const std::string& text);

}  // namespace sextant::redis
