#include "bench/run/serve_bench.h"

#include <algorithm>
#include <cmath>
#include <thread>

#include "bench/client/http_get.h"
#include "engine/base/clock.h"

namespace sextant::bench {
namespace {

std::string number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.4g", value);
  return text;
}

std::string label_of(const LoadOptions& load, LoadKind kind) {
  const std::string cap = load.max_concurrency ? ", at most " + std::to_string(*load.max_concurrency) + " at once" : "";
  switch (kind) {
    case LoadKind::kConcurrency: return "concurrency " + std::to_string(load.max_concurrency.value_or(1));
    case LoadKind::kAllAtOnce: return "all at once";
    case LoadKind::kRamp: return "ramp " + number(load.ramp_begin) + " to " + number(load.ramp_end) + " req/s" + cap;
    case LoadKind::kStages: return "stages" + cap;
    case LoadKind::kTrace:
      return "trace" + (load.trace_speed == 1 ? "" : " at " + number(load.trace_speed) + "x speed") + cap;
    case LoadKind::kDiurnal: return "a day around " + number(load.request_rate) + " req/s" + cap;
    case LoadKind::kConstant:
    case LoadKind::kPoisson:
    case LoadKind::kGamma: return std::string(load_name(kind)) + " " + number(load.request_rate) + " req/s" + cap;
  }
  return "";
}

class ServeBench {
 public:
  ServeBench(const ServeBenchOptions& options, const BenchHooks& hooks) : options_(options), hooks_(hooks) {}

  Result<BenchResult> run() {
    RETURN_IF_ERROR(prepare());
    Status status;
    if (options_.find_max_rate) {
      status = find_max_rate();
    } else if (options_.sweep_points > 0) {
      status = sweep();
    } else {
      status = run_point(options_.load, 1).status();
    }
    if (!status.ok()) {
      if (result_.points.empty()) return status;
      result_.failed = status;
    }
    return std::move(result_);
  }

 private:
  void note(const std::string& text) {
    if (hooks_.on_note) hooks_.on_note(text);
  }
  bool interrupted() const { return hooks_.interrupted && hooks_.interrupted(); }

  // --- before the first load -------------------------------------------------------------------------------------------

  Status prepare() {
    ASSIGN_OR_RETURN(endpoint_, parse_url(options_.url));
    result_.url = endpoint_.base_url();
    result_.is_this_machine = endpoint_.is_this_machine();
    result_.endpoint = !options_.endpoint.empty() ? options_.endpoint
                       : options_.prompts.chat    ? "/v1/chat/completions"
                                                  : "/v1/completions";
    result_.deployment = options_.deployment;
    RETURN_IF_ERROR(ask_models());
    ask_version();
    if (!options_.tokenizer.empty()) {
      note("loading the tokenizer " + options_.tokenizer);
      Result<std::unique_ptr<Tokenizer>> tokenizer = load_tokenizer(options_.tokenizer);
      if (!tokenizer.ok())
        return invalid_argument("tokenizer cannot be loaded: " + tokenizer.status().message(), "tokenizer");
      tokenizer_ = std::move(*tokenizer);
    }
    if (options_.prompts.as_token_ids && !tokenizer_) {
      return invalid_argument("tokenizer must be given where prompts are sent as token ids", "tokenizer");
    }
    return ok_status();
  }

