// Rows of sampling problems in the device's form, run by sample() and held against kernels/ref/sampling.
#pragma once

#include <algorithm>
#include <bit>
#include <map>
#include <set>
#include <vector>

#include "kernels/cuda/sample.h"
#include "kernels/philox.h"
#include "kernels/ref/sampling.h"
#include "tests/kernels/cuda/cuda_test_support.h"

namespace sextant::kernels::cuda {

struct SampledRow {
  std::vector<float> logits;
  ref::SamplingProblem problem;
  uint64_t seed = 0;
  uint32_t choice_idx = 0;
  uint64_t output_idx = 0;
  bool last_output_on_device = false;  // the last of problem.output_tokens is known on the device only

  double uniform() const { return philox_uniform(seed, choice_idx, output_idx); }
  ref::SamplingChoice expected() const {
    return ref::choose_token(ref::edited_logits(logits, problem), problem, uniform());
  }
};

// The tokens of all rows, which have one vocabulary size; checks that the logits are as before, to the bit.
inline std::vector<int32_t> sample_rows(const std::vector<SampledRow>& rows, int32_t padding = 0, int32_t offset = 0) {
  const auto vocab = static_cast<int32_t>(rows[0].logits.size());
  const int64_t stride = vocab + padding;
  std::vector<float> logits(static_cast<size_t>(offset + stride * static_cast<int64_t>(rows.size())), NAN);
  std::vector<SampleRow> device_rows;
  std::vector<TokenBias> biases;
  std::vector<TokenCount> counts;
  std::vector<int32_t> masked, allowed, previous = {-7};
  for (size_t r = 0; r < rows.size(); ++r) {
    const SampledRow& from = rows[r];
    const ref::SamplingProblem& p = from.problem;
    std::copy(from.logits.begin(), from.logits.end(),
              logits.begin() + offset + static_cast<std::ptrdiff_t>(r) * stride);
    SampleRow row{};
    row.seed = from.seed;
    row.output_idx = from.output_idx;
    row.choice_idx = from.choice_idx;
    row.temperature = p.temperature;
    row.top_k = p.top_k;
    row.top_p = p.top_p;
    row.min_p = p.min_p;
    row.repetition_penalty = p.repetition_penalty;
    row.presence_penalty = p.presence_penalty;
    row.frequency_penalty = p.frequency_penalty;
    row.previous_row = -1;
    row.num_top_logprobs = -1;
    const auto range = [](const auto& list, size_t begin) {
      return ListRange{static_cast<int32_t>(begin), static_cast<int32_t>(list.size() - begin)};
    };
    size_t begin = biases.size();
    for (const auto& [id, bias] : p.biases) biases.push_back({id, bias});
    row.biases = range(biases, begin);
    std::vector<int32_t> outputs = p.output_tokens;
    if (from.last_output_on_device) {
      row.previous_row = static_cast<int32_t>(previous.size());
      previous.push_back(outputs.back());
      outputs.pop_back();
    }
    std::map<int32_t, TokenCount> by_id;
    for (const int32_t id : outputs) {
      by_id.try_emplace(id, TokenCount{id, 0, 0}).first->second.output_count += 1;
    }
    for (const int32_t id : p.prompt_tokens) by_id.try_emplace(id, TokenCount{id, 0, 0}).first->second.in_prompt = 1;
    begin = counts.size();
    for (const auto& [id, entry] : by_id) counts.push_back(entry);
    row.counts = range(counts, begin);
    begin = masked.size();
    masked.insert(masked.end(), p.masked.begin(), p.masked.end());
    row.masked = range(masked, begin);
    begin = allowed.size();
    const std::set<int32_t> ascending(p.allowed.begin(), p.allowed.end());
    allowed.insert(allowed.end(), ascending.begin(), ascending.end());
    row.allowed = range(allowed, begin);
    device_rows.push_back(row);
  }
  const auto count_of = [](const auto& list) { return static_cast<int32_t>(list.size()); };
  DeviceArray<float> on_device(logits);
  DeviceArray<SampleRow> row_list(device_rows);
  DeviceArray<TokenBias> bias_list(biases);
  DeviceArray<TokenCount> count_list(counts);
  DeviceArray<int32_t> masked_list(masked), allowed_list(allowed), previous_list(previous), tokens(rows.size());
  DeviceArray<float> saved(
      static_cast<size_t>(sample_saved_floats(count_of(rows), count_of(biases), count_of(counts), count_of(masked))));
  EXPECT_EQ(sample({on_device.data() + offset, stride, count_of(rows), vocab, row_list.data(), bias_list.data(),
                    count_list.data(), masked_list.data(), allowed_list.data(), count_of(biases), count_of(counts),
                    count_of(masked), previous_list.data(), saved.data(), tokens.data()},
                   nullptr),
            0);
  const std::vector<float> after = on_device.download();
  const bool unchanged = std::equal(after.begin(), after.end(), logits.begin(), [](float a, float b) {
    return std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b);
  });
  EXPECT_TRUE(unchanged) << "the logits differ after the call";
  return tokens.download();
}

}  // namespace sextant::kernels::cuda
