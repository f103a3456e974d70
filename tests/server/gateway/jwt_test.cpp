#include "server/gateway/jwt.h"

#include <cjose/cjose.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <atomic>
#include <condition_variable>
#include <cstring>
#include <future>
#include <mutex>

namespace sextant {
namespace {

using nlohmann::json;
using Jwk = std::unique_ptr<cjose_jwk_t, bool (*)(cjose_jwk_t*)>;

Jwk made(cjose_jwk_t* jwk, const char* kid) {
  EXPECT_NE(jwk, nullptr);
  if (kid != nullptr) {
    EXPECT_TRUE(cjose_jwk_set_kid(jwk, kid, std::strlen(kid), nullptr));
  }
  return {jwk, cjose_jwk_release};
}
Jwk rsa_key(const char* kid) {
  const uint8_t exponent[] = {1, 0, 1};
  return made(cjose_jwk_create_RSA_random(2048, exponent, sizeof exponent, nullptr), kid);
}
Jwk ec_key(const char* kid, cjose_jwk_ec_curve curve = CJOSE_JWK_EC_P_256) {
  return made(cjose_jwk_create_EC_random(curve, nullptr), kid);
}
Jwk secret_key(const char* kid) {
  const uint8_t bytes[] = "0123456789abcdef0123456789abcdef";
  return made(cjose_jwk_create_oct_spec(bytes, 32, nullptr), kid);
}

json public_part(const Jwk& jwk, bool with_secret = false) {
  char* text = cjose_jwk_to_json(jwk.get(), with_secret, nullptr);
  json object = json::parse(text);
  cjose_get_dealloc()(text);
  return object;
}

std::string sign(const json& header, const std::string& payload, const Jwk& jwk) {
  cjose_err error{};
  cjose_header_t* fields = cjose_header_new(&error);
  for (const auto& [name, value] : header.items()) {
    if (value.is_string()) {
      cjose_header_set(fields, name.c_str(), value.get<std::string>().c_str(), &error);
    } else {
      cjose_header_set_raw(fields, name.c_str(), value.dump().c_str(), &error);
    }
  }
  cjose_jws_t* jws =
      cjose_jws_sign(jwk.get(), fields, reinterpret_cast<const uint8_t*>(payload.data()), payload.size(), &error);
  EXPECT_NE(jws, nullptr) << error.message;
  const char* text = nullptr;
  std::string token;
  if (jws != nullptr && cjose_jws_export(jws, &text, &error)) token = text;
  cjose_jws_release(jws);
  cjose_header_release(fields);
  return token;
}

class JwtTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    rsa_ = new Jwk(rsa_key("rsa"));
    ec_ = new Jwk(ec_key("ec"));
    secret_ = new Jwk(secret_key("hs"));
  }
  static void TearDownTestSuite() {
    delete rsa_;
    delete ec_;
    delete secret_;
  }
  void SetUp() override {
    key_set_ = json{{"keys", {public_part(*rsa_), public_part(*ec_), public_part(*secret_, true)}}}.dump();
  }

  void start() {
    JwtAuthenticator::Options options;
    options.jwks = "keys.json";
    options.audience = "sextant";
    options.issuer = "https://issuer";
    options.roles_claim = "realm.roles";
    options.unix_now_s = [this] { return now_s_.load(); };
    options.min_refresh_interval = min_refresh_interval_;
    options.fetch = [this](const std::string&) -> Result<std::string> {
      ++num_fetches_;
      const std::lock_guard lock(mutex_);
      if (key_set_.empty()) return unavailable("no answer");
      return key_set_;
    };
    auto started = JwtAuthenticator::start(std::move(options));
    ASSERT_TRUE(started.ok()) << started.status().message();
    jwt_ = std::move(started).value();
  }
  static json claims() {
    return {{"iss", "https://issuer"},
            {"aud", "sextant"},
            {"exp", 2000},
            {"sub", "ann"},
            {"tenant", "shop"},
            {"realm", {{"roles", {"inference", "unheard-of", "metrics"}}}}};
  }
  std::string signed_with(const char* alg, const Jwk& jwk, const json& body, const char* kid) {
    return sign({{"alg", alg}, {"kid", kid}}, body.dump(), jwk);
  }
  std::string token(const json& body) { return signed_with("ES256", *ec_, body, "ec"); }
  std::string message(const std::string& text) {
    const Credential credential = jwt_->authenticate(text, true);
    EXPECT_EQ(credential.identity == nullptr, !credential.message.empty());
    return credential.message;
  }

