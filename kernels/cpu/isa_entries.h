// The entries that each instruction set's objects export: one function per op in the namespace of that instruction set.
#pragma once

#include "kernels/attention.h"
#include "kernels/elementwise.h"
#include "kernels/matmul.h"
#include "kernels/norm.h"
#include "kernels/rope_cache.h"
#include "kernels/vector_math.h"

#define SEXTANT_DECLARE_ISA_ENTRIES(isa)                \
  namespace sextant::kernels::cpu::isa {                \
  void matmul_input(const MatmulInputArgs& args);       \
  void matmul(const MatmulArgs& args);                  \
  void rms_norm(const RmsNormArgs& args);               \
  void add_rms_norm(const RmsNormArgs& args);           \
  void add(const ElementwiseArgs& args);                \
  void add_bias(const ElementwiseArgs& args);           \
  void silu_mul(const ElementwiseArgs& args);           \
  void gelu_tanh_mul(const ElementwiseArgs& args);      \
  void softcap(const SoftcapArgs& args);                \
  void rope_and_cache(const RopeCacheArgs& args);       \
  void attention_tile(const AttentionTileArgs& args);   \
  void attention_merge(const AttentionMergeArgs& args); \
  void exp(const float* x, float* y, int64_t n);        \
  void tanh(const float* x, float* y, int64_t n);       \
  }

// An instruction set that differs from another in matrix products alone.
#define SEXTANT_DECLARE_MATMUL_ENTRIES(isa)       \
  namespace sextant::kernels::cpu::isa {          \
  void matmul_input(const MatmulInputArgs& args); \
  void matmul(const MatmulArgs& args);            \
  }

// An instruction set that has products of bf16 pairs.
#define SEXTANT_DECLARE_MATMUL_BF16_ENTRIES(isa)       \
  namespace sextant::kernels::cpu::isa {               \
  void matmul_bf16_input(const MatmulInputArgs& args); \
  void matmul_bf16(const MatmulArgs& args);            \
  }

// An instruction set that only has a recipe of its own for attention.
#define SEXTANT_DECLARE_ATTENTION_ENTRIES(isa)          \
  namespace sextant::kernels::cpu::isa {                \
  void attention_tile(const AttentionTileArgs& args);   \
  void attention_merge(const AttentionMergeArgs& args); \
  }
