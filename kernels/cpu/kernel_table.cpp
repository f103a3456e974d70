// Which instruction sets this build has and this CPU can run.
#include "kernels/cpu/kernel_table.h"

#if defined(SEXTANT_KERNELS_ARM)
#include <sys/auxv.h>
#elif defined(SEXTANT_KERNELS_X86)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <string>

#include "kernels/cpu/isa_entries.h"

SEXTANT_DECLARE_ISA_ENTRIES(generic)
#if defined(SEXTANT_KERNELS_X86)
SEXTANT_DECLARE_ISA_ENTRIES(avx2)
SEXTANT_DECLARE_ISA_ENTRIES(avx512)
SEXTANT_DECLARE_ATTENTION_ENTRIES(avx512_bf16)
SEXTANT_DECLARE_MATMUL_BF16_ENTRIES(avx512_bf16)
SEXTANT_DECLARE_MATMUL_ENTRIES(amx)
#elif defined(SEXTANT_KERNELS_ARM)
SEXTANT_DECLARE_ISA_ENTRIES(neon)
SEXTANT_DECLARE_MATMUL_ENTRIES(neon_dotprod)
#endif

namespace sextant::kernels::cpu {
namespace {

// product, attention: whose entries for matrix products and attention; isa: whose the others.
#define SEXTANT_ISA_TABLE(id, isa, product, attention)                                                     \
  KernelTable {                                                                                            \
    id, product::matmul_input, product::matmul, isa::rms_norm, isa::add_rms_norm, isa::add, isa::add_bias, \
        isa::silu_mul, isa::gelu_tanh_mul, isa::softcap, isa::rope_and_cache, attention::attention_tile,   \
        attention::attention_merge, isa::exp, isa::tanh, nullptr, nullptr                                  \
  }

constexpr KernelTable kGenericTable = SEXTANT_ISA_TABLE(Isa::kGeneric, generic, generic, generic);
#if defined(SEXTANT_KERNELS_X86)
constexpr KernelTable kAvx2Table = SEXTANT_ISA_TABLE(Isa::kAvx2, avx2, avx2, avx2);
constexpr KernelTable kAvx512Table = SEXTANT_ISA_TABLE(Isa::kAvx512, avx512, avx512, avx512);
constexpr KernelTable with_bf16_products(KernelTable table) {
  table.matmul_bf16_input = avx512_bf16::matmul_bf16_input;
  table.matmul_bf16 = avx512_bf16::matmul_bf16;
  return table;
}
constexpr KernelTable kAvx512Bf16Table =
    with_bf16_products(SEXTANT_ISA_TABLE(Isa::kAvx512Bf16, avx512, avx512, avx512_bf16));
constexpr KernelTable kAmxTable = with_bf16_products(SEXTANT_ISA_TABLE(Isa::kAmx, avx512, amx, avx512_bf16));

// __builtin_cpu_supports also asks whether the operating system saves the registers. F16C, which the AVX2 path uses too, is
// older than AVX2 and in every CPU that has it; Clang 14 cannot be asked for it by name.
bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vnni");
}
bool has_avx512_bf16() { return has_avx512() && __builtin_cpu_supports("avx512bf16"); }

// Tiles and their int8 products (CPUID leaf 7), and Linux' permission to use their 8 KiB of state, which a process has to ask for.
bool has_amx() {
  constexpr unsigned kTiles = 1u << 24, kInt8 = 1u << 25;
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  unsigned a = 0, b = 0, c = 0, d = 0;
  return has_avx512_bf16() && __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (d & kTiles) != 0 && (d & kInt8) != 0 &&
         syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}
#elif defined(SEXTANT_KERNELS_ARM)
constexpr KernelTable kNeonTable = SEXTANT_ISA_TABLE(Isa::kNeon, neon, neon, neon);
constexpr KernelTable kNeonDotprodTable = SEXTANT_ISA_TABLE(Isa::kNeonDotprod, neon, neon_dotprod, neon);

bool has_neon() { return (getauxval(AT_HWCAP) & HWCAP_ASIMD) != 0; }
bool has_neon_dotprod() { return has_neon() && (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0; }
#endif

}  // namespace

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::kGeneric: return "generic";
    case Isa::kAvx2: return "avx2";
    case Isa::kAvx512: return "avx512";
    case Isa::kAvx512Bf16: return "avx512_bf16";
    case Isa::kAmx: return "amx";
    case Isa::kNeon: return "neon";
    case Isa::kNeonDotprod: return "neon_dotprod";
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
    case Isa::kAmx: {
      static const bool allowed = has_amx();
      return allowed ? &kAmxTable : nullptr;
    }
#elif defined(SEXTANT_KERNELS_ARM)
    case Isa::kNeon: return has_neon() ? &kNeonTable : nullptr;
    case Isa::kNeonDotprod: return has_neon_dotprod() ? &kNeonDotprodTable : nullptr;
#endif
    default: break;
  }
  return nullptr;
}

const KernelTable& best_kernel_table() {
  for (int i = kNumIsas - 1; i > 0; --i) {
    if (const KernelTable* table = kernel_table(static_cast<Isa>(i))) return *table;
  }
  return kGenericTable;
}

const KernelTable* kernel_table_named(std::string_view name) {
  for (int i = 0; i < kNumIsas; ++i) {
    const auto isa = static_cast<Isa>(i);
    if (name == isa_name(isa)) return kernel_table(isa);
  }
  return nullptr;
}

std::string available_isas() {
  std::string names;
  for (int i = 0; i < kNumIsas; ++i) {
    const auto isa = static_cast<Isa>(i);
    if (kernel_table(isa) == nullptr) continue;
    if (!names.empty()) names += ", ";
    names += isa_name(isa);
  }
  return names;
}

}  // namespace sextant::kernels::cpu
