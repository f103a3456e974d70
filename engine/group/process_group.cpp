#include "engine/group/process_group.h"

#include <algorithm>
#include <utility>

#include "engine/base/check.h"
#include "engine/base/clock.h"
#include "engine/base/log.h"
#include "engine/group/bytes.h"

namespace sextant {
namespace {

constexpr double kFailureSendS = 2;
constexpr double kGoodbyeS = 2;
constexpr auto kForEver = std::chrono::hours(24 * 365);

int64_t now_ns() { return SteadyClock::instance().now_ns(); }
double seconds_between(int64_t from_ns, int64_t to_ns) { return static_cast<double>(to_ns - from_ns) * 1e-9; }

Status device_error(std::string message) { return {StatusCode::kDeviceError, std::move(message)}; }

std::string seconds_text(double seconds) {
  char text[32];
  std::snprintf(text, sizeof text, "%.3g s", seconds);
  return text;
}

ProcessGroup::Options with_silence(ProcessGroup::Options options) {
  constexpr double kYearS = 365.0 * 24 * 3600;
  if (options.silence_timeout_s <= 0) options.silence_timeout_s = kYearS;
  return options;
}

std::string serialize_parts(const std::vector<std::string>& parts) {
  ByteWriter out;
  for (const std::string& part : parts) out.write(std::string_view(part));
  return out.take();
}

Result<std::vector<std::string>> parse_parts(std::string_view bytes, size_t count) {
  ByteReader in(bytes);
  std::vector<std::string> parts(count);
  for (std::string& part : parts) part = in.read_text();
  if (!in.at_end()) return data_loss("an exchange of the group is damaged");
  return parts;
}

}  // namespace

ProcessGroup::ProcessGroup(Options options)
    : options_(with_silence(std::move(options))),
      interval_s_(std::clamp(options_.silence_timeout_s / 5, 0.02, 0.25)),
      connections_(static_cast<size_t>(options_.num_nodes)),
      reserved_(static_cast<size_t>(options_.num_nodes)),
      parts_(static_cast<size_t>(options_.num_nodes)),
      progress_(static_cast<size_t>(options_.num_nodes)),
      waited_for_s_(static_cast<size_t>(options_.num_nodes * options_.ranks_per_node)) {
  CHECK(options_.node_rank >= 0 && options_.node_rank < options_.num_nodes) << options_.node_rank;
}

Result<std::unique_ptr<ProcessGroup>> ProcessGroup::form(Options options) {
  std::unique_ptr<ProcessGroup> group(new ProcessGroup(std::move(options)));
  group->heart_ = std::thread([raw = group.get()] { raw->beat(); });
  if (group->num_nodes() > 1) {
    RETURN_IF_ERROR(group->is_leader() ? group->gather_followers() : group->find_leader());
  }
  return group;
}

ProcessGroup::~ProcessGroup() {
  leave("it ended");
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  heart_.join();
  // What was said last is read by the others before they close; then nobody reads here any more.
  const Deadline deadline = deadline_in(kGoodbyeS);
  std::vector<ConnectionPtr> all = connections();
  {
    const std::lock_guard lock(mutex_);
    all.insert(all.end(), closed_.begin(), closed_.end());
  }
  for (const ConnectionPtr& connection : all) {
    connection->socket.finish_sending();
    std::unique_lock lock(mutex_);
    changed_.wait_until(lock, deadline, [&] { return connection->closed.load(); });
    lock.unlock();
    connection->socket.shutdown();
    if (connection->reader.joinable()) connection->reader.join();
  }
}

std::vector<ProcessGroup::ConnectionPtr> ProcessGroup::connections() const {
  const std::lock_guard lock(mutex_);
  std::vector<ConnectionPtr> all;
  for (const ConnectionPtr& connection : connections_) {
    if (connection != nullptr) all.push_back(connection);
  }
  return all;
}

std::string ProcessGroup::local_host() const {
  for (const ConnectionPtr& connection : connections()) return connection->socket.local_host();
  return "127.0.0.1";
}

std::string ProcessGroup::describe(int node) const {
  const int first = node * options_.ranks_per_node;
  std::string text = "node " + std::to_string(node) + " (rank";
  text += options_.ranks_per_node == 1
              ? " " + std::to_string(first)
              : "s " + std::to_string(first) + " to " + std::to_string(first + options_.ranks_per_node - 1);
  for (const ConnectionPtr& connection : connections()) {
    if (connection->node == node) text += ", " + connection->peer;
  }
  return text + ")";
}

// --- reading ---------------------------------------------------------------------------------------------------------

// With the mutex held.
void ProcessGroup::start_reading(const ConnectionPtr& connection) {
  connection->heard_ns.store(now_ns());
  connection->reader = std::thread([this, connection] { read(connection); });
}

void ProcessGroup::read(const ConnectionPtr& connection) {
  const Deadline never = std::chrono::steady_clock::now() + kForEver;
  Status status;
  while (status.ok()) {
    Result<Frame> frame = receive_frame(connection->socket, kMaxFrameBytes, never);
    if (frame.ok()) {
      connection->heard_ns.store(now_ns());
      status = take(connection, std::move(*frame));
    } else {
      status = frame.status();
    }
  }
  lost(connection, status.message());
}

Status ProcessGroup::take(const ConnectionPtr& connection, Frame frame) {
  const auto node = static_cast<size_t>(connection->node);
  switch (frame.type) {
    case FrameType::kHeartbeat: {
      ASSIGN_OR_RETURN(std::vector<RankProgress> ranks, parse_progress(frame.body));
      if (ranks.size() > static_cast<size_t>(options_.ranks_per_node))
        return data_loss("a heartbeat of too many ranks");
      for (RankProgress& rank : ranks) {
        rank.node = connection->node;
        const int first = connection->node * options_.ranks_per_node;
        if (rank.rank < first || rank.rank >= first + options_.ranks_per_node) {
          return data_loss("a heartbeat of rank " + std::to_string(rank.rank) + ", which is another node's");
        }
      }
      const std::lock_guard lock(mutex_);
      progress_[node] = std::move(ranks);
      return ok_status();
    }
    case FrameType::kFailure: fail_locally(frame.body); return ok_status();
    case FrameType::kGoodbye:
      if (is_leader()) return unavailable("it left: " + frame.body);
      LOG_INFO << "the leader has left: " << frame.body;
      {
        const std::lock_guard lock(mutex_);
        leader_left_ = true;
      }
      changed_.notify_all();
      return unavailable("goodbye");
    default: break;
  }
  {
    const std::lock_guard lock(mutex_);
    if (is_leader() && frame.type == FrameType::kPart) {
      parts_[node].push_back(std::move(frame.body));
    } else if (is_leader() && frame.type == FrameType::kOutput) {
      outputs_.push_back(std::move(frame.body));
    } else if (!is_leader() && frame.type == FrameType::kParts) {
      all_parts_.push_back(std::move(frame.body));
    } else if (!is_leader() && frame.type == FrameType::kStep) {
      steps_.push_back(std::move(frame.body));
    } else {
      return data_loss("a message out of turn");
    }
  }
  changed_.notify_all();
  return ok_status();
}

void ProcessGroup::lost(const ConnectionPtr& connection, const std::string& why) {
  const std::string who = connection->node == 0 ? "the leader, " + describe(0) + "," : describe(connection->node);
  bool matters = false;
  {
    const std::lock_guard lock(mutex_);
    if (!formed_) {  // it may come again
      connections_[static_cast<size_t>(connection->node)] = nullptr;
      reserved_[static_cast<size_t>(connection->node)] = false;
      closed_.push_back(connection);
      LOG_WARNING << who << " was lost while the group formed: " << why;
    } else {
      matters = !leaving_ && !leader_left_;
    }
    connection->closed.store(true);
  }
  changed_.notify_all();
  connection->socket.shutdown();
  if (matters) fail(who + " is missing: " + why);
}

// --- the heart -------------------------------------------------------------------------------------------------------

void ProcessGroup::beat() {
  int64_t last_ns = now_ns();
  while (true) {
    {
      std::unique_lock lock(mutex_);
      const auto interval = std::chrono::duration<double>(interval_s_);
      if (changed_.wait_for(lock, interval, [&] { return stopping_; })) return;
    }
    std::vector<RankProgress> own;
    Status of_source;
    {
      const std::lock_guard lock(handler_mutex_);
      Result<std::vector<RankProgress>> asked = source_ ? source_() : std::vector<RankProgress>();
      if (asked.ok()) {
        own = std::move(*asked);
      } else {
        of_source = asked.status();
      }
    }
    if (!of_source.ok()) fail("node " + std::to_string(options_.node_rank) + ": " + of_source.message());
    for (RankProgress& rank : own) rank.node = options_.node_rank;
    const std::string body = serialize_progress(own);
    {
      const std::lock_guard lock(mutex_);
      progress_[static_cast<size_t>(options_.node_rank)] = std::move(own);
    }
    const int64_t begin_ns = now_ns();
    const double pause_s = seconds_between(last_ns, begin_ns);
    const std::vector<ConnectionPtr> all = connections();
    // This process was stopped itself: what the others said meanwhile waits to be read.
    if (pause_s > 3 * interval_s_ + 1) {
      for (const ConnectionPtr& connection : all) connection->heard_ns.store(begin_ns);
    }
    if (!status().ok()) continue;
    for (const ConnectionPtr& connection : all) {
      if (!connection->closed.load()) static_cast<void>(send(*connection, FrameType::kHeartbeat, body));
    }
    look_for_silence(now_ns());
    if (is_leader()) {
      const std::vector<RankProgress> ranks = merged_progress();
      const std::vector<int64_t> lags = lag_ms(ranks);
      {
        const std::lock_guard lock(mutex_);
        for (size_t i = 0; i < ranks.size(); ++i) {
          const auto rank = static_cast<size_t>(ranks[i].rank);
          if (rank < waited_for_s_.size())
            waited_for_s_[rank] += std::min(pause_s, static_cast<double>(lags[i]) * 1e-3);
        }
      }
      look_for_stuck_ranks(ranks);
    }
    last_ns = begin_ns;
  }
}

void ProcessGroup::look_for_silence(int64_t at_ns) {
  for (const ConnectionPtr& connection : connections()) {
    const double silent_s = seconds_between(connection->heard_ns.load(), at_ns);
    if (connection->closed.load() || silent_s < options_.silence_timeout_s) continue;
    {
      const std::lock_guard lock(mutex_);
      if (!formed_ || leaving_ || leader_left_) return;
    }
    fail(describe(connection->node) + " is missing: nothing was heard of it for " + seconds_text(silent_s) +
         " (collective_timeout)");
  }
}

void ProcessGroup::look_for_stuck_ranks(const std::vector<RankProgress>& ranks) {
  const int64_t longest = longest_inside_ms(ranks);
  if (static_cast<double>(longest) * 1e-3 < options_.silence_timeout_s) return;
  fail(describe_stuck(ranks) + " (collective_timeout)");
}

std::vector<RankProgress> ProcessGroup::merged_progress() const {
  const int64_t at_ns = now_ns();
  std::vector<RankProgress> ranks;
  const std::lock_guard lock(mutex_);
  for (size_t node = 0; node < progress_.size(); ++node) {
    const ConnectionPtr& connection = connections_[node];
    const bool silent =
        connection != nullptr && seconds_between(connection->heard_ns.load(), at_ns) > 3 * interval_s_ + 0.2;
    for (const RankProgress& rank : progress_[node]) {
      ranks.push_back(rank);
      ranks.back().silent = silent;
      if (silent) {
        ranks.back().silent_ms = static_cast<int64_t>(seconds_between(connection->heard_ns.load(), at_ns) * 1e3);
      }
    }
  }
  return ranks;
}

std::vector<RankReading> ProcessGroup::readings() const {
  const std::vector<RankProgress> ranks = merged_progress();
  const std::vector<int64_t> lags = lag_ms(ranks);
  const int64_t at_ns = now_ns();
  std::vector<RankReading> readings;
  const std::lock_guard lock(mutex_);
  for (size_t i = 0; i < ranks.size(); ++i) {
    const RankProgress& rank = ranks[i];
    RankReading reading;
    reading.rank = rank.rank;
    reading.node = rank.node;
    reading.step_s = static_cast<double>(rank.step_ms) * 1e-3;
    reading.lag_s = static_cast<double>(lags[i]) * 1e-3;
    reading.num_steps = rank.steps_done;
    reading.num_collectives = rank.num_calls;
    const ConnectionPtr& connection = connections_[static_cast<size_t>(rank.node)];
    if (connection != nullptr) {
      reading.heartbeat_age_s = seconds_between(connection->heard_ns.load(), at_ns);
    }
    if (static_cast<size_t>(rank.rank) < waited_for_s_.size()) {
      reading.waited_for_s = waited_for_s_[static_cast<size_t>(rank.rank)];
    }
    readings.push_back(reading);
  }
  return readings;
}

// --- failing and leaving ---------------------------------------------------------------------------------------------

Status ProcessGroup::status() const {
  const std::lock_guard lock(mutex_);
  return failure_;
}

void ProcessGroup::fail_locally(const std::string& message) {
  {
    const std::lock_guard lock(mutex_);
    if (!failure_.ok() || leaving_) return;
    failure_ = device_error(message);
  }
  LOG_ERROR << "the group has failed: " << message;
  changed_.notify_all();
  const std::lock_guard lock(handler_mutex_);
  if (!handler_ || handled_) return;
  handled_ = true;
  handler_(message);
}

void ProcessGroup::fail(const std::string& message) {
  {
    const std::lock_guard lock(mutex_);
    if (!failure_.ok() || leaving_) return;
  }
  fail_locally(message);
  for (const ConnectionPtr& connection : connections()) {
    if (connection->closed.load()) continue;
    const std::lock_guard sending(connection->sending);
    static_cast<void>(send_frame(connection->socket, FrameType::kFailure, message, deadline_in(kFailureSendS)));
  }
}

void ProcessGroup::set_failure_handler(std::function<void(const std::string&)> handler) {
  const std::lock_guard lock(handler_mutex_);
  handler_ = std::move(handler);
  // Asked with the lock held: a failure that comes after the question finds the handler, one before it is the answer.
  const Status failed = status();
  if (!handler_ || handled_ || failed.ok()) return;
  handled_ = true;
  handler_(failed.message());
}

void ProcessGroup::set_progress_source(std::function<Result<std::vector<RankProgress>>()> source) {
  const std::lock_guard lock(handler_mutex_);
  source_ = std::move(source);
}

void ProcessGroup::leave(const std::string& why) {
  {
    const std::lock_guard lock(mutex_);
    if (std::exchange(leaving_, true)) return;
    if (!failure_.ok() || leader_left_) return;
  }
  changed_.notify_all();
  for (const ConnectionPtr& connection : connections()) {
    if (connection->closed.load()) continue;
    const std::lock_guard sending(connection->sending);
    static_cast<void>(send_frame(connection->socket, FrameType::kGoodbye, why, deadline_in(kGoodbyeS)));
  }
}

// --- messages --------------------------------------------------------------------------------------------------------

Status ProcessGroup::send(Connection& connection, FrameType type, std::string_view body) {
  Status sent;
  {
    const std::lock_guard sending(connection.sending);
    sent = send_frame(connection.socket, type, body, deadline_in(options_.silence_timeout_s));
  }
  if (sent.ok() || connection.closed.load()) return sent;
  // A heartbeat's loss shows in the reader, who has the better reason.
  if (type != FrameType::kHeartbeat) fail(describe(connection.node) + " is missing: " + sent.message());
  return status();
}

Status ProcessGroup::send_step(std::string_view bytes) {
  CHECK(is_leader());
  RETURN_IF_ERROR(status());
  for (const ConnectionPtr& connection : connections()) RETURN_IF_ERROR(send(*connection, FrameType::kStep, bytes));
  return ok_status();
}

Status ProcessGroup::send_output(std::string_view bytes) {
  CHECK(!is_leader());
  RETURN_IF_ERROR(status());
  for (const ConnectionPtr& connection : connections()) RETURN_IF_ERROR(send(*connection, FrameType::kOutput, bytes));
  return ok_status();
}

Result<std::optional<std::string>> ProcessGroup::next_of(std::deque<std::string>& queue) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return !queue.empty() || !failure_.ok() || leader_left_ || leaving_; });
  if (!failure_.ok()) return failure_;
  if (queue.empty()) return std::optional<std::string>();
  std::optional<std::string> next = std::move(queue.front());
  queue.pop_front();
  return next;
}

