// raw_engine: one model file behind the engine's public face, without HTTP or text, driven line by line from stdin: for
// bench/peers, which runs other engines in the same way. One JSON object per line on stdout:
//   prefill N LENGTH          N random prompts of LENGTH tokens at once, one token each: seconds until the last ended
//   decode N CONTEXT TOKENS   N sequences of CONTEXT tokens decode together: the median step's seconds, and mean_seconds
//   load N LENGTH TOKENS COUNT  COUNT requests of LENGTH random tokens, N at once, TOKENS answered by each: seconds until the last
//                             ended, and ttft_s, the median time to a first token: what `sextant bench serve` asks of a server
// Usage: raw_engine MODEL.gguf
#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <iostream>
#include <memory>
#include <mutex>
#include <numeric>
#include <random>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include <nlohmann/json.hpp>

#include "engine/base/clock.h"
#include "engine/engine.h"

namespace sextant::bench {
namespace {

class EndSink final : public OutputSink {
 public:
  void deliver(std::vector<OutputEvent> events) override {
    const std::lock_guard lock(mutex_);
    for (const OutputEvent& event : events) {
      if (!event.finish_reason) continue;
      ++num_ended_;
      if (*event.finish_reason == FinishReason::kError) error_ = event.error.empty() ? "failed" : event.error;
    }
    changed_.notify_all();
  }
  std::string wait(size_t count) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return num_ended_ >= count || !error_.empty(); });
    return error_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  size_t num_ended_ = 0;
  std::string error_;
};

// A closed loop of requests; notes when each got its first token.
class LoadSink final : public OutputSink {
 public:
  explicit LoadSink(int64_t begin_ns) : begin_ns_(begin_ns) {}
  void deliver(std::vector<OutputEvent> events) override {
    const std::lock_guard lock(mutex_);
    for (const OutputEvent& event : events) {
      if (!event.token_ids.empty() && first_ns_ == 0) first_ns_ = SteadyClock::instance().now_ns();
      if (!event.finish_reason) continue;
      ended_ = true;
      if (*event.finish_reason == FinishReason::kError) error_ = event.error.empty() ? "failed" : event.error;
    }
    changed_.notify_all();
  }
  // The error, or nothing.
  std::string wait() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return ended_; });
    return error_;
  }
  double ttft_s() const { return static_cast<double>(first_ns_ - begin_ns_) * 1e-9; }

 private:
  const int64_t begin_ns_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool ended_ = false;
  std::string error_;
  int64_t first_ns_ = 0;
};

class RawEngine {
 public:
  int run(const std::string& model) {
    EngineConfig config;
    config.model.model = model;
    config.model.max_model_len = 4608;
    config.cache.enable_prefix_caching = false;
    config.scheduler.max_num_seqs = 64;
    config.device.device = "cpu";
    Engine::Options options{.config = config, .eos_token_ids = {}, .on_step = {}, .on_memory_plan = {}};
    options.on_step = [this](const StepInfo& step) {
      const std::lock_guard lock(mutex_);
      steps_.push_back(step);
    };
    const int64_t begin_ns = SteadyClock::instance().now_ns();
    Result<std::unique_ptr<Engine>> engine = Engine::create(std::move(options));
    if (!engine.ok()) {
      std::cerr << "raw_engine: " << engine.status().message() << "\n";
      return 1;
    }
    engine_ = std::move(engine).value();
    print({{"device", engine_->info().device},
           {"weight_bytes", engine_->info().weight_bytes},
           {"ready_s", seconds_since(begin_ns)}});
    for (std::string line; std::getline(std::cin, line);) {
      std::istringstream words(line);
      std::string verb;
      int64_t count = 0, length = 0, tokens = 1, total = 1;
      words >> verb >> count >> length;
      if (verb == "decode" || verb == "load") words >> tokens;
      if (verb == "load") words >> total;
      if (!words || (verb != "prefill" && verb != "decode" && verb != "load") || count < 1 || length < 1 ||
          tokens < 1 || total < 1) {
        std::cerr << "raw_engine: not a case: " << line << "\n";
        return 2;
      }
      if (verb == "load") {
        if (!load(count, length, tokens, total)) return 1;
        continue;
      }
      if (!measure(verb == "decode", count, length, tokens)) return 1;
    }
    return 0;
  }

