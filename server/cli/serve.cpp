#include "server/cli/serve.h"

#include <cstdio>
#include <cstdlib>

#include <CLI/CLI.hpp>

#include "engine/format/hub.h"
#include "server/cli/log_sink.h"
#include "server/cli/model_location.h"

namespace sextant::cli {
namespace {

class ServeVerb final : public Verb {
 public:
  std::string name() const override { return "serve"; }
  std::string description() const override { return "serve a model over the OpenAI API"; }
  std::string examples() const override {
    return "  sextant serve model.gguf\n"
           "  sextant serve --model HuggingFaceTB/SmolLM2-135M-Instruct --port 9000     (after sextant pull)\n"
           "  SEXTANT_API_KEY=secret sextant serve model.gguf --host 0.0.0.0\n"
           "  sextant serve model.gguf --max-model-len 4096 --kv-cache-memory-bytes 2GiB\n"
           "  sextant serve model.gguf --tensor-parallel-size 2 --nnodes 2 --node-rank 0     (and on a second machine, "
           "or in\n"
           "    a second shell, the same with --node-rank 1; both with --master-addr HOST and SEXTANT_GROUP_SECRET)\n"
           "  sextant serve model.gguf --print-config > config.json; sextant serve --config config.json\n";
  }

  void declare(CLI::App& app) override {
    app.add_option("path", arguments_.positional_model, "the model, as --model takes it")->type_name("MODEL");
    app.add_option("--config", arguments_.config_path,
                   "JSON file of settings, as --print-config prints them; flags win")
        ->type_name("FILE");
    app.add_flag("--print-config", arguments_.print_config, "print all settings as JSON and exit");
    add_flags(app, options_.settings(), arguments_.flags);
  }

  int run(const std::vector<Status>& bad_flags) override {
    std::vector<Status> errors = bad_flags;
    const Environment environment = [](const char* variable) { return std::getenv(variable); };
    for (Status& error : resolve_serve_options(arguments_, environment, options_)) errors.push_back(std::move(error));
    if (errors.empty() && !options_.print_config) {
      const Result<PullOptions> cache = pull_options_from_environment();
      const std::string cache_directory = cache.ok() ? cache->cache_directory : "";
      Result<std::string> path = locate_model(options_.engine.model.model, cache_directory);
      if (path.ok()) {
        if (options_.engine.model.served_model_name.empty()) {
          options_.engine.model.served_model_name = default_model_name(options_.engine.model.model);
        }
        options_.engine.model.model = *path;
      } else {
        errors.push_back(path.status());
      }
    }
    if (!errors.empty()) return report_bad_input(name(), errors);
    if (options_.print_config) {
      std::printf("%s\n", to_json(options_.settings()).dump(2).c_str());
      return kExitDone;
    }
    install_log_sink(options_.server.log_level, options_.server.log_format);
    if (options_.engine.parallel.node_rank > 0) return follow(options_);
    return serve(options_, engine_from_files(options_));
  }

 private:
  ServeArguments arguments_;
  ServeOptions options_;
};

}  // namespace

std::unique_ptr<Verb> make_serve_verb() { return std::make_unique<ServeVerb>(); }

}  // namespace sextant::cli
