#include "advisor/predict/serving_point.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "engine/base/nearest.h"

namespace sextant::advisor {
namespace {

std::string number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.12g", value);
  return text;
}

struct Layout {
  double gpus;
  double data_parallel;
  double expert_parallel;
};

// How many GPUs a row's four degrees mean. Published tables write the same run in more than one way: tensor 8 with
// expert 8 stands as (8, 1, 1, 8) and as (64, 1, 8, 8), with identical times; the latter is read as the former where the
// weights fit. Attention kept whole on each GPU stands as (tensor g, data g, expert g * g) or as a tensor degree below the
// number of GPUs that the experts are spread over.
Layout layout_of(const ServingPoint& p, double weight_gib, double memory_gib) {
  const double data = std::max(p.attention_data_parallel, 1.0);
  const double moe_tensor = std::max(p.moe_tensor_parallel, 1.0);
  const double expert = std::max(p.moe_expert_parallel, 1.0);
  const double attention_gpus = p.tensor_parallel * data;
  const double expert_gpus = moe_tensor * expert;
  if (moe_tensor == expert && expert > 1 && attention_gpus == expert_gpus && weight_gib / expert < 0.95 * memory_gib)
    return {expert, data > 1 ? expert : 1, expert};
  if (data == p.tensor_parallel && data > 1 && expert == attention_gpus) return {data, data, data};
  const double gpus = std::max(attention_gpus, expert_gpus);
  const double spread = p.tensor_parallel < gpus ? std::floor(gpus / p.tensor_parallel) : 1;
  return {gpus, data > 1 ? std::max(spread, data) : spread, expert};
}

}  // namespace

std::string group_key(const ServingPoint& p) {
  return p.model_id + '|' + p.gpu + '|' + p.engine + '|' + p.gemm_quant + '|' + p.moe_quant + '|' +
         number(p.tensor_parallel) + '|' + number(p.attention_data_parallel) + '|' + number(p.moe_tensor_parallel) +
         '|' + number(p.moe_expert_parallel) + '|' + number(p.prompt_tokens) + '|' + number(p.output_tokens);
}

std::string pair_key(const ServingPoint& p) { return p.model_id + '|' + p.gpu; }

Result<std::vector<ServingPoint>> read_serving_points(const CsvTable& table, bool with_measurements) {
  struct Text {
    const char* name;
    std::string ServingPoint::*field;
    bool needed;
  };
  struct Number {
    const char* name;
    double ServingPoint::*field;
    double low;
    double high;
    bool measured;
  };
  static const Text texts[] = {{"model_id", &ServingPoint::model_id, true},
                               {"gpu", &ServingPoint::gpu, true},
                               {"engine", &ServingPoint::engine, true},
                               {"engine_version", &ServingPoint::engine_version, false},
                               {"gemm_quant", &ServingPoint::gemm_quant, false},
                               {"moe_quant", &ServingPoint::moe_quant, false},
                               {"measured_on", &ServingPoint::measured_on, false},
                               {"holdout", &ServingPoint::holdout, false}};
  static const Number numbers[] = {{"tensor_parallel", &ServingPoint::tensor_parallel, 1, 4096, false},
                                   {"attention_data_parallel", &ServingPoint::attention_data_parallel, 0, 4096, false},
                                   {"moe_tensor_parallel", &ServingPoint::moe_tensor_parallel, 0, 4096, false},
                                   {"moe_expert_parallel", &ServingPoint::moe_expert_parallel, 0, 4096, false},
                                   {"concurrency", &ServingPoint::concurrency, 1, 1e6, false},
                                   {"prompt_tokens", &ServingPoint::prompt_tokens, 1, 1e8, false},
                                   {"output_tokens", &ServingPoint::output_tokens, 1, 1e8, false},
                                   {"ttft_mean_ms", &ServingPoint::ttft_mean_ms, 1e-6, 1e9, true},
                                   {"tpot_mean_ms", &ServingPoint::tpot_mean_ms, 1e-6, 1e9, true}};
  for (const Text& t : texts)
    if (t.needed && table.column(t.name) < 0)
      return invalid_argument(table.source + ": no column '" + t.name + "'", t.name);
  for (const Number& n : numbers)
    if ((!n.measured || with_measurements) && table.column(n.name) < 0)
      return invalid_argument(table.source + ": no column '" + n.name + "'", n.name);
  std::vector<ServingPoint> points;
  points.reserve(table.rows.size());
  for (size_t i = 0; i < table.rows.size(); ++i) {
    ServingPoint point;
    for (const Text& t : texts) {
      const int column = table.column(t.name);
      if (column >= 0) point.*t.field = table.rows[i][static_cast<size_t>(column)];
      if (t.needed && (point.*t.field).empty())
        return invalid_argument(table.source + ", line " + std::to_string(table.lines[i]) + ": " + t.name + " is empty",
                                t.name);
    }
    for (const Number& n : numbers) {
      const int column = table.column(n.name);
      if (column < 0) continue;
      auto value = parse_number(table.rows[i][static_cast<size_t>(column)], n.name, n.low, n.high);
      if (!value.ok())
        return invalid_argument(
            table.source + ", line " + std::to_string(table.lines[i]) + ": " + value.status().message(), n.name);
      point.*n.field = *value;
    }
    points.push_back(std::move(point));
  }
  return points;
}

