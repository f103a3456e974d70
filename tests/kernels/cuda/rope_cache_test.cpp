#include "kernels/cuda/rope_cache.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "tests/kernels/cuda/cuda_test_support.h"

namespace sextant::kernels::cuda {
namespace {

struct Shape {
  int32_t num_heads;
  int32_t num_kv_heads;
  int32_t head_dim_qk;
  int32_t head_dim_v;
  int32_t rotary_dim;
};

class RopeCacheTest : public ::testing::TestWithParam<ElementType>, public SeededTest {};

TEST_P(RopeCacheTest, RotatesInPlaceAndWritesTheCache) {
  // SmolLM2's, partial rotation, none, pairs that no vector of 8 holds, values of another size.
  for (const Shape shape : {Shape{9, 3, 64, 64, 64}, Shape{4, 4, 80, 80, 32}, Shape{2, 1, 64, 64, 0},
                            Shape{4, 2, 96, 96, 20}, Shape{3, 1, 192, 128, 64}, Shape{40, 8, 128, 128, 128}}) {
    const int32_t rows = 5, num_blocks = 4, num_positions = 300, half = shape.rotary_dim / 2;
    const KvLayout layout{shape.num_kv_heads, shape.head_dim_qk, shape.head_dim_v};
    const int32_t qk_heads = shape.num_heads + shape.num_kv_heads;
    const int32_t cols = qk_heads * shape.head_dim_qk + shape.num_kv_heads * shape.head_dim_v, stride = cols + 8;
    std::vector<float> cos, sin;
    if (half == 0) cos = sin = {NAN};  // not read
    for (int32_t p = 0; p < num_positions; ++p) {
      for (int32_t i = 0; i < half; ++i) {
        const double angle = p * std::pow(10000.0, -2.0 * i / shape.rotary_dim);
        cos.push_back(static_cast<float>(std::cos(angle)));
        sin.push_back(static_cast<float>(std::sin(angle)));
      }
    }
    std::vector<int64_t> slots(static_cast<size_t>(num_blocks * kBlockSlots));
    std::iota(slots.begin(), slots.end(), 0);
    std::shuffle(slots.begin(), slots.end(), random());
    slots.resize(rows);
    std::vector<int32_t> positions;
    for (int32_t t = 0; t < rows; ++t) positions.push_back(static_cast<int32_t>(uniform(0, num_positions - 1)));
    const std::vector<uint16_t> before = to_16_bit(normals(int64_t{rows} * stride), GetParam());
    const std::vector<float> x = from_16_bit(before, GetParam());
    under_thread_orders(seed(), [&] {
      DeviceArray<uint16_t> qkv(before);
      // 0xffff is a NaN that no rounding gives: what still is, was not written.
      DeviceArray<uint16_t> keys(
          std::vector<uint16_t>(static_cast<size_t>(num_blocks * layout.keys_per_block()), 0xffff));
      DeviceArray<uint16_t> values(
          std::vector<uint16_t>(static_cast<size_t>(num_blocks * layout.values_per_block()), 0xffff));
      DeviceArray<float> cos_on_device(cos), sin_on_device(sin);
      DeviceArray<int32_t> positions_on_device(positions);
      DeviceArray<int64_t> slots_on_device(slots);
      ASSERT_EQ(rope_and_cache({qkv.data(), stride, GetParam(), rows, shape.num_heads, layout, shape.rotary_dim,
                                cos_on_device.data(), sin_on_device.data(), positions_on_device.data(),
                                slots_on_device.data(), keys.data(), values.data()},
                               nullptr),
                0);
      const std::vector<uint16_t> after = qkv.download();
      const std::vector<float> got = from_16_bit(after, GetParam());
      std::vector<uint16_t> keys_left = keys.download(), values_left = values.download();
      for (int32_t t = 0; t < rows; ++t) {
        const auto row = static_cast<size_t>(t * stride);
        const int64_t slot = slots[static_cast<size_t>(t)];
        const int64_t block = slot / kBlockSlots;
        const auto place = static_cast<int32_t>(slot % kBlockSlots);
        for (int32_t h = 0; h < qk_heads; ++h) {
          const size_t at = row + static_cast<size_t>(h * shape.head_dim_qk);
          std::vector<double> head(x.begin() + static_cast<int64_t>(at),
                                   x.begin() + static_cast<int64_t>(at) + shape.head_dim_qk);
          ref::rope(head, positions[static_cast<size_t>(t)], shape.rotary_dim, 10000.0);
          for (int32_t d = 0; d < shape.head_dim_qk; ++d) {
            const size_t i = at + static_cast<size_t>(d);
            if (d >= shape.rotary_dim) {
              ASSERT_EQ(after[i], before[i]) << "row " << t << " head " << h << " d " << d;
            } else {
              const double size =
                  std::fabs(x[i]) + std::fabs(x[at + static_cast<size_t>((d + half) % shape.rotary_dim)]);
              // cos and sin, two products and a sum of at most `size`; one rounding to the type (fp16: or half its
              // subnormal).
              const double bound = 4 * kEpsilon * size * (1 + epsilon(GetParam())) +
                                   epsilon(GetParam()) * std::fabs(head[static_cast<size_t>(d)]) +
                                   (GetParam() == ElementType::kFloat16 ? 0x1p-25 : 0);
              ASSERT_NEAR(got[i], head[static_cast<size_t>(d)], bound)
                  << "row " << t << " head " << h << " d " << d << " seed " << seed();
            }
            if (h < shape.num_heads) continue;
            auto& stored = keys_left[static_cast<size_t>(layout.key_offset(block, h - shape.num_heads, place) + d)];
            ASSERT_EQ(stored, after[i]);
            stored = 0xffff;
          }
        }
        for (int32_t h = 0; h < shape.num_kv_heads; ++h) {
          for (int32_t d = 0; d < shape.head_dim_v; ++d) {
            const size_t i = row + static_cast<size_t>(qk_heads * shape.head_dim_qk + h * shape.head_dim_v + d);
            ASSERT_EQ(after[i], before[i]);
            auto& stored = values_left[static_cast<size_t>(layout.value_offset(block, h, place) + d)];
            ASSERT_EQ(stored, after[i]);
            stored = 0xffff;
          }
        }
        for (int32_t i = cols; i < stride; ++i) {
          ASSERT_EQ(after[row + static_cast<size_t>(i)], before[row + static_cast<size_t>(i)]);
        }
      }
      // Nothing but the rows' slots was written.
      const auto untouched = [](uint16_t bits) { return bits == 0xffff; };
      ASSERT_TRUE(std::all_of(keys_left.begin(), keys_left.end(), untouched));
      ASSERT_TRUE(std::all_of(values_left.begin(), values_left.end(), untouched));
    });
  }
}

TEST_P(RopeCacheTest, LimitsAreChecked) {
  alignas(16) uint16_t memory[8] = {};
  RopeCacheArgs valid = {};
  valid.qkv = valid.keys = valid.values = memory;
  valid.cos = valid.sin = reinterpret_cast<const float*>(memory);
  valid.type = GetParam();
  valid.num_heads = 2;
  valid.layout = {1, 64, 64};
  valid.rotary_dim = 64;
  EXPECT_EQ(rope_and_cache(valid, nullptr), 0);  // no rows
  valid.rows = 1;
  const auto refused = [&](auto change) {
    RopeCacheArgs args = valid;
    change(args);
    return rope_and_cache(args, nullptr) != 0;
  };
  EXPECT_TRUE(refused([](RopeCacheArgs& a) { a.rows = -1; }));
  EXPECT_TRUE(refused([](RopeCacheArgs& a) { a.rotary_dim = 66; }));
  EXPECT_TRUE(refused([](RopeCacheArgs& a) { a.rotary_dim = 31; }));
  EXPECT_TRUE(refused([](RopeCacheArgs& a) { a.layout.head_dim_v = 24; }));
  EXPECT_TRUE(refused([](RopeCacheArgs& a) { a.qkv_stride = 12; }));
  EXPECT_TRUE(refused([](RopeCacheArgs& a) { a.type = ElementType::kFloat32; }));
  EXPECT_TRUE(refused([](RopeCacheArgs& a) { a.cos = nullptr; }));
  EXPECT_TRUE(refused([](RopeCacheArgs& a) { a.values = static_cast<char*>(a.values) + 8; }));
}

INSTANTIATE_TEST_SUITE_P(Types, RopeCacheTest, ::testing::Values(ElementType::kBFloat16, ElementType::kFloat16),
                         [](const auto& type) {
                           return std::string(type.param == ElementType::kBFloat16 ? "bf16" : "fp16");
                         });

}  // namespace
}  // namespace sextant::kernels::cuda
