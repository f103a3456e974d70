// `sextant advise accuracy`: how far predictions are from measurements that they were not made from.
#include <unistd.h>

#include <cstdio>

#include <CLI/CLI.hpp>

#include "advisor/catalog.h"
#include "advisor/predict/accuracy.h"
#include "server/cli/advise.h"
#include "server/cli/interrupt.h"

namespace sextant::cli {
namespace {

Result<std::vector<advisor::ServingPoint>> read_points(const std::string& path) {
  Result<std::string> text = advisor::read_text_file(path);
  if (!text.ok()) return text.status();
  const Result<advisor::CsvTable> table = advisor::parse_csv(*text, path);
  if (!table.ok()) return table.status();
  if (table->rows.empty()) return invalid_argument(path + ": no rows");
  return advisor::read_serving_points(*table);
}

class AdviseAccuracyVerb final : public Verb {
 public:
  std::string name() const override { return "advise accuracy"; }
  std::string description() const override { return "score predictions on measured rows they were not trained on"; }
  std::string examples() const override {
    return "  sextant advise accuracy                              cross-validate on the rows that the program carries "
           "(minutes)\n"
           "  sextant advise accuracy --train a.csv --score b.csv  train on one file, score another, by its column "
           "'holdout'\n"
           "  sextant advise accuracy --kinds group --folds 4 --json\n";
  }

  void declare(CLI::App& app) override {
    app.add_option("--train", train_, "measured rows to train on (default: those the program carries)")
        ->type_name("CSV");
    app.add_option("--score", score_, "rows to predict; without it the training rows are cross-validated")
        ->type_name("CSV");
    app.add_option("--kinds", options_.kinds, "what cross-validation leaves out: interior, group, pair")
        ->type_name("KIND")
        ->delimiter(',');
    app.add_option("--folds", options_.folds, "folds of points and of groups; pairs are left out one by one")
        ->type_name("N")
        ->capture_default_str();
    app.add_option("--seed", options_.seed, "of the folds and of the regression")
        ->type_name("N")
        ->capture_default_str();
    app.add_option("--tpot-limit-ms", options_.tpot_limit_ms, "limit of the TPOT verdicts")
        ->type_name("MS")
        ->capture_default_str();
    app.add_option("--ttft-limit-ms", options_.ttft_limit_ms, "limit of the TTFT verdicts")
        ->type_name("MS")
        ->capture_default_str();
    app.add_flag("!--no-baseline", options_.baseline, "leave out the plain ExtraTrees regression");
    app.add_flag("--json", json_, "one JSON object");
  }

  int run(const std::vector<Status>& bad_flags) override {
    std::vector<Status> errors = bad_flags;
    if (options_.folds < 2 || options_.folds > 1000)
      errors.push_back(invalid_argument("--folds must be from 2 to 1000", "--folds"));
    for (const auto& [flag, limit] :
         {std::pair("--tpot-limit-ms", options_.tpot_limit_ms), std::pair("--ttft-limit-ms", options_.ttft_limit_ms)})
      if (!(limit > 0 && limit <= 1e9))
        errors.push_back(invalid_argument(std::string(flag) + " must be above 0 and at most 1e9", flag));
    for (const std::string& kind : options_.kinds)
      if (kind != "interior" && kind != "group" && kind != "pair")
        errors.push_back(invalid_argument("--kinds knows interior, group and pair, not '" + kind + "'", "--kinds"));
    std::vector<advisor::ServingPoint> train = advisor::shipped_points();
    std::vector<advisor::ServingPoint> test;
    const auto read = [&](const std::string& path, const char* flag, std::vector<advisor::ServingPoint>& out) {
      if (path.empty()) return;
      Result<std::vector<advisor::ServingPoint>> points = read_points(path);
      if (points.ok()) {
        out = std::move(points).value();
      } else {
        errors.push_back(invalid_argument(std::string(flag) + ": " + points.status().message(), flag));
      }
    };
    read(train_, "--train", train);
    read(score_, "--score", test);
    if (!errors.empty()) return report_bad_input(name(), errors);

    const Interrupt interrupt;
    const bool terminal = ::isatty(STDERR_FILENO) == 1;
    const auto progress = [&](const std::string& what, size_t done, size_t of) {
      if (terminal) std::fprintf(stderr, "\r%-10s %zu of %zu ", what.c_str(), done + 1 > of ? of : done + 1, of);
      return !Interrupt::requested();
    };
    const auto report =
        score_.empty()
            ? advisor::cross_validate(train, advisor::shipped_facts(), advisor::shipped_gpus(), options_, progress)
            : advisor::score(train, test, advisor::shipped_facts(), advisor::shipped_gpus(), options_, progress);
    if (terminal) std::fprintf(stderr, "\r%30s\r", "");
    if (!report.ok()) {
      if (report.status().code() == StatusCode::kCancelled) return kExitInterrupted;
      return report_bad_input(name(), {report.status()});
    }
    std::printf("%s", json_ ? (advisor::to_json(*report).dump(2) + "\n").c_str() : advisor::to_text(*report).c_str());
    for (const std::string& skipped : report->skipped)
      std::fprintf(stderr, "sextant advise accuracy: not scored: %s\n", skipped.c_str());
    return kExitDone;
  }

 private:
  std::string train_;
  std::string score_;
  advisor::AccuracyOptions options_;
  bool json_ = false;
};

}  // namespace

std::unique_ptr<Verb> make_advise_accuracy_verb() { return std::make_unique<AdviseAccuracyVerb>(); }

}  // namespace sextant::cli
