#include "server/cli/bench_matrix.h"

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <set>

#include <CLI/CLI.hpp>

#include "bench/report/matrix_report.h"
#include "bench/run/matrix.h"
#include "server/cli/bench_progress.h"
#include "server/cli/interrupt.h"

namespace sextant::cli {
namespace {

class BenchMatrixVerb final : public Verb {
 public:
  std::string name() const override { return "bench matrix"; }
  std::string description() const override {
    return "a set of measurements from one file; starts and stops the server itself";
  }
  std::string examples() const override {
    return "  sextant bench matrix matrix.json\n"
           "  sextant bench matrix matrix.json --list        what it would measure, and what is done already\n"
           "The file:\n"
           "  {\"server\": {\"command\": [\"sextant\", \"serve\", \"model.gguf\"], \"settings\": {\"max_num_seqs\": "
           "[16, 64]}},\n"
           "   \"lengths\": [[128, 128], [1024, 64]], \"concurrency\": [1, 4, 16], \"request_rate\": [2],\n"
           "   \"tokenizer\": \"model.gguf\", \"records\": \"records.jsonl\"}\n"
           "Another engine: a command with {port} in it. A server that runs already: \"url\" instead of \"server\".\n"
           "Charts of what is measured so far are in records.html, at any time.\n"
           "Run again after an interruption, it goes on where it stopped; what is measured is skipped.\n";
  }

  void declare(CLI::App& app) override {
    app.add_option("file", file_, "the matrix, as JSON")->type_name("FILE");
    app.add_flag("--list", list_, "print the cells and exit");
    app.add_flag("--again", again_, "measure again what is done");
    app.add_option("--html", html_, "a page with charts of all that is measured [<records>.html]")->type_name("FILE");
    app.add_option("--server-log", log_, "where the servers' output goes [<records>.server.log]")->type_name("FILE");
    app.add_option("--api-key", api_key_, "sent to the server (default: OPENAI_API_KEY)")->type_name("TEXT");
    app.add_flag("--quiet", quiet_, "no progress");
  }

  int run(const std::vector<Status>& bad_flags) override {
    std::vector<Status> errors = bad_flags;
    if (errors.empty() && file_.empty()) errors.push_back(invalid_argument("give the matrix: a JSON file"));
    if (!errors.empty()) return report_bad_input(name(), errors);
    std::ifstream file(file_);
    if (!file) return report_bad_input(name(), {invalid_argument("cannot read " + file_)});
    const nlohmann::json json = nlohmann::json::parse(file, nullptr, false);
    if (json.is_discarded()) return report_bad_input(name(), {invalid_argument(file_ + " is not JSON")});
    const Result<bench::MatrixSpec> parsed = bench::parse_matrix(json);
    if (!parsed.ok()) return report_bad_input(name(), {invalid_argument(file_ + ": " + parsed.status().message())});
    if (const char* key = std::getenv("OPENAI_API_KEY"); api_key_.empty() && key != nullptr) api_key_ = key;
    const bench::MatrixSpec& spec = *parsed;
    if (html_.empty()) html_ = spec.records.substr(0, spec.records.rfind(".json")) + ".html";
    // Those of cells that are done; a record file that cannot be read now would not be read by the advisor either.
    const std::map<std::string, std::string> of_done = bench::read_done_cells(spec.records);
    if (!of_done.empty() && !list_) {
      const auto kept = bench::read_record_file(spec.records);
      if (!kept.ok()) return report_bad_input(name(), {invalid_argument(kept.status().message())});
      std::map<std::string, const bench::BenchmarkRecord*> by_id;
      for (const bench::BenchmarkRecord& record : *kept) by_id[record.record_id] = &record;
      for (const auto& [key, id] : of_done) {
        if (by_id.contains(id)) measured_[key] = *by_id[id];
      }
    }
    std::set<std::string> done;
    for (const auto& [key, id] : of_done) {
      if (!again_ && (list_ || measured_.contains(key))) done.insert(key);
    }
    if (list_) {
      for (const bench::MatrixServer& server : spec.servers) {
        std::printf("%s\n", server.settings.empty() ? "server" : server.settings.dump().c_str());
        for (const bench::MatrixCell& cell : server.cells) {
          std::printf("  %s  %s\n", done.contains(cell.key) ? "done" : "to do", cell.label.c_str());
        }
      }
      return kExitDone;
    }
    return measure(spec, done);
  }

 private:
  // Written beside and renamed: a browser that looks on never sees half a page.
  Status draw(const bench::MatrixSpec& spec) const {
    std::vector<bench::MatrixRow> rows;
    for (const bench::MatrixServer& server : spec.servers) {
      for (const bench::MatrixCell& cell : server.cells) {
        const auto found = measured_.find(cell.key);
        rows.push_back({server.settings_text(), cell.lengths, cell.options.load.max_concurrency,
                        cell.options.load.request_rate,
                        found == measured_.end() ? std::nullopt : std::optional(found->second)});
      }
    }
    const std::string part = html_ + ".part";
    std::ofstream file(part, std::ios::binary);
    file << bench::html_matrix_report(rows);
    file.close();
    if (file && std::rename(part.c_str(), html_.c_str()) == 0) return ok_status();
    return unavailable("cannot write " + html_);
  }

