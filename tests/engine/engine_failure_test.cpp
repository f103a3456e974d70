// The engine's thread with a worker that fails or does not come back.
#include <sys/stat.h>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <filesystem>
#include <mutex>
#include <stdexcept>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/base/log.h"
#include "engine/engine_thread.h"
#include "engine/format/json_file.h"
#include "engine/step_dump.h"
#include "tests/engine/core/fake_worker.h"
#include "tests/support/collecting_sink.h"
#include "tests/support/scratch_directory.h"

namespace sextant {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing_support::CollectingSink;

constexpr int32_t kBlockSize = 4;
constexpr int32_t kNumBlocks = 101;

enum class Fault { kNone, kSubmitFails, kSubmitThrows, kCollectFails, kCollectThrows, kSubmitBlocks, kCollectBlocks };

// Computes as FakeWorker does, until step `at`.
class FaultyWorker final : public StepExecutor {
 public:
  FaultyWorker(Fault fault, uint64_t at, std::chrono::milliseconds step_time = {})
      : fault_(fault), at_(at), step_time_(step_time), worker_(1, kNumBlocks, kBlockSize) {}

  Status submit(std::shared_ptr<const SchedulerOutput> step) override {
    EXPECT_FALSE(failed_) << "the device was asked again after it failed";
    if (step->empty() && step->finished_sequences.empty()) return ok_status();
    if (!step->empty() && step->step_id >= at_) {
      failed_ = fault_ == Fault::kSubmitFails || fault_ == Fault::kSubmitThrows;
      if (fault_ == Fault::kSubmitFails) return Status(StatusCode::kDeviceError, "the device is on fire");
      if (fault_ == Fault::kSubmitThrows) throw std::runtime_error("the device is on fire");
      if (fault_ == Fault::kSubmitBlocks) block();
    }
    if (released_.load()) return ok_status();
    ModelOutput output = worker_.execute(*step);
    if (!step->empty()) outputs_.push_back(std::move(output));
    return ok_status();
  }

  Result<ModelOutput> collect() override {
    EXPECT_FALSE(failed_) << "the device was asked again after it failed";
    ModelOutput output = std::move(outputs_.front());
    outputs_.pop_front();
    std::this_thread::sleep_for(step_time_);
    if (output.step_id < at_) return output;
    failed_ = fault_ == Fault::kCollectFails || fault_ == Fault::kCollectThrows;
    if (fault_ == Fault::kCollectFails) return Status(StatusCode::kDeviceError, "the device is on fire");
    if (fault_ == Fault::kCollectThrows) throw std::runtime_error("the device is on fire");
    if (fault_ == Fault::kCollectBlocks) block();
    return output;
  }

  void wait_blocked() {
    std::unique_lock lock(mutex_);
    ASSERT_TRUE(changed_.wait_for(lock, std::chrono::seconds(60), [&] { return blocked_; }));
  }
  void release() {
    {
      std::lock_guard lock(mutex_);
      released_ = true;
    }
    changed_.notify_all();
  }

 private:
  void block() {
    std::unique_lock lock(mutex_);
    blocked_ = true;
    changed_.notify_all();
    changed_.wait(lock, [&] { return released_.load(); });
    failed_ = true;
  }

  const Fault fault_;
  const uint64_t at_;
  const std::chrono::milliseconds step_time_;
  FakeWorker worker_;
  std::deque<ModelOutput> outputs_;
  bool failed_ = false;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool blocked_ = false;
  std::atomic<bool> released_{false};
};

// Log lines, while it lives. No engine may outlive it.
class LogLines {
 public:
  LogLines() {
    set_log_sink([this](LogLevel, std::string_view message) {
      std::lock_guard lock(mutex_);
      text_ += std::string(message) + "\n";
    });
  }
  ~LogLines() { set_log_sink({}); }
  std::string text() {
    std::lock_guard lock(mutex_);
    return text_;
  }

