// CpuBackend: each op of backend.h as calls of one instruction set's kernels on the pool's threads. An op is shared between
// threads by rows of tokens or by panels of weights, never along a sum, so that results do not depend on their number.
// All ops run on the engine's thread and are done when they return.
#include "engine/device/cpu_backend.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "engine/base/check.h"
#include "engine/device/backend_needs.h"
#include "engine/device/cpu_attention.h"
#include "engine/device/cpu_kv_cache.h"
#include "engine/device/cpu_matrix.h"
#include "engine/device/cpu_memory.h"
#include "engine/device/cpu_products.h"
#include "engine/device/host_memory.h"
#include "engine/device/thread_pool.h"
#include "engine/device/usable_cpus.h"
#include "kernels/cpu/kernel_table.h"

namespace sextant {
namespace {

using kernels::cpu::KernelTable;

// Elements of an elementwise op below which waking the other threads is not worth it.
constexpr int64_t kMinElementsToShare = 16384;
constexpr int64_t kMaxThreads = 1024;
// by_rows: a part's rows, at most; fewer per thread than the least are worth no part of their own.
constexpr int64_t kPartRows = 4 * kernels::kMatmulTileMultiple;
constexpr int64_t kThreadsThatMemoryFeeds = 4;
constexpr int64_t kMinPartRows = 2 * kernels::kMatmulTileMultiple;

void check_f32(const Tensor& t) {
  CHECK(t.dtype == DType::kFloat32 && t.row_stride >= t.cols) << "needs a float32 tensor";
}

// factor times a row of the matrix.
void read_scaled(const CpuMatrix& matrix, int64_t row, float factor, float* to) {
  matrix.read_row(row, to);
  if (factor == 1.0f) return;
  for (int64_t i = 0; i < matrix.cols(); ++i) to[i] *= factor;
}

const CpuMatrix& cpu_matrix(const WeightMatrix& matrix) { return static_cast<const CpuMatrix&>(matrix); }

class CpuBackend final : public Backend {
 public:
  CpuBackend(const KernelTable& kernels, int num_threads)
      : kernels_(kernels),
        pool_(num_threads),
        products_(kernels, pool_, kernels::kMatmulTokensPerPass),
        attention_(kernels, pool_),
        scratch_(static_cast<size_t>(pool_.num_threads())) {
    for (int i = 0; i < pool_.num_threads(); ++i) parts_.emplace_back(new CpuBackend(kernels));
  }

  std::string description() const override {
    return std::string("cpu (") + kernels::cpu::isa_name(kernels_.isa) + ", " + std::to_string(pool_.num_threads()) +
           (pool_.num_threads() == 1 ? " thread" : " threads") +
           (products_.computes_in_bf16() ? ", bfloat16 products)" : ")");
  }

  Status supports(const BackendNeeds& needs) const override {
    for (const WeightType type : needs.weight_types) {
      if (!is_computable(type)) {
        return unsupported("the CPU backend does not compute with weights of type " +
                           std::string(weight_type_name(type)));
      }
    }
    if (needs.dtype == DType::kFloat16) {
      return unsupported(
          "the CPU backend does not compute in float16 (its activations are float32, on weights as they are stored): "
          "use "
          "--dtype auto, bfloat16 or float32, or --device cuda",
          "dtype");
    }
    RETURN_IF_ERROR(check_head_dim(needs.attention[0].head_dim));
    RETURN_IF_ERROR(check_kv_cache_dtype(needs.kv_cache_dtype));
    return check_attention(needs.attention);
  }

  // Only where it is asked for by name: with auto, activations stay fp32 for plain weights.
  void adopt(const BackendNeeds& needs) override {
    if (needs.dtype != DType::kBFloat16) return;
    products_.compute_in_bf16();
    for (const std::unique_ptr<CpuBackend>& part : parts_) part->products_.compute_in_bf16();
  }

  Result<std::unique_ptr<DeviceBuffer>> allocate(size_t bytes) override {
    ASSIGN_OR_RETURN(std::unique_ptr<CpuBuffer> buffer, CpuBuffer::create(bytes));
    return std::unique_ptr<DeviceBuffer>(std::move(buffer));
  }

  Result<std::unique_ptr<WeightMatrix>> make_matrix(std::span<const HostMatrix> parts) override {
    ASSIGN_OR_RETURN(std::unique_ptr<CpuMatrix> matrix, CpuMatrix::create(parts, pool_, arena_));
    RETURN_IF_ERROR(products_.prepare(*matrix));
    for (const std::unique_ptr<CpuBackend>& part : parts_) RETURN_IF_ERROR(part->products_.prepare(*matrix));
    largest_matrix_bytes_ = std::max(largest_matrix_bytes_, matrix->size_bytes());
    return std::unique_ptr<WeightMatrix>(std::move(matrix));
  }

