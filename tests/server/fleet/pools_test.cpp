#include "server/fleet/pools.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace sextant::fleet {
namespace {

std::vector<std::string> errors_of(const std::string& json, PoolsConfig* out = nullptr) {
  PoolsConfig config;
  std::vector<std::string> errors;
  for (const Status& error : read_pools(nlohmann::ordered_json::parse(json), config)) errors.push_back(error.message());
  if (out != nullptr) *out = config;
  return errors;
}

TEST(Pools, FieldsAreReadWithTheirDefaults) {
  PoolsConfig config;
  EXPECT_EQ(errors_of(R"({"pools":[{"model":"m","members":["http://a:1","b:2"]},
      {"name":"far","model":"m2","members_dns":"x:80","policy":"prefix_affinity","probe":{"interval_s":1},"ejection":{"base_s":2},
       "gpu_ids":[0,1],"num_workers":2,"aliases":["z"],"failover":"m"}]})",
                      &config),
            std::vector<std::string>());
  ASSERT_EQ(config.pools.size(), 2U);
  EXPECT_EQ(config.pools[0].name, "m");
  EXPECT_EQ(config.pools[0].members[1].authority(), "b:2");
  EXPECT_EQ(config.pools[0].probe.interval_s, 10);
  EXPECT_EQ(config.pools[0].probe.timeout_s, 5);
  EXPECT_EQ(config.pools[0].probe.up_after, 2);
  EXPECT_EQ(config.pools[0].probe.down_after, 3);
  EXPECT_EQ(config.pools[0].policy, Policy::kLeastTokens);
  EXPECT_EQ(config.pools[0].retry_ratio, 0.1);
  EXPECT_EQ(config.pools[1].policy, Policy::kPrefixAffinity);
  EXPECT_EQ(config.pools[1].probe.interval_s, 1);
  EXPECT_EQ(config.pools[1].members_dns->authority(), "x:80");
}

TEST(Pools, EverythingThatIsWrongIsSaidAtOnce) {
  const std::vector<std::string> errors = errors_of(R"({"pools":[
      {"model":"a","members":[],"policy":"round_robin","aliases":["b"],"failover":"c"},
      {"model":"b","members":["http://h:1","h:1","https://h:2"],"slow_strat_s":1,"failover":"b"},
      {"name":"c","model":"c","members_file":"f","members_dns":"x:1","retry_ratio":2,"probe":{"path":"x","up_after":0},"failover":"nowhere"},
      {"members":["h"]},
      7]})");
  const auto has = [&](const std::string& part) {
    return std::ranges::any_of(errors, [&](const std::string& error) { return error.find(part) != std::string::npos; });
  };
  for (const char* part :
       {"pools[0].members must not be empty",
        "pools[0].policy must be least_tokens, least_connections or prefix_affinity, not 'round_robin'",
        "serves 'b', and so does pool a", "pools[1].members[1] stands here twice",
        "pools[1].members[2] 'https://h:2' asks for TLS",
        "pools[1].slow_strat_s is not known; did you mean slow_start_s?", "pools[1].failover leads in a circle",
        "pools[2].members and members_file and members_dns exclude each other",
        "pools[2].retry_ratio must be a number from 0 to 1", "pools[2].probe.path must begin with /",
        "pools[2].probe.up_after must be a whole number", "pools[2].failover 'nowhere' is no pool",
        "pools[3].model must be given", "pools[3].members[0] 'h' has no port", "pools[4] must hold fields"})
    EXPECT_TRUE(has(part)) << part << "\nof\n" << testing::PrintToString(errors);
}

TEST(Pools, CirclesAndDoubledNames) {
  EXPECT_EQ(
      errors_of(
          R"({"pools":[{"name":"a","model":"m","members":["h:1"],"failover":"b"},{"name":"b","model":"m","members":["h:2"],"failover":"a"}]})")
          .size(),
      2U);
  EXPECT_EQ(errors_of(R"({"pools":[{"model":"m","members":["h:1"]},{"model":"m","members":["h:2"]}]})").size(),
            2U);  // a name and a model
  EXPECT_EQ(errors_of(R"({"pools":[{"model":"m","members":["h:1"],"aliases":["m"]}]})").size(), 1U);
  EXPECT_EQ(
      errors_of(
          R"({"pools":[{"name":"a","model":"m","members":["h:1"],"failover":"b"},{"name":"b","model":"m","members":["h:2"]}]})")
          .size(),
      0U);
}

TEST(Pools, OtherShapesAreRefused) {
  for (const char* bad :
       {"[]", "{}", "7", R"({"pools":{}})", R"({"pools":[]})", R"({"pool":[]})",
        R"({"pools":[{"model":1,"members":"h:1"}]})", R"({"pools":[{"model":"m","members":["h:1"],"probe":[]}]})",
        R"({"pools":[{"model":"m\n","members":["h:1"]}]})",
        R"({"pools":[{"model":"m","members":["h:1"],"slow_start_s":1e999}]})",
        R"({"pools":[{"model":"m","members":["h:1"],"gpu_ids":[-1]}]})"}) {
    const nlohmann::ordered_json value = nlohmann::ordered_json::parse(bad, nullptr, false);
    if (value.is_discarded()) continue;  // a number beyond doubles is refused before
    PoolsConfig config;
    EXPECT_FALSE(read_pools(value, config).empty()) << bad;
  }
}

}  // namespace
}  // namespace sextant::fleet
