// The client's readers however bytes are cut, and what outcomes come to.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <cmath>
#include <random>

#include "bench/client/chunk_scanner.h"
#include "bench/client/endpoint.h"
#include "bench/client/stream_reader.h"
#include "bench/load/random.h"
#include "bench/prompts/prompt_set.h"
#include "bench/prompts/trace.h"
#include "bench/report/compare.h"
#include "bench/report/html_report.h"
#include "bench/report/text_report.h"
#include "bench/run/goals.h"
#include "bench/run/measurement.h"
#include "tests/support/byte_tokenizer.h"
#include "tests/support/scratch_directory.h"

namespace sextant::bench {
namespace {

using ::testing::HasSubstr;

std::string chunked(const std::string& data) {
  char size[16];
  std::snprintf(size, sizeof size, "%zx\r\n", data.size());
  return size + data + "\r\n";
}

const std::string kHead =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n";

std::string whole_answer() {
  return kHead +
         chunked(
             ": hello\n\ndata: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n") +
         chunked("data: {\"choices\":[{\"delta\":{\"content\":\"a\\\"\\u00e9\"},\"finish_reason\":null}]}\n\n") +
         chunked("data: {\"choices\":[{\"delta\":{\"content\":\"b\"}}]}\r\n\r\n") +
         chunked("event: x\ndata: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n") +
         chunked(
             "data: "
             "{\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":3,\"prompt_tokens_details\":{"
             "\"cached_tokens\":4}}}\n\n"
             "data: [DONE]\n\n") +
         "0\r\nX-Trailer: 1\r\n\r\n";
}

RequestOutcome read_in(const std::vector<std::string>& pieces, bool close = false) {
  StreamReader reader(true);
  RequestOutcome outcome;
  reader.begin(&outcome);
  int64_t now = 1000;
  for (const std::string& piece : pieces) {
    if (!reader.append(piece, now)) break;
    now += 1000;
  }
  if (close) reader.close(now);
  reader.finish(now);
  return outcome;
}

TEST(StreamReader, SameHoweverTheBytesAreCut) {
  const std::string bytes = whole_answer();
  std::mt19937 random(1);
  for (int round = 0; round < 300; ++round) {
    std::vector<std::string> pieces;
    for (size_t at = 0; at < bytes.size();) {
      const size_t n = round == 0 ? 1 : 1 + random() % (round % 2 == 0 ? 5 : 200);
      pieces.push_back(bytes.substr(at, n));
      at += n;
    }
    const RequestOutcome outcome = read_in(pieces);
    ASSERT_EQ(outcome.kind, OutcomeKind::kFinished) << outcome.message;
    ASSERT_EQ(outcome.num_events, 2);
    ASSERT_EQ(outcome.gaps_ms.size(), 1u);
    ASSERT_EQ(outcome.text, "a\\\"\\u00e9b");
    ASSERT_EQ(outcome.usage_prompt_tokens, 7);
    ASSERT_EQ(outcome.usage_completion_tokens, 3);
    ASSERT_EQ(outcome.usage_cached_tokens, 4);
    ASSERT_EQ(outcome.finish_reason, "stop");
    ASSERT_TRUE(outcome.saw_done);
    ASSERT_LE(outcome.first_ns, outcome.last_ns);
    ASSERT_LE(outcome.last_ns, outcome.end_ns);
  }
}

TEST(StreamReader, EachFaultHasItsName) {
  const std::string event = chunked("data: {\"choices\":[{\"text\":\"a\"}]}\n\n");
  const struct {
    std::string bytes;
    OutcomeKind kind;
    const char* message;
  } cases[] = {
      {"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}", OutcomeKind::kNotStreamed,
       "does not stream"},
      {"HTTP/1.1 404 Not Found\r\nContent-Length: 55\r\n\r\n{\"error\":{\"message\":\"no model\\n "
       "`x`\",\"code\":\"nothing\"}}",
       OutcomeKind::kHttpStatus, "HTTP 404: no model  `x`"},
      {"HTTP/1.1 500 Oops\r\nContent-Length: 4\r\n\r\nboom", OutcomeKind::kHttpStatus, "HTTP 500: boom"},
      {"220 mail ESMTP\r\n\r\n", OutcomeKind::kMalformed, "not HTTP"},
      {"HTTP/1.1 abc OK\r\n\r\n", OutcomeKind::kMalformed, "status"},
      {kHead + "zz\r\n", OutcomeKind::kMalformed, "chunk"},
      {kHead + "fffffffffffffffff\r\n", OutcomeKind::kMalformed, "absurd"},
      {kHead + "2\r\nabc\r\n", OutcomeKind::kMalformed, "longer than it said"},
      {kHead + chunked("data: {\"choices\": [\n\n"), OutcomeKind::kMalformed, "not a JSON object"},
      {kHead + chunked("data: hello\n\n"), OutcomeKind::kMalformed, "hello"},
      {kHead + event + chunked("data: {\"error\":{\"message\":\"out of memory\"}}\n\n") + "0\r\n\r\n",
       OutcomeKind::kStreamError, "out of memory"},
      {kHead + event, OutcomeKind::kCutShort, "middle of the answer"},
      {kHead + event + "0\r\n\r\n", OutcomeKind::kCutShort, "without [DONE]"},
      {kHead + chunked("data: [DONE]\n\n") + "0\r\n\r\n", OutcomeKind::kEmpty, "no token"},
      {"", OutcomeKind::kCutShort, "without an answer"},
      {"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n", OutcomeKind::kMalformed, "Content-Length"},
      {"HTTP/1.1 204 No Content\r\n\r\nextra", OutcomeKind::kMalformed, "after the end"},
      {"HTTP/1.1 200 OK\r\nA: " + std::string(70000, 'x'), OutcomeKind::kMalformed, "64 KiB"},
  };
  for (const auto& c : cases) {
    const RequestOutcome outcome = read_in({c.bytes}, true);
    EXPECT_EQ(outcome.kind, c.kind) << c.bytes.substr(0, 80) << ": " << outcome.message;
    EXPECT_THAT(outcome.message, HasSubstr(c.message));
  }
  // HTTP/1.0 style: the body lasts until the connection closes; an interim answer comes first.
  const RequestOutcome old =
      read_in({"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
               "data: {\"choices\":[{\"text\":\"a\",\"token_ids\":[1,2]}]}\n\ndata: [DONE]\n\n"},
              true);
  EXPECT_EQ(old.kind, OutcomeKind::kFinished) << old.message;
  EXPECT_EQ(old.token_ids, 2);
}

TEST(ChunkScanner, AgreesWithAFullParserOnDamagedInput) {
  const std::string chunk =
      R"({"id":"x","choices":[{"index":0,"text":" \u0041b","token_ids":[1, 22,3],"logprobs":{"a":[{"b":[]}]},"finish_reason":"stop"}],)"
      R"("usage":{"prompt_tokens":5,"completion_tokens":3},"error":null})";
  ChunkFacts facts;
  ASSERT_TRUE(scan_chunk(chunk, &facts));
  EXPECT_EQ(facts.text, " \\u0041b");
  EXPECT_EQ(facts.num_token_ids, 3);
  EXPECT_EQ(facts.finish_reason, "stop");
  EXPECT_EQ(facts.prompt_tokens, 5);
  EXPECT_TRUE(facts.error.empty());
  // What a full parser takes the scanner takes; what the scanner refuses is no JSON. (It is laxer about numbers and escapes.)
  std::mt19937 random(2);
  for (int round = 0; round < 20000; ++round) {
    std::string damaged = chunk;
    for (int i = 0; i < 1 + round % 3; ++i) {
      const size_t at = random() % damaged.size();
      switch (random() % 3) {
        case 0: damaged.erase(at, 1 + random() % 4); break;
        case 1: damaged.insert(at, 1, "{}[]\",:\\0ax\x01"[random() % 12]); break;
        default: damaged[at] = static_cast<char>(random() % 256);
      }
      if (damaged.empty()) damaged = "{";
    }
    const nlohmann::json parsed = nlohmann::json::parse(damaged, nullptr, false);
    if (parsed.is_object()) {
      EXPECT_TRUE(scan_chunk(damaged, &facts)) << damaged;
    }
  }
  for (const char* bad :
       {"", "[]", "{", "{\"a\"", "{\"a\":}", "{\"a\":1,}", "{} {}", "{\"a\":tru}", "\"x\"", "{'a':1}"}) {
    EXPECT_FALSE(scan_chunk(bad, &facts)) << bad;
  }
  EXPECT_FALSE(scan_chunk(std::string(100000, '[') + "1", &facts));
  std::string deep = "{\"a\":" + std::string(1000, '[') + std::string(1000, ']') + "}";
  EXPECT_FALSE(scan_chunk(deep, &facts));
}

TEST(Endpoint, TakesUrlsAsPeopleWriteThem) {
  EXPECT_EQ(parse_url("127.0.0.1:8000")->base_url(), "http://127.0.0.1:8000");
  EXPECT_EQ(parse_url("http://h/v1/")->base_url(), "http://h");
  EXPECT_EQ(parse_url("https://h:8443/a/b/v1")->base_url(), "https://h:8443/a/b");
  EXPECT_EQ(parse_url("http://[::1]:80")->host_header(), "[::1]");
  for (const char* bad : {"", "ftp://h", "http://", "http://h:", "http://h:0", "http://h:99999", "http://h:8x",
                          "http://u@h", "http://h?x=1", "http://h h", "http://[::1", "http://h\r\nX: y"}) {
    EXPECT_FALSE(parse_url(bad).ok()) << bad;
  }
}

TEST(Goals, ParseAndRefuse) {
  const auto slo = parse_slo("ttft:p95<300ms tpot:p99.9<50 e2e:mean<=2s");
  ASSERT_TRUE(slo.ok()) << slo.status().message();
  EXPECT_EQ((*slo)[0].text(), "ttft:p95<300ms");
  EXPECT_DOUBLE_EQ(*(*slo)[1].quantile, 0.999);
  EXPECT_EQ((*slo)[2].limit_ms, 2000);
  EXPECT_FALSE((*slo)[2].quantile.has_value());
  for (const char* bad : {"ttft", "ttft<3", "ttft:p<3", "ttft:p100<3", "ttft:p0<3", "x:p50<3", "ttft:p50<0",
                          "ttft:p50<x", "ttft:p50x<3"}) {
    EXPECT_FALSE(parse_slo(bad).ok()) << bad;
  }
  EXPECT_EQ(parse_goodput("ttft:300 e2el:2s")->size(), 2u);
  EXPECT_FALSE(parse_goodput("itl:5").ok());
  EXPECT_FALSE(parse_goodput("ttft:-5").ok());
}

// A run of made-up outcomes: n requests of `tokens` tokens each, at `gap_ms`.
struct MadeRun {
  ClientRun run;
  std::vector<PreparedRequest> requests;
};
MadeRun make_run(size_t n, int tokens, double ttft_ms, double gap_ms, double every_ms) {
  MadeRun made;
  made.requests.resize(n);
  made.run.begin_ns = 5'000'000'000;
  for (size_t i = 0; i < n; ++i) {
    RequestOutcome o;
    o.kind = OutcomeKind::kFinished;
    o.scheduled_ns = o.ready_ns = o.begin_ns = o.send_ns =
        made.run.begin_ns + static_cast<int64_t>(static_cast<double>(i) * every_ms * 1e6);
    o.first_ns = o.send_ns + static_cast<int64_t>(ttft_ms * 1e6);
    o.last_ns = o.end_ns = o.first_ns + static_cast<int64_t>((tokens - 1) * gap_ms * 1e6);
    o.num_events = tokens;
    o.gaps_ms.assign(static_cast<size_t>(tokens - 1), static_cast<float>(gap_ms));
    o.usage_prompt_tokens = 10;
    o.usage_completion_tokens = tokens;
    made.run.outcomes.push_back(o);
  }
  made.run.end_ns = made.run.outcomes.back().end_ns;
  return made;
}

TEST(Measurement, FormulasAreWhatTheySay) {
  MadeRun made = make_run(100, 11, 50, 10, 20);
  MeasureOptions options;
  options.load = LoadKind::kConstant;
  options.goodput = *parse_goodput("ttft:60 tpot:9");
  const Measurement m = measure(made.run, made.requests, {}, options);
  EXPECT_NEAR(m.ttft.mean_ms, 50, 1e-6);
  EXPECT_NEAR(m.tpot.mean_ms, 10, 1e-6);
  EXPECT_NEAR(m.e2e.mean_ms, 150, 1e-6);
  EXPECT_NEAR(m.normalized_tpot.mean_ms, 150.0 / 11, 1e-6);
  EXPECT_EQ(m.itl.sorted_ms.size(), 1000u);
  EXPECT_NEAR(m.window_s(), 99 * 0.02 + 0.15, 1e-9);
  EXPECT_NEAR(m.request_rps, 100 / m.window_s(), 1e-9);
  EXPECT_NEAR(m.output_tokens_per_s, 1100 / m.window_s(), 1e-6);
  EXPECT_NEAR(m.input_tokens_per_s, 1000 / m.window_s(), 1e-6);
  EXPECT_EQ(*m.num_good, 0);
  EXPECT_EQ(m.tokens_counted_by, "usage");
  EXPECT_NEAR(*m.validity.achieved_ratio, 1, 1e-9);
  EXPECT_FALSE(*m.validity.over_saturated);
  EXPECT_TRUE(m.valid);
  EXPECT_FALSE(m.ttft.at(0.95).has_value()) << "100 samples have 5 beyond p95";
  EXPECT_TRUE(m.ttft.at(0.9).has_value());
  EXPECT_FALSE(m.gpu_utilization_pct.has_value());
  EXPECT_FALSE(m.queue_mean_ms.has_value());
}

TEST(Measurement, FewRequestsDecideAGoalWhereTheirCountDoes) {
  Measurement m;
  const auto with = [&](size_t good, size_t bad) {
    m.ttft.sorted_ms.assign(good, 100.0);
    m.ttft.sorted_ms.insert(m.ttft.sorted_ms.end(), bad, 500.0);
    return goal_met(m, {Latency::kTtft, 0.95, 300.0});
  };
  EXPECT_EQ(with(0, 0), std::nullopt);
  EXPECT_EQ(with(58, 0), std::nullopt);  // 0.95^58 = 5.1%
  EXPECT_EQ(with(59, 0), true);          // 0.95^59 = 4.85%
  EXPECT_EQ(with(59, 1), std::nullopt);
  EXPECT_EQ(with(91, 1), std::nullopt);  // at most one of 92: 5.2%
  EXPECT_EQ(with(92, 1), true);          // at most one of 93: 4.998%
  EXPECT_EQ(with(20, 1), std::nullopt);
  EXPECT_EQ(with(5, 2), false);     // two or more of 7: 4.4%
  EXPECT_EQ(with(180, 20), false);  // enough for the percentile itself
  EXPECT_EQ(with(200, 1), true);
}

TEST(Measurement, ConservesAndIsCausal) {
  std::mt19937 random(3);
  for (int round = 0; round < 200; ++round) {
    MadeRun made =
        make_run(1 + random() % 60, 1 + static_cast<int>(random() % 20), 1 + random() % 100, 0.5, random() % 30);
    for (RequestOutcome& o : made.run.outcomes) {
      switch (random() % 6) {
        case 0: o.kind = OutcomeKind::kNotSent; break;
        case 1: o.kind = OutcomeKind::kInterrupted; break;
        case 2: o.kind = OutcomeKind::kCutShort; break;
        case 3: o.kind = OutcomeKind::kConnect, o.send_ns = o.first_ns = 0, o.num_events = 0, o.gaps_ms.clear(); break;
        default: break;
      }
    }
    MeasureOptions options;
    options.load = round % 2 == 0 ? LoadKind::kPoisson : LoadKind::kConcurrency;
    options.warmup_s = round % 3 == 0 ? 0.1 : 0;
    options.cooldown_s = round % 5 == 0 ? 0.1 : 0;
    const Measurement m = measure(made.run, made.requests, {}, options);
    size_t not_sent = 0, failures = 0;
    for (const RequestOutcome& o : made.run.outcomes) not_sent += o.kind == OutcomeKind::kNotSent;
    for (const auto& [name, count] : m.errors) failures += count;
    ASSERT_EQ(m.num_planned, made.run.outcomes.size());
    ASSERT_EQ(m.num_sent, m.num_finished + m.num_failed + m.num_interrupted);
    ASSERT_EQ(m.num_planned, m.num_sent + not_sent);
    ASSERT_EQ(m.num_measured, m.ttft.sorted_ms.size() + failures);
    ASSERT_EQ(m.rows.size(), m.num_planned);
    for (const RequestRow& row : m.rows) {
      if (row.kind != OutcomeKind::kFinished) continue;
      ASSERT_GE(row.ttft_ms, 0);
      ASSERT_GE(row.e2e_ms, row.ttft_ms);
      ASSERT_GE(row.e2e_scheduled_ms, row.e2e_ms - 1e-6);
    }
    // Everything that was counted once is in the timeline once.
    double finished = 0;
    for (const double rate : m.timeline.finished_rps) finished += rate * m.timeline.bin_s;
    ASSERT_NEAR(finished, static_cast<double>(m.num_finished), 1e-6);
  }
}

// A server of one place (M/D/1): with 80% load its queue stays, with 125% it grows by a fifth of what comes.
TEST(Measurement, OverSaturationIsTheGrowthOfTheQueue) {
  for (const auto& [load, expected] : {std::pair<double, bool>{0.8, false}, {1.25, true}, {2.0, true}, {0.5, false}}) {
    const auto times = arrival_times({constant_rate(100 * load), 1, 5}, 2000, INFINITY);
    MadeRun made = make_run(times.size(), 5, 10, 1, 0);
    int64_t free_ns = 0;
    for (size_t i = 0; i < times.size(); ++i) {
      RequestOutcome& o = made.run.outcomes[i];
      o.scheduled_ns = o.ready_ns = o.begin_ns = o.send_ns = made.run.begin_ns + times[i];
      o.first_ns = std::max(free_ns, o.send_ns) + 10'000'000;
      free_ns = o.first_ns;
      o.last_ns = o.end_ns = o.first_ns + 4'000'000;
    }
    MeasureOptions options;
    options.load = LoadKind::kPoisson;
    const Measurement m = measure(made.run, made.requests, {}, options);
    EXPECT_EQ(*m.validity.over_saturated, expected) << load;
  }
}

TEST(Measurement, LateClientsAreInvalid) {
  MadeRun made = make_run(200, 5, 10, 1, 10);
  for (size_t i = 0; i < 200; i += 20) made.run.outcomes[i].begin_ns += 20'000'000;
  MeasureOptions options;
  options.load = LoadKind::kConstant;
  EXPECT_FALSE(measure(made.run, made.requests, {}, options).valid);
  made = make_run(200, 5, 10, 1, 10);
  for (size_t i = 0; i < 200; ++i) {  // a cap holds requests back: 10% slower than asked for
    RequestOutcome& o = made.run.outcomes[i];
    o.ready_ns = o.begin_ns = o.send_ns = o.scheduled_ns + static_cast<int64_t>(i) * 1'100'000;
  }
  const Measurement m = measure(made.run, made.requests, {}, options);
  EXPECT_FALSE(m.valid);
  EXPECT_LT(*m.validity.achieved_ratio, 0.95);
  EXPECT_LT(*m.validity.send_lag_p99_ms, 1);
}

TEST(Prompts, AreExactAndTheSameForTheSameSeed) {
  const testing_support::ByteTokenizer tokenizer;
  PromptOptions options;
  options.model = "m";
  options.num_requests = 20;
  options.input = *parse_lengths("uniform:30,60", "x");
  options.output = *parse_lengths("8", "x");
  options.seed = 9;
  const auto words = make_prompts(options, nullptr);
  ASSERT_TRUE(words.ok());
  const auto again = make_prompts(options, nullptr);
  options.seed = 10;
  const auto other = make_prompts(options, nullptr);
  for (size_t i = 0; i < 20; ++i) {
    EXPECT_EQ(words->requests[i].body, again->requests[i].body);
    EXPECT_NE(words->requests[i].body, other->requests[i].body);
    EXPECT_NE(words->requests[i].body, words->requests[(i + 1) % 20].body);
  }
  EXPECT_THAT(words->warnings, ::testing::Contains(HasSubstr("no --tokenizer")));
  // A tokenizer without whole words cannot give exact lengths, and says so.
  EXPECT_FALSE(make_prompts(options, &tokenizer).ok());
}

TEST(Prompts, ConversationsCarryWhatWasSaid) {
  PromptOptions options;
  options.model = "m";
  options.num_requests = 7;
  options.num_turns = 3;
  options.chat = true;
  options.input = *parse_lengths("5", "x");
  options.output = *parse_lengths("4", "x");
  const auto prompts = make_prompts(options, nullptr);
  ASSERT_TRUE(prompts.ok());
  ASSERT_EQ(prompts->requests.size(), 7u);
  nlohmann::json before;
  for (size_t i = 0; i < 7; ++i) {
    const nlohmann::json messages = nlohmann::json::parse(prompts->requests[i].body)["messages"];
    EXPECT_EQ(messages.size(), 2 * (i % 3) + 1);
    EXPECT_EQ(prompts->requests[i].after.has_value(), i % 3 != 0);
    if (i % 3 != 0) {
      EXPECT_EQ(*prompts->requests[i].after, i - 1);
      for (size_t k = 0; k < before.size(); ++k) EXPECT_EQ(messages[k], before[k]);
    }
    before = messages;
  }
}

TEST(Prompts, FilesThatAreNotWhatTheyShouldBe) {
  ScratchDirectory scratch;
  PromptOptions options;
  options.num_requests = 2;
  options.output = *parse_lengths("4", "x");
  const auto attempt = [&](Dataset dataset, const std::string& content) {
    options.dataset = dataset;
    options.dataset_path = scratch.write("data", content);
    return make_prompts(options, nullptr);
  };
  for (const Dataset dataset : {Dataset::kShareGpt, Dataset::kCustom, Dataset::kMooncake, Dataset::kBurstGpt}) {
    for (const char* content :
         {"", "{", "[]", "[1]", "\xff", "{\"prompt\":1}\n", "{\"timestamp\":-1,\"input_length\":\"x\"}", "a,b\n1,2\n",
          "Timestamp,Request tokens,Response tokens\n1,x,3\n"}) {
      EXPECT_FALSE(attempt(dataset, content).ok()) << static_cast<int>(dataset) << " " << content;
    }
  }
  const auto mooncake = attempt(Dataset::kMooncake,
                                "{\"timestamp\":3000,\"input_length\":600,\"output_length\":5,\"hash_ids\":[1,2]}\n"
                                "{\"timestamp\":1000,\"input_length\":700,\"output_length\":6,\"hash_ids\":[1,3]}\n");
  ASSERT_TRUE(mooncake.ok()) << mooncake.status().message();
  EXPECT_EQ(*mooncake->requests[0].trace_time_s, 0);
  EXPECT_EQ(*mooncake->requests[1].trace_time_s, 2);
  const auto prompt = [&](size_t i) {
    return nlohmann::json::parse(mooncake->requests[i].body)["prompt"].get<std::string>();
  };
  EXPECT_EQ(prompt(0).substr(0, 2000), prompt(1).substr(0, 2000)) << "equal hash ids are equal text";
  const auto burst = attempt(Dataset::kBurstGpt,
                             "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\r\n"
                             "5,ChatGPT,472,18,490,Conversation log\r\n6,ChatGPT,10,0,10,x\r\n9.5,GPT-4,20,7,27,x\r\n");
  ASSERT_TRUE(burst.ok()) << burst.status().message();
  ASSERT_EQ(burst->requests.size(), 2u) << "a row without an answer is left out";
  EXPECT_EQ(*burst->requests[1].trace_time_s, 4.5);
  EXPECT_EQ(burst->requests[1].output_tokens, 7);
  const auto sharegpt = attempt(Dataset::kShareGpt,
                                "[{\"conversations\":[{\"from\":\"human\",\"value\":\"one two three four "
                                "five\"},{\"from\":\"gpt\",\"value\":\"a b "
                                "c d e f\"}]},{\"conversations\":[]},{\"x\":1}]");
  ASSERT_TRUE(sharegpt.ok()) << sharegpt.status().message();
  EXPECT_EQ(sharegpt->requests.size(), 2u);
}

TEST(Reports, ComparisonSeesDifferencesAndOnlyThose) {
  Random random(8);
  const auto make = [&](double factor) {
    LoadedPoint point;
    for (int i = 0; i < 400; ++i) point.samples["ttft"].push_back(100 * factor + 10 * random.normal());
    for (int i = 0; i < 10; ++i) point.batches["request_rps"].push_back(50 / factor + random.normal());
    point.values["request_rps"] = 50 / factor;
    return point;
  };
  for (const Comparison& row : compare_points(make(1), make(1))) EXPECT_FALSE(row.significant) << row.metric;
  int num_worse = 0;
  for (const Comparison& row : compare_points(make(1), make(1.2))) num_worse += row.is_worse();
  EXPECT_EQ(num_worse, 3) << "ttft p50 and p95, and the rate";
  for (const Comparison& row : compare_points(make(1), make(0.8)))
    EXPECT_TRUE(row.significant && !row.is_worse()) << row.metric;
}

TEST(Reports, HtmlEscapesAndStandsAlone) {
  MadeRun made = make_run(50, 5, 50, 10, 20);
  MeasureOptions options;
  BenchResult result;
  result.url = "http://h";
  result.model = "<script>alert(1)</script>";
  BenchPoint point;
  point.label = "a & b";
  point.timestamp = "2026-01-31T12:00:00Z";
  point.measurement = measure(made.run, made.requests, {}, options);
  result.points = {point};
  const std::string html = html_report(result_json(result, {}));
  EXPECT_EQ(html.find("<script"), std::string::npos);
  EXPECT_EQ(html.find("http://www"), std::string::npos);
  EXPECT_EQ(html.find("src="), std::string::npos);
  EXPECT_EQ(html.find("nan"), std::string::npos);
  EXPECT_THAT(html, HasSubstr("&lt;script&gt;"));
  EXPECT_THAT(html, HasSubstr("n too small"));
  EXPECT_THAT(html, HasSubstr("<svg"));
  // A kept result gives the same page.
  EXPECT_EQ(html_report(nlohmann::ordered_json::parse(result_json(result, {}).dump())), html);
}

}  // namespace
}  // namespace sextant::bench
