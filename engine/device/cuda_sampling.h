// Sampling on the device, step after step: the rows of a SampleBatch go up with the step, the chosen tokens come back into
// page-locked memory while the next step runs. Tokens of two steps are kept on the device: the next step reads the one before.
// Thread: the backend's.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <memory>
#include <span>

#include "engine/base/result.h"
#include "engine/device/backend.h"
#include "engine/device/cuda_memory.h"
#include "engine/device/cuda_step_inputs.h"
#include "engine/device/sample_batch.h"

namespace sextant {

class CudaSampling {
 public:
  static constexpr int32_t kMaxTop = 20;  // the API's most
  static constexpr int kNumPieces = CudaStepInputs::kNumPieces;

  // Adds its arrays to `inputs`, before they are reserved. `max_rows` of a step.
  void add_arrays(CudaStepInputs& inputs, int64_t max_rows);
  Status reserve(int64_t max_rows);
  int64_t size_bytes() const { return size_bytes_; }

  // Between inputs.begin() and inputs.upload(): takes a step's rows and lists.
  Status plan(const StepInputs& step, CudaStepInputs& inputs, cudaStream_t stream);
  // After upload(): writes the tokens that only the device knows into token_ids.
  Status fill_previous_tokens(const CudaStepInputs& inputs, int32_t* token_ids, cudaStream_t stream);
  Status sample(const CudaStepInputs& inputs, Tensor logits, int64_t first_row, cudaStream_t stream);
  // Copies what was sampled to the host.
  Status end_step(cudaStream_t stream);
  Result<SampledTokens> collect();
  // Of the step that was planned last, [num_rows()] on the device.
  int32_t* tokens() const { return static_cast<int32_t*>(tokens_[turn_]->data()); }
  int64_t num_rows() const { return num_rows_; }
  // How long collected steps kept the device at work: from a step's first copy to its last, by the device's clock.
  double device_busy_s() const { return device_busy_s_; }

 private:
  // A list whose length has no bound in the step's size; grows when a step needs more.
  struct List {
    std::unique_ptr<CudaBuffer> device;
    std::array<std::unique_ptr<PinnedBuffer>, kNumPieces> pieces;
  };
  struct Results {  // of one step, in page-locked memory
    std::unique_ptr<PinnedBuffer> memory;
    std::unique_ptr<CudaEvent> begun;  // the step, by the device's clock
    std::unique_ptr<CudaEvent> copied;
    int64_t num_rows = 0;
    bool has_logprobs = false;
  };
  // Where the parts of a step's results begin, on the device and in page-locked memory alike.
  struct ResultLayout {
    size_t tokens, logprobs, ranks, top_ids, top_logprobs, end;
  };
  static ResultLayout layout(int64_t rows);
  Status upload_list(List& list, std::span<const std::byte> values, cudaStream_t stream);
  std::byte* result(size_t offset) const { return static_cast<std::byte*>(results_on_device_->data()) + offset; }

  int64_t max_rows_ = 0;
  int64_t size_bytes_ = 0;
  int rows_ = 0, previous_rows_ = 0, previous_places_ = 0;  // arrays of the step's inputs
  List biases_, counts_, masked_, allowed_;
  std::unique_ptr<CudaBuffer> saved_;
  std::array<std::unique_ptr<CudaBuffer>, 2> tokens_;  // of this step and of the one before, in turns
  std::unique_ptr<CudaBuffer> results_on_device_;
  std::array<Results, kNumPieces> results_;
  std::deque<size_t> uncollected_;  // pieces, oldest first
  double device_busy_s_ = 0;

  // Of the step.
  size_t piece_ = 0;
  size_t turn_ = 0;
  int64_t num_rows_ = 0;
  int32_t num_previous_ = 0;
  int32_t num_biases_ = 0, num_counts_ = 0, num_masked_ = 0;
  bool wants_logprobs_ = false;
};

}  // namespace sextant
