// CudaBackend: each op of backend.h as launches on one stream. Nothing waits: the host runs ahead of the device until it asks
// for results. The first error of a launch or a copy is kept, and whoever waits next is told; what ops do after it is lost.
// Long because every op of backend.h, those between ranks included, is a few lines here.
#include "engine/device/cuda_backend.h"

#include <algorithm>
#include <array>
#include <map>
#include <string>
#include <utility>

#include "engine/base/check.h"
#include "engine/device/backend_needs.h"
#include "engine/device/cuda_attention_plan.h"
#include "engine/device/cuda_device.h"
#include "engine/device/cuda_gemm.h"
#include "engine/device/cuda_graphs.h"
#include "engine/device/cuda_kv_cache.h"
#include "engine/device/cuda_matrix.h"
#include "engine/device/cuda_memory.h"
#include "engine/device/cuda_sampling.h"
#include "engine/device/cuda_status.h"
#include "engine/device/cuda_step_inputs.h"
#include "engine/device/host_matrix.h"
#include "engine/device/host_memory.h"
#include "engine/device/thread_pool.h"
#include "engine/device/usable_cpus.h"
#include "kernels/cuda/activation.h"
#include "kernels/cuda/attention.h"
#include "kernels/cuda/elementwise.h"
#include "kernels/cuda/gather.h"
#include "kernels/cuda/norm.h"
#include "kernels/cuda/reduce_norm.h"
#include "kernels/cuda/rope_cache.h"

namespace sextant {
namespace {

namespace cuda = kernels::cuda;

cuda::ElementType element_type(DType dtype) {
  switch (dtype) {
    case DType::kFloat32: return cuda::ElementType::kFloat32;
    case DType::kBFloat16: return cuda::ElementType::kBFloat16;
    case DType::kFloat16: return cuda::ElementType::kFloat16;
    default: break;
  }
  CHECK(false) << "no activation is held in " << dtype_name(dtype);
  return cuda::ElementType::kFloat32;
}

// Columns of the widest matrix, before it is known: what large models have. Only the memory plan is made with it.
constexpr int64_t kColsGuess = 32768;

// Rows of up to so many bytes a rank are gathered and summed by one kernel, not all-reduced. Custom one-shot all-reduces of vLLM
// and TensorRT-LLM draw the line between 256 KiB and 512 KiB by the number of ranks; no GPU has been asked here yet.
constexpr int64_t kGatheredReduceBytes = int64_t{256} << 10;

// Decode batches that are recorded: few enough to record soon, close enough that padding costs little.
constexpr std::array<int32_t, 14> kRecordedBatchSizes = {1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 160, 192, 256};

class CudaBackend final : public Backend {
 public:
  CudaBackend(CudaDevice device, std::unique_ptr<CudaStream> stream, int num_threads, DType activation)
      : device_(std::move(device)), stream_(std::move(stream)), pool_(num_threads), activation_(activation) {}
  ~CudaBackend() override { cudaStreamSynchronize(stream_->get()); }

  std::string description() const override {
    return std::string(cuda_is_emulated() ? "cuda-emulated (" : "cuda (") + device_.name + ", compute capability " +
           std::to_string(device_.compute_major) + "." + std::to_string(device_.compute_minor) + ", " +
           std::string(dtype_name(activation_)) + ")";
  }

  Status supports(const BackendNeeds& needs) const override;

