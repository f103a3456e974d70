#include "engine/base/nearest.h"

#include <gtest/gtest.h>

namespace sextant {
namespace {

TEST(EditDistance, CountsEachKindOfSlipOnce) {
  EXPECT_EQ(edit_distance("top_p", "top_p"), 0u);
  EXPECT_EQ(edit_distance("top_p", "topp"), 1u);
  EXPECT_EQ(edit_distance("top_p", "top_pp"), 1u);
  EXPECT_EQ(edit_distance("top_p", "top_k"), 1u);
  EXPECT_EQ(edit_distance("seed", "sede"), 1u);
  EXPECT_EQ(edit_distance("", "abc"), 3u);
  EXPECT_EQ(edit_distance("abc", ""), 3u);
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3u);
}

TEST(EditDistance, IgnoresCaseAndDashesAgainstUnderscores) {
  EXPECT_EQ(edit_distance("Max-Model-Len", "max_model_len"), 0u);
}

TEST(NearestName, FindsTheTypo) {
  const std::vector<std::string> names = {"max_tokens", "max_completion_tokens", "temperature", "top_p"};
  EXPECT_EQ(nearest_name("temprature", names), "temperature");
  EXPECT_EQ(nearest_name("max_token", names), "max_tokens");
  EXPECT_EQ(nearest_name("top-P", names), "top_p");
}

TEST(NearestName, ASharedBeginningIsEnough) {
  const std::vector<std::string> names = {"host", "max_model_len"};
  EXPECT_EQ(nearest_name("max_model_length_tokens", names), "max_model_len");
}

TEST(NearestName, SaysNothingWhenNoneIsNear) {
  const std::vector<std::string> names = {"host", "port"};
  EXPECT_EQ(nearest_name("grammar", names), std::nullopt);
  EXPECT_EQ(nearest_name("", names), std::nullopt);
  EXPECT_EQ(nearest_name("port", std::vector<std::string>{}), std::nullopt);
  EXPECT_EQ(nearest_name(std::string(1 << 20, 'p'), names), std::nullopt);
}

}  // namespace
}  // namespace sextant
