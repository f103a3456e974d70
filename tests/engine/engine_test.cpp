// The engine through its public face, on a real (tiny) model.
#include "engine/engine.h"

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>
#include <string_view>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/collecting_sink.h"
#include "tests/support/random_seed.h"

namespace sextant {
namespace {

using testing::HasSubstr;
using testing_support::CollectingSink;

const std::string kTinyLlama = std::string(SEXTANT_TEST_DATA) + "/golden/tiny/llama";

// ctest runs this program once more with the CUDA backend, on a device or under the emulator.
const char* test_device() {
  const char* device = std::getenv("SEXTANT_TEST_DEVICE");
  return device == nullptr ? "cpu" : device;
}
// On the CPU a sequence's bits depend on nothing else. On CUDA sums follow the size of the batch.
bool is_bitwise() { return std::string_view(test_device()) == "cpu"; }
// The emulator takes a hundred times as long.
bool is_emulated() { return std::string_view(test_device()) == "cuda-emulated"; }

// And once more with the model cut between ranks.
int64_t num_test_ranks() {
  const char* ranks = std::getenv("SEXTANT_TEST_RANKS");
  return ranks == nullptr ? 1 : std::atoll(ranks);
}

EngineConfig tiny_config() {
  EngineConfig config;
  config.parallel.tensor_parallel_size = num_test_ranks();
  config.model.model = kTinyLlama;
  config.device.device = test_device();
  config.cache.kv_cache_memory_bytes = (4 << 20) / num_test_ranks();  // of each rank
  config.scheduler.max_num_seqs = 16;
  config.scheduler.max_num_batched_tokens = 64;
  return config;
}

std::unique_ptr<Engine> make_engine(EngineConfig config = tiny_config()) {
  Result<std::unique_ptr<Engine>> engine =
      Engine::create({.config = std::move(config), .eos_token_ids = {}, .on_step = {}, .on_memory_plan = {}});
  EXPECT_TRUE(engine.ok()) << engine.status().message();
  return std::move(engine).value();
}

Request make_request(std::vector<int32_t> prompt, int64_t max_tokens, float temperature = 0) {
  Request request;
  request.prompt_token_ids = std::move(prompt);
  request.sampling.max_tokens = max_tokens;
  request.sampling.temperature = temperature;
  request.sampling.ignore_eos = true;
  return request;
}

std::vector<int32_t> random_prompt(std::mt19937_64& rng, size_t length) {
  std::vector<int32_t> ids(length);
  for (int32_t& id : ids) id = static_cast<int32_t>(rng() % 320);
  return ids;
}

// Runs one request to its end.
CollectingSink::Choice run(Engine& engine, Request request) {
  auto sink = std::make_shared<CollectingSink>();
  const auto n = static_cast<size_t>(request.sampling.n);
  Result<RequestId> id = engine.submit(std::move(request), sink);
  EXPECT_TRUE(id.ok()) << id.status().message();
  EXPECT_TRUE(sink->wait_ended(n));
  return sink->choice(*id);
}

void expect_all_free(Engine& engine) {
  const Status integrity = engine.check_integrity();
  EXPECT_TRUE(integrity.ok()) << integrity.message();
  EXPECT_EQ(engine.stats().num_blocks_used, 0);
  EXPECT_EQ(engine.stats().num_requests_running, 0);
  EXPECT_EQ(engine.stats().num_requests_waiting, 0);
}

TEST(Engine, GeneratesAndCounts) {
  const auto engine = make_engine();
  const auto choice = run(*engine, make_request({1, 2, 3}, 12));
  EXPECT_EQ(choice.token_ids.size(), 12u);
  EXPECT_EQ(choice.finish_reason, FinishReason::kLength);
  EXPECT_EQ(choice.num_terminal_events, 1);
  EXPECT_GT(choice.last.queued_ns, 0);
  EXPECT_GE(choice.last.first_scheduled_ns, choice.last.queued_ns);
  EXPECT_GE(choice.last.step_end_ns, choice.last.first_scheduled_ns);
  EXPECT_TRUE(engine->wait_drained(10));
  EXPECT_EQ(engine->stats().prompt_tokens, 3u);
  EXPECT_EQ(engine->stats().generation_tokens, 12u);
  expect_all_free(*engine);
}

TEST(Engine, SeededSamplingDoesNotDependOnTheBatch) {
  const uint64_t seed = random_seed();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 rng(seed);
  const auto engine = make_engine();
  Request request = make_request(random_prompt(rng, 40), 30, 1.0f);
  request.sampling.seed = rng();
  request.sampling.n = 3;
  request.sampling.top_p = 0.95f;
  request.sampling.frequency_penalty = 0.5f;
  auto alone = std::make_shared<CollectingSink>();
  const RequestId alone_id = *engine->submit(request, alone);
  ASSERT_TRUE(alone->wait_ended(3));
  EXPECT_NE(alone->choice(alone_id, 0).token_ids, alone->choice(alone_id, 1).token_ids);

  EXPECT_TRUE(engine->reset_prefix_cache());
  auto others = std::make_shared<CollectingSink>();
  // On CUDA only the same batch gives the same logits to the last bit, and a choice between near neighbours hangs on that bit.
  const int num_others = is_bitwise() ? 20 : 0;
  for (int i = 0; i < num_others; ++i) {
    Request other = make_request(random_prompt(rng, 1 + rng() % 100), static_cast<int64_t>(1 + rng() % 50), 1.0f);
    other.sampling.seed = rng();
    ASSERT_TRUE(engine->submit(std::move(other), others).ok());
  }
  auto crowded = std::make_shared<CollectingSink>();
  const RequestId crowded_id = *engine->submit(request, crowded);
  ASSERT_TRUE(crowded->wait_ended(3));
  for (int32_t choice = 0; choice < 3; ++choice) {
    EXPECT_EQ(alone->choice(alone_id, choice).token_ids, crowded->choice(crowded_id, choice).token_ids) << choice;
  }
  ASSERT_TRUE(others->wait_ended(static_cast<size_t>(num_others)));
  expect_all_free(*engine);
}

TEST(Engine, LogprobsAreTheSameBitsAfterAPrefixCacheHit) {
  const uint64_t seed = random_seed();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 rng(seed);
  const auto engine = make_engine();
  Request request = make_request(random_prompt(rng, 100), 8);
  request.sampling.logprobs = 20;
  const auto cold = run(*engine, request);
  const auto warm = run(*engine, request);
  EXPECT_EQ(cold.num_cached_tokens, 0);
  EXPECT_EQ(warm.num_cached_tokens, 96);
  EXPECT_EQ(engine->stats().prefix_cache_hits, 96u);
  ASSERT_EQ(cold.logprobs.size(), warm.logprobs.size());
  if (!is_bitwise()) {  // the bound of bf16 compute for this model, of the first token: later ones may go other ways
    EXPECT_NEAR(cold.logprobs[0].top[0].logprob, warm.logprobs[0].top[0].logprob, 0.1);
    return;
  }
  EXPECT_EQ(cold.token_ids, warm.token_ids);
  for (size_t i = 0; i < cold.logprobs.size(); ++i) {
    for (size_t j = 0; j < cold.logprobs[i].top.size(); ++j) {
      EXPECT_EQ(cold.logprobs[i].top[j].token_id, warm.logprobs[i].top[j].token_id);
      EXPECT_EQ(cold.logprobs[i].top[j].logprob, warm.logprobs[i].top[j].logprob);
    }
  }
  Request salted = request;
  salted.cache_salt = "another tenant";
  EXPECT_EQ(run(*engine, salted).num_cached_tokens, 0);
}

TEST(Engine, PromptLogprobsCoverThePromptWhateverItsChunks) {
  std::mt19937_64 rng(7);
  const std::vector<int32_t> prompt = random_prompt(rng, 150);  // three steps of 64 tokens
  const auto engine = make_engine();
  Request request = make_request(prompt, 1);
  request.sampling.prompt_logprobs = 2;
  const auto chunked = run(*engine, request);
  ASSERT_EQ(chunked.prompt_logprobs.size(), prompt.size() - 1);
  for (size_t i = 0; i + 1 < prompt.size(); ++i) EXPECT_EQ(chunked.prompt_logprobs[i].chosen.token_id, prompt[i + 1]);
  EngineConfig whole_config = tiny_config();
  whole_config.scheduler.max_num_batched_tokens = 512;
  const auto whole = run(*make_engine(whole_config), request);
  for (size_t i = 0; i + 1 < prompt.size(); ++i) {
    EXPECT_EQ(chunked.prompt_logprobs[i].chosen.logprob, whole.prompt_logprobs[i].chosen.logprob) << i;
  }
}

TEST(Engine, PreemptionChangesNothingThatIsSeen) {
  const uint64_t seed = random_seed();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 rng(seed);
  EngineConfig config = tiny_config();
  config.model.max_model_len = 256;
  config.cache.kv_cache_memory_bytes =
      int64_t{25} * 16 * 384 /
      num_test_ranks();  // 24 blocks and the null block: 3 layers, 2 KV heads of 16, K and V, bf16
  const auto tight = make_engine(config);
  ASSERT_EQ(tight->info().num_blocks, 24);
  const auto roomy = make_engine();
  std::vector<Request> requests;
  for (int i = 0; i < 12; ++i) requests.push_back(make_request(random_prompt(rng, 1 + rng() % 90), 60));
  auto sink = std::make_shared<CollectingSink>();
  std::vector<RequestId> ids;
  for (const Request& request : requests) ids.push_back(*tight->submit(request, sink));
  ASSERT_TRUE(sink->wait_ended(requests.size()));
  EXPECT_GT(tight->stats().num_preemptions, 0u);
  for (size_t i = 0; i < requests.size(); ++i) {
    EXPECT_EQ(sink->choice(ids[i]).token_ids.size(), 60u) << i;
    if (!is_bitwise()) continue;
    EXPECT_EQ(sink->choice(ids[i]).token_ids, run(*roomy, requests[i]).token_ids) << i;
  }
  expect_all_free(*tight);
}

// More sequences than a record has and fewer than the next: padding rows must fit wherever real ones do.
TEST(Engine, AnyNumberOfSequencesFits) {
  for (const int64_t max_num_seqs : {1, 3, 5, 9}) {
    EngineConfig config = tiny_config();
    config.scheduler.max_num_seqs = max_num_seqs;
    const auto engine = make_engine(config);
    auto sink = std::make_shared<CollectingSink>();
    for (int64_t i = 0; i < max_num_seqs + 1; ++i) {
      ASSERT_TRUE(engine->submit(make_request({1, 2, static_cast<int32_t>(i)}, 6), sink).ok());
    }
    ASSERT_TRUE(sink->wait_ended(static_cast<size_t>(max_num_seqs + 1)));
    EXPECT_TRUE(engine->stats().healthy) << max_num_seqs;
    for (const auto& [key, choice] : sink->all()) EXPECT_EQ(choice.token_ids.size(), 6u);
    expect_all_free(*engine);
  }
}

TEST(Engine, StopTokensEosAndMinTokens) {
  const auto engine = make_engine();
  const auto free_run = run(*engine, make_request({5, 6, 7}, 20));
  Request request = make_request({5, 6, 7}, 20);
  request.sampling.stop_token_ids = {free_run.token_ids[3]};
  const auto stopped = run(*engine, request);
  EXPECT_EQ(stopped.finish_reason, FinishReason::kStop);
  EXPECT_EQ(stopped.last.stop_token_id, free_run.token_ids[3]);
  EXPECT_LE(stopped.token_ids.size(), 4u);
  EXPECT_EQ(stopped.token_ids.back(), free_run.token_ids[3]);
  request.sampling.min_tokens = 10;
  EXPECT_GE(run(*engine, request).token_ids.size(), 10u);
}

TEST(Engine, RefusesWhatCannotRun) {
  const auto engine = make_engine();
  auto sink = std::make_shared<CollectingSink>();
  const auto error = [&](Request request) { return engine->submit(std::move(request), sink).status(); };
  EXPECT_THAT(error(make_request({}, 1)).message(), HasSubstr("at least one token"));
  EXPECT_THAT(error(make_request({320}, 1)).message(), HasSubstr("vocabulary ends at 319"));
  EXPECT_THAT(error(make_request({-1}, 1)).message(), HasSubstr("vocabulary"));
  const Status too_long = error(make_request(std::vector<int32_t>(500, 1), 13));
  EXPECT_EQ(too_long.error_code(), "context_length_exceeded");
  EXPECT_THAT(too_long.message(), testing::AllOf(HasSubstr("512"), HasSubstr("513")));
  Request bad = make_request({1}, 1);
  bad.sampling.top_p = 1.5f;
  EXPECT_EQ(error(bad).param(), "top_p");
  EXPECT_TRUE(sink->all().empty());
}

TEST(Engine, FullQueueIsAnAnswer) {
  EngineConfig config = tiny_config();
  config.scheduler.max_num_seqs = 2;
  config.scheduler.max_num_queued_reqs = 3;
  const auto engine = make_engine(config);
  auto sink = std::make_shared<CollectingSink>();
  size_t accepted = 0;
  for (int i = 0; i < 50; ++i) {
    const Result<RequestId> id = engine->submit(make_request({1, 2}, is_emulated() ? 40 : 200), sink);
    if (id.ok()) {
      ++accepted;
    } else {
      EXPECT_EQ(id.status().code(), StatusCode::kUnavailable);
    }
  }
  EXPECT_GE(accepted, 5u);
  EXPECT_LT(accepted, 20u);
  EXPECT_EQ(engine->stats().queue_rejections, 50 - accepted);
  EXPECT_TRUE(sink->wait_ended(accepted));
  EXPECT_TRUE(engine->submit(make_request({1}, 1), sink).ok());
}

TEST(Engine, AbortEndsEachChoiceOnceAndFreesItsBlocks) {
  const auto engine = make_engine();
  auto sink = std::make_shared<CollectingSink>();
  Request request = make_request(std::vector<int32_t>(100, 3), 400);
  request.sampling.n = 2;
  const RequestId id = *engine->submit(std::move(request), sink);
  ASSERT_TRUE(sink->wait_tokens(id, 5));
  engine->abort(id);
  engine->abort(id);
  engine->abort(12345);
  ASSERT_TRUE(sink->wait_ended(2));
  for (int32_t choice = 0; choice < 2; ++choice) {
    EXPECT_EQ(sink->choice(id, choice).finish_reason, FinishReason::kAbort);
    EXPECT_EQ(sink->choice(id, choice).num_terminal_events, 1);
  }
  EXPECT_TRUE(engine->wait_drained(10));
  expect_all_free(*engine);
}

TEST(Engine, APausedChoiceWaitsAndGoesOn) {
  const auto engine = make_engine();
  const int64_t max_tokens = is_emulated() ? 60 : 300;
  for (int attempt = 0; attempt < 50; ++attempt) {
    auto sink = std::make_shared<CollectingSink>();
    const RequestId id = *engine->submit(make_request({9, 8, 7}, max_tokens), sink);
    ASSERT_TRUE(sink->wait_tokens(id, 3));
    engine->pause(id, 0);
    ASSERT_TRUE(engine->check_integrity().ok());  // runs after the pause took effect
    // Nothing holds the engine back: on a busy machine this thread may come too late.
    if (sink->choice(id).finish_reason.has_value()) continue;
    const size_t tokens = sink->choice(id).token_ids.size();
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    EXPECT_LE(sink->choice(id).token_ids.size(), tokens + 2);  // of the steps in flight
    EXPECT_EQ(sink->choice(id).finish_reason.has_value(),
              sink->choice(id).token_ids.size() == static_cast<size_t>(max_tokens));
    engine->resume(id, 0);
    ASSERT_TRUE(sink->wait_ended(1));
    EXPECT_EQ(sink->choice(id).token_ids, run(*engine, make_request({9, 8, 7}, max_tokens)).token_ids);
    return;
  }
  FAIL() << "no choice was still running when it was paused";
}

TEST(Engine, DrainRefusesNewWorkAndFinishesOld) {
  const auto engine = make_engine();
  auto sink = std::make_shared<CollectingSink>();
  const size_t max_tokens = is_emulated() ? 12 : 100;
  const RequestId id = *engine->submit(make_request({1}, static_cast<int64_t>(max_tokens)), sink);
  engine->begin_drain();
  EXPECT_EQ(engine->submit(make_request({1}, 1), sink).status().code(), StatusCode::kUnavailable);
  EXPECT_TRUE(engine->wait_drained(30));
  EXPECT_EQ(sink->choice(id).token_ids.size(), max_tokens);
}

TEST(Engine, DestructionEndsEveryRequest) {
  auto sink = std::make_shared<CollectingSink>();
  {
    const auto engine = make_engine();
    for (int i = 0; i < 40; ++i) ASSERT_TRUE(engine->submit(make_request({1, 2, 3}, 400), sink).ok());
  }
  const auto all = sink->all();
  EXPECT_EQ(all.size(), 40u);
  for (const auto& [key, choice] : all) EXPECT_EQ(choice.num_terminal_events, 1) << key.first;
}

// Several threads submit, abort, pause and finish at random; everything ends once and nothing is left.
TEST(Engine, RandomTrafficFromManyThreads) {
  const uint64_t seed = random_seed();
  SCOPED_TRACE("seed " + std::to_string(seed));
  EngineConfig config = tiny_config();
  config.cache.kv_cache_memory_bytes = int64_t{40} * 16 * 384;
  const auto engine = make_engine(config);
  auto sink = std::make_shared<CollectingSink>();
  std::atomic<size_t> num_choices{0};
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937_64 rng(seed + t);
      for (int i = 0; i < (is_emulated() ? 5 : 40); ++i) {
        Request request = make_request(random_prompt(rng, 1 + rng() % 120), static_cast<int64_t>(1 + rng() % 60),
                                       rng() % 2 ? 1.0f : 0.0f);
        request.sampling.n = static_cast<int32_t>(1 + rng() % 3);
        const auto n = request.sampling.n;
        const Result<RequestId> id = engine->submit(std::move(request), sink);
        ASSERT_TRUE(id.ok()) << id.status().message();
        num_choices += static_cast<size_t>(n);
        switch (rng() % 5) {
          case 0: engine->abort(*id); break;
          case 1: engine->finish(*id, 0, FinishReason::kStop); break;
          case 2:
            engine->pause(*id, 0);
            if (rng() % 2) sink->wait_tokens(*id, 0);
            engine->resume(*id, 0);
            break;
          default: break;
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  ASSERT_TRUE(sink->wait_ended(num_choices));
  EXPECT_TRUE(engine->wait_drained(30));
  for (const auto& [key, choice] : sink->all()) {
    EXPECT_EQ(choice.num_terminal_events, 1);
    EXPECT_EQ(choice.num_events_after_end, 0);
  }
  expect_all_free(*engine);
}

TEST(EngineCreate, DummyWeightsOfAConfigsShape) {
  EngineConfig config = tiny_config();
  config.model.load_format = "dummy";
  const auto engine = make_engine(config);
  EXPECT_EQ(engine->info().weight_type, "BF16");
  EXPECT_EQ(run(*engine, make_request({1}, 5)).token_ids.size(), 5u);
}

TEST(EngineCreate, ErrorsSayWhatIsWrong) {
  const auto error = [](EngineConfig config) {
    Result<std::unique_ptr<Engine>> engine =
        Engine::create({.config = std::move(config), .eos_token_ids = {}, .on_step = {}, .on_memory_plan = {}});
    return engine.ok() ? std::string("it was created") : engine.status().message();
  };
  EngineConfig config = tiny_config();
  config.model.model = "/nonexistent/model";
  EXPECT_THAT(error(config), HasSubstr("/nonexistent/model"));
  config = tiny_config();
  config.model.max_model_len = 100000;
  EXPECT_THAT(error(config), HasSubstr("512"));
  config = tiny_config();
  config.cache.kv_cache_memory_bytes = 1000;
  EXPECT_THAT(error(config), testing::Not(HasSubstr("it was created")));
  config = tiny_config();
  config.cache.block_size = 32;
  EXPECT_THAT(error(config), HasSubstr("block_size"));
}

// The weights in use do not depend on the file: it may be cut short or rewritten while the engine serves.
TEST(EngineCreate, ServesOnWhenTheFileIsTruncated) {
  const std::filesystem::path copy = std::filesystem::path(testing::TempDir()) / "truncated_while_serving";
  std::filesystem::remove_all(copy);
  std::filesystem::copy(kTinyLlama, copy);
  for (const auto& entry : std::filesystem::directory_iterator(copy)) {
    std::filesystem::permissions(entry.path(), std::filesystem::perms::owner_all);
  }
  EngineConfig config = tiny_config();
  config.model.model = copy.string();
  const auto engine = make_engine(config);
  const auto before = run(*engine, make_request({1, 2, 3}, 20));
  std::filesystem::resize_file(copy / "model.safetensors", 100);
  EXPECT_TRUE(engine->reset_prefix_cache());
  EXPECT_EQ(run(*engine, make_request({1, 2, 3}, 20)).token_ids, before.token_ids);
  Result<std::unique_ptr<Engine>> again =
      Engine::create({.config = config, .eos_token_ids = {}, .on_step = {}, .on_memory_plan = {}});
  ASSERT_FALSE(again.ok());
  EXPECT_THAT(again.status().message(), HasSubstr("model.safetensors"));
  std::filesystem::remove_all(copy);
}

}  // namespace
}  // namespace sextant
