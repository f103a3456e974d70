// StringIndex: a hash table from strings, kept elsewhere, to their numbers. Built once, then read by any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

namespace sextant {

// Not for keys an attacker could choose: the keys are the vocabulary's, a text only asks for them.
inline uint64_t hash_bytes(std::string_view text) {
  constexpr uint64_t kA = 0x9E3779B97F4A7C15u, kB = 0xD6E8FEB86659FD93u;
  const auto load8 = [](const char* p) {
    uint64_t word;
    std::memcpy(&word, p, 8);
    return word;
  };
  const auto load_up_to_8 = [](const char* p, size_t n) -> uint64_t {
    if (n == 0) return 0;
    if (n < 4) {
      const auto byte = [&](size_t i) { return static_cast<uint64_t>(static_cast<uint8_t>(p[i])); };
      return byte(0) | byte(n / 2) << 8 | byte(n - 1) << 16;
    }
    uint32_t first, last;  // they overlap
    std::memcpy(&first, p, 4);
    std::memcpy(&last, p + n - 4, 4);
    return static_cast<uint64_t>(first) | static_cast<uint64_t>(last) << 32;
  };
  const auto mix = [](uint64_t a, uint64_t b) {
    const unsigned __int128 product = static_cast<unsigned __int128>(a) * b;
    return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
  };
  uint64_t h = kA ^ text.size();
  const char* p = text.data();
  size_t n = text.size();
  for (; n > 8; p += 8, n -= 8) h = mix(h ^ load8(p), kB);
  return mix(h ^ load_up_to_8(p, n), kA);
}

class StringIndex {
 public:
  // `num_keys` at most.
  explicit StringIndex(size_t num_keys = 0) {
    size_t size = 4;
    while (size < 2 * num_keys) size *= 2;
    slots_.assign(size, Slot{});
  }

  // `key_of(value)` gives the key under which a value was inserted.
  template <typename KeyOf>
  int32_t find(std::string_view key, const KeyOf& key_of) const {
    const uint64_t hash = hash_bytes(key);
    for (size_t i = hash & mask();; i = (i + 1) & mask()) {
      const Slot& slot = slots_[i];
      if (slot.value < 0) return -1;
      if (slot.hash == static_cast<uint32_t>(hash >> 32) && key_of(slot.value) == key) return slot.value;
    }
  }

  // The key must not be there yet.
  void insert(std::string_view key, int32_t value) {
    const uint64_t hash = hash_bytes(key);
    size_t i = hash & mask();
    while (slots_[i].value >= 0) i = (i + 1) & mask();
    slots_[i] = {static_cast<uint32_t>(hash >> 32), value};
  }

 private:
  struct Slot {
    uint32_t hash = 0;
    int32_t value = -1;
  };
  size_t mask() const { return slots_.size() - 1; }

  std::vector<Slot> slots_;
};

}  // namespace sextant
