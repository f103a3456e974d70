#include "engine/step_replay.h"

#include <algorithm>
#include <exception>
#include <map>
#include <memory>
#include <set>
#include <utility>

#include "engine/base/clock.h"
#include "engine/engine_model.h"
#include "engine/engine_ranks.h"
#include "engine/exec/step_executor.h"
#include "engine/model/memory_model.h"
#include "engine/step_watchdog.h"

namespace sextant {
namespace {

// More blocks than this are not a step's but a damaged file's.
constexpr BlockId kMostBlocks = 1 << 24;

// A sequence before its first step of the dump.
struct Beginning {
  const StepDump::SequenceState* state = nullptr;
  int32_t num_computed = 0;
  std::vector<BlockId> blocks;
};

class Replay {
 public:
  Replay(const StepDump& dump, const ReplayOptions& options) : dump_(dump), options_(options), config_(dump.config) {
    if (!options.device.empty()) config_.device.device = options.device;
    if (!options.model.empty()) config_.model.model = options.model;
    config_.parallel = {};
  }

  Result<ReplayReport> run() {
    RETURN_IF_ERROR(find_beginnings());
    if (const std::vector<Status> errors = config_.validate(); !errors.empty()) return errors.front();
    ASSIGN_OR_RETURN(const OpenedModel opened, open_engine_model(config_));
    RETURN_IF_ERROR(check_fit(opened));
    // As many blocks as the dump names, and the null block.
    const int64_t block_bytes = config_.cache.block_size * static_cast<int64_t>(kv_bytes_per_token(
                                                               opened.config, kv_cache_dtype(config_, opened.dtype)));
    const int64_t for_context = (opened.max_model_len - 1) / config_.cache.block_size + 2;
    config_.cache.kv_cache_memory_bytes =
        std::max({config_.cache.kv_cache_memory_bytes, (max_block_ + 1) * block_bytes, for_context * block_bytes});
    progress("loading " + config_.model.model);
    EngineRanks ranks(config_, opened, nullptr);
    RETURN_IF_ERROR(ranks.open());
    RETURN_IF_ERROR(ranks.plan());
    RETURN_IF_ERROR(ranks.load());
    RETURN_IF_ERROR(ranks.measure());
    RETURN_IF_ERROR(ranks.plan());
    ReplayReport report;
    report.device = ranks[0].backend().description();
    RETURN_IF_ERROR(ranks.finish(opened.config.eos_token_ids));
    std::unique_ptr<Backend> backend;  // outlives the worker
    const std::unique_ptr<StepExecutor> executor = ranks.take(1, backend);
    StepExecutor& worker = *executor;
    StepWatchdog watchdog(std::max(0.0, options_.step_timeout_s.value_or(dump_.config.device.step_timeout_s)), [this] {
      if (options_.on_hang) options_.on_hang(doing_);
    });
    watchdog_ = &watchdog;
    if (Status filled = fill_cache(worker); !filled.ok()) {
      report.failed = true;
      report.error = doing_ + ": " + filled.message();
      return report;
    }
    run_steps(worker, report);
    return report;
  }

 private:
  void progress(const std::string& line) {
    doing_ = line;
    if (options_.on_progress) options_.on_progress(line);
  }

  Status find_beginnings() {
    if (dump_.steps.empty()) return invalid_argument("the dump holds no steps");
    std::map<SequenceId, const StepDump::SequenceState*> states;
    for (const StepDump::SequenceState& state : dump_.sequences) states[state.sequence_id] = &state;
    for (const auto& step : dump_.steps) {
      if (step->new_blocks.size() != 1) return unsupported("the dump has other cache groups than one");
      for (size_t i = 0; i < step->sequences.size(); ++i) {
        const ScheduledSequence& scheduled = step->sequences[i];
        if (beginnings_.contains(scheduled.sequence_id)) continue;
        Beginning begin;
        begin.state = states.at(scheduled.sequence_id);  // parse_step_dump has seen to it
        begin.num_computed = scheduled.num_computed_tokens;
        if (!begin.state->block_tables.empty()) begin.blocks = begin.state->block_tables[0];
        if (scheduled.restarts_block_table) {
          const NewBlocks& blocks = step->new_blocks.at(0);
          begin.blocks.assign(blocks.block_ids.begin() + blocks.offsets[i],
                              blocks.block_ids.begin() + blocks.offsets[i + 1]);
        }
        beginnings_.emplace(scheduled.sequence_id, std::move(begin));
      }
      for (const NewBlocks& blocks : step->new_blocks) note_blocks(blocks.block_ids);
    }
    for (const auto& [id, begin] : beginnings_) note_blocks(begin.blocks);
    if (max_block_ >= kMostBlocks || lowest_block_ < 0) return invalid_argument("the dump names blocks that cannot be");
    return ok_status();
  }
  void note_blocks(const std::vector<BlockId>& blocks) {
    for (const BlockId block : blocks) {
      max_block_ = std::max<int64_t>(max_block_, block);
      lowest_block_ = std::min<int64_t>(lowest_block_, block);
    }
  }

