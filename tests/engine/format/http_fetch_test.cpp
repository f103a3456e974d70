// Fetching itself is tested through downloads: download_test.cpp.
#include "engine/format/http_fetch.h"

#include <gtest/gtest.h>

namespace sextant {
namespace {

TEST(Urls, Parts) {
  EXPECT_EQ(url_origin("HTTPS://Example.COM/x"), "https://example.com:443");
  EXPECT_EQ(url_origin("http://example.com:8080/x"), "http://example.com:8080");
  EXPECT_EQ(url_origin("http://user@example.com/x"), "http://example.com:80");
  EXPECT_EQ(url_origin("ftp://example.com/x"), "");
  EXPECT_EQ(url_origin("nonsense"), "");
  EXPECT_EQ(url_file_name("https://h/a/b%20c.gguf?download=true"), "b c.gguf");
  EXPECT_EQ(url_file_name("https://h/a/%2e%2e"), "..");
  EXPECT_EQ(url_file_name("https://h/"), "");
  EXPECT_EQ(url_escape("a b/c%"), "a%20b%2Fc%25");
  EXPECT_EQ(url_escape(""), "");
}

}  // namespace
}  // namespace sextant
