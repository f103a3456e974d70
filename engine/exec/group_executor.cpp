#include "engine/exec/group_executor.h"

#include <algorithm>
#include <exception>
#include <utility>

#include "engine/base/check.h"
#include "engine/base/clock.h"

namespace sextant {
namespace {

int64_t now_ns() { return SteadyClock::instance().now_ns(); }

// Steps whose results a device may hold while the host goes on: those of cuda_step_inputs, less one that is written.
constexpr size_t kDeviceSteps = 2;

}  // namespace

// A rank of this process. Its thread alone touches what is not atomic or under the mutex.
struct GroupExecutor::LocalRank {
  explicit LocalRank(Rank rank_) : rank(std::move(rank_)) {}

  Rank rank;
  std::atomic<int64_t> num_queued{0};  // steps dispatched to its thread and not begun
  size_t num_in_flight = 0;            // steps submitted and not collected
  bool has_failed = false;  // its worker is asked nothing more, also while the group still looks for who is at fault
  std::atomic<uint64_t> steps_begun{0}, steps_done{0};
  std::atomic<float> step_ms{0};
  std::atomic<int64_t> waits_for_device_since_ns{0};  // 0: it does not

  double inside_s() const {
    double seconds = 0;
    for (const auto& communicator : rank.parts.communicators) seconds += communicator->inside_s();
    return seconds;
  }
};

GroupExecutor::GroupExecutor(std::vector<std::unique_ptr<RankThread>> threads, std::vector<Rank> ranks, Options options)
    : options_(std::move(options)), threads_(std::move(threads)) {
  CHECK(!ranks.empty() && threads_.size() == ranks.size());
  for (Rank& rank : ranks) ranks_.push_back(std::make_unique<LocalRank>(std::move(rank)));
  options_.group->set_progress_source([this] { return progress(); });
  options_.group->set_failure_handler([this](const std::string& message) { on_group_failure(message); });
}

GroupExecutor::~GroupExecutor() {
  // The others end theirs at the same time: a communicator's end may be a collective.
  options_.group->leave("it has ended");
  options_.group->set_progress_source({});
  options_.group->set_failure_handler({});
  for (size_t i = 0; i < ranks_.size(); ++i) {
    threads_[i]->post([rank = &ranks_[i]->rank.parts] {
      rank->worker.reset();
      if (rank->backend) static_cast<void>(rank->backend->synchronize());
      rank->communicators.clear();
      rank->backend.reset();
    });
  }
  threads_.clear();  // joins
}

void GroupExecutor::set_failure_handler(std::function<void(const std::string&)> handler) {
  const std::lock_guard lock(handler_mutex_);
  handler_ = std::move(handler);
  const Status status = options_.group->status();
  if (handler_ && !status.ok()) handler_(status.message());
}

void GroupExecutor::on_group_failure(const std::string& message) {
  for (const auto& rank : ranks_) {
    for (const auto& communicator : rank->rank.parts.communicators) communicator->abort(message);
  }
  {
    const std::lock_guard lock(mutex_);
    failed_ = true;
  }
  changed_.notify_all();
  const std::lock_guard lock(handler_mutex_);
  if (handler_) handler_(message);
}

void GroupExecutor::fail(LocalRank& rank, const Status& error) {
  rank.has_failed = true;
  // One of many that were aborted, or the first to know.
  if (options_.group->status().ok()) {
    options_.group->fail("rank " + std::to_string(rank.rank.world_rank) + " (node " +
                         std::to_string(options_.group->node_rank()) + "): " + error.message());
  }
}

Status GroupExecutor::submit(std::shared_ptr<const SchedulerOutput> step) {
  RETURN_IF_ERROR(options_.group->status());
  if (options_.group->num_nodes() > 1) RETURN_IF_ERROR(options_.group->send_step(serialize_step(*step)));
  dispatch(step);
  return ok_status();
}

void GroupExecutor::dispatch(const std::shared_ptr<const SchedulerOutput>& step) {
  for (size_t i = 0; i < ranks_.size(); ++i) {
    ++ranks_[i]->num_queued;
    threads_[i]->post([this, i, step] { run_step(*ranks_[i], step); });
  }
}

// Steps of a rank that may stay uncollected when it has begun one.
size_t GroupExecutor::num_left_in_flight(const LocalRank& rank) const {
  const Backend& backend = *rank.rank.parts.backend;
  if (!backend.samples()) return 0;  // the host's: computed already
  const bool has_next = rank.num_queued.load() > 0;
  if (rank.rank.gives_output) {
    // Without other stages the engine says when it must have the results: it has given all steps by then.
    if (options_.num_stages == 1) return static_cast<size_t>(options_.steps_in_flight);
    return has_next ? 1 : 0;
  }
  // Nobody waits for these, but an emulated device works only while its host waits for it.
  return backend.uses_host_memory() && !has_next ? 0 : kDeviceSteps;
}

void GroupExecutor::run_step(LocalRank& rank, const std::shared_ptr<const SchedulerOutput>& step) {
  --rank.num_queued;
  if (rank.has_failed || !options_.group->status().ok()) return;
  const int64_t begin_ns = now_ns();
  const double inside_s = rank.inside_s();
  Status status;
  try {
    if (!step->empty()) ++rank.steps_begun;
    status = rank.rank.parts.worker->submit(step);
    if (status.ok() && !step->empty()) ++rank.num_in_flight;
    while (status.ok() && rank.num_in_flight > num_left_in_flight(rank)) status = collect_one(rank);
  } catch (const std::exception& error) {
    status = internal_error(error.what());
  }
  if (!step->empty()) {
    const double busy_s = static_cast<double>(now_ns() - begin_ns) * 1e-9 - (rank.inside_s() - inside_s);
    const float before = rank.step_ms.load();
    const auto now = static_cast<float>(busy_s * 1e3);
    rank.step_ms.store(before == 0 ? now : before + 0.2f * (now - before));
  }
  if (!status.ok()) fail(rank, status);
}

void GroupExecutor::run_collect(LocalRank& rank) {
  Status status = options_.group->status();
  if (rank.has_failed || !status.ok()) return;
  try {
    if (rank.num_in_flight > 0) status = collect_one(rank);
  } catch (const std::exception& error) {
    status = internal_error(error.what());
  }
  if (!status.ok()) fail(rank, status);
}

Status GroupExecutor::collect_one(LocalRank& rank) {
  if (rank.rank.parts.backend->samples()) rank.waits_for_device_since_ns.store(now_ns());
  Result<ModelOutput> output = rank.rank.parts.worker->collect();
  rank.waits_for_device_since_ns.store(0);
  if (!output.ok()) return output.status();
  --rank.num_in_flight;
  ++rank.steps_done;
  if (!rank.rank.gives_output) return ok_status();
  device_busy_s_.store(rank.rank.parts.worker->device_busy_s());
  if (!options_.group->is_leader()) return options_.group->send_output(serialize_output(*output));
  {
    const std::lock_guard lock(mutex_);
    outputs_.push_back(std::move(*output));
  }
  changed_.notify_all();
  return ok_status();
}

Result<ModelOutput> GroupExecutor::collect() {
  if (!options_.output_is_here) {
    ASSIGN_OR_RETURN(const std::string bytes, options_.group->receive_output());
    return parse_output(bytes);
  }
  for (size_t i = 0; i < ranks_.size() && options_.num_stages == 1; ++i) {
    if (!ranks_[i]->rank.gives_output || !ranks_[i]->rank.parts.backend->samples()) continue;
    threads_[i]->post([this, i] { run_collect(*ranks_[i]); });
  }
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return !outputs_.empty() || failed_; });
  if (outputs_.empty()) return options_.group->status();
  ModelOutput output = std::move(outputs_.front());
  outputs_.pop_front();
  return output;
}

