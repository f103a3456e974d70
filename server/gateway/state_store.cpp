#include "server/gateway/state_store.h"

#include <openssl/evp.h>
#include <openssl/rand.h>
#include <sys/stat.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <filesystem>

#include "engine/base/check.h"
#include "server/gateway/tenant_name.h"

namespace sextant {
namespace {

using nlohmann::json;

constexpr size_t kMaxNameBytes = 200;

// Each entry brings the schema from its index to the next; entries never change once shipped.
const std::vector<std::vector<std::string>>& migrations() {
  static const std::vector<std::vector<std::string>> all = {
      {"CREATE TABLE gateway_state (name TEXT PRIMARY KEY, value BIGINT NOT NULL)",
       "INSERT INTO gateway_state (name, value) VALUES ('revision', 1)",
       "CREATE TABLE tenants (tenant TEXT PRIMARY KEY, models TEXT NOT NULL, limits TEXT NOT NULL, weight TEXT NOT "
       "NULL)",
       "CREATE TABLE api_keys (key_id TEXT PRIMARY KEY, hash TEXT NOT NULL UNIQUE, tenant TEXT NOT NULL, name TEXT NOT "
       "NULL, roles TEXT NOT NULL, limits TEXT NOT NULL, created_s BIGINT NOT NULL, expires_s BIGINT NOT NULL, "
       "revoked_s BIGINT NOT NULL, replaces TEXT NOT NULL)",
       "CREATE TABLE token_usage (day TEXT NOT NULL, tenant TEXT NOT NULL, key_id TEXT NOT NULL, model TEXT NOT NULL, "
       "requests BIGINT NOT NULL, prompt_tokens BIGINT NOT NULL, cached_tokens BIGINT NOT NULL, completion_tokens "
       "BIGINT NOT NULL, PRIMARY KEY (day, tenant, key_id, model))"}};
  return all;
}

std::string hex_of(std::span<const unsigned char> bytes) {
  std::string hex;
  for (const unsigned char byte : bytes) {
    hex += "0123456789abcdef"[byte >> 4];
    hex += "0123456789abcdef"[byte & 15];
  }
  return hex;
}

Result<Sha256> hash_from_hex(const std::string& hex) {
  Sha256 hash{};
  const auto digit = [](char c) { return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1; };
  if (hex.size() != 2 * hash.size()) return data_loss("state: a key's hash has another length");
  for (size_t i = 0; i < hash.size(); ++i) {
    const int high = digit(hex[2 * i]), low = digit(hex[2 * i + 1]);
    if (high < 0 || low < 0) return data_loss("state: a key's hash is not hexadecimal");
    hash[i] = static_cast<unsigned char>(high * 16 + low);
  }
  return hash;
}

std::string base64url_of(std::span<const unsigned char> bytes) {
  static constexpr char kDigits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
  std::string text;
  unsigned bits = 0, held = 0;
  for (const unsigned char byte : bytes) {
    bits = bits << 8 | byte;
    for (held += 8; held >= 6; held -= 6) text += kDigits[bits >> (held - 6) & 63];
  }
  if (held > 0) text += kDigits[bits << (6 - held) & 63];
  return text;
}

int64_t integer_of(const SqlValue& value) { return value ? std::strtoll(value->c_str(), nullptr, 10) : 0; }

json parsed(const SqlValue& value) {
  return value ? json::parse(*value, nullptr, false) : json(json::value_t::discarded);
}

Status check_tenant_name(const std::string& tenant) {
  return is_tenant_name(tenant)
             ? ok_status()
             : invalid_argument("tenant must have 1 to 64 letters, digits, '.', '_' or '-'", "tenant");
}

Status check_name(const std::string& name) {
  const bool good =
      name.size() <= kMaxNameBytes && std::ranges::none_of(name, [](char c) { return c >= 0 && c < ' '; });
  return good ? ok_status() : invalid_argument("name must have at most 200 bytes and no control characters", "name");
}

constexpr const char* kKeyColumns =
    "SELECT key_id, hash, tenant, name, roles, limits, created_s, expires_s, revoked_s, replaces FROM api_keys";

Result<KeyRecord> key_of(const SqlRow& row) {
  KeyRecord key;
  key.key_id = row[0].value_or("");
  ASSIGN_OR_RETURN(key.hash, hash_from_hex(row[1].value_or("")));
  key.tenant = row[2].value_or("");
  key.name = row[3].value_or("");
  const std::optional<RoleSet> roles = parse_roles(row[4].value_or(""));
  if (!roles) return data_loss("state: key " + key.key_id + " has a role that this program does not know");
  key.roles = *roles;
  ASSIGN_OR_RETURN(key.limits, StatedLimits::from_json(parsed(row[5])));
  key.created_s = integer_of(row[6]);
  key.expires_s = integer_of(row[7]);
  key.revoked_s = integer_of(row[8]);
  key.replaces = row[9].value_or("");
  return key;
}

}  // namespace

Sha256 sha256_of(std::string_view bytes) {
  Sha256 digest{};
  CHECK(EVP_Digest(bytes.data(), bytes.size(), digest.data(), nullptr, EVP_sha256(), nullptr) == 1);
  return digest;
}

bool is_tenant_name(std::string_view name) {
  return !name.empty() && name.size() <= 64 && std::ranges::all_of(name, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' ||
           c == '-';
  });
}

