// RooflineTime: the least that a step takes on a GPU: max(FLOPs / peak, bytes / bandwidth) of engine/model/memory_model, over
// all rows of the step together, so that weights are read once. With shares of 100% no real engine is faster. Pure; any thread.
// tp GPUs divide FLOPs and bytes evenly and add two all-reduces of [tokens, hidden] in 16 bits per layer, in a ring:
// 2 (tp - 1) / tp of the bytes over each link (Patarasuk and Yuan 2009). Latencies of launches and links are `overhead_s`.
#pragma once

#include <cstdint>
#include <string>

#include "engine/model/memory_model.h"
#include "engine/sim/step_time_model.h"

namespace sextant::sim {

struct SimGpu {
  std::string name;
  double memory_gib = 0;
  double bytes_per_s = 0;
  double flops_per_s = 0;       // dense, of 16-bit matrix products
  double link_bytes_per_s = 0;  // one direction, between GPUs of a host
};

struct RooflineInputs {
  ModelConfig model;
  WeightType weights = WeightType::kBF16;
  DType kv_cache = DType::kBFloat16;
  SimGpu gpu;
  int64_t tensor_parallel = 1;
  double compute_share = 1;
  double bandwidth_share = 1;
  double overhead_s = 0;
};

class RooflineTime final : public StepTimeModel {
 public:
  explicit RooflineTime(RooflineInputs inputs);
  double step_seconds(std::span<const ScheduledSequence> rows) const override;
  std::string description() const override;

 private:
  double streamed_bytes(int64_t num_tokens) const;

  RooflineInputs inputs_;
  double flops_per_token_ = 0;  // without head and attention
  double flops_per_row_ = 0;    // of the head
  double flops_per_pair_ = 0;   // of one query over one key
  double kv_bytes_ = 0;         // of one token
  double dense_bytes_ = 0;      // weights of a model without experts
};

}  // namespace sextant::sim
