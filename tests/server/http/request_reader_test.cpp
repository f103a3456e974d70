#include "server/http/request_reader.h"
#include "tests/support/random_seed.h"

#include <gtest/gtest.h>
#include <random>
#include <string>
#include <vector>

namespace sextant::http {
namespace {

// Feeds `text` in pieces as a session does: what was not taken stays in front.
struct Fed {
  RequestReader::State state;
  int status = 0;  // of the error
  std::string message;
  RequestHead head;
  std::string body;
  std::string rest;
};

Fed feed(const std::string& text, const std::vector<size_t>& piece_sizes, const Limits& limits = {}) {
  RequestReader reader(limits);
  std::string buffer;
  size_t at = 0;
  size_t piece = 0;
  while (at < text.size() && reader.state() != RequestReader::State::kError &&
         reader.state() != RequestReader::State::kComplete) {
    const size_t size = piece_sizes.empty() ? text.size() : piece_sizes[piece++ % piece_sizes.size()];
    buffer += text.substr(at, size);
    at += std::min(size, text.size() - at);
    for (size_t used = 1; used > 0 && !buffer.empty();) {
      used = reader.feed(buffer);
      EXPECT_LE(used, buffer.size());
      buffer.erase(0, used);
    }
  }
  Fed fed{.state = reader.state(), .message = {}, .head = reader.head(), .body = reader.take_body(), .rest = {}};
  if (fed.state == RequestReader::State::kError) {
    fed.status = reader.error().status;
    fed.message = reader.error().message;
  }
  fed.rest = buffer + text.substr(at);
  return fed;
}

const std::string kHost = "Host: x\r\n";

TEST(RequestReader, ReadsARequestInPiecesOfAnySize) {
  const std::string text = "POST /v1/chat/completions?a=b%20c HTTP/1.1\r\n" + kHost +
                           "Content-Type:  application/json \r\nX-Empty:\r\nContent-Length: 11\r\n\r\nhello world";
  const std::string next = "GET / HTTP/1.1\r\n";
  for (size_t size = 1; size <= text.size(); ++size) {
    const Fed fed = feed(text + next, {size});
    ASSERT_EQ(fed.state, RequestReader::State::kComplete) << "pieces of " << size << ": " << fed.message;
    EXPECT_EQ(fed.head.request.method, "POST");
    EXPECT_EQ(fed.head.request.path, "/v1/chat/completions");
    EXPECT_EQ(fed.head.request.query, "a=b%20c");
    EXPECT_EQ(fed.head.request.header("content-type"), "application/json");
    EXPECT_EQ(fed.head.request.header("x-empty"), "");
    EXPECT_EQ(fed.body, "hello world");
    EXPECT_EQ(fed.rest, next);
    EXPECT_TRUE(fed.head.keep_alive);
  }
}

TEST(RequestReader, ReadsChunkedBodiesInPiecesOfAnySize) {
  const std::string text = "POST / HTTP/1.1\r\n" + kHost +
                           "Transfer-Encoding: Chunked\r\n\r\n"
                           "5\r\nhello\r\n1;name=\"value\"\r\n \r\n00A\r\n0123456789\r\n0;last\r\n"
                           "X-Trailer: 1\r\nContent-Length: 7\r\n\r\n";
  for (size_t size = 1; size <= text.size(); ++size) {
    const Fed fed = feed(text + "NEXT", {size});
    ASSERT_EQ(fed.state, RequestReader::State::kComplete) << "pieces of " << size << ": " << fed.message;
    EXPECT_EQ(fed.body, "hello 0123456789");
    EXPECT_EQ(fed.rest, "NEXT");
    EXPECT_EQ(fed.head.request.header("X-Trailer"), "") << "trailers are not fields";
  }
  const Fed empty = feed("POST / HTTP/1.1\r\n" + kHost + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", {1});
  EXPECT_EQ(empty.state, RequestReader::State::kComplete);
  EXPECT_EQ(empty.body, "");
}

TEST(RequestReader, RandomBodiesInRandomPieces) {
  const uint64_t seed = random_seed();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(static_cast<uint32_t>(seed));
  for (int round = 0; round < 200; ++round) {
    std::string body;
    std::string wire;
    const int num_chunks = static_cast<int>(random() % 8);
    for (int i = 0; i < num_chunks; ++i) {
      std::string chunk(1 + random() % 300, '\0');
      for (char& c : chunk) c = static_cast<char>(random());
      char size[32];
      snprintf(size, sizeof(size), random() % 2 ? "%zx" : "%04zX", chunk.size());
      wire += std::string(size) + (random() % 3 == 0 ? ";ext=1" : "") + "\r\n" + chunk + "\r\n";
      body += chunk;
    }
    wire += "0\r\n\r\n";
    std::vector<size_t> pieces(1 + random() % 10);
    for (size_t& piece : pieces) piece = 1 + random() % 90;
    const Fed fed = feed("POST /x HTTP/1.1\r\n" + kHost + "Transfer-Encoding: chunked\r\n\r\n" + wire + "rest", pieces);
    ASSERT_EQ(fed.state, RequestReader::State::kComplete) << fed.message;
    ASSERT_EQ(fed.body, body);
    ASSERT_EQ(fed.rest, "rest");
  }
}

TEST(RequestReader, SkipsAFewBlankLinesBeforeARequest) {
  for (const size_t size : {1, 2, 3, 100}) {
    const Fed fed = feed("\r\n\r\nGET / HTTP/1.1\r\n" + kHost + "\r\n", {size});
    EXPECT_EQ(fed.state, RequestReader::State::kComplete) << fed.message;
    EXPECT_EQ(feed("\r\n\r\n\r\n\r\n\r\n\r\n\r\n", {size}).status, 400);
  }
}

TEST(RequestReader, VersionsAndKeepAlive) {
  const auto keep = [](const std::string& text) { return feed(text, {}).head.keep_alive; };
  EXPECT_TRUE(keep("GET / HTTP/1.1\r\n" + kHost + "\r\n"));
  EXPECT_FALSE(keep("GET / HTTP/1.1\r\n" + kHost + "Connection: close\r\n\r\n"));
  EXPECT_FALSE(keep("GET / HTTP/1.1\r\n" + kHost + "Connection: Keep-Alive, Close\r\n\r\n"));
  EXPECT_FALSE(keep("GET / HTTP/1.0\r\n\r\n"));
  EXPECT_TRUE(keep("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"));
  EXPECT_TRUE(feed("GET / HTTP/1.0\r\n\r\n", {}).head.is_http10);
  EXPECT_EQ(feed("GET / HTTP/2.0\r\n" + kHost + "\r\n", {}).status, 505);
  EXPECT_EQ(feed("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", {}).state, RequestReader::State::kError);
  EXPECT_EQ(feed("GET / HTTP/0.9\r\n\r\n", {}).status, 505);
}

struct BadRequest {
  const char* name;
  std::string text;
  int status;
};

// Whatever the pieces, the same verdict.
class RefusesTest : public testing::TestWithParam<BadRequest> {};

TEST_P(RefusesTest, InPiecesOfAnySize) {
  const BadRequest& bad = GetParam();
  for (const size_t size : {1, 2, 7, 100000}) {
    const Fed fed = feed(bad.text, {size});
    EXPECT_EQ(fed.state, RequestReader::State::kError) << "pieces of " << size;
    EXPECT_EQ(fed.status, bad.status) << "pieces of " << size << ": " << fed.message;
    EXPECT_FALSE(fed.message.empty());
  }
}

std::string post(const std::string& fields, const std::string& rest = "") {
  return "POST / HTTP/1.1\r\n" + kHost + fields + "\r\n" + rest;
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, RefusesTest,
    testing::Values(
        // The grammar
        BadRequest{"garbage", "this is not HTTP\r\n\r\n", 400},
        BadRequest{"tls_hello", std::string("\x16\x03\x01\x02\x00\x01\x00\x01\xfc", 9), 400},
        BadRequest{"bare_lf", "GET / HTTP/1.1\nHost: x\n\n", 400},
        BadRequest{"bare_cr", "GET / HTTP/1.1\r\nHost: x\rX: y\r\n\r\n", 400},
        BadRequest{"cr_cr_lf", "GET / HTTP/1.1\r\r\n" + kHost + "\r\n", 400},
        BadRequest{"nul_in_field", std::string("GET / HTTP/1.1\r\nHost: x\r\nA: b\0c\r\n\r\n", 35), 400},
        BadRequest{"control_in_target", "GET /\x01 HTTP/1.1\r\n" + kHost + "\r\n", 400},
        BadRequest{"delete_in_field", "GET / HTTP/1.1\r\n" + kHost + "A: \x7f\r\n\r\n", 400},
        BadRequest{"no_version", "GET /\r\n" + kHost + "\r\n", 400},
        BadRequest{"bad_version", "GET / HTTP/1.\r\n" + kHost + "\r\n", 505},
        BadRequest{"two_spaces", "GET  / HTTP/1.1\r\n" + kHost + "\r\n", 400},
        BadRequest{"no_method", " / HTTP/1.1\r\n" + kHost + "\r\n", 400},
        BadRequest{"bad_method", "GE(T / HTTP/1.1\r\n" + kHost + "\r\n", 400},
        BadRequest{"no_colon", "GET / HTTP/1.1\r\n" + kHost + "nocolon\r\n\r\n", 400},
        BadRequest{"empty_name", "GET / HTTP/1.1\r\n" + kHost + ": x\r\n\r\n", 400},
        BadRequest{"space_before_colon", "GET / HTTP/1.1\r\n" + kHost + "A : x\r\n\r\n", 400},
        BadRequest{"space_before_length_colon", post("Content-Length : 3\r\n", "abc"), 400},
        BadRequest{"folded", "GET / HTTP/1.1\r\n" + kHost + "A: b\r\n c\r\n\r\n", 400},
        BadRequest{"folded_tab", "GET / HTTP/1.1\r\n" + kHost + "A: b\r\n\tc\r\n\r\n", 400},
        BadRequest{"folded_first", "GET / HTTP/1.1\r\n Host: x\r\n\r\n", 400},
        // Targets
        BadRequest{"relative", "GET hello HTTP/1.1\r\n" + kHost + "\r\n", 400},
        BadRequest{"star_for_get", "GET * HTTP/1.1\r\n" + kHost + "\r\n", 400},
        BadRequest{"authority", "CONNECT example.com:443 HTTP/1.1\r\n" + kHost + "\r\n", 400},
        BadRequest{"bad_escape", "GET /%zz HTTP/1.1\r\n" + kHost + "\r\n", 400},
        BadRequest{"cut_escape", "GET /%4 HTTP/1.1\r\n" + kHost + "\r\n", 400},
        BadRequest{"escaped_nul", "GET /a%00b HTTP/1.1\r\n" + kHost + "\r\n", 400},
        BadRequest{"escaped_crlf", "GET /a%0d%0aSet-Cookie:x HTTP/1.1\r\n" + kHost + "\r\n", 400},
        // Host
        BadRequest{"no_host", "GET / HTTP/1.1\r\n\r\n", 400},
        BadRequest{"two_hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400},
        // Two ends of one body
        BadRequest{"both", post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), 400},
        BadRequest{"both_other_order", post("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", "0\r\n\r\n"), 400},
        BadRequest{"two_lengths", post("Content-Length: 3\r\nContent-Length: 4\r\n", "abc"), 400},
        BadRequest{"two_equal_lengths", post("Content-Length: 3\r\nContent-Length: 3\r\n", "abc"), 400},
        BadRequest{"length_list", post("Content-Length: 3, 3\r\n", "abc"), 400},
        BadRequest{"negative_length", post("Content-Length: -1\r\n"), 400},
        BadRequest{"plus_length", post("Content-Length: +3\r\n", "abc"), 400},
        BadRequest{"hex_length", post("Content-Length: 0x3\r\n", "abc"), 400},
        BadRequest{"empty_length", post("Content-Length:\r\n"), 400},
        BadRequest{"huge_length", post("Content-Length: 99999999999999999999999\r\n"), 400},
        BadRequest{"over_limit", post("Content-Length: 33554433\r\n"), 413},
        BadRequest{"over_limit_by_far", post("Content-Length: 18446744073709551615\r\n"), 413},
        BadRequest{"gzip", post("Transfer-Encoding: gzip\r\n"), 501},
        BadRequest{"gzip_chunked", post("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n"), 501},
        BadRequest{"chunked_identity", post("Transfer-Encoding: chunked, identity\r\n", "0\r\n\r\n"), 501},
        BadRequest{"chunked_twice", post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), 400},
        BadRequest{"chunked_disguised", post("Transfer-Encoding: \"chunked\"\r\n"), 501},
        BadRequest{"chunked_http10", "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
        BadRequest{"expect", post("Expect: 200-maybe\r\n"), 417},
        // Chunks
        BadRequest{"chunk_no_size", post("Transfer-Encoding: chunked\r\n", "\r\nabc\r\n"), 400},
        BadRequest{"chunk_negative", post("Transfer-Encoding: chunked\r\n", "-1\r\n"), 400},
        BadRequest{"chunk_0x", post("Transfer-Encoding: chunked\r\n", "0x5\r\nhello\r\n"), 400},
        BadRequest{"chunk_space", post("Transfer-Encoding: chunked\r\n", "5 \r\nhello\r\n"), 400},
        BadRequest{"chunk_lf", post("Transfer-Encoding: chunked\r\n", "5\nhello\r\n0\r\n\r\n"), 400},
        BadRequest{"chunk_too_long", post("Transfer-Encoding: chunked\r\n", "3\r\nhello\r\n0\r\n\r\n"), 400},
        BadRequest{"chunk_overflow", post("Transfer-Encoding: chunked\r\n", "ffffffffffffffff\r\n"), 400},
        BadRequest{"chunk_wrap", post("Transfer-Encoding: chunked\r\n", "10000000000000005\r\nhello\r\n"), 400},
        BadRequest{"chunk_over_limit", post("Transfer-Encoding: chunked\r\n", "2000001\r\n"), 413},
        BadRequest{"chunk_nul_extension", post("Transfer-Encoding: chunked\r\n", std::string("1;\0\r\n", 5)), 400},
        BadRequest{"chunk_long_extension", post("Transfer-Encoding: chunked\r\n", "1;" + std::string(5000, 'a')), 400},
        BadRequest{"trailers_without_end", post("Transfer-Encoding: chunked\r\n", "0\r\n" + std::string(40000, 'a')),
                   431}),
    [](const testing::TestParamInfo<BadRequest>& param_info) { return std::string(param_info.param.name); });

TEST(RequestReader, HeaderLimits) {
  Limits limits;
  limits.max_header_bytes = 1000;
  limits.max_headers = 5;
  const std::string start = "GET / HTTP/1.1\r\n" + kHost;
  EXPECT_EQ(feed(start + "A: " + std::string(2000, 'x'), {1}, limits).status, 431) << "before the header's end";
  EXPECT_EQ(feed(std::string(2000, 'x'), {13}, limits).status, 431);
  const std::string fits = start + "A: " + std::string(1000 - start.size() - 3 - 4, 'x') + "\r\n\r\n";
  ASSERT_EQ(fits.size(), 1000U);
  EXPECT_EQ(feed(fits, {7}, limits).state, RequestReader::State::kComplete);
  EXPECT_EQ(feed(start + "A: " + std::string(1001 - start.size() - 3 - 4, 'x') + "\r\n\r\n", {7}, limits).status, 431);
  EXPECT_EQ(feed(start + "A:1\r\nB:2\r\nC:3\r\nD:4\r\n\r\n", {}, limits).state, RequestReader::State::kComplete);
  EXPECT_EQ(feed(start + "A:1\r\nB:2\r\nC:3\r\nD:4\r\nE:5\r\n\r\n", {}, limits).status, 431);
}

TEST(RequestReader, BodyLimits) {
  Limits limits;
  limits.max_body_bytes = 10;
  EXPECT_EQ(feed(post("Content-Length: 10\r\n", "0123456789"), {}, limits).state, RequestReader::State::kComplete);
  EXPECT_EQ(feed(post("Content-Length: 11\r\n"), {}, limits).status, 413);
  const std::string chunked = "Transfer-Encoding: chunked\r\n";
  EXPECT_EQ(feed(post(chunked, "5\r\n01234\r\n5\r\n56789\r\n0\r\n\r\n"), {}, limits).body, "0123456789");
  EXPECT_EQ(feed(post(chunked, "5\r\n01234\r\n6\r\n"), {}, limits).status, 413) << "before the chunk is read";
}

TEST(RequestReader, SurvivesRandomBytes) {
  const uint64_t seed = random_seed();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(static_cast<uint32_t>(seed));
  const std::string good = post("A: b\r\nTransfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\nT: x\r\n\r\n");
  for (int round = 0; round < 5000; ++round) {
    std::string text = good;
    for (int i = static_cast<int>(random() % 4); i >= 0; --i) {
      const size_t at = random() % text.size();
      switch (random() % 4) {
        case 0: text[at] = static_cast<char>(random()); break;
        case 1: text.erase(at, 1 + random() % 5); break;
        case 2: text.insert(at, std::string(1 + random() % 3, "\r\n :;\t%x0"[random() % 9])); break;
        default: text.insert(at, text.substr(random() % text.size(), random() % 20)); break;
      }
      if (text.empty()) text = "x";
    }
    const Fed at_once = feed(text, {});
    const Fed in_pieces = feed(text, {1 + random() % 5});
    ASSERT_EQ(at_once.state, in_pieces.state) << text;
    ASSERT_EQ(at_once.body, in_pieces.body) << text;
    ASSERT_EQ(at_once.status, in_pieces.status) << text;
  }
}

}  // namespace
}  // namespace sextant::http
