// Tensors in memory, as a file would give them.
#pragma once

#include <cstring>
#include <string>
#include <vector>

#include "engine/format/tensor_source.h"

namespace sextant::testing_support {

class MemorySource final : public TensorSource {
 public:
  void add(const std::string& name, std::vector<int64_t> shape, WeightType type, std::vector<std::byte> data) {
    tensors_.push_back({name, type, std::move(shape), 0, data.size(), 0});
    data_.push_back(std::move(data));
  }
  const std::string& path() const override { return path_; }
  const std::vector<TensorInfo>& tensors() const override { return tensors_; }
  const TensorInfo* find(std::string_view name) const override {
    for (const TensorInfo& info : tensors_) {
      if (info.name == name) return &info;
    }
    return nullptr;
  }
  Status read_range(const TensorInfo& info, uint64_t begin, std::span<std::byte> out) const override {
    const auto idx = static_cast<size_t>(&info - tensors_.data());
    std::memcpy(out.data(), data_[idx].data() + begin, out.size());
    return ok_status();
  }

 private:
  std::string path_ = "memory";
  std::vector<TensorInfo> tensors_;
  std::vector<std::vector<std::byte>> data_;
};

inline std::vector<std::byte> floats(const std::vector<float>& values) {
  std::vector<std::byte> bytes(values.size() * 4);
  std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

inline std::vector<std::byte> words(const std::vector<uint16_t>& values) {
  std::vector<std::byte> bytes(values.size() * 2);
  std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

}  // namespace sextant::testing_support