Result<std::optional<std::string>> ProcessGroup::receive_step() { return next_of(steps_); }

Result<std::string> ProcessGroup::receive_output() {
  ASSIGN_OR_RETURN(std::optional<std::string> output, next_of(outputs_));
  if (!output) return unavailable("the group was left");
  return std::move(*output);
}

Result<std::vector<std::string>> ProcessGroup::exchange(std::string part) {
  if (num_nodes() == 1) return std::vector<std::string>{std::move(part)};
  std::vector<std::string> parts(static_cast<size_t>(num_nodes()));
  if (is_leader()) {
    parts[0] = std::move(part);
    for (size_t node = 1; node < parts.size(); ++node) {
      ASSIGN_OR_RETURN(std::optional<std::string> next, next_of(parts_[node]));
      if (!next) return unavailable("the group was left");
      parts[node] = std::move(*next);
    }
    const std::string all = serialize_parts(parts);
    for (const ConnectionPtr& connection : connections()) RETURN_IF_ERROR(send(*connection, FrameType::kParts, all));
    return parts;
  }
  for (const ConnectionPtr& connection : connections()) RETURN_IF_ERROR(send(*connection, FrameType::kPart, part));
  ASSIGN_OR_RETURN(std::optional<std::string> all, next_of(all_parts_));
  if (!all) return unavailable("the leader has left");
  return parse_parts(*all, parts.size());
}

}  // namespace sextant
