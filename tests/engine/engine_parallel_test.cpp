// The engine over several ranks, stages and processes (threads that take the place of processes, over loopback TCP): the answers
// are those of one rank.
#include <cstdlib>
#include <fstream>
#include <future>
#include <random>
#include <string_view>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "engine/base/tcp_socket.h"
#include "engine/engine.h"
#include "tests/support/collecting_sink.h"

namespace sextant {
namespace {

using testing::HasSubstr;
using testing_support::CollectingSink;

const char* test_device() {
  const char* device = std::getenv("SEXTANT_TEST_DEVICE");
  return device == nullptr ? "cpu" : device;
}
bool is_cpu() { return std::string_view(test_device()) == "cpu"; }

EngineConfig config_of(int64_t tensor_size, int64_t num_stages) {
  EngineConfig config;
  config.model.model = std::string(SEXTANT_TEST_DATA) + "/golden/tiny/llama";
  config.device.device = test_device();
  config.device.step_dump_dir = "";
  config.cache.kv_cache_memory_bytes = 4 << 20;
  config.scheduler.max_num_seqs = 16;
  config.scheduler.max_num_batched_tokens = 64;
  config.parallel.tensor_parallel_size = tensor_size;
  config.parallel.pipeline_parallel_size = num_stages;
  config.parallel.collective_timeout_s = 60;
  return config;
}

std::unique_ptr<Engine> make_engine(EngineConfig config) {
  Engine::Options options;
  options.config = std::move(config);
  Result<std::unique_ptr<Engine>> engine = Engine::create(std::move(options));
  EXPECT_TRUE(engine.ok()) << engine.status().message();
  return std::move(engine).value();
}

uint16_t free_port() {
  const Result<TcpListener> listener = TcpListener::listen("127.0.0.1", 0);
  EXPECT_TRUE(listener.ok());
  return listener->port();
}

// Node 0's engine, and the others that follow it, each on a thread.
struct Group {
  std::vector<std::future<Status>> followers;
  std::unique_ptr<Engine> leader;
  Group() = default;
  Group(Group&&) = default;
  Group& operator=(Group&&) = delete;
  ~Group() {
    leader.reset();
    for (auto& follower : followers) {
      const Status status = follower.get();
      EXPECT_TRUE(status.ok()) << status.message();
    }
  }
};
Group make_group(EngineConfig config, int64_t num_nodes) {
  config.parallel.nnodes = num_nodes;
  config.parallel.master_port = free_port();
  config.parallel.group_join_timeout_s = 60;
  Group group;
  for (int64_t node = 1; node < num_nodes; ++node) {
    group.followers.push_back(std::async(std::launch::async, [config, node]() mutable -> Status {
      config.parallel.node_rank = node;
      Engine::Options options;
      options.config = config;
      ASSIGN_OR_RETURN(const std::unique_ptr<GroupFollower> follower, GroupFollower::create(std::move(options)));
      return follower->follow();
    }));
  }
  group.leader = make_engine(config);
  return group;
}

struct Answers {
  std::vector<std::vector<int32_t>> token_ids;
  std::vector<float> logprobs;  // of all tokens and their likeliest, in order
};

// Requests of every kind, at once: long prompts over several chunks, choices, penalties, logprobs of prompts.
Answers ask_many(Engine& engine, bool greedy) {
  std::mt19937_64 rng(17);
  auto sink = std::make_shared<CollectingSink>();
  std::vector<std::pair<RequestId, int32_t>> choices;
  for (int i = 0; i < 12; ++i) {
    Request request;
    request.prompt_token_ids.resize(1 + static_cast<size_t>(i) * 17);
    for (int32_t& id : request.prompt_token_ids) id = static_cast<int32_t>(rng() % 320);
    request.sampling.max_tokens = 6 + i % 5;
    request.sampling.ignore_eos = true;
    request.sampling.temperature = greedy ? 0 : 1.0f;
    request.sampling.seed = rng();
    request.sampling.n = i % 3 == 0 ? 2 : 1;
    request.sampling.repetition_penalty = i % 4 == 0 ? 1.2f : 1.0f;
    request.sampling.logprobs = 5;
    if (i % 5 == 0) request.sampling.prompt_logprobs = 3;
    const int32_t n = request.sampling.n;
    const Result<RequestId> id = engine.submit(std::move(request), sink);
    EXPECT_TRUE(id.ok()) << id.status().message();
    for (int32_t choice = 0; choice < n; ++choice) choices.emplace_back(*id, choice);
  }
  EXPECT_TRUE(sink->wait_ended(choices.size()));
  Answers answers;
  for (const auto& [id, idx] : choices) {
    const CollectingSink::Choice choice = sink->choice(id, idx);
    EXPECT_EQ(choice.finish_reason, FinishReason::kLength) << choice.last.error;
    answers.token_ids.push_back(choice.token_ids);
    for (const auto* positions : {&choice.logprobs, &choice.prompt_logprobs}) {
      for (const PositionLogprobs& position : *positions) {
        answers.logprobs.push_back(position.chosen.logprob);
        for (const TokenLogprob& token : position.top) answers.logprobs.push_back(token.logprob);
      }
    }
  }
  EXPECT_TRUE(engine.wait_drained(60));
  const Status integrity = engine.check_integrity();
  EXPECT_TRUE(integrity.ok()) << integrity.message();
  EXPECT_EQ(engine.stats().num_blocks_used, 0);
  return answers;
}

// Passing fp32 rows on changes no bit, and on the CPU neither does the batch.
TEST(EngineParallel, StagesGiveTheBitsOfOneRank) {
  if (!is_cpu()) GTEST_SKIP() << "sums follow the batch there, and the batches differ";
  const auto whole = make_engine(config_of(1, 1));
  const Answers expected = ask_many(*whole, false);
  for (const int64_t stages : {2, 3}) {
    const auto staged = make_engine(config_of(1, stages));
    const Answers answers = ask_many(*staged, false);
    EXPECT_EQ(answers.token_ids, expected.token_ids) << stages;
    EXPECT_EQ(answers.logprobs, expected.logprobs) << stages;
    EXPECT_EQ(staged->info().pipeline_parallel_size, stages);
  }
}

TEST(EngineParallel, ProcessesGiveTheBitsOfOneRank) {
  if (!is_cpu()) GTEST_SKIP() << "TCP between ranks is the CPU's";
  const auto whole = make_engine(config_of(1, 1));
  const Answers expected = ask_many(*whole, false);
  const Group group = make_group(config_of(1, 3), 3);
  const Answers answers = ask_many(*group.leader, false);
  EXPECT_EQ(answers.token_ids, expected.token_ids);
  EXPECT_EQ(answers.logprobs, expected.logprobs);
  EXPECT_EQ(group.leader->info().num_nodes, 3);
}

// Ranks over TCP sum in the order of ranks, as threads do.
TEST(EngineParallel, ProcessesOfTensorRanksGiveTheBitsOfThreads) {
  if (!is_cpu()) GTEST_SKIP() << "TCP between ranks is the CPU's";
  const auto threads = make_engine(config_of(2, 1));
  const Answers expected = ask_many(*threads, false);
  {
    const Group group = make_group(config_of(2, 1), 2);
    const Answers answers = ask_many(*group.leader, false);
    EXPECT_EQ(answers.token_ids, expected.token_ids);
    EXPECT_EQ(answers.logprobs, expected.logprobs);
  }
  // Stages, and processes that cut them: of six ranks two are on each of three nodes.
  for (const int64_t num_nodes : {1, 2, 3}) {
    const Group group = make_group(config_of(2, 3), num_nodes);
    const Answers answers = ask_many(*group.leader, false);
    EXPECT_EQ(answers.token_ids, expected.token_ids) << num_nodes;
    EXPECT_EQ(answers.logprobs, expected.logprobs) << num_nodes;
  }
}

// 2 stages: the first sends H fp32 values for every token that a step computes.
TEST(EngineParallel, RowsPassedOnAreThoseOfTheFormula) {
  if (!is_cpu()) GTEST_SKIP() << "counted on the CPU";
  const auto engine = make_engine(config_of(1, 2));
  Request request;
  request.prompt_token_ids = std::vector<int32_t>(50, 7);
  request.sampling.max_tokens = 9;
  request.sampling.ignore_eos = true;
  auto sink = std::make_shared<CollectingSink>();
  ASSERT_TRUE(engine->submit(std::move(request), sink).ok());
  ASSERT_TRUE(sink->wait_ended(1));
  ASSERT_TRUE(engine->wait_drained(60));
  constexpr uint64_t kHidden = 64;
  // The last token chosen is not computed.
  EXPECT_EQ(engine->stats().collectives.of(CollectiveKind::kSend).bytes, (50 + 9 - 1) * kHidden * sizeof(float));
  EXPECT_EQ(engine->stats().collectives.of(CollectiveKind::kReceive).bytes, (50 + 9 - 1) * kHidden * sizeof(float));
}

TEST(EngineParallel, MoreStagesThanLayersAreRefused) {
  Engine::Options options;
  options.config = config_of(1, 4);
  const auto engine = Engine::create(std::move(options));
  EXPECT_EQ(engine.status().param(), "pipeline_parallel_size");
  EXPECT_THAT(engine.status().message(), HasSubstr("3 layers"));
}

TEST(EngineParallel, ANodeThatDiffersIsRefusedBeforeLoading) {
  if (!is_cpu()) GTEST_SKIP() << "nothing of it is the device's";
  EngineConfig config = config_of(1, 2);
  config.parallel.nnodes = 2;
  config.parallel.master_port = free_port();
  config.parallel.group_join_timeout_s = 60;
  std::future<std::unique_ptr<Engine>> leader =
      std::async(std::launch::async, [config] { return make_engine(config); });
  const auto refusal = [&](auto&& change) {
    Engine::Options options;
    options.config = config;
    options.config.parallel.node_rank = 1;
    bool planned = false;
    options.on_memory_plan = [&](const std::string&) { planned = true; };
    change(options.config);
    const auto follower = GroupFollower::create(std::move(options));
    EXPECT_FALSE(planned) << "before loading";
    return follower.status().message();
  };
  EXPECT_THAT(refusal([](EngineConfig& c) {
                c.parallel.nnodes = 3;
                c.parallel.pipeline_parallel_size = 3;
              }),
              HasSubstr("nnodes is '3' on node 1 and '2' on node 0"));
  EXPECT_THAT(refusal([](EngineConfig& c) { c.parallel.master_addr = "localhost"; }),
              HasSubstr("master_addr is 'localhost' on node 1 and '127.0.0.1' on node 0"));
  EXPECT_THAT(refusal([](EngineConfig& c) {
                c.model.model = std::string(SEXTANT_TEST_DATA) + "/golden/tiny/llama3_rope";
                c.model.max_model_len = 0;
              }),
              testing::ContainsRegex("model_revision is '[0-9a-f]+' on node 1 and '[0-9a-f]+' on node 0"));
  EXPECT_THAT(refusal([](EngineConfig& c) { c.model.dtype = "bfloat16"; }),
              HasSubstr("dtype is 'bfloat16' on node 1 and 'auto' on node 0"));
  EXPECT_THAT(refusal([](EngineConfig& c) { c.parallel.group_secret = "other"; }), HasSubstr("SEXTANT_GROUP_SECRET"));
  Engine::Options right;
  right.config = config;
  right.config.parallel.node_rank = 1;
  const auto follower = GroupFollower::create(std::move(right));
  ASSERT_TRUE(follower.ok()) << follower.status().message();
  std::future<Status> following = std::async(std::launch::async, [&] { return (*follower)->follow(); });
  leader.get().reset();
  EXPECT_TRUE(following.get().ok());
}

// A node that goes while requests run: everyone is answered, the engine is not healthy, and says who is missing.
TEST(EngineParallel, ALostNodeEndsEveryRequestAndIsNamed) {
  if (!is_cpu()) GTEST_SKIP() << "TCP between ranks is the CPU's";
  EngineConfig config = config_of(1, 2);
  config.parallel.nnodes = 2;
  config.parallel.master_port = free_port();
  config.parallel.group_join_timeout_s = 60;
  std::promise<GroupFollower*> ready;
  std::future<Status> following = std::async(std::launch::async, [&, of_node = config]() mutable -> Status {
    of_node.parallel.node_rank = 1;
    Engine::Options options;
    options.config = of_node;
    ASSIGN_OR_RETURN(const std::unique_ptr<GroupFollower> follower, GroupFollower::create(std::move(options)));
    ready.set_value(follower.get());
    return follower->follow();
  });
  const auto engine = make_engine(config);
  GroupFollower* follower = ready.get_future().get();
  auto sink = std::make_shared<CollectingSink>();
  for (int i = 0; i < 3; ++i) {
    Request request;
    request.prompt_token_ids = {1, 2, 3};
    request.sampling.max_tokens = 60;
    request.sampling.ignore_eos = true;
    const Result<RequestId> id = engine->submit(std::move(request), sink);
    ASSERT_TRUE(id.ok());
    if (i == 0) {
      ASSERT_TRUE(sink->wait_tokens(*id, 2));
    }
  }
  follower->leave("the test says so");
  EXPECT_TRUE(following.get().ok());
  ASSERT_TRUE(sink->wait_ended(3));
  ASSERT_TRUE(engine->wait_drained(60));
  EXPECT_FALSE(engine->stats().healthy);
}

// The reference's tokens wherever it is sure of them, over three prompts and eight steps.
TEST(EngineParallel, SmolLm2GivesTheReferencesTokens) {
  const char* path = std::getenv("SEXTANT_TEST_MODEL");
  if (path == nullptr) GTEST_SKIP() << "SEXTANT_TEST_MODEL is not set to the path of the default model";
  const bool is_full =
      std::string_view(std::getenv("SEXTANT_FULL_TESTS") ? std::getenv("SEXTANT_FULL_TESTS") : "") == "1";
  std::ifstream file(std::string(SEXTANT_TEST_DATA) + "/golden/smollm2-135m-instruct-q4_1.json");
  const nlohmann::json golden = nlohmann::json::parse(file);
  const size_t num_cases = is_full ? golden["greedy"].size() : 3;
  const size_t num_steps = is_full ? 32 : 8;
  for (const auto& [tensor_size, num_stages] : std::vector<std::pair<int64_t, int64_t>>{{1, 2}, {3, 2}}) {
    EngineConfig config = config_of(tensor_size, num_stages);
    config.model.model = path;
    config.model.max_model_len = 256;
    config.cache.kv_cache_memory_bytes = 16 << 20;
    config.scheduler.max_num_seqs = 4;
    const auto engine = make_engine(config);
    size_t num_judged = 0;
    for (size_t c = 0; c < num_cases; ++c) {
      const nlohmann::json& each = golden["greedy"][c];
      std::vector<int32_t> expected;
      for (const nlohmann::json& step : each["steps"]) {
        const double gap = step["top"][0][1].get<double>() - step["top"][1][1].get<double>();
        if (gap < 0.2 || expected.size() == num_steps) break;
        expected.push_back(step["id"]);
      }
      if (expected.empty()) continue;
      Request request;
      request.prompt_token_ids = each["ids"].get<std::vector<int32_t>>();
      request.sampling.max_tokens = static_cast<int64_t>(expected.size());
      request.sampling.temperature = 0;
      request.sampling.ignore_eos = true;
      auto sink = std::make_shared<CollectingSink>();
      const Result<RequestId> id = engine->submit(std::move(request), sink);
      ASSERT_TRUE(id.ok());
      ASSERT_TRUE(sink->wait_ended(1));
      EXPECT_EQ(sink->choice(*id).token_ids, expected)
          << "case " << c << ", tensor parallel " << tensor_size << ", stages " << num_stages;
      num_judged += expected.size();
    }
    EXPECT_GE(num_judged, 12u);
  }
}

}  // namespace
}  // namespace sextant
