// What the engine's decisions cost: schedule() + update() of one decode step, admission of prompts, and
// blocks. The aim is under 20 microseconds for a step of 256 running sequences.
#include <benchmark/benchmark.h>
#include <chrono>
#include <memory>
#include <utility>
#include <vector>

#include "engine/base/check.h"
#include "engine/core/scheduler.h"

namespace sextant {
namespace {

constexpr int32_t kBlockSize = 16;

Scheduler::Options make_options(int32_t num_blocks, int64_t num_seqs) {
  Scheduler::Options options;
  options.scheduler.max_num_seqs = num_seqs;
  options.scheduler.max_num_batched_tokens = 8192;
  options.scheduler.max_num_queued_reqs = 1 << 20;
  options.scheduler.max_steps_in_flight = 1;
  options.max_model_len = 1 << 20;
  options.spec.block_size = kBlockSize;
  options.spec.groups.resize(1);
  options.num_blocks = num_blocks;
  options.eos_token_ids = {2};
  return options;
}

std::shared_ptr<const Request> make_request(RequestId request_id, int32_t num_prompt, int64_t max_tokens) {
  auto request = std::make_shared<Request>();
  request->request_id = request_id;
  for (int32_t i = 0; i < num_prompt; ++i)
    request->prompt_token_ids.push_back(static_cast<int32_t>(request_id) * 1000 + i);
  request->sampling.max_tokens = max_tokens;
  return request;
}

// A worker that chooses token 1 for everybody.
ModelOutput make_output(const SchedulerOutput& step) {
  ModelOutput output;
  output.step_id = step.step_id;
  output.sequences.resize(step.sequences.size());
  for (size_t i = 0; i < step.sequences.size(); ++i) {
    output.sequences[i].sequence_id = step.sequences[i].sequence_id;
    if (step.sequences[i].samples) output.sequences[i].token_ids.assign(1, 1);
  }
  return output;
}

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Steady decode: one token for each of N sequences per step, a new block for one in 16 of them. Timed:
// schedule(), update() and take_events(); the worker's part (making the output) is not.
void decode_step(benchmark::State& state) {
  const int64_t num_sequences = state.range(0);
  constexpr int64_t kNumSteps = 1024;  // then a fresh scheduler, so that tables stay as long as those of real requests
  const int64_t num_blocks = num_sequences * (kNumSteps / kBlockSize + 4) + 1;
  std::unique_ptr<Scheduler> scheduler;
  std::vector<SequenceEvent> events;
  int64_t steps_left = 0;
  for ([[maybe_unused]] auto _ : state) {
    if (steps_left-- == 0) {
      scheduler = std::make_unique<Scheduler>(make_options(static_cast<int32_t>(num_blocks), num_sequences));
      for (int64_t i = 0; i < num_sequences; ++i) {
        // Lengths differ, so that block boundaries do not fall together.
        const int32_t num_prompt = 17 + static_cast<int32_t>(i % kBlockSize);
        CHECK(scheduler->add(make_request(static_cast<RequestId>(i + 1), num_prompt, kNumSteps + 2)).ok());
      }
      while (scheduler->stats().num_waiting > 0) {
        const auto step = scheduler->schedule();
        scheduler->update(*step, make_output(*step));
        scheduler->take_events(events);
      }
      steps_left = kNumSteps - 1;
    }
    auto start = std::chrono::steady_clock::now();
    const auto step = scheduler->schedule();
    double elapsed_s = seconds_since(start);
    CHECK_EQ(step->sequences.size(), static_cast<size_t>(num_sequences));
    ModelOutput output = make_output(*step);
    start = std::chrono::steady_clock::now();
    scheduler->update(*step, std::move(output));
    scheduler->take_events(events);
    elapsed_s += seconds_since(start);
    state.SetIterationTime(elapsed_s);
  }
}
BENCHMARK(decode_step)->Arg(1)->Arg(64)->Arg(256)->UseManualTime()->Unit(benchmark::kMicrosecond);

// A request of N prompt tokens from add() to its only token; the prefix cache is cold (0) or holds the prompt
// (1).
void request_life(benchmark::State& state) {
  const int32_t num_prompt = static_cast<int32_t>(state.range(0));
  const bool cached = state.range(1) != 0;
  Scheduler scheduler(make_options(4096, 256));
  std::vector<SequenceEvent> events;
  RequestId request_id = 0;
  for ([[maybe_unused]] auto _ : state) {
    auto request = std::make_shared<Request>(*make_request(cached ? 1 : request_id + 1, num_prompt, 1));
    request->request_id = ++request_id;
    const auto start = std::chrono::steady_clock::now();
    CHECK(scheduler.add(std::move(request)).ok());
    while (scheduler.stats().num_running + scheduler.stats().num_waiting > 0) {
      const auto step = scheduler.schedule();
      scheduler.update(*step, make_output(*step));
    }
    scheduler.take_events(events);
    state.SetIterationTime(seconds_since(start));
  }
}
BENCHMARK(request_life)
    ->Args({512, 0})
    ->Args({512, 1})
    ->Args({8192, 0})
    ->Args({8192, 1})
    ->UseManualTime()
    ->Unit(benchmark::kMicrosecond);

// One block taken and given back, N at a time, without contents (0) or leaving cached contents behind (1).
void allocate_and_free(benchmark::State& state) {
  const int64_t num_blocks = state.range(0);
  KvCacheManager::Options options;
  options.spec = make_options(0, 1).spec;
  options.num_blocks = static_cast<int32_t>(4 * num_blocks + 1);
  KvCacheManager manager(options);
  std::vector<int32_t> token_ids(static_cast<size_t>(num_blocks * kBlockSize));
  SequenceBlocks blocks = manager.make_sequence_blocks();
  const bool publishes = state.range(1) != 0;
  for ([[maybe_unused]] auto _ : state) {
    if (publishes) {
      ++token_ids.front();  // other contents each time
      blocks.hashes.clear();
    }
    CHECK(manager.allocate(blocks, num_blocks * kBlockSize));
    if (publishes) manager.publish(blocks, {{}, token_ids, {}}, static_cast<int32_t>(num_blocks));
    manager.free(blocks);
  }
  state.SetItemsProcessed(state.iterations() * num_blocks);
}
BENCHMARK(allocate_and_free)->Args({1, 0})->Args({256, 0})->Args({256, 1});

}  // namespace
}  // namespace sextant