  Result<std::unique_ptr<DeviceBuffer>> allocate(size_t bytes) override {
    ASSIGN_OR_RETURN(std::unique_ptr<CudaBuffer> buffer, CudaBuffer::create(bytes));
    return std::unique_ptr<DeviceBuffer>(std::move(buffer));
  }
  Status upload(std::span<const std::byte> from, DeviceBuffer& to) override {
    return cuda_status(cudaMemcpy(to.data(), from.data(), from.size(), cudaMemcpyHostToDevice),
                       "copying to the device");
  }
  Result<std::unique_ptr<WeightMatrix>> make_matrix(std::span<const HostMatrix> parts) override {
    ASSIGN_OR_RETURN(std::unique_ptr<CudaMatrix> matrix,
                     CudaMatrix::create(parts, pool_, f8_products(), plain_format()));
    max_cols_ = std::max(max_cols_, matrix->cols());
    return std::unique_ptr<WeightMatrix>(std::move(matrix));
  }
  uint64_t matrix_bytes(WeightType type, int64_t rows, int64_t cols) const override {
    return CudaMatrix::bytes_of(type, rows, cols);
  }
  WeightType held_type(WeightType type) const override {
    const std::optional<WeightType> held = sextant::held_type(type, HeldBy::kCuda);
    if (!held || is_block_quantized(*held) || *held == WeightType::kF8E4M3) return held.value_or(type);
    return activation_ == DType::kFloat16 ? WeightType::kF16 : WeightType::kBF16;
  }
  Result<std::unique_ptr<KvCache>> make_kv_cache(const KvCacheLayout& layout) override {
    ASSIGN_OR_RETURN(std::unique_ptr<CudaKvCache> cache, CudaKvCache::create(layout));
    return std::unique_ptr<KvCache>(std::move(cache));
  }
  int64_t workspace_bytes(int64_t max_num_batched_tokens, int64_t max_num_seqs,
                          const AttentionKinds& attention) const override;
  uint64_t memory_budget_bytes(double utilization) const override;
  bool uses_host_memory() const override { return cuda_is_emulated(); }

  DType activation_dtype() const override { return activation_; }
  Status reserve(const StepLimits& limits, const AttentionKinds& attention) override;
  void plan(const StepInputs& inputs, const AttentionKinds& attention) override;

  void embed(const WeightMatrix& table, float factor, Tensor out) override {
    note(embed_rows(static_cast<const CudaMatrix&>(table), 0, inputs_.device<int32_t>(token_ids_), factor, out,
                    stream_->get()),
         "embed");
  }
  void rms_norm(Tensor x, const float* weight, float eps, Tensor out) override {
    CHECK(x.dtype == DType::kFloat32) << "the residual stream is fp32";
    launched(cuda::add_rms_norm({x.f32(), x.row_stride, nullptr, 0, weight, eps, out.data, out.row_stride, rows32(x),
                                 cols32(x), element_type(out.dtype)},
                                stream_->get()),
             "rms_norm");
  }
  void add_rms_norm(Tensor residual, Tensor x, const float* weight, float eps, Tensor out) override {
    CHECK(x.dtype == out.dtype && residual.dtype == DType::kFloat32) << "add_rms_norm: dtypes";
    launched(cuda::add_rms_norm({residual.f32(), residual.row_stride, x.data, x.row_stride, weight, eps, out.data,
                                 out.row_stride, rows32(residual), cols32(residual), element_type(x.dtype)},
                                stream_->get()),
             "add_rms_norm");
  }
  void rms_norm_heads(Tensor x, int64_t head_dim, const float* weight, float eps) override {
    CHECK_EQ(x.cols % head_dim, 0);
    launched(
        cuda::rms_norm_heads({x.data, x.row_stride, weight, eps, rows32(x), static_cast<int32_t>(x.cols / head_dim),
                              static_cast<int32_t>(head_dim), element_type(x.dtype)},
                             stream_->get()),
        "rms_norm_heads");
  }
  void matmul(const WeightMatrix& w, Tensor x, Tensor out) override {
    const auto& matrix = static_cast<const CudaMatrix&>(w);
    CHECK(x.cols == matrix.cols() && out.cols == matrix.rows() && out.rows == x.rows && x.dtype == activation_)
        << "matmul of [" << x.rows << ", " << x.cols << "] and [" << matrix.rows() << ", " << matrix.cols() << "] to ["
        << out.rows << ", " << out.cols << "]";
    if (x.rows == 0 || !error_.ok()) return;
    note(gemm_->multiply(matrix, x, out, stream_->get()), "matmul");
  }
  void add_bias(Tensor x, const float* bias) override {
    launched(cuda::add_bias({x.data, x.row_stride, bias, rows32(x), cols32(x), element_type(x.dtype)}, stream_->get()),
             "add_bias");
  }
  void rope_and_cache(Tensor qkv, const RopeTable& rope, const AttentionParams& attention, KvCache& cache,
                      int32_t layer) override {
    const auto& kv = static_cast<const CudaKvCache&>(cache);
    CHECK_LE(attention.head_dim * (attention.num_heads + 2 * attention.num_kv_heads), qkv.cols);
    CHECK_LT(max_position_, rope.num_positions);
    launched(cuda::rope_and_cache(
                 {qkv.data, qkv.row_stride, element_type(qkv.dtype), rows32(qkv), attention.num_heads,
                  kv_layout(attention), rope.rotary_dim, rope.cos, rope.sin, inputs_.device<int32_t>(positions_),
                  inputs_.device<int64_t>(slots_), kv.keys(layer), kv.values(layer)},
                 stream_->get()),
             "rope_and_cache");
  }
  void attention(Tensor qkv, const AttentionParams& attention, const KvCache& cache, int32_t layer,
                 Tensor out) override;
  void activation_mul(Tensor gate_up, Activation activation, Tensor out) override {
    CHECK_EQ(gate_up.cols, 2 * out.cols);
    launched(
        cuda::activation_mul({gate_up.data, gate_up.row_stride, out.data, out.row_stride, rows32(out), cols32(out),
                              element_type(out.dtype),
                              activation == Activation::kSilu ? cuda::Activation::kSilu : cuda::Activation::kGeluTanh},
                             stream_->get()),
        "activation_mul");
  }
  void round(Tensor x, Tensor out) override {
    CHECK(x.dtype == DType::kFloat32 && x.rows == out.rows && x.cols == out.cols) << "round: shapes";
    launched(cuda::round(
                 {x.f32(), x.row_stride, out.data, out.row_stride, rows32(out), cols32(out), element_type(out.dtype)},
                 stream_->get()),
             "round");
  }
  void softcap(Tensor x, float cap) override {
    CHECK(x.dtype == DType::kFloat32) << "logits are fp32";
    launched(cuda::softcap({x.f32(), x.row_stride, rows32(x), cols32(x), cap}, stream_->get()), "softcap");
  }
  void add(Tensor x, Tensor y) override {
    launched(cuda::add({x.f32(), x.row_stride, y.data, y.row_stride, rows32(x), cols32(x), element_type(y.dtype)},
                       stream_->get()),
             "add");
  }
  void gather_logits_rows(Tensor x, Tensor out) override {
    launched(cuda::gather_rows({x.data, x.row_stride, inputs_.device<int32_t>(logits_indices_), out.data,
                                out.row_stride, rows32(out), cols32(out), element_type(x.dtype)},
                               stream_->get()),
             "gather_logits_rows");
  }