std::string utc_day(int64_t unix_s) {
  const std::chrono::year_month_day day(
      std::chrono::floor<std::chrono::days>(std::chrono::sys_seconds(std::chrono::seconds(unix_s))));
  char text[40];
  std::snprintf(text, sizeof text, "%04d-%02u-%02u", static_cast<int>(day.year()), static_cast<unsigned>(day.month()),
                static_cast<unsigned>(day.day()));
  return text;
}

UsageLimits StatedLimits::over(UsageLimits base) const {
  if (requests_per_s) base.requests_per_s = *requests_per_s;
  if (request_burst) base.request_burst = *request_burst;
  if (tokens_per_minute) base.tokens_per_minute = *tokens_per_minute;
  if (tokens_per_day) base.tokens_per_day = *tokens_per_day;
  if (concurrent_requests) base.concurrent_requests = *concurrent_requests;
  if (max_tokens) base.max_tokens = *max_tokens;
  if (max_n) base.max_n = *max_n;
  if (max_context) base.max_context = *max_context;
  return base;
}

namespace {

template <typename Limits, typename Visitor>
void visit_limits(Limits& limits, Visitor&& visitor) {
  visitor("requests_per_s", limits.requests_per_s);
  visitor("request_burst", limits.request_burst);
  visitor("tokens_per_minute", limits.tokens_per_minute);
  visitor("tokens_per_day", limits.tokens_per_day);
  visitor("concurrent_requests", limits.concurrent_requests);
  visitor("max_tokens", limits.max_tokens);
  visitor("max_n", limits.max_n);
  visitor("max_context", limits.max_context);
}

}  // namespace

json StatedLimits::to_json() const {
  json object = json::object();
  visit_limits(*this, [&](const char* name, const auto& field) {
    if (field) object[name] = *field;
  });
  return object;
}

Result<StatedLimits> StatedLimits::from_json(const json& object) {
  if (!object.is_object()) return invalid_argument("limits must be an object", "limits");
  StatedLimits limits;
  Status status;
  size_t num_known = 0;
  visit_limits(limits, [&]<typename T>(const char* name, std::optional<T>& field) {
    const auto found = object.find(name);
    if (found == object.end()) return;
    ++num_known;
    const bool fits = std::is_same_v<T, double> ? found->is_number() : found->is_number_integer();
    if (fits && found->template get<double>() >= 0 && found->template get<double>() <= 1e15) {
      field = found->template get<T>();
    } else {
      status =
          invalid_argument(std::string("limits.") + name + " must be a number from 0 (no limit) to 1e15", "limits");
    }
  });
  if (status.ok() && num_known != object.size()) {
    std::string known;
    visit_limits(limits,
                 [&](const char* name, const auto&) { known += (known.empty() ? "" : ", ") + std::string(name); });
    return invalid_argument("limits holds an unknown name; known are " + known, "limits");
  }
  if (!status.ok()) return status;
  return limits;
}

