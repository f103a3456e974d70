#include "server/cli/bench_engine.h"

#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <thread>

#include <CLI/CLI.hpp>

#include "bench/engine/engine_run.h"
#include "bench/engine/replay_run.h"
#include "bench/record/benchmark_record.h"
#include "engine/format/hub.h"
#include "server/cli/log_sink.h"
#include "server/cli/model_location.h"
#include "server/cli/settings.h"

namespace sextant::cli {
namespace {

using nlohmann::json;

// "1,4,16": whole numbers from 1 on.
template <typename Number>
Status parse_list(const std::string& key, const std::string& text, int64_t most, std::vector<Number>& list) {
  list.clear();
  std::string_view rest = text;
  while (true) {
    const size_t comma = rest.find(',');
    const std::string_view part = rest.substr(0, comma);
    int64_t value = 0;
    const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), value);
    if (error != std::errc() || end != part.data() + part.size() || value < 1 || value > most) {
      return invalid_argument(
          key + " must be whole numbers from 1 to " + std::to_string(most) + " such as 1,4,16, not '" + text + "'",
          key);
    }
    list.push_back(static_cast<Number>(value));
    if (comma == std::string_view::npos) return ok_status();
    rest = rest.substr(comma + 1);
  }
}

class BenchEngineVerb final : public Verb {
 public:
  std::string name() const override { return "bench engine"; }
  std::string description() const override {
    return "measure the engine alone: decode and prefill; replay failed steps";
  }
  std::string examples() const override {
    return "  sextant bench engine model.gguf --batches 1,4,16 --contexts 128,1024\n"
           "  sextant bench engine --shape llama-8b --device cuda --json\n"
           "  sextant bench engine model.gguf --record records.jsonl\n"
           "  sextant bench engine --replay /tmp/sextant-steps.json --device cpu\n";
  }

  void declare(CLI::App& app) override {
    app.add_option("path", model_, "GGUF file, Hugging Face directory or pulled model")->type_name("MODEL");
    app.add_option("--shape", shape_, "random weights instead of a model: llama-8b, tiny")->type_name("NAME");
    app.add_option("--device", device_, "auto, cpu, cuda [auto; with --replay the dump's]")->type_name("TEXT");
    app.add_option("--num-threads", num_threads_, "CPU threads [the cores it may use]")->type_name("N");
    app.add_option("--batches", batches_, "sequences of the decode cases [1,4,16]")->type_name("LIST");
    app.add_option("--contexts", contexts_, "tokens before the decode steps [128,512]")->type_name("LIST");
    app.add_option("--prefills", prefills_, "tokens of the prefill cases [128,512]")->type_name("LIST");
    app.add_option("--steps", steps_, "decode steps per case [32]")->type_name("N");
    app.add_flag("--json", json_, "results as JSON lines");
    app.add_option("--record", record_, "append benchmark records of the decode cases to this file")->type_name("FILE");
    app.add_option("--replay", replay_, "run the steps of a dump that a failed device left")->type_name("FILE");
    app.add_option("--step-timeout-s", step_timeout_s_,
                   "with --replay: seconds that a step may take; 0: any [the dump's]")
        ->type_name("N");
  }

  int run(const std::vector<Status>& bad_flags) override {
    std::vector<Status> errors = bad_flags;
    if (!errors.empty()) return report_bad_input(name(), errors);
    install_log_sink("warning", "text");
    return replay_.empty() ? measure() : replay();
  }

 private:
  Result<std::string> locate(const std::string& model) const {
    const Result<PullOptions> cache = pull_options_from_environment();
    return locate_model(model, cache.ok() ? cache->cache_directory : "");
  }