  void embed_part(const WeightMatrix& table, int64_t first_row, float factor, Tensor out) override {
    CHECK_EQ(out.row_stride, out.cols);
    launched(cudaMemsetAsync(out.data, 0, static_cast<size_t>(out.rows * out.cols) * sizeof(float), stream_->get()),
             "embed_part");
    note(embed_rows(static_cast<const CudaMatrix&>(table), first_row, inputs_.device<int32_t>(token_ids_), factor, out,
                    stream_->get()),
         "embed_part");
  }
  void all_reduce(Communicator& group, Tensor x) override {
    CHECK_EQ(x.row_stride, x.cols);
    if (joins(group)) note(group.all_reduce(x.data, x.rows * x.cols, x.dtype, stream_->get()), "all_reduce");
  }
  void all_reduce_add_rms_norm(Communicator& group, Tensor residual, Tensor x, const float* weight, float eps,
                               Tensor out) override;
  int64_t gathered_reduce_bytes() const override { return kGatheredReduceBytes; }
  void gather_columns(Communicator& group, Tensor part, std::span<const int64_t> widths, Tensor scratch,
                      Tensor out) override;
  void share_samples(Communicator& group) override {
    if (sampling_.num_rows() == 0 || !joins(group)) return;
    note(group.broadcast(sampling_.tokens(), sampling_.num_rows(), DType::kInt32, 0, stream_->get()), "share_samples");
  }
  void send(Communicator& group, Tensor x, int peer) override {
    CHECK_EQ(x.row_stride, x.cols);
    if (joins(group)) note(group.send(x.data, x.rows * x.cols, x.dtype, peer, stream_->get()), "send");
  }
  void receive(Communicator& group, Tensor x, int peer) override {
    CHECK_EQ(x.row_stride, x.cols);
    if (joins(group)) note(group.receive(x.data, x.rows * x.cols, x.dtype, peer, stream_->get()), "receive");
  }