  Status ask_models() {
    const std::string url = endpoint_.base_url() + "/v1/models";
    note("asking " + endpoint_.base_url() + " for its models");
    const int64_t deadline = SteadyClock::instance().now_ns() + static_cast<int64_t>(options_.ready_timeout_s * 1e9);
    Result<GetAnswer> answer = unavailable("not asked");
    for (;;) {
      answer = http_get(url, options_.api_key, 10, options_.verify_tls);
      const bool is_up = answer.ok() && answer->status != 503;
      if (is_up || SteadyClock::instance().now_ns() >= deadline) break;
      if (interrupted()) return Status(StatusCode::kCancelled, "interrupted before the server answered");
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
    }
    if (!answer.ok()) {
      return unavailable("no server answers at " + endpoint_.base_url() + " (" + answer.status().message() +
                         "): start it, or say with --url where it is");
    }
    if (answer->status == 401 || answer->status == 403) {
      return invalid_argument("api_key is refused by the server (HTTP " + std::to_string(answer->status) +
                                  "): give the right one, or set OPENAI_API_KEY",
                              "api_key");
    }
    if (answer->status == 503) return unavailable("the server at " + endpoint_.base_url() + " is not ready (HTTP 503)");
    std::vector<std::string> ids;
    const nlohmann::json json = nlohmann::json::parse(answer->body, nullptr, false);
    if (answer->status == 200 && json.is_object() && json.contains("data") && json["data"].is_array()) {
      for (const nlohmann::json& model : json["data"]) {
        if (!model.is_object() || !model.contains("id") || !model["id"].is_string()) continue;
        ids.push_back(model["id"]);
        if (ids.back() != options_.model && !(options_.model.empty() && ids.size() == 1)) continue;
        if (model.contains("max_model_len") && model["max_model_len"].is_number_integer()) {
          result_.max_model_len = model["max_model_len"].get<int64_t>();
        }
        if (model.contains("owned_by") && model["owned_by"].is_string()) owned_by_ = model["owned_by"];
      }
    }
    result_.model = options_.model;
    if (ids.empty()) {
      if (options_.model.empty())
        return invalid_argument("model must be given: the server does not list its models", "model");
      return ok_status();
    }
    if (options_.model.empty()) {
      result_.model = ids.front();
    } else if (std::find(ids.begin(), ids.end(), options_.model) == ids.end()) {
      std::string known;
      for (const std::string& id : ids) known += (known.empty() ? "" : ", ") + id;
      return invalid_argument(
          "model '" + options_.model + "' is not served at " + endpoint_.base_url() + "; it has: " + known, "model");
    }
    return ok_status();
  }

  void ask_version() {
    if (!result_.deployment.engine_version.empty()) return;
    const Result<GetAnswer> answer =
        http_get(endpoint_.base_url() + "/version", options_.api_key, 5, options_.verify_tls);
    if (!answer.ok() || answer->status != 200) return;
    const nlohmann::json json = nlohmann::json::parse(answer->body, nullptr, false);
    if (json.is_object() && json.contains("version") && json["version"].is_string()) {
      result_.deployment.engine_version = json["version"];
    }
  }

  // --- one load ----------------------------------------------------------------------------------------------------------

  ClientOptions client_options(const LoadOptions& load, LoadKind kind) const {
    ClientOptions client;
    client.endpoint = endpoint_;
    client.target = result_.endpoint;
    client.api_key = options_.api_key;
    client.headers = options_.headers;
    client.max_concurrency = load.max_concurrency;
    client.request_timeout_ns = static_cast<int64_t>(options_.request_timeout_s * 1e9);
    client.keep_text = tokenizer_ != nullptr;
    client.preconnect = kind == LoadKind::kConcurrency || kind == LoadKind::kAllAtOnce;
    client.verify_tls = options_.verify_tls;
    return client;
  }

  // One request that belongs to no measurement: says in a line what would otherwise fail a thousand times.
  Status check_server(const PreparedRequest& check) {
    if (checked_ || options_.skip_check) return ok_status();
    note("checking the server with one request");
    std::vector<PlannedRequest> planned(1);
    planned[0].body = check.body;
    ClientHooks hooks;
    hooks.interrupted = hooks_.interrupted;
    ASSIGN_OR_RETURN(const ClientRun run, run_load(client_options({}, LoadKind::kAllAtOnce), planned, hooks));
    const RequestOutcome& outcome = run.outcomes[0];
    if (run.interrupted) return Status(StatusCode::kCancelled, "interrupted");
    if (outcome.kind == OutcomeKind::kHttpStatus &&
        (outcome.status == 400 || outcome.status == 404 || outcome.status == 422)) {
      return invalid_argument("the server refuses the requests of this benchmark: " + outcome.message);
    }
    if (outcome.kind != OutcomeKind::kFinished) {
      return unavailable("the server does not answer the requests of this benchmark: " + outcome.message);
    }
    checked_ = true;
    return ok_status();
  }

