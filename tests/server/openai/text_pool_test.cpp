#include "server/openai/text_pool.h"

#include <gtest/gtest.h>
#include <atomic>
#include <chrono>
#include <future>
#include <memory>
#include <thread>

namespace sextant::openai {
namespace {

TEST(TextPool, RunsEveryJobItTook) {
  std::atomic<int> num_run{0};
  int num_taken = 0;
  {
    TextPool pool(3, 1000);
    for (int i = 0; i < 500; ++i) num_taken += pool.try_submit([&] { ++num_run; });
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
    TextPool pool(1, 2);
    ASSERT_TRUE(pool.try_submit([&] {
      started.set_value();
      gate.get_future().wait();
      ++num_run;
    }));
    started.get_future().wait();
    EXPECT_TRUE(pool.try_submit([&num_run, kept] { num_run += 100; }));
    EXPECT_TRUE(pool.try_submit([&num_run, kept] { num_run += 100; }));
    EXPECT_FALSE(pool.try_submit([&num_run, kept] { num_run += 100; }));
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

}  // namespace
}  // namespace sextant::openai
