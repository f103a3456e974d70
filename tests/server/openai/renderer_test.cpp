#include "server/openai/renderer.h"

#include <gtest/gtest.h>

namespace sextant::openai {
namespace {

// Clients must not see which way a chunk was written.
TEST(AppendJsonString, WritesWhatTheSerialiserWrites) {
  std::vector<std::string> texts = {"",
                                    "plain",
                                    "\"\\/\b\f\n\r\t",
                                    "h\xc3\xa9llo \xe2\x82\xac \xf0\x9f\x98\x80",
                                    "cut \xe2\x82",
                                    std::string("\0x", 2)};
  for (int byte = 0; byte < 256; ++byte) texts.push_back(std::string("a") + static_cast<char>(byte) + "b");
  for (const std::string& text : texts) {
    std::string out = "before";
    append_json_string(text, &out);
    EXPECT_EQ(out, "before" + dump_json(text));
  }
}

}  // namespace
}  // namespace sextant::openai
