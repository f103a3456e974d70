// KernelTable: the ops of one instruction set, as function pointers. Chosen once at start; SEXTANT_CPU_ISA is read by the
// caller. Neutral code: compiled for the baseline, usable on any CPU.
#pragma once

#include "kernels/attention.h"
#include "kernels/elementwise.h"
#include "kernels/matmul.h"
#include "kernels/norm.h"
#include "kernels/rope_cache.h"
#include "kernels/vector_math.h"

namespace sextant::kernels::cpu {

// kAvx512 has VNNI; kAvx512Bf16 the products of bf16 pairs too, which attention uses.
enum class Isa : uint8_t { kGeneric, kAvx2, kAvx512, kAvx512Bf16 };
inline constexpr int kNumIsas = 4;

struct KernelTable {
  Isa isa;
  MatmulInputFunction* matmul_input;
  MatmulFunction* matmul;
  RmsNormFunction* rms_norm;
  RmsNormFunction* add_rms_norm;
  ElementwiseFunction* add;
  ElementwiseFunction* add_bias;
  ElementwiseFunction* silu_mul;
  RopeCacheFunction* rope_and_cache;
  AttentionTileFunction* attention_tile;
  AttentionMergeFunction* attention_merge;
  MapFunction* exp;
  MapFunction* tanh;
};

const char* isa_name(Isa isa);  // "generic", "avx2", "avx512", "avx512_bf16"

// The table when this build has that instruction set and this CPU can run it, else nullptr. kGeneric is always there.
const KernelTable* kernel_table(Isa isa);

// The widest of those.
const KernelTable& best_kernel_table();

}  // namespace sextant::kernels::cpu
