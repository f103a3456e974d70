// Long because one server plays every trick on one function; the fixture is shared by all.
#include "engine/format/download.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <atomic>
#include <filesystem>
#include <fstream>

#include "engine/base/log.h"
#include "engine/format/json_file.h"
#include "tests/support/scratch_directory.h"
#include "tests/support/scripted_http_server.h"

namespace sextant {
namespace {

using std::chrono::milliseconds;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

const auto reply = ScriptedHttpServer::reply;

std::string content(size_t size) {
  std::string text(size, '\0');
  for (size_t i = 0; i < size; ++i) text[i] = static_cast<char>('a' + i * 7 % 26);
  return text;
}

// Honours Range: and If-Range: as a good server does.
std::string good_answer(const ScriptedRequest& request, const std::string& body, const std::string& etag) {
  const std::string range = request.header("range");
  const std::string condition = request.header("if-range");
  if (range.empty() || (!condition.empty() && condition != etag)) return reply("200 OK", {"ETag: " + etag}, body);
  const size_t begin = std::stoul(range.substr(6));
  if (begin >= body.size()) {
    return reply("416 Range Not Satisfiable", {"Content-Range: bytes */" + std::to_string(body.size())}, "");
  }
  return reply("206 Partial Content",
               {"ETag: " + etag, "Content-Range: bytes " + std::to_string(begin) + "-" +
                                     std::to_string(body.size() - 1) + "/" + std::to_string(body.size())},
               body.substr(begin));
}

// The answer without the last part of its body, as when a connection breaks.
std::string cut(const std::string& answer, size_t num_missing) { return answer.substr(0, answer.size() - num_missing); }

class DownloadTest : public ::testing::Test {
 protected:
  DownloadTest() {
    ::setenv("no_proxy", "127.0.0.1", 1);
    set_log_sink([this](LogLevel, std::string_view message) { log_ += std::string(message) + "\n"; });
    options_.sleep = [this](milliseconds delay) { sleeps_.push_back(delay.count()); };
    options_.stall_timeout = std::chrono::seconds(5);
  }
  ~DownloadTest() override { set_log_sink(nullptr); }

  Result<DownloadResult> download(const ScriptedHttpServer& server, std::optional<uint64_t> bytes = std::nullopt,
                                  const std::string& sha256 = "") {
    DownloadRequest request;
    request.url = server.url() + "/owner/name/resolve/main/model.bin?signature=secret";
    request.path = path();
    request.expected_bytes = bytes;
    request.expected_sha256 = sha256;
    request.subject = "owner/name";
    return download_file(request, options_);
  }
  std::string path() const { return scratch_.file("model.bin"); }
  std::string file() const {
    return read_text_file(path(), 1 << 30).ok() ? *read_text_file(path(), 1 << 30) : "(none)";
  }
  std::string partial() const {
    const auto text = read_text_file(path() + ".incomplete", 1 << 30);
    return text.ok() ? *text : "(none)";
  }
  std::string sha256(const std::string& text) const {
    const ScratchDirectory other;
    return *sha256_of_file(other.write("x", text));
  }

