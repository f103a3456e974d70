#include "engine/sim/sim_device.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <utility>

#include "engine/base/check.h"

namespace sextant::sim {
namespace {

// Constant times: new requests join the batch between two steps, so no step waits longer than this.
constexpr int64_t kMaxConstantWaitNs = 100'000'000;
// Nor shorter, but for what is due: with ttft=0 the steps would follow each other without end.
constexpr int64_t kMinConstantWaitNs = 1'000'000;
// Tokens that are due together within this much per sequence go out in one step: else a thousand streams at a thousand
// phases would be a thousand steps of a thousand rows per interval. 64 sequences and fewer wait for nothing.
constexpr int64_t kGatherNsPerSequence = 1'000;
constexpr int64_t kMaxGatherNs = 5'000'000;
constexpr size_t kNumSequencesUngathered = 64;
// A stream that was held up for longer (its client did not read) goes on from now instead of catching up.
constexpr int64_t kMaxCatchUpNs = 1'000'000'000;

uint64_t mixed(uint64_t x) {  // splitmix64's finaliser: Steele, Lea, Flood 2014
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

// (0, 1)
double uniform(uint64_t bits) { return (static_cast<double>(bits >> 11) + 0.5) * 0x1p-53; }

int64_t to_ns(double seconds) { return std::llround(seconds * 1e9); }

}  // namespace

double jitter_factor(double cv, uint64_t seed, uint64_t a, uint64_t b) {
  if (cv == 0) return 1;
  const uint64_t key = mixed(mixed(mixed(seed) ^ a) ^ b);
  // Box and Muller.
  const double normal = std::sqrt(-2 * std::log(uniform(key))) * std::cos(2 * std::numbers::pi * uniform(mixed(key)));
  const double variance = std::log1p(cv * cv);
  return std::exp(std::sqrt(variance) * normal - variance / 2);
}

SimDevice::SimDevice(Options options) : options_(std::move(options)) {
  CHECK(options_.timing.constant || options_.timing.model) << "a simulated device needs times";
}

double SimDevice::jitter(uint64_t a, uint64_t b) const {
  return jitter_factor(options_.timing.jitter_cv, options_.timing.seed, a, b);
}

int64_t SimDevice::step_ns(const SchedulerOutput& step) {
  const double seconds = options_.timing.model->step_seconds(step.sequences);
  CHECK(std::isfinite(seconds) && seconds >= 0) << options_.timing.model->description() << " gave " << seconds << " s";
  return to_ns(seconds * jitter(step.step_id, 0));
}

int64_t SimDevice::constant_finish_ns(const SchedulerOutput& step, int64_t now_ns) {
  int64_t first_due_ns = std::numeric_limits<int64_t>::max();
  for (const ScheduledSequence& scheduled : step.sequences) {
    if (!scheduled.samples) return now_ns;  // a piece of a prompt: on with the rest of it
    first_due_ns = std::min(first_due_ns, sequences_.find(scheduled.sequence_id)->second.due_ns);
  }
  if (step.sequences.size() > kNumSequencesUngathered) {
    const int64_t gather_ns =
        std::min(kMaxGatherNs, kGatherNsPerSequence * static_cast<int64_t>(step.sequences.size()));
    // Not when everything is overdue anyway.
    if (first_due_ns > now_ns) first_due_ns = std::max(first_due_ns, now_ns + gather_ns);
  }
  const int64_t ttft_ns = to_ns(options_.timing.constant->ttft_s);
  const int64_t longest_ns = std::clamp(ttft_ns, kMinConstantWaitNs, kMaxConstantWaitNs);
  return std::clamp(first_due_ns, now_ns, now_ns + longest_ns);
}

void SimDevice::submit(std::shared_ptr<const SchedulerOutput> step, int64_t now_ns) {
  for (const SequenceId id : step->finished_sequences) sequences_.erase(id);
  const bool keeps_state = options_.choose_text || options_.timing.constant;
  for (const NewSequence& added : step->new_sequences) {
    if (!keeps_state) break;
    SequenceState state;
    state.request = added.request;
    state.choice_idx = added.choice_idx;
    if (options_.choose_text) {
      state.text = options_.choose_text(*added.request, added.choice_idx);
      CHECK(state.text != nullptr && !state.text->token_ids.empty());
    }
    if (options_.timing.constant) {
      const double ttft_s = options_.timing.constant->ttft_s * jitter(added.sequence_id, 0);
      state.due_ns = added.request->arrival_ns + to_ns(ttft_s);
    }
    sequences_.emplace(added.sequence_id, std::move(state));
  }
  if (step->empty()) return;
  if (options_.timing.constant) {
    CHECK(steps_.empty()) << "constant times: one step in flight";
    free_ns_ = constant_finish_ns(*step, now_ns);
  } else {
    const int64_t duration_ns = step_ns(*step);
    free_ns_ = std::max(now_ns, free_ns_) + duration_ns;
    busy_ns_ += duration_ns;
  }
  steps_.push_back({std::move(step), free_ns_});
}

int64_t SimDevice::next_finish_ns() const {
  CHECK(!steps_.empty()) << "no step was submitted";
  return steps_.front().finish_ns;
}

int32_t SimDevice::token_of(const SequenceState& state, int64_t output_idx) const {
  if (state.text == nullptr) return 0;
  const CannedText& text = *state.text;
  const auto length = static_cast<int64_t>(text.token_ids.size());
  const SamplingParams& sampling = state.request->sampling;
  const bool may_end = text.ends && !sampling.ignore_eos && !options_.eos_token_ids.empty();
  if (may_end && output_idx >= std::max(length, sampling.min_tokens)) return options_.eos_token_ids.front();
  return text.token_ids[static_cast<size_t>(output_idx % length)];
}

ModelOutput SimDevice::collect(int64_t now_ns) {
  CHECK(!steps_.empty()) << "no step was submitted";
  const Step step = std::move(steps_.front());
  steps_.pop_front();
  CHECK_GE(now_ns, step.finish_ns);
  ModelOutput output;
  output.step_id = step.output->step_id;
  output.sequences.resize(step.output->sequences.size());
  // What virtual time asks for: no look-up per row.
  const bool says_nothing = !options_.choose_text && !options_.timing.constant;
  for (size_t i = 0; i < output.sequences.size(); ++i) {
    const ScheduledSequence& scheduled = step.output->sequences[i];
    SequenceOutput& result = output.sequences[i];
    result.sequence_id = scheduled.sequence_id;
    if (says_nothing) {
      if (scheduled.samples) result.token_ids.push_back(0);
      continue;
    }
    const auto found = sequences_.find(scheduled.sequence_id);
    if (found == sequences_.end()) continue;  // it ended since: what it gave is dropped
    SequenceState& state = found->second;
    const SamplingParams& sampling = state.request->sampling;
    if (sampling.prompt_logprobs && state.choice_idx == 0) {
      // No model, no distribution: every token was certain.
      const std::vector<int32_t>& prompt = state.request->prompt_token_ids;
      const auto end = static_cast<size_t>(scheduled.num_computed_tokens + scheduled.num_scheduled_tokens);
      for (auto next = static_cast<size_t>(scheduled.num_computed_tokens) + 1; next <= end && next < prompt.size();
           ++next) {
        result.prompt_logprobs.push_back({{prompt[next], 0}, 1, {{prompt[next], 0}}});
      }
    }
    if (!scheduled.samples) continue;
    const int64_t output_idx =
        int64_t{scheduled.num_computed_tokens} + scheduled.num_scheduled_tokens - scheduled.num_prompt_tokens;
    if (options_.timing.constant) {
      if (state.due_ns > now_ns) continue;
      // A first token that comes late for want of a place (--max-num-seqs) does not make the others come faster.
      const bool waited = output_idx == 0 && now_ns - state.due_ns > to_ns(options_.timing.constant->tpot_s);
      if (waited || now_ns - state.due_ns > kMaxCatchUpNs) state.due_ns = now_ns;
      state.due_ns += to_ns(options_.timing.constant->tpot_s *
                            jitter(scheduled.sequence_id, static_cast<uint64_t>(output_idx) + 1));
    }
    const int32_t token = token_of(state, output_idx);
    result.token_ids.push_back(token);
    if (sampling.logprobs) result.logprobs.push_back({{token, 0}, 1, {{token, 0}}});
  }
  return output;
}

}  // namespace sextant::sim
