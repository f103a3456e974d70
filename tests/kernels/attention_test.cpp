// Rotary embedding, cache writes and attention over the paged cache, on every instruction set and cache type, against fp64; and
// the bitwise invariance of attention. Blocks are scattered over the cache, and every slot that holds nothing is NaN.
#include "kernels/attention.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <tuple>

#include "tests/kernels/op_test_support.h"

namespace sextant::kernels {
namespace {

struct Shape {
  int32_t group;  // query heads per KV head
  int32_t num_kv_heads;
  int32_t head_dim;
  int32_t block_size;
  int32_t window;
  float softcap;
};

// One sequence's keys and values, [position][kv_head][dim], as the cache's type holds them.
struct Sequence {
  int32_t length;
  std::vector<float> keys;
  std::vector<float> values;
  std::vector<int32_t> block_table;
};

class AttentionTest : public testing::TestWithParam<std::tuple<const cpu::KernelTable*, KvType>>, public SeededTest {
 protected:
  const cpu::KernelTable& kernels() const { return *std::get<0>(GetParam()); }
  KvType type() const { return std::get<1>(GetParam()); }
  bool is_bf16() const { return type() == KvType::kBf16; }
  bool is_int8() const { return type() == KvType::kInt8; }
  // Where products of pairs of bf16 are used.
  bool rounds() const {
    return type() != KvType::kFp32 && (kernels().isa == cpu::Isa::kAvx512Bf16 || kernels().isa == cpu::Isa::kAmx);
  }

  void make_cache(const Shape& shape, int32_t length) {
    layout_ = {shape.block_size, shape.num_kv_heads, shape.head_dim};
    const int32_t num_blocks = (length + shape.block_size - 1) / shape.block_size;
    const int32_t cache_blocks = 2 * num_blocks + 3;
    const auto elements = static_cast<size_t>(cache_blocks * layout_.block_elements(type()));
    cache_.assign(elements, NAN);
    cache_int8_.assign(elements, 0xff);  // as a scale: NaN
    sequence_ = {length,
                 normals(int64_t{length} * shape.num_kv_heads * shape.head_dim),
                 normals(int64_t{length} * shape.num_kv_heads * shape.head_dim),
                 {}};
    std::vector<int32_t> ids(static_cast<size_t>(cache_blocks - 1));
    std::iota(ids.begin(), ids.end(), 1);
    std::shuffle(ids.begin(), ids.end(), random());
    sequence_.block_table.assign(ids.begin(), ids.begin() + num_blocks);
    if (is_bf16()) {
      for (float& x : sequence_.keys) x = ref::f32_of_bf16(ref::bf16_of_f32(x));
      for (float& x : sequence_.values) x = ref::f32_of_bf16(ref::bf16_of_f32(x));
    }
    for (int32_t j = 0; j < length; ++j) {
      const int64_t block = sequence_.block_table[static_cast<size_t>(j / shape.block_size)];
      for (int32_t h = 0; h < shape.num_kv_heads; ++h) {
        if (is_int8()) {
          make_int8(block, h, j);
          continue;
        }
        for (int32_t d = 0; d < shape.head_dim; ++d) {
          const auto from = static_cast<size_t>((int64_t{j} * shape.num_kv_heads + h) * shape.head_dim + d);
          cache_[static_cast<size_t>(layout_.key_offset(block, h, j % shape.block_size, d, type()))] =
              sequence_.keys[from];
          cache_[static_cast<size_t>(layout_.value_offset(block, h, j % shape.block_size, d, type()))] =
              sequence_.values[from];
        }
      }
    }
    cache_bf16_.clear();
    for (const float x : cache_) cache_bf16_.push_back(ref::bf16_of_f32(x));
  }

