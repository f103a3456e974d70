// PromptSet: the requests of a run as JSON bodies, prepared before the first is sent: building them costs time that must not be
// the measurement's. The same options give the same bytes. One thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "bench/prompts/lengths.h"
#include "engine/text/tokenizer.h"

namespace sextant::bench {

enum class Dataset { kRandom, kShareGpt, kCustom, kMooncake, kBurstGpt };

Result<Dataset> parse_dataset(std::string_view name);

struct PromptOptions {
  Dataset dataset = Dataset::kRandom;
  std::string dataset_path;
  LengthSpec input;                        // random: of each prompt (or turn), without the prefix
  LengthSpec output;                       // random
  std::optional<int64_t> output_override;  // data sets: instead of their own lengths
  int64_t prefix_tokens = 0;               // random: the same beginning for all of a group
  int64_t num_prefixes = 1;                // groups
  int64_t num_turns = 1;                   // random: requests per conversation, each with all that was said before
  double think_time_s = 0;
  bool chat = false;
  bool as_token_ids = false;  // completions: "prompt" is a list of ids
  size_t num_requests = 0;
  uint64_t seed = 0;
  std::string model;
  double temperature = 0;
  bool ignore_eos = true;
  bool include_usage = true;
  nlohmann::ordered_json extra_body = nlohmann::ordered_json::object();
};

struct PreparedRequest {
  std::string body;
  int64_t prompt_tokens = -1;          // by the tokenizer; -1: not known
  int64_t output_tokens = 0;           // asked for (max_tokens)
  std::optional<double> trace_time_s;  // when a trace says it came
  std::optional<size_t> after;
};

struct PromptSet {
  std::vector<PreparedRequest> requests;
  PreparedRequest check;  // of the same kind, but part of no measurement
  std::vector<std::string> warnings;
};

// `tokenizer`: nullptr where there is none; lengths are then words, and approximate. Errors name the file and line.
Result<PromptSet> make_prompts(const PromptOptions& options, const Tokenizer* tokenizer);

}  // namespace sextant::bench
