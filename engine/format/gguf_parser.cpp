#include "engine/format/gguf_parser.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <numeric>
#include <utility>

#include "engine/format/printable.h"

namespace sextant {
namespace {

static_assert(std::endian::native == std::endian::little, "numbers are copied from the file as they are");

// The smallest entries the format can express: key length, one byte of key, type, one byte of value; and name
// length, one byte of name, dimension count, one dimension, type, offset.
constexpr uint64_t kMinKeyValueBytes = 8 + 1 + 4 + 1;
constexpr uint64_t kMinTensorBytes = 8 + 1 + 4 + 8 + 4 + 8;
// Far above real files (tens of keys, a few thousand tensors); they bound what bookkeeping costs per byte of
// header.
constexpr uint64_t kMaxKeys = 65536;
constexpr uint64_t kMaxTensors = 262144;
constexpr uint64_t kMaxKeyLength = 65535;  // the specification's
constexpr uint64_t kMaxTensorNameLength = 1024;
constexpr uint32_t kMaxDimensions = 4;
constexpr size_t kBufferBytes = size_t{256} << 10;

}  // namespace

Status GgufParser::fail(uint64_t offset, const std::string& what) const {
  return data_loss(file_.path() + ": at byte " + std::to_string(offset) + ": " + what);
}

Status GgufParser::read_bytes(char* out, size_t num_bytes, const char* what) {
  if (num_bytes > remaining()) {
    return fail(position_, std::string("the file ends within ") + what + " (" + std::to_string(num_bytes) +
                               " bytes needed, " + std::to_string(remaining()) + " left)");
  }
  size_t done = 0;
  while (done < num_bytes) {
    const uint64_t at = position_ + done;
    if (at < buffer_begin_ || at >= buffer_begin_ + buffer_.size()) {
      buffer_.resize(static_cast<size_t>(std::min<uint64_t>(kBufferBytes, file_.size() - at)));
      buffer_begin_ = at;
      RETURN_IF_ERROR(file_.read_at(at, std::as_writable_bytes(std::span(buffer_.data(), buffer_.size()))));
    }
    const size_t within = static_cast<size_t>(at - buffer_begin_);
    const size_t count = std::min(num_bytes - done, buffer_.size() - within);
    std::memcpy(out + done, buffer_.data() + within, count);
    done += count;
  }
  position_ += num_bytes;
  return ok_status();
}

template <typename T>
Status GgufParser::read_number(T& out, const char* what) {
  char bytes[sizeof(T)];
  RETURN_IF_ERROR(read_bytes(bytes, sizeof(T), what));
  std::memcpy(&out, bytes, sizeof(T));
  return ok_status();
}

Status GgufParser::read_string(std::string& out, uint64_t max_length, const char* what) {
  const uint64_t begin = position_;
  uint64_t length = 0;
  RETURN_IF_ERROR(read_number(length, what));
  if (length > remaining()) {
    return fail(begin, std::string(what) + " claims " + std::to_string(length) + " bytes, the file has " +
                           std::to_string(remaining()) + " left");
  }
  if (length > max_length) {
    return fail(begin, std::string(what) + " claims " + std::to_string(length) + " bytes, at most " +
                           std::to_string(max_length) + " are allowed");
  }
  out.resize(static_cast<size_t>(length));
  return read_bytes(out.data(), out.size(), what);
}

Status GgufParser::parse() {
  uint64_t num_tensors = 0;
  uint64_t num_keys = 0;
  RETURN_IF_ERROR(parse_preamble(num_tensors, num_keys));
  for (uint64_t i = 0; i < num_keys; ++i) RETURN_IF_ERROR(parse_key_value());
  RETURN_IF_ERROR(parse_alignment());
  for (uint64_t i = 0; i < num_tensors; ++i) RETURN_IF_ERROR(parse_tensor());
  return place_tensors();
}

Status GgufParser::parse_preamble(uint64_t& num_tensors, uint64_t& num_keys) {
  char magic[4];
  RETURN_IF_ERROR(read_bytes(magic, sizeof(magic), "the magic number"));
  if (std::memcmp(magic, "GGUF", 4) != 0) {
    return fail(0, "no GGUF file: it begins with " + printable({magic, 4}) + " instead of 'GGUF'");
  }
  uint32_t version = 0;
  RETURN_IF_ERROR(read_number(version, "the version"));
  const uint32_t swapped = __builtin_bswap32(version);
  if (version > 0xffff && swapped >= 1 && swapped <= 0xffff) {
    return unsupported(file_.path() + ": at byte 4: a big-endian GGUF file (version " + std::to_string(swapped) +
                       "); only little-endian files can be read");
  }
  if (version != 2 && version != 3) {
    return unsupported(file_.path() + ": at byte 4: GGUF version " + std::to_string(version) +
                       "; versions 2 and 3 can be read");
  }
  gguf_.version_ = version;
  RETURN_IF_ERROR(read_number(num_tensors, "the number of tensors"));
  RETURN_IF_ERROR(read_number(num_keys, "the number of metadata keys"));
  const uint64_t max_tensors = std::min(kMaxTensors, remaining() / kMinTensorBytes);
  if (num_tensors > max_tensors) {
    return fail(8, "the header claims " + std::to_string(num_tensors) + " tensors; a file of " +
                       std::to_string(file_.size()) + " bytes can hold " + std::to_string(max_tensors));
  }
  const uint64_t max_keys = std::min(kMaxKeys, remaining() / kMinKeyValueBytes);
  if (num_keys > max_keys) {
    return fail(16, "the header claims " + std::to_string(num_keys) + " metadata keys; a file of " +
                        std::to_string(file_.size()) + " bytes can hold " + std::to_string(max_keys));
  }
  return ok_status();
}

Status GgufParser::parse_key_value() {
  Value value;
  value.offset = position_;
  std::string key;
  RETURN_IF_ERROR(read_string(key, kMaxKeyLength, "a metadata key"));
  if (key.empty()) return fail(value.offset, "a metadata key is empty");
  if (gguf_.values_.contains(key)) return fail(value.offset, "metadata key " + printable(key) + " occurs twice");
  RETURN_IF_ERROR(parse_value(value, key));
  gguf_.keys_.push_back(key);
  gguf_.values_.emplace(std::move(key), std::move(value));
  return ok_status();
}

Status GgufParser::parse_value(Value& value, const std::string& key) {
  const uint64_t begin = position_;
  uint32_t type = 0;
  RETURN_IF_ERROR(read_number(type, "the type of a metadata value"));
  if (type > static_cast<uint32_t>(ValueType::kFloat64)) {
    return fail(begin, "metadata key " + printable(key) + " has unknown type " + std::to_string(type));
  }
  value.type = static_cast<ValueType>(type);
  if (value.type == ValueType::kArray) return parse_array(value, key);
  if (value.type == ValueType::kString) return read_string(value.bytes, UINT64_MAX, "a metadata string");
  value.bytes.resize(GgufFile::type_size(value.type));
  RETURN_IF_ERROR(read_bytes(value.bytes.data(), value.bytes.size(), "a metadata value"));
  if (value.type == ValueType::kBool && static_cast<unsigned char>(value.bytes[0]) > 1) {
    return fail(position_ - 1, "metadata key " + printable(key) + " is a bool that is neither 0 nor 1");
  }
  return ok_status();
}

Status GgufParser::parse_array(Value& value, const std::string& key) {
  const uint64_t begin = position_;
  uint32_t type = 0;
  RETURN_IF_ERROR(read_number(type, "the element type of a metadata array"));
  RETURN_IF_ERROR(read_number(value.num_elements, "the length of a metadata array"));
  const std::string name = "metadata array " + printable(key);
  if (type > static_cast<uint32_t>(ValueType::kFloat64)) {
    return fail(begin, name + " has elements of unknown type " + std::to_string(type));
  }
  value.element_type = static_cast<ValueType>(type);
  if (value.element_type == ValueType::kArray) return fail(begin, name + " holds arrays, which are not supported");
  const bool strings = value.element_type == ValueType::kString;
  const uint64_t min_element_bytes = strings ? sizeof(uint64_t) : GgufFile::type_size(value.element_type);
  if (value.num_elements > remaining() / min_element_bytes) {
    return fail(begin + 4, name + " claims " + std::to_string(value.num_elements) + " elements, the file has " +
                               std::to_string(remaining()) + " bytes left");
  }
  if (!strings) {
    value.bytes.resize(static_cast<size_t>(value.num_elements * min_element_bytes));
    return read_bytes(value.bytes.data(), value.bytes.size(), "a metadata array");
  }
  std::string element;
  for (uint64_t i = 0; i < value.num_elements; ++i) {
    RETURN_IF_ERROR(read_string(element, UINT64_MAX, "a string of a metadata array"));
    const uint64_t length = element.size();
    value.bytes.append(reinterpret_cast<const char*>(&length), sizeof(length));
    value.bytes += element;
  }
  value.bytes.shrink_to_fit();
  return ok_status();
}

Status GgufParser::parse_alignment() {
  if (!gguf_.has("general.alignment")) return ok_status();
  ASSIGN_OR_RETURN(const int64_t alignment, gguf_.get_int("general.alignment", 1, int64_t{1} << 30));
  if (!std::has_single_bit(static_cast<uint64_t>(alignment))) {
    return fail(gguf_.find_value("general.alignment")->offset,
                "general.alignment is " + std::to_string(alignment) + ", which is not a power of two");
  }
  gguf_.alignment_ = static_cast<uint64_t>(alignment);
  return ok_status();
}

Status GgufParser::parse_tensor() {
  const uint64_t begin = position_;
  TensorInfo info;
  RETURN_IF_ERROR(read_string(info.name, kMaxTensorNameLength, "a tensor name"));
  if (info.name.empty()) return fail(begin, "a tensor has an empty name");
  if (!gguf_.tensor_idx_by_name_.emplace(info.name, gguf_.tensors_.size()).second) {
    return fail(begin, "tensor " + printable(info.name) + " occurs twice");
  }
  RETURN_IF_ERROR(parse_shape(info));
  RETURN_IF_ERROR(read_number(info.offset, "the offset of a tensor"));
  if (info.offset % gguf_.alignment_ != 0) {
    return fail(position_ - 8, "tensor " + printable(info.name) + " has offset " + std::to_string(info.offset) +
                                   ", which is not a multiple of the alignment " + std::to_string(gguf_.alignment_));
  }
  gguf_.tensors_.push_back(std::move(info));
  tensor_entry_offsets_.push_back(begin);
  return ok_status();
}

// The dimensions and the type, hence the size.
Status GgufParser::parse_shape(TensorInfo& info) {
  const uint64_t begin = position_;
  const std::string name = "tensor " + printable(info.name);
  uint32_t num_dimensions = 0;
  RETURN_IF_ERROR(read_number(num_dimensions, "the number of dimensions of a tensor"));
  if (num_dimensions < 1 || num_dimensions > kMaxDimensions) {
    return fail(begin, name + " has " + std::to_string(num_dimensions) + " dimensions, 1 to 4 are allowed");
  }
  uint64_t num_elements = 1;
  for (uint32_t i = 0; i < num_dimensions; ++i) {
    uint64_t dimension = 0;
    RETURN_IF_ERROR(read_number(dimension, "a dimension of a tensor"));
    if (dimension < 1 || dimension > INT64_MAX || __builtin_mul_overflow(num_elements, dimension, &num_elements)) {
      return fail(position_ - 8, name + " has an impossible dimension " + std::to_string(dimension));
    }
    info.shape.push_back(static_cast<int64_t>(dimension));
  }
  const uint64_t cols = static_cast<uint64_t>(info.shape.front());
  std::reverse(info.shape.begin(), info.shape.end());

  uint32_t ggml_id = 0;
  RETURN_IF_ERROR(read_number(ggml_id, "the type of a tensor"));
  const std::optional<WeightType> type = weight_type_of_ggml_id(ggml_id);
  if (!type) return fail(position_ - 4, name + " has unknown type " + std::to_string(ggml_id));
  info.type = *type;
  const std::optional<uint64_t> num_bytes = encoded_bytes(*type, num_elements / cols, cols);
  if (!num_bytes) {
    return fail(begin, name + " " + TensorSource::describe(info) + ": a row is not a whole number of blocks of " +
                           std::to_string(block_geometry(*type).elements) + ", or the size overflows");
  }
  info.num_bytes = *num_bytes;
  return ok_status();
}

// Offsets become absolute; nothing may reach past the end of the file or overlap.
Status GgufParser::place_tensors() {
  std::vector<TensorInfo>& tensors = gguf_.tensors_;
  if (tensors.empty()) return ok_status();
  // Cannot overflow: a position within the file plus at most 1 GiB.
  const uint64_t data_begin = (position_ + gguf_.alignment_ - 1) / gguf_.alignment_ * gguf_.alignment_;
  for (size_t i = 0; i < tensors.size(); ++i) {
    TensorInfo& info = tensors[i];
    uint64_t end = 0;
    if (__builtin_add_overflow(info.offset, data_begin, &info.offset) ||
        __builtin_add_overflow(info.offset, info.num_bytes, &end) || end > file_.size()) {
      return fail(tensor_entry_offsets_[i], "tensor " + printable(info.name) + " " + TensorSource::describe(info) +
                                                " takes " + std::to_string(info.num_bytes) + " bytes from byte " +
                                                std::to_string(info.offset) + ", the file ends at byte " +
                                                std::to_string(file_.size()) + "; was the download or copy cut short?");
    }
  }
  std::vector<size_t> order(tensors.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return tensors[a].offset < tensors[b].offset; });
  for (size_t i = 1; i < order.size(); ++i) {
    const TensorInfo& before = tensors[order[i - 1]];
    const TensorInfo& after = tensors[order[i]];
    if (before.offset + before.num_bytes > after.offset) {
      return fail(tensor_entry_offsets_[order[i]],
                  "the data of tensors " + printable(before.name) + " and " + printable(after.name) + " overlap");
    }
  }
  return ok_status();
}

}  // namespace sextant
