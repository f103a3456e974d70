// The running of a generation: exactly one answer whatever happens, stop strings, disconnects, back-pressure,
// errors.
#include "server/openai/generation.h"

#include <gtest/gtest.h>
#include <functional>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "server/metrics.h"
#include "tests/support/api_fixture.h"
#include "tests/support/random_seed.h"

namespace sextant::openai {
namespace {

using testing_support::ApiFixture;
using testing_support::FakeEngine;

class GenerationTest : public ApiFixture {
 protected:
  static std::string text_of(const std::vector<Json>& events, int choice_idx = 0) {
    std::string text;
    for (const Json& event : events) {
      if (!event.is_object() || !event.contains("choices")) continue;
      for (const Json& choice : event["choices"]) {
        if (choice["index"] == choice_idx) text += choice["text"].get<std::string>();
      }
    }
    return text;
  }
};

TEST_F(GenerationTest, AStopStringEndsTheChoiceAndItsBill) {
  const auto exchange = complete({{"prompt", "p"}, {"stop", {"END"}}, {"max_tokens", 100}, {"return_token_ids", true}});
  engine_.say(1, 0, "abE");
  engine_.say(1, 0, "N");
  pump();
  EXPECT_TRUE(engine_.calls.empty());
  engine_.say(1, 0, "Dxyz");
  engine_.say(1, 0, "made before the engine heard");
  pump();
  EXPECT_EQ(engine_.calls, (std::vector<std::string>{"finish 1/0"}));
  const Json body = answer_of(exchange, 200);
  EXPECT_EQ(body["choices"][0]["text"], "ab");
  EXPECT_EQ(body["choices"][0]["finish_reason"], "stop");
  EXPECT_EQ(body["choices"][0]["stop_reason"], "END");
  EXPECT_EQ(body["choices"][0]["token_ids"].size(), 5u);
  EXPECT_EQ(body["usage"]["completion_tokens"], 5);
}

TEST_F(GenerationTest, AStreamedStopStringNeverShows) {
  const auto exchange = complete({{"prompt", "p"}, {"stop", "END"}, {"max_tokens", 100}, {"stream", true}, {"n", 2}});
  for (const char c : std::string("abENxENDyy")) {
    engine_.deliver({engine_.event(1, 0, {c}), engine_.event(1, 1, {'z'})});
    pump();
  }
  EXPECT_EQ(engine_.calls, (std::vector<std::string>{"finish 1/0"}));
  EXPECT_FALSE(exchange->is_finished);
  OutputEvent late = engine_.event(1, 0, {}, FinishReason::kStop);  // the engine's answer to finish()
  engine_.deliver({late});
  engine_.say(1, 1, "!", FinishReason::kLength);
  pump();
  EXPECT_TRUE(exchange->is_finished);
  EXPECT_EQ(text_of(exchange->events(), 0), "abENx");
  EXPECT_EQ(text_of(exchange->events(), 1), "zzzzzzzzzz!");
}

TEST_F(GenerationTest, ADisconnectAbortsAtOnce) {
  const auto exchange = begin("/v1/completions", {{"prompt", {"a", "b"}}, {"stream", true}}, 2);
  engine_.say(1, 0, "x");
  pump();
  const std::string before = exchange->written;
  exchange->disconnect();
  pump();
  EXPECT_EQ(engine_.calls, (std::vector<std::string>{"abort 1", "abort 2"}));
  engine_.say(1, 0, "y", FinishReason::kAbort);
  engine_.say(2, 0, "y", FinishReason::kAbort);
  pump();
  EXPECT_EQ(exchange->written, before);
  EXPECT_EQ(exchange.use_count(), 1);  // nothing keeps a request whose client is gone
}

TEST_F(GenerationTest, ADisconnectBeforeTheEngineHasIt) {
  const auto exchange = post("/v1/completions", {{"prompt", "a"}});
  exchange->disconnect();
  wait_until([&] { return exchange.use_count() == 1; });
  EXPECT_FALSE(exchange->response);
  for (const auto& [id, request] : engine_.requests) EXPECT_EQ(engine_.count("abort " + std::to_string(id)), 1u);
}

TEST_F(GenerationTest, NothingIsKeptAfterAnAnswer) {
  for (const bool stream : {false, true}) {
    const auto exchange = complete({{"prompt", "a"}, {"stream", stream}});
    engine_.end(last_id(), 0);
    pump();
    EXPECT_TRUE(exchange->is_answered());
    EXPECT_EQ(exchange.use_count(), 1);
  }
  EXPECT_TRUE(engine_.calls.empty());
}

TEST_F(GenerationTest, ASlowReaderPausesItsChoices) {
  const auto exchange = complete({{"prompt", "p"}, {"stream", true}, {"n", 3}});
  engine_.end(1, 1);
  pump();
  exchange->buffered = 1000;
  engine_.say(1, 0, "a");
  pump();
  EXPECT_TRUE(engine_.calls.empty());  // at the mark, not above it
  exchange->buffered = 1001;
  engine_.say(1, 0, "b");
  engine_.say(1, 2, "b");
  pump();
  EXPECT_EQ(engine_.calls, (std::vector<std::string>{"pause 1/0", "pause 1/2"}));
  exchange->drain();
  pump();
  EXPECT_EQ(engine_.calls, (std::vector<std::string>{"pause 1/0", "pause 1/2", "resume 1/0", "resume 1/2"}));
  exchange->drain();  // again, with nothing paused
  exchange->buffered = 5000;
  engine_.say(1, 2, "c", FinishReason::kLength);
  pump();
  EXPECT_EQ(engine_.count("pause 1/0"), 2u);
  EXPECT_EQ(engine_.count("pause 1/2"), 1u);  // it had ended
  exchange->disconnect();
  pump();
  exchange->drain();
  pump();
  EXPECT_EQ(engine_.count("resume 1/0"), 1u);
}

TEST_F(GenerationTest, RefusalsOfTheEngineAreAnswers) {
  engine_.refusals = {unavailable("The queue is full."),
                      invalid_argument("Too much KV.", "prompt", "context_length_exceeded")};
  const auto full = complete({{"prompt", "a"}});
  EXPECT_EQ(answer_of(full, 503)["error"]["type"], "server_error");
  bool has_retry_after = false;
  for (const http::Header& header : full->response->headers) has_retry_after |= header.name == "Retry-After";
  EXPECT_TRUE(has_retry_after);
  EXPECT_EQ(answer_of(complete({{"prompt", "a"}, {"stream", true}}), 400)["error"]["param"], "prompt");
}

TEST_F(GenerationTest, OneRefusedPromptOfSeveralRefusesTheRequest) {
  engine_.refusals = {ok_status(), ok_status(), unavailable("The queue is full.")};
  const auto exchange = post("/v1/completions", {{"prompt", {"a", "b", "c"}}});
  answer_of(exchange, 503);
  EXPECT_EQ(engine_.calls, (std::vector<std::string>{"abort 1", "abort 2"}));
  engine_.say(1, 0, "", FinishReason::kAbort);
  pump();
  EXPECT_EQ(exchange.use_count(), 1);
}

OutputEvent failure(FakeEngine& engine, RequestId id, int32_t choice_idx = 0) {
  OutputEvent event = engine.event(id, choice_idx, {}, FinishReason::kError);
  event.error = "The device caught fire.";
  return event;
}

TEST_F(GenerationTest, AFailureBeforeTheStreamBeganIsAStatus) {
  const auto exchange = begin("/v1/completions", {{"prompt", {"a", "b"}}, {"stream", true}}, 2);
  engine_.deliver({failure(engine_, 2)});
  pump();
  const Json error = answer_of(exchange, 500)["error"];
  EXPECT_EQ(error["message"], "The device caught fire.");
  EXPECT_EQ(error["type"], "server_error");
  EXPECT_EQ(engine_.count("abort 1"), 1u);
  engine_.deliver({failure(engine_, 1)});
  pump();
}

TEST_F(GenerationTest, AFailureInAStreamIsItsLastEvent) {
  const auto exchange = complete({{"prompt", "a"}, {"stream", true}, {"stream_options", {{"include_usage", true}}}});
  engine_.say(1, 0, "x");
  pump();
  engine_.deliver({engine_.event(1, 0, {'y'}), failure(engine_, 1)});
  engine_.say(1, 0, "z");
  pump();
  EXPECT_TRUE(exchange->is_finished);
  const std::vector<Json> events = exchange->events();
  ASSERT_EQ(events.size(), 3u);
  EXPECT_EQ(text_of({events[0], events[1]}), "xy");
  EXPECT_EQ(
      events[2].dump(),
      R"({"error":{"code":"engine_error","message":"The device caught fire.","param":null,"type":"server_error"}})");
}

TEST_F(GenerationTest, TheServersAbortIsAnEnd) {
  const auto exchange = complete({{"prompt", "a"}});
  engine_.say(1, 0, "x");
  engine_.deliver({engine_.event(1, 0, {}, FinishReason::kAbort)});
  pump();
  EXPECT_EQ(answer_of(exchange, 200)["choices"][0]["finish_reason"], "abort");
}

TEST_F(GenerationTest, AFullTextQueueIs503) {
  options_.max_queued_texts = 0;
  for (const char* path : {"/v1/completions", "/v1/chat/completions", "/tokenize", "/detokenize"}) {
    EXPECT_EQ(answer_of(post(path, {{"prompt", "x"}}), 503)["error"]["code"], "queue_full") << path;
  }
}

TEST_F(GenerationTest, ErrorsOfBodies) {
  const auto error = [&](const std::string& body, int status) {
    return answer_of(send("POST", "/v1/completions", body), status)["error"];
  };
  EXPECT_EQ(error("{\"prompt\": nope}", 400)["code"], "invalid_json");
  EXPECT_EQ(error("", 400)["type"], "invalid_request_error");
  EXPECT_EQ(error("[]", 400)["code"], "invalid_type");
  const Json unknown = error(R"({"model":"gpt-9","prompt":"x","nonsense":1})", 404);
  EXPECT_EQ(unknown["code"], "model_not_found");
  EXPECT_EQ(unknown["param"], "model");
  EXPECT_NE(unknown["message"].get<std::string>().find("tiny, tiny-alias"), std::string::npos);
  EXPECT_EQ(error(R"({"prompt":"x","max_token":1})", 400)["param"], "max_token");
  EXPECT_EQ(error(R"({"prompt":[]})", 400)["param"], "prompt");
  EXPECT_EQ(error(R"({"prompt":"","add_special_tokens":false})", 400)["param"], "prompt");
  EXPECT_TRUE(engine_.requests.empty());
}

TEST_F(GenerationTest, TheContextIsALimitWithNumbers) {
  const auto error = [&](const Json& body, const char* path = "/v1/completions") {
    return answer_of(post(path, body), 400)["error"];
  };
  const Json too_much = error({{"prompt", "abc"}, {"max_tokens", 253}});  // 1 + 3 + 253 > 256
  EXPECT_EQ(too_much["code"], "context_length_exceeded");
  EXPECT_EQ(too_much["param"], "prompt");
  for (const char* number : {"256", "253", " 4 tokens", "252"}) {
    EXPECT_NE(too_much["message"].get<std::string>().find(number), std::string::npos) << too_much["message"];
  }
  EXPECT_EQ(error({{"prompt", std::string(256, 'x')}})["code"], "context_length_exceeded");
  EXPECT_EQ(error({{"prompt", "x"}, {"max_tokens", INT64_MAX}})["code"], "context_length_exceeded");
  const Json second = error({{"prompt", {"x", std::string(256, 'x')}}});
  EXPECT_EQ(second["param"], "prompt[1]");
  EXPECT_EQ(
      error({{"messages", {{{"role", "user"}, {"content", std::string(256, 'x')}}}}}, "/v1/chat/completions")["param"],
      "messages");
  EXPECT_TRUE(engine_.requests.empty());
  complete({{"prompt", "abc"}, {"max_tokens", 252}});
  EXPECT_EQ(engine_.requests.at(1).sampling.max_tokens, 252);
  complete({{"prompt", std::string(254, 'x')}});
  EXPECT_EQ(engine_.requests.at(2).sampling.max_tokens, 1);
}

TEST_F(GenerationTest, RequestsCarryTheirEngineFields) {
  complete({{"prompt", "x"},
            {"priority", -2},
            {"cache_salt", "s"},
            {"seed", 11},
            {"stop_token_ids", {5}},
            {"temperature", 0},
            {"ignore_eos", true}});
  const Request& request = engine_.requests.at(1);
  EXPECT_EQ(request.request_id, 0u);
  EXPECT_EQ(request.priority, -2);
  EXPECT_EQ(request.cache_salt, "s");
  EXPECT_EQ(request.sampling.seed, 11u);
  EXPECT_EQ(request.sampling.stop_token_ids, (std::vector<int32_t>{5}));
  EXPECT_TRUE(request.sampling.greedy());
  EXPECT_TRUE(request.sampling.ignore_eos);
}

std::string metric(const std::string& text, const std::string& name) {
  for (size_t at = text.find("\n" + name); at != std::string::npos; at = text.find("\n" + name, at + 1)) {
    const char next = text[at + 1 + name.size()];
    if (next != '{' && next != ' ') continue;
    const size_t end = text.find('\n', at + 1);
    return text.substr(text.rfind(' ', end) + 1, end - text.rfind(' ', end) - 1);
  }
  return "absent";
}

TEST_F(GenerationTest, MetricsAreSampledByTheirDefinitions) {
  ServerMetrics metrics("tiny");
  metrics_ = &metrics;
  const auto exchange = complete({{"prompt", "ab"}, {"max_tokens", 4}});  // arrives at 1.0 s
  engine_.manual_clock().advance_ns(500'000'000);
  engine_.say(1, 0, "x");  // 1.5 s
  pump();
  engine_.manual_clock().advance_ns(250'000'000);
  engine_.say(1, 0, "yz", FinishReason::kLength);  // 1.75 s, two tokens: one interval
  pump();
  EXPECT_TRUE(exchange->is_answered());
  std::string text = metrics.render();
  EXPECT_EQ(metric(text, "vllm:time_to_first_token_seconds_count"), "1") << text;
  EXPECT_EQ(metric(text, "vllm:time_to_first_token_seconds_sum"), "0.5");
  EXPECT_EQ(metric(text, "vllm:inter_token_latency_seconds_count"), "1");
  EXPECT_EQ(metric(text, "vllm:inter_token_latency_seconds_sum"), "0.25");
  EXPECT_EQ(metric(text, "vllm:e2e_request_latency_seconds_sum"), "0.75");
  EXPECT_EQ(metric(text, "vllm:request_prompt_tokens_sum"), "3");
  EXPECT_EQ(metric(text, "vllm:request_generation_tokens_sum"), "3");
  EXPECT_EQ(metric(text, "vllm:request_decode_time_seconds_sum"), "0.25");
  // A client that goes is one finished request more, and no first token.
  const auto gone = complete({{"prompt", "ab"}});
  gone->disconnect();
  pump();
  text = metrics.render();
  EXPECT_EQ(metric(text, "vllm:request_prompt_tokens_count"), "2");
  EXPECT_EQ(metric(text, "vllm:time_to_first_token_seconds_count"), "1");
}

// Whatever order things happen in: one answer, a well-formed stream, no event after the end, nothing kept.
TEST_F(GenerationTest, AnyOrderOfEventsEndsInOneAnswer) {
  const uint64_t seed = random_seed();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(static_cast<uint32_t>(seed));
  const auto chance = [&](unsigned one_in) { return random() % one_in == 0; };
  for (int round = 0; round < 300; ++round) {
    SCOPED_TRACE("round " + std::to_string(round));
    const size_t num_prompts = 1 + random() % 3;
    const auto n = static_cast<int32_t>(1 + random() % 3);
    const bool stream = chance(2);
    Json prompts = Json::array();
    for (size_t i = 0; i < num_prompts; ++i) prompts.push_back("p" + std::to_string(i));
    Json body = {{"prompt", prompts}, {"n", n}, {"stream", stream}, {"stop", "ab"}, {"echo", chance(4)}};
    if (chance(3)) body["logprobs"] = 1;
    const RequestId before = last_id();
    const auto exchange = begin("/v1/completions", body, num_prompts);
    engine_.calls.clear();

    struct Line {
      RequestId id;
      int32_t choice_idx;
      std::string text;
    };
    std::vector<Line> open;
    std::map<std::pair<RequestId, int32_t>, std::string> said;
    for (RequestId id = before + 1; id <= before + num_prompts; ++id) {
      for (int32_t c = 0; c < n; ++c) open.push_back({id, c, {}});
    }
    bool disconnected = false;
    bool failed = false;
    while (!open.empty()) {
      const size_t pick = random() % open.size();
      Line& line = open[pick];
      std::string text;
      for (unsigned i = random() % 4; i > 0; --i) text += "abc"[random() % 3];
      const bool ends = chance(6);
      const bool fails = ends && chance(15);
      if (fails) text.clear();  // a failed step gave no tokens
      OutputEvent event = engine_.event(line.id, line.choice_idx, FakeEngine::bytes(text));
      for (const int32_t id : event.token_ids) event.logprobs.push_back({{id, -1.0f}, 1, {}});
      std::string& all = said[{line.id, line.choice_idx}] += text;
      if (ends) {
        const FinishReason reasons[] = {FinishReason::kStop, FinishReason::kLength, FinishReason::kAbort};
        event.finish_reason = fails ? FinishReason::kError : reasons[random() % 3];
        // One that a stop string ended cannot fail, unless that text still waits for the prompt's log-probabilities.
        const bool is_held_back =
            stream && body["echo"].get<bool>() && body.contains("logprobs") && line.choice_idx > 0;
        failed |= fails && (is_held_back || all.find("ab") == std::string::npos);
        open.erase(open.begin() + static_cast<std::ptrdiff_t>(pick));
      }
      engine_.deliver({event});
      if (chance(40)) {
        exchange->disconnect();
        disconnected = true;
      }
      exchange->buffered = random() % 2000;
      if (chance(3)) exchange->drain();
      if (chance(2)) pump();
    }
    pump();
    EXPECT_EQ(exchange.use_count(), 1);
    if (disconnected) continue;
    EXPECT_TRUE(exchange->is_answered());
    if (failed) continue;
    if (!exchange->response) continue;
    if (!stream) {
      ASSERT_EQ(exchange->response->status, 200);
      continue;
    }
    const std::vector<Json> events = exchange->events();
    ASSERT_FALSE(events.empty());
    ASSERT_EQ(events.back(), "[DONE]");
    for (size_t p = 0; p < num_prompts; ++p) {
      for (int32_t c = 0; c < n; ++c) {
        const auto choice_idx = static_cast<int32_t>(p) * n + c;
        const std::string& whole = said[{before + 1 + p, c}];
        const std::string echo = body["echo"].get<bool>() ? prompts[p].get<std::string>() : "";
        EXPECT_EQ(text_of(events, choice_idx), echo + whole.substr(0, whole.find("ab")));
        int num_ends = 0;
        for (const Json& event : events) {
          if (!event.is_object()) continue;
          for (const Json& choice : event["choices"]) {
            if (choice["index"] != choice_idx) continue;
            EXPECT_EQ(num_ends, 0) << "a chunk after the end";
            num_ends += !choice["finish_reason"].is_null();
          }
        }
        EXPECT_EQ(num_ends, 1);
      }
    }
  }
}

}  // namespace
}  // namespace sextant::openai
