// The traffic of a model that is cut between ranks.
#include "engine/model/memory_model.h"

namespace sextant {
namespace {

uint64_t u64(int64_t value) { return static_cast<uint64_t>(value); }

}  // namespace

CollectiveTraffic tensor_parallel_traffic(const ModelConfig& config, const TensorParallelInputs& inputs,
                                          int64_t num_tokens, int64_t num_logits_rows) {
  CollectiveTraffic traffic;
  if (num_tokens <= 0) return traffic;
  const uint64_t rows = u64(num_tokens * config.hidden_size) * sizeof(float);
  if (!inputs.is_first_stage) traffic.receive = {1, rows};
  if (!inputs.is_last_stage) traffic.send = {1, rows};
  if (inputs.num_ranks <= 1) return traffic;
  const uint64_t ranks = u64(inputs.num_ranks);
  const uint64_t embedding = u64(num_tokens * config.hidden_size) * sizeof(float);
  const uint64_t output = u64(num_tokens * config.hidden_size) * dtype_size(inputs.activation);
  // The last output of a stage that passes its sums on is no part of a norm.
  const uint64_t num_passed = inputs.is_last_stage ? 0 : 1;
  const uint64_t num_outputs = 2 * u64(config.num_hidden_layers) - num_passed;
  if (inputs.is_first_stage) traffic.all_reduce = {1, embedding};
  traffic.all_reduce.calls += num_passed;
  traffic.all_reduce.bytes += num_passed * output;
  const auto add_outputs = [&](uint64_t count, uint64_t bytes) {
    if (count == 0 || bytes == 0) return;
    const bool gathers = bytes <= u64(inputs.gathered_reduce_bytes);
    CollectiveTraffic::OfKind& kind = gathers ? traffic.all_gather : traffic.all_reduce;
    kind.calls += count;
    kind.bytes += count * bytes * (gathers ? ranks : 1);
  };
  const bool ends_with_few = inputs.is_last_stage && has_few_logits(num_tokens, num_logits_rows);
  add_outputs(num_outputs - (ends_with_few ? 2 : 0), output);
  if (ends_with_few) add_outputs(2, u64(num_logits_rows * config.hidden_size) * dtype_size(inputs.activation));
  if (inputs.is_last_stage)
    traffic.gather = {u64((num_logits_rows + inputs.logits_rows - 1) / inputs.logits_rows),
                      u64(num_logits_rows * config.vocab_size) * sizeof(float)};
  if (inputs.is_last_stage && inputs.shares_samples && num_logits_rows > 0)
    traffic.broadcast = {1, u64(num_logits_rows) * sizeof(int32_t)};
  const double others = static_cast<double>(ranks - 1) / static_cast<double>(ranks);
  traffic.ring_bytes = 2 * others * static_cast<double>(traffic.all_reduce.bytes) +
                       others * static_cast<double>(traffic.all_gather.bytes);
  return traffic;
}

std::string tensor_parallel_formula(const ModelConfig& config, const TensorParallelInputs& inputs) {
  const CollectiveTraffic one = tensor_parallel_traffic(config, inputs, 1, 1);
  const std::string hidden = format_count(config.hidden_size);
  const int64_t num_passed = inputs.is_last_stage ? 0 : 1;
  const std::string outputs = format_count(2 * config.num_hidden_layers - num_passed);
  const std::string all_outputs = format_count(2 * config.num_hidden_layers);
  const std::string activation = std::to_string(dtype_size(inputs.activation));
  std::string text = "collectives of each rank, for a step of one token\n";
  const auto line = [&](const char* name, const CollectiveTraffic::OfKind& kind, const std::string& formula) {
    if (kind.calls == 0) return;
    std::string row = "  " + std::string(name);
    row.resize(13, ' ');
    const std::string bytes = format_count(static_cast<int64_t>(kind.bytes)) + " B";
    text += row + std::string(bytes.size() < 12 ? 12 - bytes.size() : 0, ' ') + bytes + "   " +
            format_count(static_cast<int64_t>(kind.calls)) + (kind.calls == 1 ? " call: " : " calls: ") + formula +
            "\n";
  };
  const bool gathers = one.all_gather.calls > 0;
  const std::string reduced = gathers ? (num_passed == 0 ? "" : hidden + " * " + activation)
                                      : all_outputs + " * " + hidden + " * " + activation;
  const std::string embedded = inputs.is_first_stage ? hidden + " * 4" : "";
  line("all_reduce", one.all_reduce,
       embedded + (embedded.empty() || reduced.empty() ? "" : " + ") + reduced + " a token" +
           (inputs.is_last_stage && !gathers ? "; the last layer's two a row of logits where these are few" : ""));
  line("all_gather", one.all_gather,
       outputs + " * " + std::to_string(inputs.num_ranks) + " * " + hidden + " * " + activation + " a token; above " +
           format_bytes(u64(inputs.gathered_reduce_bytes)) + " a rank and output an all_reduce");
  line("gather", one.gather, format_count(config.vocab_size) + " * 4 a row of logits");
  line("broadcast", one.broadcast, "4 a sampled token");
  line("receive", one.receive, hidden + " * 4 a token, from the stage before");
  line("send", one.send, hidden + " * 4 a token, to the next stage");
  return text;
}

}  // namespace sextant
