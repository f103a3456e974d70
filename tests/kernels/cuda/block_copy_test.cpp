#include "kernels/cuda/block_copy.h"

#include <algorithm>
#include <memory>
#include <numeric>

#include "tests/kernels/cuda/cuda_test_support.h"

namespace sextant::kernels::cuda {
namespace {

class BlockCopyTest : public SeededTest, public ::testing::Test {};

TEST_F(BlockCopyTest, CopiesTheNamedBlocksOfEveryArrayAndNothingElse) {
  // Less than a thread block's share, exactly one, and one with a rest.
  for (const int64_t block_bytes : {int64_t{16}, int64_t{16384}, int64_t{16384 + 4112}}) {
    const int32_t num_blocks = 11, num_arrays = 3;
    const auto words = static_cast<size_t>(block_bytes / 4);
    std::vector<std::vector<uint32_t>> before;
    for (int32_t a = 0; a < num_arrays; ++a) {
      std::vector<uint32_t> values(words * num_blocks);
      for (uint32_t& v : values) v = static_cast<uint32_t>(random()());
      before.push_back(values);
    }
    std::vector<int32_t> ids(num_blocks);
    std::iota(ids.begin(), ids.end(), 0);
    std::shuffle(ids.begin(), ids.end(), random());
    // One source twice; one pair of padding.
    const std::vector<int32_t> pairs = {ids[0], ids[1], ids[0], ids[2], ids[3], -1, ids[4], ids[5]};
    under_thread_orders(seed(), [&] {
      std::vector<std::unique_ptr<DeviceArray<uint32_t>>> arrays;
      std::vector<void*> bases;
      for (const auto& values : before) {
        arrays.push_back(std::make_unique<DeviceArray<uint32_t>>(values));
        bases.push_back(arrays.back()->data());
      }
      DeviceArray<void*> base_list(bases);
      DeviceArray<int32_t> pair_list(pairs);
      ASSERT_EQ(block_copy({base_list.data(), num_arrays, block_bytes, pair_list.data(), 4}, nullptr), 0);
      for (size_t a = 0; a < arrays.size(); ++a) {
        std::vector<uint32_t> expected = before[a];
        for (size_t p = 0; p < pairs.size(); p += 2) {
          if (pairs[p + 1] < 0) continue;
          std::copy_n(before[a].begin() + static_cast<std::ptrdiff_t>(static_cast<size_t>(pairs[p]) * words), words,
                      expected.begin() + static_cast<std::ptrdiff_t>(static_cast<size_t>(pairs[p + 1]) * words));
        }
        ASSERT_EQ(arrays[a]->download(), expected) << block_bytes << " bytes, array " << a;
      }
    });
  }
}

TEST(BlockCopyLimits, AreChecked) {
  EXPECT_EQ(block_copy({nullptr, 2, 32, nullptr, 0}, nullptr), 0);
  EXPECT_NE(block_copy({nullptr, 2, 24, nullptr, 1}, nullptr), 0);
  EXPECT_NE(block_copy({nullptr, 2, 0, nullptr, 1}, nullptr), 0);
  EXPECT_NE(block_copy({nullptr, 2, 32, nullptr, -1}, nullptr), 0);
  EXPECT_NE(block_copy({nullptr, 65536, 32, nullptr, 1}, nullptr), 0);
}

}  // namespace
}  // namespace sextant::kernels::cuda
