// Reads the input as a dump of failed steps. What is accepted is consistent, and says the same when written and read again.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "engine/step_dump.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace sextant;
  const Result<StepDump> dump = parse_step_dump({reinterpret_cast<const char*>(data), size}, "dump");
  if (!dump.ok()) return 0;
  for (const auto& step : dump->steps) {
    for (const ScheduledSequence& scheduled : step->sequences) {
      if (scheduled.token_offset + scheduled.num_scheduled_tokens > step->num_tokens()) abort();
    }
    for (const NewBlocks& blocks : step->new_blocks) {
      if (blocks.offsets.size() != step->sequences.size() + 1) abort();
    }
  }
  const std::string text = render_step_dump(*dump);
  const Result<StepDump> again = parse_step_dump(text, "again");
  if (!again.ok() || render_step_dump(*again) != text) abort();
  return 0;
}
