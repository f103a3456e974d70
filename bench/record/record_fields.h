// The form of a record, once: every struct's fields with key, rule and meaning. Reader, writer and schema visit these lists.
#pragma once

#include "bench/record/benchmark_record.h"

namespace sextant::bench {

enum class FieldRule {
  kAny,
  kNonEmpty,     // string
  kNonNegative,  // number >= 0
  kPositive,     // number > 0
  kRatio,        // 0..1
  kPercent,      // 0..100
  kSha256,       // 64 lower-case hex digits
  kTimestamp,    // RFC 3339, UTC
};

// `visitor(key, field, rule, meaning)`; T is the struct, const or not.
template <typename Visitor, typename T>
void visit_fields(Visitor& visit, T& x, const MetricIntervals*) {
  visit("mean", x.mean, FieldRule::kAny, "of the mean");
  visit("p50", x.p50, FieldRule::kAny, "of the median");
  visit("p90", x.p90, FieldRule::kAny, "of p90");
  visit("p95", x.p95, FieldRule::kAny, "of p95");
  visit("p99", x.p99, FieldRule::kAny, "of p99");
  visit("p99_9", x.p99_9, FieldRule::kAny, "of p99.9");
}

template <typename Visitor, typename T>
void visit_fields(Visitor& visit, T& x, const MetricSummary*) {
  visit("n", x.n, FieldRule::kNonNegative, "samples");
  visit("mean", x.mean, FieldRule::kNonNegative, "mean");
  visit("p50", x.p50, FieldRule::kNonNegative, "median; percentiles are null when fewer than 10 samples lie beyond");
  visit("p90", x.p90, FieldRule::kNonNegative, "90th percentile");
  visit("p95", x.p95, FieldRule::kNonNegative, "95th percentile");
  visit("p99", x.p99, FieldRule::kNonNegative, "99th percentile");
  visit("p99_9", x.p99_9, FieldRule::kNonNegative, "99.9th percentile");
  visit("ci90", x.ci90, FieldRule::kAny, "90% confidence intervals [low, high]");
}

template <typename Visitor, typename T>
void visit_fields(Visitor& visit, T& x, const LengthSummary*) {
  visit("mean", x.mean, FieldRule::kNonNegative, "mean");
  visit("p50", x.p50, FieldRule::kNonNegative, "median");
  visit("p95", x.p95, FieldRule::kNonNegative, "95th percentile");
  visit("max", x.max, FieldRule::kNonNegative, "largest");
}

template <typename Visitor, typename T>
void visit_fields(Visitor& visit, T& x, const TestConditions*) {
  visit("load", x.load, FieldRule::kNonEmpty,
        "constant, poisson, gamma, concurrency, all_at_once, ramp, stages, trace, diurnal, batch, kernel");
  visit("concurrency", x.concurrency, FieldRule::kPositive, "the most requests at once; null: an open loop");
  visit("request_rate", x.request_rate, FieldRule::kPositive, "requests/s asked for; null: a closed loop");
  visit("burstiness_cv", x.burstiness_cv, FieldRule::kNonNegative,
        "coefficient of variation of the gaps between arrivals: 0 constant, 1 Poisson");
  visit("prompt_tokens", x.prompt_tokens, FieldRule::kAny, "prompt lengths in tokens");
  visit("output_tokens", x.output_tokens, FieldRule::kAny, "output lengths in tokens");
  visit("prefix_hit_ratio", x.prefix_hit_ratio, FieldRule::kRatio, "prompt tokens found in the server's prefix cache");
  visit("num_requests", x.num_requests, FieldRule::kNonNegative, "measured requests, failures included");
  visit("duration_s", x.duration_s, FieldRule::kNonNegative, "seconds of the measured part");
  visit("seed", x.seed, FieldRule::kAny, "of lengths, prompts and arrivals");
  visit("tokens_counted_by", x.tokens_counted_by, FieldRule::kNonEmpty,
        "token_ids, usage, tokenizer, chunks, engine, imported");
}

template <typename Visitor, typename T>
void visit_fields(Visitor& visit, T& x, const RecordMetrics*) {
  visit("ttft_ms", x.ttft_ms, FieldRule::kAny, "send to first token");
  visit("tpot_ms", x.tpot_ms, FieldRule::kAny, "(E2E - TTFT) / (n - 1), one sample per request");
  visit("itl_ms", x.itl_ms, FieldRule::kAny, "gaps between streamed events, pooled over all requests");
  visit("e2e_ms", x.e2e_ms, FieldRule::kAny, "send to last token");
  visit("queue_ms", x.queue_ms, FieldRule::kAny, "in the server's queue, as the server says");
  visit("request_rps", x.request_rps, FieldRule::kNonNegative, "finished requests per second");
  visit("input_tokens_per_s", x.input_tokens_per_s, FieldRule::kNonNegative, "prompt tokens per second");
  visit("output_tokens_per_s", x.output_tokens_per_s, FieldRule::kNonNegative, "output tokens per second");
  visit("goodput_rps", x.goodput_rps, FieldRule::kNonNegative, "finished requests that met every limit, per second");
  visit("error_rate", x.error_rate, FieldRule::kRatio, "failed requests / all");
  visit("memory_used_gib", x.memory_used_gib, FieldRule::kNonNegative, "of all GPUs together, the largest seen");
  visit("gpu_utilization_pct", x.gpu_utilization_pct, FieldRule::kPercent, "mean over GPUs and time");
  visit("energy_j_per_token", x.energy_j_per_token, FieldRule::kNonNegative, "joules per output token");
}

template <typename Visitor, typename T>
void visit_fields(Visitor& visit, T& x, const RecordValidity*) {
  visit("send_lag_p99_ms", x.send_lag_p99_ms, FieldRule::kNonNegative, "how late requests were sent");
  visit("achieved_ratio", x.achieved_ratio, FieldRule::kNonNegative, "achieved / requested rate");
  visit("over_saturated", x.over_saturated, FieldRule::kAny, "whether the queue grew all the time");
  visit("client_self_time_pct", x.client_self_time_pct, FieldRule::kNonNegative, "of one core");
  visit("warnings", x.warnings, FieldRule::kAny, "what a reader should know");
}

template <typename Visitor, typename T>
void visit_fields(Visitor& visit, T& x, const RecordHost*) {
  visit("cpu", x.cpu, FieldRule::kNonEmpty, "the CPU's name");
  visit("num_cpus", x.num_cpus, FieldRule::kPositive, "that the process may use");
  visit("memory_gib", x.memory_gib, FieldRule::kPositive, "of the machine");
  visit("os", x.os, FieldRule::kNonEmpty, "kernel and release");
}

template <typename Visitor, typename T>
void visit_fields(Visitor& visit, T& x, const BenchmarkRecord*) {
  visit("record_id", x.record_id, FieldRule::kSha256,
        "SHA-256 of the record without this field: keys sorted, no spaces");
  visit("timestamp", x.timestamp, FieldRule::kTimestamp, "begin of the measurement, UTC");
  visit("source", x.source, FieldRule::kAny, "simulated rows never train predictions of real engines");
  visit("attribution", x.attribution, FieldRule::kNonEmpty, "of imported data: whose it is, and its licence");
  visit("model_id", x.model_id, FieldRule::kNonEmpty, "the model's name");
  visit("weights_sha256", x.weights_sha256, FieldRule::kSha256, "of the weights file");
  visit("weight_quantization", x.weight_quantization, FieldRule::kNonEmpty, "bf16, fp8, q4_1...");
  visit("kv_cache_dtype", x.kv_cache_dtype, FieldRule::kNonEmpty, "of the KV cache");
  visit("gpu_type", x.gpu_type, FieldRule::kNonEmpty, "null: a CPU, or not known");
  visit("num_gpus", x.num_gpus, FieldRule::kNonNegative, "0: a CPU");
  visit("tensor_parallel", x.tensor_parallel, FieldRule::kPositive, "tensor-parallel size");
  visit("pipeline_parallel", x.pipeline_parallel, FieldRule::kPositive, "pipeline-parallel size");
  visit("data_parallel", x.data_parallel, FieldRule::kPositive, "data-parallel size");
  visit("expert_parallel", x.expert_parallel, FieldRule::kPositive, "expert-parallel size");
  visit("engine", x.engine, FieldRule::kNonEmpty, "sextant, vllm, llama.cpp...");
  visit("engine_version", x.engine_version, FieldRule::kNonEmpty, "its version");
  visit("engine_config", x.engine_config, FieldRule::kAny, "its settings, keys as --print-config prints them");
  visit("host", x.host, FieldRule::kAny, "the machine that served, where it is known");
  visit("test_conditions", x.test_conditions, FieldRule::kAny, "the load");
  visit("metrics", x.metrics, FieldRule::kAny, "what was measured");
  visit("validity", x.validity, FieldRule::kAny, "whether to believe it");
}

}  // namespace sextant::bench
