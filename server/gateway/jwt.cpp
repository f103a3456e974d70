#include "server/gateway/jwt.h"

#include <cjose/cjose.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <sstream>

#include <nlohmann/json.hpp>

#include "engine/base/log.h"
#include "server/gateway/jwks_source.h"
#include "server/gateway/tenant_name.h"

namespace sextant {
namespace {

using nlohmann::json;
using std::chrono::steady_clock;

constexpr size_t kMaxTokenBytes = 8 * 1024;
constexpr size_t kMaxKeys = 64;
constexpr size_t kMaxWaiting = 256;

struct FreeJwk {
  void operator()(cjose_jwk_t* jwk) const { cjose_jwk_release(jwk); }
};
struct FreeJws {
  void operator()(cjose_jws_t* jws) const { cjose_jws_release(jws); }
};

struct Algorithm {
  const char* name;
  cjose_jwk_kty_t kind;
};
constexpr Algorithm kAlgorithms[] = {
    {"HS256", CJOSE_JWK_KTY_OCT}, {"RS256", CJOSE_JWK_KTY_RSA}, {"ES256", CJOSE_JWK_KTY_EC}};

Credential refused(const char* why) {
  return {.identity = nullptr,
          .message = std::string("The token in the Authorization header ") + why,
          .code = "invalid_token"};
}

// Of a member in base64url, without decoding it.
size_t num_bytes_of(const json& key, const char* name) {
  const auto found = key.find(name);
  return found != key.end() && found->is_string() ? found->get_ref<const std::string&>().size() * 3 / 4 : 0;
}

// `name` itself, or what is inside objects along its dots.
const json* claim_of(const json& claims, const std::string& name) {
  if (const auto found = claims.find(name); found != claims.end()) return &*found;
  const json* object = &claims;
  std::istringstream parts(name);
  for (std::string part; std::getline(parts, part, '.');) {
    if (!object->is_object()) return nullptr;
    const auto found = object->find(part);
    if (found == object->end()) return nullptr;
    object = &*found;
  }
  return object;
}

RoleSet roles_of(const json* claim) {
  RoleSet roles;
  const auto add = [&](const std::string& name) {
    if (const std::optional<Role> role = role_of(name)) roles = roles | *role;
  };
  if (claim == nullptr) return roles;
  if (claim->is_array()) {
    for (const json& name : *claim) {
      if (name.is_string()) add(name.get<std::string>());
    }
  } else if (claim->is_string()) {
    std::string text = claim->get<std::string>();
    std::ranges::replace(text, ',', ' ');
    std::istringstream names(text);
    for (std::string name; names >> name;) add(name);
  }
  return roles;
}

// NumericDate (RFC 7519, 2): seconds, a fraction allowed. None for what is no number, or out of all bounds.
std::optional<double> date_of(const json& claims, const char* name) {
  const auto found = claims.find(name);
  if (found == claims.end() || !found->is_number()) return std::nullopt;
  const double value = found->get<double>();
  if (!(std::abs(value) < 1e15)) return std::nullopt;
  return value;
}

}  // namespace

size_t TokenCache::HashOfHash::operator()(const Sha256& hash) const {
  size_t part = 0;
  std::memcpy(&part, hash.data(), sizeof part);
  return part;
}

std::shared_ptr<const Identity> TokenCache::find(const Sha256& hash) {
  const std::lock_guard lock(mutex_);
  if (const auto found = young_.find(hash); found != young_.end()) return found->second;
  const auto found = old_.find(hash);
  if (found == old_.end()) return nullptr;
  std::shared_ptr<const Identity> identity = found->second;
  put_locked(hash, identity);
  return identity;
}

void TokenCache::put(const Sha256& hash, std::shared_ptr<const Identity> identity) {
  const std::lock_guard lock(mutex_);
  put_locked(hash, std::move(identity));
}

void TokenCache::put_locked(const Sha256& hash, std::shared_ptr<const Identity> identity) {
  if (young_.size() >= kGeneration) {
    old_ = std::move(young_);
    young_.clear();
  }
  young_[hash] = std::move(identity);
}

void TokenCache::clear() {
  const std::lock_guard lock(mutex_);
  young_.clear();
  old_.clear();
}

size_t TokenCache::size() const {
  const std::lock_guard lock(mutex_);
  return young_.size() + old_.size();
}

struct JwtAuthenticator::KeySet {
  struct Key {
    std::string kid, alg;
    cjose_jwk_kty_t kind;
    std::unique_ptr<cjose_jwk_t, FreeJwk> jwk;
  };
  std::vector<Key> keys;
  mutable std::mutex mutex;  // cjose does not say that one key may be used by two threads

