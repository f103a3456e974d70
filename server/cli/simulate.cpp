#include "server/cli/simulate.h"

#include <cstdio>
#include <cstdlib>

#include <CLI/CLI.hpp>

#include "engine/format/hub.h"
#include "server/cli/log_sink.h"
#include "server/cli/model_location.h"
#include "server/cli/simulated_machine.h"
#include "server/cli/virtual_run.h"
#include "server/cli/write_trace.h"

namespace sextant::cli {
namespace {

class SimulateVerb final : public Verb {
 public:
  std::string name() const override { return "simulate"; }
  std::string description() const override { return "serve as if on a machine that is not here: no GPU, no weights"; }
  std::string examples() const override {
    return "  sextant simulate --time constant:ttft=200ms,tpot=50ms --trace-file truth.jsonl\n"
           "  sextant simulate --model HuggingFaceTB/SmolLM2-135M-Instruct --time "
           "constant:ttft=20ms,tpot=5ms,jitter=10%\n"
           "  sextant simulate ./Llama-3.1-8B --time roofline:compute=60%,bandwidth=80% --gpu-type H100-SXM5-80GB\n"
           "  MODEL_NAME=meta-llama/Llama-3.1-8B GPU_TYPE=NVIDIA-L4 BENCHMARKS_PATH=records.jsonl sextant simulate\n"
           "  sextant simulate ./Llama-3.1-8B --gpu-type L4 --virtual-time --request-rate 4 --num-requests 10000\n";
  }

  void declare(CLI::App& app) override {
    app.add_option("path", arguments_.positional_model,
                   "GGUF file or Hugging Face directory (weights are not needed); default: a built-in byte tokenizer")
        ->type_name("MODEL");
    app.add_option("--config", arguments_.config_path,
                   "JSON file of settings, as --print-config prints them; flags win")
        ->type_name("FILE");
    app.add_flag("--print-config", arguments_.print_config, "print all settings as JSON and exit");
    SettingCollector collector(options_.of_verb);
    visit_simulate_settings(settings_, collector);
    visit_virtual_settings(virtual_, collector);
    add_flags(app, options_.settings(), arguments_.flags);
  }

  int run(const std::vector<Status>& bad_flags) override {
    std::vector<Status> errors = bad_flags;
    for (Status& error : resolve()) errors.push_back(std::move(error));
    if (!errors.empty()) return report_bad_input(name(), errors);
    if (options_.print_config) {
      std::printf("%s\n", to_json(options_.settings()).dump(2).c_str());
      return kExitDone;
    }
    Result<SimulatedMachine> machine = make_simulated_machine(settings_, options_);
    if (!machine.ok()) return report_bad_input(name(), {machine.status()});
    if (virtual_.virtual_time) return run_virtual_time(virtual_, settings_, *machine, options_);
    EngineSource source = engine_from_simulation(*machine, options_);
    std::unique_ptr<WriteTrace> trace;
    if (!settings_.trace_file.empty()) {
      Result<std::unique_ptr<WriteTrace>> opened = WriteTrace::open(settings_.trace_file);
      if (!opened.ok()) return report_bad_input(name(), {opened.status()});
      trace = std::move(opened).value();
      source.on_socket_event = [&trace](const http::SocketEvent& event) { trace->record(event); };
    }
    install_log_sink(options_.server.log_level, options_.server.log_format);
    return serve(options_, source);
  }

 private:
  std::vector<Status> resolve() {
    const Environment environment = [](const char* variable) { return std::getenv(variable); };
    const auto from_environment = [&](const char* variable, std::string& field) {
      if (const char* value = environment(variable); value != nullptr && *value != '\0') field = value;
    };
    from_environment("GPU_TYPE", settings_.gpu_type);
    from_environment("BENCHMARKS_PATH", settings_.benchmarks);
    ModelSource& model = options_.engine.model;
    model.model = kByteModel;
    from_environment("MODEL_NAME", model.served_model_name);
    std::vector<Status> errors = resolve_serve_options(arguments_, environment, options_);
    for (const auto& [key, text] : arguments_.flags) {
      if (key == "tensor_parallel_size") settings_.tensor_parallel = options_.engine.parallel.tensor_parallel_size;
    }
    std::string num_gpus;
    from_environment("TENSOR_PARALLEL_SIZE", num_gpus);
    if (!settings_.tensor_parallel && !num_gpus.empty()) {
      int64_t count = 0;
      const Status parsed = set_from_text({"TENSOR_PARALLEL_SIZE", "", &count}, num_gpus);
      if (!parsed.ok()) errors.push_back(parsed);
      if (parsed.ok() && (count < 1 || count > 1024)) {
        errors.push_back(invalid_argument("TENSOR_PARALLEL_SIZE must be between 1 and 1024, not " + num_gpus));
      }
      settings_.tensor_parallel = count;
    }
    if (!errors.empty() || options_.print_config) return errors;
    if (model.model != kByteModel) {
      const Result<PullOptions> cache = pull_options_from_environment();
      Result<std::string> path = locate_model(model.model, cache.ok() ? cache->cache_directory : "");
      if (!path.ok()) return {path.status()};
      if (model.served_model_name.empty()) model.served_model_name = default_model_name(model.model);
      model.model = *path;
    }
    if (model.served_model_name.empty()) model.served_model_name = kByteModel;
    return errors;
  }

  ServeArguments arguments_;
  ServeOptions options_;
  SimulateSettings settings_;
  VirtualSettings virtual_;
};

}  // namespace

std::unique_ptr<Verb> make_simulate_verb() { return std::make_unique<SimulateVerb>(); }

}  // namespace sextant::cli
