// Attention of one KV head on one thread: a decode step (one token) and a prefill tile, at several depths of context.
#include <benchmark/benchmark.h>

#include <cmath>
#include <vector>

#include "bench/kernels/bench_support.h"

namespace sextant::kernels {
namespace {

void attention(benchmark::State& state, const cpu::KernelTable& kernels, KvType type) {
  const auto tokens = static_cast<int32_t>(state.range(0)), length = static_cast<int32_t>(state.range(1));
  constexpr int32_t kGroup = 3, kDim = 64, kBlockSize = 16;
  const KvCellLayout layout{kBlockSize, 3, kDim};
  const int64_t num_blocks = (length + kBlockSize - 1) / kBlockSize;
  Memory cache(num_blocks * layout.block_elements(type) * kv_element_bytes(type)),
      q(int64_t{tokens} * kGroup * kDim * 4), out(int64_t{tokens} * kGroup * kDim * 4);
  Memory scratch(attention_scratch_floats(int64_t{tokens} * kGroup, kDim) * 4);
  std::vector<int32_t> table(static_cast<size_t>(num_blocks));
  for (int64_t i = 0; i < num_blocks; ++i) table[static_cast<size_t>(i)] = static_cast<int32_t>((i * 7) % num_blocks);
  AttentionTileArgs args{};
  args.q = q.floats();
  args.q_stride = kGroup * kDim;
  args.num_tokens = tokens;
  args.group = kGroup;
  args.first_position = length - tokens;
  args.layout = layout;
  args.cache = cache.bytes();
  args.cache_type = type;
  args.block_table = table.data();
  args.scale = 0.125f;
  args.split_end = (length - 1) / kAttentionSplit + 1;
  args.out = out.floats();
  args.out_stride = kGroup * kDim;
  args.scratch = scratch.floats();
  for (auto _ : state) kernels.attention_tile(args);
  state.SetBytesProcessed(state.iterations() * int64_t{length} * layout.cell_elements(type) / kBlockSize *
                          kv_element_bytes(type));
  state.counters["flop/s"] = benchmark::Counter(
      static_cast<double>(state.iterations()) * tokens * kGroup * length * kDim * 4, benchmark::Counter::kIsRate);
}

const bool registered = [] {
  for_each_isa([](const cpu::KernelTable& kernels) {
    for (const KvType type : {KvType::kBf16, KvType::kInt8}) {
      const std::string name =
          (type == KvType::kInt8 ? std::string("attention_int8/") : "attention/") + cpu::isa_name(kernels.isa);
      benchmark::RegisterBenchmark(name.c_str(),
                                   [&kernels, type](benchmark::State& state) { attention(state, kernels, type); })
          ->ArgNames({"tokens", "length"})
          ->ArgsProduct({{1, 16}, {128, 1024, 8192}});
    }
  });
  return true;
}();

}  // namespace
}  // namespace sextant::kernels
