// An OutputSink that keeps everything and lets a test wait for the end of its requests.
#pragma once

#include <chrono>
#include <condition_variable>
#include <map>
#include <mutex>
#include <utility>
#include <vector>

#include "engine/engine.h"

namespace sextant::testing_support {

class CollectingSink final : public OutputSink {
 public:
  struct Choice {
    std::vector<int32_t> token_ids;
    std::vector<PositionLogprobs> logprobs;
    std::vector<PositionLogprobs> prompt_logprobs;
    std::optional<FinishReason> finish_reason;
    OutputEvent last;
    int32_t num_terminal_events = 0;
    int32_t num_events_after_end = 0;
    int32_t num_cached_tokens = 0;
  };

  void deliver(std::vector<OutputEvent> events) override {
    {
      std::lock_guard lock(mutex_);
      for (OutputEvent& event : events) {
        Choice& choice = choices_[{event.request_id, event.choice_idx}];
        if (choice.finish_reason) ++choice.num_events_after_end;
        choice.token_ids.insert(choice.token_ids.end(), event.token_ids.begin(), event.token_ids.end());
        choice.logprobs.insert(choice.logprobs.end(), event.logprobs.begin(), event.logprobs.end());
        choice.prompt_logprobs.insert(choice.prompt_logprobs.end(), event.prompt_logprobs.begin(),
                                      event.prompt_logprobs.end());
        choice.num_cached_tokens = std::max(choice.num_cached_tokens, event.num_cached_tokens);
        if (event.finish_reason) {
          choice.finish_reason = event.finish_reason;
          ++choice.num_terminal_events;
          ++num_ended_;
        }
        choice.last = std::move(event);
      }
    }
    changed_.notify_all();
  }

  // Waits until `count` choices have ended; false after `most`.
  bool wait_ended(size_t count, std::chrono::seconds most = std::chrono::seconds(60)) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, most, [&] { return num_ended_ >= count; });
  }
  // Waits until a choice has that many tokens or ended.
  bool wait_tokens(RequestId request_id, size_t count) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(60), [&] {
      const Choice& choice = choices_[{request_id, 0}];
      return choice.token_ids.size() >= count || choice.finish_reason.has_value();
    });
  }
  Choice choice(RequestId request_id, int32_t choice_idx = 0) {
    std::lock_guard lock(mutex_);
    return choices_[{request_id, choice_idx}];
  }
  std::map<std::pair<RequestId, int32_t>, Choice> all() {
    std::lock_guard lock(mutex_);
    return choices_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::pair<RequestId, int32_t>, Choice> choices_;
  size_t num_ended_ = 0;
};

}  // namespace sextant::testing_support
