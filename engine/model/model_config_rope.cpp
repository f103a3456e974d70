// The rotary embedding's part of ModelConfig: names of scalings, what is out of range, frequencies.

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>
#include <utility>

#include "engine/model/model_config.h"
#include "engine/model/model_config_limits.h"

namespace sextant {
namespace {

constexpr std::array<std::pair<std::string_view, RopeScaling>, 8> kRopeScalings = {{
    {"default", RopeScaling::kNone},
    {"none", RopeScaling::kNone},
    {"linear", RopeScaling::kLinear},
    {"dynamic", RopeScaling::kDynamic},
    {"llama3", RopeScaling::kLlama3},
    {"yarn", RopeScaling::kYarn},
    {"longrope", RopeScaling::kLongRope},
    {"su", RopeScaling::kLongRope},
}};

// The context that the model was first trained for, where scaling needs it.
int64_t original_context(const ModelConfig& config, const RopeConfig& rope) {
  const int64_t stated = rope.original_max_position_embeddings;
  return stated > 0 ? stated : config.max_position_embeddings;
}

// The index of the pair that turns so often over the original context (YaRN, arXiv:2309.00071, section 3.2).
double yarn_pair_of_turns(const ModelConfig& config, const RopeConfig& rope, double turns) {
  return static_cast<double>(rope.rotary_dim) *
         std::log(static_cast<double>(original_context(config, rope)) / (turns * 2 * std::numbers::pi)) /
         (2 * std::log(rope.theta));
}

}  // namespace

std::optional<RopeScaling> rope_scaling_of_name(std::string_view wanted) {
  for (const auto& [name, scaling] : kRopeScalings) {
    if (name == wanted) return scaling;
  }
  return std::nullopt;
}

std::string_view rope_scaling_name(RopeScaling wanted) {
  for (const auto& [name, scaling] : kRopeScalings) {
    if (scaling == wanted) return name;
  }
  return "?";
}

std::string fault_of(const RopeConfig& rope, int64_t head_dim) {
  if (rope.rotary_dim < 2 || rope.rotary_dim % 2 != 0 || rope.rotary_dim > head_dim) {
    return "the rotary dimension is " + std::to_string(rope.rotary_dim) +
           ", expected an even number from 2 to head_dim " + std::to_string(head_dim);
  }
  if (!(rope.theta >= kRopeTheta.min && rope.theta <= kRopeTheta.max)) return "rope_theta is out of range";
  if (!(rope.factor >= kRopeFactor.min && rope.factor <= kRopeFactor.max)) {
    return "the factor of rope scaling is out of range";
  }
  if (rope.scaling == RopeScaling::kLlama3 && rope.frequency_divisors.empty() &&
      (!(rope.high_freq_factor > rope.low_freq_factor && rope.low_freq_factor > 0) ||
       rope.original_max_position_embeddings < 1)) {
    return "llama3 rope scaling needs high_freq_factor above low_freq_factor above 0, and "
           "original_max_position_embeddings";
  }
  if (!rope.frequency_divisors.empty()) {
    if (static_cast<int64_t>(rope.frequency_divisors.size()) != rope.rotary_dim / 2) {
      return "rope_freqs.weight has " + std::to_string(rope.frequency_divisors.size()) + " numbers, expected " +
             std::to_string(rope.rotary_dim / 2);
    }
    for (float divisor : rope.frequency_divisors) {
      if (!(divisor > 1e-6f && divisor < 1e6f)) return "rope_freqs.weight holds a number out of range";
    }
  }
  if (rope.scaling == RopeScaling::kYarn && rope.theta <= 1) return "yarn rope scaling needs a rope_theta above 1";
  if (rope.scaling == RopeScaling::kYarn && !(rope.beta_fast > rope.beta_slow && rope.beta_slow > 0)) {
    return "yarn rope scaling needs beta_fast above beta_slow above 0";
  }
  if (rope.scaling == RopeScaling::kLongRope) {
    for (const std::vector<double>* factors : {&rope.short_factor, &rope.long_factor}) {
      if (static_cast<int64_t>(factors->size()) != rope.rotary_dim / 2) {
        return "longrope scaling needs short_factor and long_factor of " + std::to_string(rope.rotary_dim / 2) +
               " numbers, not " + std::to_string(factors->size());
      }
      for (const double factor : *factors) {
        if (!(factor > 1e-6 && factor < 1e6)) return "a factor of longrope scaling is out of range";
      }
    }
    if (rope.original_max_position_embeddings < 2) {
      return "longrope scaling needs original_max_position_embeddings";
    }
  }
  return "";
}

double rope_attention_factor(const ModelConfig& config, const RopeConfig& rope) {
  if (rope.scaling != RopeScaling::kYarn && rope.scaling != RopeScaling::kLongRope) return 1.0;
  if (rope.attention_factor) return *rope.attention_factor;
  if (rope.scaling == RopeScaling::kYarn) return rope.factor <= 1 ? 1.0 : 0.1 * std::log(rope.factor) + 1.0;
  const auto original = static_cast<double>(original_context(config, rope));
  const double ratio = static_cast<double>(config.max_position_embeddings) / original;
  const double factor = ratio > 1 ? ratio : rope.factor;
  return factor <= 1 ? 1.0 : std::sqrt(1.0 + std::log(factor) / std::log(original));
}

std::vector<double> rope_inverse_frequencies(const ModelConfig& config, const RopeConfig& rope, int64_t max_model_len) {
  std::vector<double> frequencies;
  // Pairs that turn often are kept, those that turn seldom are stretched, those between blended.
  double yarn_low = 0, yarn_high = 0;
  if (rope.scaling == RopeScaling::kYarn) {
    yarn_low = std::max(0.0, std::floor(yarn_pair_of_turns(config, rope, rope.beta_fast)));
    yarn_high =
        std::min(static_cast<double>(rope.rotary_dim - 1), std::ceil(yarn_pair_of_turns(config, rope, rope.beta_slow)));
    if (yarn_low == yarn_high) yarn_high += 0.001;
  }
  for (int64_t i = 0; i < rope.rotary_dim / 2; ++i) {
    double frequency = std::pow(rope.theta, -2.0 * static_cast<double>(i) / static_cast<double>(rope.rotary_dim));
    if (!rope.frequency_divisors.empty()) {
      frequency /= static_cast<double>(rope.frequency_divisors[static_cast<size_t>(i)]);
    } else if (rope.scaling == RopeScaling::kLinear) {
      frequency /= rope.factor;
    } else if (rope.scaling == RopeScaling::kYarn) {
      const double stretched = std::clamp((static_cast<double>(i) - yarn_low) / (yarn_high - yarn_low), 0.0, 1.0);
      frequency *= stretched / rope.factor + (1.0 - stretched);
    } else if (rope.scaling == RopeScaling::kLongRope) {
      const bool is_long = max_model_len > original_context(config, rope);
      frequency /= (is_long ? rope.long_factor : rope.short_factor)[static_cast<size_t>(i)];
    } else if (rope.scaling == RopeScaling::kLlama3) {
      // Long wavelengths are stretched by the factor, short ones kept, those between blended (Llama 3.1's
      // release).
      const double turns =
          static_cast<double>(rope.original_max_position_embeddings) * frequency / (2 * std::numbers::pi);
      const double kept = (turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor);
      const double share = std::min(1.0, std::max(0.0, kept));
      frequency *= share + (1.0 - share) / rope.factor;
    }
    frequencies.push_back(frequency);
  }
  return frequencies;
}

}  // namespace sextant