  static Result<std::shared_ptr<const KeySet>> parse(const std::string& text) {
    const json document = json::parse(text, nullptr, false);
    if (!document.is_object() || !document.contains("keys") || !document["keys"].is_array())
      return invalid_argument("is not a JWK set: {\"keys\": [...]}");
    auto set = std::make_shared<KeySet>();
    for (const json& object : document["keys"]) {
      if (!object.is_object() || set->keys.size() >= kMaxKeys) continue;
      if (object.value("use", json("sig")) != "sig") continue;
      const std::string one = object.dump(-1, ' ', false, json::error_handler_t::replace);
      cjose_err error{};
      std::unique_ptr<cjose_jwk_t, FreeJwk> jwk(cjose_jwk_import(one.c_str(), one.size(), &error));
      if (!jwk) continue;  // of a kind that we do not know: others may be usable
      Key key{.kid = {}, .alg = {}, .kind = cjose_jwk_get_kty(jwk.get(), &error), .jwk = nullptr};
      key.jwk = std::move(jwk);
      if (object.contains("kid") && object["kid"].is_string()) key.kid = object["kid"].get<std::string>();
      if (object.contains("alg") && object["alg"].is_string()) key.alg = object["alg"].get<std::string>();
      if (key.kind == CJOSE_JWK_KTY_EC && object.value("crv", json()) != "P-256") continue;
      // Of RSA 2048 to 8192 bits and an exponent of 64: the time of a verification grows with the square of one and with the
      // other. A shared secret has at least the 256 bits that HS256 asks for (RFC 7518, 3.2).
      if (key.kind == CJOSE_JWK_KTY_RSA &&
          (num_bytes_of(object, "n") < 256 || num_bytes_of(object, "n") > 1024 || num_bytes_of(object, "e") > 8))
        continue;
      if (key.kind == CJOSE_JWK_KTY_OCT && num_bytes_of(object, "k") < 32) continue;
      set->keys.push_back(std::move(key));
    }
    if (set->keys.empty()) return invalid_argument("holds no key that can be used");
    return std::shared_ptr<const KeySet>(std::move(set));
  }
};

JwtAuthenticator::JwtAuthenticator(Options options) : options_(std::move(options)) {}

Result<std::unique_ptr<JwtAuthenticator>> JwtAuthenticator::start(Options options) {
  if (!options.unix_now_s) {
    options.unix_now_s = [] {
      return std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch())
          .count();
    };
  }
  const bool may_fail = is_jwks_url(options.jwks);
  if (may_fail) RETURN_IF_ERROR(check_jwks_url(options.jwks));
  if (options.jwks.starts_with("http://"))
    LOG_WARNING << options.jwks << ": keys that come without TLS are whoever's answers on the way; use https:// beyond "
                << "this machine";
  std::unique_ptr<JwtAuthenticator> made(new JwtAuthenticator(std::move(options)));
  if (const Status status = made->refresh(); !status.ok()) {
    if (!may_fail) return status;
    LOG_WARNING << "no key for tokens yet: " << status.message();
  }
  made->thread_ = std::thread([raw = made.get()] { raw->run(); });
  return made;
}

JwtAuthenticator::~JwtAuthenticator() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    is_cancelled_ = true;
  }
  condition_.notify_all();
  if (thread_.joinable()) thread_.join();
}

std::shared_ptr<const JwtAuthenticator::KeySet> JwtAuthenticator::keys() const {
  const std::lock_guard lock(mutex_);
  return keys_;
}

Status JwtAuthenticator::refresh() {
  Result<std::string> text =
      options_.fetch ? options_.fetch(options_.jwks) : read_jwks(options_.jwks, options_.fetch_timeout, is_cancelled_);
  Status status = text.status();
  std::shared_ptr<const KeySet> set;
  if (text.ok()) {
    Result<std::shared_ptr<const KeySet>> parsed = KeySet::parse(*text);
    status =
        parsed.ok() ? ok_status() : Status(parsed.status().code(), options_.jwks + " " + parsed.status().message());
    if (parsed.ok()) set = *std::move(parsed);
  }
  const std::lock_guard lock(mutex_);
  last_refresh_ = steady_clock::now();
  health_.is_up = status.ok();
  health_.num_failures += status.ok() ? 0 : 1;
  if (set) {
    health_.num_keys = set->keys.size();
    health_.last_success_unix_s = options_.unix_now_s();
  }
  // What cannot be read or is no key set changes nothing: the last good keys stay.
  if (set && key_text_ != *text) {
    keys_ = std::move(set);
    key_text_ = *std::move(text);
    cache_.clear();  // what an old key signed is no longer known
  }
  return status;
}

