// What a step's ops read, at fixed places of device memory: token ids, positions, slots, tables, work lists. upload() packs
// the host's arrays into page-locked memory and copies them on the stream; the host does not wait, because there is one
// page-locked piece per step in flight. Fixed places are what lets a recorded graph be replayed for another step.
// Thread: the backend's.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "engine/base/result.h"
#include "engine/device/cuda_memory.h"

namespace sextant {

class CudaStepInputs {
 public:
  // More than the steps that may be in flight: the piece that is written is never one that a copy still reads.
  static constexpr int kNumPieces = 3;

  // Adds an array of at most `capacity` elements of `element_bytes`; returns its number. Before reserve() only.
  int add_array(size_t capacity, size_t element_bytes);
  Status reserve();
  int64_t size_bytes() const { return static_cast<int64_t>(total_bytes_) * (1 + kNumPieces); }

  // Waits until the piece that comes next is free, then begins to fill it.
  Status begin();
  // The first `count` elements of array `id`, to be written by the host before upload(). At most once per step.
  template <typename T>
  std::span<T> fill(int id, size_t count) {
    return {reinterpret_cast<T*>(fill_bytes(id, count * sizeof(T))), count};
  }
  template <typename T>
  void fill(int id, std::span<const T> values) {
    std::copy(values.begin(), values.end(), fill<T>(id, values.size()).begin());
  }
  // Copies what was filled since begin().
  Status upload(cudaStream_t stream);

  template <typename T>
  T* device(int id) const {
    return reinterpret_cast<T*>(static_cast<std::byte*>(device_->data()) + arrays_[static_cast<size_t>(id)].offset);
  }

 private:
  struct Array {
    size_t offset;
    size_t capacity_bytes;
    size_t filled_bytes;
  };
  std::byte* fill_bytes(int id, size_t bytes);

  std::vector<Array> arrays_;
  size_t total_bytes_ = 0;
  std::unique_ptr<CudaBuffer> device_;
  std::array<std::unique_ptr<PinnedBuffer>, kNumPieces> pieces_;
  std::array<std::unique_ptr<CudaEvent>, kNumPieces> copied_;
  size_t piece_ = 0;
};

}  // namespace sextant
