#include "engine/device/host_sum.h"

#include <algorithm>
#include <cstring>

#include "kernels/ref/reference.h"

namespace sextant {
namespace {

struct Float32 {
  using Value = float;
  static float load(float x) { return x; }
  static float store(float x) { return x; }
};
struct BFloat16 {
  using Value = uint16_t;
  static float load(uint16_t x) { return kernels::ref::f32_of_bf16(x); }
  static uint16_t store(float x) { return kernels::ref::bf16_of_f32(x); }
};
struct Float16 {
  using Value = uint16_t;
  static float load(uint16_t x) { return kernels::ref::f32_of_f16(x); }
  static uint16_t store(float x) { return kernels::ref::f16_of_f32(x); }
};

// Elements [begin, end) of the sum, written to the same places of each of `to`. Pieces are summed apart and then written,
// because the inputs may be the outputs.
template <typename Type>
void sum_range(const std::vector<const std::byte*>& from, const std::vector<std::byte*>& to, int64_t begin,
               int64_t end) {
  using Value = typename Type::Value;
  constexpr int64_t kPiece = 512;
  float sums[kPiece];
  Value rounded[kPiece];
  for (int64_t first = begin; first < end; first += kPiece) {
    const int64_t n = std::min(kPiece, end - first);
    const auto offset = static_cast<size_t>(first) * sizeof(Value);
    for (size_t rank = 0; rank < from.size(); ++rank) {
      const Value* in = reinterpret_cast<const Value*>(from[rank] + offset);
      for (int64_t i = 0; i < n; ++i) sums[i] = rank == 0 ? Type::load(in[i]) : sums[i] + Type::load(in[i]);
    }
    for (int64_t i = 0; i < n; ++i) rounded[i] = Type::store(sums[i]);
    for (std::byte* out : to) std::memcpy(out + offset, rounded, static_cast<size_t>(n) * sizeof(Value));
  }
}

}  // namespace

void sum_range(DType dtype, const std::vector<const std::byte*>& from, const std::vector<std::byte*>& to, int64_t begin,
               int64_t end) {
  if (dtype == DType::kFloat32) return sum_range<Float32>(from, to, begin, end);
  if (dtype == DType::kBFloat16) return sum_range<BFloat16>(from, to, begin, end);
  sum_range<Float16>(from, to, begin, end);
}

}  // namespace sextant