  Result<BenchPoint*> run_point(const LoadOptions& load, size_t num_points_hint) {
    BenchPoint point;
    point.load = load;
    point.kind = load_kind(load, options_.prompts);
    point.label = label_of(load, point.kind);
    // Other prompts for every point: else the server's prefix cache would know them.
    point.seed = options_.prompts.seed + 7919 * result_.points.size();

    PromptOptions prompt_options = options_.prompts;
    prompt_options.model = result_.model;
    prompt_options.seed = point.seed;
    prompt_options.num_requests = options_.num_requests;
    std::vector<int64_t> times;
    const auto turns = static_cast<size_t>(std::max<int64_t>(1, prompt_options.num_turns));
    if (point.kind != LoadKind::kConcurrency && point.kind != LoadKind::kAllAtOnce && point.kind != LoadKind::kTrace) {
      const size_t num_chains = (options_.num_requests + turns - 1) / turns;
      times = arrivals_of(load, point.kind, point.seed, num_chains);
      prompt_options.num_requests = std::min(options_.num_requests, times.size() * turns);
      if (times.empty()) return invalid_argument("the load sends no request: its duration is too short for its rate");
    }
    note("preparing " + std::to_string(prompt_options.num_requests) + " prompts");
    ASSIGN_OR_RETURN(PromptSet prompts, make_prompts(prompt_options, tokenizer_.get()));
    for (const std::string& warning : prompts.warnings) {
      if (std::find(result_.warnings.begin(), result_.warnings.end(), warning) == result_.warnings.end()) {
        result_.warnings.push_back(warning);
      }
    }
    RETURN_IF_ERROR(check_server(prompts.check));
    RETURN_IF_ERROR(warm_up(load, point.kind, prompt_options));

    std::vector<PlannedRequest> planned(prompts.requests.size());
    size_t next_time = 0;
    for (size_t i = 0; i < planned.size(); ++i) {
      planned[i].body = std::move(prompts.requests[i].body);
      planned[i].after = prompts.requests[i].after;
      planned[i].think_ns = static_cast<int64_t>(options_.prompts.think_time_s * 1e9);
      if (planned[i].after) continue;
      if (point.kind == LoadKind::kTrace) {
        planned[i].offset_ns =
            static_cast<int64_t>(prompts.requests[i].trace_time_s.value_or(0) / load.trace_speed * 1e9);
      } else if (!times.empty()) {
        planned[i].offset_ns = times[next_time++];
      }
    }
    MonitorOptions monitor_options;
    monitor_options.api_key = options_.api_key;
    monitor_options.gpus = result_.is_this_machine;
    if (options_.metrics_url != "none") {
      monitor_options.metrics_url =
          options_.metrics_url.empty() ? endpoint_.base_url() + "/metrics" : options_.metrics_url;
    }
    Monitor monitor(monitor_options);
    ClientHooks hooks;
    hooks.interrupted = hooks_.interrupted;
    hooks.on_progress = [&](const LiveCounts& counts) {
      if (hooks_.on_progress) hooks_.on_progress(point, num_points_hint, counts);
    };
    if (load.duration_s) hooks.stop_sending_ns = static_cast<int64_t>(*load.duration_s * 1e9);
    point.timestamp = timestamp_now();
    ASSIGN_OR_RETURN(ClientRun run, run_load(client_options(load, point.kind), planned, hooks));
    const bool was_interrupted = run.interrupted;
    const std::optional<std::string> gave_up = run.gave_up;

    MeasureOptions measure_options;
    measure_options.load = point.kind;
    measure_options.warmup_s = options_.warmup_s;
    measure_options.cooldown_s = options_.cooldown_s;
    measure_options.goodput = options_.goodput;
    measure_options.tokenizer = tokenizer_.get();
    point.measurement = measure(std::move(run), prompts.requests, monitor.stop(), measure_options);
    if (result_.deployment.engine.empty()) result_.deployment.engine = point.measurement.monitor.engine;
    // Some servers name themselves as the model's owner; others put anybody there.
    if (owned_by_ == "llamacpp") owned_by_ = "llama.cpp";
    for (const char* engine : {"sextant", "vllm", "sglang", "llama.cpp"}) {
      if (result_.deployment.engine.empty() && owned_by_ == engine) result_.deployment.engine = engine;
    }
    if (!options_.slo.empty()) {
      bool missed = point.measurement.error_rate() > 0, is_open = false;
      for (const RunGoal& goal : options_.slo) {
        const auto met = goal_met(point.measurement, goal);
        missed = missed || (met && !*met);
        if (!met) {
          is_open = true;
          point.measurement.validity.warnings.push_back("too few requests to say whether " + goal.text() + " is met");
        }
      }
      if (missed || !is_open) point.slo_met = !missed;
    }
    result_.points.push_back(std::move(point));
    if (hooks_.on_point) hooks_.on_point(result_.points.back());
    if (was_interrupted) {
      result_.interrupted = true;
      return Status(StatusCode::kCancelled, "interrupted");
    }
    if (gave_up) return unavailable(*gave_up);
    return &result_.points.back();
  }

