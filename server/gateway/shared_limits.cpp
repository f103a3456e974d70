#include "server/gateway/shared_limits.h"

#include <charconv>
#include <chrono>
#include <random>
#include <tuple>
#include <utility>
#include <vector>

#include "server/gateway/shared_limits_scripts.h"
#include "server/gateway/state_store.h"

namespace sextant {
namespace {

using redis::Command;
using redis::Reply;
using redis::Script;

// So many leases are renewed by one command.
constexpr size_t kRenewedAtOnce = 100;
// Days whose use waits for Redis; a tenant has one or two of them.
constexpr size_t kMaxUnwritten = 10'000;

const Script& script_of(const char* body) { return *new Script(std::string(shared_limits::kPrelude) + body); }

const Script& check_request_script() {
  static const Script& script = script_of(shared_limits::kCheckRequest);
  return script;
}
const Script& reserve_script() {
  static const Script& script = script_of(shared_limits::kReserve);
  return script;
}
const Script& settle_script() {
  static const Script& script = script_of(shared_limits::kSettle);
  return script;
}
const Script& release_script() {
  static const Script& script = script_of(shared_limits::kRelease);
  return script;
}
const Script& renew_script() {
  static const Script& script = script_of(shared_limits::kRenew);
  return script;
}

std::string hex_of(const Sha256& hash, size_t num_bytes) {
  std::string hex;
  for (size_t i = 0; i < num_bytes; ++i) {
    hex += "0123456789abcdef"[hash[i] >> 4];
    hex += "0123456789abcdef"[hash[i] & 15];
  }
  return hex;
}

// Names of keys and tenants are not shown to who may read this Redis.
std::string name_of(const char* kind, const std::string& id) {
  return std::string("sextant:") + kind + ":" + hex_of(sha256_of(id), 16);
}

std::string text_of(double value) {
  char text[32];
  return {text, std::to_chars(text, text + sizeof text, value).ptr};
}
std::string text_of(int64_t value) { return std::to_string(value); }

std::string random_name() {
  std::random_device device;
  std::string name;
  for (int i = 0; i < 4; ++i) name += text_of(static_cast<int64_t>(device()));
  return name;
}

// Finite and not negative, or nothing.
std::optional<double> number(const Reply& reply) {
  if (reply.kind == Reply::Kind::kInteger)
    return reply.integer >= 0 ? std::optional(double(reply.integer)) : std::nullopt;
  if (reply.kind != Reply::Kind::kText) return std::nullopt;
  double value = 0;
  const char* const end = reply.text.data() + reply.text.size();
  const auto [stopped, error] = std::from_chars(reply.text.data(), end, value);
  if (error != std::errc() || stopped != end || !(value >= -1e-3 && value < 1e18)) return std::nullopt;
  return std::max(0.0, value);
}

// A script's verdict and two numbers.
struct Verdict {
  int verdict;
  double left, right;
};
std::optional<Verdict> verdict_of(const Reply* reply) {
  if (reply == nullptr || reply->kind != Reply::Kind::kArray || reply->elements.size() != 3) return std::nullopt;
  const Reply& first = reply->elements[0];
  if (first.kind != Reply::Kind::kInteger || first.integer < 0 || first.integer > 2) return std::nullopt;
  const auto left = number(reply->elements[1]), right = number(reply->elements[2]);
  if (!left || !right) return std::nullopt;
  return Verdict{static_cast<int>(first.integer), *left, *right};
}

std::string used_name(const std::string& day, const std::string& tenant) {
  return name_of("used", day + '\0' + tenant);
}

bool is_done(const Reply* reply) {
  return reply == nullptr || (reply->kind == Reply::Kind::kInteger && reply->integer == 1);
}

}  // namespace

SharedLimits::SharedLimits(Options options) : options_(std::move(options)), replica_(random_name()) {
  redis::Link::Options link = options_.link;
  link.address = options_.address;
  link.timeout = options_.timeout;
  link.without = "limits are counted in this process alone";
  link.on_tick = [this](bool is_new) { on_tick(is_new); };
  const std::lock_guard lock(book_->mutex_);  // the link's thread waits for it in its first tick
  link_ = std::make_unique<redis::Link>(std::move(link));
  book_->link_ = link_.get();
}

SharedLimits::~SharedLimits() {
  {
    const std::lock_guard lock(book_->mutex_);
    book_->link_ = nullptr;
  }
  link_.reset();
}

std::string SharedLimits::day() const {
  using std::chrono::system_clock;
  return utc_day(options_.unix_now_s ? options_.unix_now_s() : system_clock::to_time_t(system_clock::now()));
}

SharedLimits::Lease SharedLimits::request_lease(const RequestAsk& ask) {
  if (ask.most_at_once <= 0) return {};
  return {name_of("running", ask.key_id), replica_ + ":" + std::to_string(next_lease_++) + ":1"};
}

SharedLimits::Lease SharedLimits::token_lease(const TokenAsk& ask) {
  if (ask.most_per_day <= 0) return {};
  return {name_of("reserved", day() + '\0' + ask.tenant),
          replica_ + ":" + std::to_string(next_lease_++) + ":" + std::to_string(ask.amount)};
}

bool SharedLimits::check_request(const RequestAsk& ask, const Lease& lease,
                                 std::function<void(std::optional<RequestAnswer>)> then) {
  const std::string leases = lease.name.empty() ? name_of("running", ask.key_id) : lease.name;
  const bool is_sent = link_->run(
      check_request_script(),
      {"4", name_of("requests", ask.key_id), name_of("tokens", ask.key_id), leases, leases + ":total",
       text_of(ask.requests.per_s), text_of(ask.requests.burst), text_of(ask.tokens.per_s), text_of(ask.tokens.burst),
       text_of(ask.most_at_once), lease.member, text_of(int64_t{options_.lease_ttl.count()})},
      [this, lease, then = std::move(then)](const Reply* reply) {
        const auto verdict = verdict_of(reply);
        if (!verdict) {
          num_local_.fetch_add(1, std::memory_order_relaxed);
          then(std::nullopt);
          return reply == nullptr;
        }
        if (verdict->verdict == 0) hold(lease);
        then(RequestAnswer{static_cast<RequestAnswer::Verdict>(verdict->verdict), verdict->left, verdict->right});
        return true;
      });
  if (!is_sent) num_local_.fetch_add(1, std::memory_order_relaxed);
  return is_sent;
}

bool SharedLimits::reserve(const TokenAsk& ask, const Lease& lease,
                           std::function<void(std::optional<TokenAnswer>)> then) {
  const std::string leases = lease.name.empty() ? name_of("reserved", ask.tenant) : lease.name;
  const bool is_sent =
      link_->run(reserve_script(),
                 {"4", name_of("tokens", ask.key_id), used_name(day(), ask.tenant), leases, leases + ":total",
                  text_of(ask.amount), text_of(ask.tokens.per_s), text_of(ask.tokens.burst), text_of(ask.most_per_day),
                  text_of(ask.known_used), lease.member, text_of(int64_t{options_.lease_ttl.count()})},
                 [this, lease, then = std::move(then)](const Reply* reply) {
                   const auto verdict = verdict_of(reply);
                   if (!verdict) {
                     num_local_.fetch_add(1, std::memory_order_relaxed);
                     then(std::nullopt);
                     return reply == nullptr;
                   }
                   if (verdict->verdict == 0) hold(lease);
                   then(TokenAnswer{static_cast<TokenAnswer::Verdict>(verdict->verdict), verdict->left,
                                    static_cast<int64_t>(verdict->right)});
                   return true;
                 });
  if (!is_sent) num_local_.fetch_add(1, std::memory_order_relaxed);
  return is_sent;
}

void SharedLimits::hold(const Lease& lease) {
  if (lease.name.empty()) return;
  const std::lock_guard lock(book_->mutex_);
  book_->held_.emplace(lease, 1);
}

// Sent under the lock: a renewal is queued before it, and undone, or after it and does not know it.
void SharedLimits::Book::release(const Lease& lease) {
  if (lease.name.empty()) return;
  const std::lock_guard lock(mutex_);
  held_.erase(lease);
  if (link_ != nullptr) link_->run(release_script(), {"2", lease.name, lease.name + ":total", lease.member}, is_done);
}

void SharedLimits::settle(const TokenAsk& ask, const Lease& lease, bool was_shared, int64_t num_used) {
  const bool counts_day = ask.most_per_day > 0;
  const int64_t back = was_shared ? std::max<int64_t>(0, ask.amount - num_used) : 0;
  if (!counts_day && (back == 0 || ask.tokens.per_s <= 0)) return;
  const std::string used = used_name(day(), ask.tenant);
  const std::string leases = lease.name.empty() ? name_of("reserved", ask.tenant) : lease.name;
  const int64_t counted = counts_day ? num_used : 0;
  const std::lock_guard lock(book_->mutex_);
  book_->held_.erase(lease);
  // What Redis did not confirm may be counted twice, rather than never: a quota is no larger than it is.
  const auto write_later = [book = book_, used, counted] {
    if (counted > 0 && book->unwritten_.size() < kMaxUnwritten) book->unwritten_[used] += counted;
  };
  const bool is_sent =
      link_->run(settle_script(),
                 {"4", name_of("tokens", ask.key_id), used, leases, leases + ":total", text_of(back),
                  text_of(ask.tokens.per_s), text_of(ask.tokens.burst), text_of(counted), lease.member},
                 [book = book_, write_later](const Reply* reply) {
                   if (reply == nullptr) {
                     const std::lock_guard again(book->mutex_);
                     write_later();
                   }
                   return is_done(reply);
                 });
  if (!is_sent) write_later();
}

void SharedLimits::on_tick(bool is_new) {
  const auto now = std::chrono::steady_clock::now();
  if (!is_new && now - renewed_ < options_.lease_ttl / 3) return;
  renewed_ = now;
  renew_leases();
  write_used();
}

void SharedLimits::renew_leases() {
  const std::lock_guard lock(book_->mutex_);
  if (book_->link_ == nullptr) return;
  Command words;
  const auto send = [&] {
    if (words.size() > 4) book_->link_->run(renew_script(), std::exchange(words, {}), is_done);
  };
  for (const auto& [lease, one] : book_->held_) {
    if (words.size() >= kRenewedAtOnce || (!words.empty() && words[1] != lease.name)) send();
    if (words.empty()) words = {"2", lease.name, lease.name + ":total", text_of(int64_t{options_.lease_ttl.count()})};
    words.push_back(lease.member);
  }
  send();
}

void SharedLimits::write_used() {
  const std::lock_guard lock(book_->mutex_);
  if (book_->link_ == nullptr) return;
  for (const auto& [name, tokens] : std::exchange(book_->unwritten_, {})) {
    const auto write_later = [book = book_, name = name, tokens = tokens] { book->unwritten_[name] += tokens; };
    const bool is_sent =
        book_->link_->run(settle_script(), {"4", name, name, name, name, "0", "0", "0", text_of(tokens), ""},
                          [book = book_, write_later](const Reply* reply) {
                            if (reply == nullptr) {
                              const std::lock_guard again(book->mutex_);
                              write_later();
                            }
                            return is_done(reply);
                          });
    if (!is_sent) write_later();
  }
}

SharedLimits::Health SharedLimits::health() const {
  const redis::Link::Health link = link_->health();
  return {link.is_up, link.num_failures, num_local_.load(std::memory_order_relaxed)};
}

}  // namespace sextant
