#include "server/cli/deploy.h"

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iostream>

#include <CLI/CLI.hpp>

#include "advisor/kb/importers.h"
#include "deploy/render.h"
#include "server/cli/settings.h"

namespace sextant::cli {
namespace {

using nlohmann::ordered_json;

Result<std::string> read_plan_text(const std::string& path) {
  if (path != "-") return advisor::read_text_file(path, deploy::kMaxPlanBytes);
  std::string text;
  char buffer[4096];
  while (std::cin.read(buffer, sizeof buffer) || std::cin.gcount() > 0) {
    text.append(buffer, static_cast<size_t>(std::cin.gcount()));
    if (text.size() > deploy::kMaxPlanBytes) break;  // refused by its size
  }
  return text;
}

class RenderVerb final : public Verb {
 public:
  std::string name() const override { return "deploy render"; }
  std::string description() const override {
    return "a plan made into Kubernetes manifests, charts, dashboards and alerts";
  }
  std::string examples() const override {
    return "  sextant advise plan spec.json --output plan.json && sextant deploy render --plan plan.json --output "
           "bundle\n"
           "  sextant deploy render --plan plan.json --output all.yaml --namespace llm --autoscaler keda\n"
           "  sextant deploy render --plan plan.json --output bundle.tar --expose gateway --host llm.example.org "
           "--rollout "
           "canary --new-image sextant:0.2.0\n"
           "  sextant deploy render --plan plan.json --simulate --output rehearsal\n";
  }

  void declare(CLI::App& app) override {
    app.add_option("--plan", plan_, "a document of sextant.plan/1, or - for standard input")->type_name("PLAN.json");
    app.add_option("--output", output_, "a folder, or a file that ends in .yaml (Kubernetes objects alone) or .tar")
        ->type_name("DIR|FILE");
    app.add_flag("--force", force_, "write into a folder that holds other files");
    app.add_flag("--json", json_, "print the files by name as one JSON object");
    add_flags(app, settings(), given_);
  }

  int run(const std::vector<Status>& bad_flags) override {
    std::vector<Status> errors = bad_flags;
    if (plan_.empty()) errors.push_back(invalid_argument("--plan is needed: a file, or - for standard input"));
    if (output_.empty() && !json_)
      errors.push_back(invalid_argument("--output is needed: a folder, or FILE.yaml, or FILE.tar"));
    for (Status& error : apply_flags(settings(), given_)) errors.push_back(std::move(error));
    ordered_json plan;
    if (errors.empty()) {
      const Result<std::string> text = read_plan_text(plan_);
      Result<ordered_json> parsed = text.ok() ? deploy::parse_plan(*text) : Result<ordered_json>(text.status());
      if (parsed.ok())
        plan = *std::move(parsed);
      else
        errors.push_back(parsed.status());
    }
    deploy::Bundle bundle;
    if (errors.empty()) errors = deploy::render(plan, options_, bundle);
    if (!errors.empty()) return report_bad_input(name(), errors);
    for (const std::string& note : bundle.notes) std::fprintf(stderr, "note: %s\n", note.c_str());
    if (json_) {
      ordered_json files = ordered_json::object();
      for (const deploy::BundleFile& file : bundle.files()) files[file.name] = file.content();
      std::printf("%s\n", ordered_json{{"files", files}, {"notes", bundle.notes}}.dump(2).c_str());
    }
    return output_.empty() ? kExitDone : write(bundle);
  }

 private:
  std::vector<Setting> settings() {
    std::vector<Setting> out;
    SettingCollector collector(out);
    deploy::visit_options(options_, collector);
    return out;
  }

  int write(const deploy::Bundle& bundle) const {
    Status status;
    const bool tar = output_.ends_with(".tar");
    if (tar || output_.ends_with(".yaml") || output_.ends_with(".yml")) {
      const std::string part = output_ + ".part";
      std::ofstream file(part, std::ios::binary | std::ios::trunc);
      file << (tar ? deploy::tar_of(bundle, std::filesystem::path(output_).stem().string())
                   : deploy::single_file_of(bundle));
      file.close();
      std::error_code error;
      if (file) std::filesystem::rename(part, output_, error);
      if (!file || error) status = invalid_argument(output_ + ": cannot be written");
    } else {
      status = deploy::write_folder(bundle, output_, force_);
    }
    if (!status.ok()) {
      std::fprintf(stderr, "sextant deploy render: %s\n", status.message().c_str());
      return kExitFailed;
    }
    std::fprintf(stderr, "wrote %zu files to %s\n", bundle.files().size(), output_.c_str());
    return kExitDone;
  }

  std::string plan_, output_;
  deploy::Options options_;
  GivenFlags given_;
  bool force_ = false;
  bool json_ = false;
};

}  // namespace

std::vector<Status> emit_bundles(const ordered_json& plan, const std::string& folder) {
  std::vector<std::pair<std::string, deploy::Bundle>> bundles;
  for (const deploy::Choice& choice : deploy::choices_of(plan, {})) {
    deploy::Bundle bundle;
    if (std::vector<Status> errors = deploy::render(plan, choice.options, bundle); !errors.empty()) return errors;
    bundles.emplace_back(choice.folder.empty() ? folder : folder + "/" + choice.folder, std::move(bundle));
  }
  for (const auto& [path, bundle] : bundles) {
    if (Status status = deploy::write_folder(bundle, path, false); !status.ok()) return {status};
    for (const std::string& note : bundle.notes) std::fprintf(stderr, "note: %s\n", note.c_str());
    std::fprintf(stderr, "wrote %zu files to %s\n", bundle.files().size(), path.c_str());
  }
  return {};
}

std::unique_ptr<Verb> make_deploy_render_verb() { return std::make_unique<RenderVerb>(); }

}  // namespace sextant::cli
