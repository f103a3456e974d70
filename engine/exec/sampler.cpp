#include "engine/exec/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "engine/base/check.h"
#include "kernels/philox.h"

namespace sextant {
namespace {

constexpr float kMasked = -std::numeric_limits<float>::infinity();

// Lowest id of the largest logit. NaN never wins; all NaN or masked gives 0.
int32_t argmax(std::span<const float> logits) {
  // The largest of each lane, which the compiler keeps in vectors, then where it stands first.
  constexpr size_t kLanes = 32;
  float top[kLanes];
  std::fill(top, top + kLanes, kMasked);
  size_t i = 0;
  for (; i + kLanes <= logits.size(); i += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane)
      top[lane] = logits[i + lane] > top[lane] ? logits[i + lane] : top[lane];
  }
  float best = kMasked;
  for (const float value : top) best = value > best ? value : best;
  for (; i < logits.size(); ++i) best = logits[i] > best ? logits[i] : best;
  if (best == kMasked) return 0;
  return static_cast<int32_t>(std::find(logits.begin(), logits.end(), best) - logits.begin());
}

void apply_penalties(std::span<float> logits, const SamplerState& state) {
  const SamplingParams& params = state.params();
  const auto repeat = [&](int32_t id) {
    float& logit = logits[static_cast<size_t>(id)];
    logit = logit > 0 ? logit / params.repetition_penalty : logit * params.repetition_penalty;
  };
  if (params.repetition_penalty != 1.0f) {
    for (const int32_t id : state.prompt_tokens()) repeat(id);
    for (const auto& [id, count] : state.output_counts()) {
      if (!std::binary_search(state.prompt_tokens().begin(), state.prompt_tokens().end(), id)) repeat(id);
    }
  }
  for (const auto& [id, count] : state.output_counts()) {
    logits[static_cast<size_t>(id)] -= params.frequency_penalty * static_cast<float>(count) + params.presence_penalty;
  }
}

// The k-th largest value; values is scratch.
float kth_largest(std::vector<float>& values, size_t k) {
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(k - 1), values.end(), std::greater<>());
  return values[k - 1];
}

// The least probability that belongs to the smallest set of most likely tokens whose mass reaches top_p of the total.
// Equal probabilities stay or go together, so that no order among them is needed.
float nucleus_threshold(std::span<const float> probabilities, double total, double top_p) {
  std::vector<float> heap;
  heap.reserve(probabilities.size());
  for (const float probability : probabilities) {
    if (probability > 0) heap.push_back(probability);
  }
  std::make_heap(heap.begin(), heap.end());
  double mass = 0;
  float threshold = 0;
  while (!heap.empty() && mass < top_p * total) {
    threshold = heap.front();
    mass += threshold;
    std::pop_heap(heap.begin(), heap.end());
    heap.pop_back();
  }
  return threshold;
}

// One draw from softmax(logits / temperature) cut by min_p, top_k and top_p, at quantile `uniform` in order of ids.
int32_t draw(std::span<float> logits, const SamplingParams& params, double uniform) {
  const float largest = logits[static_cast<size_t>(argmax(logits))];
  if (!(largest > kMasked) || !std::isfinite(largest)) return argmax(logits);
  const float inverse_temperature = 1.0f / params.temperature;

  float least_logit = kMasked;
  if (params.top_k > 0 && static_cast<size_t>(params.top_k) < logits.size()) {
    std::vector<float> values;
    values.reserve(logits.size());
    for (const float logit : logits) values.push_back(std::isnan(logit) ? kMasked : logit);
    least_logit = kth_largest(values, static_cast<size_t>(params.top_k));
  }
  double total = 0;
  for (float& logit : logits) {
    // Below the cut, masked or NaN: no mass. The largest has exp(0) = 1.
    const bool kept = logit >= least_logit && logit > kMasked;
    float probability = kept ? std::exp((logit - largest) * inverse_temperature) : 0.0f;
    if (probability < params.min_p) probability = 0.0f;
    logit = probability;
    total += probability;
  }
  if (params.top_p < 1.0f) {
    const float threshold = nucleus_threshold(logits, total, params.top_p);
    total = 0;
    for (float& probability : logits) {
      if (probability < threshold) probability = 0.0f;
      total += probability;
    }
  }
  const double target = uniform * total;
  double mass = 0;
  int32_t last = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    if (logits[i] == 0.0f) continue;
    mass += logits[i];
    last = static_cast<int32_t>(i);
    if (mass > target) break;
  }
  return last;
}

}  // namespace

