#include "engine/sim_engine.h"

#include <time.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "engine/engine_thread.h"
#include "engine/exec/step_executor.h"
#include "engine/sim/virtual_time.h"

namespace sextant {
namespace {

class RealClock final : public SimClock {
 public:
  int64_t now_ns() const override { return SteadyClock::instance().now_ns(); }
  // steady_clock is CLOCK_MONOTONIC.
  void wait_until(int64_t ns) override {
    const timespec until = {ns / 1'000'000'000, ns % 1'000'000'000};
    while (now_ns() < ns && clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, nullptr) != 0) {
    }
  }
};

class SimWorker final : public StepExecutor {
 public:
  SimWorker(sim::SimDevice::Options options, std::shared_ptr<SimClock> clock)
      : device_(std::move(options)), clock_(std::move(clock)) {}

  Status submit(std::shared_ptr<const SchedulerOutput> step) override {
    device_.submit(std::move(step), clock_->now_ns());
    return ok_status();
  }
  Result<ModelOutput> collect() override {
    const int64_t finish_ns = device_.next_finish_ns();
    if (clock_->now_ns() < finish_ns) clock_->wait_until(finish_ns);
    return device_.collect(std::max(finish_ns, clock_->now_ns()));
  }
  double device_busy_s() const override { return device_.busy_s(); }

 private:
  sim::SimDevice device_;
  std::shared_ptr<SimClock> clock_;
};

}  // namespace

Result<std::unique_ptr<Engine>> make_sim_engine(SimEngineOptions options) {
  const EngineConfig& config = options.config;
  if (config.model.max_model_len < 2) return invalid_argument("max_model_len must be given", "max_model_len");
  constexpr int64_t kMaxBlocks = std::numeric_limits<int32_t>::max() - 1;
  if (options.num_blocks < 1 || options.num_blocks > kMaxBlocks) {
    return invalid_argument("the KV cache must have between 1 and " + std::to_string(kMaxBlocks) + " blocks, not " +
                            std::to_string(options.num_blocks));
  }
  ASSIGN_OR_RETURN(const int64_t steps_in_flight, sim::steps_in_flight(config.scheduler, options.timing));
  if (options.clock == nullptr) options.clock = std::make_shared<RealClock>();

  EngineThread::Parts parts;
  EngineInfo& info = parts.info;
  info = std::move(options.info);
  info.model_path = config.model.model;
  info.max_model_len = config.model.max_model_len;
  info.block_size = static_cast<int32_t>(config.cache.block_size);
  info.num_blocks = static_cast<int32_t>(options.num_blocks);
  info.kv_cache_bytes = options.num_blocks * info.block_size * options.kv_bytes_per_token;

  parts.scheduler = std::make_unique<Scheduler>(sim::scheduler_options({.scheduler = config.scheduler,
                                                                        .cache = config.cache,
                                                                        .max_model_len = info.max_model_len,
                                                                        .num_blocks = options.num_blocks,
                                                                        .eos_token_ids = info.eos_token_ids},
                                                                       steps_in_flight));
  parts.worker = std::make_unique<SimWorker>(
      sim::SimDevice::Options{options.timing, std::move(options.choose_text), info.eos_token_ids}, options.clock);
  parts.config = config.scheduler;
  parts.config.max_steps_in_flight = steps_in_flight;
  parts.on_step = std::move(options.on_step);
  parts.engine_config = config;
  parts.clock = options.clock;
  return std::unique_ptr<Engine>(std::make_unique<EngineThread>(std::move(parts)));
}

}  // namespace sextant
