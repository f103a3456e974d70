#include "engine/device/cuda_step_inputs.h"

#include "engine/base/check.h"
#include "engine/device/cuda_status.h"

namespace sextant {
namespace {
constexpr size_t kAlignment = 256;
}

int CudaStepInputs::add_array(size_t capacity, size_t element_bytes) {
  CHECK(device_ == nullptr) << "arrays are added before reserve()";
  const size_t bytes = (capacity * element_bytes + kAlignment - 1) / kAlignment * kAlignment;
  arrays_.push_back({total_bytes_, capacity * element_bytes, 0});
  total_bytes_ += bytes;
  return static_cast<int>(arrays_.size()) - 1;
}

Status CudaStepInputs::reserve() {
  ASSIGN_OR_RETURN(device_, CudaBuffer::create(total_bytes_));
  // Rows past a step's own are read by the padding rows of a replayed graph: they must be valid indices.
  RETURN_IF_ERROR(clear_device_memory(device_->data(), total_bytes_, "clearing a step's inputs"));
  for (size_t i = 0; i < pieces_.size(); ++i) {
    ASSIGN_OR_RETURN(pieces_[i], PinnedBuffer::create(total_bytes_));
    ASSIGN_OR_RETURN(copied_[i], CudaEvent::create());
  }
  return ok_status();
}

Status CudaStepInputs::begin() {
  piece_ = (piece_ + 1) % pieces_.size();
  for (Array& array : arrays_) array.filled_bytes = 0;
  return copied_[piece_]->wait();
}

std::byte* CudaStepInputs::fill_bytes(int id, size_t bytes) {
  Array& array = arrays_[static_cast<size_t>(id)];
  CHECK_LE(bytes, array.capacity_bytes) << "array " << id << " of a step's inputs";
  array.filled_bytes = bytes;
  return pieces_[piece_]->data() + array.offset;
}

Status CudaStepInputs::upload(cudaStream_t stream) {
  for (const Array& array : arrays_) {
    if (array.filled_bytes == 0) continue;
    RETURN_IF_CUDA_ERROR(
        cudaMemcpyAsync(static_cast<std::byte*>(device_->data()) + array.offset, pieces_[piece_]->data() + array.offset,
                        array.filled_bytes, cudaMemcpyHostToDevice, stream),
        "copying a step's inputs");
  }
  return copied_[piece_]->record(stream);
}

}  // namespace sextant
