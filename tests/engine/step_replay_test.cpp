// A dump run again says what the engine said, in whatever blocks it stands; what cannot be run is refused.
#include "engine/step_replay.h"

#include <algorithm>
#include <numeric>

#include <gtest/gtest.h>

#include "engine/engine.h"
#include "tests/support/collecting_sink.h"

namespace sextant {
namespace {

const std::string kModel = std::string(SEXTANT_TEST_DATA) + "/golden/tiny/llama";

EngineConfig tiny_config() {
  EngineConfig config;
  config.model.model = kModel;
  config.device.device = "cpu";
  config.device.num_threads = 1;
  config.cache.kv_cache_memory_bytes = 1 << 20;
  config.scheduler.max_num_batched_tokens = 16;
  config.scheduler.max_num_seqs = 4;
  return config;
}

std::vector<int32_t> engine_tokens(const std::vector<int32_t>& prompt, int64_t count) {
  Result<std::unique_ptr<Engine>> engine =
      Engine::create({.config = tiny_config(), .eos_token_ids = {}, .on_step = {}, .on_memory_plan = {}});
  EXPECT_TRUE(engine.ok()) << engine.status().message();
  Request request;
  request.prompt_token_ids = prompt;
  request.sampling.temperature = 0;
  request.sampling.ignore_eos = true;
  request.sampling.max_tokens = count;
  const auto sink = std::make_shared<testing_support::CollectingSink>();
  const Result<RequestId> id = (*engine)->submit(std::move(request), sink);
  EXPECT_TRUE(id.ok()) << id.status().message();
  EXPECT_TRUE(sink->wait_ended(1));
  return sink->choice(*id).token_ids;
}

// Two decode steps of one sequence that has `num_output` tokens, the second with its token on the device only; and, in the
// first, the first piece of a new one's prompt.
StepDump make_dump(const std::vector<int32_t>& prompt, const std::vector<int32_t>& output, size_t num_output) {
  StepDump dump;
  dump.reason = "the device was taken away";
  dump.device = "cuda (pretended)";
  dump.config = tiny_config();
  auto request = std::make_shared<Request>();
  request->request_id = 1;
  request->prompt_token_ids = prompt;
  request->sampling.temperature = 0;
  request->sampling.ignore_eos = true;
  request->sampling.max_tokens = static_cast<int64_t>(output.size());
  auto other = std::make_shared<Request>(*request);
  other->request_id = 2;
  const auto known = static_cast<int32_t>(prompt.size() + num_output);
  std::vector<BlockId> table(static_cast<size_t>(known) / 16 + 1);
  std::iota(table.rbegin(), table.rend(), 40);  // not in order, and beyond what the cache would hold
  dump.sequences.push_back(
      {7, 0, request, {output.begin(), output.begin() + static_cast<std::ptrdiff_t>(num_output)}, {table}});
  dump.sequences.push_back({8, 0, other, {}, {{}}});
  for (int32_t i = 0; i < 2; ++i) {
    auto step = std::make_shared<SchedulerOutput>();
    step->step_id = 100 + static_cast<uint64_t>(i);
    ScheduledSequence decode;
    decode.sequence_id = 7;
    decode.num_computed_tokens = known - 1 + i;
    decode.num_scheduled_tokens = 1;
    decode.num_prompt_tokens = static_cast<int32_t>(prompt.size());
    decode.samples = true;
    decode.last_token_on_device = i == 1;
    step->sequences.push_back(decode);
    step->token_ids.push_back(i == 1 ? 0 : output[num_output - 1]);
    step->new_blocks.resize(1);
    step->new_blocks[0].offsets = {0, 0};
    if (i == 0) {
      step->new_sequences.push_back({8, 0, other});
      ScheduledSequence prefill;
      prefill.sequence_id = 8;
      prefill.num_scheduled_tokens = 10;
      prefill.token_offset = 1;
      prefill.num_prompt_tokens = static_cast<int32_t>(prompt.size());
      prefill.restarts_block_table = true;
      step->sequences.push_back(prefill);
      step->token_ids.insert(step->token_ids.end(), prompt.begin(), prompt.begin() + 10);
      step->new_blocks[0].block_ids = {3};
      step->new_blocks[0].offsets.push_back(1);
    }
    dump.steps.push_back(std::move(step));
  }
  return dump;
}

std::vector<int32_t> prompt_of(int32_t length) {
  std::vector<int32_t> prompt;
  for (int32_t i = 0; i < length; ++i) prompt.push_back((i * 37 + 11) % 97);
  return prompt;
}

TEST(StepReplay, GivesTheTokensThatTheEngineGave) {
  const std::vector<int32_t> prompt = prompt_of(40);
  const std::vector<int32_t> output = engine_tokens(prompt, 12);
  ASSERT_EQ(output.size(), 12u);
  const StepDump dump = make_dump(prompt, output, 5);
  // Through its text, as a user has it.
  const Result<StepDump> read = parse_step_dump(render_step_dump(dump), "dump");
  ASSERT_TRUE(read.ok()) << read.status().message();
  std::vector<std::string> lines;
  const Result<ReplayReport> report = replay_steps(
      *read,
      {.device = {}, .model = {}, .step_timeout_s = {}, .on_hang = {}, .on_progress = [&](const std::string& line) {
         lines.push_back(line);
       }});
  ASSERT_TRUE(report.ok()) << report.status().message();
  EXPECT_FALSE(report->failed) << report->error;
  ASSERT_EQ(report->steps.size(), 2u);
  EXPECT_EQ(report->steps[0].token_ids, std::vector<int32_t>{output[5]});
  EXPECT_EQ(report->steps[1].token_ids, std::vector<int32_t>{output[6]});
  EXPECT_EQ(report->steps[0].num_tokens, 11);
  EXPECT_NE(report->device.find("cpu"), std::string::npos);
  EXPECT_NE(lines.back().find("step 101"), std::string::npos);
}

TEST(StepReplay, RefusesWhatThisModelCannotHold) {
  const std::vector<int32_t> prompt = prompt_of(40);
  const std::vector<int32_t> output = prompt_of(12);
  const auto message = [&](const std::function<void(StepDump&)>& change) {
    StepDump dump = make_dump(prompt, output, 5);
    change(dump);
    const Result<ReplayReport> report = replay_steps(dump, {});
    EXPECT_FALSE(report.ok());
    return report.ok() ? std::string() : report.status().message();
  };
  EXPECT_NE(message([](StepDump& dump) { dump.steps.clear(); }).find("no steps"), std::string::npos);
  EXPECT_NE(message([](StepDump& dump) { dump.config.model.model = "/nonexistent"; }).find("/nonexistent"),
            std::string::npos);
  EXPECT_NE(message([](StepDump& dump) { dump.sequences[0].output_token_ids[0] = 1 << 30; }).find("vocabulary"),
            std::string::npos);
  EXPECT_NE(message([](StepDump& dump) { dump.sequences[0].block_tables[0] = {1}; }).find("computed more tokens"),
            std::string::npos);
  EXPECT_NE(message([](StepDump& dump) { dump.sequences[0].block_tables[0][0] = 1 << 30; }).find("cannot be"),
            std::string::npos);
  EXPECT_NE(
      message([](StepDump& dump) { dump.config.scheduler.max_num_batched_tokens = 4; }).find("max_num_batched_tokens"),
      std::string::npos);
  EXPECT_NE(message([](StepDump& dump) {
              auto step = std::make_shared<SchedulerOutput>(*dump.steps[0]);
              step->new_blocks.clear();
              dump.steps = {step};
            }).find("cache groups"),
            std::string::npos);
}

}  // namespace
}  // namespace sextant
