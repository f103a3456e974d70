// Which instruction sets this build has and this CPU can run.
#include "kernels/cpu/kernel_table.h"

#include "kernels/cpu/isa_entries.h"

SEXTANT_DECLARE_ISA_ENTRIES(generic)
#if defined(SEXTANT_KERNELS_X86)
SEXTANT_DECLARE_ISA_ENTRIES(avx2)
SEXTANT_DECLARE_ISA_ENTRIES(avx512)
SEXTANT_DECLARE_ATTENTION_ENTRIES(avx512_bf16)
#endif

namespace sextant::kernels::cpu {
namespace {

// attention: whose entries for it; isa: whose the others.
#define SEXTANT_ISA_TABLE(id, isa, attention)                                                                     \
  KernelTable {                                                                                                   \
    id, isa::matmul_input, isa::matmul, isa::rms_norm, isa::add_rms_norm, isa::add, isa::add_bias, isa::silu_mul, \
        isa::rope_and_cache, attention::attention_tile, attention::attention_merge, isa::exp, isa::tanh           \
  }

constexpr KernelTable kGenericTable = SEXTANT_ISA_TABLE(Isa::kGeneric, generic, generic);
#if defined(SEXTANT_KERNELS_X86)
constexpr KernelTable kAvx2Table = SEXTANT_ISA_TABLE(Isa::kAvx2, avx2, avx2);
constexpr KernelTable kAvx512Table = SEXTANT_ISA_TABLE(Isa::kAvx512, avx512, avx512);
constexpr KernelTable kAvx512Bf16Table = SEXTANT_ISA_TABLE(Isa::kAvx512Bf16, avx512, avx512_bf16);

// __builtin_cpu_supports also asks whether the operating system saves the registers. F16C, which the AVX2 path uses too, is
// older than AVX2 and in every CPU that has it; Clang 14 cannot be asked for it by name.
bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vnni");
}
bool has_avx512_bf16() { return has_avx512() && __builtin_cpu_supports("avx512bf16"); }
#endif

}  // namespace

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::kGeneric: return "generic";
    case Isa::kAvx2: return "avx2";
    case Isa::kAvx512: return "avx512";
    case Isa::kAvx512Bf16: return "avx512_bf16";
  }
  return "unknown";
}

const KernelTable* kernel_table(Isa isa) {
  switch (isa) {
    case Isa::kGeneric: return &kGenericTable;
#if defined(SEXTANT_KERNELS_X86)
    case Isa::kAvx2: return has_avx2() ? &kAvx2Table : nullptr;
    case Isa::kAvx512: return has_avx512() ? &kAvx512Table : nullptr;
    case Isa::kAvx512Bf16: return has_avx512_bf16() ? &kAvx512Bf16Table : nullptr;
#else
    default: break;
#endif
  }
  return nullptr;
}

const KernelTable& best_kernel_table() {
  for (int i = kNumIsas - 1; i > 0; --i) {
    if (const KernelTable* table = kernel_table(static_cast<Isa>(i))) return *table;
  }
  return kGenericTable;
}

}  // namespace sextant::kernels::cpu
