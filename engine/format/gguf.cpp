#include "engine/format/gguf.h"

#include <cmath>
#include <cstring>
#include <utility>

#include "engine/format/gguf_parser.h"
#include "engine/format/printable.h"

namespace sextant {
namespace {

template <typename T>
T load(const char* bytes) {
  T value;
  std::memcpy(&value, bytes, sizeof(T));
  return value;
}

}  // namespace

Result<std::unique_ptr<GgufFile>> GgufFile::open(const std::string& path) {
  ASSIGN_OR_RETURN(RandomAccessFile file, RandomAccessFile::open(path));
  std::unique_ptr<GgufFile> gguf(new GgufFile(std::move(file)));
  RETURN_IF_ERROR(GgufParser(*gguf).parse());
  return gguf;
}

const TensorInfo* GgufFile::find(std::string_view name) const {
  const auto it = tensor_idx_by_name_.find(std::string(name));
  return it == tensor_idx_by_name_.end() ? nullptr : &tensors_[it->second];
}

Status GgufFile::read_range(const TensorInfo& info, uint64_t begin, std::span<std::byte> out) const {
  CHECK(begin <= info.num_bytes && out.size() <= info.num_bytes - begin) << info.name;
  return file_.read_at(info.offset + begin, out);
}

std::string_view GgufFile::type_name(ValueType type) {
  switch (type) {
    case ValueType::kUint8: return "uint8";
    case ValueType::kInt8: return "int8";
    case ValueType::kUint16: return "uint16";
    case ValueType::kInt16: return "int16";
    case ValueType::kUint32: return "uint32";
    case ValueType::kInt32: return "int32";
    case ValueType::kFloat32: return "float32";
    case ValueType::kBool: return "bool";
    case ValueType::kString: return "string";
    case ValueType::kArray: return "array";
    case ValueType::kUint64: return "uint64";
    case ValueType::kInt64: return "int64";
    case ValueType::kFloat64: return "float64";
  }
  return "?";
}

size_t GgufFile::type_size(ValueType type) {
  switch (type) {
    case ValueType::kUint8:
    case ValueType::kInt8:
    case ValueType::kBool: return 1;
    case ValueType::kUint16:
    case ValueType::kInt16: return 2;
    case ValueType::kUint32:
    case ValueType::kInt32:
    case ValueType::kFloat32: return 4;
    case ValueType::kUint64:
    case ValueType::kInt64:
    case ValueType::kFloat64: return 8;
    case ValueType::kString:
    case ValueType::kArray: return 0;
  }
  return 0;
}

const GgufFile::Value* GgufFile::find_value(std::string_view key) const {
  const auto it = values_.find(std::string(key));
  return it == values_.end() ? nullptr : &it->second;
}

Status GgufFile::wrong_type(std::string_view key, const Value& value, std::string_view wanted) const {
  std::string is(type_name(value.type));
  if (value.type == ValueType::kArray) is += " of " + std::string(type_name(value.element_type));
  return data_loss(path() + ": at byte " + std::to_string(value.offset) + ": metadata key " + printable(key) +
                   " has type " + is + ", expected " + std::string(wanted));
}

Result<const GgufFile::Value*> GgufFile::find_or_fail(std::string_view key) const {
  const Value* value = find_value(key);
  if (!value) return not_found(path() + ": metadata key " + printable(key) + " is missing");
  return value;
}

Result<const GgufFile::Value*> GgufFile::find_array(std::string_view key, std::string_view wanted) const {
  ASSIGN_OR_RETURN(const Value* value, find_or_fail(key));
  if (value->type != ValueType::kArray) return wrong_type(key, *value, wanted);
  return value;
}

uint64_t GgufFile::array_length(std::string_view key) const {
  const Value* value = find_value(key);
  return value && value->type == ValueType::kArray ? value->num_elements : 0;
}

// An integer of any type as int64; nothing for other types and for uint64 values above INT64_MAX.
std::optional<int64_t> GgufFile::integer_at(ValueType type, const char* bytes) {
  switch (type) {
    case ValueType::kUint8: return load<uint8_t>(bytes);
    case ValueType::kInt8: return load<int8_t>(bytes);
    case ValueType::kUint16: return load<uint16_t>(bytes);
    case ValueType::kInt16: return load<int16_t>(bytes);
    case ValueType::kUint32: return load<uint32_t>(bytes);
    case ValueType::kInt32: return load<int32_t>(bytes);
    case ValueType::kInt64: return load<int64_t>(bytes);
    case ValueType::kUint64: {
      const uint64_t value = load<uint64_t>(bytes);
      if (value > static_cast<uint64_t>(INT64_MAX)) return std::nullopt;
      return static_cast<int64_t>(value);
    }
    default: return std::nullopt;
  }
}

std::optional<double> GgufFile::number_at(ValueType type, const char* bytes) {
  if (type == ValueType::kFloat32) return load<float>(bytes);
  if (type == ValueType::kFloat64) return load<double>(bytes);
  if (type == ValueType::kUint64) return static_cast<double>(load<uint64_t>(bytes));
  if (const std::optional<int64_t> integer = integer_at(type, bytes)) return static_cast<double>(*integer);
  return std::nullopt;
}

Result<std::string> GgufFile::get_string(std::string_view key) const {
  ASSIGN_OR_RETURN(const Value* value, find_or_fail(key));
  if (value->type != ValueType::kString) return wrong_type(key, *value, "string");
  return value->bytes;
}

Result<int64_t> GgufFile::get_int(std::string_view key, int64_t min, int64_t max) const {
  ASSIGN_OR_RETURN(const Value* value, find_or_fail(key));
  const std::optional<int64_t> integer = integer_at(value->type, value->bytes.data());
  if (!integer && value->type != ValueType::kUint64) return wrong_type(key, *value, "an integer");
  if (!integer || *integer < min || *integer > max) {
    const std::string shown = integer ? std::to_string(*integer) : std::to_string(load<uint64_t>(value->bytes.data()));
    return data_loss(path() + ": at byte " + std::to_string(value->offset) + ": metadata key " + printable(key) +
                     " is " + shown + ", expected " + std::to_string(min) + " to " + std::to_string(max));
  }
  return *integer;
}

Result<double> GgufFile::get_float(std::string_view key) const {
  ASSIGN_OR_RETURN(const Value* value, find_or_fail(key));
  const std::optional<double> number = number_at(value->type, value->bytes.data());
  if (!number) return wrong_type(key, *value, "a number");
  if (!std::isfinite(*number)) {
    return data_loss(path() + ": at byte " + std::to_string(value->offset) + ": metadata key " + printable(key) +
                     " is not a finite number");
  }
  return *number;
}

Result<bool> GgufFile::get_bool(std::string_view key) const {
  ASSIGN_OR_RETURN(const Value* value, find_or_fail(key));
  if (value->type != ValueType::kBool) return wrong_type(key, *value, "bool");
  return value->bytes[0] != 0;
}

Result<std::vector<std::string>> GgufFile::get_strings(std::string_view key) const {
  ASSIGN_OR_RETURN(const Value* value, find_array(key, "array of strings"));
  if (value->element_type != ValueType::kString) return wrong_type(key, *value, "array of strings");
  std::vector<std::string> strings;
  strings.reserve(static_cast<size_t>(value->num_elements));
  const char* at = value->bytes.data();
  for (uint64_t i = 0; i < value->num_elements; ++i) {
    const size_t length = static_cast<size_t>(load<uint64_t>(at));
    strings.emplace_back(at + sizeof(uint64_t), length);
    at += sizeof(uint64_t) + length;
  }
  return strings;
}

Result<std::vector<int64_t>> GgufFile::get_ints(std::string_view key) const {
  ASSIGN_OR_RETURN(const Value* value, find_array(key, "array of integers"));
  const size_t size = type_size(value->element_type);
  if (size == 0) return wrong_type(key, *value, "array of integers");
  std::vector<int64_t> integers;
  integers.reserve(static_cast<size_t>(value->num_elements));
  for (uint64_t i = 0; i < value->num_elements; ++i) {
    const auto* at = value->bytes.data() + i * size;
    const std::optional<int64_t> integer = value->element_type == ValueType::kBool
                                               ? std::optional<int64_t>(*at != 0)
                                               : integer_at(value->element_type, at);
    if (!integer) return wrong_type(key, *value, "array of integers below 2^63");
    integers.push_back(*integer);
  }
  return integers;
}

Result<std::vector<double>> GgufFile::get_floats(std::string_view key) const {
  ASSIGN_OR_RETURN(const Value* value, find_array(key, "array of numbers"));
  const size_t size = type_size(value->element_type);
  if (size == 0) return wrong_type(key, *value, "array of numbers");
  std::vector<double> numbers;
  numbers.reserve(static_cast<size_t>(value->num_elements));
  for (uint64_t i = 0; i < value->num_elements; ++i) {
    const std::optional<double> number = number_at(value->element_type, value->bytes.data() + i * size);
    if (!number) return wrong_type(key, *value, "array of numbers");
    numbers.push_back(*number);
  }
  return numbers;
}

Result<std::string> GgufFile::get_string_or(std::string_view key, std::string fallback) const {
  if (!has(key)) return fallback;
  return get_string(key);
}

Result<int64_t> GgufFile::get_int_or(std::string_view key, int64_t fallback, int64_t min, int64_t max) const {
  if (!has(key)) return fallback;
  return get_int(key, min, max);
}

Result<double> GgufFile::get_float_or(std::string_view key, double fallback) const {
  if (!has(key)) return fallback;
  return get_float(key);
}

Result<bool> GgufFile::get_bool_or(std::string_view key, bool fallback) const {
  if (!has(key)) return fallback;
  return get_bool(key);
}

}  // namespace sextant
