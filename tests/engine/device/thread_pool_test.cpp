// The pool: every thread once per run, all work seen afterwards, turns between callers, sleep when idle.
#include "engine/device/thread_pool.h"

#include <gtest/gtest.h>
#include <time.h>

#include <algorithm>
#include <numeric>
#include <set>

namespace sextant {
namespace {

double process_cpu_seconds() {
  timespec t{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

TEST(ThreadPool, EachThreadRunsOncePerRun) {
  for (const int num_threads : {1, 2, 3, 5}) {
    ThreadPool pool(num_threads);
    ASSERT_EQ(pool.num_threads(), num_threads);
    std::vector<int> calls(static_cast<size_t>(num_threads),
                           0);  // plain: a missing barrier is a race that tsan reports
    for (int round = 0; round < 2000; ++round) {
      pool.run([&](int thread) { ++calls[static_cast<size_t>(thread)]; });
      ASSERT_EQ(calls, std::vector<int>(static_cast<size_t>(num_threads), round + 1));
    }
  }
}

TEST(ThreadPool, RunsAfterTheThreadsHaveGoneToSleep) {
  ThreadPool pool(3);
  std::atomic<int> calls = 0;
  for (int round = 0; round < 20; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    pool.run([&](int thread) {
      if (thread == 2 && round % 4 == 0)
        std::this_thread::sleep_for(std::chrono::milliseconds(1));  // the caller sleeps, too
      ++calls;
    });
    ASSERT_EQ(calls, 3 * (round + 1));
  }
}

TEST(ThreadPool, ParallelForCoversTheRangeOnce) {
  for (const int num_threads : {1, 2, 3}) {
    ThreadPool pool(num_threads);
    for (const int64_t n : {0, 1, 2, 3, 7, 100, 1001}) {
      for (const int64_t grain : {0, 1, 3, 50, 5000}) {
        std::vector<int> seen(static_cast<size_t>(n), 0);
        std::atomic<int> parts = 0;
        pool.parallel_for(n, grain, [&](int64_t begin, int64_t end) {
          ++parts;
          for (int64_t i = begin; i < end; ++i) ++seen[static_cast<size_t>(i)];
        });
        ASSERT_EQ(std::accumulate(seen.begin(), seen.end(), int64_t{0}), n);
        ASSERT_TRUE(n == 0 || *std::min_element(seen.begin(), seen.end()) == 1);
        ASSERT_LE(parts, num_threads);
        ASSERT_TRUE(n == 0 || parts >= 1);
        if (grain == 5000) {
          ASSERT_LE(parts, 1) << "less than a grain is not shared";
        }
      }
    }
  }
}

TEST(ThreadPool, CallersTakeTurns) {
  ThreadPool pool(2);
  int64_t plain = 0;  // only ever changed inside a run, by thread 0 of it
  std::vector<std::thread> callers;
  for (int c = 0; c < 4; ++c) {
    callers.emplace_back([&] {
      for (int i = 0; i < 500; ++i) {
        pool.run([&](int thread) {
          if (thread == 0) ++plain;
        });
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(plain, 2000);
}

TEST(ThreadPool, IdleThreadsUseNoCpu) {
  ThreadPool pool(4);
  pool.run([](int) {});
  std::this_thread::sleep_for(std::chrono::milliseconds(20));  // past the spin
  double least = 1;
  for (int i = 0; i < 10 && least >= 0.003; ++i) {  // another process's interrupts may be charged to one window
    const double before = process_cpu_seconds();
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    least = std::min(least, process_cpu_seconds() - before);
  }
  EXPECT_LT(least, 0.003) << "1% of the time";
}

TEST(ThreadPool, StartsAndEndsWithoutARun) {
  for (int i = 0; i < 50; ++i) ThreadPool pool(1 + i % 4);
}

}  // namespace
}  // namespace sextant