  static Jwk *rsa_, *ec_, *secret_;
  std::atomic<int64_t> now_s_{1000};
  std::chrono::milliseconds min_refresh_interval_{3'600'000};
  std::atomic<int> num_fetches_{0};
  std::mutex mutex_;
  std::string key_set_;  // guarded by mutex_
  std::unique_ptr<JwtAuthenticator> jwt_;
};
Jwk *JwtTest::rsa_, *JwtTest::ec_, *JwtTest::secret_;

TEST_F(JwtTest, TakesEachAlgorithmWithItsOwnKey) {
  start();
  for (const auto& [alg, key, kid] :
       {std::tuple{"RS256", rsa_, "rsa"}, {"ES256", ec_, "ec"}, {"HS256", secret_, "hs"}}) {
    const std::string text = signed_with(alg, *key, claims(), kid);
    EXPECT_TRUE(JwtAuthenticator::is_jwt(text));
    for (int i = 0; i < 2; ++i) {  // verified, then looked up
      const Credential credential = jwt_->authenticate(text, i == 0);
      ASSERT_NE(credential.identity, nullptr) << alg << ": " << credential.message;
      EXPECT_EQ(credential.identity->tenant, "shop");
      EXPECT_EQ(credential.identity->key_id, "jwt:shop:ann");
      EXPECT_EQ(credential.identity->roles, RoleSet(Role::kInference) | Role::kMetrics);
    }
  }
  EXPECT_EQ(num_fetches_, 1);
}

TEST_F(JwtTest, RefusesWhatItsClaimsForbid) {
  start();
  const auto changed = [&](const char* name, const json& value) {
    json body = claims();
    if (value.is_null()) {
      body.erase(name);
    } else {
      body[name] = value;
    }
    return message(token(body));
  };
  using testing::HasSubstr;
  EXPECT_EQ(changed("exp", 2000), "");
  EXPECT_EQ(changed("exp", 2000.5), "");
  EXPECT_THAT(changed("exp", nullptr), HasSubstr("no end"));
  EXPECT_THAT(changed("exp", "2000"), HasSubstr("no end"));
  EXPECT_THAT(changed("exp", 1e300), HasSubstr("no end"));
  EXPECT_THAT(changed("exp", 940), HasSubstr("expired"));
  EXPECT_EQ(changed("exp", 941), "");  // within the leeway
  EXPECT_EQ(changed("nbf", 1060), "");
  EXPECT_THAT(changed("nbf", 1061), HasSubstr("not valid yet"));
  EXPECT_THAT(changed("nbf", "soon"), HasSubstr("not valid yet"));
  EXPECT_THAT(changed("iss", "https://other"), HasSubstr("issuer"));
  EXPECT_THAT(changed("iss", nullptr), HasSubstr("issuer"));
  EXPECT_THAT(changed("aud", "other"), HasSubstr("audience"));
  EXPECT_THAT(changed("aud", nullptr), HasSubstr("audience"));
  EXPECT_EQ(changed("aud", {"other", "sextant"}), "");
  EXPECT_THAT(changed("aud", json::array({"other"})), HasSubstr("audience"));
  EXPECT_THAT(changed("aud", {{"sextant", 1}}), HasSubstr("audience"));
  EXPECT_THAT(changed("tenant", "a b"), HasSubstr("tenant"));
  EXPECT_THAT(changed("tenant", 7), HasSubstr("tenant"));
  EXPECT_THAT(changed("sub", std::string(129, 's')), HasSubstr("subject"));
  json body = claims();
  body["sub"] = "line\nbreak";
  body.erase("tenant");
  body["realm"] = "not an object";
  const Credential credential = jwt_->authenticate(token(body), true);
  ASSERT_NE(credential.identity, nullptr);
  EXPECT_EQ(credential.identity->key_id, "jwt:default:line_break");
  EXPECT_TRUE(credential.identity->roles.empty());
  EXPECT_THAT(message(sign({{"alg", "ES256"}, {"kid", "ec"}}, "[1]", *ec_)), HasSubstr("no claims"));
  EXPECT_THAT(message(sign({{"alg", "ES256"}, {"kid", "ec"}}, std::string(2000, '['), *ec_)), HasSubstr("no claims"));
}