void JwtAuthenticator::run() {
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    // Sooner again while it does not work.
    const auto interval = health_.is_up ? options_.refresh_interval
                                        : std::min(options_.refresh_interval, 3 * options_.min_refresh_interval);
    condition_.wait_for(lock, std::max(interval, std::chrono::milliseconds(1)), [&] { return stopping_ || is_asked_; });
    if (stopping_) break;
    // Those who asked while keys were on their way need no others.
    const bool is_due = steady_clock::now() - last_refresh_ >= options_.min_refresh_interval;
    is_asked_ = false;
    if (is_due) {
      lock.unlock();
      if (const Status status = refresh(); !status.ok()) LOG_WARNING << "keys for tokens: " << status.message();
      lock.lock();
    }
    std::vector<std::function<void()>> ready = std::move(waiting_);
    waiting_.clear();
    lock.unlock();
    for (const auto& then : ready) then();
    ready.clear();
    lock.lock();
  }
  std::vector<std::function<void()>> left = std::move(waiting_);
  waiting_.clear();
  lock.unlock();
  for (const auto& then : left) then();
}

JwtAuthenticator::Health JwtAuthenticator::health() const {
  const std::lock_guard lock(mutex_);
  return health_;
}

void JwtAuthenticator::wait(std::function<void()> then) const {
  {
    const std::lock_guard lock(mutex_);
    if (!stopping_ && waiting_.size() < kMaxWaiting) {
      waiting_.push_back(std::move(then));
      is_asked_ = true;
      condition_.notify_all();
      return;
    }
  }
  then();
}

bool JwtAuthenticator::is_jwt(std::string_view token) {
  return token.starts_with("ey") && std::ranges::count(token, '.') == 2;
}

Credential JwtAuthenticator::authenticate(std::string_view token, bool may_verify) const {
  if (token.size() > kMaxTokenBytes) return refused("is too long.");
  const Sha256 hash = sha256_of(token);
  if (std::shared_ptr<const Identity> identity = cache_.find(hash)) {
    if (options_.unix_now_s() < identity->expires_unix_s + options_.leeway_s) {
      // Limits and models may have changed since.
      if (options_.complete) {
        auto copy = std::make_shared<Identity>(*identity);
        options_.complete(*copy);
        identity = std::move(copy);
      }
      return {.identity = std::move(identity), .message = {}};
    }
    return refused("has expired.");
  }
  if (!may_verify) return refused("is not known.");
  Credential credential = verify(token);
  if (credential.identity != nullptr) cache_.put(hash, credential.identity);
  return credential;
}

Credential JwtAuthenticator::verify(std::string_view token) const {
  cjose_err error{};
  const std::string text(token);
  const std::unique_ptr<cjose_jws_t, FreeJws> jws(cjose_jws_import(text.c_str(), text.size(), &error));
  if (!jws) return refused("is not a signed token.");
  cjose_header_t* header = cjose_jws_get_protected(jws.get());
  const auto header_text = [&](const char* name) -> std::string {
    const char* value = header == nullptr ? nullptr : cjose_header_get(header, name, &error);
    return value == nullptr ? "" : value;
  };
  const std::string alg = header_text(CJOSE_HDR_ALG), kid = header_text(CJOSE_HDR_KID);
  const auto algorithm = std::ranges::find_if(kAlgorithms, [&](const Algorithm& one) { return alg == one.name; });
  if (algorithm == std::end(kAlgorithms))
    return refused("has an algorithm that is not taken: HS256, RS256, ES256 are.");
  // An extension that must be understood (RFC 7515, 4.1.11); we know none.
  char* const crit = header == nullptr ? nullptr : cjose_header_get_raw(header, "crit", &error);
  if (crit != nullptr) {
    cjose_get_dealloc()(crit);
    return refused("has an extension that is not known.");
  }
  const std::shared_ptr<const KeySet> set = keys();
  bool is_verified = false;
  bool has_candidate = false;
  if (set != nullptr) {
    const std::lock_guard lock(set->mutex);
    for (const KeySet::Key& key : set->keys) {
      // A key is for its own kind of algorithm: a public key is no secret.
      if (key.kind != algorithm->kind || (!key.alg.empty() && key.alg != alg) || (!kid.empty() && key.kid != kid))
        continue;
      has_candidate = true;
      is_verified = cjose_jws_verify(jws.get(), key.jwk.get(), &error);
      if (is_verified) break;
    }
  }
  if (!has_candidate) {
    Credential credential = refused("is signed with a key that is not known.");
    const std::lock_guard lock(mutex_);
    credential.is_pending = is_asked_ || steady_clock::now() - last_refresh_ >= options_.min_refresh_interval;
    return credential;
  }
  if (!is_verified) return refused("has a signature that does not hold.");
  uint8_t* payload = nullptr;
  size_t num_bytes = 0;
  if (!cjose_jws_get_plaintext(jws.get(), &payload, &num_bytes, &error)) return refused("cannot be read.");
  Result<Identity> identity = identity_of(std::string(reinterpret_cast<const char*>(payload), num_bytes));
  if (!identity.ok()) return refused(identity.status().message().c_str());
  return {.identity = std::make_shared<const Identity>(*std::move(identity)), .message = {}};
}

