#include "server/redis/redis_url.h"

#include <gtest/gtest.h>

namespace sextant::redis {
namespace {

TEST(RedisUrl, NamesAPlace) {
  const Address plain = *parse_url("redis://cache");
  EXPECT_EQ(plain.host, "cache");
  EXPECT_EQ(plain.port, 6379);
  EXPECT_EQ(plain.database, 0);
  EXPECT_EQ(plain.password, "");
  const Address whole = *parse_url("redis://ann:a%40b%2fc@cache.example:7000/12");
  EXPECT_EQ(whole.host, "cache.example");
  EXPECT_EQ(whole.port, 7000);
  EXPECT_EQ(whole.database, 12);
  EXPECT_EQ(whole.user, "ann");
  EXPECT_EQ(whole.password, "a@b/c");
  const Address ipv6 = *parse_url("redis://:secret@[::1]:6380/");
  EXPECT_EQ(ipv6.host, "::1");
  EXPECT_EQ(ipv6.port, 6380);
  EXPECT_EQ(ipv6.password, "secret");
  EXPECT_EQ(shown(ipv6), "[::1]:6380/0");
}

TEST(RedisUrl, ThePasswordMayComeApart) {
  EXPECT_EQ(parse_url("redis://cache", "apart")->password, "apart");
  EXPECT_EQ(parse_url("redis://ann@cache", "apart")->user, "ann");
  EXPECT_EQ(parse_url("redis://:own@cache", "apart")->password, "own");
  EXPECT_EQ(parse_url("redis://:p@ss@cache/1", "")->password, "p@ss");  // what should have been encoded
}

TEST(RedisUrl, RefusesTheRestWithoutShowingIt) {
  for (const char* url : {"",
                          "redis:/",
                          "redis://",
                          "http://:topsecret@h",
                          "rediss://:topsecret@h",
                          "redis://:topsecret@",
                          "redis://:topsecret@:1",
                          "redis://:topsecret@h:",
                          "redis://:topsecret@h:0",
                          "redis://:topsecret@h:65536",
                          "redis://:topsecret@h:-1",
                          "redis://:topsecret@h:1x",
                          "redis://:topsecret@h/x",
                          "redis://:topsecret@h/-1",
                          "redis://:topsecret@h/99999999999",
                          "redis://:topsecret@[::1",
                          "redis://:topsecret@[::1]x",
                          "redis://:topsecret%@h",
                          "redis://:topsecret%zz@h",
                          "redis://:topsecret%0d%0a@h",
                          "redis://ann@h",
                          "redis://:topsecret@h h",
                          "redis://:topsecret@h\r\nFLUSHALL"}) {
    const auto parsed = parse_url(url);
    ASSERT_FALSE(parsed.ok()) << url;
    EXPECT_EQ(parsed.status().param(), "redis_url");
    EXPECT_EQ(parsed.status().message().find("topsecret"), std::string::npos) << parsed.status().message();
  }
}

}  // namespace
}  // namespace sextant::redis
