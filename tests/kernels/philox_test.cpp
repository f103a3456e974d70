#include "kernels/philox.h"

#include <gtest/gtest.h>

namespace sextant::kernels {
namespace {

// Known answers of Random123 1.09 (kat_vectors, philox4x32 10 rounds).
TEST(Philox, KnownAnswers) {
  const PhiloxBlock zeros = philox4x32_10(0, 0, 0);
  EXPECT_EQ(zeros.words[0], 0x6627e8d5u);
  EXPECT_EQ(zeros.words[1], 0xe169c58du);
  EXPECT_EQ(zeros.words[2], 0xbc57ac4cu);
  EXPECT_EQ(zeros.words[3], 0x9b00dbd8u);

  const PhiloxBlock ones = philox4x32_10(~uint64_t{0}, ~uint64_t{0}, ~uint64_t{0});
  EXPECT_EQ(ones.words[0], 0x408f276du);
  EXPECT_EQ(ones.words[1], 0x41c83b0eu);
  EXPECT_EQ(ones.words[2], 0xa20bc7c6u);
  EXPECT_EQ(ones.words[3], 0x6d5451fdu);

  // Digits of pi: counter 243f6a88 85a308d3 13198a2e 03707344, key a4093822 299f31d0.
  const PhiloxBlock pi = philox4x32_10(0x299f31d0a4093822u, 0x85a308d3243f6a88u, 0x0370734413198a2eu);
  EXPECT_EQ(pi.words[0], 0xd16cfe09u);
  EXPECT_EQ(pi.words[1], 0x94fdccebu);
  EXPECT_EQ(pi.words[2], 0x5001e420u);
  EXPECT_EQ(pi.words[3], 0x24126ea1u);
}

TEST(Philox, UniformIsInRangeAndKeyedByEachArgument) {
  double sum = 0;
  constexpr int kDraws = 20000;
  for (int i = 0; i < kDraws; ++i) {
    const double u = philox_uniform(7, 0, static_cast<uint64_t>(i));
    ASSERT_GE(u, 0.0);
    ASSERT_LT(u, 1.0);
    sum += u;
  }
  // Standard error of the mean of kDraws uniforms is 0.29 / sqrt(kDraws) = 0.002.
  EXPECT_NEAR(sum / kDraws, 0.5, 0.01);
  EXPECT_NE(philox_uniform(7, 0, 0), philox_uniform(8, 0, 0));
  EXPECT_NE(philox_uniform(7, 0, 0), philox_uniform(7, 1, 0));
  EXPECT_NE(philox_uniform(7, 0, 0), philox_uniform(7, 0, 1));
  EXPECT_EQ(philox_uniform(7, 3, 9), philox_uniform(7, 3, 9));
}

}  // namespace
}  // namespace sextant::kernels
