#include "engine/sim/time_spec.h"

#include <gtest/gtest.h>

namespace sextant::sim {
namespace {

TEST(TimeSpec, ReadsEachKind) {
  const auto constant = parse_time_spec("constant:ttft=200ms,tpot=50us,jitter=5%");
  ASSERT_TRUE(constant.ok()) << constant.status().message();
  EXPECT_EQ(constant->kind, TimeSpec::Kind::kConstant);
  EXPECT_DOUBLE_EQ(constant->constant.ttft_s, 0.2);
  EXPECT_DOUBLE_EQ(constant->constant.tpot_s, 50e-6);
  EXPECT_DOUBLE_EQ(constant->jitter_cv.value(), 0.05);

  const auto roofline = parse_time_spec("roofline:gpu=H100-SXM5-80GB,compute=60%,bandwidth=0.8,overhead=1ms");
  ASSERT_TRUE(roofline.ok()) << roofline.status().message();
  EXPECT_EQ(roofline->kind, TimeSpec::Kind::kRoofline);
  EXPECT_EQ(roofline->gpu, "H100-SXM5-80GB");
  EXPECT_DOUBLE_EQ(roofline->compute_share, 0.6);
  EXPECT_DOUBLE_EQ(roofline->bandwidth_share, 0.8);
  EXPECT_DOUBLE_EQ(roofline->overhead_s, 1e-3);
  EXPECT_FALSE(roofline->jitter_cv);

  const auto record = parse_time_spec("record:file=/tmp/a=b.jsonl");
  ASSERT_TRUE(record.ok()) << record.status().message();
  EXPECT_EQ(record->file, "/tmp/a=b.jsonl");
  EXPECT_TRUE(parse_time_spec("record").ok());
  EXPECT_TRUE(parse_time_spec("roofline").ok());
  EXPECT_TRUE(parse_time_spec("constant:ttft=0,tpot=0").ok());
}

TEST(TimeSpec, DurationsCarryAUnit) {
  EXPECT_DOUBLE_EQ(parse_duration_s("1.5s").value(), 1.5);
  EXPECT_DOUBLE_EQ(parse_duration_s("200ms").value(), 0.2);
  EXPECT_DOUBLE_EQ(parse_duration_s("3us").value(), 3e-6);
  EXPECT_DOUBLE_EQ(parse_duration_s("7ns").value(), 7e-9);
  EXPECT_DOUBLE_EQ(parse_duration_s("0").value(), 0);
  for (const char* wrong : {"", "s", "ms", "200", "1m", "1 ms", "1e999s", "nans", "infs", "0x10ms", "--1ms"}) {
    EXPECT_FALSE(parse_duration_s(wrong)) << wrong;
  }
}

TEST(TimeSpec, WhatIsWrongIsSaidInOneLine) {
  const struct {
    const char* text;
    const char* says;
  } cases[] = {
      {"", "begins with none of"},
      {"constan:ttft=1ms,tpot=1ms", "begins with none of"},
      {"constant", "needs 'ttft'"},
      {"constant:", "ends with ':'"},
      {"constant:ttft=200ms", "needs 'tpot'"},
      {"constant:ttft=200ms,", "ends with ','"},
      {"constant:ttft=200,tpot=50ms", "'ttft' must be a duration"},
      {"constant:ttft=-1ms,tpot=50ms", "'ttft' must be a duration"},
      {"constant:ttft=1e9s,tpot=50ms", "'ttft' must be a duration"},
      {"constant:ttft,tpot=1ms", "must be key=value"},
      {"constant:ttft=,tpot=1ms", "must be key=value"},
      {"constant:,tpot=1ms", "must be key=value"},
      {"constant:ttf=1ms,tpot=1ms", "did you mean ttft"},
      {"constant:ttft=1ms,ttft=1ms", "twice"},
      {"constant:ttft=1ms,tpot=1ms,gpu=L4", "has no 'gpu' for constant"},
      {"constant:ttft=1ms,tpot=1ms,jitter=nan", "'jitter' must be a share"},
      {"constant:ttft=1ms,tpot=1ms,jitter=501%", "'jitter' must be a share"},
      {"roofline:compute=0", "'compute' must be a share"},
      {"roofline:bandwidth=120%", "'bandwidth' must be a share"},
  };
  for (const auto& c : cases) {
    const auto spec = parse_time_spec(c.text);
    ASSERT_FALSE(spec.ok()) << c.text;
    EXPECT_EQ(spec.status().param(), "time");
    EXPECT_NE(spec.status().message().find(c.says), std::string::npos) << c.text << ": " << spec.status().message();
    EXPECT_EQ(spec.status().message().find('\n'), std::string::npos);
  }
}

}  // namespace
}  // namespace sextant::sim
