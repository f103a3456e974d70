#include "server/cli/bench_kernels.h"

#include <algorithm>
#include <cmath>
#include <csignal>
#include <cstdio>

#include <CLI/CLI.hpp>

#include "bench/kernels/kernel_run.h"
#include "bench/run/serve_bench.h"

namespace sextant::cli {
namespace {

using nlohmann::ordered_json;

volatile std::sig_atomic_t interrupted = 0;

ordered_json json_of(const bench::KernelResult& result) {
  ordered_json json = {{"kernel", result.name}, {"op", result.op}, {"isa", result.isa}};
  json["weights"] = result.weights.empty() ? ordered_json() : ordered_json(result.weights);
  for (const auto& [key, number] : result.shape) json["shape"][key] = number;
  json["bytes_per_call"] = result.bytes;
  json["flops_per_call"] = result.flops > 0 ? ordered_json(result.flops) : ordered_json();
  json["median_us"] = result.median_s() * 1e6;
  json["fastest_us"] = result.call_s.front() * 1e6;
  json["slowest_us"] = result.call_s.back() * 1e6;
  json["gb_per_s"] = result.gb_per_s();
  json["gflop_per_s"] = result.flops > 0 ? ordered_json(result.gflop_per_s()) : ordered_json();
  json["roof_pct"] = result.roof_pct ? ordered_json(*result.roof_pct) : ordered_json();
  return json;
}

// The form of a served model's record. What ran is the configuration; what was measured is the time of a call.
bench::BenchmarkRecord record_of(const bench::KernelResult& result, const bench::KernelRoofs& roofs) {
  bench::BenchmarkRecord record;
  record.timestamp = bench::timestamp_now();
  record.model_id = "kernel:" + result.name;
  if (!result.weights.empty()) record.weight_quantization = result.weights;
  record.engine = "sextant-kernels";  // of no served model: nothing that is predicted for `sextant` learns from it
  record.engine_version = version_text();
  record.engine_config = {{"cpu_isa", result.isa},
                          {"num_threads", 1},
                          {"bytes_per_call", result.bytes},
                          {"flops_per_call", result.flops},
                          {"roof_read_gb_per_s", roofs.read_gb_per_s},
                          {"roof_fp32_gflop_per_s", roofs.fp32_gflop_per_s}};
  for (const auto& [key, number] : result.shape) record.engine_config["shape"][key] = number;
  record.host = bench::this_host();
  bench::TestConditions& conditions = record.test_conditions;
  conditions.load = "kernel";
  conditions.concurrency = 1;
  conditions.num_requests = result.calls_per_sample * static_cast<int64_t>(result.call_s.size());
  double sum_s = 0;
  for (const double s : result.call_s) sum_s += s;
  conditions.duration_s = sum_s * static_cast<double>(result.calls_per_sample);
  conditions.tokens_counted_by = "engine";
  bench::MetricSummary call;
  call.n = static_cast<int64_t>(result.call_s.size());
  call.mean = sum_s / static_cast<double>(result.call_s.size()) * 1e3;
  record.metrics.e2e_ms = call;
  record.metrics.request_rps = 1 / result.median_s();
  record.validity.warnings.push_back("one kernel on one thread: e2e_ms is a call, request_rps calls per second");
  return record;
}

class BenchKernelsVerb final : public Verb {
 public:
  std::string name() const override { return "bench kernels"; }
  std::string description() const override {
    return "measure the CPU's kernels, each alone, against this machine's roofs";
  }
  std::string examples() const override {
    return "  sextant bench kernels\n"
           "  sextant bench kernels --filter matmul --isa all --json\n"
           "  sextant bench kernels --filter q4_1/T=1 --min-time-s 1 --record records.jsonl\n"
           "Kernels of a GPU are measured by bench/gpu_check.sh.\n";
  }

  void declare(CLI::App& app) override {
    app.add_option("--filter", options_.filter, "only the kernels whose name holds this text")->type_name("TEXT");
    app.add_option("--isa", isa_, "instruction sets: best, all, or names such as generic,avx2 [best]")
        ->type_name("LIST");
    app.add_option("--min-time-s", options_.min_time_s, "seconds for each kernel, at least [0.2]")->type_name("N");
    app.add_flag("--list", list_, "names only");
    app.add_flag("--json", json_, "results as JSON lines");
    app.add_option("--record", record_, "append benchmark records to this file")->type_name("FILE");
  }

