// `sextant deploy validate`: a folder of manifests held against itself and against what this server exports.
#include <cstdio>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "deploy/check/check.h"
#include "server/cli/deploy.h"
#include "server/metrics.h"

namespace sextant::cli {
namespace {

using nlohmann::ordered_json;

class ValidateVerb final : public Verb {
 public:
  std::string name() const override { return "deploy validate"; }
  std::string description() const override {
    return "find in manifests what no schema sees: dead references, unknown metrics, targets that cannot scale";
  }
  std::string examples() const override {
    return "  sextant deploy validate bundle\n"
           "  sextant deploy validate all.yaml --json\n"
           "  sextant deploy validate --rules\n"
           "Exit code 1: something was found. Schemas are checked by kubernetes-validate and the like; this looks "
           "further.\n";
  }

  void declare(CLI::App& app) override {
    app.add_option("path", path_, "a folder, as `sextant deploy render` writes it, or one file")->type_name("DIR|FILE");
    app.add_flag("--rules", rules_, "what is looked for, and exit");
    app.add_flag("--json", json_, "one JSON object");
  }

  int run(const std::vector<Status>& bad_flags) override {
    std::vector<Status> errors = bad_flags;
    if (rules_ && errors.empty()) {
      for (const auto& [rule, what] : deploy::check_rules()) std::printf("%-16s %s\n", rule, what);
      return kExitDone;
    }
    if (path_.empty()) errors.push_back(invalid_argument("a folder or file is needed"));
    std::vector<deploy::CheckFile> files;
    if (errors.empty()) {
      auto read = deploy::read_check_files(path_);
      if (read.ok())
        files = *std::move(read);
      else
        errors.push_back(read.status());
    }
    if (!errors.empty()) return report_bad_input(name(), errors);
    std::vector<deploy::ExportedMetric> exported;
    for (const ExportedFamily& family : ServerMetrics::exported())
      exported.push_back({family.name, family.type, {family.labels.begin(), family.labels.end()}});
    const deploy::CheckReport report = deploy::check_files(files, exported);
    if (json_) {
      ordered_json findings = ordered_json::array();
      for (const deploy::Finding& f : report.findings)
        findings.push_back({{"file", f.file}, {"object", f.object}, {"rule", f.rule}, {"message", f.message}});
      const ordered_json out = {{"files", report.num_files},
                                {"objects", report.num_objects},
                                {"queries", report.num_queries},
                                {"findings", findings}};
      std::printf("%s\n", out.dump(2, ' ', false, ordered_json::error_handler_t::replace).c_str());
    } else {
      for (const deploy::Finding& f : report.findings)
        std::printf("%s: %s%s%s [%s]\n", f.file.c_str(), f.object.c_str(), f.object.empty() ? "" : ": ",
                    f.message.c_str(), f.rule.c_str());
      std::printf("%zu objects and %zu queries in %zu files: %zu findings\n", report.num_objects, report.num_queries,
                  report.num_files, report.findings.size());
    }
    return report.findings.empty() ? kExitDone : kExitFailed;
  }

 private:
  std::string path_;
  bool rules_ = false;
  bool json_ = false;
};

}  // namespace

std::unique_ptr<Verb> make_deploy_validate_verb() { return std::make_unique<ValidateVerb>(); }

}  // namespace sextant::cli
