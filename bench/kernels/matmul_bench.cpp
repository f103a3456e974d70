// Matrix products on one thread: bytes of weights per second (few tokens) and operations per second (many), beside the rate at
// which one thread can read memory at all. Weights are walked through 96 MiB, so that they come from memory, not from a cache.
#include <benchmark/benchmark.h>

#include <numeric>

#include "bench/kernels/bench_support.h"

namespace sextant::kernels {
namespace {

constexpr int64_t kWeightBytes = int64_t{96} << 20;

void stream(benchmark::State& state) {
  Memory memory(kWeightBytes);
  const auto* words = reinterpret_cast<const uint64_t*>(memory.bytes());
  for (auto _ : state) {
    uint64_t sum[8] = {};
    for (int64_t i = 0; i < kWeightBytes / 8; i += 8) {
      for (int j = 0; j < 8; ++j) sum[j] += words[i + j];
    }
    benchmark::DoNotOptimize(std::accumulate(sum, sum + 8, uint64_t{0}));
  }
  state.SetBytesProcessed(state.iterations() * kWeightBytes);
}
BENCHMARK(stream)->Unit(benchmark::kMillisecond);

void matmul(benchmark::State& state, const cpu::KernelTable& kernels, PanelType type) {
  const int64_t tokens = state.range(0), cols = state.range(1), rows = state.range(2);
  const int64_t matrix_bytes = num_panels(rows) * panel_bytes(type, cols),
                num_matrices = std::max<int64_t>(1, kWeightBytes / matrix_bytes);
  const MatmulInputKind kind = matmul_input_kind(type);
  Memory weights(num_matrices * matrix_bytes), x(tokens * cols * 4), out(tokens * rows * 4),
      input(matmul_input_bytes(kind, cols, tokens));
  int64_t next = 0;
  for (auto _ : state) {
    kernels.matmul_input({kind, x.floats(), cols, cols, tokens, 0, tokens, input.bytes()});
    kernels.matmul({type, weights.bytes() + next * matrix_bytes, rows, cols, 0, num_panels(rows), input.bytes(), tokens,
                    out.floats(), rows});
    next = (next + 1) % num_matrices;
  }
  state.SetBytesProcessed(state.iterations() * matrix_bytes);
  state.counters["flop/s"] = benchmark::Counter(static_cast<double>(state.iterations() * tokens * rows * cols * 2),
                                                benchmark::Counter::kIsRate);
}

const bool registered = [] {
  for_each_isa([](const cpu::KernelTable& kernels) {
    for (int type = 0; type < kNumPanelTypes; ++type) {
      const int64_t few = has_superblocks(static_cast<PanelType>(type)) ? 512 : 576;  // columns
      const std::string name = std::string("matmul/") + cpu::isa_name(kernels.isa) + "/" + kPanelTypeNames[type];
      benchmark::RegisterBenchmark(
          name.c_str(),
          [&kernels, type](benchmark::State& state) { matmul(state, kernels, static_cast<PanelType>(type)); })
          ->ArgNames({"T", "K", "N"})
          ->ArgsProduct({{1, 2, 4, 8, 16, 128}, {few, 1536}, {576}})
          ->Args({1, 4096, 4096})
          ->Args({128, 4096, 4096})
          ->Args({8, few, 1536})
          ->Args({192, few, 1536})
          ->Args({1, few, 1536});
    }
  });
  return true;
}();

}  // namespace
}  // namespace sextant::kernels
