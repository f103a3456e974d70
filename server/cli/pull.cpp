#include "server/cli/pull.h"

#include <unistd.h>

#include <cstdio>
#include <optional>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "engine/format/hub.h"
#include "server/cli/interrupt.h"
#include "server/cli/progress_bar.h"

namespace sextant::cli {
namespace {

class PullVerb final : public Verb {
 public:
  std::string name() const override { return "pull"; }
  std::string description() const override { return "fetch a model from the Hugging Face Hub or a URL into the cache"; }
  std::string examples() const override {
    return "  sextant pull HuggingFaceTB/SmolLM2-135M-Instruct\n"
           "  sextant pull owner/name --revision v1.0 --include '*.gguf'\n"
           "  sextant pull https://example.org/model.gguf\n"
           "  sextant serve \"$(sextant pull owner/name)\"\n"
           "The path is printed on stdout. HF_TOKEN is sent to HF_ENDPOINT only; SEXTANT_CACHE moves the cache.\n"
           "A pull that was cut short goes on where it stopped.\n";
  }

  void declare(CLI::App& app) override {
    app.add_option("model", what_, "owner/name, owner/name@revision, or the http(s) URL of one file")
        ->type_name("MODEL");
    app.add_option("--revision", revision_, "branch, tag or commit [main]")->type_name("TEXT");
    app.add_option("--include", include_, "only files that match this shell pattern; may be repeated")
        ->type_name("PATTERN")
        ->take_all();
    app.add_option("--cache-dir", cache_directory_, "instead of the per-user cache")->type_name("DIR");
    app.add_flag("--json", json_, "print one JSON object instead of the path");
  }

  int run(const std::vector<Status>& bad_flags) override {
    std::vector<Status> errors = bad_flags;
    if (what_.empty()) errors.push_back(invalid_argument("what to pull is missing: owner/name, or a URL"));
    const bool is_url = what_.find("://") != std::string::npos;
    if (!revision_.empty() && (is_url || what_.find('@') != std::string::npos)) {
      errors.push_back(invalid_argument(is_url ? "--revision means nothing for a URL" : "the revision is given twice"));
    }
    Result<PullOptions> options = pull_options_from_environment();
    if (!cache_directory_.empty()) {
      if (!options.ok()) options = PullOptions{};
      options->cache_directory = cache_directory_;
    }
    if (!options.ok()) errors.push_back(options.status());
    if (!errors.empty()) return report_bad_input(name(), errors);
    return fetch(revision_.empty() ? what_ : what_ + "@" + revision_, *options);
  }

 private:
  int fetch(const std::string& what, PullOptions& options) const {
    const Interrupt interrupt;
    std::optional<ProgressBar> bar(std::in_place, stderr, isatty(STDERR_FILENO) == 1);
    options.include = include_;
    options.progress = [&](const PullProgress& at) { bar->update(at.file, at.bytes_done, at.bytes_total); };
    options.message = [](const std::string& text) { std::fprintf(stderr, "sextant pull: %s\n", text.c_str()); };
    options.transfer.cancelled = Interrupt::requested;
    const Result<PullResult> pulled = pull(what, options);
    bar.reset();
    if (!pulled.ok()) {
      if (Interrupt::requested()) {
        std::fprintf(stderr,
                     "sextant pull: interrupted; what arrived is kept, and the same command goes on from there\n");
        return kExitInterrupted;
      }
      std::fprintf(stderr, "sextant pull: %s\n", pulled.status().message().c_str());
      return pulled.status().code() == StatusCode::kInvalidArgument ? kExitBadInput : kExitFailed;
    }
    std::fprintf(stderr, "%s in %zu files, %s of them fetched now\n",
                 human_bytes(static_cast<double>(pulled->num_bytes)).c_str(), pulled->files.size(),
                 human_bytes(static_cast<double>(pulled->num_bytes_received)).c_str());
    if (json_) {
      const nlohmann::ordered_json object = {{"path", pulled->path},
                                             {"revision", pulled->revision},
                                             {"files", pulled->files},
                                             {"num_bytes", pulled->num_bytes},
                                             {"num_bytes_received", pulled->num_bytes_received}};
      std::printf("%s\n", object.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace).c_str());
    } else {
      std::printf("%s\n", pulled->path.c_str());
    }
    return kExitDone;
  }

  std::string what_;
  std::string revision_;
  std::vector<std::string> include_;
  std::string cache_directory_;
  bool json_ = false;
};

}  // namespace

std::unique_ptr<Verb> make_pull_verb() { return std::make_unique<PullVerb>(); }

}  // namespace sextant::cli
