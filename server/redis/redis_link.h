// Link: a Redis for everybody in this process. One thread of its own sends what is queued, as much at a time as there is, and
// hands out the answers; so no caller ever waits. While Redis is away, slow or answers nonsense commands are not taken, and
// the caller does without: that is said in the log once per change. It is tried again in the background, each time later.
//
// Threads: send() and health() from any. `then` is called on the link's thread, exactly once and not under its lock.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "server/redis/redis_connection.h"

namespace sextant::redis {

// A Lua script, sent by its SHA-1 where Redis has it already.
class Script {
 public:
  explicit Script(std::string text);
  const std::string& text() const { return text_; }
  const std::string& sha1() const { return sha1_; }

 private:
  const std::string text_;
  const std::string sha1_;  // hexadecimal
};

class Link {
 public:
  struct Options {
    Address address;
    std::chrono::milliseconds timeout{100};  // of what is sent at once; an answer takes at most two of them
    std::chrono::milliseconds connect_timeout{2'000};
    std::chrono::milliseconds first_retry{100}, longest_retry{5'000};
    std::chrono::milliseconds tick{1'000};  // between two looks at a Redis that nobody asks
    size_t max_queued = 10'000;             // commands; more are not taken
    size_t max_batch = 256;                 // commands
    size_t max_reply_bytes = 1 << 20;       // of a batch
    std::string without;                    // what is done meanwhile, for the log
    // On the link's thread: after each connecting (true), and each tick (false). It may send().
    std::function<void(bool is_new)> on_tick;
  };
  // None: Redis is away, or was while it was asked. False: this answer makes no sense, and Redis counts as away.
  using Then = std::function<bool(const Reply* reply)>;

  explicit Link(Options options);
  ~Link();  // what is queued is answered with none
  Link(const Link&) = delete;
  Link& operator=(const Link&) = delete;

  // False, and `then` is not called: Redis is away, or too much waits for it.
  bool send(Command command, Then then);
  // `words`: the number of keys, keys and arguments. The script outlives the link.
  bool run(const Script& script, Command words, Then then);

  struct Health {
    bool is_up = false;
    uint64_t num_failures = 0;  // times since start that it went away
  };
  Health health() const;

 private:
  struct Entry {
    const Script* script;  // null: the command says it all
    Command command;
    Then then;
  };
  bool add(Entry entry);
  void work();
  bool connect();
  // False: Redis is away from here on.
  bool send_batch(std::vector<Entry> batch);
  Status exchange_batch(std::vector<Entry>& batch);
  void set_down(const Status& status);
  void refuse_queue();

  const Options options_;
  std::optional<Connection> connection_;  // of the thread alone, as the next two
  std::chrono::milliseconds retry_;
  Connection::Clock::time_point up_since_{};
  bool was_told_ = false;  // the log has said that it is away

  std::atomic<bool> is_up_{false};
  std::atomic<uint64_t> num_failures_{0};
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Entry> queue_;  // guarded by mutex_; empty while Redis is away
  bool stopping_ = false;    // likewise
  std::thread thread_;       // last
};

}  // namespace sextant::redis
