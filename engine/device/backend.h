// Backend: the ops a model is made of, on one device. A model is a straight list of these calls; it never asks which device
// it runs on. All ops of one Backend are called by one thread (the rank's) and run in order.
// Shapes: T tokens of the step (flat, ragged), H hidden size, D head_dim. "f32 [T, H]" is row-major.
// Numeric contract, on the CPU: for one (instruction set, weight type) a row's result depends on that row alone, bit for bit:
// never on T, on its place in the batch, or on how a prompt was cut into steps. On CUDA the order of sums may follow T and how
// attention was split (kernels/cuda says where): the same batch gives the same bits, another batch the same within rounding;
// of FP8 weights from compute capability 8.9 on that is rounding of activations to FP8 (cuda_gemm.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/base/activation.h"
#include "engine/base/check.h"
#include "engine/base/dtype.h"
#include "engine/base/result.h"
#include "engine/base/weight_type.h"
#include "engine/device/communicator.h"
#include "engine/device/sample_batch.h"

namespace sextant {

// Memory of the device, owned. CPU: 64-byte aligned.
class DeviceBuffer {
 public:
  virtual ~DeviceBuffer() = default;
  virtual void* data() = 0;
  virtual size_t size_bytes() const = 0;
};

// A row-major 2-D view of activations in device memory.
struct Tensor {
  void* data = nullptr;
  DType dtype = DType::kFloat32;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t row_stride = 0;  // elements

  float* f32() const { return static_cast<float*>(data); }
  // Rows [first, first + count) of this one.
  Tensor row_range(int64_t first, int64_t count) const {
    const auto offset = static_cast<size_t>(first * row_stride) * dtype_size(dtype);
    return {static_cast<std::byte*>(data) + offset, dtype, count, cols, row_stride};
  }
  Tensor column_range(int64_t first, int64_t count) const {
    return {static_cast<std::byte*>(data) + static_cast<size_t>(first) * dtype_size(dtype), dtype, rows, count,
            row_stride};
  }
};

// A weight matrix as a file holds it, in host memory: `rows` outputs of `cols` inputs, blocks along a row.
// F8_E4M3 has scales beside it, one for each block of scale_block_rows x scale_block_cols (the last ones may be cut short):
// w[r, c] = data[r, c] * scales[r / scale_block_rows * ceil(cols / scale_block_cols) + c / scale_block_cols].
// [rows, cols] is one scale for the tensor, [1, cols] one per row. A part cut at multiples of the block keeps whole rows and
// columns of scales. Other types have none.
struct HostMatrix {
  WeightType type = WeightType::kF32;
  int64_t rows = 0;
  int64_t cols = 0;
  std::span<const std::byte> data;
  std::span<const float> scales = {};
  int64_t scale_block_rows = 0;
  int64_t scale_block_cols = 0;
};

// A weight matrix in the backend's own layout; made once at load.
class WeightMatrix {
 public:
  virtual ~WeightMatrix() = default;
  virtual int64_t rows() const = 0;
  virtual int64_t cols() const = 0;
  virtual size_t size_bytes() const = 0;
};

// The K and V memory of one cache group; the layout inside a block is the backend's.
class KvCache {
 public:
  virtual ~KvCache() = default;
  virtual size_t size_bytes() const = 0;
};

struct KvCacheLayout {
  int32_t num_layers = 0;
  int32_t num_blocks = 0;  // with the null block 0
  int32_t block_size = 16;
  int32_t num_kv_heads = 0;
  int32_t head_dim = 0;
  DType dtype = DType::kBFloat16;
};

// Cosines and sines for every position, computed in fp64 and stored fp32, so that all backends rotate alike.
// Pairs are (i, i + rotary_dim/2) ("NeoX"); loaders permute weights stored for adjacent pairs.
struct RopeTable {
  int32_t rotary_dim = 0;
  int64_t num_positions = 0;
  const float* cos = nullptr;  // [num_positions, rotary_dim / 2], in device memory
  const float* sin = nullptr;
};

// The ragged batch that attention sees; host memory, valid during the step.
// Sequence s has query rows [cu_seqlens_q[s], cu_seqlens_q[s+1]) and seq_lens[s] tokens of K and V, the step's included:
// its first query row stands at position seq_lens[s] - (number of its query rows).
struct AttentionBatch {
  std::span<const int32_t> cu_seqlens_q;  // [num_sequences + 1]
  std::span<const int32_t> seq_lens;      // [num_sequences]
  std::span<const int32_t> positions;     // [T]
  std::span<const int64_t> slot_mapping;  // [T]: block id * block_size + place; where the row's K and V are written
  std::span<const int32_t> block_tables;  // [num_sequences, max_blocks_per_seq], unused entries 0
  int32_t max_blocks_per_seq = 0;
};

// What a step computes on; host memory, valid until the step's last op.
struct StepInputs {
  std::span<const int32_t> token_ids;       // [T], flat over the step's sequences
  std::span<const int32_t> logits_indices;  // [R], ascending rows of the batch whose logits are wanted
  AttentionBatch attention;
  const SampleBatch* sampling = nullptr;  // for a backend that samples
  // Tokens that the step before chose and only the device knows: their row in that step, their place in token_ids.
  std::span<const int32_t> previous_rows;
  std::span<const int32_t> previous_places;
  bool recorded = false;  // one token per sequence, as many sequences as one of recorded_batch_sizes()
};

// The largest step that will come; a backend sets its buffers by it.
struct StepLimits {
  int64_t max_num_batched_tokens = 0;
  int64_t max_num_seqs = 0;
  int64_t max_model_len = 0;
  int64_t vocab_size = 0;
  int64_t block_size = 16;
  int32_t num_ranks = 1;  // between which each layer is cut
};

struct AttentionParams {
  int32_t num_heads = 0;
  int32_t num_kv_heads = 0;
  int32_t head_dim = 0;
  float scale = 0;             // of q.k, before soft-cap
  float logit_softcap = 0;     // 0: none; tanh(x / cap) * cap
  int32_t sliding_window = 0;  // 0: none; else each token sees itself and window - 1 before it
};

// The ways in which the layers of one model attend, each once; local and global layers differ in their window. All have the heads of
// one cache. At least one.
class AttentionKinds {
 public:
  // A model of one kind is the rule.
  AttentionKinds(const AttentionParams& only) : kinds_{only} {}  // NOLINT(google-explicit-constructor)
  explicit AttentionKinds(std::vector<AttentionParams> kinds) : kinds_(std::move(kinds)) { CHECK(!kinds_.empty()); }

