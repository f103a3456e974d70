// `sextant advise plan`: a spec in, a plan out: JSON, markdown or HTML.
#include <algorithm>
#include <cstdio>
#include <fstream>
#include <iostream>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "advisor/kb/importers.h"
#include "advisor/plan/plan.h"
#include "advisor/report/plan_json.h"
#include "server/cli/advise.h"
#include "server/cli/advisor_routes.h"
#include "server/cli/deploy.h"

namespace sextant::cli {
namespace {

using nlohmann::ordered_json;

class PlanVerb final : public Verb {
 public:
  std::string name() const override { return "advise plan"; }
  std::string description() const override { return "which model on which GPUs, how many, and what it costs"; }
  std::string examples() const override {
    return "  sextant advise plan spec.json\n"
           "  sextant advise plan spec.json --output plan.html --as-of 2026-02-01\n"
           "  echo '{\"task_type\": \"rag\", \"users\": 2000, \"budget\": {\"max_monthly_cost_usd\": 20000}}' | "
           "sextant "
           "advise plan -\n"
           "  sextant advise plan spec.json --solve-for max_users,max_context --json\n"
           "  sextant advise plan spec.json --emit bundle     and `sextant deploy render` has the choices\n"
           "  sextant advise plan --print-schema\n";
  }

  void declare(CLI::App& app) override {
    app.add_option("spec", path_, "a file of sextant.spec/1, or - for standard input")->type_name("SPEC.json");
    app.add_option("--output", output_, "write the plan here; .json, .md or .html say the form")->type_name("FILE");
    app.add_option("--emit", emit_, "write the manifests of the first option into this folder")->type_name("DIR");
    app.add_option("--as-of", as_of_, "the date by which prices are judged (default: today)")->type_name("DATE");
    app.add_option("--solve-for", questions_, "gpus, max_rate, max_users, max_context, cheapest_slo_relaxation")
        ->type_name("WHAT")
        ->delimiter(',');
    app.add_option("--kb", location_, "a SQLite file or postgresql://...")->type_name("PATH|URL");
    app.add_option("--kb-revision", revision_, "plan with an earlier state of the knowledge base")->type_name("N");
    app.add_flag("--json", json_, "one JSON object");
    app.add_flag("--print-schema", print_schema_, "the JSON Schema of a spec, and exit");
  }

  int run(const std::vector<Status>& bad_flags) override {
    std::vector<Status> errors = bad_flags;
    if (print_schema_ && errors.empty()) {
      std::printf("%s\n", advisor::spec_json_schema().dump(2).c_str());
      return kExitDone;
    }
    if (path_.empty()) errors.push_back(invalid_argument("a spec is needed: a file, or - for standard input"));
    if (as_of_.empty()) as_of_ = today_text();
    if (!advisor::is_date(as_of_)) errors.push_back(invalid_argument("--as-of must be a date like 2026-01-31"));
    for (const std::string& question : questions_)
      if (const auto& known = advisor::known_questions();
          std::find(known.begin(), known.end(), question) == known.end())
        errors.push_back(
            invalid_argument("--solve-for does not know '" + question +
                             "'; known are gpus, max_rate, max_users, max_context, cheapest_slo_relaxation"));
    const std::string form = form_of(output_);
    if (!output_.empty() && form.empty())
      errors.push_back(invalid_argument("--output must end in .json, .md or .html"));
    std::string text;
    if (errors.empty()) {
      Result<std::string> read = read_input();
      if (read.ok())
        text = *read;
      else
        errors.push_back(read.status());
    }
    if (!errors.empty()) return report_bad_input(name(), errors);

    auto kb = advisor::KnowledgeBase::open(location_.empty() ? advisor::default_kb_location() : location_);
    if (!kb.ok()) return failed(kb.status());
    advisor::WorldOptions options{.as_of = as_of_, .version = version_text()};
    if (revision_ > 0) options.revision = revision_;
    const auto world = advisor::load_world(*kb, options);
    if (!world.ok())
      return world.status().code() == StatusCode::kNotFound ? report_bad_input(name(), {world.status()})
                                                            : failed(world.status());
    advisor::PlanRequest request;
    request.solve_for = questions_;
    errors = advisor::read_spec(text, (*world)->use_cases, request.spec);
    // Fields of a file, not flags.
    const auto in_file = [&](const Status& e) {
      return Status(e.code(), (path_ == "-" ? "spec" : path_) + ": " + e.message());
    };
    for (Status& error : errors) error = in_file(error);
    if (!errors.empty()) return report_bad_input(name(), errors);
    const Result<ordered_json> plan = advisor::make_plan(**world, request);
    if (!plan.ok()) return report_bad_input(name(), {in_file(plan.status())});

    if (!output_.empty()) {
      std::ofstream file(output_, std::ios::binary);
      file << rendered(*plan, form);
      file.close();
      if (!file) return failed(invalid_argument(output_ + ": cannot be written"));
      std::fprintf(stderr, "wrote %s\n", output_.c_str());
    }
    const bool infeasible = (*plan)["verdict"] == "infeasible";
    if (!emit_.empty() && infeasible) std::fprintf(stderr, "nothing is emitted: nothing meets the spec\n");
    if (!emit_.empty() && !infeasible)
      if (const std::vector<Status> wrong = emit_bundles(*plan, emit_); !wrong.empty())
        return report_bad_input(name(), wrong);
    if (json_)
      std::printf("%s\n", rendered(*plan, "json").c_str());
    else if (output_.empty())
      std::printf("%s", advisor::plan_markdown(*plan).c_str());
    return infeasible ? kExitLimitMissed : kExitDone;
  }

 private:
  static std::string form_of(const std::string& path) {
    for (const char* form : {"json", "md", "html"})
      if (path.ends_with(std::string(".") + form)) return form;
    return "";
  }

  static std::string rendered(const ordered_json& plan, const std::string& form) {
    if (form == "md") return advisor::plan_markdown(plan);
    if (form == "html") return advisor::plan_html(plan);
    return plan.dump(2, ' ', false, ordered_json::error_handler_t::replace) + "\n";
  }

  Result<std::string> read_input() const {
    if (path_ != "-") return advisor::read_text_file(path_, advisor::kMaxSpecBytes);
    std::string text;
    char buffer[4096];
    while (std::cin.read(buffer, sizeof buffer) || std::cin.gcount() > 0) {
      text.append(buffer, static_cast<size_t>(std::cin.gcount()));
      if (text.size() > advisor::kMaxSpecBytes) break;  // refused by its size
    }
    return text;
  }

  int failed(const Status& status) const {
    std::fprintf(stderr, "sextant %s: %s\n", name().c_str(), status.message().c_str());
    return kExitFailed;
  }

  std::string path_, output_, emit_, as_of_, location_;
  std::vector<std::string> questions_;
  int64_t revision_ = 0;
  bool json_ = false;
  bool print_schema_ = false;
};

}  // namespace

std::unique_ptr<Verb> make_advise_plan_verb() { return std::make_unique<PlanVerb>(); }

}  // namespace sextant::cli