  // Position j's key and value as random integers and scales of 8 bits, so that their products are exact in fp32.
  void make_int8(int64_t block, int32_t head, int32_t j) {
    const int32_t place = j % layout_.block_size;
    const auto from = static_cast<size_t>((int64_t{j} * layout_.num_kv_heads + head) * layout_.head_dim);
    for (const bool is_key : {true, false}) {
      const float scale =
          ref::f32_of_bf16(ref::bf16_of_f32(static_cast<float>(uniform(1, 1000)) * (is_key ? 0.00004f : 0.00003f)));
      const int64_t at =
          is_key ? layout_.key_scale_offset(block, head, place) : layout_.value_scale_offset(block, head, place);
      std::memcpy(cache_int8_.data() + at, &scale, sizeof(scale));
      for (int32_t d = 0; d < layout_.head_dim; ++d) {
        const auto q = static_cast<int8_t>(uniform(-127, 127));
        const int64_t to = is_key ? layout_.key_offset(block, head, place, d, type())
                                  : layout_.value_offset(block, head, place, d, type());
        cache_int8_[static_cast<size_t>(to)] = static_cast<uint8_t>(q);
        (is_key ? sequence_.keys : sequence_.values)[from + static_cast<size_t>(d)] = scale * static_cast<float>(q);
      }
    }
  }

  const void* cache() const {
    if (is_int8()) return cache_int8_.data();
    return is_bf16() ? static_cast<const void*>(cache_bf16_.data()) : cache_.data();
  }

  // Query rows of tokens at first_position...: q [tokens][group * head_dim]; out likewise. With pieces > 1, through partials.
  std::vector<float> attend(const Shape& shape, const std::vector<float>& q, int32_t first_position, int32_t tokens,
                            int32_t kv_head, int32_t pieces = 0) {
    const int64_t stride = int64_t{shape.group} * shape.head_dim, rows = int64_t{tokens} * shape.group;
    std::vector<float> out(static_cast<size_t>(tokens * stride), NAN);
    Scratch scratch(attention_scratch_floats(rows, shape.head_dim));
    AttentionTileArgs args{};
    args.q = q.data();
    args.q_stride = stride;
    args.num_tokens = tokens;
    args.group = shape.group;
    args.first_position = first_position;
    args.layout = layout_;
    args.kv_head = kv_head;
    args.cache = cache();
    args.cache_type = type();
    args.block_table = sequence_.block_table.data();
    args.scale = scale(shape);
    args.softcap = shape.softcap;
    args.window = shape.window;
    args.scratch = scratch.data();
    const int32_t num_splits = (first_position + tokens - 1) / kAttentionSplit + 1;
    if (pieces == 0) {
      args.split_begin = 0;
      args.split_end = num_splits;
      args.out = out.data();
      args.out_stride = stride;
      kernels().attention_tile(args);
      return out;
    }
    const int64_t partial = rows * attention_partial_floats(shape.head_dim);
    std::vector<float> partials(static_cast<size_t>(num_splits * partial), NAN);
    for (int32_t piece = 0; piece < pieces; ++piece) {
      args.split_begin = num_splits * piece / pieces;
      args.split_end = num_splits * (piece + 1) / pieces;
      args.partials = partials.data() + args.split_begin * partial;
      kernels().attention_tile(args);
    }
    kernels().attention_merge({partials.data(), num_splits, static_cast<int32_t>(rows), shape.group, shape.head_dim,
                               out.data(), stride, scratch.data()});
    return out;
  }

  static float scale(const Shape& shape) { return 1.0f / std::sqrt(static_cast<float>(shape.head_dim)); }

