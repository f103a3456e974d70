#include "bench/kernels/kernel_run.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <utility>

#include "bench/kernels/bench_support.h"

namespace sextant::bench {
namespace {

using namespace kernels;  // NOLINT(google-build-using-namespace): this file is about nothing else

constexpr int64_t kFarBytes = int64_t{96} << 20;  // more than a core's share of any cache
constexpr size_t kNumSamples = 11;

double now_s() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

typedef uint64_t Words __attribute__((vector_size(64)));
typedef float Floats __attribute__((vector_size(64)));

#if defined(__x86_64__)
#define SEXTANT_WIDEST __attribute__((target_clones("default", "fma", "avx512f")))
#else
#define SEXTANT_WIDEST
#endif

SEXTANT_WIDEST
uint64_t read_all(const uint8_t* data, int64_t bytes) {
  Words sum[4] = {};
  for (int64_t i = 0; i + 256 <= bytes; i += 256) {
    for (int j = 0; j < 4; ++j) sum[j] += *reinterpret_cast<const Words*>(data + i + 64 * j);
  }
  const Words all = sum[0] + sum[1] + sum[2] + sum[3];
  return all[0] + all[1] + all[2] + all[3] + all[4] + all[5] + all[6] + all[7];
}

constexpr int kChains = 8;  // independent, so that the latency of one is hidden by the others

SEXTANT_WIDEST
void multiply_add(float* seeds, int64_t num) {
  Floats a[kChains];
  for (int j = 0; j < kChains; ++j) a[j] = *reinterpret_cast<Floats*>(seeds) + static_cast<float>(j);
  const Floats b = *reinterpret_cast<Floats*>(seeds + 16), c = *reinterpret_cast<Floats*>(seeds + 32);
  for (int64_t i = 0; i < num; ++i) {
    for (int j = 0; j < kChains; ++j) a[j] = a[j] * b + c;
  }
  Floats sum = a[0];
  for (int j = 1; j < kChains; ++j) sum += a[j];
  *reinterpret_cast<Floats*>(seeds) = sum;  // used: nothing of it can be left out
}

// One op on one shape, ready to be called again and again.
struct Case {
  KernelResult facts;
  bool is_far = false;        // its bytes come from memory each time
  bool is_fp32_work = false;  // its products are the fp32 unit's
  std::function<void()> call;
};

class Runner {
 public:
  Runner(const KernelRunOptions& options, const KernelRoofs& roofs,
         const std::function<void(const KernelResult&)>& on_result)
      : options_(options), roofs_(roofs), on_result_(on_result) {}

  void run(const cpu::KernelTable& table) {
    const int64_t far_rows = kFarBytes / (4096 * 4 * 5);
    for (int type = 0; type < kNumPanelTypes; ++type) {
      for (const int64_t tokens : {1, 8, 128}) matmul(table, static_cast<PanelType>(type), tokens, 4096, 4096);
    }
    for (const int32_t tokens : {1, 16}) {
      for (const int32_t length : {1024, 8192}) attention(table, tokens, length);
    }
    for (const int64_t rows : {int64_t{1}, far_rows}) {
      rms_norm(table, rows, 4096);
      silu_mul(table, rows, 14336 / 4);
    }
  }
  int64_t num_run() const { return num_run_; }

 private:
  static std::string name_of(const KernelResult& facts) {
    std::string name = facts.op + "/" + facts.isa + (facts.weights.empty() ? "" : "/" + facts.weights);
    char separator = '/';
    for (const auto& [key, number] : facts.shape) {
      name += separator + key + "=" + std::to_string(number);
      separator = ',';
    }
    return name;
  }

  // `prepare` makes the operands; called only for a case that is wanted.
  template <typename Prepare>
  void measure(Case c, Prepare&& prepare) {
    c.facts.name = name_of(c.facts);
    if (c.facts.name.find(options_.filter) == std::string::npos) return;
    ++num_run_;
    if (options_.on_name) options_.on_name(c.facts.name);
    if (options_.is_stopped && options_.is_stopped()) return;
    c.call = prepare();
    KernelResult& result = c.facts;
    const double sample_s = options_.min_time_s / kNumSamples;
    const auto time = [&](int64_t num) {
      const double begin = now_s();
      for (int64_t i = 0; i < num; ++i) c.call();
      return now_s() - begin;
    };
    time(1);
    int64_t num = 1;
    for (double s = time(1); s < sample_s && num < (int64_t{1} << 40); s = time(num)) {
      num = std::max(num + 1, std::min(num * 10, static_cast<int64_t>(static_cast<double>(num) * sample_s /
                                                                      std::max(s, 1e-9) * 1.2)));
    }
    result.calls_per_sample = num;
    for (size_t i = 0; i < kNumSamples; ++i) result.call_s.push_back(time(num) / static_cast<double>(num));
    std::sort(result.call_s.begin(), result.call_s.end());
    double bound_s = 0;
    if (c.is_far) bound_s = static_cast<double>(result.bytes) * 1e-9 / roofs_.read_gb_per_s;
    if (c.is_fp32_work) {
      bound_s = std::max(bound_s, static_cast<double>(result.flops) * 1e-9 / roofs_.fp32_gflop_per_s);
    }
    if (bound_s > 0) result.roof_pct = bound_s / result.median_s() * 100;
    on_result_(result);
  }