  int replay() {
    bench::ReplayRunOptions options;
    options.path = replay_;
    options.device = device_;
    options.step_timeout_s = step_timeout_s_;
    if (step_timeout_s_ && !(*step_timeout_s_ >= 0 && *step_timeout_s_ <= 1e6)) {
      return report_bad_input(name(),
                              {invalid_argument("step_timeout_s must be between 0 and 1000000", "step_timeout_s")});
    }
    if (!model_.empty()) {
      Result<std::string> path = locate(model_);
      if (!path.ok()) return report_bad_input(name(), {path.status()});
      options.model = *path;
    }
    options.on_progress = [](const std::string& line) { std::fprintf(stderr, "%s\n", line.c_str()); };
    const bool as_json = json_;
    // The thread that waits for the device may never return: the process ends with what is known.
    options.on_hang = [as_json](const std::string& what) {
      std::printf(as_json ? "{\"failed_again\":true,\"error\":\"no result in time\"}\n"
                          : "failed again: no result in time\n");
      std::fflush(stdout);
      std::fprintf(stderr, "hung: %s\n", what.c_str());
      std::_Exit(kExitFailed);
    };
    const Result<nlohmann::ordered_json> report = bench::run_replay(options);
    if (!report.ok()) return report_bad_input(name(), {report.status()});
    const bool failed = (*report)["failed_again"].get<bool>();
    if (json_) {
      std::printf("%s\n", report->dump(-1, ' ', false, json::error_handler_t::replace).c_str());
    } else {
      std::printf("recorded on %s: %s\n", (*report)["recorded_on"].get<std::string>().c_str(),
                  (*report)["reason"].get<std::string>().c_str());
      for (const auto& step : (*report)["steps"]) {
        std::printf("  step %llu: %d sequences, %d tokens, %.3f ms\n",
                    static_cast<unsigned long long>(step["step_id"].get<uint64_t>()), step["num_sequences"].get<int>(),
                    step["num_tokens"].get<int>(), step["seconds"].get<double>() * 1e3);
      }
      const std::string device = (*report)["device"].get<std::string>();
      if (failed) {
        std::printf("failed again on %s: %s\n", device.c_str(), (*report)["error"].get<std::string>().c_str());
      } else {
        std::printf("did not fail again on %s\n", device.c_str());
      }
    }
    return failed ? kExitFailed : kExitDone;
  }

  int measure() {
    std::vector<Status> errors;
    bench::EngineRunOptions options;
    if (!shape_.empty()) {
      std::optional<bench::EngineRunOptions> known = bench::shape_options(shape_);
      if (known) {
        options = *std::move(known);
      } else {
        errors.push_back(invalid_argument("shape must be llama-8b or tiny, not '" + shape_ + "'", "shape"));
      }
    } else {
      options.batches = {1, 4, 16};
      options.contexts = {128, 512};
      options.prefills = {128, 512};
    }
    const auto check = [&](Status status) {
      if (!status.ok()) errors.push_back(std::move(status));
    };
    if (!batches_.empty()) check(parse_list("batches", batches_, 4096, options.batches));
    if (!contexts_.empty()) check(parse_list("contexts", contexts_, 1 << 24, options.contexts));
    if (!prefills_.empty()) check(parse_list("prefills", prefills_, 1 << 24, options.prefills));
    if (steps_ < 1 || steps_ > 100'000) {
      check(invalid_argument("steps must be between 1 and 100000, not " + std::to_string(steps_), "steps"));
    }
    if (shape_.empty()) {
      options.num_decode_steps = steps_;
      if (model_.empty()) {
        check(invalid_argument("model is required: a GGUF file, a directory or a pulled model; or --shape", "model"));
      } else if (Result<std::string> path = locate(model_); path.ok()) {
        options.model = *path;
        options.name = default_model_name(model_);
      } else {
        check(path.status());
      }
    } else if (!model_.empty()) {
      check(invalid_argument("shape and a model exclude each other", "shape"));
    }
    options.device = device_.empty() ? "auto" : device_;
    options.num_threads = num_threads_;
    EngineConfig as_asked;
    as_asked.model.model = "x";
    as_asked.device.device = options.device;
    as_asked.device.num_threads = options.num_threads;
    for (Status& error : as_asked.validate()) errors.push_back(std::move(error));
    if (!errors.empty()) return report_bad_input(name(), errors);
    return measure(std::move(options));
  }

  int measure(bench::EngineRunOptions options) {
    const std::string model = options.name;
    std::vector<bench::BenchmarkRecord> records;
    bench::EngineRun* running = nullptr;
    bench::EngineRun run(std::move(options), [&](const json& result) { on_result(*running, model, result, records); });
    running = &run;
    if (const Status status = run.run(); !status.ok()) {
      std::fprintf(stderr, "sextant bench engine: %s\n", status.message().c_str());
      return kExitFailed;
    }
    if (!record_.empty()) {
      if (const Status written = bench::append_records(record_, records); !written.ok()) {
        std::fprintf(stderr, "sextant bench engine: %s\n", written.message().c_str());
        return kExitFailed;
      }
    }
    return kExitDone;
  }

