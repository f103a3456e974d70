// What Highway's vectors reach in the inner loop of our fp32 recipe (kernels/cpu/matmul_plain.h): tiles of 12 tokens and 32 rows, one
// fused multiply-add per 16 rows, token and column, weights column by column. Not part of the build.
//   apt install libhwy-dev
//   g++ -std=c++17 -O2 -march=native bench/peers/highway_matmul.cpp -lhwy -o highway_matmul && ./highway_matmul [TOKENS [K [ROWS]]]
// Beside it: bench_kernels --benchmark_filter='matmul/avx512/f32/T:192/K:576/N:1536' on the same machine. One thread; best of 60 rounds.
#include <hwy/aligned_allocator.h>
#include <hwy/highway.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <ctime>

namespace hn = hwy::HWY_NAMESPACE;

constexpr int kTokens = 12, kPanels = 2;

double seconds() {
  timespec t{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

// w: [K][16] of each panel; x: [K][12]; out: [12][rows]
void tile(const float* w, const float* x, float* out, int k_size, int rows) {
  const hn::CappedTag<float, 16> d;
  using V = hn::Vec<decltype(d)>;
  V sum[kPanels][kTokens];
  for (auto& of_panel : sum)
    for (V& v : of_panel) v = hn::Zero(d);
  for (int k = 0; k < k_size; ++k) {
    const V a = hn::Load(d, w + 16 * k), b = hn::Load(d, w + 16 * (k + k_size));
#pragma GCC unroll 12
    for (int t = 0; t < kTokens; ++t) {
      const V same = hn::Set(d, x[k * kTokens + t]);
      sum[0][t] = hn::MulAdd(a, same, sum[0][t]);
      sum[1][t] = hn::MulAdd(b, same, sum[1][t]);
    }
  }
  for (int p = 0; p < kPanels; ++p)
    for (int t = 0; t < kTokens; ++t) hn::StoreU(sum[p][t], d, out + t * rows + 16 * p);
}

int main(int argc, char** argv) {
  const int tokens = (argc > 1 ? std::atoi(argv[1]) : 192) / kTokens * kTokens;
  const int k_size = argc > 2 ? std::atoi(argv[2]) : 576, rows = (argc > 3 ? std::atoi(argv[3]) : 1536) / 32 * 32;
  if (tokens < kTokens || k_size < 1 || rows < 32) return std::fputs("highway_matmul [TOKENS [K [ROWS]]]\n", stderr), 2;
  const auto w = hwy::AllocateAligned<float>(static_cast<size_t>(k_size) * rows);
  const auto x = hwy::AllocateAligned<float>(static_cast<size_t>(k_size) * tokens);
  const auto out = hwy::AllocateAligned<float>(static_cast<size_t>(tokens) * rows);
  std::fill_n(w.get(), static_cast<size_t>(k_size) * rows, 0.5f);
  std::fill_n(x.get(), static_cast<size_t>(k_size) * tokens, 0.25f);
  double best = 1e9;
  for (int round = 0; round < 60; ++round) {
    const double begin = seconds();
    for (int panel = 0; panel < rows / 16; panel += kPanels)
      for (int t = 0; t < tokens; t += kTokens)
        tile(w.get() + 16 * panel * k_size, x.get() + t * k_size, out.get() + t * rows + 16 * panel, k_size, rows);
    best = std::min(best, seconds() - begin);
  }
  std::printf("%d tokens, K %d, %d rows: %.1f G multiplications/s (%s), out[0] %g\n", tokens, k_size, rows,
              1e-9 * tokens * k_size * rows / best, hwy::TargetName(HWY_TARGET), out[0]);
  return 0;
}
