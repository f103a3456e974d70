#include "server/cli/bench_serve.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "bench/report/html_report.h"
#include "bench/report/json_report.h"
#include "bench/report/llmd_report.h"
#include "bench/report/text_report.h"
#include "bench/run/serve_bench.h"
#include "server/cli/bench_progress.h"
#include "server/cli/interrupt.h"

namespace sextant::cli {
namespace {

using bench::BenchResult;
using bench::LoadOptions;

// What the command line says, before it is understood.
struct Flags {
  std::string base_url, host, backend = "openai", load_kind, input_len = "512", output_len = "128", dataset = "random",
                              sharegpt_output;
  std::string request_rate = "inf", burstiness = "1", goodput, slo, stages, daily_shape, ramp_strategy = "linear",
              extra_body;
  std::string percentile_metrics = "ttft,tpot,itl,e2el", metric_percentiles = "50,90,95,99,99.9", engine_config;
  int port = 0;
  int64_t range_input_len = 0, range_output_len = 0;
  std::optional<double> range_ratio;
  bool save_result = false, save_csv = false, json = false, quiet = false, formulas = false, insecure = false;
  std::optional<bool> ignore_eos;
  bool ignore_eos_flag = false, no_ignore_eos_flag = false, no_usage = false;
  std::string result_dir, result_filename, html, csv, record, llmd, planner;
  double max_error_rate = 0.05;
  std::vector<double> unused;
};

double parse_rate(const std::string& text, const std::string& param, std::vector<Status>* errors) {
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  if (text.empty() || end != text.c_str() + text.size() || std::isnan(value) || value <= 0) {
    errors->push_back(invalid_argument(param + " must be a number above 0, or inf; got '" + text + "'", param));
    return 1;
  }
  return value;
}

std::vector<std::string> split(const std::string& text) {
  std::vector<std::string> parts;
  std::string part;
  for (const char c : text + ",") {
    if (c == ',' || c == ' ') {
      if (!part.empty()) parts.push_back(part);
      part.clear();
    } else {
      part += c;
    }
  }
  return parts;
}

class BenchServeVerb final : public Verb {
 public:
  std::string name() const override { return "bench serve"; }
  std::string description() const override { return "measure a server under load, over its OpenAI API"; }
  std::string examples() const override {
    return "  sextant bench serve --url http://127.0.0.1:8000 --num-prompts 200 --max-concurrency 16\n"
           "  sextant bench serve --request-rate 4 --random-input-len 1024 --random-output-len 128 --tokenizer "
           "model.gguf\n"
           "  sextant bench serve --request-rate 10 --burstiness 0.25 --duration-s 60 --goodput \"ttft:300 tpot:50\"\n"
           "  sextant bench serve --find-max-rate --slo \"ttft:p95<300ms tpot:p95<50ms\" --html report.html\n"
           "  sextant bench serve --sweep 6 --save-result --record records.jsonl\n"
           "  sextant bench serve --dataset-name mooncake --dataset-path trace.jsonl --trace-speed 2\n"
           "  sextant bench serve --day-s 600 --request-rate 5        a day's traffic in ten minutes\n"
           "Ctrl-C stops and keeps what was measured. Exit codes: 0 done, 1 failed, 2 bad input, 3 SLO missed, 130 "
           "interrupted.\n";
  }