  ScratchDirectory scratch_;
  TransferOptions options_;
  std::vector<int64_t> sleeps_;
  std::string log_;
};

TEST_F(DownloadTest, Sha256OfFiles) {
  EXPECT_EQ(sha256(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(sha256("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_FALSE(sha256_of_file(scratch_.file("absent")).ok());
}

TEST_F(DownloadTest, AWholeFile) {
  const std::string body = content(100'000);
  ScriptedHttpServer server([&](const ScriptedRequest& request) { return good_answer(request, body, "\"v1\""); });
  const auto result = download(server, body.size(), sha256(body));
  ASSERT_TRUE(result.ok()) << result.status().message();
  EXPECT_EQ(result->num_bytes, body.size());
  EXPECT_EQ(result->num_bytes_received, body.size());
  EXPECT_EQ(file(), body);
  EXPECT_EQ(partial(), "(none)");
  EXPECT_FALSE(std::filesystem::exists(path() + ".incomplete.etag"));
  EXPECT_EQ(server.num_requests(), 1u);
  EXPECT_TRUE(sleeps_.empty());
}

TEST_F(DownloadTest, AnEmptyFile) {
  ScriptedHttpServer server([](const ScriptedRequest&) { return reply("200 OK", {}, ""); });
  ASSERT_TRUE(download(server, 0).ok());
  EXPECT_EQ(file(), "");
}

TEST_F(DownloadTest, TextIsBounded) {
  ScriptedHttpServer server([&](const ScriptedRequest&) { return reply("200 OK", {}, content(1000)); });
  EXPECT_EQ(*download_text(server.url() + "/x", 1000, "x", options_), content(1000));
  EXPECT_EQ(download_text(server.url() + "/x", 999, "x", options_).status().code(), StatusCode::kTooLarge);
}

TEST_F(DownloadTest, ResumesAfterTheConnectionIsCut) {
  const std::string body = content(50'000);
  std::atomic<int> count{0};
  ScriptedHttpServer server([&](const ScriptedRequest& request) {
    const std::string answer = good_answer(request, body, "\"v1\"");
    return ++count <= 3 ? cut(answer, 11'000) : answer;
  });
  const auto result = download(server);
  ASSERT_TRUE(result.ok()) << result.status().message();
  EXPECT_EQ(file(), body);
  EXPECT_EQ(result->num_bytes_received, body.size()) << "nothing is fetched twice";
  const auto requests = server.requests();
  ASSERT_GE(requests.size(), 2u);
  EXPECT_EQ(requests[0].header("range"), "");
  EXPECT_EQ(requests[1].header("range"), "bytes=39000-");
  EXPECT_EQ(requests[1].header("if-range"), "\"v1\"");
}

TEST_F(DownloadTest, ManyCutsThatEachBringProgressAreNotTooMany) {
  const std::string body = content(40'000);
  ScriptedHttpServer server([&](const ScriptedRequest& request) {
    const std::string answer = good_answer(request, body, "\"v1\"");
    const size_t head = answer.find("\r\n\r\n") + 4;
    return answer.substr(0, head + 2000);
  });
  ASSERT_TRUE(download(server, body.size()).ok());
  EXPECT_EQ(file(), body);
  EXPECT_EQ(server.num_requests(), 20u);
}

TEST_F(DownloadTest, AServerThatIgnoresRangeSendsAllAgain) {
  const std::string body = content(30'000);
  std::atomic<int> count{0};
  ScriptedHttpServer server([&](const ScriptedRequest&) {
    const std::string answer = reply("200 OK", {"ETag: \"v1\""}, body);
    return ++count == 1 ? cut(answer, 10'000) : answer;
  });
  const auto result = download(server, body.size(), sha256(body));
  ASSERT_TRUE(result.ok()) << result.status().message();
  EXPECT_EQ(file(), body);
  EXPECT_EQ(result->num_bytes_received, 20'000u + 30'000u);
}

TEST_F(DownloadTest, AFileThatChangesBetweenTriesIsFetchedAnew) {
  const std::string first = content(30'000);
  const std::string second = std::string(20'000, 'z');
  std::atomic<int> count{0};
  ScriptedHttpServer server([&](const ScriptedRequest& request) {
    return ++count == 1 ? cut(good_answer(request, first, "\"v1\""), 10'000) : good_answer(request, second, "\"v2\"");
  });
  const auto result = download(server);
  ASSERT_TRUE(result.ok()) << result.status().message();
  EXPECT_EQ(file(), second);
}

TEST_F(DownloadTest, APartOfAnotherFileIsNotAppended) {
  const std::string first = content(30'000);
  const std::string second = std::string(30'000, 'z');
  std::atomic<int> count{0};
  ScriptedHttpServer server([&](const ScriptedRequest& request) {
    if (++count == 1) return cut(good_answer(request, first, "\"v1\""), 10'000);
    ScriptedRequest unconditional = request;
    unconditional.headers.erase("if-range");  // ignores the condition
    return good_answer(unconditional, second, "\"v2\"");
  });
  const auto result = download(server);
  ASSERT_TRUE(result.ok()) << result.status().message();
  EXPECT_EQ(file(), second);
  EXPECT_THAT(log_, HasSubstr("the file changed on the server"));
}

TEST_F(DownloadTest, AnotherRangeThanAskedForIsNotAppended) {
  const std::string body = content(30'000);
  std::atomic<int> count{0};
  ScriptedHttpServer server([&](const ScriptedRequest& request) {
    if (++count == 1) return cut(good_answer(request, body, "\"v1\""), 10'000);
    if (count == 2) return reply("206 Partial Content", {"ETag: \"v1\"", "Content-Range: bytes 0-29999/30000"}, body);
    return good_answer(request, body, "\"v1\"");
  });
  ASSERT_TRUE(download(server).ok());
  EXPECT_EQ(file(), body);
}

TEST_F(DownloadTest, WithoutEtagAndChecksumNothingIsContinued) {
  const std::string body = content(30'000);
  std::atomic<int> count{0};
  ScriptedHttpServer server([&](const ScriptedRequest&) {
    const std::string answer = reply("200 OK", {"ETag: W/\"weak\""}, body);
    return ++count == 1 ? cut(answer, 10'000) : answer;
  });
  ASSERT_TRUE(download(server).ok());
  EXPECT_EQ(file(), body);
  EXPECT_EQ(server.requests()[1].header("range"), "");
}

TEST_F(DownloadTest, ALengthThatIsNotTheListedOneIsRefused) {
  ScriptedHttpServer server([&](const ScriptedRequest&) { return reply("200 OK", {}, content(999)); });
  const auto result = download(server, 1000);
  ASSERT_FALSE(result.ok());
  EXPECT_THAT(result.status().message(),
              AllOf(HasSubstr("the server offers 999 bytes, expected 1000"), HasSubstr("gave up after 5 attempts")));
  EXPECT_EQ(file(), "(none)");
}

TEST_F(DownloadTest, AClaimOfMoreThanIsSentEndsInAnErrorAfterAFewTries) {
  const std::string body = content(500);
  ScriptedHttpServer server([&](const ScriptedRequest& request) {
    if (!request.header("range").empty()) return good_answer(request, body, "\"v1\"");  // 416
    return "HTTP/1.1 200 OK\r\nConnection: close\r\nETag: \"v1\"\r\nContent-Length: 1000\r\n\r\n" + body;
  });
  const auto result = download(server);
  ASSERT_FALSE(result.ok());
  EXPECT_LE(server.num_requests(), 12u);
  EXPECT_EQ(file(), "(none)");
}

TEST_F(DownloadTest, MoreThanExpectedIsNotWritten) {
  ScriptedHttpServer server([&](const ScriptedRequest&) {
    return "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + content(1'000'000);  // until the connection closes
  });
  const auto result = download(server, 1000);
  ASSERT_FALSE(result.ok());
  EXPECT_THAT(result.status().message(), HasSubstr("sends more than the 1000 bytes expected"));
  EXPECT_EQ(file(), "(none)");
  EXPECT_LE(partial().size(), 1000u);
}

TEST_F(DownloadTest, WrongChecksumIsTriedOnceMoreThenRefused) {
  const std::string body = content(1000);
  std::string wrong = body;
  wrong[500] ^= 1;
  std::atomic<int> count{0};
  std::atomic<int> num_wrong{100};
  ScriptedHttpServer server([&](const ScriptedRequest& request) {
    return good_answer(request, ++count <= num_wrong ? wrong : body, "\"v1\"");
  });
  auto result = download(server, body.size(), sha256(body));
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.status().code(), StatusCode::kDataLoss);
  EXPECT_THAT(result.status().message(), HasSubstr("expected " + sha256(body)));
  EXPECT_EQ(server.num_requests(), 2u);
  EXPECT_EQ(file(), "(none)");
  EXPECT_EQ(partial(), "") << "bad bytes are not continued";
  num_wrong = 3;
  result = download(server, body.size(), sha256(body));
  ASSERT_TRUE(result.ok()) << result.status().message();
  EXPECT_EQ(file(), body);
}

TEST_F(DownloadTest, RedirectsCarryTheTokenOnlyToItsHost) {
  const std::string body = content(5000);
  ScriptedHttpServer storage([&](const ScriptedRequest& request) { return good_answer(request, body, "\"s\""); });
  ScriptedHttpServer hub([&](const ScriptedRequest& request) {
    if (request.path.starts_with("/owner")) return reply("307 Temporary Redirect", {"Location: /moved/model.bin"}, "");
    return reply("302 Found",
                 {"Location: " + storage.url() + "/blob?signature=secret", "X-Linked-ETag: \"" + sha256(body) + "\"",
                  "X-Linked-Size: " + std::to_string(body.size())},
                 "Found");
  });
  options_.token = "hf_token";
  options_.token_origin = hub.url();
  const auto result = download(hub);
  ASSERT_TRUE(result.ok()) << result.status().message();
  EXPECT_EQ(file(), body);
  EXPECT_EQ(result->sha256, sha256(body)) << "named by the Hub before the redirect";
  ASSERT_EQ(hub.num_requests(), 2u);
  EXPECT_EQ(hub.requests()[0].header("authorization"), "Bearer hf_token");
  EXPECT_EQ(hub.requests()[1].header("authorization"), "Bearer hf_token") << "the same host";
  ASSERT_EQ(storage.num_requests(), 1u);
  EXPECT_EQ(storage.requests()[0].header("authorization"), "") << "another port is another host";
}

TEST_F(DownloadTest, ChecksumsOfStrangersAreNotTheHubs) {
  const std::string body = content(5000);
  // The storing host vouches for other bytes than the Hub named.
  ScriptedHttpServer storage([&](const ScriptedRequest&) {
    return reply("200 OK", {"X-Linked-ETag: \"" + sha256("forged") + "\""}, "forged");
  });
  ScriptedHttpServer hub([&](const ScriptedRequest&) {
    return reply("302 Found", {"Location: " + storage.url() + "/blob", "X-Linked-ETag: \"" + sha256(body) + "\""}, "");
  });
  options_.token_origin = hub.url();
  const auto result = download(hub);
  ASSERT_FALSE(result.ok());
  EXPECT_THAT(result.status().message(), HasSubstr("expected " + sha256(body)));
}

TEST_F(DownloadTest, RedirectsInACircleEnd) {
  ScriptedHttpServer server(
      [&](const ScriptedRequest& request) { return reply("302 Found", {"Location: " + request.path + "x"}, ""); });
  const auto result = download(server);
  ASSERT_FALSE(result.ok());
  EXPECT_THAT(result.status().message(), HasSubstr("more than 10 redirects"));
  EXPECT_EQ(server.num_requests(), 11u);
  EXPECT_TRUE(sleeps_.empty()) << "no retry";
}

TEST_F(DownloadTest, RedirectsToOtherProtocolsAreRefused) {
  for (const char* location : {"file:///etc/passwd", "ftp://127.0.0.1/x", "gopher://127.0.0.1/x"}) {
    ScriptedHttpServer server(
        [&](const ScriptedRequest&) { return reply("302 Found", {std::string("Location: ") + location}, ""); });
    EXPECT_THAT(download(server).status().message(), HasSubstr("is no http or https URL")) << location;
  }
}

TEST_F(DownloadTest, RateLimitsAreWaitedFor) {
  const std::string body = content(100);
  std::atomic<int> count{0};
  ScriptedHttpServer server([&](const ScriptedRequest& request) {
    ++count;
    if (count == 1) return reply("429 Too Many Requests", {"Retry-After: 7"}, "slow down");
    if (count == 2) return reply("503 Service Unavailable", {}, "");
    return good_answer(request, body, "\"v1\"");
  });
  ASSERT_TRUE(download(server).ok());
  EXPECT_EQ(file(), body);
  EXPECT_THAT(sleeps_, ElementsAre(7000, 1000)) << "what the server asks for; then the doubled backoff";
}

TEST_F(DownloadTest, ALongRetryAfterIsReportedNotWaitedFor) {
  ScriptedHttpServer server(
      [&](const ScriptedRequest&) { return reply("429 Too Many Requests", {"Retry-After: 86400"}, ""); });
  const auto result = download(server);
  ASSERT_FALSE(result.ok());
  EXPECT_THAT(result.status().message(), AllOf(HasSubstr("HTTP 429"), HasSubstr("come back in 86400 seconds")));
  EXPECT_TRUE(sleeps_.empty());
}

TEST_F(DownloadTest, ServersThatStayBrokenAreGivenUp) {
  ScriptedHttpServer server([&](const ScriptedRequest&) { return reply("500 Oops", {}, "<html>stack trace</html>"); });
  const auto result = download(server);
  ASSERT_FALSE(result.ok());
  EXPECT_THAT(result.status().message(), AllOf(HasSubstr("HTTP 500"), HasSubstr("gave up after 5 attempts")));
  EXPECT_THAT(sleeps_, ElementsAre(500, 1000, 2000, 4000));
}

TEST_F(DownloadTest, AnswersThatAreNoHttpAreGivenUp) {
  for (const char* answer : {"", "SSH-2.0-OpenSSH\r\n", "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
                             "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\nx"}) {
    ScriptedHttpServer server([&](const ScriptedRequest&) { return std::string(answer); });
    EXPECT_FALSE(download(server, 10).ok()) << answer;
    EXPECT_EQ(file(), "(none)");
  }
}

TEST_F(DownloadTest, HeadersWithoutEndAreGivenUp) {
  ScriptedHttpServer server([&](const ScriptedRequest&) {
    std::string answer = "HTTP/1.1 200 OK\r\n";
    for (int i = 0; i < 20'000; ++i) answer += "X-Header: " + std::string(100, 'x') + "\r\n";
    return answer;
  });
  EXPECT_FALSE(download(server, 10).ok());
}

TEST_F(DownloadTest, RefusalsSayWhatToDo) {
  std::string status = "404 Not Found";
  std::string message_header = "X-Nothing: 1";
  ScriptedHttpServer server([&](const ScriptedRequest&) { return reply(status, {message_header}, ""); });
  EXPECT_EQ(download(server).status().code(), StatusCode::kNotFound);
  EXPECT_THAT(download(server).status().message(),
              AllOf(HasSubstr("HTTP 404"), HasSubstr("check the spelling of owner/name")));
  status = "401 Unauthorized";
  EXPECT_THAT(download(server).status().message(), AllOf(HasSubstr("private or gated"), HasSubstr("set HF_TOKEN")));
  options_.token = "hf_token";
  options_.token_origin = server.url();
  EXPECT_THAT(download(server).status().message(), HasSubstr("The token in HF_TOKEN was refused"));
  status = "403 Forbidden";
  message_header = "X-Error-Message: Access to model owner/name is restricted \x1b[31m";
  EXPECT_THAT(download(server).status().message(),
              AllOf(HasSubstr("accept its terms"), HasSubstr("is restricted"), Not(HasSubstr("\x1b"))));
  EXPECT_TRUE(sleeps_.empty()) << "no use in retrying";
}

TEST_F(DownloadTest, SecretsStayOutOfMessages) {
  std::string status = "500 Oops";
  ScriptedHttpServer server([&](const ScriptedRequest&) { return reply(status, {}, ""); });
  options_.token = "hf_token";
  options_.token_origin = server.url();
  std::string messages = download(server).status().message();
  status = "403 Forbidden";
  messages += download(server).status().message() + log_;
  EXPECT_THAT(messages,
              AllOf(Not(HasSubstr("hf_token")), Not(HasSubstr("secret")), HasSubstr("/resolve/main/model.bin")));
  EXPECT_EQ(shown_url("https://user:pass@host/a?b=c#d"), "https://host/a");
  options_.token = "evil\r\nX-Injected: 1";
  EXPECT_THAT(download(server).status().message(), HasSubstr("the token (HF_TOKEN) holds"));
}

TEST_F(DownloadTest, CancellingKeepsWhatArrivedAndTheNextRunContinues) {
  const std::string body = content(30'000);
  std::atomic<int> count{0};
  std::atomic<bool> cancelled{false};
  ScriptedHttpServer server([&](const ScriptedRequest& request) {
    const std::string answer = good_answer(request, body, "\"v1\"");
    return ++count == 1 ? cut(answer, 10'000) : answer;
  });
  options_.cancelled = [&] { return cancelled.load(); };
  options_.sleep = [&](milliseconds) { cancelled = true; };
  EXPECT_EQ(download(server).status().code(), StatusCode::kCancelled);
  EXPECT_EQ(partial(), body.substr(0, 20'000));
  EXPECT_EQ(file(), "(none)");
  cancelled = false;
  const auto result = download(server);
  ASSERT_TRUE(result.ok()) << result.status().message();
  EXPECT_EQ(result->num_bytes_received, 10'000u);
  EXPECT_EQ(file(), body);
}

TEST_F(DownloadTest, BytesThatAllArrivedBeforeTheRenameAreNotFetchedAgain) {
  const std::string body = content(1000);
  ScriptedHttpServer server([&](const ScriptedRequest& request) { return good_answer(request, body, "\"v1\""); });
  scratch_.write("model.bin.incomplete", body);
  ASSERT_TRUE(download(server, body.size(), sha256(body)).ok());
  EXPECT_EQ(server.num_requests(), 0u);
  EXPECT_EQ(file(), body);
}

TEST_F(DownloadTest, APartialFileThatIsTooLongIsThrownAway) {
  const std::string body = content(1000);
  ScriptedHttpServer server([&](const ScriptedRequest& request) { return good_answer(request, body, "\"v1\""); });
  scratch_.write("model.bin.incomplete", body + "more");
  scratch_.write("model.bin.incomplete.etag", "\"v1\"");
  ASSERT_TRUE(download(server).ok()) << "416, then the whole file";
  EXPECT_EQ(file(), body);
}

TEST_F(DownloadTest, FilesLargerThanTheDiskAreRefusedAtOnce) {
  ScriptedHttpServer server([&](const ScriptedRequest&) {
    return "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1152921504606846976\r\n\r\nxxxx";
  });
  const auto result = download(server);
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.status().code(), StatusCode::kResourceExhausted);
  EXPECT_THAT(result.status().message(),
              AllOf(HasSubstr("1152921504606846976 bytes are still to come"), HasSubstr("SEXTANT_CACHE")));
}

TEST_F(DownloadTest, PartialFilesThatAreLinksAreNotFollowed) {
  const std::string victim = scratch_.write("victim", "precious");
  std::filesystem::create_symlink(victim, path() + ".incomplete");
  ScriptedHttpServer server([&](const ScriptedRequest& request) { return good_answer(request, "x", "\"v1\""); });
  EXPECT_FALSE(download(server).ok());
  EXPECT_EQ(*read_text_file(victim, 100), "precious");
}

TEST_F(DownloadTest, UnreachableServers) {
  std::string url;
  {
    ScriptedHttpServer closed([](const ScriptedRequest&) { return std::string(); });
    url = closed.url();
  }
  options_.max_attempts = 2;
  DownloadRequest request;
  request.url = url + "/x";
  request.path = path();
  const auto result = download_file(request, options_);
  EXPECT_EQ(result.status().code(), StatusCode::kUnavailable);
  EXPECT_THAT(result.status().message(), HasSubstr("gave up after 2 attempts"));
}

}  // namespace
}  // namespace sextant