  uint64_t matrix_bytes(WeightType type, int64_t rows, int64_t cols) const override {
    return CpuMatrix::bytes_of(type, rows, cols);
  }

  WeightType held_type(WeightType type) const override { return sextant::held_type(type, HeldBy::kCpu).value_or(type); }

  Result<std::unique_ptr<KvCache>> make_kv_cache(const KvCacheLayout& layout) override {
    ASSIGN_OR_RETURN(std::unique_ptr<CpuKvCache> cache, CpuKvCache::create(layout));
    return std::unique_ptr<KvCache>(std::move(cache));
  }

  int64_t workspace_bytes(int64_t max_num_batched_tokens, int64_t max_num_seqs,
                          const AttentionKinds& kinds) const override {
    const AttentionParams& attention = kinds[0];  // all have its heads
    // A work item takes about 100 bytes; there are at most four per thread and sequence, and one per token and head.
    const int64_t items =
        (max_num_batched_tokens + 4 * pool_.num_threads() * max_num_seqs) * std::max(attention.num_kv_heads, 1);
    const int64_t scratch = std::max(scratch_floats_, CpuAttention::scratch_floats(attention)) * pool_.num_threads();
    int64_t inputs = products_.input_bytes();
    for (const std::unique_ptr<CpuBackend>& part : parts_) inputs += part->products_.input_bytes();
    return (scratch + CpuAttention::max_partial_floats(pool_.num_threads())) * int64_t{sizeof(float)} + inputs +
           items * 100;
  }

  uint64_t memory_budget_bytes(double utilization) const override {
    return static_cast<uint64_t>(static_cast<double>(available_host_memory_bytes()) * utilization);
  }
  bool uses_host_memory() const override { return true; }

  void plan(const StepInputs& inputs, const AttentionKinds& kinds) override {
    const AttentionParams& attention = kinds[0];  // work is cut for a window where a layer asks for it first
    const AttentionBatch& batch = inputs.attention;
    token_ids_ = inputs.token_ids;
    logits_indices_ = inputs.logits_indices;
    const Status grown = grow_scratch(CpuAttention::scratch_floats(attention));
    CHECK(grown.ok()) << grown.message();
    max_position_ = batch.positions.empty() ? 0 : *std::max_element(batch.positions.begin(), batch.positions.end());
    batch_ = batch;
    products_.begin_step();
    attention_.plan(batch, attention);
  }

  void embed(const WeightMatrix& table, float factor, Tensor out) override {
    check_f32(out);
    const std::span<const int32_t> ids = token_ids_;
    const CpuMatrix& matrix = cpu_matrix(table);
    CHECK(out.cols == matrix.cols() && out.rows >= static_cast<int64_t>(ids.size())) << "embed: shape of out";
    for_rows(static_cast<int64_t>(ids.size()), out.cols, [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) {
        const int32_t id = ids[static_cast<size_t>(t)];
        CHECK(id >= 0 && id < matrix.rows()) << "token id " << id << " of a table of " << matrix.rows();
        read_scaled(matrix, id, factor, out.f32() + t * out.row_stride);
      }
    });
  }

  void embed_part(const WeightMatrix& table, int64_t first_row, float factor, Tensor out) override {
    check_f32(out);
    const std::span<const int32_t> ids = token_ids_;
    const CpuMatrix& matrix = cpu_matrix(table);
    CHECK(out.cols == matrix.cols() && out.rows >= static_cast<int64_t>(ids.size())) << "embed_part: shape of out";
    for_rows(static_cast<int64_t>(ids.size()), out.cols, [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) {
        const int64_t row = ids[static_cast<size_t>(t)] - first_row;
        float* to = out.f32() + t * out.row_stride;
        if (row >= 0 && row < matrix.rows()) {
          read_scaled(matrix, row, factor, to);
        } else {
          std::fill_n(to, out.cols, 0.0f);
        }
      }
    });
  }

