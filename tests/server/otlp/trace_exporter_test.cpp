#include "server/otlp/trace_exporter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "server/gateway/identity.h"

namespace sextant::otlp {
namespace {

using nlohmann::json;
using std::chrono::milliseconds;

constexpr int64_t kSecond = 1'000'000'000;

RequestTrace chat_trace() {
  RequestTrace trace;
  trace.context = http::trace_of(http::HttpRequest());
  trace.method = "POST";
  trace.route = "/v1/chat/completions";
  trace.client_address = "10.1.2.3";
  trace.request_id = "req-1";
  trace.status = 200;
  trace.start_unix_ns = 1'000 * kSecond;
  trace.end_unix_ns = 1'010 * kSecond;
  trace.model = "m";
  trace.finish_reason = "stop";
  trace.tenant = "shop";
  trace.prompt_tokens = 7;
  trace.completion_tokens = 5;
  trace.phases = {1'001 * kSecond, 1'003 * kSecond, 1'006 * kSecond, 1'009 * kSecond};
  return trace;
}

json spans_of(const std::vector<RequestTrace>& traces) {
  const json document = json::parse(render_spans(traces, {"sextant", "1.0", "i"}));
  EXPECT_EQ(document["resourceSpans"].size(), 1u);
  EXPECT_EQ(document["resourceSpans"][0]["scopeSpans"].size(), 1u);
  return document["resourceSpans"][0]["scopeSpans"][0]["spans"];
}

std::map<std::string, json> attributes_of(const json& span) {
  std::map<std::string, json> attributes;
  for (const json& one : span["attributes"]) {
    EXPECT_EQ(one["value"].size(), 1u);
    EXPECT_TRUE(attributes.emplace(one["key"], *one["value"].begin()).second) << one["key"] << " is there twice";
  }
  return attributes;
}

TEST(RequestTrace, ARequestAndItsPhases) {
  const RequestTrace trace = chat_trace();
  const json spans = spans_of({trace});
  ASSERT_EQ(spans.size(), 4u);
  EXPECT_EQ(num_spans(trace), 4u);
  EXPECT_EQ(spans[0]["name"], "POST /v1/chat/completions");
  EXPECT_EQ(spans[0]["kind"], 2);
  EXPECT_FALSE(spans[0].contains("parentSpanId"));
  EXPECT_FALSE(spans[0].contains("status"));
  EXPECT_EQ(spans[0]["startTimeUnixNano"], "1000000000000");
  const auto request = attributes_of(spans[0]);
  EXPECT_EQ(request.at("gen_ai.operation.name"), "chat");
  EXPECT_EQ(request.at("gen_ai.usage.input_tokens"), "7");
  EXPECT_EQ(request.at("gen_ai.usage.output_tokens"), "5");
  EXPECT_EQ(request.at("gen_ai.response.finish_reasons"), json::parse(R"({"values": [{"stringValue": "stop"}]})"));
  EXPECT_EQ(request.at("gen_ai.latency.time_in_queue"), 2.0);
  EXPECT_EQ(request.at("gen_ai.latency.time_to_first_token"), 6.0);
  EXPECT_EQ(request.at("sextant.tenant"), "shop");
  const char* const names[] = {"queue", "prefill", "decode"};
  std::set<std::string> ids = {spans[0]["spanId"]};
  for (size_t i = 0; i < 3; ++i) {
    const json& span = spans[i + 1];
    EXPECT_EQ(span["name"], names[i]);
    EXPECT_EQ(span["traceId"], spans[0]["traceId"]);
    EXPECT_EQ(span["parentSpanId"], spans[0]["spanId"]);
    if (i > 0) {
      EXPECT_EQ(span["startTimeUnixNano"], spans[i]["endTimeUnixNano"]);
    }
    ids.insert(span["spanId"]);
  }
  EXPECT_EQ(ids.size(), 4u);
}

TEST(RequestTrace, AsFarAsItCame) {
  RequestTrace trace = chat_trace();
  trace.phases = {1'001 * kSecond, 0, 0, 0};  // never left the queue
  trace.client_gone = true;
  json spans = spans_of({trace});
  ASSERT_EQ(spans.size(), 2u);
  EXPECT_EQ(spans[1]["endTimeUnixNano"], spans[0]["endTimeUnixNano"]);
  EXPECT_EQ(spans[0]["status"]["code"], 2);
  EXPECT_EQ(attributes_of(spans[0]).at("error.type"), "client_gone");
  trace.phases = {};
  EXPECT_EQ(spans_of({trace}).size(), 1u);
  trace.phases = {1'001 * kSecond, 1'002 * kSecond, 1'003 * kSecond, 1'003 * kSecond};  // one token
  EXPECT_EQ(spans_of({trace}).size(), 3u);
  // Bytes of a client that are not UTF-8 stay inside their text.
  trace.method = "G\xff\"T";
  trace.model.clear();
  EXPECT_EQ(attributes_of(spans_of({trace})[0]).at("http.request.method"), "G\xef\xbf\xbd\"T");
}

struct Collector {
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<size_t> posts;  // requests in each
  std::function<Result<std::pair<int, std::string>>()> answer = [] { return std::pair<int, std::string>(200, "{}"); };
  std::function<Result<std::pair<int, std::string>>(const std::string&)> poster() {
    return [this](const std::string& body) -> Result<std::pair<int, std::string>> {
      size_t num_requests = 0;
      const json document = json::parse(body);
      for (const json& span : document["resourceSpans"][0]["scopeSpans"][0]["spans"])
        num_requests += span["kind"] == 2 ? 1 : 0;
      const std::unique_lock lock(mutex);
      posts.push_back(num_requests);
      changed.notify_all();
      return answer();
    };
  }
  void wait_posts(size_t num) {
    std::unique_lock lock(mutex);
    ASSERT_TRUE(changed.wait_for(lock, std::chrono::seconds(60), [&] { return posts.size() >= num; }));
  }
};

TraceExporter::Options options_for(Collector& collector) {
  TraceExporter::Options options;
  options.url = "http://collector/";
  options.queue_capacity = 10;
  options.batch_size = 4;
  options.batch_delay = milliseconds(1);
  options.first_retry = milliseconds(1);
  options.flush_time = milliseconds(60'000);
  options.post = collector.poster();
  return options;
}

TEST(TraceExporter, SendsAllInBatchesAndTheRestAtTheEnd) {
  Collector collector;
  uint64_t num_exported = 0;
  {
    TraceExporter::Options options = options_for(collector);
    options.queue_capacity = 100;
    options.batch_delay = milliseconds(600'000);
    TraceExporter exporter(std::move(options));
    for (int i = 0; i < 4; ++i) exporter.add(chat_trace());
    collector.wait_posts(1);  // full: sent at once
    for (int i = 0; i < 3; ++i) exporter.add(chat_trace());
    num_exported = exporter.stats().num_dropped;
  }
  EXPECT_EQ(num_exported, 0u);
  EXPECT_EQ(collector.posts, (std::vector<size_t>{4, 3}));
}

TEST(TraceExporter, KeepsWhatFitsWhileTheCollectorIsAwayAndCountsTheRest) {
  Collector collector;
  std::atomic<bool> is_up{false};
  collector.answer = [&]() -> Result<std::pair<int, std::string>> {
    if (!is_up) return unavailable("nobody is there");
    return std::pair<int, std::string>(200, "");
  };
  TraceExporter exporter(options_for(collector));
  exporter.add(chat_trace());
  collector.wait_posts(2);
  for (int i = 0; i < 30; ++i) exporter.add(chat_trace());
  EXPECT_EQ(exporter.stats().num_dropped, 4u * 21);  // ten fit
  EXPECT_FALSE(exporter.stats().is_up);
  is_up = true;
  while (exporter.stats().num_exported < 4u * 10) std::this_thread::sleep_for(milliseconds(1));
  EXPECT_TRUE(exporter.stats().is_up);
  EXPECT_EQ(exporter.stats().num_dropped, 4u * 21);
}

TEST(TraceExporter, WhatTheCollectorWillNeverTakeIsDropped) {
  struct Case {
    int status;
    std::string answer;
    uint64_t num_rejected;
  };
  const std::vector<Case> cases = {{400, "", 4},
                                   {413, "", 4},
                                   {301, "", 4},
                                   {200, R"({"partialSuccess": {"rejectedSpans": "3", "errorMessage": "no"}})", 3},
                                   {200, R"({"partialSuccess": {"rejectedSpans": 9}})", 4},
                                   {200, "nonsense", 0},
                                   {202, R"({"partialSuccess": 5})", 0}};
  for (const Case& one : cases) {
    Collector collector;
    collector.answer = [&] { return std::pair<int, std::string>(one.status, one.answer); };
    TraceExporter exporter(options_for(collector));
    exporter.add(chat_trace());
    while (exporter.stats().num_exported + exporter.stats().num_dropped < 4)
      std::this_thread::sleep_for(milliseconds(1));
    EXPECT_EQ(exporter.stats().num_dropped, one.num_rejected) << one.status << one.answer;
    EXPECT_EQ(exporter.stats().num_exported, 4 - one.num_rejected) << one.status << one.answer;
  }
}

TEST(TraceExporter, TheEndDoesNotWaitForACollectorThatIsAway) {
  for (const int status : {0, 503}) {
    Collector collector;
    collector.answer = [&]() -> Result<std::pair<int, std::string>> {
      if (status == 0) return unavailable("nobody is there");
      return std::pair<int, std::string>(status, "");
    };
    TraceExporter::Options options = options_for(collector);
    options.first_retry = milliseconds(600'000);
    auto exporter = std::make_unique<TraceExporter>(std::move(options));
    for (int i = 0; i < 30; ++i) exporter->add(chat_trace());
    exporter.reset();  // hangs if it does
    EXPECT_GE(collector.posts.size(), 1u);
  }
}

TEST(TraceExporter, ManyThreadsLoseNothing) {
  Collector collector;
  TraceExporter::Options options = options_for(collector);
  options.queue_capacity = 50;
  constexpr uint64_t kThreads = 4, kEach = 200;
  uint64_t num_dropped = 0;
  {
    TraceExporter exporter(std::move(options));
    std::vector<std::thread> threads;
    for (uint64_t t = 0; t < kThreads; ++t)
      threads.emplace_back([&] {
        for (uint64_t i = 0; i < kEach; ++i) exporter.add(chat_trace());
      });
    for (std::thread& thread : threads) thread.join();
    num_dropped = exporter.stats().num_dropped;
  }
  uint64_t num_posted = 0;
  for (const size_t num : collector.posts) num_posted += num;
  EXPECT_EQ(num_posted * 4 + num_dropped, kThreads * kEach * 4);
}

TEST(TracesUrl, IsTakenAsItIsOrGetsOtlpsPath) {
  EXPECT_EQ(*traces_url("http://collector:4318"), "http://collector:4318/v1/traces");
  EXPECT_EQ(*traces_url("http://collector:4318/"), "http://collector:4318/v1/traces");
  EXPECT_EQ(*traces_url("https://c/otlp/v1/traces"), "https://c/otlp/v1/traces");
  for (const char* wrong : {"", "collector:4317", "grpc://c:4317", "http://", "http://user:word@c/", "ftp://c/"})
    EXPECT_FALSE(traces_url(wrong).ok()) << wrong;
}

TEST(ExporterHeaders, AreThoseOfOpenTelemetry) {
  using Headers = std::vector<std::pair<std::string, std::string>>;
  EXPECT_EQ(*parse_headers(""), Headers());
  EXPECT_EQ(*parse_headers("api-key=a%20b, x=1,"), (Headers{{"api-key", "a b"}, {"x", "1"}}));
  EXPECT_EQ(*parse_headers("authorization=Basic%20YTpi=="), (Headers{{"authorization", "Basic YTpi=="}}));
  for (const char* wrong : {"a", "=b", "a b=c", "a=b%0d%0aEvil: x", "a:=b"})
    EXPECT_FALSE(parse_headers(wrong).ok()) << wrong;
  EXPECT_EQ(parse_headers("se cret=hidden").status().message().find("hidden"), std::string::npos);
}

}  // namespace
}  // namespace sextant::otlp