  void matmul(const cpu::KernelTable& table, PanelType type, int64_t tokens, int64_t cols, int64_t rows) {
    const int64_t matrix_bytes = num_panels(rows) * panel_bytes(type, cols);
    const int64_t num_matrices = kFarBytes / matrix_bytes + 1;
    Case c;
    c.facts.op = "matmul", c.facts.isa = cpu::isa_name(table.isa),
    c.facts.weights = kPanelTypeNames[static_cast<int>(type)];
    c.facts.shape = {{"T", tokens}, {"K", cols}, {"N", rows}};
    c.facts.bytes = matrix_bytes + tokens * (cols + rows) * 4;
    c.facts.flops = 2 * tokens * rows * cols;
    // With few tokens the weights' bytes bound every type; with many, the fp32 unit bounds those that it multiplies.
    c.is_far = tokens <= 8 || type == PanelType::kF32;
    c.is_fp32_work = type == PanelType::kF32;
    measure(std::move(c), [=, &table] {
      const MatmulInputKind kind = matmul_input_kind(type);
      const auto weights = std::make_shared<Memory>(num_matrices * matrix_bytes);
      const auto x = std::make_shared<Memory>(tokens * cols * 4), out = std::make_shared<Memory>(tokens * rows * 4);
      const auto input = std::make_shared<Memory>(matmul_input_bytes(kind, cols, tokens));
      return [=, &table, next = int64_t{0}]() mutable {
        table.matmul_input({kind, x->floats(), cols, cols, tokens, 0, tokens, input->bytes()});
        table.matmul({type, weights->bytes() + next * matrix_bytes, rows, cols, 0, num_panels(rows), input->bytes(),
                      tokens, out->floats(), rows});
        next = (next + 1) % num_matrices;
      };
    });
  }

  // One KV head of a group of queries, bf16, its blocks out of order.
  void attention(const cpu::KernelTable& table, int32_t tokens, int32_t length) {
    constexpr int32_t kGroup = 4, kDim = 128, kBlockSize = 16;
    Case c;
    c.facts.op = "attention", c.facts.isa = cpu::isa_name(table.isa), c.facts.weights = "bf16";
    c.facts.shape = {{"tokens", tokens}, {"length", length}, {"group", kGroup}, {"dim", kDim}};
    c.facts.bytes = int64_t{length} * 2 * kDim * 2 + int64_t{tokens} * kGroup * kDim * 4 * 2;
    // Token t of the tile sees length - tokens + t + 1 positions: two products of kDim each.
    const int64_t seen = int64_t{tokens} * length - int64_t{tokens} * (tokens - 1) / 2;
    c.facts.flops = seen * kGroup * kDim * 4;
    measure(std::move(c), [=, &table] {
      const KvCellLayout layout{kBlockSize, 1, kDim};
      const int64_t num_blocks = (length + kBlockSize - 1) / kBlockSize;
      const int64_t num_rows = int64_t{tokens} * kGroup;
      const auto cache = std::make_shared<Memory>(num_blocks * layout.block_elements(KvType::kBf16) * 2);
      const auto q = std::make_shared<Memory>(num_rows * kDim * 4), out = std::make_shared<Memory>(num_rows * kDim * 4);
      const auto scratch = std::make_shared<Memory>(attention_scratch_floats(num_rows, kDim) * 4);
      const auto blocks = std::make_shared<std::vector<int32_t>>();
      for (int64_t i = 0; i < num_blocks; ++i) blocks->push_back(static_cast<int32_t>(num_blocks - 1 - i));
      AttentionTileArgs args{};
      args.q = q->floats();
      args.q_stride = kGroup * kDim;
      args.num_tokens = tokens;
      args.group = kGroup;
      args.first_position = length - tokens;
      args.layout = layout;
      args.cache = cache->bytes();
      args.cache_type = KvType::kBf16;
      args.block_table = blocks->data();
      args.scale = 0.088f;
      args.split_end = (length - 1) / kAttentionSplit + 1;
      args.out = out->floats();
      args.out_stride = kGroup * kDim;
      args.scratch = scratch->floats();
      return [args, &table, cache, q, out, scratch, blocks] { table.attention_tile(args); };
    });
  }

