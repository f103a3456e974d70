// The end of an all-reduce whose parts lie side by side, fused with the residual sum and the RMS normalisation after it: what
// tensor parallelism does twice a layer.
//
//   reduce_add_rms_norm:  residual[t, i] += part[0][t, i] + part[1][t, i] + ... + part[n - 1][t, i]
//                         out[t, i] = residual[t, i] * (1 / sqrt(mean over i of residual[t, i]^2 + eps)) * weight[i]
//
// parts: n ranks' [T, H], 1 <= n <= 8; residual [T, H] fp32; out [T, H] of the parts' type; weight [H] fp32. The parts are added
// in fp32 in the order of ranks, then to the residual: every rank that runs it gets the same bits, and a 16-bit part is not rounded
// again on its way, as an all-reduce of 16-bit numbers rounds it. out may be a part; otherwise nothing overlaps.
// When: a gather of n parts moves (n - 1) times a part to each rank, in one round; a ring all-reduce 2 (n - 1) / n times, in
// 2 (n - 1) rounds. Small parts are bound by rounds: Backend::gathered_reduce_bytes() says up to which size this is taken.
// Bytes: n parts, the residual twice, out once; bound by memory, or at few rows by its launch.
// Source: the one-shot all-reduce of vLLM's and TensorRT-LLM's custom kernels; Zhang and Sennrich 2019 for the norm.
// Entries: kernels/cuda/reduce_norm.h; ref::reduce_add_rms_norm is the definition. The CPU backend, whose ranks share memory,
// sums in place (thread_communicator) and has add_rms_norm do the rest: the same formula.
#pragma once

namespace sextant::kernels {

inline constexpr int kMaxReducedParts = 8;

}  // namespace sextant::kernels
