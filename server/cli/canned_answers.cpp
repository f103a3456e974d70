#include "server/cli/canned_answers.h"

#include <algorithm>
#include <cctype>
#include <span>
#include <string>

#include "engine/base/check.h"

namespace sextant::cli {
namespace {

// What a prompt wants stands at its end, behind examples and documents; and the engine's thread has little time.
constexpr size_t kMaxTokensRead = 256;

struct Words {
  UseCase use_case;
  std::vector<std::string_view> words;
};

const std::vector<Words>& words_of_use_cases() {
  static const std::vector<Words> words = {
      {UseCase::kCode,
       {"code", "function", "python", "javascript", "c++", "program", "script", "def ", "class ", "sql", "regex",
        "compile", "debug", "unit test"}},
      {UseCase::kSummary, {"summar", "tl;dr", "tldr", "condense", "shorten", "key points", "in one paragraph"}},
      {UseCase::kQuestion,
       {"?", "what is", "what are", "who ", "when ", "where ", "why ", "how ", "which ", "explain", "define"}},
      {UseCase::kChat, {"hello", "hi ", "hi!", "hey", "thank", "good morning", "good evening", "how are you", "chat"}},
  };
  return words;
}

}  // namespace

UseCase use_case_of(std::string_view prompt) {
  std::string lower(prompt);
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  for (const Words& candidate : words_of_use_cases()) {
    for (const std::string_view word : candidate.words) {
      if (lower.find(word) != std::string::npos) return candidate.use_case;
    }
  }
  return UseCase::kGeneric;
}

const std::vector<std::string_view>& canned_texts(UseCase use_case) {
  static const std::array<std::vector<std::string_view>, kNumUseCases> texts = {{
      {
          "Here is a small function that does this:\n\n```python\ndef moving_average(values, window):\n"
          "    \"\"\"Means of each run of `window` values.\"\"\"\n    if window < 1 or window > len(values):\n"
          "        raise ValueError(\"window must be between 1 and the number of values\")\n"
          "    total = sum(values[:window])\n    means = [total / window]\n"
          "    for left, right in zip(values, values[window:]):\n        total += right - left\n"
          "        means.append(total / window)\n    return means\n```\n\n"
          "It keeps a running total, so its time grows with the number of values and not with the window.\n",
          "You can write it in JavaScript like this:\n\n```javascript\nfunction groupBy(items, keyOf) {\n"
          "  const groups = new Map();\n  for (const item of items) {\n    const key = keyOf(item);\n"
          "    if (!groups.has(key)) groups.set(key, []);\n    groups.get(key).push(item);\n  }\n  return groups;\n}\n"
          "```\n\nA Map keeps the order in which keys were first seen and takes keys of any type.\n",
      },
      {
          "In short: the text describes a change that was made in small steps, the reasons for each step, and what was "
          "measured afterwards. Its main points are that the old way did not scale, that the new one costs little, and "
          "that two questions remain open.\n",
          "Summary: the authors compare three ways to reach the same goal. The simplest is nearly as good as the best "
          "in most cases, and its weak points are known. They recommend to start with it and to measure before adding "
          "anything.\n",
      },
      {
          "The short answer is yes, with one condition. The effect depends on the size of the input: small inputs are "
          "dominated by fixed costs, large ones by the amount of data that has to be moved. Between the two lies a "
          "range in which both matter, and there it is best to measure.\n",
          "There are three parts to this. First, what is being asked for must be known exactly. Second, the sources "
          "have "
          "to agree; where they do not, the newer one is usually right. Third, the result should be checked against an "
          "independent figure.\n",
      },
      {
          "Hello! It is good to hear from you. I am a simulated model, so my answers are written in advance, but "
          "everything around them is real: the queue, the batches and the stream that you are reading. What would you "
          "like to try next?\n",
          "Thank you for the message! I am happy to talk. Since I am simulated, I will not remember what you say, but "
          "I "
          "will answer as fast, or as slowly, as the machine that I stand in for.\n",
      },
      {
          "This is the answer of a simulated model. It stands in for a real one: the words are always the same, and "
          "the "
          "time that each of them takes is what the simulated machine would need. Use it to test clients, dashboards "
          "and "
          "capacity plans without a GPU.\n",
          "A simulated answer begins here. It has as many tokens as were asked for, each of them sent when it would "
          "have "
          "been ready, so that a client cannot tell the difference by looking at the clock.\n",
      },
  }};
  return texts[static_cast<size_t>(use_case)];
}

CannedAnswers::CannedAnswers(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {
  for (size_t i = 0; i < kNumUseCases; ++i) {
    for (const std::string_view text : canned_texts(static_cast<UseCase>(i))) {
      sim::CannedText encoded;
      encoded.token_ids = tokenizer.encode(text, {.add_special_tokens = false, .parse_special_tokens = false});
      CHECK(!encoded.token_ids.empty()) << "the tokenizer has no tokens for plain text";
      encoded.ends = true;
      texts_[i].push_back(std::move(encoded));
    }
  }
}

const sim::CannedText* CannedAnswers::choose(const Request& request, int32_t choice_idx) const {
  std::span<const int32_t> prompt = request.prompt_token_ids;
  if (prompt.size() > kMaxTokensRead) prompt = prompt.last(kMaxTokensRead);
  const UseCase use_case = use_case_of(tokenizer_.decode(prompt, true));
  const std::vector<sim::CannedText>& texts = texts_[static_cast<size_t>(use_case)];
  return &texts[(request.sampling.seed + static_cast<uint64_t>(choice_idx)) % texts.size()];
}

}  // namespace sextant::cli