  void all_reduce(Communicator& group, Tensor x) override {
    CHECK_EQ(x.row_stride, x.cols);
    note(group.all_reduce(x.data, x.rows * x.cols, x.dtype));
  }
  void gather_columns(Communicator& group, Tensor part, std::span<const int64_t> widths, Tensor scratch,
                      Tensor out) override {
    check_f32(part);
    CHECK_EQ(part.row_stride, part.cols);
    const bool one_row = part.rows == 1;
    std::vector<int64_t> counts(widths.begin(), widths.end());
    for (int64_t& count : counts) count *= part.rows;
    note(group.gather(part.data, one_row ? out.data : scratch.data, counts, part.dtype, 0));
    if (group.rank() != 0 || one_row) return;
    pool_.parallel_for(part.rows, 1, [&](int64_t begin, int64_t end) {
      int64_t column = 0;
      for (const int64_t width : widths) {
        const float* from = scratch.f32() + part.rows * column;
        for (int64_t r = begin; r < end; ++r)
          std::copy_n(from + r * width, width, out.f32() + r * out.row_stride + column);
        column += width;
      }
    });
  }
  void send(Communicator& group, Tensor x, int peer) override {
    CHECK_EQ(x.row_stride, x.cols);
    note(group.send(x.data, x.rows * x.cols, x.dtype, peer));
  }
  void receive(Communicator& group, Tensor x, int peer) override {
    CHECK_EQ(x.row_stride, x.cols);
    note(group.receive(x.data, x.rows * x.cols, x.dtype, peer));
  }

  void rms_norm(Tensor x, const float* weight, float eps, Tensor out) override {
    check_f32(x);
    check_f32(out);
    for_rows(x.rows, x.cols, [&](int64_t begin, int64_t end) {
      kernels_.rms_norm({nullptr, 0, x.f32() + begin * x.row_stride, x.row_stride, weight, eps,
                         out.f32() + begin * out.row_stride, out.row_stride, end - begin, x.cols});
    });
  }

  void add_rms_norm(Tensor residual, Tensor x, const float* weight, float eps, Tensor out) override {
    check_f32(residual);
    check_f32(x);
    check_f32(out);
    for_rows(x.rows, x.cols, [&](int64_t begin, int64_t end) {
      kernels_.add_rms_norm({residual.f32() + begin * residual.row_stride, residual.row_stride,
                             x.f32() + begin * x.row_stride, x.row_stride, weight, eps,
                             out.f32() + begin * out.row_stride, out.row_stride, end - begin, x.cols});
    });
  }

