// Sampling through Backend, where a backend samples: overlapped steps, of which the second reads tokens of the first
// that only the device knows. Each choice against kernels/ref/sampling; the op's own cases are in
// tests/kernels/cuda/sample_test.cpp.
#include "engine/device/sample_batch.h"
#include "kernels/philox.h"
#include "kernels/ref/sampling.h"
#include "tests/engine/device/conformance_support.h"

namespace sextant {
namespace {

namespace ref = kernels::ref;

class BackendSampling : public ConformanceTest {
 protected:
  static constexpr AttentionParams kAttention = {.num_heads = 2, .num_kv_heads = 1, .head_dim = 32, .scale = 0.2f};
  static constexpr int64_t kVocab = 701;

  SampleRow random_row() {
    SampleRow row = greedy_row();
    row.seed = random_();
    row.temperature = uniform(0, 3) == 0 ? 0.0f : static_cast<float>(uniform(3, 20)) * 0.1f;
    row.top_k = uniform(0, 1) == 0 ? 0 : static_cast<int32_t>(uniform(1, 30));
    row.top_p = uniform(0, 1) == 0 ? 1.0f : static_cast<float>(uniform(1, 9)) * 0.1f;
    row.frequency_penalty = 1.5f;
    row.num_top_logprobs = static_cast<int32_t>(uniform(-1, 5));
    return row;
  }
  static ref::SamplingProblem problem_of(const SampleRow& row, const std::vector<int32_t>& outputs) {
    ref::SamplingProblem problem;
    problem.temperature = row.temperature;
    problem.top_k = row.top_k;
    problem.top_p = row.top_p;
    problem.frequency_penalty = row.frequency_penalty;
    problem.output_tokens = outputs;
    return problem;
  }
};

TEST_P(BackendSampling, OverlappedStepsReadTheTokensOfTheStepBefore) {
  // A table whose rows say which they are.
  const int64_t hidden = 32;
  std::vector<float> table_values(static_cast<size_t>(kVocab * hidden));
  for (size_t i = 0; i < table_values.size(); ++i) table_values[i] = static_cast<float>(static_cast<int>(i % 32) * 8);
  for (int64_t id = 0; id < kVocab; ++id) {
    const int64_t hundreds = id / 100;
    table_values[static_cast<size_t>(id * hidden)] = static_cast<float>(hundreds);
    table_values[static_cast<size_t>(id * hidden + 1)] = static_cast<float>(id % 100);
  }
  const HostMatrix host{WeightType::kF32, kVocab, hidden, std::as_bytes(std::span(table_values))};
  const auto table = backend_->make_matrix({&host, 1});
  ASSERT_TRUE(table.ok()) << table.status().message();
  reserve(64, 16, kAttention);

  const std::vector<int32_t> lengths(9, 8);
  ScatteredSequences sequences(lengths, random_);
  std::vector<ScatteredSequences::Chunk> chunks;
  for (size_t s = 0; s < lengths.size(); ++s) chunks.push_back({s, 1});
  std::vector<int32_t> order(lengths.size());
  std::iota(order.begin(), order.end(), 0);

  constexpr int kSteps = 4;
  std::vector<ScatteredSequences::Step> steps;
  std::vector<SampleBatch> batches(kSteps);
  std::vector<HostRows> logits;
  std::vector<Tensor> embedded;
  std::vector<std::vector<int32_t>> previous(kSteps), places(kSteps), tokens;
  const auto collect = [&] {
    const Result<SampledTokens> sampled = backend_->collect_samples();
    ASSERT_TRUE(sampled.ok()) << sampled.status().message();
    const size_t step = tokens.size();
    tokens.emplace_back(sampled->token_ids.begin(), sampled->token_ids.end());
    ASSERT_EQ(tokens.back().size(), lengths.size());
    for (size_t r = 0; r < lengths.size(); ++r) {
      const SampleRow& row = batches[step].rows[r];
      std::vector<int32_t> outputs;
      if (row.previous_row >= 0) outputs.push_back(tokens[step - 1][static_cast<size_t>(row.previous_row)]);
      const ref::SamplingProblem problem = problem_of(row, outputs);
      const std::vector<float> of_row = logits[step].row(static_cast<int64_t>(r));
      const ref::SamplingChoice expected =
          ref::choose_token(ref::edited_logits(of_row, problem), problem,
                            kernels::philox_uniform(row.seed, row.choice_idx, row.output_idx));
      if (expected.certain) {
        EXPECT_EQ(tokens[step][r], expected.token) << "step " << step << " row " << r << " seed " << seed_;
      }
      if (row.num_top_logprobs < 0) continue;
      const ref::RowLogprobs logprobs = ref::row_logprobs(of_row, tokens[step][r], row.num_top_logprobs);
      EXPECT_NEAR(sampled->logprobs[r], logprobs.chosen, logprobs.log_total_error + std::fabs(logprobs.chosen) * kUnit);
      EXPECT_EQ(sampled->ranks[r], logprobs.rank);
      for (size_t i = 0; i < logprobs.top_ids.size(); ++i) {
        EXPECT_EQ(sampled->top_ids[r * static_cast<size_t>(sampled->top_stride) + i], logprobs.top_ids[i]);
      }
    }
  };
  for (int step = 0; step < kSteps; ++step) {
    const auto at = static_cast<size_t>(step);
    steps.push_back(sequences.advance(chunks));
    steps.back().logits_indices = order;
    for (size_t r = 0; r < lengths.size(); ++r) batches[at].rows.push_back(random_row());
    batches[at].wants_logprobs = true;
    if (step > 0) {  // each sequence goes on from another row of the step before
      previous[at] = places[at] = order;
      std::shuffle(previous[at].begin(), previous[at].end(), random_);
      for (size_t r = 0; r < lengths.size(); ++r) batches[at].rows[r].previous_row = previous[at][r];
    }
    StepInputs inputs = steps.back().inputs();
    inputs.sampling = &batches[at];
    inputs.previous_rows = previous[at];
    inputs.previous_places = places[at];
    backend_->plan(inputs, kAttention);
    embedded.push_back(poisoned(static_cast<int64_t>(lengths.size()), hidden, DType::kFloat32));
    backend_->embed(**table, 1, embedded.back());
    logits.push_back(random_rows(static_cast<int64_t>(lengths.size()), kVocab, DType::kFloat32));
    backend_->sample(on_device(logits.back(), DType::kFloat32), 0);
    backend_->end_step();
    if (step > 0) collect();  // of the step before: one is always in flight
    if (HasFatalFailure()) return;
  }
  collect();
  for (size_t step = 1; step < kSteps; ++step) {
    const HostRows rows = read(embedded[step]);
    for (size_t r = 0; r < lengths.size(); ++r) {
      const auto id =
          static_cast<int32_t>(rows.at(static_cast<int64_t>(r), 0) * 100 + rows.at(static_cast<int64_t>(r), 1));
      EXPECT_EQ(id, tokens[step - 1][static_cast<size_t>(previous[step][r])]) << "step " << step << " row " << r;
    }
  }
}

// The others leave it to the host.
std::vector<std::string> sampling_backends() {
  std::vector<std::string> names = available_backends();
  // Logits are fp32 whatever activations are.
  std::erase_if(names, [](const std::string& name) {
    return name.ends_with("-float16") || !make_named_backend(name)->samples();
  });
  return names;
}

GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(BackendSampling);
INSTANTIATE_TEST_SUITE_P(All, BackendSampling, testing::ValuesIn(sampling_backends()), [](const auto& test) {
  std::string name = test.param;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
});

}  // namespace
}  // namespace sextant
