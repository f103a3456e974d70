// What the tests of the scheduler share: a small cache, a request in one line, and a scheduler driven by hand beside a
// worker that checks every slot (fake_worker.h).
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "engine/core/scheduler.h"
#include "tests/engine/core/fake_worker.h"

namespace sextant {

using StepPtr = std::shared_ptr<const SchedulerOutput>;

inline Scheduler::Options make_options() {
  Scheduler::Options options;
  options.spec.block_size = 4;
  options.spec.groups.resize(1);
  options.num_blocks = 101;
  options.max_model_len = 200;
  options.scheduler.max_num_seqs = 8;
  options.scheduler.max_num_batched_tokens = 64;
  options.scheduler.max_num_queued_reqs = 100;
  options.scheduler.max_steps_in_flight = 1;
  options.cache_root = "fake";
  return options;
}

struct Ask {
  int32_t num_prompt = 10;
  int64_t max_tokens = 4;
  int32_t first_token = 0;
  int32_t n = 1;
  int32_t priority = 0;
  std::string tenant = {};
};

class Harness {
 public:
  explicit Harness(const Scheduler::Options& options)
      : scheduler(options), worker(1, options.num_blocks, options.spec.block_size) {}

  std::shared_ptr<Request> make_request(const Ask& ask) {
    auto request = std::make_shared<Request>();
    request->request_id = ++num_requests;
    for (int32_t i = 0; i < ask.num_prompt; ++i) request->prompt_token_ids.push_back(ask.first_token + i);
    request->sampling.max_tokens = ask.max_tokens;
    request->sampling.n = ask.n;
    request->priority = ask.priority;
    request->tenant = ask.tenant;
    request->arrival_ns = static_cast<int64_t>(num_requests);
    return request;
  }
  RequestId add(const Ask& ask) {
    const auto request = make_request(ask);
    const Status status = scheduler.add(request);
    EXPECT_TRUE(status.ok()) << status.message();
    return request->request_id;
  }
  StepPtr schedule() {
    const StepPtr step = scheduler.schedule();
    check();
    if (!step->empty()) in_flight.push_back(step);
    if (!step->empty() || !step->finished_sequences.empty()) {
      ModelOutput output = worker.execute(*step);
      if (!step->empty()) outputs.push_back(std::move(output));
    }
    return step;
  }
  void update() {
    ASSERT_FALSE(in_flight.empty());
    scheduler.update(*in_flight.front(), std::move(outputs.front()));
    in_flight.pop_front();
    outputs.pop_front();
    check();
    collect();
  }
  StepPtr turn() {
    const StepPtr step = schedule();
    if (!step->empty()) update();
    return step;
  }
  void run_to_end() {
    for (int turns = 0; scheduler.has_work(); ++turns) {
      ASSERT_LT(turns, 1000);
      turn();
    }
  }
  void collect() {
    std::vector<SequenceEvent> taken;
    scheduler.take_events(taken);
    for (SequenceEvent& event : taken) {
      std::vector<int32_t>& token_ids = tokens[{event.request_id, event.choice_idx}];
      token_ids.insert(token_ids.end(), event.new_token_ids.begin(), event.new_token_ids.end());
      events.push_back(std::move(event));
    }
  }
  void check() {
    const Status status = scheduler.check_integrity();
    ASSERT_TRUE(status.ok()) << status.message();
  }
  // The terminal event of a choice; fails unless there is exactly one.
  SequenceEvent terminal(RequestId request_id, int32_t choice_idx = 0) {
    SequenceEvent found;
    int count = 0;
    for (const SequenceEvent& event : events) {
      if (event.request_id == request_id && event.choice_idx == choice_idx && event.finish_reason) {
        found = event;
        ++count;
      }
    }
    EXPECT_EQ(count, 1) << "terminal events of request " << request_id << " choice " << choice_idx;
    return found;
  }
  int64_t blocks_used() const { return scheduler.stats().num_blocks_used; }

  Scheduler scheduler;
  FakeWorker worker;
  uint64_t num_requests = 0;
  std::deque<StepPtr> in_flight;
  std::deque<ModelOutput> outputs;
  std::vector<SequenceEvent> events;
  std::map<std::pair<RequestId, int32_t>, std::vector<int32_t>> tokens;
};

inline std::vector<int32_t> lengths(const SchedulerOutput& step) {
  std::vector<int32_t> counts;
  for (const ScheduledSequence& scheduled : step.sequences) counts.push_back(scheduled.num_scheduled_tokens);
  return counts;
}

}  // namespace sextant
