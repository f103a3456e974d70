// Keys, bounds and ages of the response cache.
#include "server/openai/response_cache.h"

#include <gtest/gtest.h>
#include <atomic>
#include <set>
#include <thread>

namespace sextant::openai {
namespace {

GenerationSpec greedy_spec() {
  GenerationSpec spec;
  spec.model = "m";
  spec.prompts = {{{1, 2, 3}, 16, ""}};
  spec.sampling.temperature = 0;
  return spec;
}

std::shared_ptr<CachedAnswer> answer_of(size_t num_bytes) {
  auto answer = std::make_shared<CachedAnswer>();
  answer->choices.resize(1);
  answer->choices[0].text.assign(num_bytes, 'x');
  return answer;
}

TEST(ResponseCacheTest, OnlyWhatDeterminesItsAnswerIsKept) {
  GenerationSpec spec = greedy_spec();
  EXPECT_TRUE(is_cacheable(spec));
  spec.sampling.temperature = 1;
  EXPECT_FALSE(is_cacheable(spec));
  spec.seed = 0;
  EXPECT_TRUE(is_cacheable(spec));
  spec.sampling.logprobs = 0;
  EXPECT_FALSE(is_cacheable(spec));
  spec = greedy_spec();
  spec.sampling.prompt_logprobs = 1;
  EXPECT_FALSE(is_cacheable(spec));
}

TEST(ResponseCacheTest, EveryFieldThatChangesTheAnswerChangesTheKey) {
  using Change = std::function<void(GenerationSpec&)>;
  const std::vector<Change> changes = {
      [](auto& s) { s.model = "n"; },
      [](auto& s) { s.cache_salt = "x"; },
      [](auto& s) {
        s.prompts[0].token_ids = {1, 2};
      },
      [](auto& s) { s.prompts[0].max_tokens = 15; },
      [](auto& s) {
        s.prompts.push_back({{4}, 16, ""});
      },
      [](auto& s) {
        s.prompts = {{{1, 2}, 16, ""}, {{3}, 16, ""}};
      },
      [](auto& s) { s.sampling.n = 2; },
      [](auto& s) {
        s.sampling.temperature = 0.5;
        s.seed = 1;
      },
      [](auto& s) {
        s.sampling.temperature = 0.5;
        s.seed = 2;
      },
      [](auto& s) { s.sampling.top_p = 0.5; },
      [](auto& s) { s.sampling.top_k = 5; },
      [](auto& s) { s.sampling.min_p = 0.5; },
      [](auto& s) { s.sampling.presence_penalty = 0.5; },
      [](auto& s) { s.sampling.frequency_penalty = 0.5; },
      [](auto& s) { s.sampling.repetition_penalty = 1.5; },
      [](auto& s) {
        s.sampling.logit_bias = {{1, 2.0f}};
      },
      [](auto& s) { s.sampling.allowed_token_ids = {1}; },
      [](auto& s) { s.sampling.min_tokens = 3; },
      [](auto& s) { s.sampling.ignore_eos = true; },
      [](auto& s) { s.sampling.stop_token_ids = {1}; },
      [](auto& s) { s.stop = {"ab"}; },
      [](auto& s) {
        s.stop = {"a", "b"};
      },
      [](auto& s) { s.include_stop_str_in_output = true; },
      [](auto& s) { s.skip_special_tokens = false; },
      [](auto& s) { s.echo_only = true; },
  };
  std::set<std::string> keys = {cache_key(greedy_spec(), "a"), cache_key(greedy_spec(), "b")};
  EXPECT_EQ(keys.size(), 2U) << "tenants are apart";
  for (const Change& change : changes) {
    GenerationSpec spec = greedy_spec();
    change(spec);
    EXPECT_TRUE(keys.insert(cache_key(spec, "a")).second) << "change " << keys.size() - 2;
  }
  // What changes the form alone does not: a stream and a whole answer share theirs, and greedy needs no seed.
  GenerationSpec spec = greedy_spec();
  spec.stream = true;
  spec.seed = 7;
  spec.id = "cmpl-x";
  spec.created_unix_s = 5;
  spec.endpoint = Endpoint::kChat;
  spec.priority = 3;
  EXPECT_EQ(cache_key(spec, "a"), cache_key(greedy_spec(), "a"));
}

TEST(ResponseCacheTest, TheLeastRecentlyUsedGoesFirst) {
  const size_t one = answer_of(1000)->num_bytes();
  ResponseCache cache(10 * one, 1'000'000, [] { return int64_t{0}; });
  for (int i = 0; i < 10; ++i) cache.put(std::to_string(i), "t", answer_of(1000));
  EXPECT_EQ(cache.stats().num_answers, 10U);
  EXPECT_NE(cache.find("0"), nullptr);
  cache.put("10", "t", answer_of(1000));
  EXPECT_EQ(cache.find("1"), nullptr);
  EXPECT_NE(cache.find("0"), nullptr);
  EXPECT_LE(cache.stats().num_bytes, 10 * one);
  EXPECT_EQ(cache.stats().evictions, 1U);
  cache.put("large", "t", answer_of(2 * one));
  EXPECT_EQ(cache.find("large"), nullptr) << "it would drive out too many";
  EXPECT_EQ(cache.stats().num_answers, 10U);
  cache.put("0", "t", answer_of(10));  // again, and smaller
  EXPECT_EQ(cache.find("0")->choices[0].text.size(), 10U);
  EXPECT_EQ(cache.stats().num_answers, 10U);
}

TEST(ResponseCacheTest, OldAnswersAreForgotten) {
  int64_t now_ns = 0;
  ResponseCache cache(1 << 20, 100, [&] { return now_ns; });
  cache.put("a", "t", answer_of(1));
  now_ns = 99;
  EXPECT_NE(cache.find("a"), nullptr);
  now_ns = 100;
  EXPECT_EQ(cache.find("a"), nullptr);
  EXPECT_EQ(cache.stats().num_bytes, 0U);
  EXPECT_EQ(cache.stats().hits, 1U);
  EXPECT_EQ(cache.stats().misses, 1U);
}

TEST(ResponseCacheTest, ATenantIsForgottenAndNoOther) {
  int64_t now_ns = 0;
  ResponseCache cache(1 << 20, 100, [&] { return now_ns; });
  for (const char* key : {"a", "b", "c"}) cache.put(key, "shop", answer_of(3));
  cache.put("d", "shopping", answer_of(4));
  EXPECT_EQ(cache.answers_of("shop").size(), 3U);
  EXPECT_EQ(cache.answers_of("shopping").at(0)->choices[0].text.size(), 4U);
  EXPECT_EQ(cache.forget("shop"), 3U);
  EXPECT_EQ(cache.forget("shop"), 0U);
  EXPECT_EQ(cache.find("b"), nullptr);
  EXPECT_NE(cache.find("d"), nullptr);
  EXPECT_EQ(cache.stats().num_bytes, answer_of(4)->num_bytes());
  cache.put("a", "shop", answer_of(3));
  now_ns = 100;
  EXPECT_TRUE(cache.answers_of("shop").empty()) << "it is too old";
}

TEST(ResponseCacheTest, ManyThreads) {
  ResponseCache cache(1 << 16, 1'000'000, [] { return int64_t{0}; });
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&cache, t] {
      for (int i = 0; i < 500; ++i) {
        const std::string key = std::to_string((i * (t + 1)) % 50);
        if (!cache.find(key)) cache.put(key, "t", answer_of(static_cast<size_t>(i)));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  const ResponseCache::Stats stats = cache.stats();
  EXPECT_EQ(stats.hits + stats.misses, 2000U);
  EXPECT_LE(stats.num_bytes, 1U << 16);
}

}  // namespace
}  // namespace sextant::openai
