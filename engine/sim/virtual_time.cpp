#include "engine/sim/virtual_time.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <limits>
#include <string>
#include <utility>

#include "engine/base/check.h"

namespace sextant::sim {
namespace {

// Longer than any simulation, and far from the end of an int64_t of nanoseconds.
constexpr double kMaxSeconds = 1e9;

double seconds(int64_t ns) { return static_cast<double>(ns) * 1e-9; }

// Ids that differ between requests and agree inside a shared prefix. Any id will do: nothing reads them but the prefix cache.
int32_t prompt_token(uint64_t stream, int64_t position) {
  uint64_t x = (stream + 1) * 0x9e3779b97f4a7c15 + static_cast<uint64_t>(position) * 0xbf58476d1ce4e5b9;
  x ^= x >> 31;
  x *= 0x94d049bb133111eb;
  return static_cast<int32_t>((x >> 33) & 0x3fffffff);
}

class Simulation {
 public:
  Simulation(const SimWorkload& workload, const SimTiming& timing, const SimServer& server, int64_t num_steps_in_flight,
             const OnToken& on_token)
      : workload_(workload),
        server_(server),
        max_steps_(num_steps_in_flight),
        on_token_(on_token),
        scheduler_(scheduler_options(server, num_steps_in_flight)),
        device_({timing, {}, {}}) {
    result_.outcomes.resize(workload.requests.size());
  }

  SimResult run() {
    if (workload_.concurrency > 0) {
      for (int64_t i = 0; i < workload_.concurrency; ++i) send_next();
    }
    while (true) {
      admit_arrivals();
      if (!step()) {
        if (workload_.concurrency > 0 || next_ == workload_.requests.size()) break;
        now_ns_ = std::max(now_ns_, arrival_ns(next_));
      }
    }
    CHECK_EQ(num_ended_, workload_.requests.size()) << "requests were lost";
    result_.busy_s = device_.busy_s();
    result_.scheduler = scheduler_.stats();
    return std::move(result_);
  }

 private:
  int64_t arrival_ns(size_t idx) const { return std::llround(workload_.requests[idx].arrival_s * 1e9); }

  void admit_arrivals() {
    if (workload_.concurrency > 0) return;
    for (; next_ < workload_.requests.size() && arrival_ns(next_) <= now_ns_; ++next_) add(next_, arrival_ns(next_));
  }

  // Of a client under fixed concurrency.
  // One that is refused goes on with the next request: it would ask again at once for ever.
  void send_next() {
    while (next_ < workload_.requests.size() && !add(next_++, now_ns_)) {
    }
  }

  // False when the queue was full.
  bool add(size_t idx, int64_t at_ns) {
    const SimRequest& asked = workload_.requests[idx];
    SimOutcome& outcome = result_.outcomes[idx];
    outcome.arrival_s = seconds(at_ns);
    const SchedulerStats stats = scheduler_.stats();
    const int64_t free_places = std::max<int64_t>(0, server_.scheduler.max_num_seqs - stats.num_running);
    if (num_unscheduled_ >= server_.scheduler.max_num_queued_reqs + free_places) {
      outcome.rejected = true;
      outcome.first_scheduled_s = outcome.first_token_s = outcome.end_s = outcome.arrival_s;
      ++num_ended_;
      return false;
    }
    auto request = std::make_shared<Request>();
    request->request_id = idx + 1;
    request->arrival_ns = at_ns;
    request->priority = asked.priority;
    request->tenant = asked.tenant;
    request->sampling.max_tokens = asked.output_tokens;
    request->sampling.ignore_eos = true;
    request->prompt_token_ids.reserve(static_cast<size_t>(asked.prompt_tokens));
    for (int32_t i = 0; i < asked.prompt_tokens; ++i) {
      const bool shared = asked.prefix_group != 0 && i < asked.shared_prefix_tokens;
      request->prompt_token_ids.push_back(prompt_token(shared ? ~asked.prefix_group : idx, i));
    }
    const Status added = scheduler_.add(std::move(request));
    CHECK(added.ok()) << added.message();  // simulate() has looked at all of them
    ++num_unscheduled_;
    return true;
  }

  // As EngineThread::step(). False when there is nothing to do.
  bool step() {
    bool submitted = false;
    if (static_cast<int64_t>(steps_.size()) < max_steps_) {
      std::shared_ptr<const SchedulerOutput> output = scheduler_.schedule();
      for (const NewSequence& added : output->new_sequences) {
        result_.outcomes[added.request->request_id - 1].first_scheduled_s = seconds(now_ns_);
        --num_unscheduled_;
      }
      submitted = !output->empty();
      device_.submit(output, now_ns_);
      if (submitted) steps_.push_back(std::move(output));
      const SchedulerStats stats = scheduler_.stats();
      result_.max_running = std::max(result_.max_running, stats.num_running);
      result_.max_waiting = std::max(result_.max_waiting, stats.num_waiting);
    }
    const bool is_full = static_cast<int64_t>(steps_.size()) == max_steps_;
    const bool collects = !steps_.empty() && (is_full || !submitted);
    if (collects) {
      now_ns_ = std::max(now_ns_, device_.next_finish_ns());
      scheduler_.update(*steps_.front(), device_.collect(now_ns_));
      steps_.pop_front();
      ++result_.num_steps;
    }
    take_events();
    return submitted || collects;
  }