  Result<Tensor> host_rows(Tensor x) override;
  std::span<const int32_t> recorded_batch_sizes() const override { return recorded_batch_sizes_; }
  void record(const std::function<void()>& ops) override {
    if (error_.ok()) note(record_step(ops), "recording a step");
  }
  void run_recorded(const std::function<void()>& ops) override {
    if (!error_.ok()) return;
    note(record_step(ops), "recording a step");
    if (!error_.ok()) return;
    note(graphs_.run(recorded_rows_, stream_->get(), ops), "a recorded step");
    for (const RecordedTraffic& traffic : recorded_traffic_[recorded_rows_]) traffic.group->replayed(traffic.counters);
  }
  int64_t max_steps_in_flight() const override { return 2; }
  // A recorded step has padding rows too.
  int64_t logits_rows(int64_t max_num_seqs) const override {
    const auto size = std::lower_bound(kRecordedBatchSizes.begin(), kRecordedBatchSizes.end(), max_num_seqs);
    return size == kRecordedBatchSizes.end() ? kRecordedBatchSizes.back() : *size;
  }
  bool samples() const override { return true; }
  void sample(Tensor logits, int64_t first_row) override {
    if (error_.ok()) note(sampling_.sample(inputs_, logits, first_row, stream_->get()), "sampling");
  }
  void end_step() override {
    if (error_.ok()) note(sampling_.end_step(stream_->get()), "the end of a step");
  }
  Result<SampledTokens> collect_samples() override {
    RETURN_IF_ERROR(error_);
    return sampling_.collect();
  }
  double device_busy_s() const override { return sampling_.device_busy_s(); }
  void parallel_for(int64_t n, int64_t grain, const std::function<void(int64_t, int64_t)>& body) override {
    pool_.parallel_for(n, grain, body);
  }
  Status synchronize() override {
    if (error_.ok()) error_ = cuda_status(cudaStreamSynchronize(stream_->get()), "waiting for the device");
    return error_;
  }

 private:
  F8Products f8_products() const { return f8_products_of(device_.compute_capability()); }
  cuda::WeightFormat plain_format() const {
    return activation_ == DType::kFloat16 ? cuda::WeightFormat::kFloat16 : cuda::WeightFormat::kBFloat16;
  }
  // What a recorded step says in a group.
  struct RecordedTraffic {
    Communicator* group;
    CollectiveCounters counters;
  };
  // Whether there is any use in a collective; of a step that is being recorded, has the group count it apart.
  bool joins(Communicator& group) {
    if (!error_.ok()) return false;
    if (recording_ == nullptr) return true;
    for (const RecordedTraffic& known : *recording_) {
      if (known.group == &group) return true;
    }
    recording_->push_back({&group, {}});
    group.begin_recording();
    return true;
  }
  Status record_step(const std::function<void()>& ops) {
    if (recorded_traffic_.contains(recorded_rows_)) return ok_status();
    std::vector<RecordedTraffic>& traffic = recorded_traffic_[recorded_rows_];
    recording_ = &traffic;
    const Status status = graphs_.record(recorded_rows_, stream_->get(), ops);
    recording_ = nullptr;
    for (RecordedTraffic& each : traffic) each.counters = each.group->end_recording();
    return status;
  }

  static int32_t rows32(const Tensor& t) { return static_cast<int32_t>(t.rows); }
  static int32_t cols32(const Tensor& t) { return static_cast<int32_t>(t.cols); }
  static cuda::KvLayout kv_layout(const AttentionParams& attention) {
    return {attention.num_kv_heads, attention.head_dim, attention.head_dim};
  }
  void launched(int error, const char* op) {
    if (error != 0 && error_.ok()) error_ = cuda_status(static_cast<cudaError_t>(error), op);
  }
  void note(Status status, const char* op) {
    if (!status.ok() && error_.ok()) error_ = Status(status.code(), std::string(op) + ": " + status.message());
  }

