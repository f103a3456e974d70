// What the members of a group tell one another: the first byte says which message the rest is. What is read is written and
// read again, to the same bytes.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "engine/group/handshake.h"
#include "engine/group/rank_progress.h"
#include "engine/group/step_message.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace sextant;
  if (size == 0) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  const auto same_again = [](const std::string& once, const auto& read_again, auto&& write) {
    if (!read_again.ok() || write(*read_again) != once) abort();
  };
  switch (data[0] % 4) {
    case 0: {
      const StepBounds bounds = {.vocab_size = 1000,
                                 .num_blocks = 100,
                                 .block_size = 16,
                                 .max_model_len = 512,
                                 .max_num_seqs = 8,
                                 .max_num_batched_tokens = 64};
      const auto step = parse_step(bytes, bounds);
      if (!step.ok()) return 0;
      const std::string once = serialize_step(**step);
      same_again(once, parse_step(once, bounds), [](const auto& again) { return serialize_step(*again); });
      return 0;
    }
    case 1: {
      const auto output = parse_output(bytes);
      if (!output.ok()) return 0;
      const std::string once = serialize_output(*output);
      same_again(once, parse_output(once), [](const auto& again) { return serialize_output(again); });
      return 0;
    }
    case 2: {
      const auto ranks = parse_progress(bytes);
      if (!ranks.ok()) return 0;
      missing_ranks(*ranks);
      describe_stuck(*ranks);
      const std::string once = serialize_progress(*ranks);
      same_again(once, parse_progress(once), [](const auto& again) { return serialize_progress(again); });
      return 0;
    }
    default: {
      const auto facts = parse_facts(bytes);
      if (!facts.ok()) return 0;
      compare_facts({{"model_revision", "abc"}}, *facts, 1);
      const std::string once = serialize_facts(*facts);
      same_again(once, parse_facts(once), [](const auto& again) { return serialize_facts(again); });
      return 0;
    }
  }
}
