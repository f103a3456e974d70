#include "server/cli/serve_options.h"

#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/scratch_directory.h"

namespace sextant::cli {
namespace {

using testing::HasSubstr;

const Environment kNoEnvironment = [](const char*) { return nullptr; };

class ServeOptionsTest : public testing::Test {
 protected:
  void write_config(const std::string& text) { arguments_.config_path = directory_.write("config.json", text); }
  std::vector<Status> resolve(const Environment& environment = kNoEnvironment) {
    return resolve_serve_options(arguments_, environment, options_);
  }
  std::string all_messages(const std::vector<Status>& errors) {
    std::string text;
    for (const Status& error : errors) text += error.message() + "\n";
    return text;
  }

  ServeArguments arguments_;
  ServeOptions options_;
  ScratchDirectory directory_;
};

TEST_F(ServeOptionsTest, TheModelIsEnough) {
  arguments_.positional_model = "model.gguf";
  EXPECT_EQ(all_messages(resolve()), "");
  EXPECT_EQ(options_.engine.model.model, "model.gguf");
  EXPECT_EQ(options_.server.host, "127.0.0.1");
}

TEST_F(ServeOptionsTest, FlagsWinOverTheFile) {
  write_config(R"({"model": "a.gguf", "port": 1111, "max_num_seqs": 7, "api_key": "from-file"})");
  arguments_.flags = {{"port", "2222"}, {"port", "3333"}};
  EXPECT_EQ(all_messages(resolve()), "");
  EXPECT_EQ(options_.server.port, 3333);
  EXPECT_EQ(options_.engine.scheduler.max_num_seqs, 7);
  EXPECT_EQ(options_.server.api_key, "from-file");
}

TEST_F(ServeOptionsTest, TheKeyComesFromFlagThenEnvironmentThenFile) {
  write_config(R"({"model": "a.gguf", "api_key": "from-file"})");
  const Environment environment = [](const char* name) {
    return std::string(name) == "SEXTANT_API_KEY" ? "from-environment" : nullptr;
  };
  EXPECT_EQ(all_messages(resolve(environment)), "");
  EXPECT_EQ(options_.server.api_key, "from-environment");
  arguments_.flags = {{"api_key", "from-flag"}};
  EXPECT_EQ(all_messages(resolve(environment)), "");
  EXPECT_EQ(options_.server.api_key, "from-flag");
}

TEST_F(ServeOptionsTest, AllErrorsComeAtOnce) {
  write_config(R"({"prot": 1, "share": 2})");
  arguments_.flags = {{"port", "70000"}, {"max_num_seqs", "many"}, {"dtype", "int3"}, {"log_format", "xml"}};
  const std::string messages = all_messages(resolve());
  EXPECT_THAT(messages, HasSubstr("unknown key 'prot'; did you mean 'port'?"));
  EXPECT_THAT(messages, HasSubstr("unknown key 'share'"));
  EXPECT_THAT(messages, HasSubstr("port must be between 0 and 65535, not 70000"));
  EXPECT_THAT(messages, HasSubstr("max_num_seqs must be a whole number, not 'many'"));
  EXPECT_THAT(messages, HasSubstr("dtype must be one of"));
  EXPECT_THAT(messages, HasSubstr("log_format must be text or json"));
  EXPECT_THAT(messages, HasSubstr("model is required"));
}

TEST_F(ServeOptionsTest, AnOpenHostNeedsAKeyOrThePlainWord) {
  arguments_.positional_model = "m.gguf";
  arguments_.flags = {{"host", "0.0.0.0"}};
  EXPECT_THAT(all_messages(resolve()), HasSubstr("--allow-unauthenticated"));
  arguments_.flags = {{"host", "0.0.0.0"}, {"api_key", "k"}};
  EXPECT_EQ(all_messages(resolve()), "");
  options_ = {};
  arguments_.flags = {{"host", "0.0.0.0"}, {"allow_unauthenticated", "true"}};
  EXPECT_EQ(all_messages(resolve()), "");
}

TEST(LoopbackHost, IsWhatOnlyThisMachineReaches) {
  for (const char* host : {"127.0.0.1", "127.8.9.10", "::1", "localhost"}) EXPECT_TRUE(is_loopback_host(host)) << host;
  for (const char* host : {"0.0.0.0", "::", "10.0.0.1", "192.168.1.1", "example.org", "", "127.0.0.1.example.org",
                           "localhost.example.org"}) {
    EXPECT_FALSE(is_loopback_host(host)) << host;
  }
}

TEST_F(ServeOptionsTest, PrintingNeedsNoModelButValidSettings) {
  arguments_.print_config = true;
  EXPECT_EQ(all_messages(resolve()), "");
  arguments_.flags = {{"port", "-1"}};
  EXPECT_THAT(all_messages(resolve()), HasSubstr("port must be"));
}

TEST_F(ServeOptionsTest, WhatIsPrintedReadsBackTheSame) {
  arguments_.flags = {{"port", "9"},
                      {"host", "::1"},
                      {"gpu_memory_utilization", "0.3"},
                      {"enable_prefix_caching", "false"},
                      {"kv_cache_memory_bytes", "64M"},
                      {"log_level", "debug"}};
  arguments_.print_config = true;
  EXPECT_EQ(all_messages(resolve()), "");
  const std::string printed = to_json(options_.settings()).dump();
  ServeOptions read;
  write_config(printed);
  ServeArguments from_file;
  from_file.config_path = arguments_.config_path;
  from_file.print_config = true;
  EXPECT_TRUE(resolve_serve_options(from_file, kNoEnvironment, read).empty());
  EXPECT_EQ(to_json(read.settings()).dump(), printed);
  EXPECT_EQ(read.engine.cache.kv_cache_memory_bytes, 64 << 20);
}

TEST_F(ServeOptionsTest, ConfigFilesThatCannotBeRead) {
  arguments_.positional_model = "m.gguf";
  for (const char* path : {"/nonexistent/config.json", "/", "/dev/zero"}) {
    arguments_.config_path = path;
    const auto errors = resolve();
    ASSERT_EQ(errors.size(), 1u) << path;
    EXPECT_THAT(errors[0].message(), HasSubstr(path));
  }
}

TEST_F(ServeOptionsTest, AModelGivenTwiceIsAnError) {
  arguments_.positional_model = "a.gguf";
  arguments_.flags = {{"model", "b.gguf"}};
  EXPECT_THAT(all_messages(resolve()), HasSubstr("model is given twice"));
}

TEST(ServerConfig, EveryKeyIsUniqueAcrossEngineAndServer) {
  ServeOptions options;
  std::set<std::string> keys;
  for (const Setting& setting : options.settings()) EXPECT_TRUE(keys.insert(setting.key).second) << setting.key;
  EXPECT_GT(keys.size(), 30u);
}

}  // namespace
}  // namespace sextant::cli