  void declare(CLI::App& app) override {
    const auto text = [&](const char* flag, std::string& field, const char* help, const char* type = "TEXT") {
      app.add_option(flag, field, help)->type_name(type);
    };
    text("--url,--base-url", f_.base_url, "the server [http://127.0.0.1:8000]", "URL");
    text("--host", f_.host, "instead of --url, with --port");
    app.add_option("--port", f_.port, "instead of --url")->type_name("N");
    text("--backend", f_.backend, "openai, vllm, sextant: completions; openai-chat: chat completions [openai]");
    text("--endpoint", o_.endpoint, "path of the API [/v1/completions, or /v1/chat/completions]", "PATH");
    text("--model", o_.model, "model name (default: the first that the server lists)");
    text("--tokenizer", o_.tokenizer, "the model's GGUF file or directory: prompts of an exact length", "PATH");
    text("--api-key", o_.api_key, "sent to the server (default: OPENAI_API_KEY)");
    app.add_option("--header", o_.headers, "\"Name: value\", may be repeated")
        ->type_name("TEXT")
        ->allow_extra_args(false);
    app.add_flag("--insecure", f_.insecure, "do not verify the server's certificate");
    text("--extra-body", f_.extra_body, "JSON object: more fields for every request", "JSON");
    app.add_option("--ready-timeout-s", o_.ready_timeout_s, "wait so long for the server to be ready [0]")
        ->type_name("S");
    app.add_flag("--skip-check", o_.skip_check, "do not try one request first");

    text("--dataset-name", f_.dataset, "random, sharegpt, custom, mooncake, burstgpt [random]");
    text("--dataset-path", o_.prompts.dataset_path, "its file", "FILE");
    text("--random-input-len,--input-len", f_.input_len,
         "prompt tokens: N, uniform:LOW,HIGH, normal:MEAN,SD, lognormal:MEAN,SD, empirical:FILE; with ,min=N,max=N "
         "[512]",
         "LEN");
    text("--random-output-len,--output-len", f_.output_len, "answer tokens, likewise [128]", "LEN");
    app.add_option("--random-range-ratio", f_.range_ratio, "lengths uniform within LEN * (1 -+ R)")->type_name("R");
    app.add_option("--random-prefix-len", o_.prompts.prefix_tokens, "tokens that prompts begin with in common [0]")
        ->type_name("N");
    app.add_option("--num-prefixes", o_.prompts.num_prefixes, "different such beginnings [1]")->type_name("N");
    app.add_option("--num-turns", o_.prompts.num_turns, "requests per conversation, each with all before it [1]")
        ->type_name("N");
    app.add_option("--think-time-s", o_.prompts.think_time_s, "pause between turns [0]")->type_name("S");
    text("--sharegpt-output-len,--dataset-output-len", f_.sharegpt_output, "answer tokens instead of the data set's",
         "N");
    app.add_flag("--prompt-ids", o_.prompts.as_token_ids, "send prompts as token ids");
    app.add_option("--num-prompts", o_.num_requests, "requests [1000]")->type_name("N");
    app.add_option("--seed", o_.prompts.seed,
                   "of lengths, prompts and arrivals: the same seed gives the same bytes [0]")
        ->type_name("N");
    app.add_option("--temperature", o_.prompts.temperature, "[0]")->type_name("T");
    app.add_flag("--ignore-eos", f_.ignore_eos_flag,
                 "answers of exactly the length asked for (the default for random and traces)");
    app.add_flag("--no-ignore-eos", f_.no_ignore_eos_flag, "let the model end its answers");
    app.add_flag("--no-usage", f_.no_usage, "do not ask for usage in the stream");

    text("--request-rate", f_.request_rate, "requests/s; inf: as fast as possible [inf]", "R");
    text("--burstiness", f_.burstiness, "1: Poisson; inf: constant; below 1: bursts (gamma gaps of this shape) [1]",
         "B");
    app.add_option("--max-concurrency", o_.load.max_concurrency, "requests at once; without a rate: always that many")
        ->type_name("N");
    app.add_option("--duration-s", o_.load.duration_s, "send no request later")->type_name("S");
    text("--load", f_.load_kind,
         "constant, poisson, gamma, concurrency, all-at-once, ramp, stages, trace, diurnal (default: follows)");
    text("--ramp-up-strategy", f_.ramp_strategy, "linear or exponential [linear]");
    app.add_option("--ramp-up-start-rps", o_.load.ramp_begin, "a ramp from here")->type_name("R");
    app.add_option("--ramp-up-end-rps", o_.load.ramp_end, "to there, within --duration-s [60]")->type_name("R");
    text("--stages", f_.stages, "RATE:SECONDS,...: one rate after another", "LIST");
    app.add_option("--day-s", o_.load.day_s, "24 hours of traffic in so many seconds, --request-rate on average")
        ->type_name("S");
    text("--daily-shape", f_.daily_shape, "24 numbers, one per hour (default: a weekday)", "LIST");
    app.add_option("--trace-speed", o_.load.trace_speed, "replay a trace so many times as fast [1]")->type_name("X");
    app.add_option("--sweep", o_.sweep_points, "idle, full load and rates in between: so many runs")->type_name("N");
    app.add_flag("--find-max-rate", o_.find_max_rate, "search the highest Poisson rate that keeps --slo");
    app.add_option("--rate-precision", o_.rate_precision, "of that search [0.05]")->type_name("R");
    app.add_option("--max-rate", o_.max_rate, "where that search ends")->type_name("R");
    text("--slo", f_.slo, "goals of a run: \"ttft:p95<300ms tpot:p95<50ms e2e:mean<2s\"; missed: exit code 3");
    text("--goodput", f_.goodput, "limits per request in ms: \"ttft:300 tpot:50 e2el:2000\"");
    app.add_option("--num-warmups", o_.num_warmups, "requests before the measurement [0]")->type_name("N");
    app.add_option("--warmup-s", o_.warmup_s, "leave out the first seconds [0]")->type_name("S");
    app.add_option("--cooldown-s", o_.cooldown_s, "leave out the last seconds [0]")->type_name("S");
    app.add_option("--request-timeout-s", o_.request_timeout_s, "[600]")->type_name("S");
    app.add_option("--max-error-rate", f_.max_error_rate, "above it the exit code is 1 [0.05]")->type_name("R");

    text("--percentile-metrics", f_.percentile_metrics, "of the summary [ttft,tpot,itl,e2el]", "LIST");
    text("--metric-percentiles", f_.metric_percentiles, "of the summary [50,90,95,99,99.9]", "LIST");
    app.add_flag("--json", f_.json, "print the result as JSON on stdout instead of the summary");
    app.add_flag("--formulas", f_.formulas, "print what each number means");
    app.add_flag("--quiet", f_.quiet, "no progress");
    app.add_flag("--save-result", f_.save_result, "write the result as JSON");
    text("--result-dir", f_.result_dir, "where to", "DIR");
    text("--result-filename", f_.result_filename, "(default: sextant-bench-<time>.json)", "FILE");
    text("--csv", f_.csv, "one row per request", "FILE");
    text("--html", f_.html, "a report with charts in one file", "FILE");
    text("--record", f_.record, "append sextant.benchmark/1 records (JSON lines)", "FILE");
    text("--llmd-report", f_.llmd, "llm-d benchmark report 0.2.1", "FILE");
    text("--planner-json", f_.planner, "records under the names of the deployment planner's store", "FILE");
    text("--metrics-url", o_.metrics_url, "Prometheus text to read during the run; none: no [<url>/metrics]", "URL");

    text("--engine", o_.deployment.engine, "for records: the server's name (default: from its metrics)");
    text("--engine-version", o_.deployment.engine_version, "for records (default: from /version)");
    text("--engine-config", f_.engine_config, "for records: JSON file of its settings, as --print-config prints",
         "FILE");
    text("--gpu-type", o_.deployment.gpu_type, "for records (default: from NVML, where it is this machine)");
    app.add_option("--num-gpus", o_.deployment.num_gpus, "for records")->type_name("N");
    app.add_option("--tensor-parallel-size", o_.deployment.tensor_parallel, "for records [1]")->type_name("N");
    app.add_option("--pipeline-parallel-size", o_.deployment.pipeline_parallel, "for records [1]")->type_name("N");
    app.add_option("--data-parallel-size", o_.deployment.data_parallel, "for records [1]")->type_name("N");
    app.add_option("--expert-parallel-size", o_.deployment.expert_parallel, "for records [1]")->type_name("N");
    text("--weight-quantization", o_.deployment.weight_quantization, "for records");
    text("--kv-cache-dtype", o_.deployment.kv_cache_dtype, "for records");
    text("--weights-sha256", o_.deployment.weights_sha256, "for records");
    app.add_flag("--simulated", o_.deployment.is_simulated, "for records: the server is a simulator");
  }

