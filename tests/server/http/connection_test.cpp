// HTTP over TLS: what works over plain connections works here, and hostile handshakes cost little and harm nobody.
#include "server/http/connection.h"

#include <gmock/gmock.h>

#include <random>

#include "server/http/tls_certificates.h"
#include "tests/server/http/http_server_fixture.h"
#include "tests/server/http/tls_client.h"

namespace sextant::http {
namespace {

using std::chrono::milliseconds;
using testing::HasSubstr;

class TlsConnectionTest : public HttpServerTest {
 protected:
  TlsConnectionTest() {
    std::string pattern = testing::TempDir() + "tls-XXXXXX";
    folder_ = mkdtemp(pattern.data());
    options.certfile = folder_ / "certificate.pem";
    options.keyfile = folder_ / "key.pem";
    limits.linger_timeout = milliseconds(300);
    write(pair);
  }
  ~TlsConnectionTest() override { std::filesystem::remove_all(folder_); }

  void write(const KeyPair& made) const {
    write_file(options.certfile, made.certificate);
    write_file(options.keyfile, made.key);
  }
  void start_tls() {
    auto opened = TlsCertificates::open(options, milliseconds(2));
    ASSERT_TRUE(opened.ok()) << opened.status().message();
    tls = *opened;
    start();
  }
  void expect_service() {
    TlsClient client(port);
    ASSERT_TRUE(client.handshake());
    EXPECT_EQ(client.get("/hello").body, "hello");
  }

