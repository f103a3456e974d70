#include "server/cli/answer_stream.h"

#include <random>

#include <gtest/gtest.h>

namespace sextant::cli {
namespace {

const std::string kStream =
    ": a comment\n"
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n"
    "event: message\r\ndata: {\"choices\":[{\"delta\":{\"content\":\"Hé\"}}]}\r\n\r\n"
    "data:{\"choices\":[{\"delta\":{\"content\":\"llo\"},\ndata:\"finish_reason\":\"stop\"}]}\n\n"
    "data: {\"choices\":[],\"usage\":{\"total_tokens\":3}}\n\n"
    "data: [DONE]\n\n";

TEST(AnswerStream, GivesTheTextHoweverTheBytesAreCut) {
  for (uint32_t seed = 0; seed < 50; ++seed) {
    std::mt19937 random(seed);
    std::string pieces;
    AnswerStream stream([&](std::string_view text) { pieces += text; });
    for (size_t at = 0; at < kStream.size();) {
      const size_t num_bytes = seed == 0 ? 1 : 1 + random() % 40;
      stream.append(std::string_view(kStream).substr(at, num_bytes));
      at += num_bytes;
    }
    EXPECT_EQ(stream.text(), "Héllo") << "seed " << seed;
    EXPECT_EQ(pieces, "Héllo");
    EXPECT_EQ(stream.finish_reason(), "stop");
    EXPECT_EQ(stream.error(), "");
    EXPECT_TRUE(stream.done());
  }
}

TEST(AnswerStream, AnUnfinishedStreamIsNotDone) {
  AnswerStream stream([](std::string_view) {});
  stream.append(std::string_view(kStream).substr(0, kStream.size() - 3));
  EXPECT_EQ(stream.text(), "Héllo");
  EXPECT_FALSE(stream.done());
}

TEST(AnswerStream, ErrorsInTheStreamAreReported) {
  AnswerStream stream([](std::string_view) {});
  stream.append("data: {\"error\":{\"message\":\"the device failed\"}}\n\n");
  EXPECT_EQ(stream.error(), "the device failed");
  AnswerStream odd([](std::string_view) {});
  odd.append("data: {\"error\":42}\n\n");
  EXPECT_EQ(odd.error(), "42");
}

TEST(AnswerStream, SurvivesWhatIsNoAnswer) {
  for (const char* data : {"nonsense", "[]", "3", "null", "{\"choices\":"}) {
    AnswerStream stream([](std::string_view) {});
    stream.append("data: " + std::string(data) + "\n\n");
    EXPECT_NE(stream.error(), "") << data;
  }
  for (const char* data : {"{}", "{\"choices\":5}", "{\"choices\":[5]}", "{\"choices\":[{\"delta\":[]}]}",
                           "{\"choices\":[{\"delta\":{\"content\":5}}]}", "{\"choices\":[{\"finish_reason\":1}]}"}) {
    AnswerStream stream([](std::string_view) {});
    stream.append("data: " + std::string(data) + "\n\n");
    EXPECT_EQ(stream.error(), "") << data;
    EXPECT_EQ(stream.text(), "");
  }
}

TEST(AnswerStream, ALineWithoutEndIsAnErrorNotAllOurMemory) {
  AnswerStream stream([](std::string_view) {});
  const std::string block(1 << 20, 'x');
  for (int i = 0; i < 64 && stream.error().empty(); ++i) stream.append(block);
  EXPECT_NE(stream.error(), "");
}

}  // namespace
}  // namespace sextant::cli
