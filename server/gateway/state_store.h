// StateStore: what the server knows about tenants, their keys and their use, in SQLite or PostgreSQL. Of a key only its
// SHA-256 is kept. Blocking: not on I/O threads; any other, one call at a time runs. Every change of tenants or keys
// raises the revision, by which other processes see that there is something to read again. Times are Unix seconds, given
// by the caller. Must not know HTTP.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "database/database.h"
#include "engine/base/result.h"
#include "server/gateway/identity.h"

namespace sextant {

using Sha256 = std::array<unsigned char, 32>;
Sha256 sha256_of(std::string_view bytes);

// A limit that a key does not state is its tenant's, one that this does not state is the server's.
struct StatedLimits {
  std::optional<double> requests_per_s, request_burst;
  std::optional<int64_t> tokens_per_minute, tokens_per_day, concurrent_requests, max_tokens, max_n, max_context;

  UsageLimits over(UsageLimits base) const;
  nlohmann::json to_json() const;
  // Unknown names, wrong types and negative numbers are errors that name the field.
  static Result<StatedLimits> from_json(const nlohmann::json& object);
};

struct TenantRecord {
  std::string tenant;               // [A-Za-z0-9._-]{1,64}
  std::vector<std::string> models;  // empty: all
  StatedLimits limits;
  double weight = 1;  // 0.001 to 1000
};

struct KeyRecord {
  std::string key_id;  // 12 hexadecimal digits
  std::string tenant;
  std::string name;
  RoleSet roles;
  StatedLimits limits;
  int64_t created_s = 0;
  int64_t expires_s = 0;  // 0: never
  int64_t revoked_s = 0;  // 0: was not
  std::string replaces;   // the key_id that a rotation put it beside
  Sha256 hash = {};

  bool is_active(int64_t now_s) const { return revoked_s == 0 && (expires_s == 0 || now_s < expires_s); }
  nlohmann::ordered_json to_json(int64_t now_s) const;
};

struct MadeKey {
  KeyRecord record;
  std::string secret;  // "sk-sextant-ID-..." with 256 random bits: shown once, kept nowhere
};

struct UsageCount {
  int64_t requests = 0, prompt_tokens = 0, cached_tokens = 0, completion_tokens = 0;
  int64_t tokens() const { return prompt_tokens + completion_tokens; }
};
struct UsageRow {
  std::string day;  // "2026-01-31", UTC
  std::string tenant, key_id, model;
  UsageCount count;
};

class StateStore {
 public:
  // A folder (made when absent; this user's alone) or postgresql://...
  static Result<std::unique_ptr<StateStore>> open(const std::string& state_dir, const std::string& database_url);

  // A folder with a state in it.
  static bool exists(const std::string& state_dir);
  // A copy in a new file, of one moment, beside whoever writes. SQLite alone.
  Status copy_to(const std::string& path);

  // Makes the tenant when it is not there.
  Result<MadeKey> create_key(KeyRecord wanted, int64_t now_s);
  Result<std::vector<KeyRecord>> list_keys();
  // A second key with what the first one may; the first ends after `overlap_s`. Two at most work at a time: a key that was
  // rotated already, or whose predecessor still works, is refused.
  Result<MadeKey> rotate_key(const std::string& key_id, int64_t overlap_s, int64_t now_s);
  Result<KeyRecord> revoke_key(const std::string& key_id, int64_t now_s);

  Status put_tenant(const TenantRecord& tenant);
  Result<std::vector<TenantRecord>> list_tenants();

  // The tenant, its keys and its usage, out of the files too (SQLite overwrites what it deletes). A tenant that is not there is
  // no error.
  struct Erased {
    int64_t num_tenants = 0, num_keys = 0, num_usage_rows = 0;
  };
  Result<Erased> erase_tenant(const std::string& tenant);

  Result<int64_t> revision();

  // Adds each row's counts to what is there, all or nothing.
  Status add_usage(std::span<const UsageRow> rows);
  // Days from `first` to `last`, both included; empty: open. In the order of day, tenant, key, model.
  Result<std::vector<UsageRow>> usage(const std::string& first, const std::string& last);

 private:
  explicit StateStore(std::unique_ptr<Database> database) : database_(std::move(database)) {}
  Status migrate();
  template <typename Work>
  auto in_transaction(Work&& work) -> decltype(work());
  Status raise_revision();
  Result<MadeKey> insert_key(KeyRecord record, int64_t now_s);
  Result<KeyRecord> find_key(const std::string& key_id);

  std::mutex mutex_;
  std::unique_ptr<Database> database_;  // guarded by mutex_
};

std::string utc_day(int64_t unix_s);  // "2026-01-31"

}  // namespace sextant