  int run(const std::vector<Status>& bad_flags) override {
    std::vector<Status> errors = bad_flags;
    understand(&errors);
    for (Status& error : bench::validate(o_)) errors.push_back(std::move(error));
    if (!errors.empty()) return report_bad_input(name(), errors);

    const Interrupt interrupt;
    BenchProgress progress(stderr, isatty(STDERR_FILENO) == 1, f_.quiet);
    size_t point_number = 1;
    bench::BenchHooks hooks;
    hooks.interrupted = Interrupt::requested;
    hooks.on_note = [&](const std::string& text) { progress.note(text); };
    hooks.on_progress = [&](const bench::BenchPoint& point, size_t, const bench::LiveCounts& counts) {
      progress.update(point, point_number, counts);
    };
    hooks.on_point = [&](const bench::BenchPoint& point) {
      progress.clear();
      ++point_number;
      if (o_.find_max_rate || o_.sweep_points > 0) {
        progress.note(point.label + ": " + bench::short_number(point.measurement.request_rps) + " req/s" +
                      (point.slo_met ? *point.slo_met ? ", SLO met" : ", SLO missed" : ""));
      }
    };
    Result<BenchResult> result = bench::run_serve_bench(o_, hooks);
    progress.clear();
    if (!result.ok()) {
      if (result.status().code() == StatusCode::kCancelled) {
        std::fprintf(stderr, "sextant bench serve: interrupted before anything was measured\n");
        return kExitInterrupted;
      }
      if (result.status().code() == StatusCode::kInvalidArgument) return report_bad_input(name(), {result.status()});
      std::fprintf(stderr, "sextant bench serve: %s\n", result.status().message().c_str());
      return kExitFailed;
    }
    return report(*result);
  }

