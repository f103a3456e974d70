#include "server/cli/models.h"

#include <cstdio>
#include <cstdlib>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "engine/format/hub.h"
#include "server/cli/http_client.h"
#include "server/cli/interrupt.h"
#include "server/cli/model_location.h"
#include "server/cli/progress_bar.h"

namespace sextant::cli {
namespace {

std::string dumped(const nlohmann::ordered_json& value) {
  // Paths may hold bytes that are not UTF-8.
  return value.dump(2, ' ', false, nlohmann::json::error_handler_t::replace);
}

class ModelsVerb final : public Verb {
 public:
  std::string name() const override { return "models"; }
  std::string description() const override { return "list the models in the cache, or those of a server"; }
  std::string examples() const override {
    return "  sextant models\n"
           "  sextant models --json\n"
           "  sextant models --url http://127.0.0.1:8000\n";
  }

  void declare(CLI::App& app) override {
    app.add_option("--url", url_, "list what this server serves instead")->type_name("URL");
    app.add_option("--api-key", api_key_, "sent to the server (default: OPENAI_API_KEY)")->type_name("TEXT");
    app.add_option("--cache-dir", cache_directory_, "instead of the per-user cache")->type_name("DIR");
    app.add_flag("--json", json_, "print a JSON array");
  }

  int run(const std::vector<Status>& bad_flags) override {
    if (!bad_flags.empty()) return report_bad_input(name(), bad_flags);
    return url_.empty() ? list_cache() : list_server();
  }

 private:
  int list_server() {
    if (const char* key = std::getenv("OPENAI_API_KEY"); api_key_.empty() && key != nullptr) api_key_ = key;
    const Interrupt interrupt;
    const auto models = list_server_models(url_, api_key_, Interrupt::requested);
    if (!models.ok()) {
      if (Interrupt::requested()) return kExitInterrupted;
      std::fprintf(stderr, "sextant models: %s\n", models.status().message().c_str());
      return kExitFailed;
    }
    nlohmann::ordered_json array = nlohmann::ordered_json::array();
    for (const std::string& id : *models) {
      if (!json_) std::printf("%s\n", id.c_str());
      array.push_back({{"name", id}});
    }
    if (json_) std::printf("%s\n", dumped(array).c_str());
    return kExitDone;
  }

  int list_cache() {
    if (cache_directory_.empty()) {
      const Result<PullOptions> options = pull_options_from_environment();
      if (!options.ok()) return report_bad_input(name(), {options.status()});
      cache_directory_ = options->cache_directory;
    }
    const std::vector<CachedModel> models = list_cached_models(cache_directory_);
    nlohmann::ordered_json array = nlohmann::ordered_json::array();
    for (const CachedModel& model : models) {
      if (!json_) {
        std::printf("%s  %s%s\n", model.name.c_str(), human_bytes(static_cast<double>(model.num_bytes)).c_str(),
                    model.revision.empty() ? "" : ("  " + model.revision.substr(0, 12)).c_str());
      }
      array.push_back(
          {{"name", model.name}, {"path", model.path}, {"revision", model.revision}, {"num_bytes", model.num_bytes}});
    }
    if (json_) std::printf("%s\n", dumped(array).c_str());
    if (models.empty())
      std::fprintf(stderr, "no models in %s; sextant pull owner/name fetches one\n", cache_directory_.c_str());
    return kExitDone;
  }

  std::string url_;
  std::string api_key_;
  std::string cache_directory_;
  bool json_ = false;
};

}  // namespace

std::unique_ptr<Verb> make_models_verb() { return std::make_unique<ModelsVerb>(); }

}  // namespace sextant::cli
