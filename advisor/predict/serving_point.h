// ServingPoint: one configuration under one load, with what was measured there, if it was; and the physics of it: least
// bytes, FLOPs and transfers as times on that GPU. Pure; any thread.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <vector>

#include "advisor/csv.h"
#include "advisor/gpu_profile.h"
#include "advisor/model_facts.h"

namespace sextant::advisor {

struct ServingPoint {
  std::string model_id;
  std::string gpu;
  std::string engine;
  std::string engine_version;  // empty: unknown, which equals no known version
  std::string gemm_quant;      // empty: unknown
  std::string moe_quant;
  double tensor_parallel = 1;
  double attention_data_parallel = 1;  // 0: not stated
  double moe_tensor_parallel = 1;
  double moe_expert_parallel = 1;
  double pipeline_parallel =
      1;  // stages: no measured row has them, so what they do is estimated; concurrency is of one batch
  double concurrency = 1;  // requests in flight per replica
  double prompt_tokens = 0;
  double output_tokens = 0;
  double ttft_mean_ms = 0;  // 0: not measured
  double tpot_mean_ms = 0;
  std::string measured_on;
  std::string holdout;  // of a file to score: the kind of hold-out
};

// Rows of a file with the header of measured_serving.csv (and perhaps holdout). Errors name line and column.
Result<std::vector<ServingPoint>> read_serving_points(const CsvTable& table, bool with_measurements = true);

// The configuration without its load's concurrency: two points of one group differ in concurrency alone. The engine's
// version is not part of it.
std::string group_key(const ServingPoint& point);
std::string pair_key(const ServingPoint& point);

// What the physics of a point needs and gives. Times in milliseconds.
struct PointPhysics {
  double num_gpus = 1;
  double data_parallel = 1;  // replicas of the attention part
  double expert_parallel = 1;
  double weight_bytes = 0;
  double active_parameters = 0;
  double layers = 0;
  double kv_ratio = 0;        // cache wanted by all requests in flight / cache there is, at 16 bits
  double in_flight = 1;       // requests that fit at once
  double stream_weights = 0;  // one step
  double read_cache = 0;
  double compute = 0;
  double transfer = 0;
  double prefill = 0;           // FLOPs of one prompt
  double prefill_transfer = 0;  // of one prompt
  double prefill_per_step = 0;  // share of prompts per decode step in a steady state
  double memory_gb_per_s = 0;
  bool latent = false;
  bool moe = false;
  std::string configuration;  // id of the model's facts

  // No step is shorter: weights of the experts hit and cache at its least bytes (8 bits), at full bandwidth.
  double floor_ms() const { return stream_weights; }
};

// kNotFound for an unknown model or GPU (with the nearest name), kInvalidArgument for an unknown quantisation.
Result<PointPhysics> physics_of(const ServingPoint& point, const FactsTable& facts, const GpuTable& gpus);

}  // namespace sextant::advisor
