#include "kernels/simt/executor.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <utility>

namespace sextant::simt {

thread_local bool t_in_host_function = false;

namespace {

// Work that waits for another thread (a rank's part of a collective) for longer than this is a deadlock.
std::chrono::seconds patience() {
  const char* text = std::getenv("SEXTANT_SIMT_PATIENCE_S");
  return std::chrono::seconds(text == nullptr ? 60 : std::strtol(text, nullptr, 10));
}

}  // namespace

void Executor::set_seed(uint64_t seed) {
  seed_ = seed;
  random_ = seed;
  favourite_ = nullptr;
}

WorkPtr Executor::add(std::shared_ptr<const Work> work, const void* lane, const std::vector<WorkPtr>& after) {
  auto item = std::make_shared<WorkItem>();
  const auto device = static_cast<size_t>(work->device);
  item->work = std::move(work);
  item->id = next_id_++;
  item->lane = lane;
  if (pending_of_device_.size() <= device) pending_of_device_.resize(device + 1);
  ++pending_of_device_[device];
  ++num_pending_;
  for (const WorkPtr& before : after) {
    if (before == nullptr || before->done) continue;
    before->dependents.push_back(item);
    ++item->missing;
  }
  if (item->missing == 0) {
    ready_.push_back(item);
    changed_.notify_all();
  }
  return item;
}

void Executor::complete(const WorkPtr& item) {
  if (item->done) return;
  --num_pending_;
  ++num_executed_;
  --pending_of_device_[static_cast<size_t>(item->work->device)];
  item->done = true;
  item->finished = std::chrono::steady_clock::now();
  for (const WorkPtr& dependent : item->dependents) {
    if (--dependent->missing == 0) ready_.push_back(dependent);
  }
  item->dependents.clear();
  if (item->on_done) std::exchange(item->on_done, {})();
  changed_.notify_all();
}

void Executor::resume(const WorkPtr& item) {
  if (item->done) return;
  ready_.push_back(item);
  changed_.notify_all();
}

// A random order tends to stay on one stream, so that streams overtake one another by more than a step.
WorkPtr Executor::pick() {
  size_t chosen = 0;
  if (seed_ == 0) {
    for (size_t i = 1; i < ready_.size(); ++i) {
      if (ready_[i]->id < ready_[chosen]->id) chosen = i;
    }
  } else {
    random_ ^= random_ << 13;
    random_ ^= random_ >> 7;
    random_ ^= random_ << 17;
    chosen = (random_ >> 8) % ready_.size();
    if ((random_ & 7u) != 0) {
      for (size_t i = 0; i < ready_.size(); ++i) {
        if (ready_[i]->lane == favourite_) chosen = i;
      }
    }
    favourite_ = ready_[chosen]->lane;
  }
  WorkPtr item = std::move(ready_[chosen]);
  ready_[chosen] = std::move(ready_.back());
  ready_.pop_back();
  return item;
}

void Executor::execute(Lock& lock, const WorkPtr& item) {
  ++num_running_;
  lock.unlock();
  const Work& work = *item->work;
  Outcome outcome;
  if ((work.run || work.meet) && !hooks_.has_failed(work.device)) {
    if (work.is_host_function) {
      {
        const std::lock_guard running(running_);
        hooks_.open(0);
      }
      t_in_host_function = true;
      outcome = work.run();
      t_in_host_function = false;
    } else {
      const std::lock_guard running(running_);
      hooks_.open(work.devices);
      outcome = work.run ? work.run() : work.meet(item);
      if (outcome.error == 0 && !outcome.waits) {
        Outcome checked = hooks_.check(work);
        outcome.error = checked.error;
        outcome.report = std::move(checked.report);
      }
    }
    if (outcome.error != 0) hooks_.failed(work.device, outcome);
  }
  lock.lock();
  --num_running_;
  if (!outcome.waits) complete(item);
  for (const WorkPtr& waiting : outcome.completes) complete(waiting);
}

void Executor::leave() {
  if (--num_drivers_ > 0) return;
  const std::lock_guard running(running_);  // nobody runs anything: not waited for
  hooks_.open(0);
}

bool Executor::drive(Lock& lock, const std::function<bool()>& done) {
  if (done()) return true;
  ++num_drivers_;
  auto idle_since = std::chrono::steady_clock::now();
  uint64_t seen = num_executed_;
  bool stuck = false;
  while (!done()) {
    if (!ready_.empty()) {
      execute(lock, pick());
      continue;
    }
    changed_.wait_for(lock, std::chrono::milliseconds(100));
    const auto now = std::chrono::steady_clock::now();
    if (num_executed_ != seen || num_running_ > 0 || !ready_.empty()) {
      idle_since = now;
      seen = num_executed_;
    } else if (now - idle_since > patience()) {
      stuck = true;
      break;
    }
  }
  leave();
  return !stuck;
}

bool Executor::drive_until_done(Lock& lock, const WorkPtr& item) {
  return item == nullptr || drive(lock, [&] { return item->done; });
}

bool Executor::drive_device(Lock& lock, int device) {
  const auto index = static_cast<size_t>(device);
  return drive(lock, [&] { return index >= pending_of_device_.size() || pending_of_device_[index] == 0; });
}

void Executor::drive_one(Lock& lock) {
  if (ready_.empty()) return;
  ++num_drivers_;
  execute(lock, pick());
  leave();
}

void Executor::drive_ready(Lock& lock) {
  if (ready_.empty()) return;
  ++num_drivers_;
  while (!ready_.empty()) execute(lock, pick());
  leave();
}

void Executor::forget_all() {
  ready_.clear();
  pending_of_device_.clear();
  num_pending_ = 0;
}

}  // namespace sextant::simt
