// Documents back to the tables that predictions read.
#include "advisor/kb/importers.h"
#include "advisor/kb/knowledge_base.h"
#include "bench/record/benchmark_record.h"

namespace sextant::advisor {
namespace {

using nlohmann::json;

double number(const json& body, const char* name, double missing = 0) {
  const auto found = body.find(name);
  return found != body.end() && found->is_number() ? found->get<double>() : missing;
}
std::string text(const json& body, const char* name) {
  const auto found = body.find(name);
  return found != body.end() && found->is_string() ? found->get<std::string>() : std::string();
}
std::optional<double> maybe(const json& body, const char* name) {
  const auto found = body.find(name);
  if (found == body.end() || !found->is_number()) return std::nullopt;
  return found->get<double>();
}

ModelFacts facts_from(const json& body) {
  ModelFacts f;
  const json& n = body.at("facts");
  f.model_id = text(body, "model_id");
  f.architecture = text(body, "architecture");
  f.source = text(body, "source");
  f.torch_dtype = text(body, "torch_dtype");
  f.quantization = text(body, "quantization");
  visit_numbers([&](const char* name, double& fact) { fact = number(n, name); }, f);
  f.full_attention_share = number(n, "full_attention_share", 1);
  f.tie_word_embeddings = n.contains("tie_word_embeddings") && n["tie_word_embeddings"] == true;
  f.sliding_window = maybe(n, "sliding_window");
  return f;
}

GpuProfile gpu_from(const json& body) {
  GpuProfile g;
  g.name = text(body, "gpu");
  g.vendor = text(body, "vendor");
  g.architecture = text(body, "architecture");
  g.confidence = text(body, "confidence");
  g.source = text(body, "source");
  g.memory_gib = number(body, "memory_gib");
  g.memory_gb_per_s = number(body, "memory_gb_per_s");
  g.bf16_tflops = maybe(body, "bf16_tflops");
  g.fp16_tflops = maybe(body, "fp16_tflops");
  g.fp8_tflops = maybe(body, "fp8_tflops");
  g.int8_tops = maybe(body, "int8_tops");
  g.fp4_tflops = maybe(body, "fp4_tflops");
  g.nvlink_gb_per_s = number(body, "nvlink_gb_per_s");
  g.pcie_gb_per_s = number(body, "pcie_gb_per_s");
  g.power_w = number(body, "power_w");
  return g;
}

// Nothing for a record that cannot stand beside measured points: simulated, of a CPU, open-loop, or without means.
std::optional<ServingPoint> point_from_record(const json& body) {
  const auto record = bench::read_record(body);
  if (!record.ok() || record->source == bench::RecordSource::kSimulated || !record->gpu_type || record->num_gpus == 0)
    return std::nullopt;
  if (!record->test_conditions.concurrency || !record->metrics.ttft_ms || !record->metrics.tpot_ms) return std::nullopt;
  if (record->validity.over_saturated.value_or(false) || record->pipeline_parallel != 1) return std::nullopt;
  ServingPoint p;
  p.model_id = record->model_id;
  p.gpu = *record->gpu_type;
  p.engine = record->engine;
  p.engine_version = record->engine_version.value_or("");
  p.gemm_quant = p.moe_quant = record->weight_quantization.value_or("");
  p.tensor_parallel = static_cast<double>(record->tensor_parallel);
  p.attention_data_parallel = 1;  // a record's data_parallel counts replicas; concurrency is per replica
  p.moe_expert_parallel = static_cast<double>(record->expert_parallel);
  p.moe_tensor_parallel = std::max(1.0, p.tensor_parallel / p.moe_expert_parallel);
  p.concurrency = static_cast<double>(*record->test_conditions.concurrency) /
                  static_cast<double>(std::max<int64_t>(1, record->data_parallel));
  p.prompt_tokens = record->test_conditions.prompt_tokens.mean;
  p.output_tokens = record->test_conditions.output_tokens.mean;
  p.ttft_mean_ms = record->metrics.ttft_ms->mean;
  p.tpot_mean_ms = record->metrics.tpot_ms->mean;
  p.measured_on = record->timestamp.substr(0, 10);
  if (p.concurrency < 1 || p.prompt_tokens < 1 || p.output_tokens < 1 || p.ttft_mean_ms <= 0 || p.tpot_mean_ms <= 0)
    return std::nullopt;
  return p;
}

ServingPoint point_from(const json& body) {
  ServingPoint p;
  p.model_id = text(body, "model_id");
  p.gpu = text(body, "gpu");
  p.engine = text(body, "engine");
  p.engine_version = text(body, "engine_version");
  p.gemm_quant = text(body, "gemm_quant");
  p.moe_quant = text(body, "moe_quant");
  p.tensor_parallel = number(body, "tensor_parallel", 1);
  p.attention_data_parallel = number(body, "attention_data_parallel", 0);
  p.moe_tensor_parallel = number(body, "moe_tensor_parallel", 0);
  p.moe_expert_parallel = number(body, "moe_expert_parallel", 0);
  p.concurrency = number(body, "concurrency", 1);
  p.prompt_tokens = number(body, "prompt_tokens");
  p.output_tokens = number(body, "output_tokens");
  p.ttft_mean_ms = number(body, "ttft_mean_ms");
  p.tpot_mean_ms = number(body, "tpot_mean_ms");
  p.measured_on = text(body, "measured_on");
  return p;
}

}  // namespace

Result<KbSnapshot> read_snapshot(KnowledgeBase& kb, std::optional<int64_t> at) {
  KbSnapshot snapshot;
  const Result<int64_t> current = kb.revision();
  if (!current.ok()) return current.status();
  if (at && (*at < 1 || *at > *current))
    return not_found(
        "the knowledge base has revisions 1 to " + std::to_string(*current) + ", not " + std::to_string(*at),
        "kb_revision");
  snapshot.revision = at.value_or(*current);
  std::array<std::vector<KbDocument>, 6> documents;
  for (const KbKind kind : kKbKinds) {
    Result<std::vector<KbDocument>> listed = kb.list(kind, 0, "", at);
    if (!listed.ok()) return listed.status();
    documents[static_cast<size_t>(kind)] = std::move(listed).value();
  }
  for (const KbDocument& d : documents[static_cast<size_t>(KbKind::kModel)])
    if (d.body.contains("facts")) snapshot.facts.put(facts_from(d.body));
  for (const KbDocument& d : documents[static_cast<size_t>(KbKind::kGpu)]) snapshot.gpus.put(gpu_from(d.body));
  for (const KbDocument& d : documents[static_cast<size_t>(KbKind::kGpu)]) {
    if (!d.body.contains("aliases") || !d.body["aliases"].is_array()) continue;
    for (const json& alias : d.body["aliases"])
      if (alias.is_string()) RETURN_IF_ERROR(snapshot.gpus.add_alias(alias.get<std::string>(), d.id));
  }
  for (const KbDocument& d : documents[static_cast<size_t>(KbKind::kBenchmark)]) {
    std::optional<ServingPoint> point;
    if (d.body.value("schema", json()) == bench::kRecordSchema) {
      point = point_from_record(d.body);
    } else {
      point = point_from(d.body);
    }
    if (!point) continue;
    snapshot.points.push_back(std::move(*point));
    snapshot.point_ids.push_back(d.id);
  }
  for (KbDocument& d : documents[static_cast<size_t>(KbKind::kPrice)]) snapshot.prices.push_back(std::move(d.body));
  return snapshot;
}

}  // namespace sextant::advisor
