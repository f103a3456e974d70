#include "kernels/cuda/rope_cache.h"

#include "kernels/cuda/element.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/ptx.h"

namespace sextant::kernels::cuda {
namespace {

constexpr int kThreads = 256;

// kWidth elements in accesses of up to 128 bits.
template <typename T, int kWidth>
struct alignas(kWidth * sizeof(T) < 16 ? kWidth * sizeof(T) : 16) Run {
  T at[kWidth];
};

// x[i], x[i + half] for kWidth values of i: rotated in place and, when `copy` is given, written there too.
template <typename T, int kWidth>
__device__ __forceinline__ void rotate(T* x, T* copy, int half, const float* cos, const float* sin) {
  using Elements = Run<T, kWidth>;
  Elements a = *reinterpret_cast<const Elements*>(x);
  Elements b = *reinterpret_cast<const Elements*>(x + half);
  const auto c = *reinterpret_cast<const Run<float, kWidth>*>(cos);
  const auto s = *reinterpret_cast<const Run<float, kWidth>*>(sin);
  SEXTANT_UNROLL
  for (int i = 0; i < kWidth; ++i) {
    const float x0 = to_float(a.at[i]);
    const float x1 = to_float(b.at[i]);
    a.at[i] = from_float<T>(x0 * c.at[i] - x1 * s.at[i]);
    b.at[i] = from_float<T>(x1 * c.at[i] + x0 * s.at[i]);
  }
  *reinterpret_cast<Elements*>(x) = a;
  *reinterpret_cast<Elements*>(x + half) = b;
  if (copy == nullptr) return;
  *reinterpret_cast<Elements*>(copy) = a;
  *reinterpret_cast<Elements*>(copy + half) = b;
}

// kWidth divides R/2, hence R and the rest of a head.
template <typename T, int kWidth>
__global__ void __launch_bounds__(kThreads) rope_cache_kernel(RopeCacheArgs args) {
  grid_dependency_wait();
  const int64_t row = blockIdx.x;
  const int thread = static_cast<int>(threadIdx.x);
  const int num_kv_heads = args.layout.num_kv_heads;
  const int dim_qk = args.layout.head_dim_qk;
  const int dim_v = args.layout.head_dim_v;
  const int half = args.rotary_dim / 2;
  T* q = static_cast<T*>(args.qkv) + row * args.qkv_stride;
  T* k = q + args.num_heads * dim_qk;
  const T* v = k + num_kv_heads * dim_qk;
  const int64_t block = args.slots[row] / kBlockSlots;
  const int place = static_cast<int>(args.slots[row] % kBlockSlots);
  T* keys = static_cast<T*>(args.keys) + args.layout.key_offset(block, 0, place);
  T* values = static_cast<T*>(args.values) + args.layout.value_offset(block, 0, place);

  if (half > 0) {
    const float* cos = args.cos + int64_t{args.positions[row]} * half;
    const float* sin = args.sin + int64_t{args.positions[row]} * half;
    const int per_head = half / kWidth;
    for (int unit = thread; unit < (args.num_heads + num_kv_heads) * per_head; unit += kThreads) {
      const int head = unit / per_head;
      const int i = unit % per_head * kWidth;
      const int kv_head = head - args.num_heads;
      // k stands behind q: head h of both together is at h * dim_qk.
      T* copy = kv_head < 0 ? nullptr : keys + int64_t{kv_head} * kBlockSlots * dim_qk + i;
      rotate<T, kWidth>(q + head * dim_qk + i, copy, half, cos + i, sin + i);
    }
  }
  using Elements = Run<T, kWidth>;
  const int kept = (dim_qk - args.rotary_dim) / kWidth;  // what no rotation touches of a key
  for (int unit = thread; unit < num_kv_heads * kept; unit += kThreads) {
    const int head = unit / kept;
    const int i = args.rotary_dim + unit % kept * kWidth;
    *reinterpret_cast<Elements*>(keys + int64_t{head} * kBlockSlots * dim_qk + i) =
        *reinterpret_cast<const Elements*>(k + head * dim_qk + i);
  }
  const int per_value = dim_v / 8;
  for (int unit = thread; unit < num_kv_heads * per_value; unit += kThreads) {
    const int head = unit / per_value;
    const int i = unit % per_value * 8;
    store_vector(values + int64_t{head} * kBlockSlots * dim_v + i, load_vector(v + head * dim_v + i));
  }
  grid_dependency_launch();
}

bool is_aligned(const void* p) { return p != nullptr && reinterpret_cast<uintptr_t>(p) % 16 == 0; }

template <typename T>
int launch_for(const RopeCacheArgs& args, Stream stream) {
  const LaunchShape shape{
      .grid = dim3(static_cast<unsigned>(args.rows)), .block = dim3(kThreads), .overlaps_previous = true};
  if (args.rotary_dim / 2 % 8 == 0) return launch(shape, stream, rope_cache_kernel<T, 8>, args);
  return launch(shape, stream, rope_cache_kernel<T, 1>, args);
}

}  // namespace

int rope_and_cache(const RopeCacheArgs& args, Stream stream) {
  if (args.rows == 0) return cudaSuccess;
  const KvLayout& layout = args.layout;
  if (args.rows < 0 || args.num_heads <= 0 || layout.num_kv_heads <= 0 || layout.head_dim_qk <= 0 ||
      layout.head_dim_qk % 16 != 0 || layout.head_dim_v <= 0 || layout.head_dim_v % 16 != 0 || args.rotary_dim < 0 ||
      args.rotary_dim % 2 != 0 || args.rotary_dim > layout.head_dim_qk || args.qkv_stride % 8 != 0 ||
      (args.rotary_dim > 0 && (!is_aligned(args.cos) || !is_aligned(args.sin))) || !is_aligned(args.qkv) ||
      !is_aligned(args.keys) || !is_aligned(args.values)) {
    return cudaErrorInvalidValue;
  }
  switch (args.type) {
    case ElementType::kBFloat16: return launch_for<bf16>(args, stream);
    case ElementType::kFloat16: return launch_for<fp16>(args, stream);
    case ElementType::kFloat32: break;
  }
  return cudaErrorInvalidValue;
}

}  // namespace sextant::kernels::cuda
