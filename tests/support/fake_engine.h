// FakeEngine: an Engine without a model: a test says what comes of each request, and reads back what was
// asked. One thread.
#pragma once

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/base/clock.h"
#include "engine/engine.h"

namespace sextant::testing_support {

class FakeEngine final : public Engine {
 public:
  FakeEngine() {
    clock_.advance_ns(1'000'000'000);
    info_.vocab_size = 259;
    info_.max_model_len = 256;
    info_.eos_token_ids = {257};
  }

  // Every request ever taken, by id.
  std::map<RequestId, Request> requests;
  std::vector<std::string> calls;  // "abort 1", "finish 1/0", "pause 1/0", "resume 1/0"
  std::vector<Status> refusals;    // what the next submissions get, ok for an acceptance; empty: all are accepted

  size_t count(const std::string& call) const {
    return static_cast<size_t>(std::count(calls.begin(), calls.end(), call));
  }
  EngineInfo& mutable_info() { return info_; }
  ManualClock& manual_clock() { return clock_; }

  // One step's events, to each sink its own.
  void deliver(std::vector<OutputEvent> events) {
    CHECK(!events.empty());
    std::vector<std::pair<OutputSink*, std::vector<OutputEvent>>> deliveries;
    for (OutputEvent& event : events) {
      OutputSink* sink = sinks_.at(event.request_id).get();
      auto found = std::find_if(deliveries.begin(), deliveries.end(), [&](const auto& d) { return d.first == sink; });
      if (found == deliveries.end()) found = deliveries.insert(found, {sink, {}});
      found->second.push_back(std::move(event));
    }
    for (auto& [sink, share] : deliveries) sink->deliver(std::move(share));
  }
  // An event with plausible times.
  OutputEvent event(RequestId id, int32_t choice_idx, std::vector<int32_t> token_ids,
                    std::optional<FinishReason> finish = std::nullopt) {
    OutputEvent event;
    event.request_id = id;
    event.choice_idx = choice_idx;
    event.token_ids = std::move(token_ids);
    event.finish_reason = finish;
    event.queued_ns = 1'000'000'000;
    event.first_scheduled_ns = 1'100'000'000;
    event.step_end_ns = clock_.now_ns();
    return event;
  }
  // The same with a byte per token (see ByteTokenizer), delivered alone.
  void say(RequestId id, int32_t choice_idx, const std::string& text,
           std::optional<FinishReason> finish = std::nullopt) {
    deliver({event(id, choice_idx, bytes(text), finish)});
  }
  // The model's own end: the eos token, which ends the choice.
  void end(RequestId id, int32_t choice_idx, int32_t stop_token_id = 257) {
    OutputEvent last = event(id, choice_idx, {stop_token_id}, FinishReason::kStop);
    last.stop_token_id = stop_token_id;
    deliver({std::move(last)});
  }
  static std::vector<int32_t> bytes(const std::string& text) {
    std::vector<int32_t> ids;
    for (const char c : text) ids.push_back(static_cast<unsigned char>(c));
    return ids;
  }

  const EngineInfo& info() const override { return info_; }
  const Clock& clock() const override { return clock_; }
  Result<RequestId> submit(Request request, std::shared_ptr<OutputSink> sink) override {
    if (!refusals.empty()) {
      const Status refusal = refusals.front();
      refusals.erase(refusals.begin());
      if (!refusal.ok()) return refusal;
    }
    const RequestId id = ++last_id_;
    requests.emplace(id, std::move(request));
    sinks_.emplace(id, std::move(sink));
    return id;
  }
  void abort(RequestId id) override { calls.push_back("abort " + std::to_string(id)); }
  void finish(RequestId id, int32_t choice_idx, FinishReason) override { note("finish", id, choice_idx); }
  void pause(RequestId id, int32_t choice_idx) override { note("pause", id, choice_idx); }
  void resume(RequestId id, int32_t choice_idx) override { note("resume", id, choice_idx); }
  EngineStats stats() const override { return {}; }
  void begin_drain() override {}
  bool wait_drained(double) override { return true; }
  Status check_integrity() override { return ok_status(); }
  bool reset_prefix_cache() override { return true; }

 private:
  void note(const char* what, RequestId id, int32_t choice_idx) {
    calls.push_back(std::string(what) + " " + std::to_string(id) + "/" + std::to_string(choice_idx));
  }

  EngineInfo info_;
  ManualClock clock_;
  RequestId last_id_ = 0;
  std::map<RequestId, std::shared_ptr<OutputSink>> sinks_;
};

}  // namespace sextant::testing_support
