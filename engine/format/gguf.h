// GgufFile: reader of GGUF v2 and v3, little endian. The header is checked in full on opening: every count, length,
// dimension and offset against the size of the file, so that no allocation is larger than the file allows.
// Errors read "<path>: at byte <n>: <what is wrong>". Must not know what a tensor or key means to a model.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "engine/base/result.h"
#include "engine/format/random_access_file.h"
#include "engine/format/tensor_source.h"

namespace sextant {

class GgufFile final : public TensorSource {
 public:
  static Result<std::unique_ptr<GgufFile>> open(const std::string& path);

  uint32_t version() const { return version_; }
  uint64_t alignment() const { return alignment_; }

  const std::string& path() const override { return file_.path(); }
  const std::vector<TensorInfo>& tensors() const override { return tensors_; }
  const TensorInfo* find(std::string_view name) const override;
  Status read_range(const TensorInfo& info, uint64_t begin, std::span<std::byte> out) const override;

  // Metadata. In file order.
  const std::vector<std::string>& keys() const { return keys_; }
  bool has(std::string_view key) const { return find_value(key) != nullptr; }
  // Elements of an array; 0 when the key is absent or no array.
  uint64_t array_length(std::string_view key) const;

  // Each fails with kNotFound when the key is absent and kDataLoss when its type or value does not fit; the message
  // names file and key. Any integer type is accepted where the value fits, in arrays booleans too; get_float also takes integers.
  Result<std::string> get_string(std::string_view key) const;
  Result<int64_t> get_int(std::string_view key, int64_t min, int64_t max) const;
  Result<double> get_float(std::string_view key) const;
  Result<bool> get_bool(std::string_view key) const;
  Result<std::vector<std::string>> get_strings(std::string_view key) const;
  Result<std::vector<int64_t>> get_ints(std::string_view key) const;
  Result<std::vector<double>> get_floats(std::string_view key) const;

  // The same for keys that may be absent: `fallback` then. A value of the wrong type is an error all the same.
  Result<std::string> get_string_or(std::string_view key, std::string fallback) const;
  Result<int64_t> get_int_or(std::string_view key, int64_t fallback, int64_t min, int64_t max) const;
  Result<double> get_float_or(std::string_view key, double fallback) const;
  Result<bool> get_bool_or(std::string_view key, bool fallback) const;

 private:
  friend class GgufParser;

  enum class ValueType : uint32_t {
    kUint8,
    kInt8,
    kUint16,
    kInt16,
    kUint32,
    kInt32,
    kFloat32,
    kBool,
    kString,
    kArray,
    kUint64,
    kInt64,
    kFloat64,
  };
  struct Value {
    ValueType type = ValueType::kUint8;
    ValueType element_type = ValueType::kUint8;  // of an array
    uint64_t num_elements = 0;                   // of an array
    uint64_t offset = 0;                         // of the key, for messages
    std::string bytes;                           // as in the file; a string without its length
  };

  explicit GgufFile(RandomAccessFile file) : file_(std::move(file)) {}

  static std::string_view type_name(ValueType type);
  static size_t type_size(ValueType type);  // 0 for strings and arrays
  static std::optional<int64_t> integer_at(ValueType type, const char* bytes);
  static std::optional<double> number_at(ValueType type, const char* bytes);
  const Value* find_value(std::string_view key) const;
  Status wrong_type(std::string_view key, const Value& value, std::string_view wanted) const;
  Result<const Value*> find_or_fail(std::string_view key) const;
  Result<const Value*> find_array(std::string_view key, std::string_view wanted) const;

  RandomAccessFile file_;
  uint32_t version_ = 0;
  uint64_t alignment_ = 32;
  std::vector<std::string> keys_;
  std::unordered_map<std::string, Value> values_;
  std::vector<TensorInfo> tensors_;
  std::unordered_map<std::string, size_t> tensor_idx_by_name_;
};

}  // namespace sextant