nlohmann::ordered_json KeyRecord::to_json(int64_t now_s) const {
  nlohmann::ordered_json object;
  object["key_id"] = key_id;
  object["tenant"] = tenant;
  object["name"] = name;
  object["roles"] = nlohmann::ordered_json::array();
  for (const Role role : kAllRoles) {
    if (roles.has(role)) object["roles"].push_back(name_of(role));
  }
  object["limits"] = limits.to_json();
  object["created"] = created_s;
  object["expires"] = expires_s == 0 ? nlohmann::ordered_json(nullptr) : nlohmann::ordered_json(expires_s);
  object["replaces"] = replaces.empty() ? nlohmann::ordered_json(nullptr) : nlohmann::ordered_json(replaces);
  object["state"] = revoked_s != 0 ? "revoked" : is_active(now_s) ? "active" : "expired";
  return object;
}

Result<std::unique_ptr<StateStore>> StateStore::open(const std::string& state_dir, const std::string& database_url) {
  std::string location = database_url;
  if (database_url.empty()) {
    std::error_code error;
    std::filesystem::create_directories(state_dir, error);
    if (error) return unavailable("cannot make the state directory " + state_dir + ": " + error.message());
    ::chmod(state_dir.c_str(), 0700);
    location = (std::filesystem::path(state_dir) / "state.sqlite").string();
  } else if (!database_url.starts_with("postgresql://") && !database_url.starts_with("postgres://")) {
    return invalid_argument("database_url must be postgresql://...; for a folder there is --state-dir", "database_url");
  }
  ASSIGN_OR_RETURN(std::unique_ptr<Database> database, open_database(location, "state"));
  if (database_url.empty()) ::chmod(location.c_str(), 0600);
  std::unique_ptr<StateStore> store(new StateStore(std::move(database)));
  RETURN_IF_ERROR(store->migrate());
  return store;
}

template <typename Work>
auto StateStore::in_transaction(Work&& work) -> decltype(work()) {
  const std::lock_guard lock(mutex_);
  RETURN_IF_ERROR(database_->begin_write());
  auto result = work();
  const Status ended = database_->execute(result.ok() ? "COMMIT" : "ROLLBACK");
  if (result.ok() && !ended.ok()) {
    (void)database_->execute("ROLLBACK");
    return ended;
  }
  return result;
}

Status StateStore::migrate() {
  return in_transaction([&]() -> Status {
    RETURN_IF_ERROR(database_->execute("CREATE TABLE IF NOT EXISTS gateway_migrations (version BIGINT PRIMARY KEY)"));
    ASSIGN_OR_RETURN(const auto applied, database_->query("SELECT COALESCE(MAX(version), 0) FROM gateway_migrations"));
    const auto version = static_cast<size_t>(integer_of(applied[0][0]));
    const auto& all = migrations();
    if (version > all.size())
      return unsupported("the state has schema " + std::to_string(version) + ", this program knows up to " +
                         std::to_string(all.size()) + ": use a newer sextant");
    for (size_t v = version; v < all.size(); ++v) {
      for (const std::string& statement : all[v]) RETURN_IF_ERROR(database_->execute(statement));
      RETURN_IF_ERROR(
          database_->execute("INSERT INTO gateway_migrations (version) VALUES ($1)", {std::to_string(v + 1)}));
    }
    return ok_status();
  });
}

