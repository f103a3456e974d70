// bench_stream: the rate at which all threads together read memory, the roof of decoding. Each reads its own part of one
// buffer from its start to its end, as the weights of a step are read; the slowest thread counts.
//   bench_stream [MIB [THREADS [ROUNDS]]]   98 MiB, as many threads as CPUs, best of 9 (and their median): one JSON object on stdout
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

#include "bench/kernels/bench_support.h"

namespace {

typedef uint64_t Words __attribute__((vector_size(64)));

#if defined(__x86_64__)
__attribute__((target_clones("default", "avx2", "avx512f")))
#endif
uint64_t
read_all(const uint8_t* data, int64_t bytes) {
  Words sum[4] = {};
  for (int64_t i = 0; i + 256 <= bytes; i += 256) {
    for (int j = 0; j < 4; ++j) sum[j] += *reinterpret_cast<const Words*>(data + i + 64 * j);
  }
  const Words all = sum[0] + sum[1] + sum[2] + sum[3];
  return all[0] + all[1] + all[2] + all[3] + all[4] + all[5] + all[6] + all[7];
}

double round_s(const uint8_t* data, int64_t bytes, int num_threads) {
  std::atomic<int> num_ready{0};
  std::atomic<uint64_t> sink{0};
  std::vector<double> seconds(static_cast<size_t>(num_threads));
  std::vector<std::thread> threads;
  const int64_t part = bytes / num_threads / 256 * 256;
  for (int i = 0; i < num_threads; ++i) {
    threads.emplace_back([&, i] {
      ++num_ready;
      while (num_ready < num_threads) {
      }
      const auto begin = std::chrono::steady_clock::now();
      sink += read_all(data + part * i, part);
      seconds[static_cast<size_t>(i)] = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    });
  }
  for (std::thread& thread : threads) thread.join();
  double slowest = 0;
  for (const double s : seconds) slowest = s > slowest ? s : slowest;
  return slowest / (static_cast<double>(part) * num_threads) * static_cast<double>(bytes);
}

}  // namespace

int main(int argc, char** argv) {
  const int64_t mib = argc > 1 ? std::atoll(argv[1]) : 98;
  const int threads = argc > 2 ? std::atoi(argv[2]) : static_cast<int>(std::thread::hardware_concurrency());
  const int rounds = argc > 3 ? std::atoi(argv[3]) : 9;
  if (mib < 1 || mib > (1 << 20) || threads < 1 || threads > 4096 || rounds < 1) {
    std::fputs("usage: bench_stream [MIB [THREADS [ROUNDS]]]\n", stderr);
    return 2;
  }
  const int64_t bytes = mib << 20;
  sextant::kernels::Memory memory(bytes);
  std::vector<double> s;
  for (int i = 0; i < rounds; ++i) s.push_back(round_s(memory.bytes(), bytes, threads));
  std::sort(s.begin(), s.end());
  const double gigabytes = static_cast<double>(bytes) * 1e-9;
  std::printf("{\"bytes\": %lld, \"threads\": %d, \"rounds\": %d, \"gb_per_s\": %.3f, \"median_gb_per_s\": %.3f}\n",
              static_cast<long long>(bytes), threads, rounds, gigabytes / s.front(), gigabytes / s[s.size() / 2]);
  return 0;
}
