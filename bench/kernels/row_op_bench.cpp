// Norms and element operations on rows of a small model, from the cache.
#include <benchmark/benchmark.h>

#include "bench/kernels/bench_support.h"

namespace sextant::kernels {
namespace {

void add_rms_norm(benchmark::State& state, const cpu::KernelTable& kernels) {
  const int64_t cols = state.range(0);
  Memory residual(cols * 4), x(cols * 4), weight(cols * 4), out(cols * 4);
  for (auto _ : state) {
    kernels.add_rms_norm(
        {residual.floats(), cols, x.floats(), cols, weight.floats(), 1e-5f, out.floats(), cols, 1, cols});
  }
  state.SetItemsProcessed(state.iterations() * cols);
}

void silu_mul(benchmark::State& state, const cpu::KernelTable& kernels) {
  const int64_t cols = state.range(0);
  Memory gate_up(2 * cols * 4), out(cols * 4);
  for (auto _ : state) kernels.silu_mul({out.floats(), cols, gate_up.floats(), 2 * cols, 1, cols});
  state.SetItemsProcessed(state.iterations() * cols);
}

const bool registered = [] {
  for_each_isa([](const cpu::KernelTable& kernels) {
    const std::string isa = cpu::isa_name(kernels.isa);
    benchmark::RegisterBenchmark(("add_rms_norm/" + isa).c_str(),
                                 [&kernels](benchmark::State& state) { add_rms_norm(state, kernels); })
        ->Arg(576)
        ->Arg(4096);
    benchmark::RegisterBenchmark(("silu_mul/" + isa).c_str(),
                                 [&kernels](benchmark::State& state) { silu_mul(state, kernels); })
        ->Arg(1536)
        ->Arg(14336);
  });
  return true;
}();

}  // namespace
}  // namespace sextant::kernels
