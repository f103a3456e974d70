#include "server/redis/redis_link.h"

#include <openssl/sha.h>

#include <algorithm>
#include <iterator>
#include <utility>

#include "engine/base/log.h"

namespace sextant::redis {
namespace {

using Clock = Connection::Clock;

// Up for so long, the next failure is a new one.
constexpr std::chrono::seconds kSettled{10};

}  // namespace

Script::Script(std::string text)
    : text_(std::move(text)), sha1_([this] {
        unsigned char hash[SHA_DIGEST_LENGTH];
        SHA1(reinterpret_cast<const unsigned char*>(text_.data()), text_.size(), hash);
        std::string hex;
        for (const unsigned char byte : hash) {
          hex += "0123456789abcdef"[byte >> 4];
          hex += "0123456789abcdef"[byte & 15];
        }
        return hex;
      }()) {}

Link::Link(Options options) : options_(std::move(options)), retry_(options_.first_retry), thread_([this] { work(); }) {}

Link::~Link() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

bool Link::send(Command command, Then then) { return add({nullptr, std::move(command), std::move(then)}); }

bool Link::run(const Script& script, Command words, Then then) {
  return add({&script, std::move(words), std::move(then)});
}

bool Link::add(Entry entry) {
  {
    const std::lock_guard lock(mutex_);
    if (!is_up_ || stopping_ || queue_.size() >= options_.max_queued) return false;
    queue_.push_back(std::move(entry));
  }
  wake_.notify_one();
  return true;
}

Link::Health Link::health() const {
  return {is_up_.load(std::memory_order_relaxed), num_failures_.load(std::memory_order_relaxed)};
}

void Link::set_down(const Status& status) {
  connection_.reset();
  {
    const std::lock_guard lock(mutex_);
    if (stopping_) return;
    if (is_up_.exchange(false)) num_failures_.fetch_add(1, std::memory_order_relaxed);
  }
  if (!std::exchange(was_told_, true)) {
    LOG_ERROR << "Redis at " << shown(options_.address) << " does not answer: " << options_.without << " ("
              << status.message() << ")";
  }
}

// What was taken is answered, in one way or the other.
void Link::refuse_queue() {
  std::deque<Entry> left;
  {
    const std::lock_guard lock(mutex_);
    left.swap(queue_);
  }
  for (const Entry& entry : left) entry.then(nullptr);
}

bool Link::connect() {
  Result<Connection> opened =
      Connection::open(options_.address, Clock::now() + options_.connect_timeout, options_.max_reply_bytes);
  if (!opened.ok()) {
    set_down(opened.status());
    return false;
  }
  connection_ = *std::move(opened);
  up_since_ = Clock::now();
  {
    const std::lock_guard lock(mutex_);
    is_up_ = true;
  }
  if (options_.on_tick) options_.on_tick(true);
  return true;
}

Status Link::exchange_batch(std::vector<Entry>& batch) {
  const auto deadline = Clock::now() + options_.timeout;
  std::vector<Command> commands;
  const auto add_command = [&](const Entry& entry, const char* verb, const std::string& script) {
    Command command = entry.command;
    if (entry.script != nullptr) command.insert(command.begin(), {verb, script});
    commands.push_back(std::move(command));
  };
  for (const Entry& entry : batch) add_command(entry, "EVALSHA", entry.script != nullptr ? entry.script->sha1() : "");
  ASSIGN_OR_RETURN(std::vector<Reply> replies, connection_->exchange(commands, deadline));
  std::vector<size_t> unknown;  // scripts that a Redis which began anew has not seen
  for (size_t i = 0; i < batch.size(); ++i) {
    if (batch[i].script != nullptr && replies[i].is_error("NOSCRIPT")) unknown.push_back(i);
  }
  if (!unknown.empty()) {
    commands.clear();
    for (const size_t i : unknown) add_command(batch[i], "EVAL", batch[i].script->text());
    ASSIGN_OR_RETURN(std::vector<Reply> more, connection_->exchange(commands, deadline));
    for (size_t i = 0; i < unknown.size(); ++i) replies[unknown[i]] = std::move(more[i]);
  }
  Status status;
  for (size_t i = 0; i < batch.size(); ++i) {
    const Then then = std::exchange(batch[i].then, nullptr);
    if (replies[i].kind == Reply::Kind::kError) {
      then(nullptr);
      status = unavailable("it says " + shown_text(replies[i].text));
    } else if (!then(&replies[i])) {
      status = unavailable("an answer makes no sense");
    }
  }
  return status;
}

bool Link::send_batch(std::vector<Entry> batch) {
  const Status status = exchange_batch(batch);
  if (!status.ok()) {
    set_down(status);
  } else if (std::exchange(was_told_, false)) {  // connecting alone says little
    LOG_INFO << "Redis at " << shown(options_.address) << " answers again";
  }
  for (const Entry& entry : batch) {
    if (entry.then) entry.then(nullptr);
  }
  return status.ok();
}

void Link::work() {
  std::unique_lock lock(mutex_);
  Clock::time_point next_tick{};
  while (!stopping_) {
    if (!connection_) {
      lock.unlock();
      refuse_queue();
      const bool is_up = connect();
      lock.lock();
      if (!is_up) {
        wake_.wait_for(lock, retry_, [&] { return stopping_; });
        retry_ = std::min(2 * retry_, options_.longest_retry);
        continue;
      }
      next_tick = Clock::now();  // with what a PING shows
    }
    wake_.wait_until(lock, next_tick, [&] { return stopping_ || !queue_.empty(); });
    if (stopping_) break;
    std::vector<Entry> batch;
    const size_t num = std::min(queue_.size(), options_.max_batch);
    std::move(queue_.begin(), queue_.begin() + static_cast<std::ptrdiff_t>(num), std::back_inserter(batch));
    queue_.erase(queue_.begin(), queue_.begin() + static_cast<std::ptrdiff_t>(num));
    lock.unlock();
    if (Clock::now() >= next_tick) {
      next_tick = Clock::now() + options_.tick;
      batch.push_back(
          {nullptr, {"PING"}, [](const Reply* reply) { return reply == nullptr || reply->text == "PONG"; }});
      if (options_.on_tick) options_.on_tick(false);
    }
    const bool is_up = send_batch(std::move(batch));
    if (!is_up) refuse_queue();
    if (is_up && Clock::now() - up_since_ >= kSettled) retry_ = options_.first_retry;
    lock.lock();
    if (!is_up && !stopping_) {
      wake_.wait_for(lock, retry_, [&] { return stopping_; });
      retry_ = std::min(2 * retry_, options_.longest_retry);
    }
  }
  lock.unlock();
  refuse_queue();
}

}  // namespace sextant::redis
