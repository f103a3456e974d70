#include "engine/step_dump.h"

#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "engine/format/json_file.h"
#include "tests/support/random_seed.h"
#include "tests/support/scratch_directory.h"

namespace sextant {
namespace {

using Json = nlohmann::json;
using testing::HasSubstr;

class RandomDump {
 public:
  explicit RandomDump(uint64_t seed) : rng_(seed) {}

  StepDump make() {
    StepDump dump;
    dump.reason = "\"quoted\", \n and ünïcode";
    dump.device = "NVIDIA H200";
    dump.config.model.model = "/models/x.gguf";
    dump.config.cache.gpu_memory_utilization = real(0.1, 1);
    dump.config.scheduler.max_num_seqs = number(1, 300);
    dump.config.cache.enable_prefix_caching = coin();
    const auto num_groups = static_cast<size_t>(number(1, 3));
    SequenceId next_id = static_cast<SequenceId>(number(1, 1000));
    for (RequestId id = 1; id <= static_cast<RequestId>(number(1, 5)); ++id) {
      const std::shared_ptr<const Request> request = make_request(id);
      for (int32_t choice = 0; choice < request->sampling.n; ++choice) {
        StepDump::SequenceState& sequence = dump.sequences.emplace_back();
        sequence.sequence_id = next_id++;
        sequence.choice_idx = choice;
        sequence.request = request;
        sequence.output_token_ids = ids(0, 20);
        for (size_t g = 0; g < num_groups; ++g) sequence.block_tables.push_back(ids(0, 9));
      }
    }
    uint64_t step_id = static_cast<uint64_t>(number(1, 1 << 30));
    for (int64_t i = number(1, 3); i > 0; --i) dump.steps.push_back(make_step(dump, step_id += 2, num_groups));
    return dump;
  }