TEST_F(JwtTest, ASeenTokenEndsToo) {
  start();
  const std::string text = token(claims());
  EXPECT_EQ(message(text), "");
  now_s_ = 2059;
  EXPECT_EQ(message(text), "");
  now_s_ = 2060;
  EXPECT_THAT(message(text), testing::HasSubstr("expired"));
}

TEST_F(JwtTest, NoAlgorithmStandsInForAnother) {
  start();
  using testing::HasSubstr;
  // The public key as a shared secret: the classic confusion.
  const std::string secret = public_part(*rsa_).dump();
  const Jwk confused =
      made(cjose_jwk_create_oct_spec(reinterpret_cast<const uint8_t*>(secret.data()), secret.size(), nullptr), "rsa");
  EXPECT_THAT(message(signed_with("HS256", confused, claims(), "rsa")), HasSubstr("not known"));
  EXPECT_THAT(message(signed_with("RS256", *rsa_, claims(), "ec")), HasSubstr("not known"));
  EXPECT_THAT(message(signed_with("RS512", *rsa_, claims(), "rsa")), HasSubstr("algorithm"));
  // {"alg":"none"} with and without a signature.
  const std::string good = token(claims());
  const std::string body = good.substr(good.find('.') + 1, good.rfind('.') - good.find('.') - 1);
  for (const std::string& text :
       {"eyJhbGciOiJub25lIn0." + body + ".", "eyJhbGciOiJub25lIn0." + body + good.substr(good.rfind('.'))})
    EXPECT_NE(message(text), "") << text;
  // Another's key of the same kind, and the same key id.
  EXPECT_THAT(message(signed_with("ES256", ec_key("ec"), claims(), "ec")), HasSubstr("signature"));
  // An extension that we must understand.
  EXPECT_THAT(message(sign({{"alg", "ES256"}, {"kid", "ec"}, {"crit", {"exp2"}}, {"exp2", 1}}, claims().dump(), *ec_)),
              HasSubstr("extension"));
}

TEST_F(JwtTest, AnyChangedByteIsRefused) {
  start();
  const std::string good = token(claims());
  EXPECT_EQ(message(good), "");
  for (size_t i = 0; i < good.size(); ++i) {
    std::string bad = good;
    // Into a digit that differs in its highest bit: the lowest bits of a last digit stand for nothing.
    bad[i] = bad[i] == '.' ? 'A' : bad[i] == 'g' ? 'A' : 'g';
    if (bad[i] == good[i]) continue;
    if (i + 1 == good.size() || good[i + 1] == '.') continue;
    ASSERT_NE(message(bad), "") << i;
  }
  for (const std::string& bad :
       {std::string(), std::string("ey.."), std::string("ey.a.b"), good + ".x", good.substr(0, 40),
        std::string(9000, 'e'), "ey" + std::string(4000, 'A') + ".A.A", std::string("ey\0.\0.\0", 7)})
    EXPECT_NE(message(bad), "") << bad.substr(0, 50);
}

TEST_F(JwtTest, AnUnknownKeyIsFetched) {
  min_refresh_interval_ = std::chrono::milliseconds(0);
  start();
  const Jwk next = ec_key("next");
  const std::string text = signed_with("ES256", next, claims(), "next");
  Credential credential = jwt_->authenticate(text, true);
  EXPECT_EQ(credential.identity, nullptr);
  ASSERT_TRUE(credential.is_pending);
  {
    const std::lock_guard lock(mutex_);
    key_set_ = json{{"keys", {public_part(next)}}}.dump();
  }
  std::mutex mutex;
  std::condition_variable condition;
  int num_called = 0;
  for (int i = 0; i < 10; ++i) {
    jwt_->wait([&] {
      const std::lock_guard lock(mutex);
      ++num_called;
      condition.notify_all();
    });
  }
  {
    std::unique_lock lock(mutex);
    ASSERT_TRUE(condition.wait_for(lock, std::chrono::seconds(60), [&] { return num_called == 10; }));
  }
  EXPECT_NE(jwt_->authenticate(text, true).identity, nullptr);
  EXPECT_NE(message(token(claims())), "");  // its key is gone, and that it was seen does not help
}

