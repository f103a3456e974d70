// Writes GGUF files for tests, valid ones and, through the raw pieces, invalid ones.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

namespace sextant {

class GgufBuilder {
 public:
  enum Type : uint32_t {
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
    kFloat64
  };

  template <typename T>
  static std::string number(T value) {
    std::string bytes(sizeof(T), '\0');
    std::memcpy(bytes.data(), &value, sizeof(T));
    return bytes;
  }
  static std::string text(std::string_view value) { return number<uint64_t>(value.size()) + std::string(value); }

  // `payload` as it stands after the type.
  GgufBuilder& raw(std::string_view key, uint32_t type, const std::string& payload) {
    keys_ += text(key) + number(type) + payload;
    ++num_keys;
    return *this;
  }
  GgufBuilder& u32(std::string_view key, uint32_t value) { return raw(key, kUint32, number(value)); }
  GgufBuilder& f32(std::string_view key, float value) { return raw(key, kFloat32, number(value)); }
  GgufBuilder& boolean(std::string_view key, bool value) { return raw(key, kBool, number<uint8_t>(value)); }
  GgufBuilder& string(std::string_view key, std::string_view value) { return raw(key, kString, text(value)); }
  GgufBuilder& strings(std::string_view key, const std::vector<std::string>& values) {
    std::string payload = number<uint32_t>(kString) + number<uint64_t>(values.size());
    for (const std::string& value : values) payload += text(value);
    return raw(key, kArray, payload);
  }
  template <typename T>
  GgufBuilder& array(std::string_view key, Type type, const std::vector<T>& values) {
    std::string payload = number<uint32_t>(type) + number<uint64_t>(values.size());
    for (const T& value : values) payload += number(value);
    return raw(key, kArray, payload);
  }

  // An entry of the directory and nothing else.
  GgufBuilder& raw_tensor(std::string_view name, const std::vector<uint64_t>& dims, uint32_t type, uint64_t offset) {
    entries_ += text(name) + number<uint32_t>(static_cast<uint32_t>(dims.size()));
    for (uint64_t dim : dims) entries_ += number(dim);
    entries_ += number(type) + number(offset);
    ++num_tensors;
    return *this;
  }
  // Dimensions in the file's order: the contiguous one first.
  GgufBuilder& tensor(std::string_view name, const std::vector<uint64_t>& dims, uint32_t type,
                      const std::string& bytes) {
    data_.resize((data_.size() + alignment - 1) / alignment * alignment);
    raw_tensor(name, dims, type, data_.size());
    data_ += bytes;
    return *this;
  }

  std::string header() const {
    return magic + number(version) + number(num_tensors) + number(num_keys) + keys_ + entries_;
  }
  std::string build() const {
    std::string file = header();
    if (num_tensors > 0) file.resize((file.size() + alignment - 1) / alignment * alignment);
    return file + data_;
  }

  // What build() writes; tests overwrite them to lie.
  std::string magic = "GGUF";
  uint32_t version = 3;
  uint64_t num_tensors = 0;
  uint64_t num_keys = 0;
  size_t alignment = 32;

 private:
  std::string keys_;
  std::string entries_;
  std::string data_;
};

}  // namespace sextant