 private:
  void understand(std::vector<Status>* errors) {
    const auto take = [&](auto&& parsed, auto& field) {
      if (parsed.ok()) {
        field = std::move(*parsed);
      } else {
        errors->push_back(parsed.status());
      }
    };
    if (const char* key = std::getenv("OPENAI_API_KEY"); o_.api_key.empty() && key != nullptr) o_.api_key = key;
    if (!f_.base_url.empty()) {
      o_.url = f_.base_url;
    } else if (!f_.host.empty() || f_.port != 0) {
      o_.url =
          "http://" + (f_.host.empty() ? "127.0.0.1" : f_.host) + ":" + std::to_string(f_.port != 0 ? f_.port : 8000);
    }
    o_.verify_tls = !f_.insecure;
    if (f_.backend == "openai-chat") {
      o_.prompts.chat = true;
    } else if (f_.backend != "openai" && f_.backend != "vllm" && f_.backend != "sextant" &&
               f_.backend != "openai-completions") {
      errors->push_back(invalid_argument(
          "backend must be openai, openai-chat, vllm or sextant; got '" + f_.backend + "'", "backend"));
    }
    if (o_.endpoint.ends_with("/chat/completions")) o_.prompts.chat = true;
    take(bench::parse_dataset(f_.dataset), o_.prompts.dataset);
    take(bench::parse_lengths(f_.input_len, "random_input_len"), o_.prompts.input);
    take(bench::parse_lengths(f_.output_len, "random_output_len"), o_.prompts.output);
    if (f_.range_ratio) {
      if (*f_.range_ratio < 0 || *f_.range_ratio >= 1) {
        errors->push_back(invalid_argument("random_range_ratio must lie in [0, 1)", "random_range_ratio"));
      } else {
        for (bench::LengthSpec* spec : {&o_.prompts.input, &o_.prompts.output}) {
          if (spec->kind != bench::LengthSpec::Kind::kFixed) continue;
          spec->kind = bench::LengthSpec::Kind::kUniform;
          spec->min = std::max<int64_t>(1, static_cast<int64_t>(std::floor(spec->mean * (1 - *f_.range_ratio))));
          spec->max = static_cast<int64_t>(std::ceil(spec->mean * (1 + *f_.range_ratio)));
        }
      }
    }
    if (!f_.sharegpt_output.empty()) {
      bench::LengthSpec spec;
      take(bench::parse_lengths(f_.sharegpt_output, "sharegpt_output_len"), spec);
      o_.prompts.output_override = static_cast<int64_t>(spec.mean);
    }
    const bool drawn = o_.prompts.dataset != bench::Dataset::kShareGpt && o_.prompts.dataset != bench::Dataset::kCustom;
    o_.prompts.ignore_eos = (drawn || f_.ignore_eos_flag) && !f_.no_ignore_eos_flag;
    o_.prompts.include_usage = !f_.no_usage;
    if (!f_.extra_body.empty()) {
      const auto extra = nlohmann::ordered_json::parse(f_.extra_body, nullptr, false);
      if (extra.is_object()) {
        o_.prompts.extra_body = extra;
      } else {
        errors->push_back(invalid_argument("extra_body must be a JSON object", "extra_body"));
      }
    }
    LoadOptions& load = o_.load;
    const double rate = parse_rate(f_.request_rate, "request_rate", errors);
    load.request_rate = std::isinf(rate) ? 0 : rate;
    load.burstiness = parse_rate(f_.burstiness, "burstiness", errors);
    if (!f_.load_kind.empty()) {
      bench::LoadKind kind = bench::LoadKind::kAllAtOnce;
      take(bench::parse_load(f_.load_kind), kind);
      load.kind = kind;
    }
    if (f_.ramp_strategy != "linear" && f_.ramp_strategy != "exponential") {
      errors->push_back(invalid_argument("ramp_up_strategy must be linear or exponential", "ramp_up_strategy"));
    }
    load.ramp_exponential = f_.ramp_strategy == "exponential";
    if (!f_.stages.empty()) take(bench::parse_stages(f_.stages), load.stages);
    for (const std::string& hour : split(f_.daily_shape)) {
      char* end = nullptr;
      load.daily_shape.push_back(std::strtod(hour.c_str(), &end));
      if (*end != '\0')
        errors->push_back(invalid_argument("daily_shape must hold 24 numbers, one per hour", "daily_shape"));
    }
    if (!f_.goodput.empty()) take(bench::parse_goodput(f_.goodput), o_.goodput);
    if (!f_.slo.empty()) take(bench::parse_slo(f_.slo), o_.slo);
    if (!f_.engine_config.empty()) {
      std::ifstream file(f_.engine_config);
      const nlohmann::json config = nlohmann::json::parse(file, nullptr, false);
      if (config.is_object()) {
        o_.deployment.engine_config = config;
      } else {
        errors->push_back(invalid_argument(
            "engine_config must be a JSON file of settings; " + f_.engine_config + " is none", "engine_config"));
      }
    }
    if (const std::string& sha = o_.deployment.weights_sha256;
        !sha.empty() && (sha.size() != 64 || sha.find_first_not_of("0123456789abcdef") != std::string::npos)) {
      errors->push_back(invalid_argument("weights_sha256 must be 64 lower-case hex digits", "weights_sha256"));
    }
    report_.percentiles.clear();
    for (const std::string& word : split(f_.metric_percentiles)) {
      char* end = nullptr;
      const double p = std::strtod(word.c_str(), &end);
      if (*end != '\0' || !(p > 0) || p >= 100) {
        errors->push_back(invalid_argument("metric_percentiles must be numbers between 0 and 100 such as 50,95,99",
                                           "metric_percentiles"));
        break;
      }
      report_.percentiles.push_back(p);
    }
    report_.latencies.clear();
    for (const std::string& word : split(f_.percentile_metrics)) {
      bool known = false;
      for (const bench::Latency latency :
           {bench::Latency::kTtft, bench::Latency::kTpot, bench::Latency::kItl, bench::Latency::kE2e}) {
        if (word == bench::latency_name(latency) || (word == "e2el" && latency == bench::Latency::kE2e)) {
          report_.latencies.push_back(latency);
          known = true;
        }
      }
      if (!known) {
        errors->push_back(invalid_argument("percentile_metrics must be of ttft, tpot, itl, e2el; got '" + word + "'",
                                           "percentile_metrics"));
      }
    }
    report_.tool_version = version_text();
    report_.slo = o_.slo;
    report_.goodput = o_.goodput;
    report_.prompts =
        drawn && o_.prompts.dataset == bench::Dataset::kRandom
            ? o_.prompts.input.text() + " in, " + o_.prompts.output.text() + " out" +
                  (o_.prompts.prefix_tokens > 0 ? ", prefix " + std::to_string(o_.prompts.prefix_tokens) : "") +
                  (o_.prompts.num_turns > 1 ? ", " + std::to_string(o_.prompts.num_turns) + " turns" : "")
            : f_.dataset + " " + o_.prompts.dataset_path;
    report_.command = {"sextant", "bench", "serve", o_.url};
  }

