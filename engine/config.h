// EngineConfig: every setting of the engine, each default once. Filled by flags, a file or a test; validated; then frozen:
// each component gets a const reference to its own sub-struct. What was measured (block counts, bytes) goes elsewhere.
// The names are vLLM's flag names with underscores; --print-config, bench records and the advisor use the same keys.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/base/status.h"

namespace sextant {

struct ModelSource {
  std::string model;                 // path of a GGUF file or a Hugging Face directory
  std::string served_model_name;     // empty: the last part of `model`
  std::string load_format = "auto";  // auto, dummy (random weights of a config.json's shape)
  std::string dtype = "auto";        // auto, bfloat16, float16 (half), float32 (float): what matmuls compute in. auto
                                     // on CUDA: float16 where the checkpoint is, else bfloat16; on the CPU: fp32
                                     // activations on weights as stored, bfloat16 rounds them for bf16 weights where
                                     // the CPU multiplies pairs of bf16
  std::string chat_template;         // a file that replaces the model's own; empty: the model's
  bool skip_tokenizer_init = false;  // token ids in and out; no tokenizer is read
  int64_t max_model_len = 0;         // prompt + output tokens of one sequence; 0: what the model states
  int64_t seed = 0;                  // of dummy weights only; requests without a seed get a random one
};

struct CacheConfig {
  int64_t block_size = 16;               // token slots in a block
  std::string kv_cache_dtype = "auto";   // auto, bfloat16, float16, float32, int8. auto: on CUDA the type of the
                                         // activations (the only one there), on the CPU bfloat16
  int64_t kv_cache_memory_bytes = 0;     // exact size of the KV cache; 0: gpu_memory_utilization decides
  double gpu_memory_utilization = 0.92;  // share of the device's memory for weights, workspace and KV cache; on the CPU
                                         // a share of what is available, capped by cpu_kv_cache_limit_bytes
  int64_t cpu_kv_cache_limit_bytes = int64_t{2} << 30;
  bool enable_prefix_caching = true;
};

struct SchedulerConfig {
  int64_t max_num_seqs = 256;              // sequences running at once
  int64_t max_num_batched_tokens = 512;    // the token budget of a step; bounds how long others wait for a prefill
  int64_t max_num_queued_reqs = 1024;      // requests waiting; one more is refused with 503
  std::string scheduling_policy = "fcfs";  // fcfs, priority (lower value first)
  bool enable_chunked_prefill = true;
  int64_t max_steps_in_flight = 0;  // 0: 1 on the CPU, 2 on CUDA
};

struct ParallelConfig {
  int64_t tensor_parallel_size = 1;
  int64_t pipeline_parallel_size = 1;
  // After which a rank that does not come to a collective, or a node that is not heard of, is missing; 0: never.
  double collective_timeout_s = 600;
  int64_t nnodes = 1;     // processes that share the ranks evenly, in order
  int64_t node_rank = 0;  // of this one; 0 leads: it schedules and serves the API
  std::string master_addr = "127.0.0.1";
  int64_t master_port = 29501;
  std::string group_secret;           // that the nodes know one another by; never printed or logged
  double group_join_timeout_s = 600;  // for all nodes to come

  int64_t num_ranks() const { return tensor_parallel_size * pipeline_parallel_size; }
};

struct DeviceConfig {
  std::string device = "auto";  // auto, cpu, cuda
  int64_t num_threads = 0;      // CPU threads of the engine; 0: the cores this process may use
  // Where a rank's threads run on the CPU: auto, none, or one list of CPUs per rank of this process ("0-15|16-31"); see numa.h.
  std::string cpu_bind = "auto";
  // A step without results for so long is a failed device; 0: never. -1: 300 on a GPU, whose longest step takes seconds;
  // never elsewhere, where there is no driver to wait for and a step may honestly take minutes.
  double step_timeout_s = -1;
  // Where the steps in flight are written when the device fails (step_dump.h); empty: nowhere.
  std::string step_dump_dir = "/tmp";
};

struct EngineConfig {
  ModelSource model;
  CacheConfig cache;
  SchedulerConfig scheduler;
  ParallelConfig parallel;
  DeviceConfig device;

