#include "bench/run/measurement.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include <nlohmann/json.hpp>

namespace sextant::bench {
namespace {

constexpr double kLevel = 0.90;
constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
constexpr double kMaxSendLagMs = 5;
constexpr double kMinAchieved = 0.98;
constexpr size_t kNumBatches = 10;

double ms(int64_t ns) { return static_cast<double>(ns) * 1e-6; }

LatencyResult make_latency(std::vector<double> samples) {
  LatencyResult result;
  result.mean_ms = mean_of(samples);
  if (const auto ci = mean_interval(samples, kLevel)) result.mean_ci = ci;
  std::sort(samples.begin(), samples.end());
  result.sorted_ms = std::move(samples);
  return result;
}

LengthSummary make_lengths(std::vector<double> lengths) {
  std::sort(lengths.begin(), lengths.end());
  return {mean_of(lengths), percentile(lengths, 0.5), percentile(lengths, 0.95), lengths.back()};
}

// How tokens were counted, best first; a run is called by its worst.
enum class CountedBy { kTokenIds, kUsage, kTokenizer, kChunks };
constexpr const char* kCountedBy[] = {"token_ids", "usage", "tokenizer", "chunks"};

int64_t count_output(const RequestOutcome& outcome, const Tokenizer* tokenizer, CountedBy* by) {
  if (outcome.counts_by_ids && outcome.token_ids > 0) return *by = CountedBy::kTokenIds, outcome.token_ids;
  if (outcome.usage_completion_tokens > 0) return *by = CountedBy::kUsage, outcome.usage_completion_tokens;
  if (tokenizer != nullptr && !outcome.text.empty()) {
    const nlohmann::json text = nlohmann::json::parse("\"" + outcome.text + "\"", nullptr, false);
    if (text.is_string()) {
      *by = CountedBy::kTokenizer;
      return static_cast<int64_t>(tokenizer->encode(text.get<std::string>(), {false, true}).size());
    }
  }
  *by = CountedBy::kChunks;
  return outcome.num_events;
}

// Requests that have been sent and wait for their first token, over the time in which requests were sent. The queue of a server
// that keeps up stays bounded; that of one that does not grows by the surplus. Over-saturated: in the last fifth of that time
// there wait more than in the second fifth by 5% of the requests sent between the two, and by 8 at least.
bool is_over_saturated(const std::vector<const RequestOutcome*>& sent) {
  if (sent.size() < 40) return false;
  std::vector<std::pair<int64_t, int>> changes;
  int64_t begin = std::numeric_limits<int64_t>::max(), end = 0;
  for (const RequestOutcome* outcome : sent) {
    begin = std::min(begin, outcome->scheduled_ns);
    end = std::max(end, outcome->scheduled_ns);
    changes.emplace_back(outcome->scheduled_ns, 1);
    const int64_t served = outcome->num_events > 0 ? outcome->first_ns : outcome->end_ns;
    if (served > 0) changes.emplace_back(served, -1);
  }
  if (end <= begin) return false;
  std::sort(changes.begin(), changes.end());
  const auto mean_waiting = [&](double from, double to, double* arrivals) {
    const double a = static_cast<double>(begin) + from * static_cast<double>(end - begin);
    const double b = static_cast<double>(begin) + to * static_cast<double>(end - begin);
    double area = 0, waiting = 0, last = a;
    for (const auto& [time, change] : changes) {
      const double t = static_cast<double>(time);
      if (t >= b) break;
      if (t > a) area += waiting * (t - last), last = t;
      waiting += change;
      if (change > 0) ++*arrivals;
    }
    return (area + waiting * (b - last)) / (b - a);
  };
  double before = 0, after = 0;  // arrivals until the end of each fifth
  const double early = mean_waiting(0.2, 0.4, &before);
  const double late = mean_waiting(0.8, 1.0, &after);
  return late - early > std::max(8.0, 0.05 * (after - before));
}

}  // namespace

std::optional<double> LatencyResult::at(double q) const {
  if (sorted_ms.empty() || !enough_for_percentile(sorted_ms.size(), q)) return std::nullopt;
  return percentile(sorted_ms, q);
}

std::optional<Bounds> LatencyResult::interval_at(double q) const {
  if (pooled || !at(q)) return std::nullopt;
  return percentile_interval(sorted_ms, q, kLevel);
}

const LatencyResult& Measurement::latency(Latency which) const {
  switch (which) {
    case Latency::kTtft: return ttft;
    case Latency::kTpot: return tpot;
    case Latency::kItl: return itl;
    case Latency::kE2e: return e2e;
  }
  return ttft;
}

double Measurement::error_rate() const {
  size_t failed = 0;
  for (const auto& [name, count] : errors) failed += count;
  return num_measured == 0 ? 0 : static_cast<double>(failed) / static_cast<double>(num_measured);
}

Measurement measure(ClientRun run, const std::vector<PreparedRequest>& requests, MonitorResult monitor,
                    const MeasureOptions& options) {
  Measurement m;
  m.load = options.load;
  m.begin_ns = run.begin_ns;
  m.num_planned = run.outcomes.size();
  m.monitor = std::move(monitor);
  m.num_connections = run.num_connections;
  m.client_cpu_s = run.cpu_s;

  int64_t first_send = std::numeric_limits<int64_t>::max(), last_end = 0;
  for (const RequestOutcome& o : run.outcomes) {
    if (o.kind == OutcomeKind::kNotSent) continue;
    first_send = std::min(first_send, o.send_ns > 0 ? o.send_ns : o.begin_ns);
    last_end = std::max(last_end, o.kind == OutcomeKind::kFinished ? o.last_ns : o.end_ns);
  }
  if (last_end == 0) first_send = last_end = run.begin_ns;
  int64_t window_begin = first_send + static_cast<int64_t>(options.warmup_s * 1e9);
  int64_t window_end = last_end - static_cast<int64_t>(options.cooldown_s * 1e9);
  if (window_end <= window_begin) {
    if (options.warmup_s + options.cooldown_s > 0) {
      m.validity.warnings.emplace_back("the run is shorter than its warm-up and cool-down: nothing was left out");
    }
    window_begin = first_send;
    window_end = std::max(last_end, first_send + 1);
  }
  m.window_begin_s = static_cast<double>(window_begin - run.begin_ns) * 1e-9;
  m.window_end_s = static_cast<double>(window_end - run.begin_ns) * 1e-9;
  const double window_s = m.window_s();

  // --- each request ---------------------------------------------------------------------------------------------------
  std::vector<double> ttft, tpot, itl, e2e, normalized, ttft_scheduled, e2e_scheduled, lags, prompts, outputs;
  std::vector<double> gap_sums, gap_counts;
  std::vector<const RequestOutcome*> sent;
  double tokens_in_window = 0, running_area = 0;
  std::vector<double> batch_requests(kNumBatches), batch_tokens(kNumBatches);
  const double run_s = std::max(1e-9, static_cast<double>(last_end - run.begin_ns) * 1e-9);
  m.timeline.bin_s = run_s <= 120 ? 1 : std::ceil(run_s / 120);
  if (run_s < 20) m.timeline.bin_s = std::max(0.05, std::ceil(run_s * 10) / 10 / 20);
  const auto num_bins = static_cast<size_t>(run_s / m.timeline.bin_s) + 1;
  for (auto* series : {&m.timeline.sent_rps, &m.timeline.finished_rps, &m.timeline.output_tokens_per_s,
                       &m.timeline.running, &m.timeline.waiting_first_token}) {
    series->assign(num_bins, 0);
  }
  const auto add_to_bins = [&](std::vector<double>& series, int64_t time, double amount) {
    const double at = static_cast<double>(time - run.begin_ns) * 1e-9 / m.timeline.bin_s;
    series[std::min(num_bins - 1, static_cast<size_t>(std::max(0.0, at)))] += amount / m.timeline.bin_s;
  };
  const auto add_span = [&](std::vector<double>& series, int64_t from, int64_t to) {  // mean number over each bin
    const double a = std::max(0.0, static_cast<double>(from - run.begin_ns) * 1e-9 / m.timeline.bin_s);
    const double b =
        std::min(static_cast<double>(num_bins), static_cast<double>(to - run.begin_ns) * 1e-9 / m.timeline.bin_s);
    for (auto i = static_cast<size_t>(a); i < num_bins && static_cast<double>(i) < b; ++i) {
      series[i] += std::min(b, static_cast<double>(i + 1)) - std::max(a, static_cast<double>(i));
    }
  };
  const auto batch_of = [&](int64_t time) -> std::optional<size_t> {
    if (time < window_begin || time > window_end) return std::nullopt;
    return std::min(kNumBatches - 1,
                    static_cast<size_t>(static_cast<double>(time - window_begin) * 1e-9 / window_s * kNumBatches));
  };
  CountedBy counted_by = CountedBy::kTokenIds;
  size_t finished_in_window = 0;
  int64_t usage_prompt = 0, usage_cached = 0, good = 0;
  bool cached_told = false, prompts_known = true;
  double input_in_window = 0;
  m.rows.reserve(run.outcomes.size());
  for (size_t i = 0; i < run.outcomes.size(); ++i) {
    const RequestOutcome& o = run.outcomes[i];
    RequestRow row;
    row.index = i;
    row.kind = o.kind;
    row.message = o.message;
    row.scheduled_s =
        o.kind == OutcomeKind::kNotSent ? kNone : static_cast<double>(o.scheduled_ns - run.begin_ns) * 1e-9;
    row.sent_s = o.send_ns > 0 ? static_cast<double>(o.send_ns - run.begin_ns) * 1e-9 : kNone;
    row.ttft_ms = row.tpot_ms = row.e2e_ms = row.ttft_scheduled_ms = row.e2e_scheduled_ms = kNone;
    m.num_events += o.num_events;
    if (o.kind == OutcomeKind::kNotSent) {
      m.rows.push_back(std::move(row));
      continue;
    }
    ++m.num_sent;
    const int64_t send = o.send_ns > 0 ? o.send_ns : o.begin_ns;
    row.in_window = send >= window_begin && send <= window_end;
    add_to_bins(m.timeline.sent_rps, send, 1);
    add_span(m.timeline.running, send, o.end_ns);
    add_span(m.timeline.waiting_first_token, o.scheduled_ns, o.num_events > 0 ? o.first_ns : o.end_ns);
    running_area +=
        static_cast<double>(std::max<int64_t>(0, std::min(o.end_ns, window_end) - std::max(send, window_begin)));
    sent.push_back(&o);
    if (row.in_window && o.kind != OutcomeKind::kInterrupted) ++m.num_measured;
    if (row.in_window) lags.push_back(std::max(0.0, ms(o.begin_ns - o.ready_ns)));

    CountedBy by = CountedBy::kChunks;
    const int64_t tokens = o.num_events > 0 ? count_output(o, options.tokenizer, &by) : 0;
    if (o.num_events > 0) {
      // Tokens of events inside the window; an event's share where events hold several tokens.
      const double per_event = static_cast<double>(tokens) / o.num_events;
      double time = static_cast<double>(o.first_ns);
      for (size_t k = 0; k < o.gaps_ms.size() + 1; ++k) {
        if (k > 0) time += static_cast<double>(o.gaps_ms[k - 1]) * 1e6;
        const auto at = static_cast<int64_t>(time);
        add_to_bins(m.timeline.output_tokens_per_s, at, per_event);
        // Sums of rounded gaps may end a hair behind the window that the last event closes.
        if (at >= window_begin && at <= window_end + 1000000) tokens_in_window += per_event;
        if (const auto batch = batch_of(std::min(at, window_end)))
          batch_tokens[*batch] += at >= window_begin ? per_event : 0;
      }
    }
    if (o.kind == OutcomeKind::kFinished) {
      ++m.num_finished;
      add_to_bins(m.timeline.finished_rps, o.last_ns, 1);
      if (const auto batch = batch_of(o.last_ns)) ++finished_in_window, ++batch_requests[*batch];
      counted_by = std::max(counted_by, by);
      row.output_tokens = tokens;
      row.prompt_tokens = o.usage_prompt_tokens >= 0 ? o.usage_prompt_tokens : requests[i].prompt_tokens;
      if (row.prompt_tokens < 0) prompts_known = false;
      if (o.first_ns >= window_begin && o.first_ns <= window_end) {
        input_in_window += static_cast<double>(std::max<int64_t>(0, row.prompt_tokens));
      }
      row.ttft_ms = ms(o.first_ns - o.send_ns);
      row.e2e_ms = ms(o.last_ns - o.send_ns);
      row.ttft_scheduled_ms = ms(o.first_ns - o.scheduled_ns);
      row.e2e_scheduled_ms = ms(o.last_ns - o.scheduled_ns);
      if (tokens > 1) row.tpot_ms = (row.e2e_ms - row.ttft_ms) / static_cast<double>(tokens - 1);
      if (row.in_window) {
        ttft.push_back(row.ttft_ms);
        e2e.push_back(row.e2e_ms);
        ttft_scheduled.push_back(row.ttft_scheduled_ms);
        e2e_scheduled.push_back(row.e2e_scheduled_ms);
        if (tokens > 0) normalized.push_back(row.e2e_ms / static_cast<double>(tokens));
        if (tokens > 1) tpot.push_back(row.tpot_ms);
        double sum = 0;
        for (const float gap : o.gaps_ms) {
          itl.push_back(static_cast<double>(gap));
          sum += static_cast<double>(gap);
        }
        if (!o.gaps_ms.empty()) {
          gap_sums.push_back(sum);
          gap_counts.push_back(static_cast<double>(o.gaps_ms.size()));
        }
        m.output_tokens += tokens;
        m.input_tokens += std::max<int64_t>(0, row.prompt_tokens);
        if (row.prompt_tokens >= 0) prompts.push_back(static_cast<double>(row.prompt_tokens));
        outputs.push_back(static_cast<double>(tokens));
        if (o.usage_prompt_tokens >= 0) usage_prompt += o.usage_prompt_tokens;
        if (o.usage_cached_tokens >= 0) usage_cached += o.usage_cached_tokens, cached_told = true;
        bool keeps = true;
        for (const RequestLimit& limit : options.goodput) {
          // As vLLM: a request of one token has TPOT 0.
          const double value = limit.latency == Latency::kTtft   ? row.ttft_ms
                               : limit.latency == Latency::kTpot ? (tokens > 1 ? row.tpot_ms : 0)
                                                                 : row.e2e_ms;
          keeps = keeps && value <= limit.limit_ms;
        }
        good += keeps;
      }
    } else if (o.kind == OutcomeKind::kInterrupted) {
      ++m.num_interrupted;
    } else {
      ++m.num_failed;
      if (row.in_window) {
        std::string name = outcome_name(o.kind);
        if (o.kind == OutcomeKind::kHttpStatus) name += "_" + std::to_string(o.status);
        ++m.errors[name];
        m.error_examples.emplace(name, o.message);
      }
    }
    m.rows.push_back(std::move(row));
  }

  // --- what they come to ------------------------------------------------------------------------------------------------
  m.ttft = make_latency(std::move(ttft));
  m.tpot = make_latency(std::move(tpot));
  m.e2e = make_latency(std::move(e2e));
  m.normalized_tpot = make_latency(std::move(normalized));
  m.ttft_scheduled = make_latency(std::move(ttft_scheduled));
  m.e2e_scheduled = make_latency(std::move(e2e_scheduled));
  m.itl = make_latency(std::move(itl));
  m.itl.pooled = true;
  m.itl.mean_ci = grouped_mean_interval(gap_sums, gap_counts, kLevel);
  m.request_rps = static_cast<double>(finished_in_window) / window_s;
  m.output_tokens_per_s = tokens_in_window / window_s;
  m.input_tokens_per_s = input_in_window / window_s;
  m.input_tokens_known = prompts_known && m.num_finished > 0;
  m.total_tokens_per_s = m.input_tokens_per_s + m.output_tokens_per_s;
  m.mean_running = running_area * 1e-9 / window_s;
  for (size_t k = 0; k < kNumBatches; ++k) {
    m.batch_rps.push_back(batch_requests[k] / window_s * kNumBatches);
    m.batch_tokens_per_s.push_back(batch_tokens[k] / window_s * kNumBatches);
  }
  if (!options.goodput.empty()) {
    m.num_good = good;
    m.goodput_rps = static_cast<double>(good) / window_s;
  }
  m.tokens_counted_by = kCountedBy[static_cast<int>(m.num_finished > 0 ? counted_by : CountedBy::kChunks)];
  if (m.num_finished > 0 && counted_by == CountedBy::kChunks) {
    m.validity.warnings.emplace_back(
        "tokens were counted as chunks: the server sends neither token ids nor usage, and there is no --tokenizer");
  }
  if (!prompts.empty()) m.prompt_lengths = make_lengths(prompts);
  if (!outputs.empty()) m.output_lengths = make_lengths(outputs);
  if (cached_told && usage_prompt > 0) {
    m.prefix_hit_ratio = static_cast<double>(usage_cached) / static_cast<double>(usage_prompt);
  } else if (const ServerTotals& t = m.monitor.totals; t.prefix_queries && t.prefix_hits && *t.prefix_queries > 0) {
    m.prefix_hit_ratio = std::min(1.0, *t.prefix_hits / *t.prefix_queries);
  }
  if (const ServerTotals& t = m.monitor.totals; t.queue_time_s && t.num_queued && *t.num_queued > 0) {
    m.queue_mean_ms = 1000 * *t.queue_time_s / *t.num_queued;
    m.num_queued = static_cast<int64_t>(*t.num_queued);
  }
  // The GPUs between the window's ends; energy by the trapezoidal rule.
  double energy_j = 0, gpu_s = 0, utilization = 0;
  int num_utilizations = 0;
  const GpuSample* previous = nullptr;
  for (const GpuSample& sample : m.monitor.gpu) {
    if (sample.memory_used_gib) m.memory_used_gib = std::max(m.memory_used_gib.value_or(0), *sample.memory_used_gib);
    if (sample.utilization_pct) utilization += *sample.utilization_pct, ++num_utilizations;
    if (previous != nullptr && previous->power_w && sample.power_w) {
      const double span_s = static_cast<double>(sample.time_ns - previous->time_ns) * 1e-9;
      energy_j += (*previous->power_w + *sample.power_w) / 2 * span_s;
      gpu_s += span_s;
    }
    previous = &sample;
  }
  if (num_utilizations > 0) m.gpu_utilization_pct = utilization / num_utilizations;
  if (gpu_s > 0) {
    m.power_w = energy_j / gpu_s;
    if (m.output_tokens_per_s > 0) m.energy_j_per_token = *m.power_w / m.output_tokens_per_s;
  }

  // --- whether to believe it ----------------------------------------------------------------------------------------------
  RecordValidity& v = m.validity;
  v.client_self_time_pct = run_s > 0 ? 100 * run.cpu_s / run_s : 0;
  m.client_us_per_event = m.num_events > 0 ? 1e6 * run.cpu_s / static_cast<double>(m.num_events) : 0;
  if (*v.client_self_time_pct > 80) {
    v.warnings.push_back("the client used " + std::to_string(static_cast<int>(*v.client_self_time_pct)) +
                         "% of a core: latencies may be its own");
  }
  const bool open_loop = options.load != LoadKind::kConcurrency && options.load != LoadKind::kAllAtOnce;
  if (open_loop && !lags.empty()) {
    std::sort(lags.begin(), lags.end());
    v.send_lag_p99_ms = percentile(lags, 0.99);
    if (*v.send_lag_p99_ms > kMaxSendLagMs) {
      m.valid = false;
      v.warnings.push_back("INVALID: 1% of the requests were sent more than " +
                           std::to_string(static_cast<int>(*v.send_lag_p99_ms)) +
                           " ms late: the client did not keep up");
    }
    // Requested: what was scheduled, in the time it was scheduled for. Achieved: the same requests in the time they took to send.
    int64_t first = std::numeric_limits<int64_t>::max(), last = 0, first_begin = first, last_begin = 0;
    for (const RequestOutcome* o : sent) {
      first = std::min(first, o->scheduled_ns), last = std::max(last, o->scheduled_ns);
      first_begin = std::min(first_begin, o->begin_ns), last_begin = std::max(last_begin, o->begin_ns);
    }
    if (last > first && last_begin > first_begin) {
      v.achieved_ratio = static_cast<double>(last - first) / static_cast<double>(last_begin - first_begin);
      if (*v.achieved_ratio < kMinAchieved) {
        m.valid = false;
        v.warnings.push_back("INVALID: requests were sent at " +
                             std::to_string(static_cast<int>(*v.achieved_ratio * 100)) +
                             "% of the rate asked for (a cap by --max-concurrency, or a client that did not keep up)");
      }
    }
    v.over_saturated = is_over_saturated(sent);
    if (*v.over_saturated) {
      v.warnings.emplace_back(
          "over-saturated: requests that wait for their first token grew all through the run; latencies depend on its "
          "length");
    }
  }
  if (m.num_finished > 0 && m.num_finished < m.num_planned && m.num_interrupted > 0) {
    v.warnings.emplace_back("interrupted: only a part of the planned requests ran");
  }
  if (run.gave_up) v.warnings.push_back(*run.gave_up);
  return m;
}

std::optional<bool> goal_met(const Measurement& measurement, const RunGoal& goal) {
  const LatencyResult& latency = measurement.latency(goal.latency);
  if (latency.empty()) return std::nullopt;
  if (!goal.quantile) return latency.mean_ms < goal.limit_ms;
  // Too few samples for the percentile itself can still decide: how many of n lie at or beyond the limit is binomial, and
  // each answer must be one that the opposite would give in at most 5% of such runs.
  if (const auto value = latency.at(*goal.quantile)) return *value < goal.limit_ms;
  const auto n = static_cast<int64_t>(latency.sorted_ms.size());
  const auto beyond =
      latency.sorted_ms.end() - std::lower_bound(latency.sorted_ms.begin(), latency.sorted_ms.end(), goal.limit_ms);
  if (binomial_cdf(beyond, n, 1 - *goal.quantile) <= 0.05) return true;
  if (beyond > 0 && 1 - binomial_cdf(beyond - 1, n, 1 - *goal.quantile) <= 0.05) return false;
  return std::nullopt;
}

const std::vector<std::pair<std::string, std::string>>& measurement_formulas() {
  static const std::vector<std::pair<std::string, std::string>> formulas = {
      {"TTFT",
       "first token - send; the send is when the connected client begins to write the request, a token's time is that "
       "of the "
       "read that held its bytes"},
      {"TPOT", "(E2E - TTFT) / (n - 1) for each request of n > 1 output tokens"},
      {"ITL", "gaps between successive token events, pooled over all requests (an event may hold several tokens)"},
      {"E2E", "last token (or the event with the finish reason) - send"},
      {"NTPOT", "E2E / n"},
      {"TTFT*, E2E*", "the same from the scheduled time: waiting for a connection or a late client counts"},
      {"queue", "mean over the server's own queue-time histogram"},
      {"req/s", "requests that finished inside the window / window"},
      {"output tok/s", "output tokens whose event lies inside the window / window"},
      {"input tok/s", "prompt tokens of requests whose first token lies inside the window / window"},
      {"goodput", "finished requests that keep every --goodput limit / window"},
      {"window", "first send to last token, without --warmup-s and --cooldown-s"},
      {"percentiles", "linear between order statistics; at least 10 samples beyond, else \"n too small\""},
      {"SLO",
       "percentile < limit; where n is too small for it, the count of requests beyond the limit decides if it is "
       "binomially "
       "unlikely (5%) under the opposite"},
      {"intervals",
       "90%: order statistics (percentiles), Student's t (means; over requests for ITL); they take requests as "
       "independent"},
      {"energy", "mean power of this machine's GPUs / output tok/s"},
  };
  return formulas;
}

}  // namespace sextant::bench
