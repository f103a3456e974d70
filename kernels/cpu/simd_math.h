// exp and tanh on sixteen lanes (bounds: vector_math.h). Internal linkage, as simd.h.
#pragma once

#include "kernels/cpu/simd.h"

namespace sextant::kernels::cpu::SEXTANT_ISA {
namespace {

SEXTANT_INLINE F32x16 exp_lanes(F32x16 x) {
  const F32x16 lowest = broadcast(-87.33f), highest = broadcast(88.37f);
  // The constant first: max and min hand on their second operand when it is NaN.
  const F32x16 clamped = min(highest, max(lowest, x));
  F32x16 pow2;
  const F32x16 n = round_scaled(clamped, broadcast(0x1.715476p0f), &pow2);  // log2(e)
  // ln 2 in two parts; the first has so few bits that n times it is exact.
  F32x16 r = fma(n, broadcast(-0x1.63p-1f), clamped);
  r = fma(n, broadcast(0x1.bd0106p-13f), r);
  // e^r = 1 + r + r^2 (c2 + c3 r + ... + c6 r^4) for |r| <= 0.3475
  F32x16 p = broadcast(0x1.6a21a8p-10f);
  p = fma(p, r, broadcast(0x1.123b68p-7f));
  p = fma(p, r, broadcast(0x1.5558fcp-5f));
  p = fma(p, r, broadcast(0x1.555490p-3f));
  p = fma(p, r, broadcast(0x1.fffffcp-2f));
  p = fma(mul(r, r), p, r);
  F32x16 y = mul(add(p, broadcast(1.0f)), pow2);
  y = select(less(x, lowest), zero(), y);
  return select(less(highest, x), broadcast(__builtin_inff()), y);
}

// 2^x for x <= 0 within 4 * 2^-24 of itself: 0 for -inf and below -127; NaN stays NaN. A polynomial of degree 5 around the nearest
// integer (relative error 1e-7, exactly 1 there).
SEXTANT_INLINE F32x16 exp2_of_negative(F32x16 x) {
  const F32x16 clamped = max(broadcast(-127.0f), x);
  F32x16 pow2;  // 0 for -127: an exponent of all zeros
  const F32x16 f = sub(clamped, round_scaled(clamped, broadcast(1.0f), &pow2));
  F32x16 p = broadcast(0x1.5bba14p-10f);
  p = fma(p, f, broadcast(0x1.3cea88p-7f));
  p = fma(p, f, broadcast(0x1.c6b752p-5f));
  p = fma(p, f, broadcast(0x1.ebf9bcp-3f));
  p = fma(p, f, broadcast(0x1.62e42ap-1f));
  return mul(fma(p, f, broadcast(1.0f)), pow2);
}

SEXTANT_INLINE F32x16 tanh_lanes(F32x16 x) {
  const F32x16 a = abs(x), z = mul(x, x);
  // tanh x = x + x z (t0 + t1 z + ... + t4 z^4) for z <= 0.391
  F32x16 p = broadcast(-0x1.7687bep-8f);
  p = fma(p, z, broadcast(0x1.524f70p-6f));
  p = fma(p, z, broadcast(-0x1.b84348p-5f));
  p = fma(p, z, broadcast(0x1.110762p-3f));
  p = fma(p, z, broadcast(-0x1.555534p-2f));
  const F32x16 small = fma(mul(p, z), x, x);
  const F32x16 e = exp_lanes(add(a, a));
  const F32x16 large = sub(broadcast(1.0f), div(broadcast(2.0f), add(e, broadcast(1.0f))));
  return select(less(a, broadcast(0.625f)), small, copy_sign(large, x));
}

}  // namespace
}  // namespace sextant::kernels::cpu::SEXTANT_ISA