Status StateStore::raise_revision() {
  return database_->execute("UPDATE gateway_state SET value = value + 1 WHERE name = 'revision'");
}

Result<int64_t> StateStore::revision() {
  const std::lock_guard lock(mutex_);
  ASSIGN_OR_RETURN(const auto rows, database_->query("SELECT value FROM gateway_state WHERE name = 'revision'"));
  if (rows.empty()) return data_loss("state: there is no revision");
  return integer_of(rows[0][0]);
}

Result<MadeKey> StateStore::create_key(KeyRecord wanted, int64_t now_s) {
  RETURN_IF_ERROR(check_tenant_name(wanted.tenant));
  RETURN_IF_ERROR(check_name(wanted.name));
  if (wanted.roles.empty()) return invalid_argument("a key needs at least one role", "roles");
  if (wanted.expires_s != 0 && wanted.expires_s <= now_s)
    return invalid_argument("expires lies in the past", "expires");
  wanted.replaces.clear();
  return in_transaction([&]() -> Result<MadeKey> { return insert_key(std::move(wanted), now_s); });
}

Result<MadeKey> StateStore::insert_key(KeyRecord record, int64_t now_s) {
  MadeKey made;
  unsigned char id[6], secret[32];
  if (RAND_bytes(id, sizeof id) != 1 || RAND_bytes(secret, sizeof secret) != 1)
    return internal_error("the system gives no random bytes");
  record.key_id = hex_of(id);
  made.secret = "sk-sextant-" + record.key_id + "-" + base64url_of(secret);
  record.hash = sha256_of(made.secret);
  record.created_s = now_s;
  record.revoked_s = 0;
  RETURN_IF_ERROR(database_->execute(
      "INSERT INTO tenants (tenant, models, limits, weight) VALUES ($1, '[]', '{}', '1') ON CONFLICT DO NOTHING",
      {record.tenant}));
  RETURN_IF_ERROR(database_->execute(
      "INSERT INTO api_keys (key_id, hash, tenant, name, roles, limits, created_s, expires_s, revoked_s, replaces) "
      "VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 0, $9)",
      {record.key_id, hex_of(record.hash), record.tenant, record.name, role_names(record.roles),
       record.limits.to_json().dump(), std::to_string(now_s), std::to_string(record.expires_s), record.replaces}));
  RETURN_IF_ERROR(raise_revision());
  made.record = std::move(record);
  return made;
}

Result<KeyRecord> StateStore::find_key(const std::string& key_id) {
  ASSIGN_OR_RETURN(const auto rows, database_->query(std::string(kKeyColumns) + " WHERE key_id = $1", {key_id}));
  if (rows.empty()) return not_found("there is no key '" + key_id + "'", "key_id");
  return key_of(rows[0]);
}

Result<std::vector<KeyRecord>> StateStore::list_keys() {
  const std::lock_guard lock(mutex_);
  ASSIGN_OR_RETURN(const auto rows, database_->query(std::string(kKeyColumns) + " ORDER BY created_s, key_id"));
  std::vector<KeyRecord> keys;
  for (const SqlRow& row : rows) {
    ASSIGN_OR_RETURN(KeyRecord key, key_of(row));
    keys.push_back(std::move(key));
  }
  return keys;
}