  // What the scheduler would never have made of this model.
  Status check_fit(const OpenedModel& opened) const {
    const auto check_ids = [&](const std::vector<int32_t>& ids) {
      return std::all_of(ids.begin(), ids.end(), [&](int32_t id) { return id >= 0 && id < opened.config.vocab_size; });
    };
    for (const auto& [id, begin] : beginnings_) {
      const auto known = begin.state->request->prompt_token_ids.size() + begin.state->output_token_ids.size();
      if (!check_ids(begin.state->request->prompt_token_ids) || !check_ids(begin.state->output_token_ids)) {
        return invalid_argument("sequence " + std::to_string(id) + " has token ids outside the model's vocabulary");
      }
      if (static_cast<size_t>(begin.num_computed) > known ||
          begin.blocks.size() * static_cast<size_t>(config_.cache.block_size) <
              static_cast<size_t>(begin.num_computed)) {
        return invalid_argument("sequence " + std::to_string(id) + " has computed more tokens than it has");
      }
    }
    std::map<SequenceId, size_t> num_blocks;
    for (const auto& [id, begin] : beginnings_) num_blocks[id] = begin.blocks.size();
    for (const auto& step : dump_.steps) {
      if (!check_ids(step->token_ids)) {
        return invalid_argument("step " + std::to_string(step->step_id) +
                                " has token ids outside the model's vocabulary");
      }
      if (step->num_tokens() > config_.scheduler.max_num_batched_tokens) {
        return invalid_argument("step " + std::to_string(step->step_id) +
                                " has more tokens than max_num_batched_tokens");
      }
      const NewBlocks& blocks = step->new_blocks.at(0);
      for (size_t i = 0; i < step->sequences.size(); ++i) {
        const ScheduledSequence& scheduled = step->sequences[i];
        const auto added = static_cast<size_t>(blocks.offsets[i + 1] - blocks.offsets[i]);
        size_t& count = num_blocks[scheduled.sequence_id];
        count = scheduled.restarts_block_table ? added : count + added;
        const int64_t end = int64_t{scheduled.num_computed_tokens} + scheduled.num_scheduled_tokens;
        if (end > opened.max_model_len || end > static_cast<int64_t>(count) * config_.cache.block_size) {
          return invalid_argument("step " + std::to_string(step->step_id) + ": sequence " +
                                  std::to_string(scheduled.sequence_id) + " has more tokens than context or blocks");
        }
      }
    }
    return ok_status();
  }

  Result<ModelOutput> carry_out(StepExecutor& worker, const std::shared_ptr<const SchedulerOutput>& step) {
    Result<ModelOutput> output = internal_error("not executed");
    watchdog_->enter(SteadyClock::instance().now_ns());
    try {
      const Status submitted = worker.submit(step);
      output = submitted.ok() ? worker.collect() : Result<ModelOutput>(submitted);
    } catch (const std::exception& error) {
      output = Status(StatusCode::kDeviceError, error.what());
    }
    if (!watchdog_->leave()) return Status(StatusCode::kDeviceError, "it gave no result in time");
    return output;
  }

