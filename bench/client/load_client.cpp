#include "bench/client/load_client.h"

#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <deque>
#include <list>
#include <memory>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/connect.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>

#include "bench/client/stream_reader.h"
#include "engine/base/clock.h"

namespace sextant::bench {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

constexpr auto kToken = asio::as_tuple(asio::use_awaitable);
constexpr size_t kReadBytes = 4096;
constexpr int kMaxConnectFailures = 8;  // in a row, until the server counts as gone
constexpr int kParallelConnects = 64;
constexpr auto kTick = std::chrono::milliseconds(100);

int64_t now_ns() { return SteadyClock::instance().now_ns(); }

double thread_cpu_s() {
  rusage usage = {};
  getrusage(RUSAGE_THREAD, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec);
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

struct Connection {
  Connection(asio::io_context& io, asio::ssl::context* tls_context, bool keep_text) : socket(io), reader(keep_text) {
    if (tls_context != nullptr) tls = std::make_unique<asio::ssl::stream<tcp::socket&>>(socket, *tls_context);
  }

  void close() {
    error_code ignored;
    socket.close(ignored);
  }

  tcp::socket socket;
  std::unique_ptr<asio::ssl::stream<tcp::socket&>> tls;
  StreamReader reader;
  std::list<Connection*>::iterator place;  // among the running
  int64_t deadline_ns = 0;
  std::optional<OutcomeKind> aborted;  // closed by us, and why
  std::array<char, kReadBytes> buffer;
};

class Client {
 public:
  Client(const ClientOptions& options, const std::vector<PlannedRequest>& requests, const ClientHooks& hooks)
      : options_(options), requests_(requests), hooks_(hooks), io_(1), due_timer_(io_), tick_timer_(io_) {
    if (options.endpoint.tls) {
      tls_context_ = std::make_unique<asio::ssl::context>(asio::ssl::context::tls_client);
      tls_context_->set_default_verify_paths();
      tls_context_->set_verify_mode(options.verify_tls ? asio::ssl::verify_peer : asio::ssl::verify_none);
    }
    head_ = "POST " + options.endpoint.path + options.target + " HTTP/1.1\r\nHost: " + options.endpoint.host_header() +
            "\r\nUser-Agent: sextant-bench\r\nAccept: text/event-stream\r\nContent-Type: application/json\r\n";
    if (!options.api_key.empty()) head_ += "Authorization: Bearer " + options.api_key + "\r\n";
    for (const std::string& header : options.headers) head_ += header + "\r\n";
  }

  Result<ClientRun> run() {
    error_code error;
    tcp::resolver resolver(io_);
    const auto found = resolver.resolve(options_.endpoint.host, options_.endpoint.port, error);
    if (error) {
      return unavailable("cannot find the host " + options_.endpoint.host + ": " + error.message());
    }
    for (const auto& entry : found) addresses_.push_back(entry.endpoint());
    run_.outcomes.resize(requests_.size());
    waiters_.resize(requests_.size());
    asio::co_spawn(io_, main(), asio::detached);
    io_.run();
    run_.end_ns = now_ns();
    run_.cpu_s = thread_cpu_s() - cpu_begin_s_;
    return std::move(run_);
  }

 private:
  asio::awaitable<void> main() {
    if (options_.preconnect) co_await preconnect();
    cpu_begin_s_ = thread_cpu_s();
    run_.begin_ns = now_ns();
    asio::co_spawn(io_, tick(), asio::detached);
    // Requests without a time and without a predecessor are ready from the start.
    for (size_t i = 0; i < requests_.size(); ++i) {
      if (requests_[i].after) {
        waiters_[*requests_[i].after].push_back(i);
      } else if (!requests_[i].offset_ns) {
        make_ready(i, run_.begin_ns);
      } else {
        timed_.push_back(i);
      }
    }
    std::stable_sort(timed_.begin(), timed_.end(),
                     [this](size_t a, size_t b) { return *requests_[a].offset_ns < *requests_[b].offset_ns; });
    for (const size_t i : timed_) {
      if (stopping_) break;
      const int64_t due_ns = run_.begin_ns + *requests_[i].offset_ns;
      if (due_ns > now_ns()) {
        due_timer_.expires_at(std::chrono::steady_clock::time_point(std::chrono::nanoseconds(due_ns)));
        co_await due_timer_.async_wait(kToken);
        if (stopping_) break;
      }
      make_ready(i, due_ns);
    }
    dispatched_all_ = true;
    end_when_idle();
  }

  void make_ready(size_t index, int64_t scheduled_ns) {
    run_.outcomes[index].scheduled_ns = scheduled_ns;
    ready_.push_back(index);
    pump();
  }

  void pump() {
    while (!ready_.empty() && !stopping_ &&
           (!options_.max_concurrency || static_cast<int64_t>(running_.size()) < *options_.max_concurrency)) {
      const int64_t now = now_ns();
      if (hooks_.stop_sending_ns && now - run_.begin_ns > *hooks_.stop_sending_ns) {
        stop_dispatching();
        return;
      }
      const size_t index = ready_.front();
      ready_.pop_front();
      RequestOutcome& outcome = run_.outcomes[index];
      outcome.ready_ns = std::max(outcome.scheduled_ns, slot_free_ns_);
      outcome.begin_ns = now;
      ++live_.num_sent;
      std::unique_ptr<Connection> connection;
      while (!idle_.empty() && !connection) {
        connection = std::move(idle_.back());
        idle_.pop_back();
        if (!connection->socket.is_open()) connection.reset();
      }
      outcome.new_connection = connection == nullptr;
      if (!connection) connection = make_connection();
      running_.push_front(connection.get());
      connection->place = running_.begin();
      connection->deadline_ns = now + options_.request_timeout_ns;
      asio::co_spawn(io_, serve(index, std::move(connection)), asio::detached);
    }
  }

  std::unique_ptr<Connection> make_connection() {
    return std::make_unique<Connection>(io_, tls_context_.get(), options_.keep_text);
  }

  asio::awaitable<error_code> open(Connection& connection) {
    error_code error = asio::error::host_not_found;
    for (const tcp::endpoint& address : addresses_) {
      connection.close();
      if (connection.socket.open(address.protocol(), error)) continue;
      auto [failed] = co_await connection.socket.async_connect(address, kToken);
      error = failed;
      if (!error || connection.aborted) break;
    }
    if (error) co_return error;
    ++run_.num_connections;
    error_code ignored;
    connection.socket.set_option(tcp::no_delay(true), ignored);
    if (connection.tls) {
      SSL_set_tlsext_host_name(connection.tls->native_handle(), options_.endpoint.host.c_str());
      if (options_.verify_tls)
        connection.tls->set_verify_callback(asio::ssl::host_name_verification(options_.endpoint.host));
      auto [failed] = co_await connection.tls->async_handshake(asio::ssl::stream_base::client, kToken);
      error = failed;
    }
    co_return error;
  }

  asio::awaitable<void> preconnect() {
    const size_t wanted = static_cast<size_t>(
        std::min<int64_t>(options_.max_concurrency.value_or(INT64_MAX), static_cast<int64_t>(requests_.size())));
    size_t begun = 0, open_now = 0;
    bool failed = false;
    asio::steady_timer all_done(io_, std::chrono::steady_clock::time_point::max());
    std::function<void()> start = [&] {
      while (begun < wanted && open_now < kParallelConnects && !failed) {
        ++begun, ++open_now;
        asio::co_spawn(
            io_,
            [&]() -> asio::awaitable<void> {
              auto connection = make_connection();
              if (const error_code error = co_await open(*connection)) {
                failed = true;  // said again, with its cause, by the request that finds no connection
              } else {
                idle_.push_back(std::move(connection));
              }
              --open_now;
              start();
              if (open_now == 0) all_done.cancel();
            },
            asio::detached);
      }
    };
    start();
    if (open_now > 0) co_await all_done.async_wait(kToken);
  }

  template <typename Buffers>
  asio::awaitable<error_code> write(Connection& connection, const Buffers& buffers) {
    if (connection.tls) {
      auto [error, n] = co_await asio::async_write(*connection.tls, buffers, kToken);
      co_return error;
    }
    auto [error, n] = co_await asio::async_write(connection.socket, buffers, kToken);
    co_return error;
  }

  // One request from its turn to its end. Takes a second connection when an idle one turns out to have been closed.
  asio::awaitable<void> serve(size_t index, std::unique_ptr<Connection> connection) {
    RequestOutcome& outcome = run_.outcomes[index];
    const std::string& body = requests_[index].body;
    const std::string head = head_ + "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n";
    const std::array<asio::const_buffer, 2> bytes = {asio::buffer(head), asio::buffer(body)};
    for (bool retried = false;; retried = true) {
      if (outcome.new_connection) {
        if (const error_code error = co_await open(*connection); error || connection->aborted) {
          outcome.kind = connection->aborted.value_or(OutcomeKind::kConnect);
          outcome.message = connection->aborted
                                ? abort_message(*connection->aborted)
                                : "cannot connect to " + options_.endpoint.host_header() + ": " + error.message();
          outcome.end_ns = now_ns();
          break;
        }
      }
      StreamReader& reader = connection->reader;
      reader.begin(&outcome);
      outcome.send_ns = now_ns();
      error_code error = co_await write(*connection, bytes);
      if (!error) {
        if (connection->tls) {
          error = co_await read_all(*connection, *connection->tls);
        } else {
          error = co_await read_all(*connection, connection->socket);
        }
      }
      if (connection->aborted) {
        outcome.kind = *connection->aborted;
        outcome.message = abort_message(*connection->aborted);
        outcome.end_ns = now_ns();
        outcome.status = 0;
        break;
      }
      if (error && !reader.began() && !outcome.new_connection && !retried) {
        connection->close();  // the server had closed the idle connection: a fresh one, as every HTTP client does
        const auto place = connection->place;
        const int64_t deadline_ns = connection->deadline_ns;
        connection = make_connection();
        connection->place = place;
        connection->deadline_ns = deadline_ns;
        *place = connection.get();
        outcome.new_connection = true;
        continue;
      }
      const int64_t now = now_ns();
      if (error) reader.close(now);
      if (error && error != asio::error::eof && outcome.message.find("closed") != std::string::npos) {
        outcome.message += " (" + error.message() + ")";
      }
      reader.finish(now);
      break;
    }
    finish(index, std::move(connection));
  }

  template <typename Stream>
  asio::awaitable<error_code> read_all(Connection& connection, Stream& stream) {
    StreamReader& reader = connection.reader;
    while (!reader.done()) {
      auto [error, n] = co_await stream.async_read_some(asio::buffer(connection.buffer), kToken);
      const int64_t now = now_ns();
      if (n > 0 && !reader.append({connection.buffer.data(), n}, now)) co_return error_code();
      if (error) co_return error;
    }
    co_return error_code();
  }

  static std::string abort_message(OutcomeKind kind) {
    return kind == OutcomeKind::kTimeout ? "no whole answer within --request-timeout"
                                         : "the run ended before the answer";
  }

  void finish(size_t index, std::unique_ptr<Connection> connection) {
    RequestOutcome& outcome = run_.outcomes[index];
    running_.erase(connection->place);
    slot_free_ns_ = now_ns();
    if (outcome.kind == OutcomeKind::kFinished) {
      ++live_.num_finished;
      live_.ttft_sum_ms += static_cast<double>(outcome.first_ns - outcome.send_ns) * 1e-6;
      connect_failures_ = 0;
    } else {
      ++live_.num_failed;
      live_.last_failure = outcome.message;
      if (outcome.kind == OutcomeKind::kConnect && ++connect_failures_ >= kMaxConnectFailures && !stopping_) {
        run_.gave_up = "the server at " + options_.endpoint.base_url() + " went away: " + outcome.message;
        stop_dispatching();
      }
      if (outcome.kind != OutcomeKind::kConnect) connect_failures_ = 0;
    }
    live_.num_events += outcome.num_events;
    if (connection->reader.keeps_alive() && !connection->aborted) {
      idle_.push_back(std::move(connection));
    } else {
      connection->close();
    }
    for (const size_t next : waiters_[index]) {
      if (requests_[next].think_ns > 0) {
        ++num_thinking_;
        asio::co_spawn(io_, think(next, now_ns() + requests_[next].think_ns), asio::detached);
      } else {
        make_ready(next, now_ns());
      }
    }
    pump();
    end_when_idle();
  }

  asio::awaitable<void> think(size_t index, int64_t due_ns) {
    asio::steady_timer timer(io_, std::chrono::steady_clock::time_point(std::chrono::nanoseconds(due_ns)));
    thinkers_.push_front(&timer);
    const auto place = thinkers_.begin();
    co_await timer.async_wait(kToken);
    thinkers_.erase(place);
    --num_thinking_;
    if (!stopping_) make_ready(index, due_ns);
    end_when_idle();
  }

  // What is in flight goes on.
  void stop_dispatching() {
    stopping_ = true;
    ready_.clear();
    due_timer_.cancel();
    for (asio::steady_timer* timer : thinkers_) timer->cancel();
    end_when_idle();
  }

  void abort_running(OutcomeKind kind) {
    for (Connection* connection : running_) {
      connection->aborted = kind;
      connection->close();
    }
  }

  void end_when_idle() {
    if (!running_.empty() || num_thinking_ > 0) return;
    if (!stopping_ && (!dispatched_all_ || !ready_.empty())) return;
    ended_ = true;
    tick_timer_.cancel();
    idle_.clear();
  }

  asio::awaitable<void> tick() {
    while (!ended_) {
      tick_timer_.expires_after(kTick);
      co_await tick_timer_.async_wait(kToken);
      if (ended_) break;
      const int64_t now = now_ns();
      if (!run_.interrupted && hooks_.interrupted && hooks_.interrupted()) {
        run_.interrupted = true;
        stop_dispatching();
        abort_running(OutcomeKind::kInterrupted);
      }
      for (Connection* connection : running_) {
        if (now > connection->deadline_ns && !connection->aborted) {
          connection->aborted = OutcomeKind::kTimeout;
          connection->close();
        }
      }
      if (hooks_.stop_sending_ns && !stopping_ && now - run_.begin_ns > *hooks_.stop_sending_ns) stop_dispatching();
      report(now);
    }
    report(now_ns());
  }

  void report(int64_t now) {
    if (!hooks_.on_progress) return;
    live_.num_planned = requests_.size();
    live_.num_running = running_.size();
    live_.elapsed_s = static_cast<double>(now - run_.begin_ns) * 1e-9;
    hooks_.on_progress(live_);
  }

  const ClientOptions& options_;
  const std::vector<PlannedRequest>& requests_;
  const ClientHooks& hooks_;
  asio::io_context io_;
  asio::steady_timer due_timer_;
  asio::steady_timer tick_timer_;
  std::unique_ptr<asio::ssl::context> tls_context_;
  std::vector<tcp::endpoint> addresses_;
  std::string head_;
  std::vector<size_t> timed_;                 // by time
  std::vector<std::vector<size_t>> waiters_;  // by predecessor
  std::deque<size_t> ready_;
  std::list<Connection*> running_;
  std::list<asio::steady_timer*> thinkers_;
  std::vector<std::unique_ptr<Connection>> idle_;
  LiveCounts live_;
  ClientRun run_;
  double cpu_begin_s_ = 0;
  int64_t slot_free_ns_ = 0;
  int connect_failures_ = 0;
  int num_thinking_ = 0;
  bool dispatched_all_ = false;
  bool stopping_ = false;
  bool ended_ = false;
};

// A socket per request in flight, and some for the process.
Status raise_file_limit(int64_t wanted) {
  rlimit limit = {};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return ok_status();
  const auto needed = static_cast<rlim_t>(wanted + 64);
  if (limit.rlim_cur < needed) {
    limit.rlim_cur = std::min(needed, limit.rlim_max);
    setrlimit(RLIMIT_NOFILE, &limit);
  }
  if (limit.rlim_cur < needed) {
    return invalid_argument("this process may open " + std::to_string(limit.rlim_cur) + " files, too few for " +
                            std::to_string(wanted) + " connections: raise `ulimit -n`, or lower --max-concurrency");
  }
  return ok_status();
}

}  // namespace

Result<ClientRun> run_load(const ClientOptions& options, const std::vector<PlannedRequest>& requests,
                           const ClientHooks& hooks) {
  // An open loop may come to as many connections as it has requests; it says so request by request when they run out.
  if (options.max_concurrency) {
    RETURN_IF_ERROR(
        raise_file_limit(std::min<int64_t>(*options.max_concurrency, static_cast<int64_t>(requests.size()))));
  } else {
    const Status ignored = raise_file_limit(static_cast<int64_t>(std::min<size_t>(requests.size(), 60000)));
    (void)ignored;
  }
  return Client(options, requests, hooks).run();
}

}  // namespace sextant::bench
