#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <fstream>

#include "server/gateway/admin_api.h"
#include "server/gateway/state_keeper.h"
#include "server/gateway/state_store.h"
#include "server/gateway/tenant_data.h"

namespace sextant {
namespace {

class StateTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = (std::filesystem::temp_directory_path() / "sextant-state-XXXXXX").string();
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    folder_ = name;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::unique_ptr<StateStore> open() {
    auto store = StateStore::open(folder_, "");
    EXPECT_TRUE(store.ok()) << store.status().message();
    return std::move(store).value();
  }
  static MadeKey make(StateStore& store, RoleSet roles = Role::kInference, int64_t expires_s = 0,
                      int64_t now_s = 1000) {
    KeyRecord wanted;
    wanted.tenant = "shop";
    wanted.roles = roles;
    wanted.expires_s = expires_s;
    auto made = store.create_key(wanted, now_s);
    EXPECT_TRUE(made.ok()) << made.status().message();
    return std::move(made).value();
  }

  std::string folder_;
};

TEST_F(StateTest, AKeyIsKeptAsItsHashAlone) {
  const MadeKey made = make(*open(), RoleSet(Role::kAdmin) | Role::kMetrics, 2000);
  EXPECT_EQ(made.secret.size(), std::string("sk-sextant-").size() + 12 + 1 + 43);
  const auto keys = open()->list_keys();
  ASSERT_TRUE(keys.ok());
  ASSERT_EQ(keys->size(), 1u);
  const KeyRecord& key = keys->front();
  EXPECT_EQ(key.hash, sha256_of(made.secret));
  EXPECT_EQ(key.roles, RoleSet(Role::kAdmin) | Role::kMetrics);
  EXPECT_TRUE(key.is_active(1999));
  EXPECT_FALSE(key.is_active(2000));
  for (const auto& file : std::filesystem::directory_iterator(folder_)) {
    std::ifstream stream(file.path(), std::ios::binary);
    const std::string bytes{std::istreambuf_iterator<char>(stream), {}};
    EXPECT_EQ(bytes.find(made.secret.substr(24)), std::string::npos) << file.path();
  }
  EXPECT_NE(make(*open()).secret, make(*open()).secret);
}

TEST_F(StateTest, TwoOfARotationWorkAndNoThird) {
  const auto store = open();
  const MadeKey first = make(*store, Role::kInference, 1100);
  const auto second = store->rotate_key(first.record.key_id, 50, 1010);
  ASSERT_TRUE(second.ok()) << second.status().message();
  EXPECT_EQ(second->record.expires_s, 1010 + 100);
  EXPECT_EQ(store->rotate_key(first.record.key_id, 50, 1011).status().param(), "key_id");
  EXPECT_EQ(store->rotate_key(second->record.key_id, 50, 1011).status().param(), "key_id");
  const auto third = store->rotate_key(second->record.key_id, 0, 1060);  // the first has ended
  ASSERT_TRUE(third.ok()) << third.status().message();
  EXPECT_EQ(store->rotate_key("none", 0, 1060).status().code(), StatusCode::kNotFound);
  EXPECT_FALSE(store->rotate_key(third->record.key_id, -1, 1060).ok());
  ASSERT_TRUE(store->revoke_key(third->record.key_id, 1060).ok());
  EXPECT_TRUE(store->revoke_key(third->record.key_id, 1061).ok());  // again: it is
  EXPECT_FALSE(store->rotate_key(third->record.key_id, 0, 1062).ok());
}

TEST_F(StateTest, WhatIsWrongIsSaid) {
  const auto store = open();
  KeyRecord wanted;
  for (const char* tenant : {"", "a b", "a/b", "ä", "'; DROP TABLE api_keys; --"}) {
    wanted.tenant = tenant;
    wanted.roles = Role::kInference;
    EXPECT_EQ(store->create_key(wanted, 1).status().param(), "tenant") << tenant;
  }
  wanted.tenant = std::string(65, 'a');
  EXPECT_FALSE(store->create_key(wanted, 1).ok());
  wanted.tenant = "a";
  wanted.name = std::string(201, 'n');
  EXPECT_EQ(store->create_key(wanted, 1).status().param(), "name");
  wanted.name = "two\nlines";
  EXPECT_EQ(store->create_key(wanted, 1).status().param(), "name");
  wanted.name = "it's \"fine\" \xff";
  EXPECT_TRUE(store->create_key(wanted, 1).ok());
  EXPECT_FALSE(store->put_tenant({.tenant = "a", .models = {}, .limits = {}, .weight = 0}).ok());
  EXPECT_FALSE(StateStore::open("", "mysql://h/d").ok());
  EXPECT_FALSE(StateStore::open("/proc/none/here", "").ok());
  std::ofstream(folder_ + "/broken.sqlite") << "this is no database";
  std::filesystem::create_directories(folder_ + "/b");
  std::filesystem::rename(folder_ + "/broken.sqlite", folder_ + "/b/state.sqlite");
  EXPECT_FALSE(StateStore::open(folder_ + "/b", "").ok());
}

TEST_F(StateTest, UsageAddsUp) {
  const auto store = open();
  const UsageRow row{"2026-01-31", "shop", "k", "m,\"x\"", {1, 10, 2, 5}};
  ASSERT_TRUE(store->add_usage(std::vector<UsageRow>{row, row}).ok());
  ASSERT_TRUE(store->add_usage(std::vector<UsageRow>{row}).ok());
  const auto rows = open()->usage("2026-01-01", "2026-01-31");
  ASSERT_TRUE(rows.ok());
  ASSERT_EQ(rows->size(), 1u);
  EXPECT_EQ((*rows)[0].count.prompt_tokens, 30);
  EXPECT_EQ((*rows)[0].count.tokens(), 45);
  EXPECT_TRUE(store->usage("2026-02-01", "")->empty());
  EXPECT_THAT(usage_csv(*rows), testing::HasSubstr("2026-01-31,shop,k,\"m,\"\"x\"\"\",3,30,6,15\r\n"));
  EXPECT_EQ(utc_day(0), "1970-01-01");
  EXPECT_EQ(utc_day(1769817600), "2026-01-31");
}

TEST_F(StateTest, AnErasedTenantIsNowhere) {
  StateKeeper::Options options;
  options.unix_now_s = [] { return int64_t{1769817600}; };
  options.write_interval = std::chrono::hours(1);  // its usage is still in memory
  auto started = StateKeeper::start(open(), options);
  ASSERT_TRUE(started.ok());
  StateKeeper& keeper = **started;
  KeyRecord other;
  other.tenant = "shopping";
  other.roles = Role::kInference;
  const std::string kept = keeper.store().create_key(other, 1)->secret;
  KeyRecord wanted;
  wanted.tenant = "zqshop";
  wanted.name = "till-of-zqshop";
  wanted.roles = Role::kInference;
  const std::string secret = keeper.store().create_key(wanted, 1)->secret;
  ASSERT_TRUE(keeper.reload().ok());
  const auto identity = keeper.authenticate(secret, true).identity;
  const auto other_identity = keeper.authenticate(kept, true).identity;
  ASSERT_NE(identity, nullptr);
  ASSERT_NE(other_identity, nullptr);
  keeper.count(*identity, "m", {1, 2, 0, 3});
  keeper.count(*other_identity, "m", {1, 2, 0, 3});
  ASSERT_TRUE(keeper.write_usage().ok());
  keeper.count(*identity, "unwritten", {1, 2, 0, 3});
  const auto lines = export_tenant_state(keeper.store(), "zqshop", 2);
  ASSERT_TRUE(lines.ok());
  EXPECT_EQ(std::ranges::count(*lines, '\n'), 3);  // tenant, key, usage that was written
  EXPECT_THAT(*lines, testing::HasSubstr("till-of-zqshop"));
  EXPECT_THAT(*lines,
              testing::Not(testing::AnyOf(testing::HasSubstr(secret.substr(24)), testing::HasSubstr("shopping"))));

  const auto erased = keeper.erase_tenant("zqshop");
  ASSERT_TRUE(erased.ok());
  EXPECT_EQ(erased->num_tenants, 1);
  EXPECT_EQ(erased->num_keys, 1);
  EXPECT_EQ(erased->num_usage_rows, 1);
  EXPECT_EQ(keeper.authenticate(secret, true).identity, nullptr);
  EXPECT_NE(keeper.authenticate(kept, true).identity, nullptr);
  EXPECT_EQ(keeper.tokens_today("zqshop"), 0);
  EXPECT_EQ(keeper.tokens_today("shopping"), 5);
  ASSERT_TRUE(keeper.write_usage().ok());
  EXPECT_EQ(keeper.store().usage("", "")->size(), 1u) << "what was not written yet has gone too";
  EXPECT_EQ(*export_tenant_state(keeper.store(), "zqshop", 2), "");
  const auto again = keeper.erase_tenant("zqshop");
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(again->num_tenants + again->num_keys + again->num_usage_rows, 0);
  EXPECT_FALSE(keeper.erase_tenant("../x' OR 1=1").ok());
  EXPECT_NE(keeper.authenticate(kept, true).identity, nullptr);
  for (const auto& file : std::filesystem::directory_iterator(folder_)) {
    std::ifstream stream(file.path(), std::ios::binary);
    const std::string bytes{std::istreambuf_iterator<char>(stream), {}};
    EXPECT_EQ(bytes.find("zqshop"), std::string::npos) << file.path();
  }
}

TEST_F(StateTest, TheKeeperFollowsTheStore) {
  std::atomic<int64_t> now_s{1000};
  StateKeeper::Options options;
  options.unix_now_s = [&] { return now_s.load(); };
  options.default_limits.max_n = 7;
  options.poll_interval = std::chrono::milliseconds(5);
  auto keeper = StateKeeper::start(open(), options);
  ASSERT_TRUE(keeper.ok()) << keeper.status().message();
  const auto other = open();  // another process, as it were
  const MadeKey made = make(*other, Role::kInference, 2000);
  TenantRecord shop{.tenant = "shop", .models = {"m"}, .limits = {}, .weight = 2};
  shop.limits.max_tokens = 9;
  ASSERT_TRUE(other->put_tenant(shop).ok());
  const auto wait_for = [&](auto condition) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (!condition() && std::chrono::steady_clock::now() < deadline)
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    return condition();
  };
  const auto identity = [&] { return (*keeper)->authenticate(made.secret, true).identity; };
  ASSERT_TRUE(wait_for([&] { return identity() != nullptr && identity()->weight == 2; }));
  EXPECT_EQ(identity()->tenant, "shop");
  EXPECT_EQ(identity()->limits.max_n, 7);
  EXPECT_EQ(identity()->limits.max_tokens, 9);
  EXPECT_EQ(identity()->limits.requests_per_s, 100);
  EXPECT_TRUE(identity()->may_use("m"));
  EXPECT_FALSE(identity()->may_use("n"));
  for (const char* wrong : {"", "sk-sextant-", "x"}) EXPECT_EQ((*keeper)->authenticate(wrong, true).identity, nullptr);
  EXPECT_EQ((*keeper)->authenticate(made.secret + "x", true).identity, nullptr);
  // Usage: counted at once, written soon, there after a start.
  (*keeper)->count(*identity(), "m", {1, 10, 0, 5});
  EXPECT_EQ((*keeper)->tokens_today("shop"), 15);
  EXPECT_TRUE(wait_for([&] { return !other->usage("", "")->empty(); }));
  EXPECT_EQ((*keeper)->tokens_today("shop"), 15);
  now_s = 2000;
  EXPECT_THAT((*keeper)->authenticate(made.secret, true).message, testing::HasSubstr("expired"));
  now_s = 1999;
  ASSERT_TRUE(other->revoke_key(made.record.key_id, 1999).ok());
  EXPECT_TRUE(wait_for([&] { return identity() == nullptr; }));
  (*keeper)->count(Identity{.tenant = "shop", .key_id = "k", .name = {}, .roles = {}, .models = {}, .limits = {}}, "m",
                   {1, 1, 0, 0});
  keeper->reset();  // what is left is written
  EXPECT_EQ(other->usage("", "")->size(), 2u);
  auto again = StateKeeper::start(open(), options);
  ASSERT_TRUE(again.ok());
  EXPECT_EQ((*again)->tokens_today("shop"), 16);
  now_s = 1999 + 86400;
  EXPECT_EQ((*again)->tokens_today("shop"), 0);
}

TEST(KeyFromJson, NamesTheField) {
  const auto param = [](const char* text) { return key_from_json(nlohmann::json::parse(text), 1000).status().param(); };
  EXPECT_EQ(param(R"({"tenant": 5})"), "tenant");
  EXPECT_EQ(param(R"({"roles": "admin"})"), "roles");
  EXPECT_EQ(param(R"({"roles": ["root"]})"), "roles");
  EXPECT_EQ(param(R"({"limits": []})"), "limits");
  EXPECT_EQ(param(R"({"limits": {"max_tokens": 1e99}})"), "limits");
  EXPECT_EQ(param(R"({"limits": {"max_tokens": 1.5}})"), "limits");
  EXPECT_EQ(param(R"({"limits": {"unheard_of": 1}})"), "limits");
  EXPECT_EQ(param(R"({"expires": -1})"), "expires");
  EXPECT_EQ(param(R"({"expires": 5, "expires_in_s": 5})"), "expires");
  EXPECT_EQ(param(R"({"admin": true})"), "admin");
  EXPECT_EQ(key_from_json(nlohmann::json::parse(R"({"expires_in_s": 60})"), 1000)->expires_s, 1060);
}

}  // namespace
}  // namespace sextant