 private:
  int64_t number(int64_t low, int64_t high) { return std::uniform_int_distribution<int64_t>(low, high)(rng_); }
  double real(double low, double high) { return std::uniform_real_distribution<double>(low, high)(rng_); }
  bool coin() { return number(0, 1) == 1; }
  std::vector<int32_t> ids(int64_t least, int64_t most) {
    std::vector<int32_t> list(static_cast<size_t>(number(least, most)));
    for (int32_t& id : list) id = static_cast<int32_t>(number(0, 200'000));
    return list;
  }

  std::shared_ptr<const Request> make_request(RequestId id) {
    auto request = std::make_shared<Request>();
    request->request_id = id << 40;  // ids are 64 bits wide
    request->prompt_token_ids = ids(1, 40);
    SamplingParams& sampling = request->sampling;
    sampling.n = static_cast<int32_t>(number(1, 4));
    sampling.temperature = static_cast<float>(real(0, 2));
    sampling.top_p = static_cast<float>(real(0.01, 1));
    sampling.top_k = static_cast<int32_t>(number(-1, 100));
    sampling.min_p = static_cast<float>(real(0, 1));
    sampling.presence_penalty = static_cast<float>(real(-2, 2));
    sampling.frequency_penalty = static_cast<float>(real(-2, 2));
    sampling.repetition_penalty = static_cast<float>(real(0.01, 3));
    for (const int32_t token_id : ids(0, 5)) {
      sampling.logit_bias.emplace_back(token_id, static_cast<float>(real(-100, 100)));
    }
    sampling.allowed_token_ids = ids(0, 5);
    sampling.seed = rng_();
    sampling.max_tokens = number(1000, int64_t{1} << 40);
    sampling.min_tokens = number(0, 1000);
    sampling.ignore_eos = coin();
    sampling.stop_token_ids = ids(0, 3);
    if (coin()) sampling.logprobs = static_cast<int32_t>(number(0, 20));
    if (coin()) sampling.prompt_logprobs = static_cast<int32_t>(number(0, 20));
    return request;
  }

  std::shared_ptr<const SchedulerOutput> make_step(const StepDump& dump, uint64_t step_id, size_t num_groups) {
    auto step = std::make_shared<SchedulerOutput>();
    step->step_id = step_id;
    for (const StepDump::SequenceState& sequence : dump.sequences) {
      if (!step->sequences.empty() && coin()) continue;
      ScheduledSequence& scheduled = step->sequences.emplace_back();
      scheduled.sequence_id = sequence.sequence_id;
      scheduled.num_computed_tokens = static_cast<int32_t>(number(0, 100));
      scheduled.num_scheduled_tokens = static_cast<int32_t>(number(1, 30));
      scheduled.token_offset = step->num_tokens();
      scheduled.num_prompt_tokens = static_cast<int32_t>(sequence.request->prompt_token_ids.size());
      scheduled.restarts_block_table = coin();
      scheduled.samples = coin();
      scheduled.last_token_on_device = coin();
      for (int32_t i = 0; i < scheduled.num_scheduled_tokens; ++i) {
        step->token_ids.push_back(static_cast<int32_t>(number(0, 200'000)));
      }
      if (coin()) step->new_sequences.push_back({sequence.sequence_id, sequence.choice_idx, sequence.request});
    }
    for (size_t g = 0; g < num_groups; ++g) {
      NewBlocks& blocks = step->new_blocks.emplace_back();
      blocks.offsets.push_back(0);
      for (size_t i = 0; i < step->sequences.size(); ++i) {
        for (const int32_t id : ids(0, 3)) blocks.block_ids.push_back(id);
        blocks.offsets.push_back(static_cast<int32_t>(blocks.block_ids.size()));
      }
    }
    for (const int32_t id : ids(0, 4)) step->finished_sequences.push_back(static_cast<SequenceId>(id) << 35);
    return step;
  }

  std::mt19937_64 rng_;
};

void expect_equal(const Request& a, const Request& b) {
  EXPECT_EQ(a.request_id, b.request_id);
  EXPECT_EQ(a.prompt_token_ids, b.prompt_token_ids);
  const SamplingParams& x = a.sampling;
  const SamplingParams& y = b.sampling;
  EXPECT_EQ(std::tie(x.n, x.temperature, x.top_p, x.top_k, x.min_p, x.presence_penalty, x.frequency_penalty,
                     x.repetition_penalty, x.logit_bias, x.allowed_token_ids, x.seed, x.max_tokens, x.min_tokens,
                     x.ignore_eos, x.stop_token_ids, x.logprobs, x.prompt_logprobs),
            std::tie(y.n, y.temperature, y.top_p, y.top_k, y.min_p, y.presence_penalty, y.frequency_penalty,
                     y.repetition_penalty, y.logit_bias, y.allowed_token_ids, y.seed, y.max_tokens, y.min_tokens,
                     y.ignore_eos, y.stop_token_ids, y.logprobs, y.prompt_logprobs));
}

void expect_equal(const SchedulerOutput& a, const SchedulerOutput& b) {
  EXPECT_EQ(a.step_id, b.step_id);
  EXPECT_EQ(a.token_ids, b.token_ids);
  EXPECT_EQ(a.finished_sequences, b.finished_sequences);
  ASSERT_EQ(a.sequences.size(), b.sequences.size());
  for (size_t i = 0; i < a.sequences.size(); ++i) {
    const ScheduledSequence& x = a.sequences[i];
    const ScheduledSequence& y = b.sequences[i];
    EXPECT_EQ(std::tie(x.sequence_id, x.num_computed_tokens, x.num_scheduled_tokens, x.token_offset,
                       x.num_prompt_tokens, x.restarts_block_table, x.samples, x.last_token_on_device),
              std::tie(y.sequence_id, y.num_computed_tokens, y.num_scheduled_tokens, y.token_offset,
                       y.num_prompt_tokens, y.restarts_block_table, y.samples, y.last_token_on_device));
  }
  ASSERT_EQ(a.new_blocks.size(), b.new_blocks.size());
  for (size_t g = 0; g < a.new_blocks.size(); ++g) {
    EXPECT_EQ(a.new_blocks[g].block_ids, b.new_blocks[g].block_ids);
    EXPECT_EQ(a.new_blocks[g].offsets, b.new_blocks[g].offsets);
  }
  ASSERT_EQ(a.new_sequences.size(), b.new_sequences.size());
  for (size_t i = 0; i < a.new_sequences.size(); ++i) {
    EXPECT_EQ(a.new_sequences[i].sequence_id, b.new_sequences[i].sequence_id);
    EXPECT_EQ(a.new_sequences[i].choice_idx, b.new_sequences[i].choice_idx);
    expect_equal(*a.new_sequences[i].request, *b.new_sequences[i].request);
  }
}

TEST(StepDump, ParseGivesBackWhatWasRendered) {
  const uint64_t seed = random_seed();
  for (uint64_t i = 0; i < 200; ++i) {
    SCOPED_TRACE("seed " + std::to_string(seed + i));
    const StepDump dump = RandomDump(seed + i).make();
    const std::string text = render_step_dump(dump);
    const Result<StepDump> parsed = parse_step_dump(text, "dump");
    ASSERT_TRUE(parsed.ok()) << parsed.status().message() << "\n" << text;
    EXPECT_EQ(parsed->reason, dump.reason);
    EXPECT_EQ(parsed->device, dump.device);
    EXPECT_EQ(parsed->config.cache.gpu_memory_utilization, dump.config.cache.gpu_memory_utilization);
    EXPECT_EQ(parsed->config.scheduler.max_num_seqs, dump.config.scheduler.max_num_seqs);
    ASSERT_EQ(parsed->sequences.size(), dump.sequences.size());
    for (size_t s = 0; s < dump.sequences.size(); ++s) {
      EXPECT_EQ(parsed->sequences[s].sequence_id, dump.sequences[s].sequence_id);
      EXPECT_EQ(parsed->sequences[s].choice_idx, dump.sequences[s].choice_idx);
      EXPECT_EQ(parsed->sequences[s].output_token_ids, dump.sequences[s].output_token_ids);
      EXPECT_EQ(parsed->sequences[s].block_tables, dump.sequences[s].block_tables);
      expect_equal(*parsed->sequences[s].request, *dump.sequences[s].request);
    }
    ASSERT_EQ(parsed->steps.size(), dump.steps.size());
    for (size_t s = 0; s < dump.steps.size(); ++s) expect_equal(*parsed->steps[s], *dump.steps[s]);
    EXPECT_EQ(render_step_dump(*parsed), text);
  }
}

std::string error_of(const std::string& text) {
  const Result<StepDump> parsed = parse_step_dump(text, "dump");
  return parsed.ok() ? "" : parsed.status().message();
}

// One valid dump with one thing wrong, at a JSON pointer.
TEST(StepDump, WhatDoesNotFitTogetherIsRefusedWithItsPlace) {
  const Json valid = Json::parse(render_step_dump(RandomDump(5).make()));
  ASSERT_EQ(error_of(valid.dump()), "");
  const struct {
    const char* pointer;
    Json value;
    const char* message;
  } kCases[] = {
      {"/version", 2, "version 2, this program reads version 1"},
      {"/version", "1", "version"},
      {"/reason", 5, ".reason is of the wrong type"},
      {"/extra", 1, "fields that are not known"},
      {"/config", Json::array(), "config must be an object"},
      {"/config/max_num_seqs", "many", "config.max_num_seqs"},
      {"/config/max_num_seqs", 1e300, "config.max_num_seqs"},
      {"/config/colour", "red", "settings that are not known"},
      {"/requests", Json::object(), "requests must be an array"},
      {"/requests/0/request_id", -1, "requests[0].request_id"},
      {"/requests/0/prompt_token_ids", Json::array(), "prompt_token_ids is empty"},
      {"/requests/0/prompt_token_ids/0", -7, "negative id"},
      {"/requests/0/prompt_token_ids/0", int64_t{1} << 31, "out of range"},
      {"/requests/0/sampling/top_p", 1.5, "top_p"},
      {"/requests/0/sampling/top_p", 1e39, "top_p is of the wrong type or out of range"},
      {"/requests/0/sampling/seed", -1, "sampling.seed"},
      {"/requests/0/sampling/logit_bias", Json::parse("[[1]]"), "logit_bias"},
      {"/requests/0/sampling/n", 0, "n must be"},
      {"/sequences/0/request_id", 4, "which is not there"},
      {"/sequences/0/choice_idx", 99, "choice_idx"},
      {"/sequences/0/choice_idx", -1, "choice_idx"},
      {"/sequences/0/block_tables", Json::array(), "cache groups"},
      {"/sequences/0/block_tables/0", Json::parse("[-1]"), "negative id"},
      {"/steps/0", nullptr, "must be an object"},
      {"/steps/0/step_id", uint64_t{1} << 60, "step_id does not come after"},
      {"/steps/0/sequences", Json::array(), "sequences must be a list with entries"},
      {"/steps/0/sequences/0/sequence_id", 1 << 30, "of a sequence that is not there"},
      {"/steps/0/sequences/0/num_scheduled_tokens", 0, "does not follow"},
      {"/steps/0/sequences/0/num_scheduled_tokens", 2147483647, "sequences[1] does not follow"},
      {"/steps/0/sequences/0/num_computed_tokens", -1, "does not follow"},
      {"/steps/0/sequences/0/token_offset", 1, "does not follow"},
      {"/steps/0/sequences/0/num_prompt_tokens", 1000, "num_prompt_tokens"},
      {"/steps/0/sequences/0/samples", 1, "samples"},
      {"/steps/0/token_ids", Json::array(), "not as many as the sequences have"},
      {"/steps/0/new_blocks/0/offsets", Json::array(), "offsets do not divide"},
      {"/steps/0/new_blocks/0/offsets/0", 1, "offsets do not divide"},
      {"/steps/0/new_sequences", Json::parse("[123456]"), "which it does not schedule"},
  };
  for (const auto& wrong : kCases) {
    Json changed = valid;
    changed[Json::json_pointer(wrong.pointer)] = wrong.value;
    EXPECT_THAT(error_of(changed.dump()), HasSubstr(wrong.message)) << wrong.pointer;
  }
  for (const char* key : {"version", "reason", "device", "config", "requests", "sequences", "steps"}) {
    Json changed = valid;
    changed.erase(key);
    EXPECT_THAT(error_of(changed.dump()), HasSubstr(std::string(key) + " is missing"));
  }
  Json twice = valid;
  twice["sequences"].push_back(twice["sequences"][0]);
  EXPECT_THAT(error_of(twice.dump()), HasSubstr("is there twice"));
  for (const char* text : {"", "[]", "3", "{}", "{\"version\":1", "nonsense"}) EXPECT_NE(error_of(text), "") << text;
}

// Whatever value stands wherever: a message or a dump, never a crash.
TEST(StepDump, AnyValueAnywhereIsReadOrRefused) {
  const uint64_t seed = random_seed();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 rng(seed);
  const Json values[] = {
      nullptr,       true,          0, -1, 1, 2147483647, int64_t{-1} << 62, ~uint64_t{0}, 1e308, "text",
      Json::array(), Json::object()};
  const Json flat = Json::parse(render_step_dump(RandomDump(seed).make())).flatten();
  std::vector<std::string> pointers;
  for (const auto& [pointer, value] : flat.items()) pointers.push_back(pointer);
  size_t num_refused = 0;
  for (int i = 0; i < 2000; ++i) {
    Json changed = flat.unflatten();
    const Json::json_pointer pointer(pointers[rng() % pointers.size()]);
    changed[rng() % 4 == 0 ? pointer.parent_pointer() : pointer] = values[rng() % std::size(values)];
    num_refused += !error_of(changed.dump()).empty();
  }
  EXPECT_GT(num_refused, 500u);
}

TEST(StepDump, FilesDoNotReplaceEachOther) {
  const ScratchDirectory directory;
  const StepDump dump = RandomDump(1).make();
  const Result<std::string> first = write_step_dump(dump, directory.path());
  const Result<std::string> second = write_step_dump(dump, directory.path());
  ASSERT_TRUE(first.ok() && second.ok());
  EXPECT_NE(*first, *second);
  EXPECT_EQ(*read_text_file(*first, 1 << 20), render_step_dump(dump));
  EXPECT_THAT(write_step_dump(dump, directory.file("missing")).status().message(), HasSubstr("No such file"));
}

}  // namespace
}  // namespace sextant