  // With u = 2^-24. A score: a chain of D fma (2 D roundings without fma) and the scale, so |error| <= (2 D + 2) u scale sum |q k|;
  // the soft-cap has slope <= 1 and adds 4 ulp of tanh and two roundings, <= 12 u cap. An exponent (s - m) log2 e is
  // one fma with a rounded constant and a rounded m log2 e: u (1.3 |s - m| + |m|) <= 4 u top, the same error for m, and exp2 4 u; merges multiply by at most two factors exp(.) per split, again 2 ulp and a rounding each. Hence every weight
  // has a relative error r <= 2 e_score + 4 u top + 4 u + splits * 12 u, o and l twice the chain of 256 fma and splits sums, and
  // the quotient two roundings: |error| <= (2 r + (2 * 256 + splits * 4 + 20) u) * sum p |v| / sum p.
  // Where pairs of bf16 are multiplied, q is what its rounding made of it, and a weight's rounding adds 2^-9 to r and its exp 2^-18.
  // An int8 cache: one product more for a score and for a weight.
  void expect_close(const Shape& shape, const std::vector<float>& q, const std::vector<float>& out,
                    int32_t first_position, int32_t tokens, int32_t kv_head) {
    const auto dim = static_cast<size_t>(shape.head_dim);
    const auto length = static_cast<size_t>(sequence_.length);
    std::vector<double> keys, values, sizes;
    for (size_t j = 0; j < length; ++j) {
      const size_t from = (j * static_cast<size_t>(shape.num_kv_heads) + static_cast<size_t>(kv_head)) * dim;
      for (size_t d = 0; d < dim; ++d) {
        keys.push_back(sequence_.keys[from + d]);
        values.push_back(sequence_.values[from + d]);
        sizes.push_back(std::fabs(values.back()));
      }
    }
    const ref::AttentionProblem problem{scale(shape), shape.softcap, shape.window};
    for (int32_t row = 0; row < tokens * shape.group; ++row) {
      const int32_t position = first_position + row / shape.group;
      std::vector<double> query(q.begin() + row * shape.head_dim, q.begin() + (row + 1) * shape.head_dim);
      if (rounds()) {
        for (double& x : query) x = ref::f32_of_bf16(ref::bf16_of_f32(static_cast<float>(x)));
      }
      const std::vector<double> expected = ref::attention(query, keys, values, position, problem);
      const std::vector<double> mean_size = ref::attention(query, keys, sizes, position, problem);
      double top = 0;
      for (int32_t j = 0; j <= position; ++j) {
        double sum = 0;
        for (size_t d = 0; d < dim; ++d) sum += std::fabs(query[d] * keys[static_cast<size_t>(j) * dim + d]);
        top = std::max(top, sum * problem.scale);
      }
      const double splits = position / kAttentionSplit + 1;
      const double score_error =
          (2.0 * shape.head_dim + (is_int8() ? 3 : 2)) * kEpsilon * top + 12 * kEpsilon * shape.softcap;
      const double weight_error = 2 * score_error + kEpsilon * 4 * top + 4 * kEpsilon + splits * 12 * kEpsilon +
                                  (rounds() ? 0x1p-9 + 0x1p-18 : 0) + (is_int8() ? 3 * kEpsilon : 0);
      const double relative = 2 * weight_error + (512 + splits * 4 + 20) * kEpsilon;
      for (size_t d = 0; d < dim; ++d) {
        ASSERT_NEAR(out[static_cast<size_t>(row) * dim + d], expected[d], relative * mean_size[d])
            << "row " << row << " d " << d << " position " << position << " head_dim " << dim << " group "
            << shape.group << " window " << shape.window << " cap " << shape.softcap << " seed " << seed();
      }
    }
  }

  Shape random_shape() {
    constexpr int32_t kDims[] = {8, 16, 24, 40, 64, 80, 96, 128, 256};
    return {static_cast<int32_t>(uniform(1, 9)),
            static_cast<int32_t>(uniform(1, 3)),
            kDims[uniform(0, 8)],
            static_cast<int32_t>(16 * uniform(1, 3)),
            uniform(0, 2) == 0 ? static_cast<int32_t>(uniform(1, 400)) : 0,
            uniform(0, 2) == 0 ? 5.0f : 0.0f};
  }

