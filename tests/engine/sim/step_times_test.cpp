// Roofline and recorded step times.
#include <cmath>

#include <gtest/gtest.h>

#include "engine/sim/record_time.h"
#include "engine/sim/roofline_time.h"
#include "engine/sim/virtual_time.h"
#include "tests/support/sim_times.h"

namespace sextant::sim {
namespace {

ModelConfig llama_8b() {
  const auto config = model_config_from_json(
      R"({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 128256, "hidden_size": 4096,
          "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
          "head_dim": 128, "max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "rope_theta": 500000.0,
          "hidden_act": "silu", "tie_word_embeddings": false, "torch_dtype": "bfloat16"})",
      "config.json");
  EXPECT_TRUE(config.ok()) << config.status().message();
  return *config;
}

ScheduledSequence row(int32_t num_computed, int32_t num_scheduled, int32_t num_prompt, bool samples = true) {
  ScheduledSequence made;
  made.num_computed_tokens = num_computed;
  made.num_scheduled_tokens = num_scheduled;
  made.num_prompt_tokens = num_prompt;
  made.samples = samples;
  return made;
}

RooflineInputs h100() {
  RooflineInputs inputs;
  inputs.model = llama_8b();
  inputs.gpu = {"H100", 80, 3350e9, 989e12, 450e9};
  return inputs;
}

// The same sums as the memory model's, which has tests of its own.
TEST(RooflineTime, IsTheMemoryModelsRoof) {
  const RooflineInputs inputs = h100();
  const RooflineTime roof(inputs);
  const std::vector<ScheduledSequence> decode = {row(999, 1, 500), row(1999, 1, 500)};
  const std::vector<int64_t> lengths = {1000, 2000};
  const StepWork work = decode_step_work(inputs.model, inputs.weights, inputs.kv_cache, lengths);
  EXPECT_NEAR(roof.step_seconds(decode), roofline_seconds(work, 989e12, 3350e9), 1e-12);
  const std::vector<ScheduledSequence> prefill = {row(0, 4096, 4096)};
  const StepWork prompt = prefill_work(inputs.model, inputs.weights, inputs.kv_cache, 4096);
  // That one takes half of the square of the prompt, this one each pair of query and key.
  EXPECT_NEAR(roof.step_seconds(prefill), roofline_seconds(prompt, 989e12, 3350e9), 2e-4 * prompt.flops / 989e12);
  // Weights are read once for all rows.
  const std::vector<ScheduledSequence> both = {decode[0], prefill[0]};
  EXPECT_LT(roof.step_seconds(both), roof.step_seconds({&decode[0], 1}) + roof.step_seconds(prefill));
}

TEST(RooflineTime, SharesOverheadAndGpusScaleIt) {
  RooflineInputs inputs = h100();
  const std::vector<ScheduledSequence> decode = {row(999, 1, 500)};
  const double roof_s = RooflineTime(inputs).step_seconds(decode);
  inputs.bandwidth_share = 0.5;
  inputs.overhead_s = 1e-3;
  EXPECT_NEAR(RooflineTime(inputs).step_seconds(decode), 2 * roof_s + 1e-3, 1e-12);
  RooflineInputs two = h100();
  two.tensor_parallel = 2;
  // Half, and 64 all-reduces of one row of 4096 in 16 bits.
  EXPECT_NEAR(RooflineTime(two).step_seconds(decode), roof_s / 2 + 64 * 4096 * 2.0 / 450e9, 1e-12);
}

TEST(RecordTime, FindsTheTimesThatMadeTheRecords) {
  // Points that a known machine would measure, under the same scheduler.
  const auto truth = testing_support::linear_timing(4e-3, 30e-6, 20e-6);
  std::vector<MeasuredPoint> points;
  const SimServer server = [] {
    SimServer made = testing_support::sim_server();
    made.scheduler.max_num_seqs = 256;
    made.num_blocks = 1 << 16;
    return made;
  }();
  const auto measure = [&](const SimTiming& timing, int32_t prompt, int32_t output, int64_t concurrency) {
    SimWorkload workload;
    workload.concurrency = concurrency;
    workload.requests.assign(static_cast<size_t>(concurrency * 12), {0, prompt, output});
    const auto result = simulate(workload, timing, server);
    EXPECT_TRUE(result.ok()) << result.status().message();
    MeasuredPoint point;
    point.concurrency = static_cast<double>(concurrency);
    point.prompt_tokens = prompt;
    point.output_tokens = output;
    double ttft_s = 0;
    for (const SimOutcome& outcome : result->outcomes) {
      point.tpot_s += outcome.tpot_s() / static_cast<double>(result->outcomes.size());
      ttft_s += outcome.ttft_s() / static_cast<double>(result->outcomes.size());
    }
    point.ttft_s = ttft_s;
    return point;
  };
  for (const int64_t concurrency : {1, 4, 16, 64}) {
    for (const int32_t prompt : {128, 512}) points.push_back(measure(truth, prompt, 128, concurrency));
  }
  const auto fitted = RecordTime::fit(points);
  ASSERT_TRUE(fitted.ok()) << fitted.status().message();
  // The form of the fit is the truth's; what differs is what it says of mixed steps in the mean: 10%.
  EXPECT_LT(fitted->worst_error(), 0.10) << fitted->description();
  SimTiming again;
  again.model = std::make_shared<RecordTime>(*fitted);
  for (const MeasuredPoint& point : points) {
    const MeasuredPoint resimulated =
        measure(again, static_cast<int32_t>(point.prompt_tokens), 128, static_cast<int64_t>(point.concurrency));
    EXPECT_NEAR(resimulated.tpot_s / point.tpot_s, 1, 0.12) << point.concurrency << " x " << point.prompt_tokens;
    // Nobody told the fit of queueing: that is the scheduler's.
    EXPECT_NEAR(*resimulated.ttft_s / *point.ttft_s, 1, 0.25) << point.concurrency << " x " << point.prompt_tokens;
  }
}

TEST(RecordTime, RefusesWhatIsNoMeasurement) {
  EXPECT_FALSE(RecordTime::fit({}).ok());
  for (const double wrong : {0.0, -1.0, std::nan(""), HUGE_VAL}) {
    const std::vector<MeasuredPoint> points = {{1, 100, 100, {}, wrong, {}}};
    EXPECT_FALSE(RecordTime::fit(points).ok()) << wrong;
  }
  const std::vector<MeasuredPoint> one = {{1, 100, 100, 0.1, 0.01, {}}};
  const auto fitted = RecordTime::fit(one);
  ASSERT_TRUE(fitted.ok());
  EXPECT_LT(fitted->worst_error(), 1e-3);
}

TEST(RecordTime, SpreadOfALogNormal) {
  EXPECT_EQ(cv_of_percentiles(1, 1), 0);
  EXPECT_EQ(cv_of_percentiles(0, 1), 0);
  // sigma = 0.2: cv = sqrt(exp(0.04) - 1)
  EXPECT_NEAR(cv_of_percentiles(1, std::exp(0.2 * 1.2815515655446004)), std::sqrt(std::expm1(0.04)), 1e-12);
}

}  // namespace
}  // namespace sextant::sim
