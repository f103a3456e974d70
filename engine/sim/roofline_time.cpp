#include "engine/sim/roofline_time.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <utility>

namespace sextant::sim {

RooflineTime::RooflineTime(RooflineInputs inputs) : inputs_(std::move(inputs)) {
  const ModelConfig& model = inputs_.model;
  // The memory model's sums are linear in these: taken from it by differences, so that there is one definition.
  const std::array<int64_t, 1> no_context = {0};
  const std::array<int64_t, 1> one_token = {1};
  const StepWork empty = decode_step_work(model, inputs_.weights, inputs_.kv_cache, no_context);
  const StepWork one = decode_step_work(model, inputs_.weights, inputs_.kv_cache, one_token);
  flops_per_row_ = 2.0 * static_cast<double>(count_parameters(model).lm_head);
  flops_per_token_ = empty.flops - flops_per_row_;
  flops_per_pair_ = one.flops - empty.flops;
  kv_bytes_ = static_cast<double>(kv_bytes_per_token(model, inputs_.kv_cache));
  dense_bytes_ = empty.bytes;
}

double RooflineTime::streamed_bytes(int64_t num_tokens) const {
  if (inputs_.model.num_experts == 0) return dense_bytes_;
  const StepWork work = prefill_work(inputs_.model, inputs_.weights, inputs_.kv_cache, num_tokens);
  return work.bytes - static_cast<double>(num_tokens) * kv_bytes_;
}

double RooflineTime::step_seconds(std::span<const ScheduledSequence> rows) const {
  int64_t num_tokens = 0;
  StepWork work;
  for (const ScheduledSequence& row : rows) {
    const auto tokens = static_cast<double>(row.num_scheduled_tokens);
    const auto cached = static_cast<double>(row.num_computed_tokens);
    num_tokens += row.num_scheduled_tokens;
    work.flops += tokens * flops_per_token_ + (row.samples ? flops_per_row_ : 0) +
                  flops_per_pair_ * (tokens * cached + tokens * (tokens + 1) / 2);
    work.bytes += (tokens + cached) * kv_bytes_;
  }
  work.bytes += streamed_bytes(num_tokens);
  const auto tp = static_cast<double>(inputs_.tensor_parallel);
  double seconds = roofline_seconds(work, tp * inputs_.gpu.flops_per_s * inputs_.compute_share,
                                    tp * inputs_.gpu.bytes_per_s * inputs_.bandwidth_share);
  if (tp > 1) {
    const double reduced_bytes = 2.0 * static_cast<double>(num_tokens * inputs_.model.hidden_size);
    seconds += static_cast<double>(2 * inputs_.model.num_hidden_layers) * reduced_bytes * 2 * (tp - 1) / tp /
               inputs_.gpu.link_bytes_per_s;
  }
  return seconds + inputs_.overhead_s;
}

std::string RooflineTime::description() const {
  char text[160];
  std::snprintf(text, sizeof text, " (compute %g%%, bandwidth %g%%, %g ms per step)", inputs_.compute_share * 100,
                inputs_.bandwidth_share * 100, inputs_.overhead_s * 1e3);
  return "roofline of " + std::to_string(inputs_.tensor_parallel) + " x " + inputs_.gpu.name + text;
}

}  // namespace sextant::sim
