#include "engine/group/step_message.h"

#include <gtest/gtest.h>
#include <random>

#include "engine/group/bytes.h"

namespace sextant {
namespace {

constexpr StepBounds kBounds = {.vocab_size = 1000,
                                .num_blocks = 100,
                                .block_size = 16,
                                .max_model_len = 512,
                                .max_num_seqs = 8,
                                .max_num_batched_tokens = 64};

SchedulerOutput example_step() {
  auto request = std::make_shared<Request>();
  request->request_id = 7;
  request->prompt_token_ids = {5, 6, 7};
  request->sampling.n = 2;
  request->sampling.temperature = 0.7f;
  request->sampling.repetition_penalty = 1.25f;
  request->sampling.logit_bias = {{3, -1.5f}, {9, 100.0f}};
  request->sampling.allowed_token_ids = {1, 2, 3};
  request->sampling.seed = 0xfedcba9876543210;
  request->sampling.stop_token_ids = {2};
  request->sampling.logprobs = 5;
  SchedulerOutput step;
  step.step_id = 300;
  step.finished_sequences = {1, 1ull << 60};
  step.new_sequences = {{10, 0, request}, {11, 1, request}};
  step.sequences.resize(2);
  step.sequences[0] = {10, 0, 3, 0, 3, true, true, false};
  step.sequences[1] = {4, 40, 1, 3, 20, false, true, true};
  step.token_ids = {5, 6, 7, 0};
  step.new_blocks = {{{17, 99}, {0, 1, 2}}};
  return step;
}

void expect_equal(const SchedulerOutput& a, const SchedulerOutput& b) {
  EXPECT_EQ(a.step_id, b.step_id);
  EXPECT_EQ(a.finished_sequences, b.finished_sequences);
  EXPECT_EQ(a.token_ids, b.token_ids);
  ASSERT_EQ(a.sequences.size(), b.sequences.size());
  for (size_t i = 0; i < a.sequences.size(); ++i) {
    EXPECT_EQ(a.sequences[i].sequence_id, b.sequences[i].sequence_id);
    EXPECT_EQ(a.sequences[i].num_computed_tokens, b.sequences[i].num_computed_tokens);
    EXPECT_EQ(a.sequences[i].num_scheduled_tokens, b.sequences[i].num_scheduled_tokens);
    EXPECT_EQ(a.sequences[i].token_offset, b.sequences[i].token_offset);
    EXPECT_EQ(a.sequences[i].num_prompt_tokens, b.sequences[i].num_prompt_tokens);
    EXPECT_EQ(a.sequences[i].restarts_block_table, b.sequences[i].restarts_block_table);
    EXPECT_EQ(a.sequences[i].samples, b.sequences[i].samples);
    EXPECT_EQ(a.sequences[i].last_token_on_device, b.sequences[i].last_token_on_device);
  }
  ASSERT_EQ(a.new_blocks.size(), b.new_blocks.size());
  for (size_t i = 0; i < a.new_blocks.size(); ++i) {
    EXPECT_EQ(a.new_blocks[i].block_ids, b.new_blocks[i].block_ids);
    EXPECT_EQ(a.new_blocks[i].offsets, b.new_blocks[i].offsets);
  }
  ASSERT_EQ(a.new_sequences.size(), b.new_sequences.size());
  for (size_t i = 0; i < a.new_sequences.size(); ++i) {
    EXPECT_EQ(a.new_sequences[i].sequence_id, b.new_sequences[i].sequence_id);
    EXPECT_EQ(a.new_sequences[i].choice_idx, b.new_sequences[i].choice_idx);
    const SamplingParams& x = a.new_sequences[i].request->sampling;
    const SamplingParams& y = b.new_sequences[i].request->sampling;
    EXPECT_EQ(x.n, y.n);
    EXPECT_EQ(x.temperature, y.temperature);
    EXPECT_EQ(x.repetition_penalty, y.repetition_penalty);
    EXPECT_EQ(x.logit_bias, y.logit_bias);
    EXPECT_EQ(x.allowed_token_ids, y.allowed_token_ids);
    EXPECT_EQ(x.seed, y.seed);
    EXPECT_EQ(x.max_tokens, y.max_tokens);
    EXPECT_EQ(x.stop_token_ids, y.stop_token_ids);
    EXPECT_EQ(x.logprobs, y.logprobs);
    EXPECT_EQ(x.prompt_logprobs, y.prompt_logprobs);
  }
}

TEST(StepMessage, AStepComesBackAsItWas) {
  const SchedulerOutput step = example_step();
  const auto read = parse_step(serialize_step(step), kBounds);
  ASSERT_TRUE(read.ok()) << read.status().message();
  expect_equal(step, **read);
  EXPECT_EQ((*read)->new_sequences[0].request, (*read)->new_sequences[1].request) << "one request, told once";
  EXPECT_EQ((*read)->new_sequences[0].request->prompt_token_ids, step.new_sequences[0].request->prompt_token_ids);
}

TEST(StepMessage, APromptIsToldOnceUnlessSamplingLooksAtIt) {
  SchedulerOutput step = example_step();
  auto request = std::make_shared<Request>(*step.new_sequences[0].request);
  request->sampling.repetition_penalty = 1.0f;
  request->prompt_token_ids.assign(50000, 3);
  for (NewSequence& added : step.new_sequences) added.request = request;
  const std::string bytes = serialize_step(step);
  EXPECT_LT(bytes.size(), 200u);
  const auto read = parse_step(bytes, kBounds);
  ASSERT_TRUE(read.ok()) << read.status().message();
  EXPECT_TRUE((*read)->new_sequences[0].request->prompt_token_ids.empty());
}

TEST(StepMessage, ADecodeStepIsSmall) {
  SchedulerOutput step;
  step.step_id = 100000;
  step.new_blocks.resize(1);
  step.new_blocks[0].offsets = {0};
  for (int32_t i = 0; i < 256; ++i) {
    step.sequences.push_back({static_cast<SequenceId>(5000 + i), 2000, 1, i, 1000, false, true, true});
    step.token_ids.push_back(0);
    step.new_blocks[0].offsets.push_back(0);
  }
  EXPECT_LE(serialize_step(step).size(), 256u * 12);
}

TEST(StepMessage, AStepWithoutSequencesTellsWhatEnded) {
  SchedulerOutput step;
  step.step_id = 1;
  step.finished_sequences = {3};
  step.new_blocks.resize(1);
  step.new_blocks[0].offsets = {0};
  const auto read = parse_step(serialize_step(step), kBounds);
  ASSERT_TRUE(read.ok()) << read.status().message();
  expect_equal(step, **read);
}

TEST(StepMessage, ResultsComeBackAsTheyWere) {
  ModelOutput output;
  output.step_id = 12;
  output.sequences.resize(2);
  output.sequences[0].sequence_id = 9;
  output.sequences[0].token_ids = {4, 8};
  output.sequences[0].logprobs = {{{4, -0.25f}, 2, {{1, -0.1f}, {4, -0.25f}}}};
  output.sequences[1].prompt_logprobs = {{{7, -3.5f}, 900, {}}};
  const auto read = parse_output(serialize_output(output));
  ASSERT_TRUE(read.ok());
  ASSERT_EQ(read->sequences.size(), 2u);
  EXPECT_EQ(read->step_id, 12u);
  EXPECT_EQ(read->sequences[0].token_ids, output.sequences[0].token_ids);
  EXPECT_EQ(read->sequences[0].logprobs[0].top[1].logprob, -0.25f);
  EXPECT_EQ(read->sequences[1].prompt_logprobs[0].rank, 900);
}

TEST(StepMessage, EveryTruncationIsRefused) {
  const std::string bytes = serialize_step(example_step());
  for (size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_FALSE(parse_step(std::string_view(bytes).substr(0, size), kBounds).ok()) << size;
  }
  EXPECT_FALSE(parse_step(bytes + "x", kBounds).ok());
}

// What is read after damage may differ, but is never out of bounds: the worker would not look again.
TEST(StepMessage, DamageIsRefusedOrHarmless) {
  std::mt19937 random(7);
  const std::string whole = serialize_step(example_step());
  for (int round = 0; round < 20000; ++round) {
    std::string bytes = whole;
    for (int i = 0; i < 3; ++i) bytes[random() % bytes.size()] = static_cast<char>(random());
    const auto read = parse_step(bytes, kBounds);
    if (!read.ok()) continue;
    int64_t total = 0;
    for (const ScheduledSequence& scheduled : (*read)->sequences) {
      EXPECT_EQ(scheduled.token_offset, total);
      total += scheduled.num_scheduled_tokens;
    }
    EXPECT_EQ(total, (*read)->num_tokens());
  }
}

TEST(StepMessage, WhatDoesNotFitTheEngineIsRefused) {
  const auto refused = [](auto&& change) {
    SchedulerOutput step = example_step();
    change(step);
    return parse_step(serialize_step(step), kBounds).status().message();
  };
  EXPECT_NE(refused([](SchedulerOutput& s) { s.token_ids[0] = 1000; }).find("vocabulary"), std::string::npos);
  EXPECT_NE(refused([](SchedulerOutput& s) { s.token_ids[0] = -1; }).find("vocabulary"), std::string::npos);
  EXPECT_NE(refused([](SchedulerOutput& s) { s.new_blocks[0].block_ids[0] = 100; }).find("cache"), std::string::npos);
  EXPECT_NE(refused([](SchedulerOutput& s) { s.new_blocks[0].block_ids[0] = 0; }).find("cache"), std::string::npos);
  EXPECT_NE(refused([](SchedulerOutput& s) { s.sequences[1].num_computed_tokens = 512; }).find("max_model_len"),
            std::string::npos);
  EXPECT_NE(refused([](SchedulerOutput& s) { s.token_ids.push_back(1); }).find("differ in number"), std::string::npos);
}

TEST(Bytes, NumbersAtTheirLimits) {
  ByteWriter out;
  out.write(std::numeric_limits<int64_t>::min());
  out.write(std::numeric_limits<int64_t>::max());
  out.write(std::numeric_limits<uint64_t>::max());
  out.write(int32_t{-1});
  const std::string bytes = out.take();
  ByteReader in(bytes);
  EXPECT_EQ(in.read<int64_t>(), std::numeric_limits<int64_t>::min());
  EXPECT_EQ(in.read<int64_t>(), std::numeric_limits<int64_t>::max());
  EXPECT_EQ(in.read<uint64_t>(), std::numeric_limits<uint64_t>::max());
  EXPECT_EQ(in.read<int32_t>(), -1);
  EXPECT_TRUE(in.at_end());
  ByteReader narrow(bytes);
  EXPECT_EQ(narrow.read<int32_t>(), 0);
  EXPECT_FALSE(narrow.ok()) << "too large for the field";
  ByteReader endless(std::string_view("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", 12));
  EXPECT_EQ(endless.read<uint64_t>(), 0u);
  EXPECT_FALSE(endless.ok());
  ByteReader huge(std::string_view("\xff\xff\xff\xff\x0f", 5));
  EXPECT_TRUE(huge.read_list<int32_t>().empty()) << "four thousand million elements in no bytes";
  EXPECT_FALSE(huge.ok());
}

}  // namespace
}  // namespace sextant
