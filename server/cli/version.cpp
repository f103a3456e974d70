#include "server/cli/version.h"

#include <cstdio>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

namespace sextant::cli {
namespace {

class VersionVerb final : public Verb {
 public:
  std::string name() const override { return "version"; }
  std::string description() const override { return "print the program's version"; }
  std::string examples() const override { return "  sextant version --json\n"; }
  void declare(CLI::App& app) override { app.add_flag("--json", json_, "one JSON object"); }

  int run(const std::vector<Status>& bad_flags) override {
    if (!bad_flags.empty()) return report_bad_input(name(), bad_flags);
    if (json_) {
      const nlohmann::ordered_json object = {
          {"version", version_text()}, {"compiler", __VERSION__}, {"backends", {"cpu"}}};
      std::printf("%s\n", object.dump().c_str());
    } else {
      std::printf("sextant %s\n", version_text().c_str());
    }
    return kExitDone;
  }

 private:
  bool json_ = false;
};

}  // namespace

std::unique_ptr<Verb> make_version_verb() { return std::make_unique<VersionVerb>(); }

}  // namespace sextant::cli