  const KeyPair pair = make_key_pair({.name = "first"});
  TlsOptions options;
  std::filesystem::path folder_;
};

TEST_F(TlsConnectionTest, RequestsBodiesAndKeepAlive) {
  start_tls();
  for (const int version : {0, TLS1_2_VERSION, TLS1_3_VERSION}) {
    TlsClient client(port, {.authority = pair.certificate, .version = version, .protocol = "http/1.1"});
    ASSERT_TRUE(client.handshake());
    const unsigned char* protocol = nullptr;
    unsigned int size = 0;
    SSL_get0_alpn_selected(client.ssl(), &protocol, &size);
    EXPECT_EQ(std::string(reinterpret_cast<const char*>(protocol), size), "http/1.1");
    EXPECT_EQ(client.get("/hello").body, "hello");
    EXPECT_EQ(client.get("/hello").body, "hello");
    std::string large(3'000'000, 'x');
    for (size_t i = 0; i < large.size(); i += 7) large[i] = static_cast<char>('a' + i % 26);
    const RawResponse echoed = client.post("/echo", large);
    EXPECT_EQ(echoed.body.size(), large.size());
    EXPECT_TRUE(echoed.body == large);
    // Two at once, and one that asks for the end: close_notify says that it is one.
    client.send(std::string(kGetHello) + kGetHello + "GET /hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    for (int i = 0; i < 3; ++i) EXPECT_EQ(client.read_response().body, "hello");
    EXPECT_TRUE(client.is_closed_by_server());
    EXPECT_TRUE(client.got_close_notify());
  }
  EXPECT_EQ(tls->reading().num_handshakes, 3U);
  EXPECT_EQ(tls->reading().num_failed, 0U);
}

TEST_F(TlsConnectionTest, StreamsArriveTokenByToken) {
  start_tls();
  TlsClient client(port);
  ASSERT_TRUE(client.handshake());
  client.send("GET /later HTTP/1.1\r\nHost: x\r\n\r\n");
  on(pending(), [](Exchange& exchange) {
    exchange.start_stream({});
    exchange.write_now("begin;");
  });
  std::string head = client.read_until("begin;\r\n");
  EXPECT_THAT(head, HasSubstr("chunked"));
  for (int i = 0; i < 50; ++i) {
    on(pending(), [i](Exchange& exchange) { exchange.write_now("token" + std::to_string(i) + ";"); });
    EXPECT_THAT(client.read_until(";\r\n"), HasSubstr("token" + std::to_string(i)));
  }
  on(pending(), [](Exchange& exchange) { exchange.finish_stream(); });
  EXPECT_EQ(client.read_until("0\r\n\r\n"), "0\r\n\r\n");
  release_pending();
  EXPECT_EQ(client.get("/hello").body, "hello");
}

// Bytes of every size, at once and queued, to a client that reads late and little: all of them arrive, in order.
TEST_F(TlsConnectionTest, AFullSocketLosesNothing) {
  limits.send_buffer_bytes = 4096;
  limits.max_stream_buffer_bytes = 64 << 20;
  start_tls();
  const unsigned seed = std::random_device()();
  std::mt19937 random(seed);
  TlsClient client(port, {.receive_buffer_bytes = 4096});
  ASSERT_TRUE(client.handshake());
  client.send("GET /later HTTP/1.1\r\nHost: x\r\n\r\n");
  std::string expected;
  on(pending(), [](Exchange& exchange) { exchange.start_stream({}); });
  for (int i = 0; i < 60; ++i) {
    const size_t sizes[] = {1, 100, 5'000, 16'384, 16'385, 40'000};
    std::string piece(sizes[random() % 6] + random() % 3, ' ');
    for (char& c : piece) c = static_cast<char>('a' + random() % 26);
    expected += piece;
    const bool now = random() % 2 == 0;
    on(pending(), [piece, now](Exchange& exchange) { now ? exchange.write_now(piece) : exchange.write(piece); });
  }
  on(pending(), [](Exchange& exchange) { exchange.finish_stream(); });
  const RawResponse response = client.read_response();
  EXPECT_TRUE(response.complete) << "seed " << seed;
  EXPECT_TRUE(response.body == expected) << "seed " << seed << ": " << response.body.size() << " of "
                                         << expected.size();
}

TEST_F(TlsConnectionTest, AClientThatGoesIsNoticed) {
  start_tls();
  const auto begin = [&](TlsClient& client, size_t idx) {
    ASSERT_TRUE(client.handshake());
    client.send("GET /later HTTP/1.1\r\nHost: x\r\n\r\n");
    ASSERT_NE(pending(idx), nullptr);
  };
  {
    TlsClient client(port);
    begin(client, 0);
    client.close_notify();  // TCP stays open: TLS alone says that it is gone
    EXPECT_TRUE(wait_until([&] { return num_disconnects == 1; }));
  }
  {
    TlsClient client(port);
    begin(client, 1);
    client.shutdown_write();  // without a close_notify
    EXPECT_TRUE(wait_until([&] { return num_disconnects == 2; }));
  }
  {
    TlsClient client(port);
    begin(client, 2);
    client.reset();
    EXPECT_TRUE(wait_until([&] { return num_disconnects == 3; }));
  }
  expect_service();
}

TEST_F(TlsConnectionTest, PlainHttpIsToldSoAndReachesNoHandler) {
  start_tls();
  for (const std::string request :
       {kGetHello, "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
        "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /later HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"}) {
    RawClient client(port);
    client.send(request);
    const RawResponse response = client.read_response();
    EXPECT_EQ(response.status, 400) << request;
    EXPECT_THAT(response.body, HasSubstr("use https://"));
    EXPECT_TRUE(client.is_closed_by_server());
  }
  EXPECT_EQ(num_pending(), 0U);
  for (const auto& record : seen(4)) EXPECT_EQ(record.status, 400);
  EXPECT_EQ(tls->reading().num_failed, 4U);
  expect_service();
}

TEST_F(TlsConnectionTest, GarbageIsShownTheDoor) {
  start_tls();
  const std::string hello("\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00", 10);
  std::mt19937 random(7);
  for (int i = 0; i < 40; ++i) {
    RawClient client(port);
    std::string bytes = i % 2 == 0 ? std::string("\x16\x03\x01") : std::string();  // a record's head, and not even that
    for (size_t n = 1 + random() % 600; n > 0; --n) bytes.push_back(static_cast<char>(random()));
    client.send(i == 0 ? hello : bytes);
    client.shutdown_write();
    EXPECT_TRUE(client.is_closed_by_server());
  }
  EXPECT_TRUE(wait_until([&] { return tls->reading().num_failed == 40; }));
  expect_service();
}

TEST_F(TlsConnectionTest, HandshakesThatStandStillEndInTime) {
  limits.header_timeout = milliseconds(200);
  start_tls();
  RawClient silent(port), half(port);
  half.send(std::string("\x16\x03\x01\x02\x00\x01", 6));
  EXPECT_TRUE(silent.is_closed_by_server());
  EXPECT_TRUE(half.is_closed_by_server());
  // And a finished one whose request does not come.
  TlsClient idle(port);
  if (idle.handshake()) {
    EXPECT_TRUE(idle.is_closed_by_server());
  }
  EXPECT_TRUE(wait_until([&] { return server->num_connections() == 0; }));
}

TEST_F(TlsConnectionTest, ManyIdleHandshakesHoldNobodyUp) {
  limits.max_connections = 150;
  limits.header_timeout = milliseconds(120'000);
  start_tls();
  std::vector<RawClient> idle;
  for (int i = 0; i < 140; ++i) {
    idle.emplace_back(port);
    if (i % 2 == 0) idle.back().send(std::string("\x16\x03\x01\x02\x00\x01", 6));
  }
  EXPECT_TRUE(wait_until([&] { return server->num_connections() == 140; }));  // they count as connections
  for (int i = 0; i < 5; ++i) expect_service();
  while (idle.size() < 150) idle.emplace_back(port);
  EXPECT_TRUE(wait_until([&] { return server->num_connections() >= 150; }));
  TlsClient refused(port);
  ASSERT_TRUE(refused.handshake());
  EXPECT_EQ(refused.get("/hello").status, 503);
  server->close_all();
  EXPECT_TRUE(wait_until([&] { return server->num_connections() == 0; }));
}

TEST_F(TlsConnectionTest, OldVersionsOtherProtocolsAndRenegotiation) {
  start_tls();
  TlsClient old(port, {.version = TLS1_1_VERSION});
  EXPECT_FALSE(old.handshake());
  TlsClient http2(port, {.protocol = "h2"});
  EXPECT_FALSE(http2.handshake());
  TlsClient client(port, {.version = TLS1_2_VERSION});
  ASSERT_TRUE(client.handshake());
  EXPECT_EQ(client.get("/hello").body, "hello");
  if (SSL_renegotiate(client.ssl()) == 1) {
    EXPECT_NE(SSL_do_handshake(client.ssl()), 1);
  }
  TlsClient updated(port, {.version = TLS1_3_VERSION});
  ASSERT_TRUE(updated.handshake());
  for (int i = 0; i < 20; ++i) {
    ASSERT_EQ(SSL_key_update(updated.ssl(), SSL_KEY_UPDATE_REQUESTED), 1);
    EXPECT_EQ(updated.get("/hello").body, "hello");
  }
  expect_service();
}

TEST_F(TlsConnectionTest, ClientsShowCertificates) {
  const KeyPair authority = make_key_pair({.name = "authority"}), stranger = make_key_pair({.name = "stranger"});
  const KeyPair good = make_key_pair({.name = "good", .issuer = &authority});
  const KeyPair bad = make_key_pair({.name = "bad", .issuer = &stranger});
  const KeyPair expired =
      make_key_pair({.name = "expired", .issuer = &authority, .valid_from_s = -7200, .valid_for_s = 3600});
  options.ca_certs = folder_ / "authorities.pem";
  write_file(options.ca_certs, authority.certificate);
  options.cert_reqs = 2;
  start_tls();
  const auto is_served = [&](const KeyPair* own, int version) {
    TlsClient client(port, {.own = own, .version = version});
    return client.handshake() && client.get("/hello").status == 200;
  };
  for (const int version : {TLS1_2_VERSION, TLS1_3_VERSION}) {
    EXPECT_TRUE(is_served(&good, version));
    EXPECT_FALSE(is_served(nullptr, version));
    EXPECT_FALSE(is_served(&bad, version));
    EXPECT_FALSE(is_served(&expired, version));
  }
  EXPECT_EQ(tls->reading().num_handshakes, 2U);
  EXPECT_TRUE(wait_until([&] { return tls->reading().num_failed == 6; }));
}

TEST_F(TlsConnectionTest, NewConnectionsGetTheNewCertificate) {
  start_tls();
  TlsClient before(port);
  ASSERT_TRUE(before.handshake());
  EXPECT_EQ(before.peer_name(), "first");
  EXPECT_EQ(before.get("/hello").body, "hello");
  write(make_key_pair({.name = "second"}));
  ASSERT_TRUE(wait_until([&] { return tls->reading().num_reloads == 1; }));
  TlsClient after(port);
  ASSERT_TRUE(after.handshake());
  EXPECT_EQ(after.peer_name(), "second");
  EXPECT_EQ(after.get("/hello").body, "hello");
  EXPECT_EQ(before.get("/hello").body, "hello");  // goes on as it was
}

TEST_F(TlsConnectionTest, WebSocketsSpeakTlsToo) {
  websocket_path = "/later";
  start_tls();
  TlsClient client(port);
  ASSERT_TRUE(client.handshake());
  client.send(
      "GET /later HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
      "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n");
  EXPECT_THAT(client.read_until("\r\n\r\n"), HasSubstr("101"));
  const auto frame = [](char opcode, const std::string& text) {  // with a mask of zeros
    return std::string(1, static_cast<char>(0x80 | opcode)) + static_cast<char>(0x80 | text.size()) +
           std::string(4, '\0') + text;
  };
  client.send(frame(1, "{}"));
  on(pending(), [](Exchange& exchange) {
    exchange.start_stream({});
    exchange.write(std::string(100'000, 'y') + "\n");
    exchange.write("last\n");
    exchange.finish_stream();
  });
  EXPECT_THAT(client.read_until("last"), HasSubstr(std::string(100'000, 'y')));
  release_pending();
  client.send(frame(8, std::string("\x03\xe8", 2)));
  EXPECT_TRUE(client.is_closed_by_server());
  EXPECT_TRUE(client.got_close_notify());
}

TEST_F(TlsConnectionTest, AStopLetsStreamsFinish) {
  start_tls();
  TlsClient client(port), idle(port);
  ASSERT_TRUE(client.handshake());
  ASSERT_TRUE(idle.handshake());
  EXPECT_EQ(idle.get("/hello").status, 200);
  client.send("GET /later HTTP/1.1\r\nHost: x\r\n\r\n");
  on(pending(), [](Exchange& exchange) {
    exchange.start_stream({});
    exchange.write_now("one;");
  });
  client.read_until("one;");
  server->stop_accepting();
  server->close_idle();
  EXPECT_TRUE(idle.is_closed_by_server());
  EXPECT_TRUE(idle.got_close_notify());
  on(pending(), [](Exchange& exchange) {
    exchange.write_now("two;");
    exchange.finish_stream();
  });
  EXPECT_THAT(client.read_until("0\r\n\r\n"), HasSubstr("two;"));
  EXPECT_TRUE(client.is_closed_by_server());
}

}  // namespace
}  // namespace sextant::http