Result<MadeKey> StateStore::rotate_key(const std::string& key_id, int64_t overlap_s, int64_t now_s) {
  constexpr int64_t kMaxOverlapS = 366 * 24 * 3600;
  if (overlap_s < 0 || overlap_s > kMaxOverlapS)
    return invalid_argument("overlap_s must be from 0 to a year", "overlap_s");
  return in_transaction([&]() -> Result<MadeKey> {
    ASSIGN_OR_RETURN(KeyRecord old, find_key(key_id));
    if (!old.is_active(now_s)) return invalid_argument("key " + key_id + " is not active any more", "key_id");
    ASSIGN_OR_RETURN(const auto successors,
                     database_->query(std::string(kKeyColumns) + " WHERE replaces = $1", {key_id}));
    for (const SqlRow& row : successors) {
      ASSIGN_OR_RETURN(const KeyRecord successor, key_of(row));
      if (successor.is_active(now_s))
        return invalid_argument("key " + key_id + " was rotated already: " + successor.key_id + " follows it",
                                "key_id");
    }
    if (!old.replaces.empty()) {
      const Result<KeyRecord> before = find_key(old.replaces);
      if (before.ok() && before->is_active(now_s))
        return invalid_argument("key " + old.replaces + ", which this one follows, still works: revoke it first",
                                "key_id");
    }
    const int64_t end_s = now_s + overlap_s;
    if (old.expires_s == 0 || end_s < old.expires_s) {
      RETURN_IF_ERROR(database_->execute("UPDATE api_keys SET expires_s = $2 WHERE key_id = $1",
                                         {key_id, std::to_string(std::max(end_s, int64_t{1}))}));
    }
    KeyRecord next = old;
    next.replaces = key_id;
    // As long again as the first was made for.
    if (old.expires_s != 0) next.expires_s = now_s + (old.expires_s - old.created_s);
    return insert_key(std::move(next), now_s);
  });
}

Result<KeyRecord> StateStore::revoke_key(const std::string& key_id, int64_t now_s) {
  return in_transaction([&]() -> Result<KeyRecord> {
    ASSIGN_OR_RETURN(KeyRecord key, find_key(key_id));
    if (key.revoked_s == 0) {
      key.revoked_s = std::max(now_s, int64_t{1});
      RETURN_IF_ERROR(database_->execute("UPDATE api_keys SET revoked_s = $2 WHERE key_id = $1",
                                         {key_id, std::to_string(key.revoked_s)}));
      RETURN_IF_ERROR(raise_revision());
    }
    return key;
  });
}

bool StateStore::exists(const std::string& state_dir) {
  return std::filesystem::is_regular_file(std::filesystem::path(state_dir) / "state.sqlite");
}

Status StateStore::copy_to(const std::string& path) {
  const std::lock_guard lock(mutex_);
  if (database_->kind() != "sqlite")
    return unsupported("the state is in PostgreSQL: back it up with pg_dump, or its continuous archiving");
  return database_->execute("VACUUM INTO $1", {path});
}

Status StateStore::put_tenant(const TenantRecord& tenant) {
  RETURN_IF_ERROR(check_tenant_name(tenant.tenant));
  if (!(tenant.weight >= 0.001 && tenant.weight <= 1000))
    return invalid_argument("weight must be from 0.001 to 1000", "weight");
  for (const std::string& model : tenant.models) {
    if (model.empty() || model.size() > 512) return invalid_argument("a model's name has 1 to 512 bytes", "models");
  }
  return in_transaction([&]() -> Status {
    RETURN_IF_ERROR(database_->execute(
        "INSERT INTO tenants (tenant, models, limits, weight) VALUES ($1, $2, $3, $4) ON CONFLICT (tenant) DO UPDATE "
        "SET models = excluded.models, limits = excluded.limits, weight = excluded.weight",
        {tenant.tenant, json(tenant.models).dump(-1, ' ', false, json::error_handler_t::replace),
         tenant.limits.to_json().dump(), json(tenant.weight).dump()}));
    return raise_revision();
  });
}