  CudaDevice device_;
  std::unique_ptr<CudaStream> stream_;
  ThreadPool pool_;  // packs weights at load
  DType activation_;
  std::unique_ptr<CudaGemm> gemm_;
  int64_t max_cols_ = 0;  // of the matrices made so far
  CudaGraphs graphs_;
  std::map<int64_t, std::vector<RecordedTraffic>> recorded_traffic_;  // by the graph's key
  std::vector<RecordedTraffic>* recording_ = nullptr;
  std::unique_ptr<CudaBuffer> gathered_parts_;  // of small all-reduces: every rank's
  Status error_;

  CudaStepInputs inputs_;
  CudaSampling sampling_;
  int token_ids_ = 0, logits_indices_ = 0, positions_ = 0, slots_ = 0, cu_seqlens_q_ = 0, seq_lens_ = 0,
      block_tables_ = 0;  // arrays of inputs_
  std::unique_ptr<CudaBuffer> partials_;
  std::unique_ptr<PinnedBuffer> host_rows_;
  std::vector<int32_t> recorded_batch_sizes_;
  int64_t block_table_stride_ = 0;

  // Of each shape of attention, which is what work is cut by: its lists in inputs_, and how the step is cut. Partial results are one
  // buffer: layers follow one another.
  struct PlannedAttention {
    CudaAttentionShape shape;
    int lists = 0;
    CudaAttentionPlan plan;
  };
  PlannedAttention& planned(const AttentionParams& attention);
  std::vector<PlannedAttention> attentions_;