 private:
  std::mutex mutex_;
  std::string text_;
};

Request make_request(int32_t first_token, int32_t num_prompt, int64_t max_tokens, int32_t n = 1) {
  Request request;
  for (int32_t i = 0; i < num_prompt; ++i) request.prompt_token_ids.push_back((first_token + i) % kFakeVocabSize);
  request.sampling.max_tokens = max_tokens;
  request.sampling.n = n;
  request.sampling.seed = static_cast<uint64_t>(first_token) + 1;
  request.cache_salt = "the salt of a tenant";
  request.tenant = "a tenant";
  return request;
}

class EngineFailure : public testing::Test {
 protected:
  // A test that gave up early must not wait for its worker for ever.
  void TearDown() override {
    if (engine_ != nullptr) worker_->release();
  }

  EngineThread& make_engine(Fault fault, uint64_t at, int64_t steps_in_flight = 1, double step_timeout_s = 0,
                            std::chrono::milliseconds step_time = {}) {
    EngineThread::Parts parts;
    parts.info.vocab_size = kFakeVocabSize;
    parts.info.max_model_len = 200;
    parts.info.num_blocks = kNumBlocks - 1;
    parts.info.block_size = kBlockSize;
    parts.info.device = "a fake";
    EngineConfig config;
    config.model.model = "model.gguf";
    config.device.step_dump_dir = dump_dir_;
    config.scheduler.max_num_seqs = 8;
    config.scheduler.max_num_batched_tokens = 64;
    config.scheduler.max_steps_in_flight = steps_in_flight;
    Scheduler::Options scheduler;
    scheduler.scheduler = config.scheduler;
    scheduler.spec.block_size = kBlockSize;
    scheduler.spec.groups.resize(1);
    scheduler.num_blocks = kNumBlocks;
    scheduler.max_model_len = 200;
    scheduler.cache_root = "fake";
    parts.config = config.scheduler;
    parts.engine_config = config;
    parts.step_timeout_s = step_timeout_s;
    parts.scheduler = std::make_unique<Scheduler>(std::move(scheduler));
    auto worker = std::make_unique<FaultyWorker>(fault, at, step_time);
    worker_ = worker.get();
    parts.worker = std::move(worker);
    engine_ = std::make_unique<EngineThread>(std::move(parts));
    return *engine_;
  }

  std::vector<std::string> dump_files() const {
    std::vector<std::string> files;
    for (const auto& entry : std::filesystem::directory_iterator(directory_.path())) files.push_back(entry.path());
    return files;
  }

  // The one record that the failure left.
  StepDump read_dump() const {
    const std::vector<std::string> files = dump_files();
    EXPECT_EQ(files.size(), 1u);
    if (files.size() != 1) return {};
    struct stat facts {};
    EXPECT_EQ(::stat(files[0].c_str(), &facts), 0);
    EXPECT_EQ(facts.st_mode & 0777, 0600u);
    const Result<std::string> text = read_text_file(files[0], size_t{1} << 24);
    EXPECT_THAT(*text, testing::Not(HasSubstr("tenant"))) << "who asked is no part of a step";
    Result<StepDump> dump = parse_step_dump(*text, files[0]);
    EXPECT_TRUE(dump.ok()) << dump.status().message();
    return dump.ok() ? *std::move(dump) : StepDump{};
  }

  void expect_all_ended_once(CollectingSink& sink, size_t num_choices, const std::string& error) {
    ASSERT_TRUE(sink.wait_ended(num_choices));
    EXPECT_TRUE(engine_->wait_drained(30));
    const auto all = sink.all();
    EXPECT_EQ(all.size(), num_choices);
    for (const auto& [key, choice] : all) {
      EXPECT_EQ(choice.num_terminal_events, 1) << key.first << "/" << key.second;
      EXPECT_EQ(choice.num_events_after_end, 0);
      EXPECT_EQ(choice.finish_reason, FinishReason::kError);
      EXPECT_THAT(choice.last.error, HasSubstr(error));
    }
  }