Status GroupExecutor::follow() {
  while (true) {
    ASSIGN_OR_RETURN(const std::optional<std::string> bytes, options_.group->receive_step());
    if (!bytes) return ok_status();
    const auto step = parse_step(*bytes, options_.bounds);
    if (!step.ok()) {
      options_.group->fail("node " + std::to_string(options_.group->node_rank()) + ": " + step.status().message());
      return options_.group->status();
    }
    dispatch(*step);
  }
}

CollectiveCounters GroupExecutor::collective_counters() const {
  CollectiveCounters all;
  for (const auto& rank : ranks_) {
    for (const auto& communicator : rank->rank.parts.communicators) all.add(communicator->counters());
  }
  return all;
}

Result<std::vector<RankProgress>> GroupExecutor::progress() {
  std::vector<RankProgress> all;
  for (const auto& local : ranks_) {
    const Rank& rank = local->rank;
    RankProgress of_rank;
    of_rank.rank = rank.world_rank;
    of_rank.steps_begun = local->steps_begun.load();
    of_rank.steps_done = local->steps_done.load();
    of_rank.step_ms = local->step_ms.load();
    const auto add_members = [&](size_t group) {
      for (const int32_t member : rank.members[group]) {
        if (member != rank.world_rank) of_rank.waits_for.push_back(member);
      }
    };
    for (size_t i = 0; i < rank.parts.communicators.size(); ++i) {
      Communicator& communicator = *rank.parts.communicators[i];
      RETURN_IF_ERROR(communicator.status());
      const CollectiveCounters counters = communicator.counters();
      for (const auto& kind : counters.kinds) of_rank.num_calls += kind.calls;
      const std::optional<Communicator::Inside> inside = communicator.inside();
      if (!inside) continue;
      of_rank.inside_ms = static_cast<int64_t>(inside->seconds * 1e3);
      of_rank.call = inside->call.describe();
      const bool is_pair = inside->call.kind == CollectiveKind::kSend || inside->call.kind == CollectiveKind::kReceive;
      if (is_pair) {
        of_rank.waits_for = {rank.members[i][static_cast<size_t>(inside->call.peer)]};
      } else {
        add_members(i);
      }
    }
    const int64_t since_ns = local->waits_for_device_since_ns.load();
    if (of_rank.inside_ms < 0 && since_ns != 0 && !rank.parts.communicators.empty()) {
      of_rank.inside_ms = (now_ns() - since_ns) / 1'000'000;
      of_rank.call = "step " + std::to_string(of_rank.steps_done + 1) + " of its device";
      for (size_t i = 0; i < rank.parts.communicators.size(); ++i) add_members(i);
    }
    all.push_back(std::move(of_rank));
  }
  return all;
}

}  // namespace sextant
