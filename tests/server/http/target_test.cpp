#include "server/http/target.h"

#include <gtest/gtest.h>

namespace sextant::http {
namespace {

std::string path_of(std::string_view target) {
  const Result<Target> parsed = parse_target("GET", target);
  return parsed.ok() ? parsed->path : "refused: " + parsed.status().message();
}

TEST(Target, DecodesThePathOnceAndLeavesTheQuery) {
  EXPECT_EQ(path_of("/v1/models/org%2Fmodel"), "/v1/models/org/model");
  EXPECT_EQ(path_of("/a%2520b"), "/a%20b") << "decoded once";
  EXPECT_EQ(path_of("/a+b"), "/a+b");
  EXPECT_EQ(path_of("/%E4%BD%A0"), "/\xe4\xbd\xa0");
  EXPECT_EQ(path_of("/../etc"), "/../etc");
  EXPECT_EQ(path_of("//x"), "//x");
  const Target target = *parse_target("GET", "/a?b=%zz&c=?");
  EXPECT_EQ(target.path, "/a");
  EXPECT_EQ(target.query, "b=%zz&c=?");
}

TEST(Target, AbsoluteForm) {
  EXPECT_EQ(path_of("http://host:8000/v1/models?x"), "/v1/models");
  EXPECT_EQ(path_of("HTTPS://host/v1"), "/v1");
  EXPECT_EQ(path_of("http://host"), "/");
  EXPECT_EQ(parse_target("GET", "http://host?q=1")->query, "q=1");
  for (const char* bad : {"http://", "http:///x", "http://?x", "ftp://host/x", "http:/x", "http"}) {
    EXPECT_TRUE(path_of(bad).starts_with("refused")) << bad;
  }
}

TEST(Target, RefusesWhatIsNoTarget) {
  for (const char* bad :
       {"", "a", "?x", "*", "/%", "/%4", "/%4g", "/%g4", "/a%", "/%00", "/%0a", "/%7F", "/a#b", "\\x"}) {
    EXPECT_TRUE(path_of(bad).starts_with("refused")) << bad;
  }
  EXPECT_EQ(parse_target("OPTIONS", "*")->path, "*");
}

}  // namespace
}  // namespace sextant::http
