#include "server/cli/model_location.h"

#include <chrono>
#include <filesystem>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/scratch_directory.h"

namespace sextant::cli {
namespace {

using testing::HasSubstr;

const std::string kOld(40, 'a');
const std::string kNew(40, 'b');

class ModelLocationTest : public testing::Test {
 protected:
  ModelLocationTest() {
    cache_.write("hub/owner--name/" + kOld + "/config.json", "{}");
    cache_.write("hub/owner--name/" + kOld + "/model.safetensors", "12345678");
    cache_.write("hub/owner--name/" + kNew + "/m.gguf", "12");
    cache_.write("hub/owner--half/" + kOld + "/config.json", "{}");
    cache_.write("hub/owner--half/" + kOld + "/model.safetensors.incomplete", "1");
    cache_.write("hub/owner--empty/" + kOld + "/.lock", "");
    cache_.write("hub/stray", "x");
    cache_.write("url/0123456789abcdef/other.gguf", "123");
    cache_.write("url/0123456789abcdef/notes.txt", "123");
    cache_.write("models/default.gguf", "1234");
    const auto now = std::filesystem::file_time_type::clock::now();
    std::filesystem::last_write_time(cache_.file("hub/owner--name/" + kOld), now - std::chrono::hours(1));
    std::filesystem::last_write_time(cache_.file("hub/owner--name/" + kNew), now);
  }
  std::string found(const std::string& model) {
    const Result<std::string> path = locate_model(model, cache_.path());
    return path.ok() ? path.value() : "error: " + path.status().message();
  }
  ScratchDirectory cache_;
};

TEST_F(ModelLocationTest, ListsWhatIsComplete) {
  std::vector<std::string> rows;
  for (const CachedModel& model : list_cached_models(cache_.path())) {
    rows.push_back(model.name + " " + model.revision.substr(0, 1) + " " + std::to_string(model.num_bytes));
  }
  EXPECT_EQ(rows, (std::vector<std::string>{"owner/name b 2", "owner/name a 10",
                                            cache_.file("url/0123456789abcdef/other.gguf") + "  3",
                                            cache_.file("models/default.gguf") + "  4"}));
}

TEST_F(ModelLocationTest, ACacheThatIsNotThereHasNone) {
  EXPECT_TRUE(list_cached_models("/nonexistent").empty());
  EXPECT_TRUE(list_cached_models("").empty());
}

TEST_F(ModelLocationTest, APathWins) {
  EXPECT_EQ(found(cache_.file("models/default.gguf")), cache_.file("models/default.gguf"));
  EXPECT_EQ(found(cache_.path()), cache_.path());
}

TEST_F(ModelLocationTest, AHubIdIsItsNewestPullOrTheCommitAskedFor) {
  EXPECT_EQ(found("owner/name"), cache_.file("hub/owner--name/" + kNew));
  EXPECT_EQ(found("owner/name@" + kOld), cache_.file("hub/owner--name/" + kOld));
  EXPECT_EQ(found("owner/name@aaaaaaa"), cache_.file("hub/owner--name/" + kOld));
}

TEST_F(ModelLocationTest, WhatIsMissingSaysHowToGetIt) {
  EXPECT_THAT(found("owner/other"), HasSubstr("sextant pull owner/other"));
  EXPECT_THAT(found("owner/half"), HasSubstr("sextant pull owner/half"));
  EXPECT_THAT(found("owner/name@cccc"), HasSubstr("sextant pull owner/name@cccc"));
  EXPECT_THAT(found("/no/such/file.gguf"), HasSubstr("does not exist"));
  EXPECT_THAT(found("../../etc/passwd-not-there"), HasSubstr("does not exist"));
}

TEST_F(ModelLocationTest, NamesInTheApi) {
  EXPECT_EQ(default_model_name(cache_.file("models/default.gguf")), "default");
  EXPECT_EQ(default_model_name(cache_.file("models/")), "models");
  EXPECT_EQ(default_model_name(cache_.file("models/../url")), "url");
  EXPECT_EQ(default_model_name("owner/name"), "owner/name");
  EXPECT_EQ(default_model_name("owner/name@v1"), "owner/name");
}

}  // namespace
}  // namespace sextant::cli
