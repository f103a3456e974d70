// The reference's outputs in tests/data/golden, and how a model that is fed them is judged: LoadedModel or ParallelModel, by
// reset() and step().
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

namespace sextant::testing_support {

inline std::string golden_path(const std::string& name) { return std::string(SEXTANT_TEST_DATA) + "/golden/" + name; }

inline nlohmann::json read_golden(const std::string& name) {
  std::ifstream file(golden_path(name));
  EXPECT_TRUE(file.good()) << name;
  return nlohmann::json::parse(file);
}

inline bool full_tests() {
  const char* full = std::getenv("SEXTANT_FULL_TESTS");
  return full != nullptr && std::string_view(full) == "1";
}

inline int32_t top_1(const std::vector<float>& logits) {
  return static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

struct JudgedSteps {
  int steps = 0;                    // whose gap between the reference's two likeliest tokens, in nats, is large enough
  int stored = 0;                   // in the cases that were run
  std::vector<double> missed_gaps;  // of those whose likeliest token is another than the reference's
};

struct GoldenSteps {
  size_t max_cases = SIZE_MAX;
  size_t max_steps = SIZE_MAX;  // the first of each case
  double min_gap = 0.2;
};

// Teacher-forced over the stored steps of the cases of a file in tests/data/golden.
template <typename Model>
JudgedSteps judge_cases(Model& model, const std::string& file, const GoldenSteps& which) {
  const nlohmann::json golden = read_golden(file);
  JudgedSteps judged;
  size_t num_cases = 0;
  for (const char* kind : {"greedy", "chat"}) {
    for (const nlohmann::json& golden_case : golden[kind]) {
      if (++num_cases > which.max_cases) return judged;
      const nlohmann::json& steps = golden_case["steps"];
      auto ids = golden_case["ids"].get<std::vector<int32_t>>();
      const size_t prompt_length = ids.size();
      const size_t num_steps = std::min(which.max_steps, steps.size());
      for (size_t i = 0; i < num_steps; ++i) ids.push_back(steps[i]["id"]);
      model.reset();
      const auto logits = model.step({{0, ids}})[0];
      judged.stored += static_cast<int>(steps.size());
      for (size_t i = 0; i < num_steps; ++i) {
        const nlohmann::json& top = steps[i]["top"];
        const double gap = top[0][1].get<double>() - top[1][1].get<double>();
        if (gap < which.min_gap) continue;
        ++judged.steps;
        if (top_1(logits[prompt_length + i - 1]) == top[0][0].get<int32_t>()) continue;
        judged.missed_gaps.push_back(gap);
        std::printf("step %zu of %s: another token at a gap of %.3f\n", i, golden_case["ids"].dump().c_str(), gap);
      }
    }
  }
  return judged;
}

// The default model's.
template <typename Model>
JudgedSteps judge_smollm2(Model& model, const GoldenSteps& which) {
  return judge_cases(model, "smollm2-135m-instruct-q4_1.json", which);
}

// The models of tests/data/golden/tiny that are served. Under a sanitizer these go through all that the others do, but for ops that
// have tests of their own.
inline std::vector<std::string> tiny_models() {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  return {"llama", "qwen3", "gemma3"};
#else
  return {"llama", "llama3_rope", "mistral_sliding", "qwen2", "qwen3", "phi3", "granite", "gemma2", "gemma3", "olmo2"};
#endif
}

// A model of tests/data/golden/tiny: its last logits within `tolerance`, its tokens wherever the gap is 0.03.
template <typename Model>
void expect_tiny_llama(Model& model, const std::string& name, double tolerance) {
  const nlohmann::json golden = read_golden("tiny/" + name + "/golden.json");
  int judged = 0;
  for (const nlohmann::json& golden_case : golden["cases"]) {
    auto ids = golden_case["ids"].get<std::vector<int32_t>>();
    const size_t prompt_length = ids.size();
    const auto greedy = golden_case["greedy"].get<std::vector<int32_t>>();
    ids.insert(ids.end(), greedy.begin(), greedy.end());
    model.reset();
    const auto logits = model.step({{0, ids}})[0];
    const auto expected = golden_case["last_logits"].get<std::vector<float>>();
    ASSERT_EQ(logits[prompt_length - 1].size(), expected.size());
    for (size_t i = 0; i < expected.size(); ++i)
      ASSERT_NEAR(logits[prompt_length - 1][i], expected[i], tolerance) << "logit " << i;
    for (size_t i = 0; i < greedy.size(); ++i) {
      if (golden_case["gaps"][i].get<double>() < 0.03) continue;
      ++judged;
      EXPECT_EQ(top_1(logits[prompt_length + i - 1]), greedy[i]) << "step " << i;
    }
  }
  EXPECT_GT(judged, 30);
}

}  // namespace sextant::testing_support