  void take_events() {
    scheduler_.take_events(events_);
    for (const SequenceEvent& event : events_) {
      const size_t idx = event.request_id - 1;
      SimOutcome& outcome = result_.outcomes[idx];
      const auto num_tokens = static_cast<int32_t>(event.new_token_ids.size());
      if (outcome.num_output_tokens == 0 && num_tokens > 0) outcome.first_token_s = seconds(now_ns_);
      outcome.num_output_tokens += num_tokens;
      outcome.num_cached_tokens = std::max(outcome.num_cached_tokens, event.num_cached_tokens);
      outcome.num_preemptions = event.num_preemptions;
      if (num_tokens > 0 && on_token_) on_token_(idx, seconds(now_ns_), num_tokens);
      if (!event.finish_reason) continue;
      outcome.end_s = seconds(now_ns_);
      result_.end_s = std::max(result_.end_s, outcome.end_s);
      ++num_ended_;
      if (workload_.concurrency > 0) send_next();
    }
  }

  const SimWorkload& workload_;
  const SimServer& server_;
  const int64_t max_steps_;
  const OnToken& on_token_;
  Scheduler scheduler_;
  SimDevice device_;
  std::deque<std::shared_ptr<const SchedulerOutput>> steps_;
  std::vector<SequenceEvent> events_;
  SimResult result_;
  size_t next_ = 0;  // request to send
  size_t num_ended_ = 0;
  int64_t num_unscheduled_ = 0;
  int64_t now_ns_ = 0;
};

Status check_request(const SimRequest& request, const SimServer& server, double previous_arrival_s) {
  const auto tokens = [](int64_t count) { return std::to_string(count) + " tokens"; };
  if (request.prompt_tokens < 1 || request.output_tokens < 1) {
    return invalid_argument("needs at least one token of prompt and one of output");
  }
  if (!(request.arrival_s >= previous_arrival_s && request.arrival_s <= kMaxSeconds)) {
    return invalid_argument("arrives at " + std::to_string(request.arrival_s) + " s: arrivals must ascend from 0");
  }
  const int64_t total = int64_t{request.prompt_tokens} + request.output_tokens;
  if (total > server.max_model_len) {
    return invalid_argument("has " + tokens(total) + ", more than max_model_len, " + tokens(server.max_model_len));
  }
  if (const int64_t room = server.num_blocks * server.cache.block_size; total > room) {
    return invalid_argument("has " + tokens(total) + ", and the KV cache holds " + tokens(room));
  }
  if (!server.scheduler.enable_chunked_prefill && request.prompt_tokens > server.scheduler.max_num_batched_tokens) {
    return invalid_argument("has a prompt of " + tokens(request.prompt_tokens) +
                            ", more than a step without chunked prefill holds");
  }
  return ok_status();
}

}  // namespace

Result<int64_t> steps_in_flight(const SchedulerConfig& config, const SimTiming& timing) {
  if (config.max_steps_in_flight == 0) return timing.max_steps_in_flight();
  if (config.max_steps_in_flight > timing.max_steps_in_flight()) {
    return invalid_argument("max_steps_in_flight is " + std::to_string(config.max_steps_in_flight) +
                                ", but this simulated device overlaps at most " +
                                std::to_string(timing.max_steps_in_flight()),
                            "max_steps_in_flight");
  }
  return config.max_steps_in_flight;
}

Scheduler::Options scheduler_options(const SimServer& server, int64_t num_steps_in_flight) {
  Scheduler::Options options;
  options.scheduler = server.scheduler;
  options.scheduler.max_num_queued_reqs = int64_t{1} << 30;  // refused before, exactly and at once
  options.scheduler.max_steps_in_flight = num_steps_in_flight;
  options.cache = server.cache;
  options.max_model_len = server.max_model_len;
  options.spec.block_size = static_cast<int32_t>(server.cache.block_size);
  options.spec.groups.resize(1);
  options.num_blocks = static_cast<int32_t>(server.num_blocks + 1);  // with the null block
  options.eos_token_ids = server.eos_token_ids;
  return options;
}

Result<SimResult> simulate(const SimWorkload& workload, const SimTiming& timing, const SimServer& server,
                           const OnToken& on_token) {
  if (!timing.constant && timing.model == nullptr) return invalid_argument("a simulation needs step times");
  if (server.max_model_len < 2 || server.num_blocks < 1 || server.num_blocks >= std::numeric_limits<int32_t>::max() ||
      server.scheduler.max_num_seqs < 1 || server.scheduler.max_num_batched_tokens < server.scheduler.max_num_seqs ||
      server.cache.block_size < 1) {
    return invalid_argument("the simulated server has no room: max_model_len " + std::to_string(server.max_model_len) +
                            ", " + std::to_string(server.num_blocks) + " blocks, max_num_seqs " +
                            std::to_string(server.scheduler.max_num_seqs) + ", max_num_batched_tokens " +
                            std::to_string(server.scheduler.max_num_batched_tokens));
  }
  if (workload.concurrency < 0) return invalid_argument("concurrency must not be negative", "concurrency");
  ASSIGN_OR_RETURN(const int64_t num_steps, steps_in_flight(server.scheduler, timing));
  double previous_arrival_s = 0;
  for (size_t i = 0; i < workload.requests.size(); ++i) {
    const SimRequest& request = workload.requests[i];
    if (workload.concurrency > 0) previous_arrival_s = request.arrival_s;
    if (const Status status = check_request(request, server, previous_arrival_s); !status.ok()) {
      return invalid_argument("request " + std::to_string(i) + " " + status.message());
    }
    previous_arrival_s = request.arrival_s;
  }
  return Simulation(workload, timing, server, num_steps, on_token).run();
}

}  // namespace sextant::sim
