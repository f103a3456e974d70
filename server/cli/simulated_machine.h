// SimulatedMachine: what `sextant simulate` was told, resolved: the model's facts, how long steps take, how much KV cache there
// is. Made before the server starts, so that every error is bad input. Read-only afterwards.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/model/model_config.h"
#include "engine/sim/time_spec.h"
#include "engine/sim/virtual_time.h"
#include "server/cli/serve.h"
#include "server/cli/serve_options.h"

namespace sextant::cli {

struct SimulateSettings {
  std::string time;        // as --time takes it; empty: record with benchmarks, else roofline with a GPU, else constant
  std::string gpu_type;    // GPU_TYPE
  std::string benchmarks;  // BENCHMARKS_PATH
  std::string trace_file;
  int64_t sim_seed = 1;                    // of jitter
  std::optional<int64_t> tensor_parallel;  // --tensor-parallel-size or TENSOR_PARALLEL_SIZE
};

template <typename Config, typename Visitor>
void visit_simulate_settings(Config& config, Visitor&& visitor) {
  visitor(
      "time", config.time,
      "how long steps take: constant:ttft=200ms,tpot=50ms; roofline:gpu=NAME,compute=60%,bandwidth=80%; record (fitted "
      "to --benchmarks); each with jitter=5%");
  visitor("gpu_type", config.gpu_type, "the GPU that is simulated; also GPU_TYPE");
  visitor("benchmarks", config.benchmarks, "benchmark records of the model on that GPU; also BENCHMARKS_PATH");
  visitor("trace_file", config.trace_file, "write what goes into each socket, and when, to this file as JSON lines");
  visitor("sim_seed", config.sim_seed, "seed of the jitter");
}

// The model that needs no file: ids are bytes.
inline constexpr const char* kByteModel = "bytes";

struct SimulatedMachine {
  sim::SimTiming timing;
  std::string gpu_type;              // as the tables name it; empty: none is named
  std::string device;                // "simulated, constant times ..."
  std::optional<ModelConfig> model;  // of the built-in byte model there is none
  std::string weight_type = "none";
  std::string kv_cache_dtype = "bfloat16";
  int64_t weight_bytes = 0;
  int64_t kv_bytes_per_token = 0;
  int64_t num_blocks = 0;  // of KV cache
  std::string memory_plan;
};

// Fills in max_model_len and, with constant times, room for every request at once, where `options` leave them open.
Result<SimulatedMachine> make_simulated_machine(const SimulateSettings& settings, ServeOptions& options);

// `machine` and `options` outlive the source.
EngineSource engine_from_simulation(const SimulatedMachine& machine, const ServeOptions& options);

}  // namespace sextant::cli
