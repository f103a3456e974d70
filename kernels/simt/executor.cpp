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

// Seed 0 stays on one device while it has work, because opening another's memory takes longer than a small kernel. A random order tends
// to stay on one stream, so that streams overtake one another by more than a step.
// Null when nothing can run now: while one thread runs work another may only run host functions, so that threads that wait for
// different devices do not have their memory opened in turn.
WorkPtr Executor::pick() {
  if (busy_) {
    const auto host_function =
        std::ranges::find_if(ready_, [](const WorkPtr& item) { return item->work->is_host_function; });
    return host_function == ready_.end() ? nullptr : take(static_cast<size_t>(host_function - ready_.begin()));
  }
  if (ready_.empty()) return nullptr;
  size_t chosen = 0;
  if (seed_ == 0) {
    const auto rank = [this](const WorkPtr& item) { return std::pair(item->work->devices != last_devices_, item->id); };
    for (size_t i = 1; i < ready_.size(); ++i) {
      if (rank(ready_[i]) < rank(ready_[chosen])) chosen = i;
    }
    last_devices_ = ready_[chosen]->work->devices;
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
  return take(chosen);
}

WorkPtr Executor::take(size_t idx) {
  WorkPtr item = std::move(ready_[idx]);
  ready_[idx] = std::move(ready_.back());
  ready_.pop_back();
  return item;
}

void Executor::execute(Lock& lock, const WorkPtr& item) {
  const Work& work = *item->work;
  ++num_running_;
  if (!work.is_host_function) busy_ = true;
  lock.unlock();
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
  if (!work.is_host_function) busy_ = false;
  changed_.notify_all();  // also when it waits, or was completed meanwhile by an abort
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
    if (const WorkPtr item = pick(); item != nullptr) {
      execute(lock, item);
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
  const WorkPtr item = pick();
  if (item == nullptr) return;
  ++num_drivers_;
  execute(lock, item);
  leave();
}

void Executor::drive_ready(Lock& lock) {
  if (ready_.empty()) return;
  ++num_drivers_;
  while (!ready_.empty()) {
    if (const WorkPtr item = pick(); item != nullptr) {
      execute(lock, item);
    } else {
      changed_.wait(lock);
    }
  }
  leave();
}

void Executor::forget_all() {
  ready_.clear();
  pending_of_device_.clear();
  num_pending_ = 0;
}

}  // namespace sextant::simt