  size_t size() const { return kinds_.size(); }
  const AttentionParams& operator[](size_t i) const { return kinds_[i]; }
  auto begin() const { return kinds_.begin(); }
  auto end() const { return kinds_.end(); }

 private:
  std::vector<AttentionParams> kinds_;
};

// What a model needs of a backend; asked once at start.
struct BackendNeeds {
  std::vector<WeightType> weight_types;
  AttentionKinds attention = AttentionParams();
  DType kv_cache_dtype = DType::kBFloat16;
  std::optional<DType> dtype = {};  // what products are asked to compute in; nothing: what suits the backend
};

class Backend {
 public:
  virtual ~Backend() = default;

  virtual std::string description() const = 0;                   // "cpu (avx512, 2 threads)"
  virtual Status supports(const BackendNeeds& needs) const = 0;  // the reason when not
  // What supports() has agreed to, before the first matrix.
  virtual void adopt(const BackendNeeds&) {}

  virtual Result<std::unique_ptr<DeviceBuffer>> allocate(size_t bytes) = 0;
  // Copies host bytes into device memory, at load; `to` holds at least as many. The default suits a device whose memory
  // the host can write.
  virtual Status upload(std::span<const std::byte> from, DeviceBuffer& to) {
    std::memcpy(to.data(), from.data(), from.size());
    return ok_status();
  }
  // One matrix out of parts stacked by rows (q, k, v; gate, up), all with the same cols; parts may differ in type.
  virtual Result<std::unique_ptr<WeightMatrix>> make_matrix(std::span<const HostMatrix> parts) = 0;
  // Bytes that a matrix of this type will take, made alone; for the memory plan.
  virtual uint64_t matrix_bytes(WeightType type, int64_t rows, int64_t cols) const = 0;
  // What weights of `type` are held in: itself, or what make_matrix() makes of it once.
  virtual WeightType held_type(WeightType type) const { return type; }
  virtual Result<std::unique_ptr<KvCache>> make_kv_cache(const KvCacheLayout& layout) = 0;
  // Bytes that plan() may need beside activations, for the largest step.
  virtual int64_t workspace_bytes(int64_t max_num_batched_tokens, int64_t max_num_seqs,
                                  const AttentionKinds& attention) const = 0;