  // Every error at once; empty when the configuration can be used. `param` of each is the key.
  std::vector<Status> validate() const;
};

// Calls visitor(key, field, help) for every setting, in the order of --help. The one list from which flags, config files,
// --print-config and records are made. Keys are vLLM's flag names with underscores.
template <typename Config, typename Visitor>
void visit_engine_config(Config& config, Visitor&& visitor) {
  visitor("model", config.model.model, "GGUF file or Hugging Face directory to serve");
  visitor("served_model_name", config.model.served_model_name, "model name in the API (default: last part of --model)");
  visitor("load_format", config.model.load_format, "auto, or dummy for random weights of a config.json's shape");
  visitor(
      "dtype", config.model.dtype,
      "what matrix products compute in: auto (as the checkpoint says), bfloat16, float16 or half, float32 (CPU only)");
  visitor("chat_template", config.model.chat_template, "file with a Jinja chat template that replaces the model's own");
  visitor("skip_tokenizer_init", config.model.skip_tokenizer_init,
          "token ids in and out, for a model without a tokenizer: prompts are lists of ids, answers carry token_ids");
  visitor("max_model_len", config.model.max_model_len, "longest prompt plus output, in tokens (default: the model's)");
  visitor("seed", config.model.seed, "seed of dummy weights");
  visitor("block_size", config.cache.block_size, "token slots in a KV cache block");
  visitor("kv_cache_dtype", config.cache.kv_cache_dtype,
          "auto (on a GPU the type of --dtype, else bfloat16), bfloat16, float16 (GPU only), float32 (CPU only), "
          "int8 (CPU only: half of bfloat16's memory, a scale for each token and head)");
  visitor("kv_cache_memory_bytes", config.cache.kv_cache_memory_bytes, "exact size of the KV cache; accepts K, M, G");
  visitor("gpu_memory_utilization", config.cache.gpu_memory_utilization, "share of device memory the engine may use");
  visitor("cpu_kv_cache_limit_bytes", config.cache.cpu_kv_cache_limit_bytes,
          "most the KV cache takes on the CPU by default");
  visitor("enable_prefix_caching", config.cache.enable_prefix_caching, "reuse the KV cache of equal prompt beginnings");
  visitor("max_num_seqs", config.scheduler.max_num_seqs, "sequences that run at once");
  visitor("max_num_batched_tokens", config.scheduler.max_num_batched_tokens, "token budget of one step");
  visitor("max_num_queued_reqs", config.scheduler.max_num_queued_reqs, "requests that may wait; more get 503");
  visitor("scheduling_policy", config.scheduler.scheduling_policy, "fcfs, or priority (lower value first)");
  visitor("enable_chunked_prefill", config.scheduler.enable_chunked_prefill, "split long prompts over several steps");
  visitor("max_steps_in_flight", config.scheduler.max_steps_in_flight,
          "steps that may overlap (default: 1 on the CPU, 2 on CUDA)");
  visitor("tensor_parallel_size", config.parallel.tensor_parallel_size,
          "ranks that share each layer: GPUs, or on the CPU groups of threads");
  visitor("pipeline_parallel_size", config.parallel.pipeline_parallel_size, "groups of devices that share the layers");
  visitor("collective_timeout", config.parallel.collective_timeout_s,
          "seconds a rank waits for the others before it names those that are missing and fails; 0: for ever");
  visitor("nnodes", config.parallel.nnodes,
          "processes that serve the model together, each with its share of the ranks");
  visitor("node_rank", config.parallel.node_rank,
          "which of them this is; 0 leads and serves the API, the others follow it");
  visitor("master_addr", config.parallel.master_addr, "address or name of node 0; the same on every node");
  visitor("master_port", config.parallel.master_port, "port at which node 0 waits for the others");
  visitor("group_secret", config.parallel.group_secret,
          "what lets a process into the group; better in SEXTANT_GROUP_SECRET, where ps does not show it");
  visitor("group_join_timeout", config.parallel.group_join_timeout_s, "seconds for all nodes to come");
  visitor("device", config.device.device, "auto, cpu, cuda");
  visitor("num_threads", config.device.num_threads, "CPU threads of the engine (default: the cores it may use)");
  visitor("cpu_bind", config.device.cpu_bind,
          "where CPU ranks run: auto (on a NUMA node each), none, or a list per rank such as 0-15|16-31");
  visitor("step_timeout_s", config.device.step_timeout_s,
          "seconds without a step's results after which the device counts as failed; 0: never (default: 300 on a GPU)");
  visitor("step_dump_dir", config.device.step_dump_dir,
          "directory for a replayable record of the steps in flight (token ids, no text) when the device fails; "
          "empty: none");
}

}  // namespace sextant
