#include "server/cli/settings.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/config.h"

namespace sextant::cli {
namespace {

using testing::HasSubstr;

struct Fields {
  std::string host = "here";
  int64_t port = 8000;
  int64_t cache_bytes = 0;
  double share = 0.5;
  bool enable_reuse = true;
  std::string api_key;

  std::vector<Setting> settings() {
    std::vector<Setting> result;
    SettingCollector collect(result);
    collect("host", host, "where");
    collect("port", port, "which");
    collect("cache_bytes", cache_bytes, "how much");
    collect("share", share, "part");
    collect("enable_reuse", enable_reuse, "again");
    collect("api_key", api_key, "secret");
    return result;
  }
};

TEST(Settings, FlagsHaveDashes) {
  EXPECT_EQ(flag_of("max_model_len"), "--max-model-len");
  EXPECT_EQ(flag_of("port"), "--port");
}

TEST(Settings, BytesTakeBinaryAndDecimalUnits) {
  EXPECT_EQ(parse_bytes("0"), 0);
  EXPECT_EQ(parse_bytes("4096"), 4096);
  EXPECT_EQ(parse_bytes("4096B"), 4096);
  EXPECT_EQ(parse_bytes("2K"), 2048);
  EXPECT_EQ(parse_bytes("2k"), 2048);
  EXPECT_EQ(parse_bytes("2KiB"), 2048);
  EXPECT_EQ(parse_bytes("2KB"), 2000);
  EXPECT_EQ(parse_bytes("512M"), int64_t{512} << 20);
  EXPECT_EQ(parse_bytes("1.5GiB"), int64_t{3} << 29);
  EXPECT_EQ(parse_bytes("1.5 GiB"), int64_t{3} << 29);
  EXPECT_EQ(parse_bytes("1T"), int64_t{1} << 40);
  EXPECT_EQ(parse_bytes("9223372036854775807"), std::numeric_limits<int64_t>::max());
  for (const char* wrong :
       {"", "K", "-1", "1.5", "1X", "1KBB", "1 2", ".", "9223372036854775808", "99999999999T", "1e3", "nan", "0x10"}) {
    EXPECT_EQ(parse_bytes(wrong), std::nullopt) << wrong;
  }
}

TEST(Settings, TextIsReadByType) {
  Fields fields;
  const auto settings = fields.settings();
  EXPECT_TRUE(set_from_text(settings[0], "there").ok());
  EXPECT_TRUE(set_from_text(settings[1], "-7").ok());
  EXPECT_TRUE(set_from_text(settings[2], "1M").ok());
  EXPECT_TRUE(set_from_text(settings[3], "0.25").ok());
  EXPECT_TRUE(set_from_text(settings[4], "false").ok());
  EXPECT_EQ(fields.host, "there");
  EXPECT_EQ(fields.port, -7);
  EXPECT_EQ(fields.cache_bytes, 1 << 20);
  EXPECT_EQ(fields.share, 0.25);
  EXPECT_FALSE(fields.enable_reuse);
}

TEST(Settings, WrongTextNamesTheKeyAndLeavesTheField) {
  Fields fields;
  const auto settings = fields.settings();
  for (const auto& [idx, text] : std::vector<std::pair<int, std::string>>{{1, "80a"},
                                                                          {1, ""},
                                                                          {1, "1.5"},
                                                                          {1, "99999999999999999999"},
                                                                          {2, "lots"},
                                                                          {3, "half"},
                                                                          {3, "nan"},
                                                                          {3, "inf"},
                                                                          {4, "maybe"}}) {
    const Status status = set_from_text(settings[idx], text);
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument) << text;
    EXPECT_EQ(status.param(), settings[idx].key);
    EXPECT_THAT(status.message(), HasSubstr(settings[idx].key + " must be"));
    EXPECT_THAT(status.message(), HasSubstr("'" + text + "'"));
  }
  EXPECT_EQ(fields.port, 8000);
  EXPECT_EQ(fields.share, 0.5);
  EXPECT_TRUE(fields.enable_reuse);
}

TEST(Settings, ConfigTextFillsFieldsAndAcceptsDashes) {
  Fields fields;
  const auto errors = apply_config_text(
      fields.settings(), R"({"host": "x", "port": 1, "cache-bytes": "2G", "share": 1, "enable_reuse": false})",
      "c.json");
  EXPECT_TRUE(errors.empty());
  EXPECT_EQ(fields.host, "x");
  EXPECT_EQ(fields.port, 1);
  EXPECT_EQ(fields.cache_bytes, int64_t{2} << 30);
  EXPECT_EQ(fields.share, 1.0);
  EXPECT_FALSE(fields.enable_reuse);
}

TEST(Settings, ConfigTextGivesEveryErrorWithTheNearestKey) {
  Fields fields;
  const auto errors = apply_config_text(
      fields.settings(), R"({"prot": 1, "port": "8000", "share": "x", "enable_reuse": 1, "host": null, "zzz": {}})",
      "c.json");
  ASSERT_EQ(errors.size(), 6u);
  std::string all;
  for (const Status& error : errors) {
    EXPECT_THAT(error.message(), HasSubstr("c.json: "));
    all += error.message() + "\n";
  }
  EXPECT_THAT(all, HasSubstr("unknown key 'prot'; did you mean 'port'?"));
  EXPECT_THAT(all, HasSubstr("unknown key 'zzz'\n"));
  EXPECT_THAT(all, HasSubstr("port must be a whole number, not \"8000\""));
  EXPECT_THAT(all, HasSubstr("enable_reuse must be true or false, not 1"));
  EXPECT_THAT(all, HasSubstr("host must be text, not null"));
}

TEST(Settings, WhatIsNoConfigIsOneError) {
  Fields fields;
  for (const char* text : {"", "{", "[]", "3", "\"host\"", "{\"port\": 1} x", "{'port': 1}", "\xff\xfe"}) {
    EXPECT_EQ(apply_config_text(fields.settings(), text, "c.json").size(), 1u) << text;
  }
  EXPECT_EQ(apply_config_text(fields.settings(), std::string(100000, '['), "c.json").size(), 1u);
  const auto too_large = apply_config_text(fields.settings(), R"({"port": 18446744073709551615})", "c.json");
  ASSERT_EQ(too_large.size(), 1u);
  EXPECT_EQ(fields.port, 8000);
}

TEST(Settings, SecretsAreHiddenAndNotReadBack) {
  Fields fields;
  EXPECT_EQ(to_json(fields.settings())["api_key"], "");
  fields.api_key = "sk-hidden";
  const std::string printed = to_json(fields.settings()).dump();
  EXPECT_EQ(printed.find("sk-hidden"), std::string::npos);
  EXPECT_THAT(printed, HasSubstr(R"("api_key":"***")"));
  const auto errors = apply_config_text(fields.settings(), printed, "c.json");
  ASSERT_EQ(errors.size(), 1u);
  EXPECT_THAT(errors[0].message(), HasSubstr("api_key is hidden"));
  const auto wrong = apply_config_text(fields.settings(), R"({"api_key": ["sk-in-a-list"]})", "c.json");
  ASSERT_EQ(wrong.size(), 1u);
  EXPECT_EQ(wrong[0].message().find("sk-in-a-list"), std::string::npos);
}

TEST(Settings, EveryEngineSettingSurvivesPrintingAndReading) {
  EngineConfig config;
  std::vector<Setting> settings;
  visit_engine_config(config, SettingCollector(settings));
  int64_t number = 100;
  for (const Setting& setting : settings) {
    const auto* text = std::get_if<std::string*>(&setting.field);
    if (text != nullptr && !setting.is_secret()) **text = "text " + setting.key;  // those are never read back
    if (const auto* integer = std::get_if<int64_t*>(&setting.field)) **integer = ++number;
    if (const auto* real = std::get_if<double*>(&setting.field)) **real = 0.123456789012345678;
    if (const auto* flag = std::get_if<bool*>(&setting.field)) **flag = !**flag;
  }
  const auto printed = to_json(settings);
  EXPECT_EQ(printed.size(), settings.size());
  EngineConfig read;
  std::vector<Setting> read_settings;
  visit_engine_config(read, SettingCollector(read_settings));
  EXPECT_TRUE(apply_config_text(read_settings, printed.dump(), "c.json").empty());
  EXPECT_EQ(to_json(read_settings).dump(), printed.dump());
}

}  // namespace
}  // namespace sextant::cli
