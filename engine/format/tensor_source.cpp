#include "engine/format/tensor_source.h"

namespace sextant {

Status TensorSource::read(const TensorInfo& info, std::span<std::byte> out) const {
  CHECK_EQ(out.size(), info.num_bytes) << info.name;
  return read_range(info, 0, out);
}

std::string TensorSource::describe(const TensorInfo& info) {
  std::string text = "[";
  for (size_t i = 0; i < info.shape.size(); ++i) {
    if (i > 0) text += ", ";
    text += std::to_string(info.shape[i]);
  }
  text += "] ";
  text += weight_type_name(info.type);
  return text;
}

uint64_t TensorSource::total_bytes() const {
  uint64_t sum = 0;
  for (const TensorInfo& info : tensors()) sum += info.num_bytes;
  return sum;
}

}  // namespace sextant