  bool write(const std::string& path, const std::string& text) {
    std::ofstream file(path, std::ios::binary | std::ios::trunc);
    file << text;
    file.close();
    if (!file) {
      std::fprintf(stderr, "sextant bench serve: cannot write %s\n", path.c_str());
      return false;
    }
    if (!f_.quiet) std::fprintf(stderr, "wrote %s\n", path.c_str());
    return true;
  }

  int report(const BenchResult& result) {
    bool written = true;
    const nlohmann::ordered_json json = bench::result_json(result, report_);
    if (f_.json) {
      std::printf("%s\n", json.dump(1, ' ', false, nlohmann::json::error_handler_t::replace).c_str());
    } else {
      const bool several = result.points.size() > 1;
      if (!several) std::fputs(bench::point_text(result, result.points[0], report_).c_str(), stdout);
      if (several) std::fputs(bench::table_text(result, report_).c_str(), stdout);
      for (const std::string& warning : result.warnings) std::printf("  warning: %s\n", warning.c_str());
      if (result.max_rate) {
        std::printf("\n  highest rate that keeps the SLO: %s requests/s",
                    bench::short_number(*result.max_rate).c_str());
        if (result.failed_rate) std::printf(" (%s misses it)", bench::short_number(*result.failed_rate).c_str());
        std::printf("\n");
      } else if (o_.find_max_rate && result.failed_rate) {
        std::printf("\n  no rate keeps the SLO: %s requests/s misses it too\n",
                    bench::short_number(*result.failed_rate).c_str());
      }
      if (f_.formulas || !several) std::fputs(bench::formulas_text().c_str(), stdout);
    }
    std::fflush(stdout);
    const auto dumped = [](const nlohmann::ordered_json& value) {
      return value.dump(1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
    };
    if (f_.save_result || !f_.result_filename.empty() || !f_.result_dir.empty()) {
      std::string file = f_.result_filename;
      if (file.empty()) {
        file = "sextant-bench-" + result.points[0].timestamp + ".json";
        std::erase(file, ':');
      }
      written &= write((f_.result_dir.empty() ? "" : f_.result_dir + "/") + file, dumped(json));
    }
    if (!f_.csv.empty()) written &= write(f_.csv, bench::result_csv(result));
    if (!f_.html.empty()) written &= write(f_.html, bench::html_report(json));
    if (!f_.llmd.empty()) written &= write(f_.llmd, dumped(bench::llmd_report(result, report_)));
    std::vector<bench::BenchmarkRecord> records;
    for (const bench::BenchPoint& point : result.points) {
      if (point.measurement.num_finished > 0) records.push_back(bench::make_record(result, point));
    }
    if (!f_.record.empty()) {
      if (const Status status = bench::append_records(f_.record, records); !status.ok()) {
        std::fprintf(stderr, "sextant bench serve: %s\n", status.message().c_str());
        written = false;
      } else if (!f_.quiet) {
        std::fprintf(stderr, "appended %zu records to %s\n", records.size(), f_.record.c_str());
      }
    }
    if (!f_.planner.empty()) {
      nlohmann::ordered_json list = nlohmann::ordered_json::array();
      for (const bench::BenchmarkRecord& record : records)
        list.push_back(nlohmann::ordered_json(bench::to_planner_json(record)));
      written &= write(f_.planner, dumped(list));
    }
    return exit_code(result, written);
  }

  int exit_code(const BenchResult& result, bool written) const {
    if (result.interrupted) {
      std::fprintf(stderr, "sextant bench serve: interrupted; what was measured is kept\n");
      return kExitInterrupted;
    }
    if (result.failed) {
      std::fprintf(stderr, "sextant bench serve: %s; what was measured is kept\n", result.failed->message().c_str());
      return kExitFailed;
    }
    const bench::BenchPoint& last = result.points.back();
    for (const bench::BenchPoint& point : result.points) {
      const bench::Measurement& m = point.measurement;
      const double rate = m.error_rate();
      if (m.num_finished > 0 && (rate <= f_.max_error_rate || o_.find_max_rate)) continue;
      const std::string example = m.errors.empty() ? "no request was sent" : m.error_examples.begin()->second;
      std::fprintf(stderr, "sextant bench serve: %s: %zu of %zu requests failed: %s\n", point.label.c_str(),
                   m.num_failed, m.num_measured, example.c_str());
      return kExitFailed;
    }
    if (!written) return kExitFailed;
    if (o_.find_max_rate) return result.max_rate ? kExitDone : kExitLimitMissed;
    if (!o_.slo.empty() && o_.sweep_points == 0 && !last.slo_met.value_or(false)) return kExitLimitMissed;
    return kExitDone;
  }

  Flags f_;
  bench::ServeBenchOptions o_;
  bench::ReportOptions report_;
};

}  // namespace

std::unique_ptr<Verb> make_bench_serve_verb() { return std::make_unique<BenchServeVerb>(); }

}  // namespace sextant::cli
