// The arena: small buffers side by side, each zeroed, aligned, its own, and alive as long as itself.
#include "engine/device/cpu_memory.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

namespace sextant {
namespace {

uint8_t* bytes_of(CpuBuffer& buffer) { return static_cast<uint8_t*>(buffer.data()); }

TEST(CpuArena, BuffersAreZeroedAlignedAndApart) {
  CpuArena arena;
  std::vector<std::unique_ptr<CpuBuffer>> buffers;
  // Past the end of a mapping several times, with sizes that fill one to the byte too.
  for (const size_t size : {size_t{1}, size_t{63}, size_t{64}, size_t{65}, size_t{345600}, CpuArena::kMappedBytes / 2,
                            CpuArena::kMappedBytes / 2, CpuArena::kMappedBytes / 2, CpuArena::kMappedBytes / 2 + 1,
                            size_t{0}, size_t{5} << 20, size_t{7}}) {
    Result<std::unique_ptr<CpuBuffer>> made = arena.create(size);
    ASSERT_TRUE(made.ok());
    buffers.push_back(std::move(*made));
    CpuBuffer& buffer = *buffers.back();
    EXPECT_EQ(buffer.size_bytes(), size);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer.data()) % 64, 0u);
    EXPECT_TRUE(std::all_of(bytes_of(buffer), bytes_of(buffer) + size, [](uint8_t b) { return b == 0; }));
    std::memset(buffer.data(), static_cast<int>(buffers.size()), size);
  }
  for (size_t i = 0; i < buffers.size(); ++i) {
    const auto mark = static_cast<uint8_t>(i + 1);
    EXPECT_TRUE(std::all_of(bytes_of(*buffers[i]), bytes_of(*buffers[i]) + buffers[i]->size_bytes(),
                            [mark](uint8_t b) { return b == mark; }))
        << "buffer " << i;
  }
}

TEST(CpuArena, SmallBuffersLieSideBySide) {
  CpuArena arena;
  const auto first = arena.create(1000), second = arena.create(1000);
  ASSERT_TRUE(first.ok() && second.ok());
  EXPECT_EQ(bytes_of(**second) - bytes_of(**first), 1024);
  EXPECT_EQ(reinterpret_cast<uintptr_t>((*first)->data()) % (size_t{2} << 20), 0u) << "a huge page begins here";
}

TEST(CpuArena, ABufferOutlivesItsArenaAndItsNeighbours) {
  std::unique_ptr<CpuBuffer> kept;
  {
    CpuArena arena;
    auto first = arena.create(100), second = arena.create(100);
    ASSERT_TRUE(first.ok() && second.ok());
    kept = std::move(*second);
  }
  std::memset(kept->data(), 1, 100);
  EXPECT_EQ(bytes_of(*kept)[99], 1);
}

TEST(CpuArena, WhatTheSystemDoesNotHaveIsAnError) {
  CpuArena arena;
  EXPECT_FALSE(arena.create(size_t{1} << 62).ok());
  EXPECT_FALSE(arena.create(SIZE_MAX).ok());
  EXPECT_TRUE(arena.create(1).ok());
}

}  // namespace
}  // namespace sextant
