// ByteWriter, ByteReader: numbers and lists as bytes, for the messages of a group. Integers are LEB128 varints, signed ones
// zigzag first (Protocol Buffers' encoding); floats are their little-endian bits. A reader never reads past its bytes and
// never allocates more elements than the bytes left could hold: what it reads may come from anyone.
#pragma once

#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace sextant {

class ByteWriter {
 public:
  template <std::integral T>
  void write(T value) {
    if constexpr (std::is_signed_v<T>) {
      const auto wide = static_cast<int64_t>(value);
      write_varint(static_cast<uint64_t>(wide) << 1 ^ static_cast<uint64_t>(wide >> 63));
    } else {
      write_varint(static_cast<uint64_t>(value));
    }
  }
  void write(float value) {
    const auto bits = std::bit_cast<uint32_t>(value);
    for (int shift = 0; shift < 32; shift += 8) bytes_.push_back(static_cast<char>(bits >> shift));
  }
  void write(std::string_view text) {
    write(text.size());
    bytes_.append(text);
  }
  template <typename T>
  void write_list(const std::vector<T>& values) {
    write(values.size());
    for (const T& value : values) write(value);
  }

  std::string take() { return std::move(bytes_); }

 private:
  void write_varint(uint64_t value) {
    for (; value >= 0x80; value >>= 7) bytes_.push_back(static_cast<char>(value | 0x80));
    bytes_.push_back(static_cast<char>(value));
  }
  std::string bytes_;
};

// After the first read that fails all fail; what was read then is zero.
class ByteReader {
 public:
  explicit ByteReader(std::string_view bytes) : left_(bytes) {}

  bool ok() const { return ok_; }
  bool at_end() const { return ok_ && left_.empty(); }
  void fail() { ok_ = false; }

  template <std::integral T>
  T read() {
    const uint64_t raw = read_varint();
    if constexpr (std::is_signed_v<T>) {
      const auto value = static_cast<int64_t>(raw >> 1 ^ (~(raw & 1) + 1));
      if (value < std::numeric_limits<T>::min() || value > std::numeric_limits<T>::max()) fail();
      return ok_ ? static_cast<T>(value) : T{};
    } else {
      if (raw > std::numeric_limits<T>::max()) fail();
      return ok_ ? static_cast<T>(raw) : T{};
    }
  }
  float read_float() {
    if (left_.size() < 4) fail();
    if (!ok_) return 0;
    uint32_t bits = 0;
    for (size_t i = 0; i < 4; ++i) bits |= static_cast<uint32_t>(static_cast<unsigned char>(left_[i])) << 8 * i;
    left_.remove_prefix(4);
    return std::bit_cast<float>(bits);
  }
  std::string read_text() {
    const auto size = read<size_t>();
    if (size > left_.size()) fail();
    if (!ok_) return {};
    std::string text(left_.substr(0, size));
    left_.remove_prefix(size);
    return text;
  }
  // How many elements follow, each of `least_bytes` or more.
  size_t read_count(size_t least_bytes = 1) {
    const auto count = read<size_t>();
    if (count > left_.size() / least_bytes) fail();
    return ok_ ? count : 0;
  }
  template <std::integral T>
  std::vector<T> read_list() {
    std::vector<T> values(read_count());
    for (T& value : values) value = read<T>();
    return values;
  }

 private:
  uint64_t read_varint() {
    uint64_t value = 0;
    for (int shift = 0; ok_ && shift < 64; shift += 7) {
      if (left_.empty()) break;
      const auto byte = static_cast<unsigned char>(left_.front());
      left_.remove_prefix(1);
      if (shift == 63 && byte > 1) break;  // more than 64 bits
      value |= static_cast<uint64_t>(byte & 0x7f) << shift;
      if ((byte & 0x80) == 0) return value;
    }
    fail();
    return 0;
  }

  std::string_view left_;
  bool ok_ = true;
};

}  // namespace sextant
