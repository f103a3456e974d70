#include "engine/device/cuda_sampling.h"

#include <algorithm>
#include <cstring>

#include "engine/base/check.h"
#include "engine/device/cuda_status.h"
#include "kernels/cuda/logprobs.h"
#include "kernels/cuda/sample.h"
#include "kernels/cuda/step_inputs.h"

namespace sextant {
namespace {

namespace cuda = kernels::cuda;
constexpr size_t kAlignment = 256;

size_t aligned(size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

template <typename T>
std::span<const std::byte> bytes_of(const std::vector<T>& values) {
  return std::as_bytes(std::span(values));
}

}  // namespace

CudaSampling::ResultLayout CudaSampling::layout(int64_t rows) {
  const auto n = static_cast<size_t>(rows);
  ResultLayout at = {};
  at.logprobs = at.tokens + aligned(n * sizeof(int32_t));
  at.ranks = at.logprobs + aligned(n * sizeof(float));
  at.top_ids = at.ranks + aligned(n * sizeof(int32_t));
  at.top_logprobs = at.top_ids + aligned(n * kMaxTop * sizeof(int32_t));
  at.end = at.top_logprobs + aligned(n * kMaxTop * sizeof(float));
  return at;
}

void CudaSampling::add_arrays(CudaStepInputs& inputs, int64_t max_rows) {
  const auto n = static_cast<size_t>(max_rows);
  rows_ = inputs.add_array(n, sizeof(SampleRow));
  previous_rows_ = inputs.add_array(n, sizeof(int32_t));
  previous_places_ = inputs.add_array(n, sizeof(int32_t));
}

Status CudaSampling::reserve(int64_t max_rows) {
  max_rows_ = max_rows;
  for (std::unique_ptr<CudaBuffer>& tokens : tokens_) {
    ASSIGN_OR_RETURN(tokens, CudaBuffer::create(static_cast<size_t>(max_rows) * sizeof(int32_t)));
    // A row that was never sampled is still a valid id.
    RETURN_IF_ERROR(clear_device_memory(tokens->data(), tokens->size_bytes(), "clearing sampled tokens"));
  }
  ASSIGN_OR_RETURN(results_on_device_, CudaBuffer::create(layout(max_rows).end));
  for (Results& results : results_) {
    ASSIGN_OR_RETURN(results.memory, PinnedBuffer::create(layout(max_rows).end));
    ASSIGN_OR_RETURN(results.begun, CudaEvent::create(true));
    ASSIGN_OR_RETURN(results.copied, CudaEvent::create(true));
  }
  size_bytes_ = static_cast<int64_t>(layout(max_rows).end + 2 * tokens_[0]->size_bytes());
  return ok_status();
}

Status CudaSampling::upload_list(List& list, std::span<const std::byte> values, cudaStream_t stream) {
  if (list.device == nullptr || list.device->size_bytes() < values.size()) {
    RETURN_IF_CUDA_ERROR(cudaStreamSynchronize(stream), "waiting for the device");  // others may still be read
    const size_t bytes = std::max<size_t>(4096, 2 * values.size());
    size_bytes_ += static_cast<int64_t>(bytes) - (list.device ? static_cast<int64_t>(list.device->size_bytes()) : 0);
    ASSIGN_OR_RETURN(list.device, CudaBuffer::create(bytes));
    for (std::unique_ptr<PinnedBuffer>& piece : list.pieces) {
      ASSIGN_OR_RETURN(piece, PinnedBuffer::create(bytes));
    }
  }
  if (values.empty()) return ok_status();
  std::memcpy(list.pieces[piece_]->data(), values.data(), values.size());
  return cuda_status(
      cudaMemcpyAsync(list.device->data(), list.pieces[piece_]->data(), values.size(), cudaMemcpyHostToDevice, stream),
      "copying sampling parameters");
}

Status CudaSampling::plan(const StepInputs& step, CudaStepInputs& inputs, cudaStream_t stream) {
  CHECK(step.sampling != nullptr) << "this backend samples";
  const SampleBatch& batch = *step.sampling;
  num_rows_ = static_cast<int64_t>(batch.rows.size());
  CHECK_EQ(batch.rows.size(), step.logits_indices.size());
  CHECK_LE(num_rows_, max_rows_);
  piece_ = (piece_ + 1) % results_.size();
  turn_ ^= 1;
  // A piece is free when its results were collected; so were the copies out of its lists, which came before.
  CHECK(std::find(uncollected_.begin(), uncollected_.end(), piece_) == uncollected_.end())
      << "more steps in flight than pieces";
  RETURN_IF_ERROR(results_[piece_].begun->record(stream));
  wants_logprobs_ = batch.wants_logprobs;
  num_biases_ = static_cast<int32_t>(batch.biases.size());
  num_counts_ = static_cast<int32_t>(batch.counts.size());
  num_masked_ = static_cast<int32_t>(batch.masked_ids.size());
  num_previous_ = static_cast<int32_t>(step.previous_rows.size());
  inputs.fill<SampleRow>(rows_, batch.rows);
  inputs.fill<int32_t>(previous_rows_, step.previous_rows);
  inputs.fill<int32_t>(previous_places_, step.previous_places);
  RETURN_IF_ERROR(upload_list(biases_, bytes_of(batch.biases), stream));
  RETURN_IF_ERROR(upload_list(counts_, bytes_of(batch.counts), stream));
  RETURN_IF_ERROR(upload_list(masked_, bytes_of(batch.masked_ids), stream));
  RETURN_IF_ERROR(upload_list(allowed_, bytes_of(batch.allowed_ids), stream));
  const int64_t saved_floats = cuda::sample_saved_floats(num_rows_, num_biases_, num_counts_, num_masked_);
  const size_t saved_bytes = static_cast<size_t>(saved_floats) * sizeof(float);
  if (saved_ == nullptr || saved_->size_bytes() < saved_bytes) {
    RETURN_IF_CUDA_ERROR(cudaStreamSynchronize(stream), "waiting for the device");
    ASSIGN_OR_RETURN(saved_, CudaBuffer::create(2 * saved_bytes));
  }
  return ok_status();
}

Status CudaSampling::fill_previous_tokens(const CudaStepInputs& inputs, int32_t* token_ids, cudaStream_t stream) {
  if (num_previous_ == 0) return ok_status();
  const int error = cuda::last_token_on_device(
      {token_ids, static_cast<const int32_t*>(tokens_[turn_ ^ 1]->data()), inputs.device<int32_t>(previous_rows_),
       inputs.device<int32_t>(previous_places_), num_previous_},
      stream);
  return cuda_status(static_cast<cudaError_t>(error), "tokens of the step before");
}

Status CudaSampling::sample(const CudaStepInputs& inputs, Tensor logits, int64_t first_row, cudaStream_t stream) {
  CHECK_LE(first_row + logits.rows, num_rows_);
  const SampleRow* rows = inputs.device<SampleRow>(rows_) + first_row;
  auto* tokens = static_cast<int32_t*>(tokens_[turn_]->data()) + first_row;
  const auto num_rows = static_cast<int32_t>(logits.rows);
  const auto vocab_size = static_cast<int32_t>(logits.cols);
  cuda::SampleArgs args = {};
  args.logits = logits.f32();
  args.logits_stride = logits.row_stride;
  args.num_rows = num_rows;
  args.vocab_size = vocab_size;
  args.rows = rows;
  args.biases = static_cast<const TokenBias*>(biases_.device->data());
  args.counts = static_cast<const TokenCount*>(counts_.device->data());
  args.masked_ids = static_cast<const int32_t*>(masked_.device->data());
  args.allowed_ids = static_cast<const int32_t*>(allowed_.device->data());
  args.num_biases = num_biases_;
  args.num_counts = num_counts_;
  args.num_masked = num_masked_;
  args.previous_tokens = static_cast<const int32_t*>(tokens_[turn_ ^ 1]->data());
  args.saved = static_cast<float*>(saved_->data());
  args.tokens = tokens;
  RETURN_IF_CUDA_ERROR(static_cast<cudaError_t>(cuda::sample(args, stream)), "sample");
  if (!wants_logprobs_) return ok_status();

  const ResultLayout at = layout(max_rows_);
  const auto first = static_cast<size_t>(first_row);
  cuda::LogprobsArgs logprobs = {};
  logprobs.logits = logits.f32();
  logprobs.logits_stride = logits.row_stride;
  logprobs.num_rows = num_rows;
  logprobs.vocab_size = vocab_size;
  logprobs.chosen = tokens;
  logprobs.num_top = &rows->num_top_logprobs;
  logprobs.num_top_stride = sizeof(SampleRow) / sizeof(int32_t);
  logprobs.max_top = kMaxTop;
  logprobs.chosen_logprob = reinterpret_cast<float*>(result(at.logprobs)) + first;
  logprobs.rank = reinterpret_cast<int32_t*>(result(at.ranks)) + first;
  logprobs.top_ids = reinterpret_cast<int32_t*>(result(at.top_ids)) + first * kMaxTop;
  logprobs.top_logprobs = reinterpret_cast<float*>(result(at.top_logprobs)) + first * kMaxTop;
  return cuda_status(static_cast<cudaError_t>(cuda::token_logprobs(logprobs, stream)), "logprobs");
}

Status CudaSampling::end_step(cudaStream_t stream) {
  Results& results = results_[piece_];
  results.num_rows = num_rows_;
  results.has_logprobs = wants_logprobs_;
  const ResultLayout at = layout(max_rows_);
  const auto n = static_cast<size_t>(num_rows_);
  const auto copy = [&](size_t to, const void* from, size_t bytes) {
    return cuda_status(cudaMemcpyAsync(results.memory->data() + to, from, bytes, cudaMemcpyDeviceToHost, stream),
                       "copying sampled tokens");
  };
  if (n > 0) {
    RETURN_IF_ERROR(copy(at.tokens, tokens_[turn_]->data(), n * sizeof(int32_t)));
    if (wants_logprobs_) {
      RETURN_IF_ERROR(copy(at.logprobs, result(at.logprobs), n * sizeof(float)));
      RETURN_IF_ERROR(copy(at.ranks, result(at.ranks), n * sizeof(int32_t)));
      RETURN_IF_ERROR(copy(at.top_ids, result(at.top_ids), n * kMaxTop * sizeof(int32_t)));
      RETURN_IF_ERROR(copy(at.top_logprobs, result(at.top_logprobs), n * kMaxTop * sizeof(float)));
    }
  }
  RETURN_IF_ERROR(results.copied->record(stream));
  uncollected_.push_back(piece_);
  return ok_status();
}

Result<SampledTokens> CudaSampling::collect() {
  CHECK(!uncollected_.empty()) << "no step has samples to collect";
  Results& results = results_[uncollected_.front()];
  uncollected_.pop_front();
  RETURN_IF_ERROR(results.copied->wait());
  ASSIGN_OR_RETURN(const double seconds, results.copied->seconds_since(*results.begun));
  device_busy_s_ += seconds;
  const ResultLayout at = layout(max_rows_);
  const auto n = static_cast<size_t>(results.num_rows);
  std::byte* memory = results.memory->data();
  SampledTokens sampled;
  sampled.token_ids = {reinterpret_cast<const int32_t*>(memory + at.tokens), n};
  if (!results.has_logprobs) return sampled;
  sampled.logprobs = {reinterpret_cast<const float*>(memory + at.logprobs), n};
  sampled.ranks = {reinterpret_cast<const int32_t*>(memory + at.ranks), n};
  sampled.top_ids = {reinterpret_cast<const int32_t*>(memory + at.top_ids), n * kMaxTop};
  sampled.top_logprobs = {reinterpret_cast<const float*>(memory + at.top_logprobs), n * kMaxTop};
  sampled.top_stride = kMaxTop;
  return sampled;
}

}  // namespace sextant