  ScratchDirectory directory_;
  std::string dump_dir_ = directory_.path();
  LogLines log_;
  FaultyWorker* worker_ = nullptr;
  std::unique_ptr<EngineThread> engine_;
};

class EngineFailureKinds : public EngineFailure, public testing::WithParamInterface<std::tuple<Fault, int64_t>> {};

TEST_P(EngineFailureKinds, EndsEveryRequestOnceAndRecordsTheSteps) {
  const auto [fault, steps_in_flight] = GetParam();
  constexpr uint64_t kAt = 7;
  EngineThread& engine = make_engine(fault, kAt, steps_in_flight);
  auto sink = std::make_shared<CollectingSink>();
  size_t num_choices = 0;
  for (int32_t i = 0; i < 12; ++i) {  // more than run at once
    const int32_t n = 1 + i % 3;
    if (!engine.submit(make_request(i, 5 + 7 * i, 100, n), sink).ok()) break;  // the fault was quicker
    num_choices += static_cast<size_t>(n);
  }
  ASSERT_GT(num_choices, 0u);
  expect_all_ended_once(*sink, num_choices, "the device is on fire");
  EXPECT_FALSE(engine.stats().healthy);
  EXPECT_EQ(engine.stats().num_requests_running, 0);
  EXPECT_EQ(engine.stats().num_requests_waiting, 0);
  const Status refused = engine.submit(make_request(1, 2, 3), sink).status();
  EXPECT_EQ(refused.code(), StatusCode::kUnavailable);
  EXPECT_THAT(refused.message(), HasSubstr("the device failed"));
  EXPECT_TRUE(engine.check_integrity().ok()) << engine.check_integrity().message();

  const StepDump dump = read_dump();
  EXPECT_EQ(dump.reason, "the device is on fire");
  EXPECT_EQ(dump.device, "a fake");
  EXPECT_EQ(dump.config.model.model, "model.gguf");
  EXPECT_EQ(dump.config.scheduler.max_num_batched_tokens, 64);
  ASSERT_FALSE(dump.steps.empty());
  EXPECT_LE(dump.steps.size(), static_cast<size_t>(steps_in_flight));
  const bool in_submit = fault == Fault::kSubmitFails || fault == Fault::kSubmitThrows;
  EXPECT_EQ((in_submit ? dump.steps.back() : dump.steps.front())->step_id, kAt) << "the one that failed";
  EXPECT_THAT(log_.text(), AllOf(HasSubstr("the device failed"), HasSubstr(dump_files()[0])));
}

INSTANTIATE_TEST_SUITE_P(Faults, EngineFailureKinds,
                         testing::Combine(testing::Values(Fault::kSubmitFails, Fault::kSubmitThrows,
                                                          Fault::kCollectFails, Fault::kCollectThrows),
                                          testing::Values(1, 2)));

// What the record holds is enough: a worker that knows nothing else comes to the tokens that the step would have chosen.
TEST_F(EngineFailure, TheRecordedStepsRunAgain) {
  EngineThread& engine = make_engine(Fault::kCollectFails, 9, 2, 0, std::chrono::milliseconds(20));
  auto sink = std::make_shared<CollectingSink>();
  std::map<RequestId, Request> requests;
  size_t num_choices = 0;
  for (int32_t i = 0; i < 6; ++i) {
    Request request = make_request(10 * i, 6 + 20 * (i % 3), 60, 1 + i % 2);
    num_choices += static_cast<size_t>(request.sampling.n);
    const Result<RequestId> id = engine.submit(request, sink);
    if (!id.ok()) {
      num_choices -= static_cast<size_t>(request.sampling.n);
      break;
    }
    requests.emplace(*id, std::move(request));
  }
  expect_all_ended_once(*sink, num_choices, "on fire");
  const StepDump dump = read_dump();
  ASSERT_EQ(dump.steps.size(), 2u);

  // Puts each sequence's cached tokens where they were, one sequence a step, then runs the steps. The worker takes its
  // tokens as a prompt; it hashes the history and does not care which part the model wrote.
  FakeWorker fresh(1, kNumBlocks, kBlockSize);
  uint64_t step_id = 0;
  std::map<SequenceId, std::shared_ptr<Request>> known;
  for (const StepDump::SequenceState& sequence : dump.sequences) {
    auto request = std::make_shared<Request>(*sequence.request);
    request->prompt_token_ids.insert(request->prompt_token_ids.end(), sequence.output_token_ids.begin(),
                                     sequence.output_token_ids.end());
    known.emplace(sequence.sequence_id, request);
    for (const auto& step : dump.steps) {
      const auto found = std::ranges::find(step->sequences, sequence.sequence_id, &ScheduledSequence::sequence_id);
      if (found == step->sequences.end()) continue;
      SchedulerOutput before;
      before.step_id = ++step_id;
      before.new_sequences.push_back({sequence.sequence_id, sequence.choice_idx, request});
      NewBlocks& blocks = before.new_blocks.emplace_back();
      if (found->num_computed_tokens > 0) {
        ScheduledSequence& scheduled = before.sequences.emplace_back();
        scheduled.sequence_id = sequence.sequence_id;
        scheduled.num_scheduled_tokens = found->num_computed_tokens;
        scheduled.num_prompt_tokens = static_cast<int32_t>(request->prompt_token_ids.size());
        scheduled.samples = found->num_computed_tokens == scheduled.num_prompt_tokens;
        ASSERT_FALSE(scheduled.samples) << "then the token chosen there would be known";
        before.token_ids.assign(request->prompt_token_ids.begin(),
                                request->prompt_token_ids.begin() + found->num_computed_tokens);
        blocks.block_ids = sequence.block_tables[0];
        if (found->restarts_block_table) {
          const auto i = static_cast<size_t>(found - step->sequences.begin());
          const NewBlocks& own = step->new_blocks[0];
          blocks.block_ids.assign(own.block_ids.begin() + own.offsets[i], own.block_ids.begin() + own.offsets[i + 1]);
        }
      }
      blocks.offsets = before.sequences.empty()
                           ? std::vector<int32_t>{0}
                           : std::vector<int32_t>{0, static_cast<int32_t>(blocks.block_ids.size())};
      fresh.execute(before);
      break;
    }
  }
  size_t num_tokens = 0;
  std::map<SequenceId, int32_t> chosen;
  for (const auto& recorded : dump.steps) {
    SchedulerOutput step = *recorded;
    step.step_id += 1000;
    step.new_sequences.clear();
    step.finished_sequences.clear();
    for (ScheduledSequence& scheduled : step.sequences) {
      scheduled.num_prompt_tokens = static_cast<int32_t>(known.at(scheduled.sequence_id)->prompt_token_ids.size());
      const auto last = static_cast<size_t>(scheduled.token_offset + scheduled.num_scheduled_tokens - 1);
      // What was on the device then is known to the host by now, or was chosen by the replayed step before.
      const bool known_now = scheduled.num_computed_tokens < scheduled.num_prompt_tokens;
      if (!scheduled.last_token_on_device || !known_now) continue;
      scheduled.last_token_on_device = false;
      step.token_ids[last] =
          known.at(scheduled.sequence_id)->prompt_token_ids[static_cast<size_t>(scheduled.num_computed_tokens)];
    }
    for (const SequenceOutput& output : fresh.execute(step).sequences) {
      if (output.token_ids.empty()) continue;
      const auto state = std::ranges::find(dump.sequences, output.sequence_id, &StepDump::SequenceState::sequence_id);
      const FakeOutcome reference = fake_reference(requests.at(state->request->request_id), state->choice_idx, 200, {});
      const size_t place = state->output_token_ids.size() + (chosen.contains(output.sequence_id) ? 1 : 0);
      EXPECT_EQ(output.token_ids[0], reference.token_ids.at(place)) << output.sequence_id;
      chosen[output.sequence_id] = output.token_ids[0];
      ++num_tokens;
    }
  }
  EXPECT_GT(num_tokens, 0u);
}

TEST_F(EngineFailure, WritesNothingWhenNoDirectoryIsGiven) {
  dump_dir_.clear();
  EngineThread& engine = make_engine(Fault::kCollectFails, 3);
  auto sink = std::make_shared<CollectingSink>();
  ASSERT_TRUE(engine.submit(make_request(1, 5, 50), sink).ok());
  expect_all_ended_once(*sink, 1, "on fire");
  EXPECT_TRUE(dump_files().empty());
  EXPECT_THAT(log_.text(), testing::Not(HasSubstr("written")));
}

TEST_F(EngineFailure, ADirectoryThatIsNotThereIsALogLine) {
  dump_dir_ += "/missing";
  EngineThread& engine = make_engine(Fault::kCollectFails, 3);
  auto sink = std::make_shared<CollectingSink>();
  ASSERT_TRUE(engine.submit(make_request(1, 5, 50), sink).ok());
  expect_all_ended_once(*sink, 1, "on fire");
  EXPECT_THAT(log_.text(), AllOf(HasSubstr("could not be written"), HasSubstr("/missing/"), HasSubstr("No such file")));
}

class EngineDeadline : public EngineFailure, public testing::WithParamInterface<std::tuple<Fault, int64_t>> {};

// Everything below happens while the engine's own thread is stuck.
TEST_P(EngineDeadline, AnswersEveryoneWhileTheDriverIsStuck) {
  const auto [fault, steps_in_flight] = GetParam();
  EngineThread& engine = make_engine(fault, 5, steps_in_flight, 0.75);
  auto sink = std::make_shared<CollectingSink>();
  const Result<RequestId> first = engine.submit(make_request(1, 5, 100, 2), sink);
  ASSERT_TRUE(first.ok());
  worker_->wait_blocked();
  // Accepted, as nobody knows yet; no turn of the engine's thread ever takes it in.
  ASSERT_TRUE(engine.submit(make_request(2, 5, 100), sink).ok());
  engine.abort(12345);
  expect_all_ended_once(*sink, 3, "0.75 s (step_timeout_s)");
  EXPECT_FALSE(engine.stats().healthy);
  EXPECT_EQ(engine.submit(make_request(3, 5, 5), sink).status().code(), StatusCode::kUnavailable);
  engine.abort(*first);
  EXPECT_TRUE(engine.check_integrity().ok());
  EXPECT_TRUE(engine.reset_prefix_cache());
  const StepDump dump = read_dump();
  ASSERT_FALSE(dump.steps.empty());
  EXPECT_THAT(dump.reason, HasSubstr("step " + std::to_string(dump.steps.front()->step_id) + " ("));
  worker_->release();
  engine_.reset();
  for (const auto& [key, choice] : sink->all()) EXPECT_EQ(choice.num_terminal_events, 1);
}

INSTANTIATE_TEST_SUITE_P(Faults, EngineDeadline,
                         testing::Combine(testing::Values(Fault::kSubmitBlocks, Fault::kCollectBlocks),
                                          testing::Values(1, 2)));

// The time-out is of a step: many of them may take longer together, and idle time counts for none.
TEST_F(EngineFailure, StepsWithinTheDeadlineAreLeftAlone) {
  EngineThread& engine = make_engine(Fault::kNone, 1'000'000, 2, 1.0, std::chrono::milliseconds(30));
  auto sink = std::make_shared<CollectingSink>();
  ASSERT_TRUE(engine.submit(make_request(1, 5, 50), sink).ok());
  ASSERT_TRUE(sink->wait_ended(1));
  std::this_thread::sleep_for(std::chrono::milliseconds(1200));
  const Result<RequestId> id = engine.submit(make_request(2, 5, 5), sink);
  ASSERT_TRUE(id.ok());
  ASSERT_TRUE(sink->wait_ended(2));
  for (const auto& [key, choice] : sink->all()) EXPECT_EQ(choice.finish_reason, FinishReason::kLength);
  EXPECT_TRUE(engine.stats().healthy);
  EXPECT_TRUE(dump_files().empty());
}

}  // namespace
}  // namespace sextant