TEST_F(JwtTest, WithinTheIntervalNothingIsFetched) {
  start();
  const std::string text = signed_with("ES256", ec_key("other"), claims(), "other");
  EXPECT_FALSE(jwt_->authenticate(text, true).is_pending);
  // Nor for those who wait all the same: they are told at once.
  std::mutex mutex;
  std::condition_variable condition;
  bool is_called = false;
  jwt_->wait([&] {
    const std::lock_guard lock(mutex);
    is_called = true;
    condition.notify_all();
  });
  {
    std::unique_lock lock(mutex);
    ASSERT_TRUE(condition.wait_for(lock, std::chrono::seconds(60), [&] { return is_called; }));
  }
  EXPECT_EQ(num_fetches_, 1);
  EXPECT_THAT(jwt_->authenticate(text, false).message, testing::HasSubstr("not known"));
}

// An identity provider that is down, or says nonsense: what it said last holds.
TEST_F(JwtTest, TheLastGoodKeysStay) {
  min_refresh_interval_ = std::chrono::milliseconds(0);
  start();
  EXPECT_EQ(message(token(claims())), "");
  const std::string unknown = signed_with("ES256", ec_key("next"), claims(), "next");
  for (const char* text : {"", "{", "<html>moved</html>", R"({"keys": []})",
                           R"({"keys": [{"kty": "oct", "kid": "next", "k": "AAAA"}]})"}) {
    {
      const std::lock_guard lock(mutex_);
      key_set_ = text;
    }
    ASSERT_TRUE(jwt_->authenticate(unknown, true).is_pending);
    std::promise<void> fetched;
    jwt_->wait([&] { fetched.set_value(); });
    fetched.get_future().wait();
    EXPECT_EQ(jwt_->authenticate(unknown, true).identity, nullptr) << text;
    EXPECT_EQ(message(token(claims())), "") << text;
  }
}

TEST_F(JwtTest, KeysThatAreTooWeakOrCostTooMuchAreNotTaken) {
  const auto can_start = [](const json& key) {
    JwtAuthenticator::Options options;
    options.jwks = "keys.json";
    options.fetch = [&](const std::string&) -> Result<std::string> { return json{{"keys", {key}}}.dump(); };
    return JwtAuthenticator::start(std::move(options)).ok();
  };
  json rsa = public_part(*rsa_);
  EXPECT_TRUE(can_start(rsa));
  const std::string modulus = rsa["n"];
  rsa["n"] = modulus.substr(0, 171);  // 1024 bits
  EXPECT_FALSE(can_start(rsa));
  rsa["n"] = std::string(200'000, 'B');
  EXPECT_FALSE(can_start(rsa));
  rsa["n"] = modulus;
  rsa["e"] = modulus;
  EXPECT_FALSE(can_start(rsa));
  json secret = public_part(*secret_, true);
  EXPECT_TRUE(can_start(secret));
  secret["k"] = "c2hvcnQ";
  EXPECT_FALSE(can_start(secret));
  EXPECT_FALSE(can_start({{"kty", "oct"}, {"k", ""}}));
}

TEST_F(JwtTest, KeySetsThatAreNone) {
  for (const char* text : {"", "{", "[]", "{}", R"({"keys": 1})", R"({"keys": []})",
                           R"({"keys": [1, {}, {"kty": "RSA"}]})", R"({"keys": [{"kty": "oct", "k": 5}]})"}) {
    key_set_ = text;
    JwtAuthenticator::Options options;
    options.jwks = "keys.json";
    options.fetch = [text](const std::string&) -> Result<std::string> { return std::string(text); };
    EXPECT_FALSE(JwtAuthenticator::start(std::move(options)).ok()) << text;
  }
  JwtAuthenticator::Options options;
  options.jwks = "/no/such/file";
  EXPECT_FALSE(JwtAuthenticator::start(std::move(options)).ok());
  // A URL may answer later.
  options = {};
  options.jwks = "http://127.0.0.1:9/keys";
  EXPECT_TRUE(JwtAuthenticator::start(std::move(options)).ok());
}

TEST(TokenCache, StaysBounded) {
  TokenCache cache;
  const auto identity = std::make_shared<const Identity>();
  const Sha256 kept = sha256_of("kept");
  cache.put(kept, identity);
  for (size_t i = 0; i < 5 * TokenCache::kGeneration; ++i) {
    cache.put(sha256_of(std::to_string(i)), identity);
    ASSERT_LE(cache.size(), 2 * TokenCache::kGeneration);
    if (i % 1000 == 0) {
      EXPECT_NE(cache.find(kept), nullptr) << i;
    }
  }
  cache.clear();
  EXPECT_EQ(cache.find(kept), nullptr);
}

}  // namespace
}  // namespace sextant