Result<Identity> JwtAuthenticator::identity_of(const std::string& payload) const {
  const json claims = json::parse(payload, nullptr, false);
  if (!claims.is_object()) return invalid_argument("holds no claims.");
  const auto now = static_cast<double>(options_.unix_now_s());
  const auto leeway = static_cast<double>(options_.leeway_s);
  const std::optional<double> expires = date_of(claims, "exp");
  if (!expires) return invalid_argument("has no end (exp).");
  if (now >= *expires + leeway) return invalid_argument("has expired.");
  if (claims.contains("nbf")) {
    const std::optional<double> begins = date_of(claims, "nbf");
    if (!begins || now + leeway < *begins) return invalid_argument("is not valid yet.");
  }
  if (claims.value("iss", json()) != options_.issuer) return invalid_argument("is from another issuer.");
  const json audience = claims.value("aud", json());
  if (audience != options_.audience &&
      !(audience.is_array() && std::ranges::find(audience, json(options_.audience)) != audience.end()))
    return invalid_argument("is for another audience.");
  Identity identity;
  identity.roles = roles_of(claim_of(claims, options_.roles_claim));
  identity.tenant = "default";
  if (const json* tenant = claim_of(claims, options_.tenant_claim); tenant != nullptr) {
    if (!tenant->is_string() || !is_tenant_name(tenant->get<std::string>()))
      return invalid_argument("names a tenant that cannot be one.");
    identity.tenant = tenant->get<std::string>();
  }
  std::string subject = claims.contains("sub") && claims["sub"].is_string() ? claims["sub"].get<std::string>() : "";
  if (subject.size() > 128) return invalid_argument("names a subject of more than 128 bytes.");
  for (char& c : subject) {
    if (c < '!' || c > '~') c = '_';  // it goes into logs
  }
  identity.key_id = "jwt:" + identity.tenant + ":" + subject;
  identity.name = subject;
  identity.expires_unix_s = static_cast<int64_t>(*expires);
  if (options_.complete) options_.complete(identity);
  return identity;
}

namespace {

class NoKeys final : public Authenticator {
 public:
  Credential authenticate(std::string_view token, bool) const override {
    return {.identity = nullptr,
            .message = token.empty() ? "This server needs a token: send it as 'Authorization: Bearer TOKEN'."
                                     : "What the Authorization header holds is no token of this server."};
  }
};

class Combined final : public Authenticator {
 public:
  Combined(std::unique_ptr<Authenticator> keys, std::unique_ptr<JwtAuthenticator> jwt)
      : keys_(std::move(keys)), jwt_(std::move(jwt)) {}
  Credential authenticate(std::string_view token, bool may_verify) const override {
    return JwtAuthenticator::is_jwt(token) ? jwt_->authenticate(token, may_verify)
                                           : keys_->authenticate(token, may_verify);
  }
  void wait(std::function<void()> then) const override { jwt_->wait(std::move(then)); }

 private:
  std::unique_ptr<Authenticator> keys_;
  std::unique_ptr<JwtAuthenticator> jwt_;
};

}  // namespace

std::unique_ptr<Authenticator> no_keys_authenticator() { return std::make_unique<NoKeys>(); }

std::unique_ptr<Authenticator> combined_authenticator(std::unique_ptr<Authenticator> keys,
                                                      std::unique_ptr<JwtAuthenticator> jwt) {
  if (jwt == nullptr) return keys;
  return std::make_unique<Combined>(std::move(keys), std::move(jwt));
}

}  // namespace sextant
