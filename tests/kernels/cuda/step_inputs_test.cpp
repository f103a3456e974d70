#include "kernels/cuda/step_inputs.h"

#include <algorithm>
#include <numeric>

#include "tests/kernels/cuda/cuda_test_support.h"

namespace sextant::kernels::cuda {
namespace {

class LastTokenTest : public SeededTest, public ::testing::Test {};

TEST_F(LastTokenTest, FillsTheNamedPositionsOnly) {
  for (const int32_t count : {1, 31, 300}) {
    std::vector<int32_t> token_ids(1000), sampled(400), positions(token_ids.size()), rows;
    for (int32_t& id : token_ids) id = static_cast<int32_t>(uniform(0, 50000));
    for (int32_t& id : sampled) id = static_cast<int32_t>(uniform(0, 50000));
    std::iota(positions.begin(), positions.end(), 0);
    std::shuffle(positions.begin(), positions.end(), random());
    positions.resize(static_cast<size_t>(count));
    for (int32_t i = 0; i < count; ++i) rows.push_back(static_cast<int32_t>(uniform(0, 399)));
    if (count > 1) {
      positions[1] = -1;
      rows[1] = 1 << 30;  // padding: not read
    }
    std::vector<int32_t> expected = token_ids;
    for (size_t i = 0; i < rows.size(); ++i) {
      if (positions[i] >= 0) expected[static_cast<size_t>(positions[i])] = sampled[static_cast<size_t>(rows[i])];
    }
    under_thread_orders(seed(), [&] {
      DeviceArray<int32_t> to(token_ids), from(sampled), row_list(rows), position_list(positions);
      ASSERT_EQ(last_token_on_device({to.data(), from.data(), row_list.data(), position_list.data(), count}, nullptr),
                0);
      ASSERT_EQ(to.download(), expected);
    });
  }
}

TEST(LastTokenLimits, AreChecked) {
  EXPECT_EQ(last_token_on_device({nullptr, nullptr, nullptr, nullptr, 0}, nullptr), 0);
  EXPECT_NE(last_token_on_device({nullptr, nullptr, nullptr, nullptr, -1}, nullptr), 0);
}

}  // namespace
}  // namespace sextant::kernels::cuda