  KvCellLayout layout_{};
  std::vector<float> cache_;
  std::vector<uint16_t> cache_bf16_;
  std::vector<uint8_t> cache_int8_;
  Sequence sequence_;
};

TEST_P(AttentionTest, AgreesWithReference) {
  for (int round = 0; round < 14; ++round) {
    const Shape shape = random_shape();
    const auto length = static_cast<int32_t>(round % 3 == 0 ? uniform(1, 40) : uniform(200, 800));
    const auto tokens = static_cast<int32_t>(uniform(1, std::min<int64_t>(length, kMaxAttentionRows / shape.group)));
    const auto kv_head = static_cast<int32_t>(uniform(0, shape.num_kv_heads - 1));
    make_cache(shape, length);
    const std::vector<float> q = normals(int64_t{tokens} * shape.group * shape.head_dim);
    expect_close(shape, q, attend(shape, q, length - tokens, tokens, kv_head), length - tokens, tokens, kv_head);
    if (HasFatalFailure()) return;
  }
}

TEST_P(AttentionTest, RowIsTheSameAloneInATileAndThroughPartials) {
  for (int round = 0; round < 10; ++round) {
    const Shape shape = random_shape();
    const auto length = static_cast<int32_t>(uniform(250, 1100));
    const auto tokens = static_cast<int32_t>(uniform(1, kMaxAttentionRows / shape.group));
    make_cache(shape, length);
    const int64_t stride = int64_t{shape.group} * shape.head_dim;
    const std::vector<float> q = normals(tokens * stride);
    const std::vector<float> tile = attend(shape, q, length - tokens, tokens, 0);
    for (int32_t t = 0; t < tokens; ++t) {
      const std::vector<float> one(q.begin() + t * stride, q.begin() + (t + 1) * stride);
      const std::vector<float> alone = attend(shape, one, length - tokens + t, 1, 0);
      ASSERT_EQ(std::memcmp(alone.data(), tile.data() + t * stride, static_cast<size_t>(stride) * 4), 0)
          << "token " << t << " of " << tokens << " seed " << seed();
      // One head alone, as if the others were not there.
      Shape single = shape;
      single.group = 1;
      const std::vector<float> head(one.begin(), one.begin() + shape.head_dim);
      const std::vector<float> head_alone = attend(single, head, length - tokens + t, 1, 0);
      ASSERT_EQ(std::memcmp(head_alone.data(), alone.data(), static_cast<size_t>(shape.head_dim) * 4), 0) << seed();
    }
    for (int32_t pieces = 1; pieces <= 5; ++pieces) {
      ASSERT_EQ(attend(shape, q, length - tokens, tokens, 0, pieces), tile) << pieces << " seed " << seed();
    }
  }
}

TEST_P(AttentionTest, WhatARowCannotSeeDoesNotReachIt) {
  Shape shape{3, 1, 64, 16, 0, 0};
  const int32_t length = 300, tokens = 16;
  for (const int32_t window : {0, 37}) {
    shape.window = window;
    make_cache(shape, length);
    const std::vector<float> q = normals(int64_t{tokens} * shape.group * shape.head_dim);
    const std::vector<float> before = attend(shape, q, length - tokens, tokens, 0);
    // The last token's key and value become NaN: only the last token's rows may change.
    const int32_t j = length - 1;
    const int64_t block = sequence_.block_table[static_cast<size_t>(j / 16)];
    if (is_int8()) {
      for (const int64_t at :
           {layout_.key_scale_offset(block, 0, j % 16), layout_.value_scale_offset(block, 0, j % 16)})
        std::memset(cache_int8_.data() + at, 0xff, sizeof(float));
    }
    for (int32_t d = 0; d < shape.head_dim && !is_int8(); ++d) {
      for (const int64_t at :
           {layout_.key_offset(block, 0, j % 16, d, type()), layout_.value_offset(block, 0, j % 16, d, type())}) {
        cache_[static_cast<size_t>(at)] = NAN;
        cache_bf16_[static_cast<size_t>(at)] = 0x7fc0;
      }
    }
    const std::vector<float> after = attend(shape, q, length - tokens, tokens, 0);
    const size_t untouched = static_cast<size_t>((tokens - 1) * shape.group * shape.head_dim);
    ASSERT_EQ(std::memcmp(before.data(), after.data(), untouched * 4), 0) << seed();
    EXPECT_TRUE(std::isnan(after.back()));
  }
}

TEST_P(AttentionTest, RopeAndCacheAgreesWithReference) {
  for (int round = 0; round < 8; ++round) {
    const Shape shape = random_shape();
    const int64_t dim = shape.head_dim, rotary = round % 3 == 0 ? dim : round % 3 == 1 ? dim / 2 : 0;
    const int32_t num_heads = shape.group * shape.num_kv_heads;
    const int64_t rows = uniform(1, 20), cols = (num_heads + 2 * shape.num_kv_heads) * dim, stride = cols + 3;
    layout_ = {shape.block_size, shape.num_kv_heads, shape.head_dim};
    const int64_t num_blocks = 7, num_positions = 300;
    std::vector<float> cos, sin;
    for (int64_t p = 0; p < num_positions; ++p) {
      for (int64_t i = 0; i < rotary / 2; ++i) {
        const double angle =
            static_cast<double>(p) * std::pow(10000.0, -2.0 * static_cast<double>(i) / static_cast<double>(rotary));
        cos.push_back(static_cast<float>(std::cos(angle)));
        sin.push_back(static_cast<float>(std::sin(angle)));
      }
    }
    std::vector<int64_t> all_slots(static_cast<size_t>(num_blocks * shape.block_size));
    std::iota(all_slots.begin(), all_slots.end(), 0);
    std::shuffle(all_slots.begin(), all_slots.end(), random());
    const std::vector<int64_t> slots(all_slots.begin(), all_slots.begin() + rows);
    std::vector<int32_t> positions;
    for (int64_t t = 0; t < rows; ++t) positions.push_back(static_cast<int32_t>(uniform(0, num_positions - 1)));
    const std::vector<float> before = normals(rows * stride);
    std::vector<float> qkv = before;
    const auto elements = static_cast<size_t>(num_blocks * layout_.block_elements(type()));
    std::vector<float> cache(elements, 7.0f);
    std::vector<uint8_t> cache_int8(elements, 7);
    std::vector<uint16_t> cache_bf16(elements, ref::bf16_of_f32(7.0f));
    kernels().rope_and_cache({qkv.data(), stride, rows, num_heads, layout_, static_cast<int32_t>(rotary), cos.data(),
                              sin.data(), positions.data(), slots.data(),
                              is_int8()   ? static_cast<void*>(cache_int8.data())
                              : is_bf16() ? static_cast<void*>(cache_bf16.data())
                                          : cache.data(),
                              type()});
    if (is_bf16()) {
      for (size_t i = 0; i < elements; ++i) cache[i] = ref::f32_of_bf16(cache_bf16[i]);
    }
    size_t written = 0;
    for (int64_t t = 0; t < rows; ++t) {
      const int64_t block = slots[static_cast<size_t>(t)] / shape.block_size;
      const auto place = static_cast<int32_t>(slots[static_cast<size_t>(t)] % shape.block_size);
      for (int32_t h = 0; h < num_heads + 2 * shape.num_kv_heads; ++h) {
        float kept_scale = 0, largest = 0;
        const bool is_key = h < num_heads + shape.num_kv_heads;
        if (is_int8() && h >= num_heads) {
          const int32_t head_of_kv = (h - num_heads) % shape.num_kv_heads;
          const auto scale_at = static_cast<size_t>(is_key ? layout_.key_scale_offset(block, head_of_kv, place)
                                                           : layout_.value_scale_offset(block, head_of_kv, place));
          std::memcpy(&kept_scale, cache_int8.data() + scale_at, sizeof(float));
          std::fill_n(cache_int8.begin() + static_cast<int64_t>(scale_at), sizeof(float), uint8_t{7});
          for (int64_t d = 0; d < dim; ++d)
            largest = std::max(largest, std::fabs(qkv[static_cast<size_t>(t * stride + h * dim + d)]));
          ASSERT_EQ(kept_scale, largest / 127.0f) << seed();
        }
        const auto at = static_cast<size_t>(t * stride + h * dim);
        std::vector<double> head(before.begin() + static_cast<int64_t>(at),
                                 before.begin() + static_cast<int64_t>(at) + dim);
        if (h < num_heads + shape.num_kv_heads) ref::rope(head, positions[static_cast<size_t>(t)], rotary, 10000.0);
        for (size_t d = 0; d < static_cast<size_t>(dim); ++d) {
          // cos and sin are rounded, and so are two products and a sum of magnitude at most |a| + |b| each: 4 u of both.
          const double size =
              std::fabs(before[at + d]) +
              std::fabs(before[at + (d + static_cast<size_t>(rotary) / 2) % static_cast<size_t>(dim)]) +
              std::fabs(before[at + (d + static_cast<size_t>(dim - rotary / 2)) % static_cast<size_t>(dim)]);
          ASSERT_NEAR(qkv[at + d], head[d], 4 * kEpsilon * size) << "head " << h << " d " << d << " seed " << seed();
          const int32_t kv_head = (h - num_heads) % shape.num_kv_heads;
          if (h < num_heads) continue;
          const int64_t offset = h < num_heads + shape.num_kv_heads
                                     ? layout_.key_offset(block, kv_head, place, static_cast<int32_t>(d), type())
                                     : layout_.value_offset(block, kv_head, place, static_cast<int32_t>(d), type());
          if (is_int8()) {
            uint8_t& byte = cache_int8[static_cast<size_t>(offset)];
            // 127 / largest and the product with it are rounded (so is the sum with what finds the integer, where no fma is):
            // q is off by 127 * 3 u before it is rounded, and so is the scale.
            const double kept = double{kept_scale} * static_cast<int8_t>(byte);
            ASSERT_NEAR(kept, qkv[at + d], double{kept_scale} * (0.5 + 127 * 4 * kEpsilon)) << seed();
            byte = 7;
            ++written;
            continue;
          }
          const float stored = is_bf16() ? ref::f32_of_bf16(ref::bf16_of_f32(qkv[at + d])) : qkv[at + d];
          ASSERT_EQ(cache[static_cast<size_t>(offset)], stored) << seed();
          cache[static_cast<size_t>(offset)] = 7.0f;
          ++written;
        }
      }
    }
    // Nothing but those slots was written (padding of values aside, which is 0).
    ASSERT_EQ(written, static_cast<size_t>(rows * 2 * shape.num_kv_heads * dim));
    for (const float x : cache) ASSERT_TRUE(x == 7.0f || x == 0.0f) << x << " seed " << seed();
    for (const uint8_t x : cache_int8) ASSERT_TRUE(x == 7 || x == 0) << int{x} << " seed " << seed();
  }
}

// Rows that int8 has no scale for: nothing but zeros, less than can be divided by, more than a number.
TEST(Int8Cache, RowsWithoutAScale) {
  const KvCellLayout layout{16, 1, 24};
  for (const cpu::KernelTable* kernels : tables_under_test()) {
    for (const float x : {0.0f, 1e-42f, -1e-37f, 0x1p-100f, -3e38f, INFINITY, NAN}) {
      SCOPED_TRACE(table_name(kernels) + " " + std::to_string(x));
      std::vector<float> qkv(3 * 24, x);
      qkv[40] = -x / 2;  // of the key
      std::vector<uint8_t> cache(static_cast<size_t>(layout.block_elements(KvType::kInt8)), 0x55);
      const int32_t position = 0, place = 5;
      const int64_t slot = place;
      kernels->rope_and_cache(
          {qkv.data(), 72, 1, 1, layout, 0, nullptr, nullptr, &position, &slot, cache.data(), KvType::kInt8});
      float scale;
      std::memcpy(&scale, cache.data() + layout.key_scale_offset(0, 0, place), sizeof(scale));
      const auto q = [&](int32_t d) {
        return static_cast<int8_t>(cache[static_cast<size_t>(layout.key_offset(0, 0, place, d, KvType::kInt8))]);
      };
      if (!std::isfinite(x)) {
        EXPECT_TRUE(std::isnan(scale));  // what attends to such a row becomes NaN
      } else if (std::fabs(x) < 0x1p-100f) {
        EXPECT_EQ(scale, 0.0f);
        EXPECT_EQ(q(0), 0);
      } else {
        EXPECT_EQ(scale, std::fabs(x) / 127.0f);
        EXPECT_EQ(q(0), x > 0 ? 127 : -127);
        EXPECT_NEAR(q(16), x > 0 ? -63.5 : 63.5, 0.51);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, AttentionTest,
                         testing::Combine(testing::ValuesIn(tables_under_test()),
                                          testing::Values(KvType::kFp32, KvType::kBf16, KvType::kInt8)),
                         [](const auto& test) {
                           return table_name(std::get<0>(test.param)) +
                                  (std::get<1>(test.param) == KvType::kFp32   ? "_f32"
                                   : std::get<1>(test.param) == KvType::kBf16 ? "_bf16"
                                                                              : "_int8");
                         });

}  // namespace
}  // namespace sextant::kernels
