// What the op tests share: the instruction sets of this CPU, seeded random numbers, random matrices in a file's encoding.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <iostream>
#include <random>
#include <string>
#include <vector>

#include "kernels/cpu/isa_entries.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/ref/reference.h"
#include "tests/support/random_seed.h"

namespace sextant::kernels {

inline constexpr double kEpsilon = 0x1p-24;  // unit roundoff of fp32

// A sanitizer takes many times as long, of emulated CUDA above all: tests of many rounds do this part of them there.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr int kRoundsDivisor = 8;
#else
inline constexpr int kRoundsDivisor = 1;
#endif

#if defined(SEXTANT_TEST_SHADOWS)
}  // namespace sextant::kernels
SEXTANT_DECLARE_ISA_ENTRIES(avx512_shadow)
SEXTANT_DECLARE_ATTENTION_ENTRIES(avx512_bf16_shadow)
SEXTANT_DECLARE_MATMUL_BF16_ENTRIES(avx512_bf16_shadow)
SEXTANT_DECLARE_MATMUL_ENTRIES(amx_shadow)
namespace sextant::kernels {
// Tables of avx512, avx512_bf16 and amx with those instructions in plain C++ (kernels/cpu/avx512_shadow.h, amx_shadow.h), where
// this CPU runs the shadows but not the instructions.
inline const std::vector<const cpu::KernelTable*>& shadow_tables() {
  static const std::vector<const cpu::KernelTable*> tables = [] {
    using namespace cpu;
    static KernelTable avx512{Isa::kAvx512,
                              avx512_shadow::matmul_input,
                              avx512_shadow::matmul,
                              avx512_shadow::rms_norm,
                              avx512_shadow::add_rms_norm,
                              avx512_shadow::add,
                              avx512_shadow::add_bias,
                              avx512_shadow::silu_mul,
                              avx512_shadow::gelu_tanh_mul,
                              avx512_shadow::softcap,
                              avx512_shadow::rope_and_cache,
                              avx512_shadow::attention_tile,
                              avx512_shadow::attention_merge,
                              avx512_shadow::exp,
                              avx512_shadow::tanh};
    static KernelTable bf16 = avx512;
    bf16.isa = Isa::kAvx512Bf16;
    bf16.attention_tile = avx512_bf16_shadow::attention_tile;
    bf16.attention_merge = avx512_bf16_shadow::attention_merge;
    bf16.matmul_bf16_input = avx512_bf16_shadow::matmul_bf16_input;
    bf16.matmul_bf16 = avx512_bf16_shadow::matmul_bf16;
    static KernelTable amx = bf16;
    amx.isa = Isa::kAmx;
    amx.matmul_input = amx_shadow::matmul_input;
    amx.matmul = amx_shadow::matmul;
    std::vector<const KernelTable*> all;
    for (const KernelTable* table : {&avx512, &bf16, &amx}) {
      if (kernel_table(Isa::kAvx2) != nullptr && kernel_table(table->isa) == nullptr) all.push_back(table);
    }
    return all;
  }();
  return tables;
}
#else
inline const std::vector<const cpu::KernelTable*>& shadow_tables() {
  static const std::vector<const cpu::KernelTable*> none;
  return none;
}
#endif

inline std::string table_name(const cpu::KernelTable* table) {
  for (const cpu::KernelTable* shadow : shadow_tables()) {
    if (table == shadow) return std::string(cpu::isa_name(table->isa)) + "_shadow";
  }
  return cpu::isa_name(table->isa);
}

inline std::vector<const cpu::KernelTable*> available_tables() {
  std::vector<const cpu::KernelTable*> tables;
  for (int i = 0; i < cpu::kNumIsas; ++i) {
    if (const cpu::KernelTable* table = cpu::kernel_table(static_cast<cpu::Isa>(i))) tables.push_back(table);
  }
  return tables;
}
// Those, and the shadows of what is missing.
inline std::vector<const cpu::KernelTable*> tables_under_test() {
  std::vector<const cpu::KernelTable*> tables = available_tables();
  tables.insert(tables.end(), shadow_tables().begin(), shadow_tables().end());
  return tables;
}

inline std::string type_name(PanelType type) {
  constexpr const char* kNames[] = {"f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "q4_k", "q5_k", "q6_k"};
  return kNames[static_cast<int>(type)];
}

inline std::vector<PanelType> all_types() {
  return {PanelType::kF32,  PanelType::kF16, PanelType::kBF16, PanelType::kQ8_0, PanelType::kQ4_0,
          PanelType::kQ4_1, PanelType::kQ4K, PanelType::kQ5K,  PanelType::kQ6K};
}
inline std::vector<PanelType> block_types() {
  return {PanelType::kQ8_0, PanelType::kQ4_0, PanelType::kQ4_1, PanelType::kQ4K, PanelType::kQ5K, PanelType::kQ6K};
}

inline bool has_blocks(PanelType type) { return !is_plain(type); }
// Whole blocks: the type's own, `count` of them.
inline int64_t cols_of_blocks(PanelType type, int64_t count) { return column_multiple(type) * count; }

// Seeds come from SEXTANT_TEST_SEED or chance; the one in use is in the output of a failing test.
class SeededTest {
 public:
  SeededTest() {
    seed_ = random_seed();
    random_.seed(seed_);
  }

  uint64_t seed() const { return seed_; }
  std::mt19937_64& random() { return random_; }
  int64_t uniform(int64_t low, int64_t high) { return std::uniform_int_distribution<int64_t>(low, high)(random_); }
  float normal() { return std::normal_distribution<float>()(random_); }
  std::vector<float> normals(int64_t n) {
    std::vector<float> out(static_cast<size_t>(n));
    for (float& x : out) x = normal();
    return out;
  }

 private:
  uint64_t seed_ = 0;
  std::mt19937_64 random_;
};

// A random matrix as a file holds it, its exact numbers, and its panels.
struct RandomMatrix {
  PanelType type;
  int64_t rows;
  int64_t cols;
  std::vector<uint8_t> file;
  std::vector<double> values;
  std::vector<uint8_t> panels;
};

inline void append_u16(std::vector<uint8_t>& out, uint16_t h) {
  out.push_back(static_cast<uint8_t>(h));
  out.push_back(static_cast<uint8_t>(h >> 8));
}

inline std::vector<uint8_t> random_file_row(PanelType type, int64_t cols, SeededTest& random) {
  std::vector<uint8_t> row;
  if (!has_blocks(type)) {
    for (int64_t k = 0; k < cols; ++k) {
      const float x = random.normal();
      if (type == PanelType::kF32) {
        uint8_t bytes[4];
        std::memcpy(bytes, &x, 4);
        row.insert(row.end(), bytes, bytes + 4);
      } else {
        append_u16(row, type == PanelType::kF16 ? ref::f16_of_f32(x) : ref::bf16_of_f32(x));
      }
    }
    return row;
  }
  const auto append_bytes = [&](int64_t count) {
    for (int64_t i = 0; i < count; ++i) row.push_back(static_cast<uint8_t>(random.uniform(0, 255)));
  };
  for (int64_t b = 0; has_superblocks(type) && b < cols / kPanelSuperblock; ++b) {
    const uint16_t d = ref::f16_of_f32(random.normal() * 0.01f), m = ref::f16_of_f32(random.normal() * 0.05f);
    if (type == PanelType::kQ6K) append_bytes(208);
    append_u16(row, d);
    if (type == PanelType::kQ6K) continue;
    append_u16(row, m);
    append_bytes(file_row_bytes(type, kPanelSuperblock) - 4);
  }
  if (has_superblocks(type)) return row;
  for (int64_t b = 0; b < cols / kPanelBlock; ++b) {
    append_u16(row, ref::f16_of_f32(random.normal() * 0.1f));
    if (type == PanelType::kQ4_1) append_u16(row, ref::f16_of_f32(random.normal()));
    for (int i = 0; i < (type == PanelType::kQ8_0 ? 32 : 16); ++i)
      row.push_back(static_cast<uint8_t>(random.uniform(0, 255)));
  }
  return row;
}

inline RandomMatrix random_matrix(PanelType type, int64_t rows, int64_t cols, SeededTest& random) {
  RandomMatrix m{type, rows, cols, {}, {}, {}};
  const int64_t row_bytes = file_row_bytes(type, cols);
  for (int64_t n = 0; n < rows; ++n) {
    const std::vector<uint8_t> row = random_file_row(type, cols, random);
    EXPECT_EQ(static_cast<int64_t>(row.size()), row_bytes);
    m.file.insert(m.file.end(), row.begin(), row.end());
    const std::vector<double> values = ref::dequantize_row(type, row.data(), cols);
    m.values.insert(m.values.end(), values.begin(), values.end());
  }
  m.panels.assign(static_cast<size_t>(num_panels(rows) * panel_bytes(type, cols)), 0xff);
  for (int64_t p = 0; p < num_panels(rows); ++p) {
    const uint8_t* of_panel[kPanelRows] = {};
    for (int64_t r = 0; r < kPanelRows && p * kPanelRows + r < rows; ++r) {
      of_panel[r] = m.file.data() + (p * kPanelRows + r) * row_bytes;
    }
    cpu::pack_panel(type, of_panel, cols, m.panels.data() + p * panel_bytes(type, cols));
  }
  return m;
}

// Memory aligned to 64 bytes.
class Scratch {
 public:
  explicit Scratch(int64_t floats) : memory_(static_cast<size_t>(floats) + 16, NAN) {}
  float* data() {
    return memory_.data() + (64 - reinterpret_cast<uintptr_t>(memory_.data()) % 64) % 64 / sizeof(float);
  }

 private:
  std::vector<float> memory_;
};

}  // namespace sextant::kernels
