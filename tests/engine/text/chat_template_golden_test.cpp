// Renders the chat templates of real models and compares with what transformers made of the same
// conversations. The templates are other people's: they are read from the shared folder and never copied into
// this repository.
#include <gtest/gtest.h>
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "engine/text/chat_template.h"

namespace sextant {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kGoldenNow = 1795348800;  // 2026-11-22 12:00:00 UTC

std::string read_text(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

std::vector<fs::path> golden_models() {
  const fs::path folder = fs::path(SEXTANT_SHARED_FOLDER) / "golden" / "chat_templates";
  std::vector<fs::path> models;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder, ignored)) {
    if (entry.is_directory()) models.push_back(entry.path());
  }
  std::sort(models.begin(), models.end());
  return models;
}

// The place of the first difference, so that a failure in a long prompt can be read.
std::string difference(const std::string& got, const std::string& want) {
  const auto [a, b] = std::mismatch(got.begin(), got.end(), want.begin(), want.end());
  const size_t at = static_cast<size_t>(a - got.begin());
  const size_t from = at < 40 ? 0 : at - 40;
  return "first difference at byte " + std::to_string(at) + "\n got: ..." + got.substr(from, 120) + "\nwant: ..." +
         want.substr(from, 120);
}

TEST(ChatTemplateGolden, EveryModelAndConversation) {
  const std::vector<fs::path> models = golden_models();
  if (models.empty()) {
    GTEST_SKIP() << "NOT TESTED: no chat templates under " << SEXTANT_SHARED_FOLDER << "/golden/chat_templates";
  }
  size_t num_rendered = 0;
  size_t num_raised = 0;
  size_t num_failed = 0;
  for (const fs::path& model : models) {
    SCOPED_TRACE(model.filename().string());
    const auto chat_template = ChatTemplate::parse(read_text(model / "template.jinja"));
    ASSERT_TRUE(chat_template.ok()) << chat_template.status().message();
    const auto cases = nlohmann::ordered_json::parse(read_text(model / "cases.json"));
    for (const auto& golden : cases) {
      SCOPED_TRACE(golden.at("name").get<std::string>());
      const auto rendered = chat_template->render(golden.at("variables"), kGoldenNow);
      if (golden.contains("rendered")) {
        ASSERT_TRUE(rendered.ok()) << rendered.status().message();
        const auto want = golden.at("rendered").get<std::string>();
        EXPECT_TRUE(*rendered == want) << difference(*rendered, want);
        ++num_rendered;
      } else if (golden.contains("raises")) {
        ASSERT_FALSE(rendered.ok()) << *rendered;
        EXPECT_EQ(rendered.status().code(), StatusCode::kInvalidArgument);
        EXPECT_EQ(rendered.status().message(), golden.at("raises").get<std::string>());
        ++num_raised;
      } else {
        ASSERT_TRUE(golden.contains("fails"));
        ASSERT_FALSE(rendered.ok()) << golden.at("fails") << " expected, rendered: " << *rendered;
        EXPECT_TRUE(rendered.status().message().starts_with("line ")) << rendered.status().message();
        ++num_failed;
      }
    }
  }
  RecordProperty("models", static_cast<int>(models.size()));
  RecordProperty("rendered", static_cast<int>(num_rendered));
  EXPECT_GE(num_rendered, models.size());
  std::cout << models.size() << " models: " << num_rendered << " rendered, " << num_raised << " raised, " << num_failed
            << " failed as the reference does\n";
}

}  // namespace
}  // namespace sextant