  int measure(const bench::MatrixSpec& spec, const std::set<std::string>& done) {
    const Interrupt interrupt;
    BenchProgress progress(stderr, isatty(STDERR_FILENO) == 1, quiet_);
    size_t number = 0, num_measured = 0, num_skipped = 0, num_failed = 0;
    const auto finish = [&](int code) {
      progress.clear();
      const Status drawn = draw(spec);
      std::printf("%zu measured, %zu were done, %zu failed, of %zu; records in %s%s\n", num_measured, num_skipped,
                  num_failed, spec.num_cells(), spec.records.c_str(),
                  drawn.ok() ? (", charts in " + html_).c_str() : "");
      if (!drawn.ok()) std::fprintf(stderr, "sextant bench matrix: %s\n", drawn.message().c_str());
      return drawn.ok() || code != kExitDone ? code : kExitFailed;
    };
    for (const bench::MatrixServer& server : spec.servers) {
      bench::ServerProcess process;
      bool started = false;
      nlohmann::json config;
      for (const bench::MatrixCell& cell : server.cells) {
        ++number;
        if (done.contains(cell.key)) {
          ++num_skipped;
          continue;
        }
        const std::string where = "[" + std::to_string(number) + "/" + std::to_string(spec.num_cells()) + "] ";
        bench::ServeBenchOptions options = cell.options;
        options.api_key = api_key_;
        options.url = spec.url;
        if (spec.url.empty()) {
          if (!started) {
            config = bench::printed_config(server.command);
            progress.note(where + "starting the server" +
                          (server.settings.empty() ? "" : " with " + server.settings.dump()));
            const std::string log = log_.empty() ? spec.records + ".server.log" : log_;
            if (const Status status = process.start(server.command, log); !status.ok()) {
              std::fprintf(stderr, "sextant bench matrix: %s\n", status.message().c_str());
              return finish(kExitBadInput);
            }
            started = true;
          }
          options.url = process.url();
          options.ready_timeout_s = spec.ready_timeout_s;
          options.deployment.engine_config = config.empty() ? server.settings : config;
        }
        bench::BenchHooks hooks;
        // While the server starts, its end is noticed too.
        bool server_ended = false;
        hooks.interrupted = [&] {
          if (spec.url.empty() && !process.running()) server_ended = true;
          return Interrupt::requested() || server_ended;
        };
        hooks.on_progress = [&](const bench::BenchPoint& point, size_t, const bench::LiveCounts& counts) {
          progress.update(point, number, counts);
        };
        const Result<bench::BenchResult> result = bench::run_serve_bench(options, hooks);
        progress.clear();
        if (Interrupt::requested()) {
          std::fprintf(stderr, "sextant bench matrix: interrupted; run it again to go on\n");
          return finish(kExitInterrupted);
        }
        const bool ok =
            result.ok() && !result->failed && !result->interrupted && result->points[0].measurement.num_finished > 0;
        if (!ok) {
          ++num_failed;
          const std::string why = server_ended ? "the server ended; its output is in " +
                                                     (log_.empty() ? spec.records + ".server.log" : log_)
                                  : !result.ok()   ? result.status().message()
                                  : result->failed ? result->failed->message()
                                                   : "no request finished";
          std::fprintf(stderr, "sextant bench matrix: %s%s: %s\n", where.c_str(), cell.label.c_str(), why.c_str());
          if (server_ended) break;  // the next combination gets a server of its own
          continue;
        }
        const bench::BenchmarkRecord record = bench::make_record(*result, result->points[0]);
        Status status = bench::append_records(spec.records, {record});
        if (status.ok()) status = bench::append_done_cell(spec.records, cell.key, record.record_id);
        if (!status.ok()) {
          std::fprintf(stderr, "sextant bench matrix: %s\n", status.message().c_str());
          return finish(kExitFailed);
        }
        ++num_measured;
        measured_[cell.key] = record;
        (void)draw(spec);  // finish() says so where it cannot
        const bench::Measurement& m = result->points[0].measurement;
        char line[160];
        std::snprintf(line, sizeof line, ": %.4g req/s, %.4g output tok/s, TTFT %.4g ms, TPOT %.4g ms", m.request_rps,
                      m.output_tokens_per_s, m.ttft.mean_ms, m.tpot.mean_ms);
        progress.note(where + cell.label + line);
      }
    }
    return finish(num_failed > 0 ? kExitFailed : kExitDone);
  }

  std::string file_, log_, html_, api_key_;
  std::map<std::string, bench::BenchmarkRecord> measured_;  // by the keys of their cells
  bool list_ = false, again_ = false, quiet_ = false;
};

}  // namespace

std::unique_ptr<Verb> make_bench_matrix_verb() { return std::make_unique<BenchMatrixVerb>(); }

}  // namespace sextant::cli
