// Choosing tokens: sampling, log-probabilities, and a step's last tokens.
#include "bench/gpu/kernel_cases.h"
#include "kernels/cuda/logprobs.h"
#include "kernels/cuda/sample.h"
#include "kernels/cuda/step_inputs.h"

namespace sextant::bench {
namespace {

using namespace kernels::cuda;

struct Rule {
  std::string name;
  float temperature;
  int32_t top_k;
  float top_p;
  int passes;  // over the logits, as sample.h counts them
};

KernelCase sample_case(int32_t rows, int32_t vocab, const Rule& rule) {
  return {.op = "sample",
          .shape = rule.name + " rows=" + std::to_string(rows) + " vocab=" + std::to_string(vocab),
          .bytes = 4.0 * rows * vocab,  // once from memory; the other passes come from L2
          .flops = 30.0 * rule.passes * rows * vocab,
          .is_measured = true,
          .prepare = [=](CaseMemory& memory) -> Launch {
            SampleArgs args = {};
            args.logits = static_cast<float*>(memory.allocate(int64_t{rows} * vocab * 4, Content::kFloat32));
            args.logits_stride = vocab;
            args.num_rows = rows;
            args.vocab_size = vocab;
            std::vector<SampleRow> row_rules;
            for (int32_t r = 0; r < rows; ++r) {
              SampleRow row = {};
              row.seed = static_cast<uint64_t>(r);
              row.temperature = rule.temperature;
              row.top_k = rule.top_k;
              row.top_p = rule.top_p;
              row.repetition_penalty = 1;
              row.previous_row = -1;
              row.num_top_logprobs = -1;
              row_rules.push_back(row);
            }
            args.rows = memory.upload(row_rules);
            args.saved = static_cast<float*>(memory.allocate(sample_saved_floats(rows, 0, 0, 0) * 4, Content::kZeros));
            args.tokens = static_cast<int32_t*>(memory.allocate(int64_t{rows} * 4, Content::kZeros));
            return [=](Stream stream) { return sample(args, stream); };
          }};
}

KernelCase logprobs_case(int32_t rows, int32_t vocab, int32_t num_top) {
  return {
      .op = "token_logprobs",
      .shape = "top=" + std::to_string(num_top) + " rows=" + std::to_string(rows) + " vocab=" + std::to_string(vocab),
      .bytes = 4.0 * rows * vocab,
      .flops = 30.0 * (num_top > 0 ? 4 : 2) * rows * vocab,
      .is_measured = true,
      .prepare = [=](CaseMemory& memory) -> Launch {
        const auto count = static_cast<size_t>(rows);
        LogprobsArgs args = {};
        args.logits = static_cast<float*>(memory.allocate(int64_t{rows} * vocab * 4, Content::kFloat32));
        args.logits_stride = vocab;
        args.num_rows = rows;
        args.vocab_size = vocab;
        args.chosen = memory.upload(std::vector<int32_t>(count, vocab / 2));
        args.num_top = memory.upload(std::vector<int32_t>(count, num_top));
        args.num_top_stride = 1;
        args.max_top = num_top;
        args.chosen_logprob = static_cast<float*>(memory.allocate(int64_t{rows} * 4, Content::kZeros));
        args.rank = static_cast<int32_t*>(memory.allocate(int64_t{rows} * 4, Content::kZeros));
        const int64_t top_bytes = int64_t{rows} * num_top * 4 + 16;
        args.top_ids = static_cast<int32_t*>(memory.allocate(top_bytes, Content::kZeros));
        args.top_logprobs = static_cast<float*>(memory.allocate(top_bytes, Content::kZeros));
        return [=](Stream stream) { return token_logprobs(args, stream); };
      }};
}

KernelCase last_token_case(int32_t rows) {
  return {.op = "last_token_on_device",
          .shape = "rows=" + std::to_string(rows),
          .bytes = 16.0 * rows,
          .flops = 0,
          .is_measured = true,
          .prepare = [=](CaseMemory& memory) -> Launch {
            std::vector<int32_t> indices;
            for (int32_t r = 0; r < rows; ++r) indices.push_back(r);
            LastTokenArgs args = {};
            args.token_ids = static_cast<int32_t*>(memory.allocate(int64_t{rows} * 4, Content::kZeros));
            args.sampled = memory.upload(indices);
            args.rows = memory.upload(indices);
            args.positions = memory.upload(indices);
            args.count = rows;
            return [=](Stream stream) { return last_token_on_device(args, stream); };
          }};
}

}  // namespace

void append_token_cases(const ModelShape& shape, std::vector<KernelCase>& cases) {
  const Rule rules[] = {{"greedy", 0.0f, 0, 1.0f, 1},
                        {"temperature", 1.0f, 0, 1.0f, 2},
                        {"top_p", 1.0f, 0, 0.9f, 4},
                        {"top_k", 1.0f, 40, 1.0f, 4}};
  for (const Rule& rule : rules) {
    cases.push_back(sample_case(1, shape.vocab, rule));
    cases.push_back(sample_case(shape.decode_batch, shape.vocab, rule));
  }
  cases.push_back(logprobs_case(shape.decode_batch, shape.vocab, 0));
  cases.push_back(logprobs_case(shape.decode_batch, shape.vocab, 20));
  cases.push_back(last_token_case(shape.decode_batch));
}

}  // namespace sextant::bench
