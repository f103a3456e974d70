#include "server/cli/progress_bar.h"

#include <cstdio>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace sextant::cli {
namespace {

using testing::HasSubstr;

constexpr uint64_t kMiB = 1 << 20;
constexpr int64_t kSecondNs = 1'000'000'000;

class ProgressBarTest : public testing::Test {
 protected:
  ~ProgressBarTest() override { std::fclose(out_); }
  std::string written() {
    std::fflush(out_);
    std::rewind(out_);
    std::string text(1 << 16, '\0');
    text.resize(std::fread(text.data(), 1, text.size(), out_));
    return text;
  }
  std::FILE* out_ = std::tmpfile();
  ManualClock clock_;
};

TEST(HumanSizes, AreShort) {
  EXPECT_EQ(human_bytes(0), "0 B");
  EXPECT_EQ(human_bytes(1023), "1023 B");
  EXPECT_EQ(human_bytes(1536), "1.5 KiB");
  EXPECT_EQ(human_bytes(3.0 * (1ull << 40)), "3.0 TiB");
  EXPECT_EQ(human_bytes(5000.0 * (1ull << 40)), "5000.0 TiB");
  EXPECT_EQ(human_duration(0.2), "1 s");
  EXPECT_EQ(human_duration(200), "3 min 20 s");
  EXPECT_EQ(human_duration(7500), "2 h 5 min");
  EXPECT_EQ(human_duration(-1), "0 s");
}

TEST_F(ProgressBarTest, ShowsRateAndTimeLeft) {
  ProgressBar bar(out_, false, clock_);
  bar.update("m.gguf", 0, 100 * kMiB);
  clock_.advance_ns(2 * kSecondNs);
  bar.update("m.gguf", 20 * kMiB, 100 * kMiB);
  EXPECT_EQ(bar.text("m.gguf", 20 * kMiB, 100 * kMiB), "m.gguf  20%  20.0 MiB of 100.0 MiB  10.0 MiB/s  8 s left");
}

TEST_F(ProgressBarTest, TheRateIsOfTheLastSeconds) {
  ProgressBar bar(out_, false, clock_);
  for (int second = 0; second <= 30; ++second) {
    bar.update("m", static_cast<uint64_t>(second < 10 ? second * 100 : 1000 + (second - 10)) * kMiB, 10000 * kMiB);
    clock_.advance_ns(kSecondNs);
  }
  EXPECT_THAT(bar.text("m", 1020 * kMiB, 10000 * kMiB), HasSubstr("  1.0 MiB/s"));
}

TEST_F(ProgressBarTest, PlainLinesComeSeldom) {
  ProgressBar bar(out_, false, clock_);
  for (int i = 0; i <= 100; ++i) {
    bar.update("m", static_cast<uint64_t>(i), 100);
    clock_.advance_ns(kSecondNs / 10);
  }
  const std::string text = written();
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 3);  // the first, one after 5 s, the last
  EXPECT_EQ(text.find('\r'), std::string::npos);
  EXPECT_THAT(text, HasSubstr("100%"));
}

TEST_F(ProgressBarTest, ATerminalLineIsRedrawnAndEnded) {
  {
    ProgressBar bar(out_, true, clock_);
    bar.update("a-long-name.safetensors", 1, 2);
    clock_.advance_ns(kSecondNs);
    bar.update("b", 2, 2);
  }
  const std::string text = written();
  EXPECT_EQ(std::count(text.begin(), text.end(), '\r'), 2);
  EXPECT_TRUE(text.ends_with("\n"));
  const size_t second = text.rfind('\r');
  EXPECT_GE(text.size() - second - 2, second - 1) << "the longer line before must be covered";
}

TEST_F(ProgressBarTest, UnknownAndZeroTotals) {
  ProgressBar bar(out_, false, clock_);
  EXPECT_EQ(bar.text("m", 2048, std::nullopt), "m  2.0 KiB");
  EXPECT_EQ(bar.text("m", 0, 0), "m  0 B");
  bar.update("m", 100, std::nullopt);
  bar.update("m", 5, 3);  // begun anew, and more than announced
  EXPECT_THAT(bar.text("m", 5, 3), HasSubstr("100%"));
}

}  // namespace
}  // namespace sextant::cli