  void rms_norm_heads(Tensor x, int64_t head_dim, const float* weight, float eps) override {
    check_f32(x);
    CHECK_EQ(x.cols % head_dim, 0);
    for_rows(x.rows, x.cols, [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) {
        float* heads = x.f32() + t * x.row_stride;
        kernels_.rms_norm({nullptr, 0, heads, head_dim, weight, eps, heads, head_dim, x.cols / head_dim, head_dim});
      }
    });
  }

  void matmul(const WeightMatrix& w, Tensor x, Tensor out) override {
    check_f32(x);
    check_f32(out);
    const CpuMatrix& matrix = cpu_matrix(w);
    CHECK(x.cols == matrix.cols() && out.cols == matrix.rows() && out.rows == x.rows)
        << "matmul of [" << x.rows << ", " << x.cols << "] and [" << matrix.rows() << ", " << matrix.cols() << "] to ["
        << out.rows << ", " << out.cols << "]";
    products_.multiply(matrix, x, out);
  }

  void add_bias(Tensor x, const float* bias) override {
    check_f32(x);
    for_rows(x.rows, x.cols, [&](int64_t begin, int64_t end) {
      kernels_.add_bias({x.f32() + begin * x.row_stride, x.row_stride, bias, 0, end - begin, x.cols});
    });
  }

  void rope_and_cache(Tensor qkv, const RopeTable& rope, const AttentionParams& attention, KvCache& cache,
                      int32_t layer) override {
    check_f32(qkv);
    const auto& kv = static_cast<const CpuKvCache&>(cache);
    const int32_t* positions = batch_.positions.data() + first_row_;
    const int64_t* slots = batch_.slot_mapping.data() + first_row_;
    CHECK(kv.cells().head_dim == attention.head_dim && kv.cells().num_kv_heads == attention.num_kv_heads &&
          layer < kv.num_layers())
        << "rope_and_cache: another shape than the cache's";
    CHECK_EQ(qkv.cols, int64_t{attention.num_heads + 2 * attention.num_kv_heads} * attention.head_dim);
    CHECK(rope.rotary_dim <= attention.head_dim && max_position_ < rope.num_positions)
        << "position " << max_position_ << " of a table of " << rope.num_positions;
    for_rows(qkv.rows, qkv.cols, [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) {
        const int64_t slot = slots[t];
        CHECK(slot >= 0 && slot / kv.cells().block_size < kv.num_blocks())
            << "slot " << slot << " is outside the cache";
      }
      kernels_.rope_and_cache({qkv.f32() + begin * qkv.row_stride, qkv.row_stride, end - begin, attention.num_heads,
                               kv.cells(), rope.rotary_dim, rope.cos, rope.sin, positions + begin, slots + begin,
                               kv.layer_data(layer), kv.cell_type()});
    });
  }

  void attention(Tensor qkv, const AttentionParams& attention, const KvCache& cache, int32_t layer,
                 Tensor out) override {
    check_f32(qkv);
    check_f32(out);
    const auto& kv = static_cast<const CpuKvCache&>(cache);
    CHECK(out.cols == int64_t{attention.num_heads} * attention.head_dim && out.rows == qkv.rows)
        << "attention: shape of out";
    CHECK(kv.cells().head_dim == attention.head_dim && kv.cells().num_kv_heads == attention.num_kv_heads &&
          layer < kv.num_layers())
        << "attention: another shape than the cache's";
    attention_.run(qkv, attention, kv, layer, out, scratch_at_);
  }

  void activation_mul(Tensor gate_up, Activation activation, Tensor out) override {
    check_f32(gate_up);
    check_f32(out);
    CHECK_EQ(gate_up.cols, 2 * out.cols);
    auto* const kernel = activation == Activation::kSilu ? kernels_.silu_mul : kernels_.gelu_tanh_mul;
    for_rows(out.rows, gate_up.cols, [&](int64_t begin, int64_t end) {
      kernel({out.f32() + begin * out.row_stride, out.row_stride, gate_up.f32() + begin * gate_up.row_stride,
              gate_up.row_stride, end - begin, out.cols});
    });
  }

  void round(Tensor x, Tensor out) override {
    check_f32(x);
    check_f32(out);
    CHECK(x.rows == out.rows && x.cols == out.cols) << "round: shape of out";
    for_rows(x.rows, x.cols, [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t)
        std::copy_n(x.f32() + t * x.row_stride, x.cols, out.f32() + t * out.row_stride);
    });
  }

  void softcap(Tensor x, float cap) override {
    check_f32(x);
    CHECK_GT(cap, 0);
    for_rows(x.rows, x.cols, [&](int64_t begin, int64_t end) {
      kernels_.softcap({x.f32() + begin * x.row_stride, x.row_stride, end - begin, x.cols, cap});
    });
  }

  void add(Tensor x, Tensor y) override {
    check_f32(x);
    check_f32(y);
    for_rows(x.rows, x.cols, [&](int64_t begin, int64_t end) {
      kernels_.add({x.f32() + begin * x.row_stride, x.row_stride, y.f32() + begin * y.row_stride, y.row_stride,
                    end - begin, x.cols});
    });
  }

  void gather_logits_rows(Tensor x, Tensor out) override {
    const std::span<const int32_t> row_indices = logits_indices_;
    check_f32(x);
    check_f32(out);
    CHECK(out.cols == x.cols && out.rows >= static_cast<int64_t>(row_indices.size()))
        << "gather_logits_rows: shape of out";
    for (size_t r = 0; r < row_indices.size(); ++r) {
      CHECK(row_indices[r] >= 0 && row_indices[r] < x.rows) << "row " << row_indices[r] << " of " << x.rows;
      std::memcpy(out.f32() + static_cast<int64_t>(r) * out.row_stride, x.f32() + row_indices[r] * x.row_stride,
                  static_cast<size_t>(x.cols) * sizeof(float));
    }
  }

  // With many rows each thread takes some of them through all ops between two attentions: what it makes stays in its own cache and
  // threads meet once a layer. Every part reads all weights: fine from a shared cache, or for few threads from memory.
  void by_rows(int64_t num_rows, const RowsBody& body) override {
    const int64_t threads = pool_.num_threads();
    if (num_rows < threads * kMinPartRows || (threads > kThreadsThatMemoryFeeds && !shared_cache_holds_matrices())) {
      return body(*this, 0, num_rows, 0);
    }
    constexpr int64_t kTile = kernels::kMatmulTileMultiple;
    const int64_t rounds = (num_rows + threads * kPartRows - 1) / (threads * kPartRows);
    const int64_t rows = (num_rows + threads * rounds * kTile - 1) / (threads * rounds * kTile) * kTile;
    // As many tiles for each thread as can be: parts differ by a tile, the larger ones first.
    const int64_t tiles = (num_rows + kTile - 1) / kTile;
    const int64_t parts = std::min(threads * rounds, tiles), least = tiles / parts, larger = tiles % parts;
    pool_.share(parts, [&](int thread, int64_t piece) {
      CpuBackend& part = *parts_[static_cast<size_t>(thread)];
      const int64_t first = (piece * least + std::min(piece, larger)) * kTile;
      const int64_t count = std::min((least + (piece < larger ? 1 : 0)) * kTile, num_rows - first);
      part.batch_ = batch_;
      part.first_row_ = first;
      part.max_position_ = max_position_;
      // A thread's own rows where there are enough for all threads: the same ones in each round.
      body(part, first, count, threads * rows <= num_rows ? thread * rows : first);
    });
  }

  void parallel_for(int64_t n, int64_t grain, const std::function<void(int64_t, int64_t)>& body) override {
    pool_.parallel_for(n, grain, body);
  }

  Status synchronize() override { return error_; }

 private:
  // One thread's backend of by_rows: the ops of a few rows.
  explicit CpuBackend(const KernelTable& kernels)
      : kernels_(kernels), pool_(1), products_(kernels, pool_, kPartRows), attention_(kernels, pool_), scratch_(1) {}

  bool shared_cache_holds_matrices() const {
    static const auto cache_bytes = static_cast<size_t>(std::max(sysconf(_SC_LEVEL3_CACHE_SIZE), 0L));
    return largest_matrix_bytes_ <= cache_bytes / 2;
  }

  // Only other ranks can fail here; what is computed after that is lost.
  void note(Status status) {
    if (!status.ok() && error_.ok()) error_ = std::move(status);
  }

  template <typename Body>
  void for_rows(int64_t rows, int64_t cols, Body&& body) {
    pool_.parallel_for(rows, std::max<int64_t>(1, kMinElementsToShare / 2 / std::max<int64_t>(cols, 1)), body);
  }

  // One piece of memory per thread, so that threads do not share cache lines and pages stay with their thread.
  Status grow_scratch(int64_t floats) {
    if (floats <= scratch_floats_) return ok_status();
    for (std::unique_ptr<CpuBuffer>& buffer : scratch_) {
      ASSIGN_OR_RETURN(buffer, CpuBuffer::create(static_cast<size_t>(floats) * sizeof(float)));
    }
    scratch_at_.clear();
    for (const std::unique_ptr<CpuBuffer>& buffer : scratch_)
      scratch_at_.push_back(static_cast<float*>(buffer->data()));
    scratch_floats_ = floats;
    return ok_status();
  }

  const KernelTable& kernels_;
  ThreadPool pool_;
  CpuArena arena_;  // of the matrices
  CpuProducts products_;
  CpuAttention attention_;
  std::vector<std::unique_ptr<CpuBuffer>> scratch_;
  std::vector<float*> scratch_at_;
  int64_t scratch_floats_ = 0;
  std::vector<std::unique_ptr<CpuBackend>> parts_;  // by_rows: one per thread
  size_t largest_matrix_bytes_ = 0;
  std::span<const int32_t> token_ids_;  // of the step, as are the following
  AttentionBatch batch_;
  int64_t first_row_ = 0;  // of the step's rows, the first that ops see
  std::span<const int32_t> logits_indices_;
  int32_t max_position_ = 0;
  Status error_;
};

Result<const KernelTable*> chosen_kernels() {
  const char* name = std::getenv("SEXTANT_CPU_ISA");
  if (name == nullptr || *name == '\0') return &kernels::cpu::best_kernel_table();
  if (const KernelTable* table = kernels::cpu::kernel_table_named(name)) return table;
  return invalid_argument(
      "SEXTANT_CPU_ISA is \"" + std::string(name) + "\"; this CPU has: " + kernels::cpu::available_isas(),
      "SEXTANT_CPU_ISA");
}

}  // namespace

Result<std::unique_ptr<Backend>> make_cpu_backend(const DeviceConfig& config) {
  ASSIGN_OR_RETURN(const KernelTable* kernels, chosen_kernels());
  if (config.num_threads < 0 || config.num_threads > kMaxThreads) {
    return invalid_argument("num_threads must be between 0 (all CPUs) and " + std::to_string(kMaxThreads) + "; it is " +
                                std::to_string(config.num_threads),
                            "num_threads");
  }
  const int num_threads = config.num_threads > 0 ? static_cast<int>(config.num_threads) : usable_cpus();
  return std::unique_ptr<Backend>(std::make_unique<CpuBackend>(*kernels, num_threads));
}

}  // namespace sextant
