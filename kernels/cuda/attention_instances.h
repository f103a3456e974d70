// Which template sizes the attention kernels exist in, and the entries of the sources that hold them.
#pragma once

#include "kernels/cuda/attention.h"

namespace sextant::kernels::cuda {

enum class TemplateDims { k64, k96, k128, k192And128, k256 };  // of queries and keys, and of values

// The smallest that holds both.
constexpr TemplateDims template_dims(const KvLayout& layout) {
  const int qk = layout.head_dim_qk;
  const int v = layout.head_dim_v;
  if (qk <= 64 && v <= 64) return TemplateDims::k64;
  if (qk <= 96 && v <= 96) return TemplateDims::k96;
  if (qk <= 128 && v <= 128) return TemplateDims::k128;
  if (qk <= 192 && v <= 128) return TemplateDims::k192And128;
  return TemplateDims::k256;
}

// Limits are checked by the callers; the counts are not 0.
template <typename T>
int launch_prefill(const AttentionArgs& args, Stream stream);
template <typename T>
int launch_decode(const AttentionArgs& args, Stream stream);

}  // namespace sextant::kernels::cuda