  // Bytes of device memory that weights, workspace and KV cache may take together when the engine may use this share of it.
  virtual uint64_t memory_budget_bytes(double utilization) const = 0;
  // Whether that memory is the host's, which does other things too.
  virtual bool uses_host_memory() const { return false; }

  // What matmul inputs and outputs, q, k and v are held in ("act" below). The residual stream and logits are f32.
  virtual DType activation_dtype() const { return DType::kFloat32; }

  // Steps that may be submitted before the results of the first are read.
  virtual int64_t max_steps_in_flight() const { return 1; }

  // Once, before the first plan().
  virtual Status reserve(const StepLimits&, const AttentionKinds&) { return ok_status(); }
  // Once per step, before its ops: takes the inputs and splits the attention work of each kind, which are reserve()'s.
  virtual void plan(const StepInputs& inputs, const AttentionKinds& attention) = 0;

  // out[t] = factor times the table's row of the plan's token t, as f32 [T, H]. Ids are inside the table.
  virtual void embed(const WeightMatrix& table, float factor, Tensor out) = 0;
  // out = x / sqrt(mean(x^2) + eps) * weight, per row; x f32, out act; weight f32 [H] on the device. out may be x.
  virtual void rms_norm(Tensor x, const float* weight, float eps, Tensor out) = 0;
  // residual += x; out = rms_norm(residual).
  virtual void add_rms_norm(Tensor residual, Tensor x, const float* weight, float eps, Tensor out) = 0;
  // The heads of head_dim elements that make up each row of x, each normalised like a row by weight [head_dim], in place; x act.
  virtual void rms_norm_heads(Tensor x, int64_t head_dim, const float* weight, float eps) = 0;
  // out[t, n] = sum over k of x[t, k] * w[n, k]; x act, out act or f32 [T, N], must not overlap x.
  virtual void matmul(const WeightMatrix& w, Tensor x, Tensor out) = 0;
  // out[t, n] = x[t, n] + bias[n], in place; bias f32 [N].
  virtual void add_bias(Tensor x, const float* bias) = 0;
  // Rotates q and k rows of `qkv` in place ([T, (num_heads + 2 * num_kv_heads) * D]: q, k, v side by side) and writes k and v
  // of each row into `cache` at the plan's slot_mapping.
  virtual void rope_and_cache(Tensor qkv, const RopeTable& rope, const AttentionParams& attention, KvCache& cache,
                              int32_t layer) = 0;
  // out [T, num_heads * D] from q (the first num_heads * D columns of qkv) over the plan's block tables; causal.
  virtual void attention(Tensor qkv, const AttentionParams& attention, const KvCache& cache, int32_t layer,
                         Tensor out) = 0;
  // gate_up [T, 2 * I] -> out[t, i] = activation(gate[t, i]) * up[t, i]
  virtual void activation_mul(Tensor gate_up, Activation activation, Tensor out) = 0;
  // x += y
  virtual void add(Tensor x, Tensor y) = 0;
  // out = x; x f32, out act.
  virtual void round(Tensor x, Tensor out) = 0;
  // x = cap * tanh(x / cap), in place; x f32, cap > 0.
  virtual void softcap(Tensor x, float cap) = 0;
  // out[r] = x[the plan's logits_indices[r]]
  virtual void gather_logits_rows(Tensor x, Tensor out) = 0;

  // Calls body(ops, first, count, place) for parts [first, first + count) that cover the step's rows [0, num_rows). `ops` is a backend
  // whose ops see only the part: tensors of `count` rows, of the step's rows from `first` on. Norms, products, element ops and
  // rope_and_cache may be asked of it, which look at one row at a time. Parts may run at the same time, on different threads; rows
  // [place, place + count) <= num_rows of a buffer are no other part's meanwhile. The default is one part, the whole.
  using RowsBody = std::function<void(Backend& ops, int64_t first, int64_t count, int64_t place)>;
  virtual void by_rows(int64_t num_rows, const RowsBody& body) { body(*this, 0, num_rows, 0); }