  // Each sequence alone, its tokens in pieces of a step's size.
  Status fill_cache(StepExecutor& worker) {
    for (const auto& [id, begin] : beginnings_) {
      if (begin.num_computed == 0) continue;
      progress("filling the cache of sequence " + std::to_string(id) + " (" + std::to_string(begin.num_computed) +
               " tokens)");
      std::vector<int32_t> tokens = begin.state->request->prompt_token_ids;
      tokens.insert(tokens.end(), begin.state->output_token_ids.begin(), begin.state->output_token_ids.end());
      for (int32_t done = 0; done < begin.num_computed;) {
        const auto count = static_cast<int32_t>(
            std::min<int64_t>(begin.num_computed - done, config_.scheduler.max_num_batched_tokens));
        auto step = std::make_shared<SchedulerOutput>();
        if (done == 0) step->new_sequences.push_back({id, begin.state->choice_idx, begin.state->request});
        ScheduledSequence scheduled;
        scheduled.sequence_id = id;
        scheduled.num_computed_tokens = done;
        scheduled.num_scheduled_tokens = count;
        scheduled.num_prompt_tokens = static_cast<int32_t>(begin.state->request->prompt_token_ids.size());
        scheduled.restarts_block_table = done == 0;
        step->sequences.push_back(scheduled);
        step->token_ids.assign(tokens.begin() + done, tokens.begin() + done + count);
        step->new_blocks.resize(1);
        if (done == 0) step->new_blocks[0].block_ids = begin.blocks;
        step->new_blocks[0].offsets = {0, static_cast<int32_t>(step->new_blocks[0].block_ids.size())};
        RETURN_IF_ERROR(carry_out(worker, step).status());
        done += count;
      }
    }
    return ok_status();
  }

  // Sequences whose beginning the worker was not told of, and that no step of the dump introduces.
  void introduce(SchedulerOutput& step, std::set<SequenceId>& known) const {
    for (const NewSequence& added : step.new_sequences) known.insert(added.sequence_id);
    for (const ScheduledSequence& scheduled : step.sequences) {
      if (!known.insert(scheduled.sequence_id).second) continue;
      const StepDump::SequenceState& state = *beginnings_.at(scheduled.sequence_id).state;
      step.new_sequences.push_back({state.sequence_id, state.choice_idx, state.request});
    }
  }

  void run_steps(StepExecutor& worker, ReplayReport& report) {
    std::set<SequenceId> known;
    for (const auto& [id, begin] : beginnings_) {
      if (begin.num_computed > 0) known.insert(id);
    }
    std::map<SequenceId, int32_t> newest;  // token that each sequence was given last
    for (const auto& recorded : dump_.steps) {
      auto step = std::make_shared<SchedulerOutput>(*recorded);
      introduce(*step, known);
      // One step at a time: what was known on the device only is known here.
      for (ScheduledSequence& scheduled : step->sequences) {
        if (!scheduled.last_token_on_device) continue;
        scheduled.last_token_on_device = false;
        const auto place = static_cast<size_t>(scheduled.token_offset + scheduled.num_scheduled_tokens - 1);
        if (const auto found = newest.find(scheduled.sequence_id); found != newest.end()) {
          step->token_ids[place] = found->second;
        }
      }
      progress("step " + std::to_string(step->step_id) + " (" + std::to_string(step->sequences.size()) +
               " sequences, " + std::to_string(step->num_tokens()) + " tokens)");
      if (step->empty()) continue;
      const int64_t begin_ns = SteadyClock::instance().now_ns();
      const Result<ModelOutput> output = carry_out(worker, step);
      if (!output.ok()) {
        report.failed = true;
        report.error = doing_ + ": " + output.status().message();
        return;
      }
      ReplayReport::Step done;
      done.step_id = step->step_id;
      done.num_sequences = static_cast<int32_t>(step->sequences.size());
      done.num_tokens = step->num_tokens();
      done.seconds = static_cast<double>(SteadyClock::instance().now_ns() - begin_ns) * 1e-9;
      for (const SequenceOutput& sequence : output->sequences) {
        if (sequence.token_ids.empty()) continue;
        newest[sequence.sequence_id] = sequence.token_ids.back();
        done.token_ids.push_back(sequence.token_ids.back());
      }
      report.steps.push_back(std::move(done));
    }
  }

  const StepDump& dump_;
  const ReplayOptions& options_;
  EngineConfig config_;
  std::map<SequenceId, Beginning> beginnings_;
  int64_t max_block_ = 0;
  int64_t lowest_block_ = 0;
  std::string doing_;
  StepWatchdog* watchdog_ = nullptr;
};

}  // namespace

Result<ReplayReport> replay_steps(const StepDump& dump, const ReplayOptions& options) {
  return Replay(dump, options).run();
}

}  // namespace sextant
