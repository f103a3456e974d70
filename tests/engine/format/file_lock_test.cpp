#include <gtest/gtest.h>

#include "engine/format/download.h"
#include "tests/support/scratch_directory.h"

namespace sextant {
namespace {

TEST(FileLock, ExcludesOtherHolders) {
  const ScratchDirectory scratch;
  bool waited = false;
  {
    const auto held = FileLock::acquire(scratch.file(".lock"), {});
    ASSERT_TRUE(held.ok());
    int num_asked = 0;
    const auto second = FileLock::acquire(
        scratch.file(".lock"), [&] { return ++num_asked > 2; }, [&] { waited = true; });
    EXPECT_EQ(second.status().code(), StatusCode::kCancelled);
    EXPECT_TRUE(waited);
  }
  EXPECT_TRUE(FileLock::acquire(scratch.file(".lock"), {}).ok()) << "free again";
}

}  // namespace
}  // namespace sextant