  std::vector<int64_t> arrivals_of(const LoadOptions& load, LoadKind kind, uint64_t seed, size_t most) const {
    ArrivalSpec spec;
    spec.seed = seed;
    spec.burstiness = kind == LoadKind::kConstant ? INFINITY : kind == LoadKind::kPoisson ? 1 : load.burstiness;
    double end_s = load.duration_s.value_or(INFINITY);
    switch (kind) {
      case LoadKind::kRamp:
        spec.rate = ramp_rate(load.ramp_begin, load.ramp_end, load.duration_s.value_or(60), load.ramp_exponential);
        end_s = curve_end_s(spec.rate);
        break;
      case LoadKind::kStages:
        spec.rate = load.stages;
        end_s = curve_end_s(spec.rate);
        break;
      case LoadKind::kDiurnal: {
        const Result<RateCurve> curve = daily_rate(load.request_rate, load.daily_shape, load.day_s);
        if (!curve.ok()) return {};  // validate() has said it
        spec.rate = *curve;
        end_s = std::min(end_s, curve_end_s(spec.rate));
        break;
      }
      default: spec.rate = constant_rate(load.request_rate); break;
    }
    return arrival_times(spec, most, end_s);
  }

  Status warm_up(const LoadOptions& load, LoadKind kind, PromptOptions prompt_options) {
    if (options_.num_warmups == 0 || warm_) return ok_status();
    note("warming up with " + std::to_string(options_.num_warmups) + " requests");
    if (prompt_options.dataset == Dataset::kRandom) prompt_options.seed ^= 0x5eed;
    prompt_options.num_requests = static_cast<size_t>(options_.num_warmups);
    prompt_options.num_turns = 1;
    ASSIGN_OR_RETURN(PromptSet prompts, make_prompts(prompt_options, tokenizer_.get()));
    std::vector<PlannedRequest> planned(prompts.requests.size());
    for (size_t i = 0; i < planned.size(); ++i) planned[i].body = std::move(prompts.requests[i].body);
    LoadOptions warm_load = load;
    if (!warm_load.max_concurrency) warm_load.max_concurrency = 16;
    ClientHooks hooks;
    hooks.interrupted = hooks_.interrupted;
    ASSIGN_OR_RETURN(const ClientRun run, run_load(client_options(warm_load, kind), planned, hooks));
    if (run.interrupted) return Status(StatusCode::kCancelled, "interrupted");
    warm_ = true;
    return ok_status();
  }

  // --- several loads ------------------------------------------------------------------------------------------------------

