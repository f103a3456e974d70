#include "server/http/router.h"

#include <gtest/gtest.h>

namespace sextant::http {
namespace {

Handler nothing() {
  return [](const std::shared_ptr<Exchange>&) {};
}

TEST(Router, FindsExactPathsAndPrefixes) {
  Router router;
  router.add("GET", "/v1/models", nothing());
  router.add("GET", "/v1/models/*", nothing());
  router.add("GET", "/v1/*", nothing());
  router.add("POST", "/v1/chat/completions", nothing());

  EXPECT_EQ(router.find("GET", "/v1/models").pattern, "/v1/models");
  EXPECT_EQ(router.find("GET", "/v1/models/a/b").pattern, "/v1/models/*");
  EXPECT_EQ(router.find("GET", "/v1/models/").pattern, "/v1/models/*");
  EXPECT_EQ(router.find("GET", "/v1/other").pattern, "/v1/*") << "the longer prefix wins, not the first";
  EXPECT_NE(router.find("GET", "/v1/models").handler, nullptr);
  for (const char* path : {"", "/", "/v1", "/v2/models", "/V1/models", "v1/models", "*"}) {
    const Router::Match match = router.find("GET", path);
    EXPECT_EQ(match.handler, nullptr) << path;
    EXPECT_FALSE(match.path_exists) << path;
    EXPECT_TRUE(match.pattern.empty()) << path;
  }
  EXPECT_EQ(router.find("GET", "/v1/modelsx").pattern, "/v1/*");
}

TEST(Router, SaysWhichMethodsThereAre) {
  Router router;
  router.add("GET", "/ping", nothing());
  router.add("POST", "/ping", nothing());
  router.add("POST", "/chat", nothing());
  const Router::Match match = router.find("DELETE", "/ping");
  EXPECT_EQ(match.handler, nullptr);
  EXPECT_TRUE(match.path_exists);
  EXPECT_EQ(match.allowed_methods, "GET, HEAD, POST");
  EXPECT_EQ(router.find("GET", "/chat").allowed_methods, "POST");
  EXPECT_EQ(router.find("get", "/ping").handler, nullptr) << "methods are case-sensitive";
}

TEST(Router, HeadFindsGet) {
  Router router;
  router.add("GET", "/a", nothing());
  router.add("POST", "/b", nothing());
  EXPECT_EQ(router.find("HEAD", "/a").handler, router.find("GET", "/a").handler);
  EXPECT_NE(router.find("HEAD", "/a").handler, nullptr);
  EXPECT_EQ(router.find("HEAD", "/b").handler, nullptr);
  EXPECT_TRUE(router.find("HEAD", "/b").path_exists);
}

TEST(RouterDeathTest, RefusesOurMistakes) {
  Router router;
  router.add("GET", "/a", nothing());
  EXPECT_DEATH(router.add("GET", "/a", nothing()), "added before");
  EXPECT_DEATH(router.add("GET", "a", nothing()), "CHECK|check|a");
  EXPECT_DEATH(router.add("GET", "/a*b", nothing()), "star");
  EXPECT_DEATH(router.add("GET", "/b", nullptr), "/b");
}

}  // namespace
}  // namespace sextant::http