 private:
  static double seconds_since(int64_t begin_ns) {
    return static_cast<double>(SteadyClock::instance().now_ns() - begin_ns) * 1e-9;
  }
  static void print(const nlohmann::json& object) { std::cout << object.dump() << std::endl; }

  Request request(int64_t length, int64_t max_tokens) {
    Request request;
    for (int64_t i = 0; i < length; ++i) {
      request.prompt_token_ids.push_back(
          static_cast<int32_t>(random_() % static_cast<uint64_t>(engine_->info().vocab_size)));
    }
    request.sampling.max_tokens = max_tokens;
    request.sampling.temperature = 0;
    request.sampling.ignore_eos = true;
    return request;
  }

  // One thread per place in the closed loop: it waits, then sends the next.
  bool load(int64_t at_once, int64_t length, int64_t tokens, int64_t total) {
    std::vector<Request> requests;
    for (int64_t i = 0; i < total; ++i) requests.push_back(request(length, tokens));
    std::atomic<int64_t> next{0};
    std::atomic<bool> failed{false};
    std::vector<double> ttfts(static_cast<size_t>(total));
    const int64_t begin_ns = SteadyClock::instance().now_ns();
    {
      std::vector<std::jthread> senders;
      for (int64_t sender = 0; sender < std::min(at_once, total); ++sender) {
        senders.emplace_back([&] {
          for (int64_t i = next++; i < total && !failed; i = next++) {
            const auto sink = std::make_shared<LoadSink>(SteadyClock::instance().now_ns());
            const auto id = engine_->submit(std::move(requests[static_cast<size_t>(i)]), sink);
            const std::string error = id.ok() ? sink->wait() : std::string(id.status().message());
            if (!error.empty()) {
              std::cerr << "raw_engine: " + error + "\n";
              failed = true;
              return;
            }
            ttfts[static_cast<size_t>(i)] = sink->ttft_s();
          }
        });
      }
    }
    if (failed) return false;
    const double seconds = seconds_since(begin_ns);
    std::nth_element(ttfts.begin(), ttfts.begin() + static_cast<std::ptrdiff_t>(ttfts.size() / 2), ttfts.end());
    print({{"seconds", seconds}, {"ttft_s", ttfts[ttfts.size() / 2]}});
    return true;
  }

  bool measure(bool decode, int64_t count, int64_t length, int64_t tokens) {
    const auto sink = std::make_shared<EndSink>();
    // Sequences that were prefilled early decode until the late ones are there: as many steps more.
    const int64_t max_tokens = decode ? tokens + count * length / 512 + 2 : 1;
    std::vector<Request> requests;
    for (int64_t i = 0; i < count; ++i) requests.push_back(request(length, max_tokens));
    {
      const std::lock_guard lock(mutex_);
      steps_.clear();
    }
    const int64_t begin_ns = SteadyClock::instance().now_ns();
    for (Request& request : requests) {
      if (const auto id = engine_->submit(std::move(request), sink); !id.ok()) {
        std::cerr << "raw_engine: " << id.status().message() << "\n";
        return false;
      }
    }
    if (const std::string error = sink->wait(static_cast<size_t>(count)); !error.empty()) {
      std::cerr << "raw_engine: " << error << "\n";
      return false;
    }
    double seconds = seconds_since(begin_ns), mean = seconds;
    if (decode) {
      std::vector<double> steps;
      const std::lock_guard lock(mutex_);
      for (const StepInfo& step : steps_) {
        if (step.num_sequences == count && step.num_tokens == count) steps.push_back(step.schedule_s + step.execute_s);
      }
      if (steps.empty()) {
        std::cerr << "raw_engine: no step held all " << count << " sequences\n";
        return false;
      }
      mean = std::accumulate(steps.begin(), steps.end(), 0.0) / static_cast<double>(steps.size());
      std::nth_element(steps.begin(), steps.begin() + static_cast<std::ptrdiff_t>(steps.size() / 2), steps.end());
      seconds = steps[steps.size() / 2];
    }
    print({{"seconds", seconds}, {"mean_seconds", mean}});
    return true;
  }

  std::mt19937_64 random_{1};
  std::mutex mutex_;
  std::vector<StepInfo> steps_;
  std::unique_ptr<Engine> engine_;  // last: its thread calls on_step
};

}  // namespace
}  // namespace sextant::bench

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: raw_engine MODEL.gguf < CASES\n";
    return 2;
  }
  return sextant::bench::RawEngine().run(argv[1]);
}