SamplerState::SamplerState(std::shared_ptr<const Request> request, int32_t choice_idx)
    : request_(std::move(request)), choice_idx_(choice_idx) {
  if (params().repetition_penalty == 1.0f) return;
  prompt_tokens_ = request_->prompt_token_ids;
  std::sort(prompt_tokens_.begin(), prompt_tokens_.end());
  prompt_tokens_.erase(std::unique(prompt_tokens_.begin(), prompt_tokens_.end()), prompt_tokens_.end());
}

void SamplerState::append(int32_t token_id) {
  if (params().needs_penalties()) ++output_counts_[token_id];
}

int32_t Sampler::sample(std::span<float> logits, const SamplerState& state, int64_t output_idx) const {
  const SamplingParams& params = state.params();
  if (!params.allowed_token_ids.empty()) {
    std::vector<std::pair<int32_t, float>> kept;
    kept.reserve(params.allowed_token_ids.size());
    for (const int32_t id : params.allowed_token_ids) kept.emplace_back(id, logits[static_cast<size_t>(id)]);
    std::fill(logits.begin(), logits.end(), kMasked);
    for (const auto& [id, logit] : kept) logits[static_cast<size_t>(id)] = logit;
  }
  for (const auto& [id, bias] : params.logit_bias) logits[static_cast<size_t>(id)] += bias;
  if (params.needs_penalties()) apply_penalties(logits, state);
  if (output_idx < params.min_tokens) {
    if (!params.ignore_eos) {
      for (const int32_t id : eos_token_ids_) logits[static_cast<size_t>(id)] = kMasked;
    }
    for (const int32_t id : params.stop_token_ids) logits[static_cast<size_t>(id)] = kMasked;
  }
  if (params.greedy()) return argmax(logits);
  const double uniform = kernels::philox_uniform(params.seed, static_cast<uint32_t>(state.choice_idx()),
                                                 static_cast<uint64_t>(output_idx));
  return draw(logits, params, uniform);
}

PositionLogprobs position_logprobs(std::span<const float> logits, int32_t chosen, int32_t num_top) {
  const float largest = logits[static_cast<size_t>(argmax(logits))];
  double total = 0;
  for (const float logit : logits) total += std::exp(static_cast<double>(logit) - static_cast<double>(largest));
  const double log_total = static_cast<double>(largest) + std::log(total);
  const auto logprob = [&](int32_t id) {
    return TokenLogprob{id, static_cast<float>(static_cast<double>(logits[static_cast<size_t>(id)]) - log_total)};
  };
  PositionLogprobs result;
  result.chosen = logprob(chosen);
  const float chosen_logit = logits[static_cast<size_t>(chosen)];
  result.rank =
      1 + static_cast<int32_t>(std::count_if(logits.begin(), logits.end(), [&](float l) { return l > chosen_logit; }));
  if (num_top <= 0) return result;

  // A heap of the best so far whose worst is on top: larger logit first, then lower id.
  const auto better = [&](int32_t a, int32_t b) {
    const float la = logits[static_cast<size_t>(a)];
    const float lb = logits[static_cast<size_t>(b)];
    return la != lb ? la > lb : a < b;
  };
  std::vector<int32_t> best;
  const auto count = std::min(static_cast<size_t>(num_top), logits.size());
  for (int32_t id = 0; id < static_cast<int32_t>(logits.size()); ++id) {
    if (best.size() < count) {
      best.push_back(id);
      std::push_heap(best.begin(), best.end(), better);
    } else if (better(id, best.front())) {
      std::pop_heap(best.begin(), best.end(), better);
      best.back() = id;
      std::push_heap(best.begin(), best.end(), better);
    }
  }
  std::sort_heap(best.begin(), best.end(), better);
  for (const int32_t id : best) result.top.push_back(logprob(id));
  return result;
}

}  // namespace sextant
