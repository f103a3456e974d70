#include "engine/config.h"

#include <algorithm>
#include <initializer_list>

namespace sextant {
namespace {

class Errors {
 public:
  void check(bool ok, const char* key, std::string message) {
    if (!ok) errors_.push_back(invalid_argument(std::string(key) + " " + std::move(message), key));
  }
  void check_range(int64_t value, int64_t low, int64_t high, const char* key) {
    check(value >= low && value <= high, key,
          "must be between " + std::to_string(low) + " and " + std::to_string(high) + ", not " + std::to_string(value));
  }
  void check_choice(const std::string& value, std::initializer_list<const char*> choices, const char* key) {
    std::string list;
    for (const char* choice : choices) {
      if (value == choice) return;
      list += list.empty() ? choice : std::string(", ") + choice;
    }
    check(false, key, "must be one of " + list + ", not '" + value + "'");
  }
  std::vector<Status> take() { return std::move(errors_); }

 private:
  std::vector<Status> errors_;
};

bool is_this_machine(const std::string& host) {
  return host == "localhost" || host == "::1" || host.starts_with("127.");
}

}  // namespace

std::vector<Status> EngineConfig::validate() const {
  Errors errors;
  errors.check(!model.model.empty(), "model", "is required: a GGUF file or a Hugging Face directory");
  errors.check_choice(model.load_format, {"auto", "dummy"}, "load_format");
  errors.check_choice(model.dtype, {"auto", "bfloat16", "float16", "half", "float32", "float"}, "dtype");
  errors.check(model.max_model_len == 0 || model.max_model_len >= 2, "max_model_len",
               "must be at least 2, or 0 for the model's own");
  errors.check_range(model.max_model_len, 0, int64_t{1} << 27, "max_model_len");
  errors.check(cache.block_size == 16, "block_size",
               "must be 16 (other sizes are not supported), not " + std::to_string(cache.block_size));
  errors.check_choice(cache.kv_cache_dtype, {"auto", "bfloat16", "float16", "float32", "int8"}, "kv_cache_dtype");
  errors.check(cache.kv_cache_memory_bytes >= 0, "kv_cache_memory_bytes", "must not be negative");
  errors.check(cache.gpu_memory_utilization > 0 && cache.gpu_memory_utilization <= 1, "gpu_memory_utilization",
               "must be above 0 and at most 1, not " + std::to_string(cache.gpu_memory_utilization));
  errors.check(cache.cpu_kv_cache_limit_bytes > 0, "cpu_kv_cache_limit_bytes", "must be positive");
  errors.check_range(scheduler.max_num_seqs, 1, 65536, "max_num_seqs");
  errors.check_range(scheduler.max_num_batched_tokens, 1, 1 << 20, "max_num_batched_tokens");
  errors.check(scheduler.max_num_batched_tokens >= scheduler.max_num_seqs, "max_num_batched_tokens",
               "(" + std::to_string(scheduler.max_num_batched_tokens) + ") must not be below max_num_seqs (" +
                   std::to_string(scheduler.max_num_seqs) + "): every running sequence needs one token of a step");
  errors.check_range(scheduler.max_num_queued_reqs, 1, int64_t{1} << 30, "max_num_queued_reqs");
  errors.check_choice(scheduler.scheduling_policy, {"fcfs", "priority"}, "scheduling_policy");
  errors.check_range(scheduler.max_steps_in_flight, 0, 16, "max_steps_in_flight");
  errors.check_range(parallel.tensor_parallel_size, 1, 1024, "tensor_parallel_size");
  errors.check_range(parallel.pipeline_parallel_size, 1, 1024, "pipeline_parallel_size");
  errors.check(parallel.collective_timeout_s >= 0 && parallel.collective_timeout_s <= 1e6, "collective_timeout",
               "must be between 0 and 1000000, not " + std::to_string(parallel.collective_timeout_s));
  errors.check_range(parallel.nnodes, 1, 1024, "nnodes");
  errors.check(parallel.node_rank >= 0 && parallel.node_rank < parallel.nnodes, "node_rank",
               "must be from 0 to nnodes - 1 (" + std::to_string(parallel.nnodes - 1) + "), not " +
                   std::to_string(parallel.node_rank));
  errors.check(parallel.nnodes < 1 || parallel.num_ranks() % parallel.nnodes == 0, "nnodes",
               "(" + std::to_string(parallel.nnodes) + ") must divide the " + std::to_string(parallel.num_ranks()) +
                   " ranks of tensor_parallel_size times pipeline_parallel_size");
  errors.check(!parallel.master_addr.empty(), "master_addr", "must not be empty");
  errors.check_range(parallel.master_port, 1, 65535, "master_port");
  errors.check(parallel.nnodes == 1 || !parallel.group_secret.empty() || is_this_machine(parallel.master_addr),
               "group_secret",
               "is needed where nodes meet beyond this machine (master_addr is " + parallel.master_addr +
                   "): set SEXTANT_GROUP_SECRET to the same text on every node");
  errors.check(parallel.group_join_timeout_s > 0 && parallel.group_join_timeout_s <= 1e6, "group_join_timeout",
               "must be above 0 and at most 1000000, not " + std::to_string(parallel.group_join_timeout_s));
  // cuda-emulated is for tests: no help text names it.
  if (device.device != "cuda-emulated") errors.check_choice(device.device, {"auto", "cpu", "cuda"}, "device");
  errors.check_range(device.num_threads, 0, 1024, "num_threads");
  // NaN fails both comparisons.
  errors.check(device.step_timeout_s == -1 || (device.step_timeout_s >= 0 && device.step_timeout_s <= 1e6),
               "step_timeout_s",
               "must be between 0 and 1000000, or -1 for the default, not " + std::to_string(device.step_timeout_s));
  return errors.take();
}

}  // namespace sextant
