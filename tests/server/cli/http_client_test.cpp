#include "server/cli/http_client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace sextant::cli {
namespace {

using testing::HasSubstr;

TEST(JoinUrl, TakesEveryUsualSpelling) {
  for (const char* base : {"http://h:8000", "http://h:8000/", "http://h:8000/v1", "http://h:8000/v1/", "h:8000"}) {
    EXPECT_EQ(join_url(base, "/v1/models"), "http://h:8000/v1/models") << base;
  }
  EXPECT_EQ(join_url("https://h/prefix", "/v1/models"), "https://h/prefix/v1/models");
}

TEST(ErrorText, FindsTheMessage) {
  EXPECT_EQ(error_text({400, R"({"error":{"message":"no such field"}})"}), "no such field");
  EXPECT_EQ(error_text({400, R"({"error":"plain"})"}), "plain");
  EXPECT_EQ(error_text({502, "<html>"}), "HTTP status 502: <html>");
  EXPECT_EQ(error_text({500, ""}), "HTTP status 500");
  EXPECT_EQ(error_text({500, R"({"error":{"message":5}})"}), R"(HTTP status 500: {"error":{"message":5}})");
}

TEST(SendRequest, SaysThatNobodyListens) {
  const auto response = send_request(
      {.url = "http://127.0.0.1:9/v1/models", .api_key = "sk-x", .json_body = {}, .on_data = {}, .cancelled = {}});
  ASSERT_FALSE(response.ok());
  EXPECT_EQ(response.status().code(), StatusCode::kUnavailable);
  EXPECT_THAT(response.status().message(), HasSubstr("127.0.0.1:9"));
  EXPECT_EQ(response.status().message().find("sk-x"), std::string::npos);
}

TEST(SendRequest, OtherProtocolsAreRefused) {
  EXPECT_FALSE(
      send_request({.url = "file:///etc/hostname", .api_key = {}, .json_body = {}, .on_data = {}, .cancelled = {}})
          .ok());
}

}  // namespace
}  // namespace sextant::cli
