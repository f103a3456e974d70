// Readers allocate what a file's size allows, not what its header asks for: every allocation of this program
// is counted while a small hostile file is opened. Not under sanitizers, which bring their own operator new.
#include <gtest/gtest.h>
#include <atomic>
#include <cstdlib>
#include <new>

#include "engine/format/gguf.h"
#include "engine/format/safetensors.h"
#include "tests/support/gguf_builder.h"
#include "tests/support/scratch_directory.h"

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)

namespace {
std::atomic<bool> counting{false};
std::atomic<size_t> total_bytes{0};

void* counted(size_t size) {
  if (counting) total_bytes += size;
  return std::malloc(size);
}
}  // namespace

// Not inlined: GCC takes a malloc seen through new, and a free through delete, for a mismatch.
[[gnu::noinline]] void* operator new(size_t size) {
  void* memory = counted(size);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}
[[gnu::noinline]] void* operator new[](size_t size) { return operator new(size); }
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete[](void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, size_t) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete[](void* memory, size_t) noexcept { std::free(memory); }

namespace sextant {
namespace {

template <typename Action>
size_t bytes_allocated_by(Action&& action) {
  total_bytes = 0;
  counting = true;
  action();
  counting = false;
  return total_bytes;
}

constexpr size_t kAllowed = 64 << 10;  // for files of a few hundred bytes, error messages included

TEST(Allocation, HostileGgufCounts) {
  const ScratchDirectory scratch;
  const uint64_t huge = uint64_t{3} << 30;  // would succeed if it were tried
  std::vector<std::string> files;
  for (uint32_t element : {GgufBuilder::kUint8, GgufBuilder::kUint32, GgufBuilder::kString, GgufBuilder::kFloat64}) {
    files.push_back(GgufBuilder()
                        .raw("a", GgufBuilder::kArray,
                             GgufBuilder::number(element) + GgufBuilder::number(huge) + std::string(300, '\0'))
                        .build());
  }
  files.push_back(GgufBuilder().raw("s", GgufBuilder::kString, GgufBuilder::number(huge)).build());
  GgufBuilder counts;
  counts.num_tensors = huge;
  files.push_back(counts.build() + std::string(300, '\0'));
  counts.num_tensors = 0;
  counts.num_keys = huge;
  files.push_back(counts.build() + std::string(300, '\0'));
  GgufBuilder tensor;
  tensor.raw_tensor("t", {huge, 4}, 0, 0);
  files.push_back(tensor.header() + std::string(300, '\0'));
  for (const std::string& bytes : files) {
    const std::string path = scratch.write("hostile.gguf", bytes);
    bool accepted = true;
    EXPECT_LT(bytes_allocated_by([&] { accepted = GgufFile::open(path).ok(); }), kAllowed);
    EXPECT_FALSE(accepted);
  }
}

TEST(Allocation, HostileSafetensorsHeaderLength) {
  const ScratchDirectory scratch;
  for (uint64_t length : {uint64_t{90'000'000}, uint64_t{1} << 40, UINT64_MAX}) {
    const std::string path =
        scratch.write("hostile.safetensors", GgufBuilder::number(length) + "{}" + std::string(300, ' '));
    bool accepted = true;
    EXPECT_LT(bytes_allocated_by([&] { accepted = SafetensorsSource::open(path).ok(); }), kAllowed);
    EXPECT_FALSE(accepted);
  }
}

}  // namespace
}  // namespace sextant

#endif
