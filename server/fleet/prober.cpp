#include "server/fleet/prober.h"

#include <algorithm>
#include <boost/asio/bind_executor.hpp>
#include <boost/asio/post.hpp>
#include <set>
#include <utility>

#include "engine/base/log.h"
#include "engine/format/json_file.h"
#include "server/fleet/fleet.h"

namespace sextant::fleet {
namespace {

namespace asio = boost::asio;

// Between two probes of a member that is neither up nor down yet.
constexpr double kUndecidedInterval_s = 0.25;
constexpr size_t kMaxMembersBytes = size_t{4} << 20;

std::chrono::nanoseconds ns_of(double seconds) { return std::chrono::nanoseconds(static_cast<int64_t>(seconds * 1e9)); }

}  // namespace

struct Prober::Probe {
  Probe(MemberId member_id, http::Endpoint member_endpoint, const asio::any_io_executor& executor)
      : id(member_id), endpoint(std::move(member_endpoint)), timer(executor) {}
  const MemberId id;
  const http::Endpoint endpoint;
  asio::steady_timer timer;
  std::shared_ptr<http::UpstreamCall> call;
  int status = 0;
  // Without a path of the configuration: ours says at /ready that it takes work; others have /health.
  bool knows_ready = true;
  bool gone = false;
};

Prober::Prober(asio::io_context& io, http::UpstreamClient& client, Pool& pool, std::string api_key)
    : strand_(asio::make_strand(io)), client_(client), pool_(pool), api_key_(std::move(api_key)) {}

void Prober::start() {
  started_ = true;
  look();
}

void Prober::look() {
  if (!started_) return;
  asio::post(strand_, [self = shared_from_this()] { self->sync(); });
}

void Prober::stop() {
  asio::post(strand_, [self = shared_from_this()] {
    self->stopped_ = true;
    for (const auto& [id, probe] : std::exchange(self->probes_, {})) {
      probe->gone = true;
      probe->timer.cancel();
      if (probe->call) std::exchange(probe->call, nullptr)->cancel();
    }
  });
}

void Prober::sync() {
  if (stopped_) return;
  std::set<MemberId> present;
  for (const Pool::Address& member : pool_.members()) {
    present.insert(member.id);
    if (probes_.count(member.id) > 0) continue;
    const auto probe = std::make_shared<Probe>(member.id, member.endpoint, strand_);
    probes_.emplace(member.id, probe);
    ask(probe);
  }
  std::erase_if(probes_, [&](const auto& entry) {
    if (present.count(entry.first) > 0) return false;
    entry.second->gone = true;
    entry.second->timer.cancel();
    if (entry.second->call) std::exchange(entry.second->call, nullptr)->cancel();
    return true;
  });
}

void Prober::ask(const std::shared_ptr<Probe>& probe) {
  const ProbeSettings& settings = pool_.config().probe;
  http::UpstreamRequest request;
  request.target = !settings.path.empty() ? settings.path : probe->knows_ready ? "/ready" : "/health";
  if (!api_key_.empty()) request.headers.push_back({"Authorization", "Bearer " + api_key_});
  const auto timeout = std::chrono::duration_cast<std::chrono::milliseconds>(ns_of(settings.timeout_s));
  probe->status = 0;
  const auto self = shared_from_this();
  probe->call = client_.start(
      strand_, probe->endpoint, std::move(request), {timeout, timeout, timeout},
      {.on_head = [probe](const http::UpstreamHead& head) { probe->status = head.status; },
       .on_body = [](std::string_view) {},
       .on_end =
           [self, probe](http::UpstreamEnd end, const std::string& reason) {
             probe->call.reset();
             if (probe->gone) return;
             const bool is_auto = self->pool_.config().probe.path.empty();
             if (is_auto && probe->knows_ready && end == http::UpstreamEnd::kComplete && probe->status == 404) {
               probe->knows_ready = false;
               return self->ask(probe);
             }
             const bool good = end == http::UpstreamEnd::kComplete && probe->status == 200;
             self->pool_.probed(probe->id, good,
                                end == http::UpstreamEnd::kComplete ? "its probe got " + std::to_string(probe->status)
                                                                    : "its probe failed: " + reason,
                                steady_ns());
             self->wait(probe);
           }});
}

void Prober::wait(const std::shared_ptr<Probe>& probe) {
  const auto members = pool_.members();
  const auto found = std::ranges::find(members, probe->id, &Pool::Address::id);
  if (found == members.end()) return;
  double seconds = pool_.config().probe.interval_s;
  if (!found->decided) seconds = std::min(seconds, kUndecidedInterval_s);
  probe->timer.expires_after(ns_of(seconds));
  probe->timer.async_wait(
      asio::bind_executor(strand_, [self = shared_from_this(), probe](const boost::system::error_code& error) {
        if (!error && !probe->gone) self->ask(probe);
      }));
}

Result<std::vector<http::Endpoint>> read_members(std::string_view text) {
  std::vector<http::Endpoint> out;
  std::string bad;
  for (size_t line = 1; !text.empty(); ++line) {
    const size_t end = std::min(text.find('\n'), text.size());
    std::string_view entry = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    entry = entry.substr(0, entry.find('#'));
    while (!entry.empty() && std::isspace(static_cast<unsigned char>(entry.back())) != 0) entry.remove_suffix(1);
    while (!entry.empty() && std::isspace(static_cast<unsigned char>(entry.front())) != 0) entry.remove_prefix(1);
    if (entry.empty()) continue;
    Result<http::Endpoint> endpoint = http::Endpoint::parse(entry);
    if (!endpoint.ok()) {
      if (bad.size() < 500)
        bad += (bad.empty() ? "line " : "; line ") + std::to_string(line) + ": " + endpoint.status().message();
    } else if (std::ranges::find(out, *endpoint) == out.end()) {
      out.push_back(std::move(*endpoint));
    }
  }
  if (!bad.empty()) return invalid_argument(bad);
  return out;
}

Discovery::Discovery(asio::io_context& io, Pool& pool, std::function<void()> on_change)
    : strand_(asio::make_strand(io)),
      timer_(strand_),
      resolver_(strand_),
      pool_(pool),
      on_change_(std::move(on_change)) {}

Status Discovery::prepare() {
  const PoolConfig& config = pool_.config();
  if (!config.members.empty()) set(config.members);
  return config.members_file.empty() ? ok_status() : read_file();
}

void Discovery::start() {
  const PoolConfig& config = pool_.config();
  if (!config.members_dns && config.members_file.empty()) return;
  boost::asio::post(strand_, [self = shared_from_this()] {
    if (self->pool_.config().members_dns) return self->resolve();
    self->wait();
  });
}

void Discovery::stop() {
  asio::post(strand_, [self = shared_from_this()] {
    self->stopped_ = true;
    self->timer_.cancel();
    self->resolver_.cancel();
  });
}

void Discovery::set(std::vector<http::Endpoint> endpoints) {
  pool_.set_members(endpoints, steady_ns());
  last_warning_.clear();
  on_change_();
}

void Discovery::warn_once(const std::string& what) {
  if (what == last_warning_) return;
  last_warning_ = what;
  LOG_WARNING << "pool " << pool_.config().name << ": " << what << "; its members stay as they are";
}

void Discovery::wait() {
  timer_.expires_after(ns_of(pool_.config().discovery_interval_s));
  timer_.async_wait([self = shared_from_this()](const boost::system::error_code& error) {
    if (error || self->stopped_) return;
    if (self->pool_.config().members_dns) return self->resolve();
    if (const Status status = self->read_file(); !status.ok()) self->warn_once(status.message());
    self->wait();
  });
}

void Discovery::resolve() {
  const http::Endpoint& name = *pool_.config().members_dns;
  using Resolver = asio::ip::tcp::resolver;
  resolver_.async_resolve(name.host, std::to_string(name.port), Resolver::numeric_service,
                          [self = shared_from_this(), port = name.port](const boost::system::error_code& error,
                                                                        const Resolver::results_type& found) {
                            if (self->stopped_) return;
                            if (error) {
                              self->warn_once("the name is not resolved: " + error.message());
                            } else {
                              std::set<std::string> addresses;  // in an order that does not change
                              for (const auto& entry : found) addresses.insert(entry.endpoint().address().to_string());
                              std::vector<http::Endpoint> endpoints;
                              for (const std::string& address : addresses) endpoints.push_back({address, port});
                              self->set(std::move(endpoints));
                            }
                            self->wait();
                          });
}

Status Discovery::read_file() {
  ASSIGN_OR_RETURN(std::string text, read_text_file(pool_.config().members_file, kMaxMembersBytes));
  if (text == file_text_) return ok_status();
  Result<std::vector<http::Endpoint>> endpoints = read_members(text);
  if (!endpoints.ok())
    return invalid_argument(pool_.config().members_file + ": " + endpoints.status().message(), "members_file");
  // Half-written, more likely than meant.
  if (endpoints->empty()) return invalid_argument(pool_.config().members_file + " names no server", "members_file");
  file_text_ = std::move(text);
  set(std::move(endpoints).value());
  return ok_status();
}

}  // namespace sextant::fleet
