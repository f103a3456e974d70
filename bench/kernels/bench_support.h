// What the kernel benchmarks share: aligned memory with pages in use, and names.
#pragma once

#include <sys/mman.h>

#include <cstdint>
#include <cstring>
#include <string>

#include "kernels/cpu/kernel_table.h"

namespace sextant::kernels {

inline constexpr const char* kPanelTypeNames[] = {"f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "q4_k", "q5_k", "q6_k"};

// Memory as the engine gets it: mapped, on huge pages where there are any. Filled with a byte pattern that is a small number
// in every weight type.
class Memory {
 public:
  explicit Memory(int64_t bytes) : bytes_(static_cast<size_t>(bytes)) {
    data_ = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    madvise(data_, bytes_, MADV_HUGEPAGE);
    std::memset(data_, 0x15, bytes_);
  }
  ~Memory() { munmap(data_, bytes_); }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  uint8_t* bytes() { return static_cast<uint8_t*>(data_); }
  float* floats() { return static_cast<float*>(data_); }

 private:
  size_t bytes_;
  void* data_;
};

template <typename Register>
void for_each_isa(Register&& add) {
  for (int i = 0; i < cpu::kNumIsas; ++i) {
    if (const cpu::KernelTable* table = cpu::kernel_table(static_cast<cpu::Isa>(i))) add(*table);
  }
}

}  // namespace sextant::kernels
