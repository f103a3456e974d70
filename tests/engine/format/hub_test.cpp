#include "engine/format/hub.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <thread>

#include "engine/format/json_file.h"
#include "tests/support/scratch_directory.h"
#include "tests/support/scripted_http_server.h"

namespace sextant {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::UnorderedElementsAre;
using Json = nlohmann::json;

const auto reply = ScriptedHttpServer::reply;
const char kCommit[] = "0123456789abcdef0123456789abcdef01234567";

std::vector<std::string> names_of(const Result<std::vector<HubFile>>& files) {
  std::vector<std::string> names;
  if (files.ok()) {
    for (const HubFile& file : *files) names.push_back(file.name);
  }
  return names;
}
std::vector<HubFile> listing(std::initializer_list<const char*> names) {
  std::vector<HubFile> files;
  for (const char* name : names) files.push_back({name, std::nullopt, ""});
  return files;
}

TEST(HubId, IsOwnerSlashName) {
  const auto id = parse_hub_id("HuggingFaceTB/SmolLM2-135M-Instruct");
  ASSERT_TRUE(id);
  EXPECT_EQ(id->repository(), "HuggingFaceTB/SmolLM2-135M-Instruct");
  EXPECT_EQ(id->revision, "main");
  EXPECT_EQ(parse_hub_id("a/b@refs/pr/1")->revision, "refs/pr/1");
  for (const char* text : {"", "a", "a/", "/a", "a/b/c", "../b", "a/..", "./a", "a/.b", "a b/c", "a/b@", "a/b@../x",
                           "a/b@/x", "a/b@x y", "a--b/c", "a/b?x", "a/\xc3\xa9"}) {
    EXPECT_FALSE(parse_hub_id(text)) << text;
  }
}

TEST(SelectModelFiles, SafetensorsWithConfigAndTokenizer) {
  EXPECT_THAT(names_of(select_model_files(
                  listing({"README.md", "config.json", "generation_config.json", "model-00001-of-00002.safetensors",
                           "model-00002-of-00002.safetensors", "model.safetensors.index.json", "tokenizer.json",
                           "tokenizer_config.json", "pytorch_model.bin", "onnx/model.safetensors", "model.gguf",
                           "consolidated.00.safetensors", "../evil", "training_args.bin"}),
                  {}, "a/b")),
              ElementsAre("config.json", "generation_config.json", "model-00001-of-00002.safetensors",
                          "model-00002-of-00002.safetensors", "model.safetensors.index.json", "tokenizer.json",
                          "tokenizer_config.json"));
}

TEST(SelectModelFiles, OneOfSeveralGgufFiles) {
  EXPECT_THAT(names_of(select_model_files(listing({"README.md", "only-Q5_K_M.gguf"}), {}, "a/b")),
              ElementsAre("only-Q5_K_M.gguf"));
  EXPECT_THAT(names_of(select_model_files(listing({"m-Q2_K.gguf", "m.Q4_0.gguf", "m-f16.gguf"}), {}, "a/b")),
              ElementsAre("m.Q4_0.gguf"));
  EXPECT_THAT(names_of(select_model_files(listing({"m-BF16.gguf", "m-Q8_0.gguf", "m-Q8_0_L.gguf"}), {}, "a/b")),
              ElementsAre("m-BF16.gguf"))
      << "Q8_0 is ambiguous";
  const auto none = select_model_files(listing({"m-Q2_K.gguf", "m-Q3_K.gguf"}), {}, "a/b");
  EXPECT_THAT(none.status().message(),
              AllOf(HasSubstr("2 GGUF files"), HasSubstr("'m-Q2_K.gguf'"), HasSubstr("--include")));
}

TEST(SelectModelFiles, Patterns) {
  const auto files = listing({"a/x-Q4_0.gguf", "y-Q4_0.gguf", "y-Q8_0.gguf"});
  EXPECT_THAT(names_of(select_model_files(files, {"*Q4_0.gguf"}, "a/b")), ElementsAre("a/x-Q4_0.gguf", "y-Q4_0.gguf"));
  EXPECT_THAT(select_model_files(files, {"*.bin"}, "a/b").status().message(),
              HasSubstr("none of its 3 files matches '*.bin'"));
  EXPECT_THAT(select_model_files(listing({"pytorch_model.bin", "config.json"}), {}, "a/b").status().message(),
              HasSubstr("unpickling runs code"));
}

TEST(SelectModelFiles, NamesThatLeaveTheDirectoryAreRefused) {
  for (const char* name : {"../x", "/etc/passwd", "a/../../x", "a//b", ".ssh/config", "a/.x", "a\\b", "x\n", "", "a/",
                           "m.gguf.incomplete"}) {
    EXPECT_FALSE(is_safe_relative_path(name)) << name;
    EXPECT_FALSE(select_model_files(listing({name}), {"*"}, "a/b").ok()) << name;
  }
  EXPECT_FALSE(is_safe_relative_path(std::string_view("a\0b", 3)));
  EXPECT_TRUE(is_safe_relative_path("a/b.gguf"));
}

TEST(PullOptions, FromTheEnvironment) {
  ::setenv("HF_ENDPOINT", "http://mirror/", 1);
  ::setenv("HF_TOKEN", "hf_x\n", 1);
  ::setenv("SEXTANT_CACHE", "/cache", 1);
  auto options = pull_options_from_environment();
  EXPECT_EQ(options->endpoint, "http://mirror/");
  EXPECT_EQ(options->token, "hf_x");
  EXPECT_EQ(options->cache_directory, "/cache");
  ::unsetenv("HF_ENDPOINT");
  ::unsetenv("HF_TOKEN");
  ::unsetenv("SEXTANT_CACHE");
  ::setenv("XDG_CACHE_HOME", "/xdg", 1);
  options = pull_options_from_environment();
  EXPECT_EQ(options->endpoint, "https://huggingface.co");
  EXPECT_EQ(options->token, "");
  EXPECT_EQ(options->cache_directory, "/xdg/sextant");
  ::unsetenv("XDG_CACHE_HOME");
  ::setenv("HOME", "/home/user", 1);
  EXPECT_EQ(pull_options_from_environment()->cache_directory, "/home/user/.cache/sextant");
}

// A Hub with one repository.
class PullTest : public ::testing::Test {
 protected:
  PullTest() : server_([this](const ScriptedRequest& request) { return answer(request); }) {
    ::setenv("no_proxy", "127.0.0.1", 1);
    options_.endpoint = server_.url() + "/";
    options_.token = "hf_token";
    options_.cache_directory = scratch_.file("cache");
    options_.transfer.sleep = [](std::chrono::milliseconds) {};
    add("config.json", "{}");
    add("tokenizer.json", "{\"a\": 1}");
    add("model.safetensors", std::string(40'000, 'w'));
    add("pytorch_model.bin", "pickle");
  }
  void add(const std::string& name, const std::string& body) {
    const ScratchDirectory scratch;
    files_[name] = body;
    Json entry = {{"rfilename", name}, {"size", body.size()}};
    if (body.size() > 1000) {
      entry["lfs"] = {{"sha256", *sha256_of_file(scratch.write("x", body))}, {"size", body.size()}};
    }
    listing_["siblings"].push_back(entry);
  }
  virtual std::string answer(const ScriptedRequest& request) {
    if (request.path == "/api/models/owner/name/revision/main?blobs=true") return reply("200 OK", {}, listing_.dump());
    const std::string prefix = std::string("/owner/name/resolve/") + kCommit + "/";
    if (!request.path.starts_with(prefix)) return reply("404 Not Found", {}, "");
    const auto file = files_.find(request.path.substr(prefix.size()));
    return file == files_.end() ? reply("404 Not Found", {}, "") : reply("200 OK", {}, file->second);
  }
  Json listing_ = {{"sha", kCommit}, {"siblings", Json::array()}};
  std::map<std::string, std::string> files_;
  ScratchDirectory scratch_;
  PullOptions options_;
  ScriptedHttpServer server_;  // last: its thread uses the others
};

TEST_F(PullTest, FetchesAModelOnceAndReportsProgress) {
  std::vector<PullProgress> reports;
  options_.progress = [&](const PullProgress& report) { reports.push_back(report); };
  auto result = pull("owner/name", options_);
  ASSERT_TRUE(result.ok()) << result.status().message();
  EXPECT_EQ(result->revision, kCommit);
  EXPECT_EQ(result->path, options_.cache_directory + "/hub/owner--name/" + kCommit);
  EXPECT_THAT(result->files, UnorderedElementsAre("config.json", "tokenizer.json", "model.safetensors"));
  EXPECT_EQ(*read_text_file(result->path + "/model.safetensors", 1 << 20), files_["model.safetensors"]);
  const uint64_t total = 2 + 8 + 40'000;
  EXPECT_EQ(result->num_bytes, total);
  EXPECT_EQ(result->num_bytes_received, total);
  ASSERT_FALSE(reports.empty());
  EXPECT_EQ(reports.back().bytes_done, total);
  EXPECT_EQ(reports.back().bytes_total, total);
  for (size_t i = 1; i < reports.size(); ++i) EXPECT_GE(reports[i].bytes_done, reports[i - 1].bytes_done);
  for (const ScriptedRequest& request : server_.requests())
    EXPECT_EQ(request.header("authorization"), "Bearer hf_token");

  const size_t before = server_.num_requests();
  result = pull("owner/name@main", options_);
  ASSERT_TRUE(result.ok());
  EXPECT_EQ(result->num_bytes_received, 0u);
  EXPECT_EQ(server_.num_requests() - before, 1u) << "the listing";
}

TEST_F(PullTest, AFileCutShortOnDiskIsFetchedAgain) {
  const auto first = pull("owner/name", options_);
  ASSERT_TRUE(first.ok());
  std::filesystem::resize_file(first->path + "/model.safetensors", 100);
  const auto second = pull("owner/name", options_);
  ASSERT_TRUE(second.ok()) << second.status().message();
  EXPECT_EQ(*read_text_file(first->path + "/model.safetensors", 1 << 20), files_["model.safetensors"]);
}

TEST_F(PullTest, AGgufRepositoryGivesThePathOfTheFile) {
  listing_["siblings"].clear();
  add("sub/m.Q4_1.gguf", "GGUF");
  const auto result = pull("owner/name", options_);
  ASSERT_TRUE(result.ok()) << result.status().message();
  EXPECT_EQ(*read_text_file(result->path, 100), "GGUF");
  EXPECT_THAT(result->path, ::testing::EndsWith("/sub/m.Q4_1.gguf"));
}

TEST_F(PullTest, WrongContentIsRefused) {
  files_["model.safetensors"][7] = 'x';
  const auto result = pull("owner/name", options_);
  EXPECT_EQ(result.status().code(), StatusCode::kDataLoss);
  EXPECT_FALSE(
      std::filesystem::exists(options_.cache_directory + "/hub/owner--name/" + kCommit + "/model.safetensors"));
}

TEST_F(PullTest, HostileListingsAreRefused) {
  const Json good = listing_;
  const auto error = [&] { return pull("owner/name", options_).status().message(); };
  listing_ = Json::array();
  EXPECT_THAT(error(), HasSubstr("is this a Hugging Face Hub?"));
  for (const Json& commit : {Json("../../x"), Json(""), Json(7), Json("a/b")}) {
    listing_ = good;
    listing_["sha"] = commit;
    EXPECT_THAT(error(), HasSubstr("the commit, is missing or malformed")) << commit;
  }
  listing_ = good;
  listing_["siblings"] = 3;
  EXPECT_THAT(error(), HasSubstr("the list of files"));
  listing_["siblings"] = Json::array({Json{{"size", 3}}});
  EXPECT_THAT(error(), HasSubstr("has no rfilename"));
  listing_["siblings"] = Json::array({Json{{"rfilename", "../../../x.gguf"}, {"size", 3}}});
  EXPECT_THAT(error(), HasSubstr("a name that is not accepted"));
  listing_ = good;
  listing_["siblings"][2]["size"] = uint64_t{1} << 60;
  listing_["siblings"][2]["lfs"]["size"] = uint64_t{1} << 60;
  EXPECT_FALSE(pull("owner/name", options_).ok());
}

TEST_F(PullTest, TwoPullsAtOnceShareTheWork) {
  Result<PullResult> other = internal_error("not run");
  std::thread thread([&] { other = pull("owner/name", options_); });
  const auto result = pull("owner/name", options_);
  thread.join();
  ASSERT_TRUE(result.ok()) << result.status().message();
  ASSERT_TRUE(other.ok()) << other.status().message();
  size_t num_downloads = 0;
  for (const ScriptedRequest& request : server_.requests()) num_downloads += request.path.starts_with("/owner") ? 1 : 0;
  EXPECT_EQ(num_downloads, 3u);
}

TEST_F(PullTest, UnknownRepositoriesAndNames) {
  EXPECT_THAT(pull("owner/other", options_).status().message(), HasSubstr("check the spelling of owner/other"));
  EXPECT_THAT(pull("nonsense", options_).status().message(), HasSubstr("neither a repository"));
  EXPECT_FALSE(pull("file:///etc/passwd", options_).ok());
  EXPECT_FALSE(pull(server_.url() + "/", options_).ok()) << "no file name";
  EXPECT_FALSE(pull(server_.url() + "/%2e%2e", options_).ok());
  options_.endpoint = "ftp://x";
  EXPECT_THAT(pull("owner/name", options_).status().message(), HasSubstr("HF_ENDPOINT"));
}

TEST_F(PullTest, AUrlOfOneFile) {
  ScriptedHttpServer other([](const ScriptedRequest&) { return reply("200 OK", {}, "GGUF..."); });
  auto result = pull(other.url() + "/files/m.gguf?x=1", options_);
  ASSERT_TRUE(result.ok()) << result.status().message();
  EXPECT_EQ(*read_text_file(result->path, 100), "GGUF...");
  EXPECT_EQ(other.requests()[0].header("authorization"), "") << "not the Hub";
  result = pull(other.url() + "/files/m.gguf?x=1", options_);
  EXPECT_EQ(result->num_bytes_received, 0u);
  const auto second = pull(other.url() + "/other/m.gguf", options_);
  EXPECT_NE(second->path, result->path);
}

TEST_F(PullTest, ACacheThatCannotBeWrittenIsNamed) {
  options_.cache_directory = "/dev/null/cache";
  EXPECT_THAT(pull("owner/name", options_).status().message(), HasSubstr("cannot create the directory"));
}

}  // namespace
}  // namespace sextant
