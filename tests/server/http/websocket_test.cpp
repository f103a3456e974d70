// A WebSocket of a real server: what messages are read for, back-pressure, and clients that do not read. Frames that are wrong
// are in tests/e2e/test_streams.py and the fuzzer.
#include "server/http/websocket.h"

#include "tests/server/http/http_server_fixture.h"

namespace sextant::http {
namespace {

TEST(PeekMessageTest, FindsWhatIsInTheOutermostObject) {
  EXPECT_TRUE(peek_message(R"({"cancel":true})").is_cancel);
  EXPECT_TRUE(peek_message(R"( { "id" : [1,{"a":2}], "cancel" : true } )").is_cancel);
  EXPECT_FALSE(peek_message(R"({"cancel":false})").is_cancel);
  EXPECT_FALSE(peek_message(R"({"cancel":"true"})").is_cancel);
  EXPECT_FALSE(peek_message(R"({"a":{"cancel":true}})").is_cancel);
  EXPECT_FALSE(peek_message(R"({"a":["cancel",true]})").is_cancel);
  EXPECT_FALSE(peek_message(R"(["cancel",true])").is_cancel);
  EXPECT_FALSE(peek_message(R"("cancel")").is_cancel);
  EXPECT_EQ(peek_message(R"({"api_key":"k","prompt":"x"})").api_key, "k");
  EXPECT_EQ(peek_message(R"({"prompt":"\"api_key\":\"k\""})").api_key, "");
  EXPECT_EQ(peek_message(R"({"a":{"api_key":"k"}})").api_key, "");
  EXPECT_EQ(peek_message(R"({"api_key":7})").api_key, "");
  for (const std::string text : {"", "{\"cancel\"", "{\"cancel\":tru", "{\"cancel\":true", "{\"cancel\":true}x",
                                 "{\"api_key\":\"k\"", "\"cancel\":true}", "{\"api_key\":\"\xff\"}"}) {
    EXPECT_FALSE(peek_message(text).is_cancel) << text;
    EXPECT_EQ(peek_message(text).api_key, "") << text;
  }
  peek_message(std::string(100'000, '[') + "\"cancel\"");
}

TEST(WebSocketHandshakeTest, KnowsAnUpgradeAndAnotherSite) {
  HttpRequest request;
  request.method = "GET";
  EXPECT_FALSE(asks_for_websocket(request));
  request.headers = {{"Upgrade", "h2c, WebSocket"}, {"Host", "a:1"}};
  EXPECT_TRUE(asks_for_websocket(request));
  EXPECT_FALSE(is_cross_site(request));
  request.headers.push_back({"Origin", "http://a:1"});
  EXPECT_FALSE(is_cross_site(request));
  for (const char* origin : {"http://a:2", "https://b", "null", "a:1", "http://a:1.b"}) {
    request.headers.back().value = origin;
    EXPECT_TRUE(is_cross_site(request)) << origin;
  }
  request.method = "POST";
  EXPECT_FALSE(asks_for_websocket(request));
}

class WebSocketTest : public HttpServerTest {
 protected:
  void open(RawClient& client) {
    ASSERT_TRUE(
        client.send("GET /later HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"));
    const std::string head = client.read_until("\r\n\r\n");
    // The key and the answer to it of RFC 6455, section 1.3.
    EXPECT_NE(head.find("HTTP/1.1 101"), std::string::npos) << head;
    EXPECT_NE(head.find("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), std::string::npos) << head;
  }
  static std::string text_frame(std::string_view text) {  // with a mask of zeros
    return std::string("\x81") + static_cast<char>(0x80 | text.size()) + std::string(4, '\0') + std::string(text);
  }
  WebSocketTest() { websocket_path = "/later"; }
};

TEST_F(WebSocketTest, LinesBecomeMessages) {
  start();
  RawClient client(port);
  open(client);
  client.send(text_frame("{\"a\":1}"));
  const auto exchange = pending();
  ASSERT_TRUE(exchange);
  EXPECT_EQ(exchange->request().method, "POST");
  EXPECT_EQ(exchange->request().body, "{\"a\":1}");
  on(exchange, [](Exchange& it) {
    it.start_stream({});
    it.write("on");
    it.write("e\ntwo\n\nthr");
    it.write("ee");
    it.finish_stream();
  });
  client.read_until("\x81\x03one\x81\x03two\x81\x05three");
  const std::vector<Seen> records = seen(1);
  EXPECT_EQ(records[0].method, "WEBSOCKET");
  EXPECT_EQ(records[0].status, 200);
  EXPECT_EQ(records[0].response_bytes, 11U);
  EXPECT_EQ(server->num_requests(), 0U);
}

TEST_F(WebSocketTest, AHandlerIsToldToStopAndToGoOn) {
  limits.send_buffer_bytes = 4096;
  start();
  RawClient client(port, 4096);
  open(client);
  client.send(text_frame("{}"));
  const auto exchange = pending();
  ASSERT_TRUE(exchange);
  std::atomic<bool> drained{false};
  std::atomic<size_t> buffered{0};
  const std::string line(1023, 'x');
  // More than the kernel takes for a client that does not read.
  on(exchange, [&](Exchange& it) {
    it.on_drained([&] { drained = true; });
    it.start_stream({});
    for (int i = 0; i < 4096; ++i) it.write(line + "\n");
    buffered = it.buffered_bytes();
  });
  ASSERT_TRUE(wait_until([&] { return buffered > 0; }));
  EXPECT_GT(buffered, limits.low_water_bytes);
  EXPECT_FALSE(drained);
  for (size_t num_read = 0; !drained && num_read < 8U << 20; num_read += 1023) client.read_until(line);
  EXPECT_TRUE(wait_until([&] { return drained.load(); }));
  on(exchange, [](Exchange& it) { it.finish_stream(); });
  EXPECT_EQ(seen(1)[0].status, 200);
}

TEST_F(WebSocketTest, AClientThatReadsNothingIsCutOff) {
  limits.send_buffer_bytes = 4096;
  limits.write_timeout = std::chrono::milliseconds(200);
  start();
  RawClient client(port, 4096);
  open(client);
  client.send(text_frame("{}"));
  on(pending(), [](Exchange& it) {
    it.start_stream({});
    for (int i = 0; i < 4096; ++i) it.write(std::string(1023, 'x') + "\n");
  });
  EXPECT_TRUE(seen(1)[0].client_gone);
  EXPECT_EQ(num_disconnects, 1);
}

TEST_F(WebSocketTest, WhatIsBufferedHasABound) {
  limits.send_buffer_bytes = 4096;
  limits.max_stream_buffer_bytes = 256 * 1024;
  start();
  RawClient client(port, 4096);
  open(client);
  client.send(text_frame("{}"));
  on(pending(), [](Exchange& it) {
    it.start_stream({});
    for (int i = 0; i < 8; ++i) it.write(std::string(1 << 20, 'x') + "\n");
  });
  EXPECT_TRUE(seen(1)[0].client_gone);
}

TEST_F(WebSocketTest, AHandlerThatLetsGoIsAnsweredFor) {
  start();
  RawClient client(port);
  open(client);
  client.send(text_frame("{}"));
  ASSERT_TRUE(pending());
  release_pending();
  client.read_until("{\"status\":500,");
  EXPECT_EQ(seen(1)[0].status, 500);
}

TEST_F(WebSocketTest, AnIdleOneIsToldThatTheServerStops) {
  start();
  RawClient client(port);
  open(client);
  server->close_idle();
  EXPECT_NE(client.read_until("\x03\xe9").find('\x88'), std::string::npos);  // close, 1001
}

}  // namespace
}  // namespace sextant::http
