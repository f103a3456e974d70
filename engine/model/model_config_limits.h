// What facts may be at most, wide enough for any model one can imagine and narrow enough that products of them can be
// checked; and the tables of names. For the readers of ModelConfig only.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "engine/model/model_config.h"

namespace sextant {

struct IntRange {
  int64_t min;
  int64_t max;
};
struct FloatRange {
  double min;
  double max;
};

inline constexpr IntRange kVocabSize = {1, int64_t{1} << 26};
inline constexpr IntRange kHiddenSize = {1, int64_t{1} << 20};
inline constexpr IntRange kIntermediateSize = {1, int64_t{1} << 24};
inline constexpr IntRange kNumLayers = {1, 4096};
inline constexpr IntRange kNumHeads = {1, 65536};
inline constexpr IntRange kHeadDim = {1, 65536};
inline constexpr IntRange kMaxPositions = {1, INT32_MAX};  // positions are int32
inline constexpr IntRange kNumExperts = {0, 65536};
inline constexpr FloatRange kNormEps = {0.0, 1.0};
inline constexpr FloatRange kRopeTheta = {1.0, 1e15};
inline constexpr FloatRange kRopeFactor = {1e-3, 1e6};

// The name in `architectures` of what config.json's model_type or GGUF's general.architecture calls so.
std::optional<std::string> canonical_architecture(std::string_view model_type);
ModelFamily family_of(std::string_view architecture);
// Facts that the architecture's code fixes and its files do not state: where biases and fused matrices are, how GGUF stores rotations.
void set_facts_of_architecture(ModelConfig& config, bool is_gguf);
// "default", "linear", "llama3", ..., with "su" for longrope and "none" for default.
std::optional<RopeScaling> rope_scaling_of_name(std::string_view name);

// Of embeddings, residuals, logits, attention; and soft caps.
inline constexpr FloatRange kMultiplier = {1e-6, 1e6};

// What is wrong with it, or nothing.
std::string fault_of(const RopeConfig& rope, int64_t head_dim);

// Every n-th layer is full, where an architecture has such a rule and the file does not say; nothing: all layers are alike.
std::optional<int64_t> window_pattern(std::string_view architecture);
void set_window_pattern(std::vector<bool>& slides, int64_t pattern);
// `slides` by layer; where all or none do it says no more than the window.
void set_window(ModelConfig& config, int64_t window, std::vector<bool> slides);

}  // namespace sextant
