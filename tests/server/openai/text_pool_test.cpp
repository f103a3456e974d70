#include "server/openai/text_pool.h"

#include <gtest/gtest.h>
#include <atomic>
#include <chrono>
#include <future>
#include <limits>
#include <memory>
#include <thread>

namespace sextant::openai {
namespace {

TEST(TextPool, RunsEveryJobItTook) {
  std::atomic<int> num_run{0};
  int num_taken = 0;
  {
    TextPool pool(3, 1000, 1000);
    for (int i = 0; i < 500; ++i) num_taken += pool.try_submit([&] { ++num_run; }, 1);
    while (num_run < num_taken) std::this_thread::yield();
  }
  EXPECT_EQ(num_taken, 500);
  EXPECT_EQ(num_run, 500);
}

TEST(TextPool, RefusesWhenFullAndDropsTheQueueAtItsEnd) {
  std::promise<void> gate;
  std::promise<void> started;
  std::atomic<int> num_run{0};
  const auto kept = std::make_shared<int>(1);
  std::thread opener;
  {
    TextPool pool(1, 2, 1000);
    ASSERT_TRUE(pool.try_submit(
        [&] {
          started.set_value();
          gate.get_future().wait();
          ++num_run;
        },
        0));
    started.get_future().wait();
    EXPECT_TRUE(pool.try_submit([&num_run, kept] { num_run += 100; }, 0));
    EXPECT_TRUE(pool.try_submit([&num_run, kept] { num_run += 100; }, 0));
    EXPECT_FALSE(pool.try_submit([&num_run, kept] { num_run += 100; }, 0));
    EXPECT_EQ(kept.use_count(), 3);
    // Opens when the destructor, which is next, has long begun.
    opener = std::thread([&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(500));
      gate.set_value();
    });
  }
  opener.join();
  EXPECT_EQ(num_run, 1);
  EXPECT_EQ(kept.use_count(), 1);
}

// What waits in memory is bounded in bytes; a single job larger than that is still taken, alone.
TEST(TextPool, BoundsTheBytesThatWait) {
  std::promise<void> gate;
  std::promise<void> started;
  std::atomic<int> num_run{0};
  TextPool pool(1, 100, 1000);
  ASSERT_TRUE(pool.try_submit(
      [&] {
        started.set_value();
        gate.get_future().wait();
      },
      5000));
  started.get_future().wait();  // it runs: its bytes no longer wait
  const auto count = [&num_run] { ++num_run; };
  EXPECT_TRUE(pool.try_submit(count, 600));
  EXPECT_FALSE(pool.try_submit(count, 401));
  EXPECT_FALSE(pool.try_submit(count, std::numeric_limits<size_t>::max() / 2));
  EXPECT_TRUE(pool.try_submit(count, 400));
  EXPECT_FALSE(pool.try_submit(count, 1));
  EXPECT_TRUE(pool.try_submit(count, 0));
  gate.set_value();
  while (num_run < 3) std::this_thread::yield();
  std::promise<void> again;
  std::promise<void> has_begun;
  ASSERT_TRUE(pool.try_submit(
      [&] {
        has_begun.set_value();
        again.get_future().wait();
      },
      0));
  has_begun.get_future().wait();
  EXPECT_TRUE(pool.try_submit(count, 1'000'000));  // alone
  EXPECT_FALSE(pool.try_submit(count, 1));
  again.set_value();
  while (num_run < 4) std::this_thread::yield();
}

}  // namespace
}  // namespace sextant::openai
