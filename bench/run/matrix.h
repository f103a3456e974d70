// Matrix: lengths x loads x server settings, from a declarative JSON file to a list of cells, each with a key that stays the same as
// long as what is measured does: what is done is skipped. And a server process that is started and stopped around them. Blocks.
#pragma once

#include <sys/types.h>

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "bench/run/serve_bench.h"

namespace sextant::bench {

struct MatrixCell {
  std::string key;            // SHA-256 of all that decides what is measured
  std::string label;          // "512 in, 128 out, concurrency 16"
  std::string lengths;        // "512 in, 128 out"
  ServeBenchOptions options;  // url, api key and deployment are filled in when the server runs
};

struct MatrixServer {
  std::vector<std::string>
      command;  // with flags for this combination of settings; "{port}" where the port goes. Empty: `url` runs
  nlohmann::json settings = nlohmann::json::object();
  std::vector<MatrixCell> cells;
  std::string settings_text() const;  // "max_num_seqs 16, dtype float16"; empty where there are none
};

struct MatrixSpec {
  std::string url;      // of a server that runs already; empty: `command` is started
  std::string records;  // JSON lines that grow
  double ready_timeout_s = 600;
  std::vector<MatrixServer> servers;
  size_t num_cells() const;
};

// {
//   "server": {"command": ["sextant", "serve", "model.gguf"], "settings": {"max_num_seqs": [16, 64]}},   or "url": "http://..."
//   "lengths": [[128, 128], [1024, 64], ["lognormal:512,256", 128]],
//   "concurrency": [1, 4, 16], "request_rate": [2, 8],                         at least one of the two
//   "requests_per_slot": 8, "num_prompts": 200, "duration_s": 60,              how long each cell lasts
//   "tokenizer": "model.gguf", "model": "name", "chat": false, "seed": 0, "slo": "...", "goodput": "...", "num_warmups": 2,
//   "gpu_type": "...", "num_gpus": 1, "weight_quantization": "...", "records": "records.jsonl"
// }
// Every error at once, named by its key; unknown keys are errors.
Result<MatrixSpec> parse_matrix(const nlohmann::json& json);

// Cells that are done, each with the id of its last record: one per line of "<records>.cells".
std::map<std::string, std::string> read_done_cells(const std::string& records_path);
Status append_done_cell(const std::string& records_path, const std::string& key, const std::string& record_id);

// A child process whose output goes to `log_path`. Stopped by SIGTERM, and by SIGKILL when it takes too long.
class ServerProcess {
 public:
  ServerProcess() = default;
  ~ServerProcess() { stop(); }
  ServerProcess(const ServerProcess&) = delete;
  ServerProcess& operator=(const ServerProcess&) = delete;

  Status start(std::vector<std::string> command, const std::string& log_path);  // "{port}" is replaced
  std::string url() const { return "http://127.0.0.1:" + std::to_string(port_); }
  bool running();
  void stop(double grace_s = 30);

 private:
  pid_t pid_ = -1;
  int port_ = 0;
};

// What `command --print-config` prints, where it is ours and prints JSON.
nlohmann::json printed_config(const std::vector<std::string>& command);

}  // namespace sextant::bench
