// StepCost: how long one step of a continuously batching engine takes, from few coefficients, and how they are found.
//   memory  = stream_weights + per_context_token * tokens of context read
//   compute = per_token * tokens + per_pair * (query, key) pairs
//   step    = overhead + per_sequence * sequences + (memory^p + compute^p)^(1/p)
// p = 1: the two add up (a CPU's cores do one after the other); a large p: the longer one hides the other (a GPU). Pure; any thread.
#pragma once

#include <cmath>

namespace sextant::advisor {

// What a step holds.
struct StepLoad {
  double sequences = 0;
  double tokens = 0;          // computed: one per decoding sequence, and those of prompts
  double context_tokens = 0;  // in the cache once the step is done, of all its sequences
  double pairs = 0;           // of each computed token with each at or before it
};

struct StepCost {
  // Seconds.
  double overhead = 0;
  double per_sequence = 0;
  double stream_weights = 0;
  double per_context_token = 0;
  double per_token = 0;
  double per_pair = 0;
  double sharpness = 8;  // p, at least 1

  double seconds(const StepLoad& load) const {
    const double memory = stream_weights + per_context_token * load.context_tokens;
    const double compute = per_token * load.tokens + per_pair * load.pairs;
    const double longer = memory > compute ? memory : compute;
    const double shorter = memory > compute ? compute : memory;
    if (longer == 0) return overhead + per_sequence * load.sequences;
    double work = longer;
    if (sharpness == 1) {
      work += shorter;
    } else if (sharpness == 8) {  // what pow would give, in a tenth of its time
      const double ratio = shorter / longer;
      const double squared = ratio * ratio;
      const double fourth = squared * squared;
      work *= std::sqrt(std::sqrt(std::sqrt(1 + fourth * fourth)));
    } else if (shorter > 0.01 * longer) {
      work *= std::pow(1 + std::pow(shorter / longer, sharpness), 1 / sharpness);
    }
    return overhead + per_sequence * load.sequences + work;
  }
};

// Work of a model relative to its weights, from engine/model/memory_model or the advisor's facts: it ties coefficients together that
// few measurements could not tell apart.
struct StepShape {
  double context_token_per_weights = 0;  // bytes of one token's keys and values / bytes of weights that a step streams
  double pair_per_token = 0;             // FLOPs of one (query, key) pair / FLOPs of one token without attention
};

}  // namespace sextant::advisor