  // Between the ranks of a group; each calls the same ops with the same shapes. An error of the communicator is the backend's.
  // As embed(), the table's first row being that of token first_row; zeros where it has no such row.
  virtual void embed_part(const WeightMatrix& /*table*/, int64_t /*first_row*/, float /*factor*/, Tensor /*out*/) {
    no_ranks();
  }
  // x = sum over ranks of x, in place; rows packed (row_stride == cols). As exact as Communicator::all_reduce.
  virtual void all_reduce(Communicator&, Tensor /*x*/) { no_ranks(); }
  // residual += sum over ranks of x; out = rms_norm(residual). x is lost. A backend may fuse it (kernels/reduce_norm.h).
  virtual void all_reduce_add_rms_norm(Communicator& group, Tensor residual, Tensor x, const float* weight, float eps,
                                       Tensor out) {
    all_reduce(group, x);
    add_rms_norm(residual, x, weight, eps, out);
  }
  // Rows of up to so many bytes all_reduce_add_rms_norm() gathers and sums itself, instead of an all_reduce; 0: none.
  virtual int64_t gathered_reduce_bytes() const { return 0; }
  // On rank 0: out [R, sum of widths] = the ranks' `part` [R, widths[rank]] side by side, in order. f32, packed. `scratch` is as
  // large as `out`; both are rank 0's alone.
  virtual void gather_columns(Communicator&, Tensor /*part*/, std::span<const int64_t> /*widths*/, Tensor /*scratch*/,
                              Tensor /*out*/) {
    no_ranks();
  }
  // The tokens that rank 0 sampled in this step, for the next one on every rank; after end_step(), so that rank 0's host has them
  // without waiting for the others.
  virtual void share_samples(Communicator&) { no_ranks(); }
  // Rows to and from another rank of a group; packed.
  virtual void send(Communicator&, Tensor /*x*/, int /*peer*/) { no_ranks(); }
  virtual void receive(Communicator&, Tensor /*x*/, int /*peer*/) { no_ranks(); }

  // Rows in memory that the host reads and writes, once all ops so far are done: `x` itself where the device's memory is
  // that. Valid until the next call.
  virtual Result<Tensor> host_rows(Tensor x) {
    RETURN_IF_ERROR(synchronize());
    return x;
  }

  // Numbers of sequences for which a step of one token each can be recorded and replayed, ascending; empty: none.
  virtual std::span<const int32_t> recorded_batch_sizes() const { return {}; }
  // Records `ops` without running them, after a plan() with inputs.recorded.
  virtual void record(const std::function<void()>&) {}
  // Runs `ops`, the ops of a step that was planned with inputs.recorded. They must be the same calls with the same arguments in
  // each step of as many rows: a backend may record them once and then replay the record.
  virtual void run_recorded(const std::function<void()>& ops) { ops(); }

  // Whether the backend samples; otherwise the host does, from host_rows() of the logits.
  virtual bool samples() const { return false; }
  // Chooses tokens for rows [first_row, first_row + logits.rows) of the plan's sampling. The logits are changed.
  virtual void sample(Tensor, int64_t /*first_row*/) { CHECK(false) << description() << " does not sample"; }
  // The step's last call: what was sampled goes to the host, to be read by collect_samples().
  virtual void end_step() {}
  // Waits for the oldest step whose samples were not collected yet.
  virtual Result<SampledTokens> collect_samples() { return unsupported(description() + " does not sample"); }

  // Seconds that collected steps kept the device at work, by its own clock; 0 where there is none.
  virtual double device_busy_s() const { return 0; }

  // Rows of the logits buffer: a step's logits are made so many rows at a time.
  virtual int64_t logits_rows(int64_t /*max_num_seqs*/) const { return 64; }

  // Runs body(begin, end) over [0, n) on the device's host threads and waits; for the sampler on the CPU.
  virtual void parallel_for(int64_t n, int64_t grain, const std::function<void(int64_t, int64_t)>& body) = 0;
  // Waits for all ops; kDeviceError when one failed.
  virtual Status synchronize() = 0;

 private:
  void no_ranks() const { CHECK(false) << description() << " works alone"; }
};

}  // namespace sextant