  // Of the step.
  int64_t recorded_rows_ = 0;
  int32_t max_position_ = 0;
};

CudaAttentionShape attention_shape(const AttentionParams& attention, const CudaDevice& device) {
  CudaAttentionShape shape;
  shape.num_heads = attention.num_heads;
  shape.num_kv_heads = attention.num_kv_heads;
  shape.head_dim_qk = attention.head_dim;
  shape.head_dim_v = attention.head_dim;
  shape.sliding_window = attention.sliding_window;
  shape.num_multiprocessors = device.num_multiprocessors;
  return shape;
}

// Of kinds that differ in scale or soft-cap alone there is one.
std::vector<CudaAttentionShape> attention_shapes(const AttentionKinds& kinds, const CudaDevice& device) {
  std::vector<CudaAttentionShape> shapes;
  for (const AttentionParams& kind : kinds) {
    const CudaAttentionShape shape = attention_shape(kind, device);
    if (std::find(shapes.begin(), shapes.end(), shape) == shapes.end()) shapes.push_back(shape);
  }
  return shapes;
}

Status CudaBackend::supports(const BackendNeeds& needs) const {
  for (const WeightType type : needs.weight_types) {
    if (!is_computable(type)) {
      return unsupported("the CUDA backend does not compute with weights of type " +
                         std::string(weight_type_name(type)));
    }
  }
  const AttentionParams& attention = needs.attention[0];  // all have its heads
  if (attention.head_dim < 16 || attention.head_dim > 256 || attention.head_dim % 16 != 0) {
    return unsupported("the CUDA backend needs heads of a multiple of 16 up to 256 elements; this model's have " +
                       std::to_string(attention.head_dim));
  }
  RETURN_IF_ERROR(check_attention(needs.attention));
  if (needs.kv_cache_dtype != activation_) {
    const std::string act(dtype_name(activation_));
    return unsupported("the CUDA backend keeps its KV cache in the type that it computes in, here " + act +
                           ", not in " + std::string(dtype_name(needs.kv_cache_dtype)) +
                           ": use --kv-cache-dtype auto or " + act,
                       "kv_cache_dtype");
  }
  return ok_status();
}

int64_t CudaBackend::workspace_bytes(int64_t max_num_batched_tokens, int64_t max_num_seqs,
                                     const AttentionKinds& attention) const {
  int64_t list_ints = 0, partial_floats = 0;
  for (const CudaAttentionShape& shape : attention_shapes(attention, device_)) {
    const CudaAttentionBounds bounds = CudaAttentionPlan::bounds(max_num_batched_tokens, max_num_seqs, shape);
    list_ints += bounds.list_ints;
    partial_floats = std::max(partial_floats, bounds.partial_floats);
  }
  return list_ints * int64_t{sizeof(int32_t)} + partial_floats * int64_t{sizeof(float)} +
         CudaGemm::workspace_bytes(max_num_batched_tokens, kColsGuess, f8_products()) + max_num_batched_tokens * 512;
}

uint64_t CudaBackend::memory_budget_bytes(double utilization) const {
  size_t free_bytes = 0;
  size_t total_bytes = 0;
  if (cudaMemGetInfo(&free_bytes, &total_bytes) != cudaSuccess) return 0;
  if (uses_host_memory()) total_bytes = std::min<size_t>(total_bytes, available_host_memory_bytes());
  const auto wanted = static_cast<uint64_t>(static_cast<double>(total_bytes) * utilization);
  const uint64_t taken =
      total_bytes > free_bytes ? total_bytes - free_bytes : 0;  // by others, and by this process's context
  return wanted > taken ? wanted - taken : 0;
}

Status CudaBackend::reserve(const StepLimits& limits, const AttentionKinds& attention) {
  CHECK(partials_ == nullptr) << "reserve() is called once";
  const auto max_tokens = static_cast<size_t>(limits.max_num_batched_tokens);
  for (const int32_t size : kRecordedBatchSizes) {
    if (size <= limits.max_num_batched_tokens) recorded_batch_sizes_.push_back(size);
    if (size >= limits.max_num_seqs) break;
  }
  const int64_t max_seqs = std::max<int64_t>(limits.max_num_seqs, recorded_batch_sizes_.back());
  block_table_stride_ = (limits.max_model_len - 1) / limits.block_size + 1;

  token_ids_ = inputs_.add_array(max_tokens, sizeof(int32_t));
  positions_ = inputs_.add_array(max_tokens, sizeof(int32_t));
  slots_ = inputs_.add_array(max_tokens, sizeof(int64_t));
  logits_indices_ = inputs_.add_array(max_tokens, sizeof(int32_t));
  cu_seqlens_q_ = inputs_.add_array(static_cast<size_t>(max_seqs) + 1, sizeof(int32_t));
  seq_lens_ = inputs_.add_array(static_cast<size_t>(max_seqs), sizeof(int32_t));
  block_tables_ = inputs_.add_array(static_cast<size_t>(max_seqs * block_table_stride_), sizeof(int32_t));
  int64_t partial_floats = 0;
  for (const CudaAttentionShape& shape : attention_shapes(attention, device_)) {
    const CudaAttentionBounds bounds = CudaAttentionPlan::bounds(limits.max_num_batched_tokens, max_seqs, shape);
    partial_floats = std::max(partial_floats, bounds.partial_floats);
    attentions_.push_back({shape, inputs_.add_array(static_cast<size_t>(bounds.list_ints), sizeof(int32_t)), {}});
  }
  sampling_.add_arrays(inputs_, limits.max_num_batched_tokens);
  RETURN_IF_ERROR(inputs_.reserve());
  RETURN_IF_ERROR(sampling_.reserve(limits.max_num_batched_tokens));
  ASSIGN_OR_RETURN(gemm_, CudaGemm::create(limits.max_num_batched_tokens, max_cols_, f8_products()));
  ASSIGN_OR_RETURN(partials_, CudaBuffer::create(static_cast<size_t>(partial_floats) * sizeof(float)));
  if (limits.num_ranks > 1) {
    ASSIGN_OR_RETURN(gathered_parts_, CudaBuffer::create(static_cast<size_t>(kGatheredReduceBytes * limits.num_ranks)));
  }
  ASSIGN_OR_RETURN(host_rows_, PinnedBuffer::create(static_cast<size_t>(logits_rows(limits.max_num_seqs)) *
                                                    static_cast<size_t>(limits.vocab_size) * sizeof(float)));
  return ok_status();
}

CudaBackend::PlannedAttention& CudaBackend::planned(const AttentionParams& attention) {
  const CudaAttentionShape shape = attention_shape(attention, device_);
  const auto found = std::find_if(attentions_.begin(), attentions_.end(),
                                  [&](const PlannedAttention& planned) { return planned.shape == shape; });
  CHECK(found != attentions_.end()) << "attention with a window of " << attention.sliding_window << " was not reserved";
  return *found;
}

void CudaBackend::plan(const StepInputs& step, const AttentionKinds& attention) {
  if (!error_.ok()) return;
  const AttentionBatch& batch = step.attention;
  const auto num_sequences = static_cast<int32_t>(batch.seq_lens.size());
  max_position_ = batch.positions.empty() ? 0 : *std::max_element(batch.positions.begin(), batch.positions.end());
  recorded_rows_ = step.recorded ? num_sequences : 0;
  for (const AttentionParams& kind : attention) static_cast<void>(planned(kind));
  for (PlannedAttention& planned : attentions_) {
    if (step.recorded) {
      planned.plan.plan_bucket(batch.cu_seqlens_q, batch.seq_lens, planned.shape, {num_sequences, 1});
    } else {
      planned.plan.plan(batch.cu_seqlens_q, batch.seq_lens, planned.shape);
    }
  }
  note(inputs_.begin(), "a step's inputs");
  inputs_.fill<int32_t>(token_ids_, step.token_ids);
  inputs_.fill<int32_t>(positions_, batch.positions);
  inputs_.fill<int64_t>(slots_, batch.slot_mapping);
  inputs_.fill<int32_t>(logits_indices_, step.logits_indices);
  inputs_.fill<int32_t>(cu_seqlens_q_, batch.cu_seqlens_q);
  inputs_.fill<int32_t>(seq_lens_, batch.seq_lens);
  for (const PlannedAttention& planned : attentions_) inputs_.fill<int32_t>(planned.lists, planned.plan.lists());
  CHECK_LE(batch.max_blocks_per_seq, block_table_stride_);
  const std::span<int32_t> tables =
      inputs_.fill<int32_t>(block_tables_, static_cast<size_t>(num_sequences * block_table_stride_));
  for (int64_t s = 0; s < num_sequences; ++s) {
    std::copy_n(batch.block_tables.begin() + s * batch.max_blocks_per_seq, batch.max_blocks_per_seq,
                tables.begin() + s * block_table_stride_);
  }
  if (step.sampling != nullptr) note(sampling_.plan(step, inputs_, stream_->get()), "sampling parameters");
  note(inputs_.upload(stream_->get()), "a step's inputs");
  if (step.sampling != nullptr) {
    note(sampling_.fill_previous_tokens(inputs_, inputs_.device<int32_t>(token_ids_), stream_->get()),
         "a step's inputs");
  }
}

void CudaBackend::attention(Tensor qkv, const AttentionParams& attention, const KvCache& cache, int32_t layer,
                            Tensor out) {
  if (!error_.ok()) return;
  const auto& kv = static_cast<const CudaKvCache&>(cache);
  CHECK(out.dtype == qkv.dtype && out.cols == int64_t{attention.num_heads} * attention.head_dim);
  cuda::AttentionArgs args = {};
  args.q = qkv.data;
  args.q_stride = qkv.row_stride;
  args.keys = kv.keys(layer);
  args.values = kv.values(layer);
  args.layout = kv_layout(attention);
  args.out = out.data;
  args.out_stride = out.row_stride;
  args.type = element_type(qkv.dtype);
  args.num_heads = attention.num_heads;
  args.scale = attention.scale;
  args.softcap = attention.logit_softcap;
  args.window = attention.sliding_window;
  args.causal = true;
  args.cu_seqlens_q = inputs_.device<int32_t>(cu_seqlens_q_);
  args.seq_lens = inputs_.device<int32_t>(seq_lens_);
  args.block_tables = inputs_.device<int32_t>(block_tables_);
  args.block_table_stride = block_table_stride_;
  args.partials = static_cast<float*>(partials_->data());
  const PlannedAttention& of_kind = planned(attention);
  of_kind.plan.describe(inputs_.device<int32_t>(of_kind.lists), args);
  if (args.num_prefill_items > 0) launched(cuda::attention_prefill(args, stream_->get()), "attention_prefill");
  if (args.num_decode_items > 0) launched(cuda::attention_decode(args, stream_->get()), "attention_decode");
  if (args.num_merges > 0) launched(cuda::attention_merge(args, stream_->get()), "attention_merge");
}

void CudaBackend::all_reduce_add_rms_norm(Communicator& group, Tensor residual, Tensor x, const float* weight,
                                          float eps, Tensor out) {
  CHECK(x.dtype == out.dtype && residual.dtype == DType::kFloat32 && x.row_stride == x.cols)
      << "all_reduce_add_rms_norm: dtypes";
  const int64_t count = x.rows * x.cols;
  const int64_t bytes = count * static_cast<int64_t>(dtype_size(x.dtype));
  if (gathered_parts_ == nullptr || bytes > kGatheredReduceBytes || group.size() > kernels::kMaxReducedParts) {
    all_reduce(group, x);
    add_rms_norm(residual, x, weight, eps, out);
    return;
  }
  if (!joins(group)) return;
  note(group.all_gather(x.data, gathered_parts_->data(), count, x.dtype, stream_->get()), "all_reduce_add_rms_norm");
  if (!error_.ok()) return;
  cuda::ReduceAddRmsNormArgs args = {};
  for (int r = 0; r < group.size(); ++r) args.parts[r] = static_cast<std::byte*>(gathered_parts_->data()) + r * bytes;
  args.num_parts = group.size();
  args.part_stride = x.cols;
  args.residual = residual.f32();
  args.residual_stride = residual.row_stride;
  args.weight = weight;
  args.eps = eps;
  args.out = out.data;
  args.out_stride = out.row_stride;
  args.rows = rows32(residual);
  args.cols = cols32(residual);
  args.type = element_type(x.dtype);
  launched(cuda::reduce_add_rms_norm(args, stream_->get()), "reduce_add_rms_norm");
}

void CudaBackend::gather_columns(Communicator& group, Tensor part, std::span<const int64_t> widths, Tensor scratch,
                                 Tensor out) {
  CHECK(part.dtype == DType::kFloat32 && part.row_stride == part.cols) << "gather_columns: packed fp32 rows";
  if (!joins(group)) return;
  const bool one_row = part.rows == 1;
  std::vector<int64_t> counts(widths.begin(), widths.end());
  for (int64_t& count : counts) count *= part.rows;
  note(group.gather(part.data, one_row ? out.data : scratch.data, counts, part.dtype, 0, stream_->get()),
       "gather_columns");
  if (group.rank() != 0 || one_row || !error_.ok()) return;
  int64_t column = 0;
  for (const int64_t width : widths) {
    launched(cudaMemcpy2DAsync(out.f32() + column, static_cast<size_t>(out.row_stride) * sizeof(float),
                               scratch.f32() + part.rows * column, static_cast<size_t>(width) * sizeof(float),
                               static_cast<size_t>(width) * sizeof(float), static_cast<size_t>(part.rows),
                               cudaMemcpyDeviceToDevice, stream_->get()),
             "gather_columns");
    column += width;
  }
}

Result<Tensor> CudaBackend::host_rows(Tensor x) {
  CHECK(x.dtype == DType::kFloat32 && x.row_stride == x.cols) << "host_rows: packed fp32 rows";
  const size_t bytes = static_cast<size_t>(x.rows * x.cols) * sizeof(float);
  CHECK_LE(bytes, host_rows_->size_bytes());
  if (error_.ok()) {
    error_ = cuda_status(cudaMemcpyAsync(host_rows_->data(), x.data, bytes, cudaMemcpyDeviceToHost, stream_->get()),
                         "copying logits to the host");
  }
  RETURN_IF_ERROR(synchronize());
  return Tensor{host_rows_->data(), x.dtype, x.rows, x.cols, x.cols};
}

}  // namespace

Result<std::unique_ptr<Backend>> make_cuda_backend(const DeviceConfig& config, int index, DType activation) {
  if (activation != DType::kBFloat16 && activation != DType::kFloat16) {
    return unsupported("the CUDA backend computes in bfloat16 or float16, not in " +
                           std::string(dtype_name(activation)) + ": use --dtype auto, bfloat16 or float16",
                       "dtype");
  }
  ASSIGN_OR_RETURN(CudaDevice device, open_cuda_device(index));
  ASSIGN_OR_RETURN(std::unique_ptr<CudaStream> stream, CudaStream::create());
  const int num_threads = config.num_threads > 0 ? static_cast<int>(config.num_threads) : usable_cpus();
  return std::unique_ptr<Backend>(
      std::make_unique<CudaBackend>(std::move(device), std::move(stream), num_threads, activation));
}

}  // namespace sextant