Result<StateStore::Erased> StateStore::erase_tenant(const std::string& tenant) {
  RETURN_IF_ERROR(check_tenant_name(tenant));
  if (database_->kind() == "sqlite") {
    const std::lock_guard lock(mutex_);
    RETURN_IF_ERROR(database_->query("PRAGMA secure_delete=ON").status());
  }
  Result<Erased> erased = in_transaction([&]() -> Result<Erased> {
    Erased out;
    for (const auto& [table, count] : {std::pair<const char*, int64_t*>{"tenants", &out.num_tenants},
                                       {"api_keys", &out.num_keys},
                                       {"token_usage", &out.num_usage_rows}}) {
      const std::string where = std::string(" FROM ") + table + " WHERE tenant = $1";
      ASSIGN_OR_RETURN(const auto rows, database_->query("SELECT COUNT(*)" + where, {tenant}));
      *count = integer_of(rows[0][0]);
      RETURN_IF_ERROR(database_->execute("DELETE" + where, {tenant}));
    }
    RETURN_IF_ERROR(raise_revision());
    return out;
  });
  // Else the old pages stand in the write-ahead log until it is written over; while others read it that is so anyway.
  if (erased.ok() && database_->kind() == "sqlite") {
    const std::lock_guard lock(mutex_);
    RETURN_IF_ERROR(database_->query("PRAGMA wal_checkpoint(TRUNCATE)").status());
  }
  return erased;
}

Result<std::vector<TenantRecord>> StateStore::list_tenants() {
  const std::lock_guard lock(mutex_);
  ASSIGN_OR_RETURN(const auto rows,
                   database_->query("SELECT tenant, models, limits, weight FROM tenants ORDER BY tenant"));
  std::vector<TenantRecord> tenants;
  for (const SqlRow& row : rows) {
    TenantRecord tenant;
    tenant.tenant = row[0].value_or("");
    const json models = parsed(row[1]);
    if (!models.is_array()) return data_loss("state: tenant " + tenant.tenant + " has no list of models");
    for (const json& model : models) {
      if (model.is_string()) tenant.models.push_back(model.get<std::string>());
    }
    ASSIGN_OR_RETURN(tenant.limits, StatedLimits::from_json(parsed(row[2])));
    const json weight = parsed(row[3]);
    tenant.weight = weight.is_number() ? weight.get<double>() : 1.0;
    tenants.push_back(std::move(tenant));
  }
  return tenants;
}

Status StateStore::add_usage(std::span<const UsageRow> rows) {
  if (rows.empty()) return ok_status();
  return in_transaction([&]() -> Status {
    for (const UsageRow& row : rows) {
      RETURN_IF_ERROR(database_->execute(
          "INSERT INTO token_usage (day, tenant, key_id, model, requests, prompt_tokens, cached_tokens, "
          "completion_tokens) VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (day, tenant, key_id, model) DO "
          "UPDATE SET requests = token_usage.requests + excluded.requests, prompt_tokens = token_usage.prompt_tokens + "
          "excluded.prompt_tokens, cached_tokens = token_usage.cached_tokens + excluded.cached_tokens, "
          "completion_tokens = token_usage.completion_tokens + excluded.completion_tokens",
          {row.day, row.tenant, row.key_id, row.model, std::to_string(row.count.requests),
           std::to_string(row.count.prompt_tokens), std::to_string(row.count.cached_tokens),
           std::to_string(row.count.completion_tokens)}));
    }
    return ok_status();
  });
}

Result<std::vector<UsageRow>> StateStore::usage(const std::string& first, const std::string& last) {
  const std::lock_guard lock(mutex_);
  ASSIGN_OR_RETURN(const auto rows,
                   database_->query("SELECT day, tenant, key_id, model, requests, prompt_tokens, cached_tokens, "
                                    "completion_tokens FROM token_usage WHERE day >= $1 AND day <= $2 ORDER BY day, "
                                    "tenant, key_id, model",
                                    {first, last.empty() ? "9999" : last}));
  std::vector<UsageRow> usage;
  for (const SqlRow& row : rows) {
    usage.push_back({row[0].value_or(""),
                     row[1].value_or(""),
                     row[2].value_or(""),
                     row[3].value_or(""),
                     {integer_of(row[4]), integer_of(row[5]), integer_of(row[6]), integer_of(row[7])}});
  }
  return usage;
}

}  // namespace sextant
