// The pool: every piece once per job, all work seen afterwards, turns between callers, sleep when idle.
#include "engine/device/thread_pool.h"

#include <gtest/gtest.h>
#include <time.h>

#include <algorithm>
#include <array>
#include <numeric>
#include <utility>

namespace sextant {
namespace {

double process_cpu_seconds() {
  timespec t{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

TEST(ThreadPool, EachPieceIsDoneOnceOnAKnownThread) {
  for (const int num_threads : {1, 2, 3, 5}) {
    ThreadPool pool(num_threads);
    ASSERT_EQ(pool.num_threads(), num_threads);
    for (int round = 0; round < 1000; ++round) {
      // Plain: a piece that is done twice, or not waited for, is a race that tsan reports.
      std::vector<int> calls(static_cast<size_t>(round % 23), 0);
      std::vector<int> of_thread(static_cast<size_t>(num_threads), 0);
      pool.share(static_cast<int64_t>(calls.size()), [&](int thread, int64_t piece) {
        ++calls[static_cast<size_t>(piece)];
        ++of_thread[static_cast<size_t>(thread)];
      });
      ASSERT_EQ(calls, std::vector<int>(calls.size(), 1));
      ASSERT_EQ(std::accumulate(of_thread.begin(), of_thread.end(), 0), static_cast<int>(calls.size()));
    }
  }
}

TEST(ThreadPool, WorksAfterTheThreadsHaveGoneToSleep) {
  ThreadPool pool(3);
  std::atomic<int> calls = 0;
  for (int round = 0; round < 20; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    pool.share(3, [&](int thread, int64_t) {
      if (thread != 0 && round % 4 == 0)
        std::this_thread::sleep_for(std::chrono::milliseconds(1));  // the caller sleeps, too
      ++calls;
    });
    ASSERT_EQ(calls, 3 * (round + 1));
  }
}

// The rest goes on without a thread that is held up: here until all other pieces are done.
TEST(ThreadPool, AThreadThatIsHeldUpHoldsUpItsPieceOnly) {
  ThreadPool pool(2);
  for (int round = 0; round < 20; ++round) {
    std::atomic<int> done = 0;
    pool.share(50, [&](int thread, int64_t) {
      if (thread == 1) {
        while (done.load() < 49) std::this_thread::yield();
      }
      ++done;
    });
    ASSERT_EQ(done, 50);
  }
}

// Every Tth piece is a thread's own, whatever their number.
TEST(ThreadPool, ThreadsBeginWithTheirOwnPieces) {
  ThreadPool pool(2);
  for (int round = 0; round < 200; ++round) {
    std::atomic<int> num_begun = 0;
    std::array<int, 2> thread_of{-1, -1};
    pool.share(2, [&](int thread, int64_t piece) {
      ++num_begun;
      while (num_begun.load() < 2) std::this_thread::yield();  // nobody does both
      thread_of[static_cast<size_t>(piece)] = thread;
    });
    ASSERT_EQ(thread_of, (std::array<int, 2>{0, 1}));
  }
}

// Nothing of what is expected is read: it need not be there, whatever size it is said to have.
TEST(ThreadPool, WhatIsExpectedNeedNotExist) {
  ThreadPool pool(3);
  alignas(64) static std::array<char, 256> some{};
  for (int round = 0; round < 300; ++round) {
    const std::array<std::pair<const void*, int64_t>, 5> expected{{{nullptr, 0},
                                                                   {nullptr, int64_t{1} << 20},
                                                                   {some.data(), int64_t{1} << 40},
                                                                   {some.data(), 1},
                                                                   {some.data(), 256}}};
    const auto& [begin, num_bytes] = expected[static_cast<size_t>(round) % expected.size()];
    pool.expect(begin, num_bytes);
    std::atomic<int> done = 0;
    pool.share(7, [&](int, int64_t) { ++done; });
    ASSERT_EQ(done, 7);
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
  int64_t plain = 0;  // only ever changed inside a job, by one piece of it
  std::vector<std::thread> callers;
  for (int c = 0; c < 4; ++c) {
    callers.emplace_back([&] {
      for (int i = 0; i < 500; ++i) {
        pool.share(3, [&](int, int64_t piece) {
          if (piece == 1) ++plain;
        });
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(plain, 2000);
}

TEST(ThreadPool, IdleThreadsUseNoCpu) {
  ThreadPool pool(4);
  pool.share(4, [](int, int64_t) {});
  std::this_thread::sleep_for(std::chrono::milliseconds(20));  // past the spin
  double least = 1;
  for (int i = 0; i < 10 && least >= 0.003; ++i) {  // another process's interrupts may be charged to one window
    const double before = process_cpu_seconds();
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    least = std::min(least, process_cpu_seconds() - before);
  }
  EXPECT_LT(least, 0.003) << "1% of the time";
}

TEST(ThreadPool, StartsAndEndsWithoutAJob) {
  for (int i = 0; i < 50; ++i) ThreadPool pool(1 + i % 4);
}

}  // namespace
}  // namespace sextant
