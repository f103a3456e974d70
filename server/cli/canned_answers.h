// CannedAnswers: what a simulated model says, by what a prompt seems to want. Texts are encoded once, at start. choose() is
// called on the engine's thread; nothing changes after construction.
#pragma once

#include <array>
#include <memory>
#include <string_view>
#include <vector>

#include "engine/core/request.h"
#include "engine/sim/sim_device.h"
#include "engine/text/tokenizer.h"

namespace sextant::cli {

enum class UseCase { kCode, kSummary, kQuestion, kChat, kGeneric };
inline constexpr size_t kNumUseCases = 5;

// By words in the prompt, case aside; of several, the first in the order of UseCase.
UseCase use_case_of(std::string_view prompt);
// Several per use case; plain ASCII.
const std::vector<std::string_view>& canned_texts(UseCase use_case);

class CannedAnswers {
 public:
  // `tokenizer` outlives this object.
  explicit CannedAnswers(const Tokenizer& tokenizer);

  // The same request (prompt and seed) and choice always get the same text.
  const sim::CannedText* choose(const Request& request, int32_t choice_idx) const;

 private:
  const Tokenizer& tokenizer_;
  std::array<std::vector<sim::CannedText>, kNumUseCases> texts_;
};

}  // namespace sextant::cli
