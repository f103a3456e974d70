// TensorSource: the tensors that a GGUF file or a set of safetensors files holds, by name.
// Data is copied out with pread: nothing returned here lives in a mapping, so a file that is cut short or rewritten
// while it is read gives kDataLoss (or other numbers), never a fault, and nothing refers to the file afterwards.
// Threads: const methods may be called from any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/result.h"
#include "engine/base/weight_type.h"

namespace sextant {

struct TensorInfo {
  std::string name;
  WeightType type = WeightType::kF32;
  std::vector<int64_t> shape;  // row-major, outermost first; the last dimension is contiguous
  uint64_t offset = 0;         // bytes from the start of its file
  uint64_t num_bytes = 0;
  uint32_t file_idx = 0;  // which of the source's files

  uint64_t num_elements() const {
    uint64_t product = 1;
    for (int64_t dimension : shape) product *= static_cast<uint64_t>(dimension);  // checked when the file was opened
    return product;
  }
};

class TensorSource {
 public:
  virtual ~TensorSource() = default;

  // The file or directory, as given.
  virtual const std::string& path() const = 0;
  // In the order of the files.
  virtual const std::vector<TensorInfo>& tensors() const = 0;
  // Null when there is none of that name.
  virtual const TensorInfo* find(std::string_view name) const = 0;

  // Copies out.size() bytes that begin `begin` bytes into the tensor. `info` is one of tensors().
  virtual Status read_range(const TensorInfo& info, uint64_t begin, std::span<std::byte> out) const = 0;

  // Copies the whole tensor; out.size() == info.num_bytes.
  Status read(const TensorInfo& info, std::span<std::byte> out) const;

  // "[49152, 576] Q4_1", for messages.
  static std::string describe(const TensorInfo& info);

  uint64_t total_bytes() const;
};

}  // namespace sextant
