// JwtAuthenticator: bearer tokens that another party signed (RFC 7519), checked against its keys (RFC 7517) from a file or
// a URL. HS256, RS256 and ES256, each with its own kind of key only; "none" and everything else is refused. A token that
// was seen before is looked up, not verified again, until it ends or the keys change. Keys are fetched on a thread of its
// own: at the start, every few minutes, and once, not more often than every ten seconds, for a key id that is not known.
// Threads: any. Must not know routes.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "server/gateway/authenticator.h"
#include "server/gateway/state_store.h"

namespace sextant {

// Verified tokens by their hash, at most 2 * kGeneration of them: what was not asked for since a generation filled goes.
class TokenCache {
 public:
  static constexpr size_t kGeneration = 4096;
  std::shared_ptr<const Identity> find(const Sha256& hash);
  void put(const Sha256& hash, std::shared_ptr<const Identity> identity);
  void clear();
  size_t size() const;

 private:
  struct HashOfHash {
    size_t operator()(const Sha256& hash) const;
  };
  using Map = std::unordered_map<Sha256, std::shared_ptr<const Identity>, HashOfHash>;
  void put_locked(const Sha256& hash, std::shared_ptr<const Identity> identity);
  mutable std::mutex mutex_;
  Map young_, old_;  // guarded by mutex_
};

class JwtAuthenticator final : public Authenticator {
 public:
  struct Options {
    std::string jwks;                         // a file, or http(s)://...
    std::string audience;                     // `aud` must hold it
    std::string issuer;                       // `iss` must be it
    std::string roles_claim = "roles";        // a list, or text with spaces or commas; "a.b" is b inside a
    std::string tenant_claim = "tenant";      // none in the token: "default"
    int64_t leeway_s = 60;                    // of exp and nbf: clocks differ
    std::function<int64_t()> unix_now_s;      // empty: the system's
    std::function<void(Identity&)> complete;  // fills in the tenant's limits; may be empty
    std::chrono::milliseconds min_refresh_interval{10'000};
    std::chrono::milliseconds refresh_interval{300'000};
    std::chrono::milliseconds fetch_timeout{10'000};
    // The text of the key set; empty: reads the file or fetches the URL.
    std::function<Result<std::string>(const std::string& jwks)> fetch;
  };

  // A file must be readable and hold a key; a URL that does not answer yet is asked again.
  static Result<std::unique_ptr<JwtAuthenticator>> start(Options options);
  ~JwtAuthenticator() override;
  JwtAuthenticator(const JwtAuthenticator&) = delete;
  JwtAuthenticator& operator=(const JwtAuthenticator&) = delete;

  Credential authenticate(std::string_view token, bool may_verify) const override;
  void wait(std::function<void()> then) const override;

  struct Health {
    bool is_up = true;                // the last try brought a key set; the last good one is used until then
    uint64_t num_failures = 0;        // tries that did not
    size_t num_keys = 0;              // in use
    int64_t last_success_unix_s = 0;  // 0: none yet
  };
  Health health() const;

  // Three parts with dots between them, and not one of our keys.
  static bool is_jwt(std::string_view token);

 private:
  struct KeySet;
  explicit JwtAuthenticator(Options options);
  void run();
  Status refresh();
  std::shared_ptr<const KeySet> keys() const;
  Credential verify(std::string_view token) const;
  Result<Identity> identity_of(const std::string& payload) const;

  const Options options_;
  mutable TokenCache cache_;
  mutable std::mutex mutex_;
  mutable std::condition_variable condition_;
  std::shared_ptr<const KeySet> keys_;                    // guarded by mutex_
  std::string key_text_;                                  // likewise: what keys_ was made of
  std::chrono::steady_clock::time_point last_refresh_{};  // likewise: when the last one ended
  mutable std::vector<std::function<void()>> waiting_;    // likewise
  mutable bool is_asked_ = false;                         // likewise
  bool stopping_ = false;                                 // likewise
  Health health_;                                         // likewise
  std::atomic<bool> is_cancelled_{false};                 // a fetch under way ends
  std::thread thread_;                                    // last
};

// Refuses everything.
std::unique_ptr<Authenticator> no_keys_authenticator();

// Tokens to `jwt` (may be null), all else to `keys`.
std::unique_ptr<Authenticator> combined_authenticator(std::unique_ptr<Authenticator> keys,
                                                      std::unique_ptr<JwtAuthenticator> jwt);

}  // namespace sextant
