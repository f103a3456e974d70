#include "server/http/request_id.h"

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <random>

namespace sextant::http {
namespace {

// SplitMix64's output function (Steele, Lea, Flood 2014): a bijection, so a counter never repeats.
uint64_t mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15ULL;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

uint64_t random_word() {
  std::random_device device;
  return (static_cast<uint64_t>(device()) << 32) | device();
}

}  // namespace

bool is_well_formed_request_id(std::string_view id) {
  return !id.empty() && id.size() <= 128 && std::all_of(id.begin(), id.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           std::string_view("-_.:=/+@").find(c) != std::string_view::npos;
  });
}

std::string make_request_id() {
  static const uint64_t process_word = random_word();
  static std::atomic<uint64_t> counter{random_word()};
  const uint64_t count = counter.fetch_add(1, std::memory_order_relaxed);
  std::string id = "req-";
  for (const uint64_t word : {mix(count), mix(count ^ process_word)}) {
    for (int shift = 60; shift >= 0; shift -= 4) id += "0123456789abcdef"[(word >> shift) & 15];
  }
  return id;
}

}  // namespace sextant::http