Result<PointPhysics> physics_of(const ServingPoint& p, const FactsTable& facts_table, const GpuTable& gpus) {
  const ModelFacts* f = facts_table.find(p.model_id);
  if (f == nullptr) {
    const auto near = nearest_name(p.model_id, facts_table.names());
    return not_found("unknown model '" + p.model_id + "'" + (near ? "; did you mean '" + *near + "'?" : "") +
                         " (sextant kb add-model adds one from its config.json)",
                     "model_id");
  }
  const GpuProfile* gpu = gpus.find(p.gpu);
  if (gpu == nullptr) {
    const auto near = nearest_name(p.gpu, gpus.names());
    return not_found("unknown GPU '" + p.gpu + "'" + (near ? "; did you mean '" + *near + "'?" : "") +
                         " (sextant kb add-gpu adds one)",
                     "gpu");
  }
  // Unknown is taken as 16 bits, what most configurations store; the learned part knows "unknown" as a kind of its own.
  const auto dense_bytes = p.gemm_quant.empty() ? 2.0 : bytes_per_parameter(p.gemm_quant);
  const auto expert_bytes = p.moe_quant.empty() ? dense_bytes : bytes_per_parameter(p.moe_quant);
  if (!dense_bytes || !expert_bytes) {
    return invalid_argument(
        "unknown quantisation '" + (dense_bytes ? p.moe_quant : p.gemm_quant) +
            "'; known are bf16, fp16, fp8, fp8_block, int8, nvfp4, mxfp4, int4_wo, q8_0, q4_0, q4_1, q4_k_m",
        "quantization");
  }
  const FactCounts counts = count(*f);
  PointPhysics x;
  x.configuration = f->model_id;
  x.latent = f->latent();
  x.moe = f->moe();
  x.layers = f->num_hidden_layers;
  x.active_parameters = counts.active();
  x.memory_gb_per_s = gpu->memory_gb_per_s;
  x.weight_bytes = counts.dense() * *dense_bytes + counts.head * 4 + counts.experts * *expert_bytes;
  const double gib = 1024.0 * 1024 * 1024;
  // A batch passes its stages one after the other: as one group with the memory of all and the bandwidth of one.
  const double memory_gib = gpu->memory_gib * p.pipeline_parallel;
  const Layout layout = layout_of(p, x.weight_bytes / gib, memory_gib);
  x.num_gpus = layout.gpus;
  x.data_parallel = layout.data_parallel;
  x.expert_parallel = layout.expert_parallel;
  const double attention_gpus = std::max(std::floor(x.num_gpus / x.data_parallel), 1.0);

  const double c = p.concurrency;
  const double bandwidth = gpu->memory_gb_per_s * 1e6;  // bytes per ms
  const double hit = x.moe ? 1 - std::pow(1 - f->num_experts_per_token / f->num_experts, c) : 0;
  x.stream_weights = (counts.dense() * *dense_bytes / attention_gpus +
                      (counts.head * 2 + counts.experts * hit * *expert_bytes) / x.num_gpus) /
                     bandwidth;
  // Latent caches are copied to every GPU of a tensor group; key and value heads are divided among at most that many.
  const double kv_bytes = kv_elements_per_token(*f) * 2;
  const double kv_split = std::min(attention_gpus, x.latent ? 1.0 : f->num_key_value_heads);
  const double all_memory = x.num_gpus * memory_gib * gib;
  const double cache = std::max(0.9 * all_memory - x.weight_bytes, 0.03 * all_memory);
  x.kv_ratio = c * (p.prompt_tokens + p.output_tokens) * kv_bytes * (x.num_gpus / (x.data_parallel * kv_split)) / cache;
  x.in_flight = std::min(c, 2 * c / std::max(x.kv_ratio, 1e-9));  // a cache of 8 bits holds twice as many
  const double share = x.in_flight / c;
  x.read_cache =
      share * (c / x.data_parallel) * (p.prompt_tokens + p.output_tokens / 2) * kv_bytes / kv_split / bandwidth;
  const double peak = std::max(gpu->peak_flops(x.moe ? p.moe_quant : p.gemm_quant), 1e9) / 1e3;  // per ms
  x.compute = share * 2 * x.active_parameters * c / (x.num_gpus * peak);
  const double body = counts.dense() + counts.active_experts;
  x.prefill = (2 * body * p.prompt_tokens + 2 * f->num_hidden_layers * f->full_attention_share * attention_width(*f) *
                                                p.prompt_tokens * p.prompt_tokens) /
              (x.num_gpus * peak);
  if (x.num_gpus > 1) {
    const double reduce = 2 * f->num_hidden_layers * f->hidden_size * 2 * 2 * (x.num_gpus - 1) / x.num_gpus;
    const double link = (gpu->nvlink_gb_per_s > 64 ? gpu->nvlink_gb_per_s : 64) / 2 * 1e6;
    x.transfer = share * reduce * c / link;
    x.prefill_transfer = reduce * p.prompt_tokens / link;
  }
  x.prefill_per_step = (x.prefill + x.prefill_transfer) * x.in_flight / p.output_tokens;
  return x;
}

}  // namespace sextant::advisor
