// KernelTable: the ops of one instruction set, as function pointers. Chosen once at start; SEXTANT_CPU_ISA is read by the
// caller. Neutral code: compiled for the baseline, usable on any CPU.
#pragma once

#include <string>
#include <string_view>

#include "kernels/attention.h"
#include "kernels/elementwise.h"
#include "kernels/matmul.h"
#include "kernels/norm.h"
#include "kernels/rope_cache.h"
#include "kernels/vector_math.h"

namespace sextant::kernels::cpu {

// kAvx512 has VNNI; kAvx512Bf16 the products of bf16 pairs too, which attention uses, and bf16 weights where they may; kAmx int8 tiles too, for products with
// block-quantised weights. kNeonDotprod: sdot in products of quantised weights. Of one kind of CPU the wider ones come later.
enum class Isa : uint8_t { kGeneric, kAvx2, kAvx512, kAvx512Bf16, kAmx, kNeon, kNeonDotprod };
inline constexpr int kNumIsas = 7;

struct KernelTable {
  Isa isa;
  MatmulInputFunction* matmul_input;
  MatmulFunction* matmul;
  RmsNormFunction* rms_norm;
  RmsNormFunction* add_rms_norm;
  ElementwiseFunction* add;
  ElementwiseFunction* add_bias;
  ElementwiseFunction* silu_mul;
  ElementwiseFunction* gelu_tanh_mul;
  SoftcapFunction* softcap;
  RopeCacheFunction* rope_and_cache;
  AttentionTileFunction* attention_tile;
  AttentionMergeFunction* attention_merge;
  MapFunction* exp;
  MapFunction* tanh;
  // Products of kBF16 weights with inputs of kBf16; nullptr where the instruction set has none.
  MatmulInputFunction* matmul_bf16_input = nullptr;
  MatmulFunction* matmul_bf16 = nullptr;
};

const char* isa_name(Isa isa);  // "generic", "avx2", "avx512", "avx512_bf16", "amx", "neon", "neon_dotprod"

// The table when this build has that instruction set and this CPU can run it, else nullptr. kGeneric is always there. The first call
// asks the system for the use of AMX's tiles, which threads inherit: before the process starts those that compute.
const KernelTable* kernel_table(Isa isa);

// The widest of those.
const KernelTable& best_kernel_table();

// The one of that isa_name, or nullptr: unknown, not in this build, not for this CPU.
const KernelTable* kernel_table_named(std::string_view name);

// The names of those that kernel_table gives: "generic, avx2".
std::string available_isas();

}  // namespace sextant::kernels::cpu