  void on_result(const bench::EngineRun& run, const std::string& model, const json& result,
                 std::vector<bench::BenchmarkRecord>& records) {
    const std::string which = result["engine_case"];
    if (which == "load") {
      // The roof of decode on this machine; that of a GPU is not measured here, and absent.
      if (run.info().device.starts_with("cpu")) {
        const int64_t threads =
            num_threads_ > 0 ? num_threads_ : static_cast<int64_t>(std::thread::hardware_concurrency());
        roof_gb_per_s_ = bench::measure_read_gb_per_s(std::max<int64_t>(1, threads));
      }
      if (json_) {
        json line = result;
        if (roof_gb_per_s_ > 0) line["roof_gb_per_s"] = roof_gb_per_s_;
        std::printf("%s\n", line.dump().c_str());
      } else {
        std::printf("%s, %s on %s, loaded in %.2f s\n", model.c_str(), run.info().weight_type.c_str(),
                    run.info().device.c_str(), result["ready_s"].get<double>());
        if (roof_gb_per_s_ > 0)
          std::printf("memory reads at %.1f GB/s (the roof of decode, measured now)\n", roof_gb_per_s_);
        std::printf("%-24s %12s %12s %10s %8s %12s\n", "case", "step ms", "tok/s", "GB/s", "% roof", "GFLOP/s");
      }
      std::fflush(stdout);
      return;
    }
    json line = result;
    const bool is_decode = which.starts_with("decode/");
    if (result.contains("median_step_s") && result["median_step_s"].get<double>() > 0) {
      const double step_s = result["median_step_s"];
      line["gb_per_s"] = result["bytes"].get<double>() / step_s * 1e-9;
      line["gflop_per_s"] = result["flops"].get<double>() / step_s * 1e-9;
      if (is_decode && roof_gb_per_s_ > 0) line["roof_pct"] = line["gb_per_s"].get<double>() / roof_gb_per_s_ * 100;
      if (is_decode) records.push_back(record_of(run, model, result, step_s));
    }
    if (json_) {
      std::printf("%s\n", line.dump().c_str());
    } else if (line.contains("gb_per_s")) {
      char roof[16] = "-";
      if (line.contains("roof_pct")) std::snprintf(roof, sizeof roof, "%.1f", line["roof_pct"].get<double>());
      std::printf("%-24s %12.3f %12.1f %10.2f %8s %12.1f\n", which.c_str(), result["median_step_s"].get<double>() * 1e3,
                  result["tokens_per_s"].get<double>(), line["gb_per_s"].get<double>(), roof,
                  line["gflop_per_s"].get<double>());
    } else if (result.contains("output_tokens_per_s")) {
      std::printf("%-24s %12s %12.1f   over %.1f s, device at work %.1f%%\n", which.c_str(), "",
                  result["output_tokens_per_s"].get<double>(), result["wall_s"].get<double>(),
                  result["device_busy_share"].get<double>() * 100);
    }
    std::fflush(stdout);
  }

  static bench::BenchmarkRecord record_of(const bench::EngineRun& run, const std::string& model, const json& result,
                                          double step_s) {
    bench::BenchmarkRecord record;
    record.timestamp = bench::timestamp_now();
    record.source = bench::RecordSource::kMeasured;
    record.model_id = model;
    record.weight_quantization = run.info().weight_type;
    record.kv_cache_dtype = run.info().kv_cache_dtype;
    const bool is_gpu = run.info().device.starts_with("cuda");
    if (is_gpu) record.gpu_type = run.info().device;
    record.num_gpus = is_gpu ? 1 : 0;
    record.engine = "sextant";
    record.engine_version = version_text();
    EngineConfig config = run.config();
    std::vector<Setting> settings;
    SettingCollector collector(settings);
    visit_engine_config(config, collector);
    record.engine_config = to_json(settings);
    auto& conditions = record.test_conditions;
    const double batch = result["batch"].get<double>();
    const double context = result["context_tokens"].get<double>();
    const double steps = result["num_steps"].get<double>();
    conditions.load = "batch";
    conditions.concurrency = result["batch"].get<int64_t>();
    conditions.prompt_tokens = {context, context, context, context};
    conditions.output_tokens = {steps, steps, steps, steps};
    conditions.num_requests = result["batch"].get<int64_t>();
    conditions.duration_s = steps * step_s;
    conditions.seed = 1;
    conditions.tokens_counted_by = "engine";
    bench::MetricSummary tpot;
    tpot.n = static_cast<int64_t>(steps);
    tpot.mean = step_s * 1e3;
    record.metrics.tpot_ms = tpot;
    record.metrics.output_tokens_per_s = batch / step_s;
    record.validity.warnings.push_back("no HTTP: TPOT is the median time of a decode step");
    return record;
  }

  std::string model_, shape_, device_, batches_, contexts_, prefills_, record_, replay_;
  int64_t num_threads_ = 0;
  int64_t steps_ = 32;
  bool json_ = false;
  std::optional<double> step_timeout_s_;
  double roof_gb_per_s_ = 0;
};

}  // namespace

std::unique_ptr<Verb> make_bench_engine_verb() { return std::make_unique<BenchEngineVerb>(); }

}  // namespace sextant::cli