  int run(const std::vector<Status>& bad_flags) override {
    std::vector<Status> errors = bad_flags;
    if (!(options_.min_time_s >= 1e-3 && options_.min_time_s <= 3600)) {
      errors.push_back(invalid_argument("min_time_s must be between 0.001 and 3600", "min_time_s"));
    }
    choose_isas(errors);
    if (!errors.empty()) return report_bad_input(name(), errors);
    return measure();
  }

 private:
  void choose_isas(std::vector<Status>& errors) {
    if (isa_.empty() || isa_ == "best") return;
    const std::vector<std::string> known = bench::kernel_isas();
    if (isa_ == "all") {
      options_.isas = known;
      return;
    }
    for (size_t begin = 0; begin <= isa_.size();) {
      const size_t end = std::min(isa_.find(',', begin), isa_.size());
      const std::string one = isa_.substr(begin, end - begin);
      if (std::find(known.begin(), known.end(), one) == known.end()) {
        std::string message = "isa must be best, all or of what this CPU has (";
        for (size_t i = 0; i < known.size(); ++i) message += (i == 0 ? "" : ", ") + known[i];
        errors.push_back(invalid_argument(message + "), not '" + one + "'", "isa"));
        return;
      }
      options_.isas.push_back(one);
      begin = end + 1;
    }
  }

  int measure() {
    const auto previous = std::signal(SIGINT, [](int) { interrupted = 1; });
    options_.is_stopped = [] { return interrupted != 0; };
    if (list_) {
      // A case that is stopped before it begins costs nothing: the names come from where the cases do.
      options_.min_time_s = 0;
      options_.is_stopped = [] { return true; };
      options_.on_name = [](const std::string& kernel) { std::printf("%s\n", kernel.c_str()); };
    }
    bench::KernelRoofs roofs;
    if (!list_) {
      roofs = bench::measure_kernel_roofs();
      if (json_) {
        std::printf("%s\n", ordered_json{{"roof_read_gb_per_s", roofs.read_gb_per_s},
                                         {"roof_fp32_gflop_per_s", roofs.fp32_gflop_per_s}}
                                .dump()
                                .c_str());
      } else {
        std::printf(
            "one thread, measured now: memory reads at %.1f GB/s, fp32 multiply-adds at %.1f GFLOP/s\n"
            "GB/s counts every operand once; %% roof is of the slower of the two bounds, where one holds\n",
            roofs.read_gb_per_s, roofs.fp32_gflop_per_s);
        std::printf("%-58s %12s %9s %9s %7s\n", "kernel", "median us", "GB/s", "GFLOP/s", "% roof");
      }
      std::fflush(stdout);
    }
    std::vector<bench::BenchmarkRecord> records;
    const int64_t num = bench::run_kernels(options_, roofs, [&](const bench::KernelResult& result) {
      if (json_) {
        std::printf("%s\n", json_of(result).dump().c_str());
      } else {
        char flops[24] = "-", roof[24] = "-";
        if (result.flops > 0) std::snprintf(flops, sizeof flops, "%.1f", result.gflop_per_s());
        if (result.roof_pct) std::snprintf(roof, sizeof roof, "%.1f", *result.roof_pct);
        std::printf("%-58s %12.3f %9.2f %9s %7s\n", result.name.c_str(), result.median_s() * 1e6, result.gb_per_s(),
                    flops, roof);
      }
      std::fflush(stdout);
      records.push_back(record_of(result, roofs));
    });
    std::signal(SIGINT, previous);
    if (num == 0) {
      return report_bad_input(
          name(), {invalid_argument("filter '" + options_.filter + "' is part of no kernel's name; --list shows them",
                                    "filter")});
    }
    if (!record_.empty() && !list_) {
      if (const Status written = bench::append_records(record_, records); !written.ok()) {
        std::fprintf(stderr, "sextant bench kernels: %s\n", written.message().c_str());
        return kExitFailed;
      }
    }
    if (interrupted == 0) return kExitDone;
    std::fprintf(stderr, "sextant bench kernels: interrupted; what was measured is kept\n");
    return kExitInterrupted;
  }

  bench::KernelRunOptions options_;
  std::string isa_, record_;
  bool json_ = false, list_ = false;
};

}  // namespace

std::unique_ptr<Verb> make_bench_kernels_verb() { return std::make_unique<BenchKernelsVerb>(); }

}  // namespace sextant::cli
