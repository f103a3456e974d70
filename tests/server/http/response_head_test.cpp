#include "server/http/response_head.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "server/http/error_body.h"
#include "server/http/request_id.h"
#include "server/http/sse_writer.h"

namespace sextant::http {
namespace {

using testing::HasSubstr;
using testing::Not;

TEST(ResponseHead, SaysTheFraming) {
  HttpResponse response;
  const std::string head = response_head(
      response, {.content_length = 5, .is_chunked = false, .keep_alive = true, .to_http10 = false}, "id-1");
  EXPECT_TRUE(head.starts_with("HTTP/1.1 200 OK\r\n"));
  EXPECT_TRUE(head.ends_with("\r\n\r\n"));
  EXPECT_THAT(head, HasSubstr("\r\nContent-Length: 5\r\n"));
  EXPECT_THAT(head, HasSubstr("\r\nX-Request-Id: id-1\r\n"));
  EXPECT_THAT(head, HasSubstr("\r\nContent-Type: application/json\r\n"));
  EXPECT_THAT(head, testing::ContainsRegex("\r\nDate: [A-Z][a-z][a-z], [0-9][0-9] [A-Z][a-z][a-z] 20[0-9][0-9] "
                                           "[0-9][0-9]:[0-9][0-9]:[0-9][0-9] GMT\r\n"));
  EXPECT_THAT(head, Not(HasSubstr("Connection")));
}

TEST(ResponseHead, NoFieldCanBeginAnother) {
  HttpResponse response;
  response.content_type = "text/plain\r\nA: 1";
  response.headers = {{"X-A", "1\r\nSet-Cookie: b=c\r\n\r\n<html>"},
                      {"X B", "bad name"},
                      {"X:C", "bad name"},
                      {"", "no name"},
                      {"X-D\r\nX-E", "bad name"},
                      {"content-length", "999"},
                      {"Transfer-Encoding", "chunked"},
                      {"X-Nul", std::string("a\0b", 3)},
                      {"X-Good", "fine"}};
  const std::string head = response_head(
      response, {.content_length = 0, .is_chunked = false, .keep_alive = false, .to_http10 = false}, "i\r\nd");
  EXPECT_EQ(head.find("\r\n\r\n"), head.size() - 4);
  EXPECT_THAT(head, Not(HasSubstr("\r\nSet-Cookie")));
  EXPECT_THAT(head, Not(HasSubstr("\r\nA: 1")));
  EXPECT_THAT(head, Not(HasSubstr("bad name")));
  EXPECT_THAT(head, Not(HasSubstr("no name")));
  EXPECT_THAT(head, Not(HasSubstr("999")));
  EXPECT_THAT(head, Not(HasSubstr("Transfer-Encoding")));
  EXPECT_THAT(head, HasSubstr("\r\nX-Nul: a b\r\n"));
  EXPECT_THAT(head, HasSubstr("\r\nX-Good: fine\r\n"));
  EXPECT_THAT(head, HasSubstr("\r\nConnection: close\r\n"));
}

TEST(RequestId, TakesOnlyWhatIsSafe) {
  for (const char* good :
       {"a", "3f2b1c4e-0000-4000-8000-1234567890ab", "Root=1-67891233-abcdef012345678912345678", "a/b+c=="}) {
    EXPECT_TRUE(is_well_formed_request_id(good)) << good;
  }
  EXPECT_TRUE(is_well_formed_request_id(std::string(128, 'a')));
  EXPECT_FALSE(is_well_formed_request_id(std::string(129, 'a')));
  for (const char* bad : {"", " ", "a b", "a\r\nb", "a\"b", "<x>", "\xc3\xa9", "a;b", "a,b", "{}"}) {
    EXPECT_FALSE(is_well_formed_request_id(bad)) << bad;
  }
  const std::string made = make_request_id();
  EXPECT_EQ(made.size(), 36U);
  EXPECT_TRUE(is_well_formed_request_id(made));
  EXPECT_NE(made, make_request_id());
}

TEST(SseWriter, Events) {
  EXPECT_EQ(sse_event(R"({"a":1})"), "data: {\"a\":1}\n\n");
  EXPECT_EQ(sse_event("a\nb\r\nc\rd"), "data: a\ndata: b\ndata: c\ndata: d\n\n") << "no line can end the event early";
  EXPECT_EQ(sse_event(""), "data: \n\n");
  EXPECT_EQ(sse_event("x\n"), "data: x\ndata: \n\n");
  EXPECT_EQ(sse_named_event("delta", "{}"), "event: delta\ndata: {}\n\n");
  EXPECT_EQ(sse_done(), "data: [DONE]\n\n");
  EXPECT_EQ(sse_heartbeat().front(), ':');
  EXPECT_TRUE(sse_heartbeat().ends_with("\n\n"));
}

TEST(ErrorBody, IsOpenAis) {
  const HttpResponse response = error_response(400, "say \"n\"\n", "n", "bad_n");
  EXPECT_EQ(response.status, 400);
  EXPECT_EQ(response.body,
            R"({"error":{"code":"bad_n","message":"say \"n\"\n","param":"n","type":"invalid_request_error"}})");
  EXPECT_EQ(error_response(404, "x").body,
            R"({"error":{"code":null,"message":"x","param":null,"type":"invalid_request_error"}})");
  EXPECT_THAT(error_response(500, "\xff\xfe").body, HasSubstr("\xef\xbf\xbd")) << "bytes that are no UTF-8";
  EXPECT_THAT(error_response(500, "x").body, HasSubstr("server_error"));
  EXPECT_EQ(error_response(unavailable("full")).status, 503);
  ASSERT_EQ(error_response(unavailable("full")).headers.size(), 1U);
  EXPECT_EQ(error_response(unavailable("full")).headers[0].name, "Retry-After");
  EXPECT_EQ(error_response(Status(StatusCode::kResourceExhausted, "x")).status, 429);
  EXPECT_EQ(error_response(not_found("x")).status, 404);
}

}  // namespace
}  // namespace sextant::http