  LoadOptions poisson(double rate) const {
    LoadOptions load = options_.load;
    load.kind = options_.load.burstiness == 1          ? LoadKind::kPoisson
                : std::isinf(options_.load.burstiness) ? LoadKind::kConstant
                                                       : LoadKind::kGamma;
    load.request_rate = rate;
    if (!load.duration_s) load.duration_s = 30;
    return load;
  }

  LoadOptions closed(std::optional<int64_t> concurrency) const {
    LoadOptions load = options_.load;
    load.kind = concurrency ? LoadKind::kConcurrency : LoadKind::kAllAtOnce;
    load.max_concurrency = concurrency;
    if (!load.duration_s) load.duration_s = 30;
    return load;
  }

  // Idle (one at a time), saturated (as many at once as it takes), and rates in between: from idle to the saturated rate.
  Status sweep() {
    const size_t points = options_.sweep_points;
    ASSIGN_OR_RETURN(BenchPoint * idle, run_point(closed(1), points));
    const double idle_rate = idle->measurement.request_rps;
    ASSIGN_OR_RETURN(BenchPoint * full, run_point(closed(options_.load.max_concurrency.value_or(256)), points));
    const double full_rate = full->measurement.request_rps;
    if (full_rate <= 0) return unavailable("no request finished at full load: there is no rate to sweep to");
    const double low = std::min(idle_rate, full_rate / 2);
    for (size_t i = 1; i + 2 <= points; ++i) {
      const double part = static_cast<double>(i) / static_cast<double>(points - 1);
      ASSIGN_OR_RETURN([[maybe_unused]] BenchPoint * point, run_point(poisson(low + part * (full_rate - low)), points));
    }
    return ok_status();
  }

  // The highest rate whose run keeps the SLO: doubled until it does not, then halved in between (geometrically).
  Status find_max_rate() {
    double rate = options_.load.request_rate;
    if (rate <= 0) {
      ASSIGN_OR_RETURN(BenchPoint * idle, run_point(closed(1), 0));
      if (!idle->slo_met.value_or(false) && idle->measurement.num_finished >= 20) {
        // Alone on the server, and too slow already; a run of a tenth of its rate would say the same.
        note("one request at a time misses the SLO");
      }
      rate = std::max(idle->measurement.request_rps, 1e-3);
    }
    double good = 0, bad = options_.max_rate > 0 ? 0 : INFINITY;
    for (int runs = 0; runs < 40; ++runs) {
      const bool at_cap = options_.max_rate > 0 && rate >= options_.max_rate;
      if (at_cap) rate = options_.max_rate;
      ASSIGN_OR_RETURN(BenchPoint * point, run_point(poisson(rate), 0));
      const Measurement& m = point->measurement;
      // Over-saturated is not kept: a longer run would miss.
      const bool keeps = point->slo_met.value_or(false) && !m.validity.over_saturated.value_or(false);
      if (keeps) {
        good = rate;
        result_.max_rate = rate;
        if (at_cap) return ok_status();
      } else {
        bad = rate;
        result_.failed_rate = rate;
      }
      if (good > 0 && std::isfinite(bad) && bad > 0 && bad / good <= 1 + options_.rate_precision) return ok_status();
      if (good == 0 && bad < 1e-2) return ok_status();
      rate = good == 0 ? bad / 2 : (!std::isfinite(bad) || bad == 0) ? good * 2 : std::sqrt(good * bad);
    }
    return ok_status();
  }

  const ServeBenchOptions& options_;
  const BenchHooks& hooks_;
  Endpoint endpoint_;
  std::string owned_by_;
  std::unique_ptr<Tokenizer> tokenizer_;
  bool checked_ = false;
  bool warm_ = false;
  BenchResult result_;
};

}  // namespace

Result<BenchResult> run_serve_bench(const ServeBenchOptions& options, const BenchHooks& hooks) {
  return ServeBench(options, hooks).run();
}

}  // namespace sextant::bench
