#include "server/cli/bench_compare.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include <CLI/CLI.hpp>

#include "bench/report/compare.h"

namespace sextant::cli {
namespace {

class BenchCompareVerb final : public Verb {
 public:
  std::string name() const override { return "bench compare"; }
  std::string description() const override { return "two results of bench serve side by side, with significance"; }
  std::string examples() const override {
    return "  sextant bench compare before.json after.json\n"
           "  sextant bench compare --fail-if-worse main.json branch.json        exit code 3 when B is significantly "
           "worse\n"
           "Results of sweeps are compared point by point, by their labels.\n";
  }

  void declare(CLI::App& app) override {
    app.add_option("results", files_, "A and B, as --save-result wrote them")->type_name("FILE")->expected(2);
    app.add_flag("--json", json_, "print JSON");
    app.add_flag("--fail-if-worse", fail_if_worse_, "exit code 3 when something is significantly worse in B");
    app.add_option("--tolerance-pct", tolerance_pct_, "changes up to this much never count as worse [0]")
        ->type_name("N");
  }

  int run(const std::vector<Status>& bad_flags) override {
    std::vector<Status> errors = bad_flags;
    if (errors.empty() && files_.size() != 2) errors.push_back(invalid_argument("give two files: A and B"));
    if (tolerance_pct_ < 0) errors.push_back(invalid_argument("tolerance_pct must not be negative", "tolerance_pct"));
    if (!errors.empty()) return report_bad_input(name(), errors);
    const auto a = bench::load_result(files_[0]);
    const auto b = bench::load_result(files_[1]);
    for (const auto* loaded : {&a, &b}) {
      if (!loaded->ok()) errors.push_back(loaded->status());
    }
    if (!errors.empty()) return report_bad_input(name(), errors);
    bool worse = false;
    size_t num_pairs = 0;
    nlohmann::ordered_json list = nlohmann::ordered_json::array();
    for (const bench::LoadedPoint& x : a->points) {
      // One point each are a pair whatever they are called: two rates, two engines.
      const bool only = a->points.size() == 1 && b->points.size() == 1;
      const auto found = std::find_if(b->points.begin(), b->points.end(),
                                      [&](const bench::LoadedPoint& y) { return only || y.label == x.label; });
      if (found == b->points.end()) continue;
      ++num_pairs;
      const auto rows = bench::compare_points(x, *found);
      for (const bench::Comparison& row : rows) {
        worse = worse || (row.is_worse() && std::abs(row.change_pct()) > tolerance_pct_);
      }
      if (json_) {
        list.push_back(bench::comparison_json(x, *found, rows));
      } else {
        std::fputs(bench::comparison_text(x, *found, rows).c_str(), stdout);
      }
    }
    if (num_pairs == 0) {
      return report_bad_input(
          name(), {invalid_argument(files_[0] + " and " + files_[1] + " have no point with the same label")});
    }
    if (json_) std::printf("%s\n", list.dump(1).c_str());
    return fail_if_worse_ && worse ? kExitLimitMissed : kExitDone;
  }

 private:
  std::vector<std::string> files_;
  bool json_ = false;
  bool fail_if_worse_ = false;
  double tolerance_pct_ = 0;
};

}  // namespace

std::unique_ptr<Verb> make_bench_compare_verb() { return std::make_unique<BenchCompareVerb>(); }

}  // namespace sextant::cli