  void rms_norm(const cpu::KernelTable& table, int64_t rows, int64_t cols) {
    Case c;
    c.facts.op = "add_rms_norm", c.facts.isa = cpu::isa_name(table.isa);
    c.facts.shape = {{"rows", rows}, {"cols", cols}};
    c.facts.bytes = (rows * 4 + 1) * cols * 4;  // residual twice, x, out; the weight
    c.is_far = c.facts.bytes >= kFarBytes / 2;
    measure(std::move(c), [=, &table] {
      const auto residual = std::make_shared<Memory>(rows * cols * 4), x = std::make_shared<Memory>(rows * cols * 4);
      const auto weight = std::make_shared<Memory>(cols * 4), out = std::make_shared<Memory>(rows * cols * 4);
      return [=, &table] {
        table.add_rms_norm(
            {residual->floats(), cols, x->floats(), cols, weight->floats(), 1e-5f, out->floats(), cols, rows, cols});
      };
    });
  }

  void silu_mul(const cpu::KernelTable& table, int64_t rows, int64_t cols) {
    Case c;
    c.facts.op = "silu_mul", c.facts.isa = cpu::isa_name(table.isa);
    c.facts.shape = {{"rows", rows}, {"cols", cols}};
    c.facts.bytes = rows * cols * 3 * 4;
    c.is_far = c.facts.bytes >= kFarBytes / 2;
    measure(std::move(c), [=, &table] {
      const auto gate_up = std::make_shared<Memory>(rows * cols * 2 * 4),
                 out = std::make_shared<Memory>(rows * cols * 4);
      return [=, &table] { table.silu_mul({out->floats(), cols, gate_up->floats(), 2 * cols, rows, cols}); };
    });
  }

  const KernelRunOptions& options_;
  const KernelRoofs& roofs_;
  const std::function<void(const KernelResult&)>& on_result_;
  int64_t num_run_ = 0;
};

std::vector<const cpu::KernelTable*> tables() {
  std::vector<const cpu::KernelTable*> all;
  for_each_isa([&](const cpu::KernelTable& table) { all.push_back(&table); });
  return all;
}

}  // namespace

std::vector<std::string> kernel_isas() {
  std::vector<std::string> names;
  for (const cpu::KernelTable* table : tables()) names.emplace_back(cpu::isa_name(table->isa));
  return names;
}

KernelRoofs measure_kernel_roofs() {
  KernelRoofs roofs;
  Memory memory(kFarBytes);
  uint64_t sum = 0;
  for (int i = 0; i < 25; ++i) {  // the best of them: others may use the machine too
    const double begin = now_s();
    sum += read_all(memory.bytes(), kFarBytes);
    roofs.read_gb_per_s = std::max(roofs.read_gb_per_s, static_cast<double>(kFarBytes) / (now_s() - begin) * 1e-9);
  }
  // The sum is part of what the next loop starts from, so that it has to be made.
  alignas(64) float seeds[48];
  for (int i = 0; i < 48; ++i) seeds[i] = i < 16 ? static_cast<float>(sum % 7) : i < 32 ? 0.5f : 1.0f;
  constexpr int64_t kNum = 500'000;
  for (int i = 0; i < 25; ++i) {
    const double begin = now_s();
    multiply_add(seeds, kNum);
    roofs.fp32_gflop_per_s =
        std::max(roofs.fp32_gflop_per_s, static_cast<double>(kNum) * kChains * 16 * 2 / (now_s() - begin) * 1e-9);
  }
  return roofs;
}

int64_t run_kernels(const KernelRunOptions& options, const KernelRoofs& roofs,
                    const std::function<void(const KernelResult&)>& on_result) {
  Runner runner(options, roofs, on_result);
  for (const cpu::KernelTable* table : tables()) {
    const std::string name = cpu::isa_name(table->isa);
    const bool is_wanted = options.isas.empty()
                               ? table->isa == cpu::best_kernel_table().isa
                               : std::find(options.isas.begin(), options.isas.end(), name) != options.isas.end();
    if (is_wanted) runner.run(*table);
  }
  return runner.num_run();
}

}  // namespace sextant::bench
