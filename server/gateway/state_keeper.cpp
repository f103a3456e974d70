#include "server/gateway/state_keeper.h"

#include <chrono>
#include <cstring>
#include <utility>

#include "engine/base/log.h"

namespace sextant {
namespace {

int64_t system_unix_s() {
  return std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count();
}

}  // namespace

// A hash is as good as random in each of its parts.
size_t StateKeeper::KeyHash::operator()(const Sha256& hash) const {
  size_t part = 0;
  std::memcpy(&part, hash.data(), sizeof part);
  return part;
}

StateKeeper::StateKeeper(std::unique_ptr<StateStore> store, Options options)
    : store_(std::move(store)), options_(std::move(options)) {}

Result<std::unique_ptr<StateKeeper>> StateKeeper::start(std::unique_ptr<StateStore> store, Options options) {
  if (!options.unix_now_s) options.unix_now_s = system_unix_s;
  std::unique_ptr<StateKeeper> keeper(new StateKeeper(std::move(store), std::move(options)));
  RETURN_IF_ERROR(keeper->reload());
  RETURN_IF_ERROR(keeper->read_day_totals());
  keeper->thread_ = std::thread([raw = keeper.get()] { raw->run(); });
  return keeper;
}

StateKeeper::~StateKeeper() {
  {
    const std::lock_guard lock(stop_mutex_);
    stopping_ = true;
  }
  stop_condition_.notify_all();
  if (thread_.joinable()) thread_.join();
  if (const Status status = write_usage(); !status.ok())
    LOG_ERROR << "usage of the last moments was not written: " << status.message();
}

std::shared_ptr<const StateKeeper::Table> StateKeeper::table() const {
  const std::lock_guard lock(table_mutex_);
  return table_;
}

Status StateKeeper::reload() {
  const std::lock_guard store_lock(store_mutex_);
  auto table = std::make_shared<Table>();
  // The revision first: what changes while the rest is read is read again.
  ASSIGN_OR_RETURN(table->revision, store_->revision());
  ASSIGN_OR_RETURN(std::vector<TenantRecord> tenants, store_->list_tenants());
  ASSIGN_OR_RETURN(const std::vector<KeyRecord> keys, store_->list_keys());
  for (TenantRecord& tenant : tenants) {
    std::string name = tenant.tenant;
    table->tenants.emplace(std::move(name), std::move(tenant));
  }
  for (const KeyRecord& key : keys) {
    auto identity = std::make_shared<Identity>();
    identity->tenant = key.tenant;
    identity->key_id = key.key_id;
    identity->name = key.name;
    identity->roles = key.roles;
    identity->expires_unix_s = key.expires_s;
    identity->limits = options_.default_limits;
    if (const auto tenant = table->tenants.find(key.tenant); tenant != table->tenants.end()) {
      identity->models = tenant->second.models;
      identity->weight = tenant->second.weight;
      identity->limits = tenant->second.limits.over(identity->limits);
    }
    identity->limits = key.limits.over(identity->limits);
    table->keys.emplace(key.hash, Entry{std::move(identity), key.revoked_s});
  }
  const std::lock_guard lock(table_mutex_);
  table_ = std::move(table);
  return ok_status();
}

Credential StateKeeper::authenticate(std::string_view token, bool) const {
  const auto refused = [](const char* message) { return Credential{.identity = nullptr, .message = message}; };
  if (token.empty()) return refused("This server needs an API key: send it as 'Authorization: Bearer KEY'.");
  const std::shared_ptr<const Table> now = table();
  const auto found = now->keys.find(sha256_of(token));
  if (found == now->keys.end()) return refused("The API key in the Authorization header is not one of this server.");
  const Entry& entry = found->second;
  if (entry.revoked_s != 0) return refused("This API key was revoked.");
  if (entry.identity->expires_unix_s != 0 && options_.unix_now_s() >= entry.identity->expires_unix_s)
    return refused("This API key has expired.");
  return {.identity = entry.identity, .message = {}};
}

void StateKeeper::complete(Identity& identity) const {
  identity.limits = options_.default_limits;
  const std::shared_ptr<const Table> now = table();
  const auto tenant = now->tenants.find(identity.tenant);
  if (tenant == now->tenants.end()) return;
  identity.models = tenant->second.models;
  identity.weight = tenant->second.weight;
  identity.limits = tenant->second.limits.over(identity.limits);
}

void StateKeeper::count(const Identity& identity, const std::string& model, const UsageCount& used) {
  const std::string day = utc_day(options_.unix_now_s());
  const std::lock_guard lock(usage_mutex_);
  if (day != today_) {
    today_ = day;
    written_today_.clear();
    unwritten_today_.clear();
  }
  UsageCount& count = unwritten_[{day, identity.tenant, identity.key_id, model}];
  count.requests += used.requests;
  count.prompt_tokens += used.prompt_tokens;
  count.cached_tokens += used.cached_tokens;
  count.completion_tokens += used.completion_tokens;
  unwritten_today_[identity.tenant] += used.tokens();
}

int64_t StateKeeper::tokens_today(const std::string& tenant) const {
  const std::string day = utc_day(options_.unix_now_s());
  const std::lock_guard lock(usage_mutex_);
  if (day != today_) return 0;
  const auto written = written_today_.find(tenant);
  const auto unwritten = unwritten_today_.find(tenant);
  return (written == written_today_.end() ? 0 : written->second) +
         (unwritten == unwritten_today_.end() ? 0 : unwritten->second);
}

// All replicas' together.
Status StateKeeper::read_day_totals() {
  const std::string day = utc_day(options_.unix_now_s());
  ASSIGN_OR_RETURN(const std::vector<UsageRow> rows, store_->usage(day, day));
  std::unordered_map<std::string, int64_t> totals;
  for (const UsageRow& row : rows) totals[row.tenant] += row.count.tokens();
  const std::lock_guard lock(usage_mutex_);
  if (today_ != day) {
    today_ = day;
    unwritten_today_.clear();
  }
  written_today_ = std::move(totals);
  return ok_status();
}

Status StateKeeper::write_usage() {
  const std::lock_guard store_lock(store_mutex_);
  std::map<UsageKey, UsageCount> taken;
  std::unordered_map<std::string, int64_t> taken_today;
  std::string day;
  {
    const std::lock_guard lock(usage_mutex_);
    if (unwritten_.empty()) return ok_status();
    taken = unwritten_;
    taken_today = unwritten_today_;
    day = today_;
  }
  std::vector<UsageRow> rows;
  for (const auto& [key, count] : taken)
    rows.push_back({std::get<0>(key), std::get<1>(key), std::get<2>(key), std::get<3>(key), count});
  RETURN_IF_ERROR(store_->add_usage(rows));
  const std::lock_guard lock(usage_mutex_);
  for (const auto& [key, count] : taken) {
    const auto found = unwritten_.find(key);
    UsageCount& left = found->second;
    left.requests -= count.requests;
    left.prompt_tokens -= count.prompt_tokens;
    left.cached_tokens -= count.cached_tokens;
    left.completion_tokens -= count.completion_tokens;
    if (left.requests == 0 && left.tokens() == 0) unwritten_.erase(found);
  }
  if (day != today_) return ok_status();
  for (const auto& [tenant, tokens] : taken_today) {
    unwritten_today_[tenant] -= tokens;
    written_today_[tenant] += tokens;
  }
  return ok_status();
}

Result<StateStore::Erased> StateKeeper::erase_tenant(const std::string& tenant) {
  StateStore::Erased erased;
  {
    const std::lock_guard store_lock(store_mutex_);  // no usage of it is being written meanwhile
    ASSIGN_OR_RETURN(erased, store_->erase_tenant(tenant));
    const std::lock_guard lock(usage_mutex_);
    std::erase_if(unwritten_, [&](const auto& entry) { return std::get<1>(entry.first) == tenant; });
    unwritten_today_.erase(tenant);
    written_today_.erase(tenant);
  }
  RETURN_IF_ERROR(reload());
  return erased;
}

StateKeeper::Health StateKeeper::health() const {
  Health health{store_is_up_.load(std::memory_order_relaxed), num_store_failures_.load(std::memory_order_relaxed), 0};
  const std::lock_guard lock(usage_mutex_);
  for (const auto& [key, count] : unwritten_) health.unwritten_requests += count.requests;
  return health;
}

void StateKeeper::set_store_is_up(const Status& status) {
  if (status.ok() == store_is_up_.exchange(status.ok())) return;
  if (!status.ok()) num_store_failures_.fetch_add(1, std::memory_order_relaxed);
  if (status.ok()) {
    LOG_INFO << "the state store answers again";
  } else {
    LOG_ERROR << "the state store does not answer: what was known of keys goes on being used, changes are not seen and "
                 "usage waits in memory ("
              << status.message() << ")";
  }
}

void StateKeeper::run() {
  using Clock = std::chrono::steady_clock;
  auto next_write = Clock::now() + options_.write_interval;
  std::unique_lock lock(stop_mutex_);
  while (!stop_condition_.wait_for(lock, options_.poll_interval, [&] { return stopping_; })) {
    lock.unlock();
    const Status status = [&]() -> Status {
      ASSIGN_OR_RETURN(const int64_t revision, store_->revision());
      if (revision != table()->revision) RETURN_IF_ERROR(reload());
      if (Clock::now() < next_write) return ok_status();
      next_write = Clock::now() + options_.write_interval;
      RETURN_IF_ERROR(write_usage());
      return read_day_totals();
    }();
    set_store_is_up(status);
    lock.lock();
  }
}

namespace {

class StoredKeys final : public Authenticator {
 public:
  StoredKeys(const StateKeeper& keeper, std::string api_key) : keeper_(keeper), api_key_(std::move(api_key)) {}

  Credential authenticate(std::string_view token, bool may_verify) const override {
    if (api_key_.empty() || !equal_in_constant_time(token, api_key_)) return keeper_.authenticate(token, may_verify);
    auto identity = std::make_shared<Identity>();
    identity->tenant = "default";
    identity->key_id = "api-key";
    identity->name = "--api-key";
    identity->roles = Role::kInference;
    keeper_.complete(*identity);
    return {.identity = std::move(identity), .message = {}};
  }

 private:
  const StateKeeper& keeper_;
  const std::string api_key_;
};

}  // namespace

std::unique_ptr<Authenticator> stored_keys_authenticator(const StateKeeper& keeper, std::string api_key) {
  return std::make_unique<StoredKeys>(keeper, std::move(api_key));
}

}  // namespace sextant
