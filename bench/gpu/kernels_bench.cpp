// Measures each CUDA kernel on the device: every case of the standard shape, its median time by events, the caches written over
// before each repetition. Writes one JSON object per line as it goes; a case that the file already holds is not measured again.
// Under the emulator (the same sources without a GPU) the cases run, and nothing is timed: a program that tests itself.
//   kernels_bench --shape llama-8b --out kernels.jsonl [--repetitions 30] [--only gemv]
#include <cuda_runtime.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <random>
#include <set>
#include <stdexcept>

#include "bench/gpu/kernel_cases.h"

namespace sextant::bench {
namespace {

#if defined(SEXTANT_SIMT)
constexpr bool kIsEmulated = true;
#else
constexpr bool kIsEmulated = false;
#endif

constexpr int64_t kFlushBytes = int64_t{256} << 20;  // several times the second-level cache of any device that we name
constexpr int kWarmUps = 3;

struct CudaFailure : std::runtime_error {
  using std::runtime_error::runtime_error;
};
void check(int error, const char* what) {
  if (error == cudaSuccess) return;
  throw CudaFailure(std::string(what) + ": " + cudaGetErrorString(static_cast<cudaError_t>(error)));
}

class DeviceMemory : public CaseMemory {
 public:
  ~DeviceMemory() override {
    for (void* p : owned_) cudaFree(p);
  }
  void* allocate(int64_t bytes, Content content) override {
    void* p = nullptr;
    const auto size = static_cast<size_t>(std::max<int64_t>(bytes, 16));
    check(cudaMalloc(&p, size), "cudaMalloc");
    owned_.push_back(p);
    if (content == Content::kZeros) {
      check(cudaMemset(p, 0, size), "cudaMemset");
      return p;
    }
    const std::vector<uint32_t>& random = random_words(content);
    size_t done = std::min(size, random.size() * sizeof(uint32_t));
    check(cudaMemcpy(p, random.data(), done, cudaMemcpyHostToDevice), "cudaMemcpy");
    while (done < size) {  // the same again, behind it
      const size_t next = std::min(done, size - done);
      check(cudaMemcpy(static_cast<char*>(p) + done, p, next, cudaMemcpyDeviceToDevice), "cudaMemcpy");
      done += next;
    }
    return p;
  }
  void* upload(const void* from, int64_t bytes) override {
    void* p = nullptr;
    check(cudaMalloc(&p, static_cast<size_t>(std::max<int64_t>(bytes, 16))), "cudaMalloc");
    owned_.push_back(p);
    check(cudaMemcpy(p, from, static_cast<size_t>(bytes), cudaMemcpyHostToDevice), "cudaMemcpy");
    return p;
  }

 private:
  // 4 MiB of numbers in [-1, 1): fp32, or the upper halves of two of them side by side.
  static const std::vector<uint32_t>& random_words(Content content) {
    static const auto made = [] {
      std::array<std::vector<uint32_t>, 2> words;
      std::mt19937 generator(1);
      const auto next = [&] {
        const float x = static_cast<float>(generator() >> 8) * 0x1p-23f - 1.0f;
        uint32_t bits;
        std::memcpy(&bits, &x, sizeof(bits));
        return bits;
      };
      for (int i = 0; i < 1 << 20; ++i) {
        words[0].push_back(next());
        words[1].push_back(next() >> 16 | (next() & 0xffff0000u));
      }
      return words;
    }();
    return made[content == Content::kFloat32 ? 0 : 1];
  }

  std::vector<void*> owned_;
};

struct Options {
  ModelShape shape = llama_8b_shape();
  std::string out;
  std::string only;
  int repetitions = 30;
};

class Timer {
 public:
  Timer() {
    check(cudaStreamCreate(&stream_), "cudaStreamCreate");
    check(cudaEventCreate(&begin_), "cudaEventCreate");
    check(cudaEventCreate(&end_), "cudaEventCreate");
    if (!kIsEmulated) check(cudaMalloc(&flush_, static_cast<size_t>(kFlushBytes)), "cudaMalloc");
  }
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;
  ~Timer() {
    cudaFree(flush_);
    cudaEventDestroy(begin_);
    cudaEventDestroy(end_);
    cudaStreamDestroy(stream_);
  }

  void run(const Launch& launch) {
    check(launch(stream_), "launch");
    check(cudaStreamSynchronize(stream_), "the kernel");
  }
  double seconds(const Launch& launch) {
    check(cudaMemsetAsync(flush_, 0, static_cast<size_t>(kFlushBytes), stream_), "cudaMemsetAsync");
    check(cudaEventRecord(begin_, stream_), "cudaEventRecord");
    check(launch(stream_), "launch");
    check(cudaEventRecord(end_, stream_), "cudaEventRecord");
    check(cudaEventSynchronize(end_), "the kernel");
    float milliseconds = 0;
    check(cudaEventElapsedTime(&milliseconds, begin_, end_), "cudaEventElapsedTime");
    return milliseconds * 1e-3;
  }

 private:
  cudaStream_t stream_ = nullptr;
  cudaEvent_t begin_ = nullptr;
  cudaEvent_t end_ = nullptr;
  void* flush_ = nullptr;
};

nlohmann::json measure(const KernelCase& kernel_case, Timer& timer, int repetitions) {
  DeviceMemory memory;
  const Launch launch = kernel_case.prepare(memory);
  nlohmann::json record = {{"case", kernel_case.name()},
                           {"op", kernel_case.op},
                           {"shape", kernel_case.shape},
                           {"bytes", kernel_case.bytes},
                           {"flops", kernel_case.flops}};
  timer.run(launch);
  if (kIsEmulated) return record;
  for (int i = 1; i < kWarmUps; ++i) timer.run(launch);
  std::vector<double> seconds;
  for (int i = 0; i < repetitions; ++i) seconds.push_back(timer.seconds(launch));
  std::sort(seconds.begin(), seconds.end());
  record["repetitions"] = repetitions;
  record["median_s"] = seconds[seconds.size() / 2];
  record["min_s"] = seconds.front();
  record["max_s"] = seconds.back();
  return record;
}

// The names of the cases that `path` holds already. A line that was cut off when the program was ended counts as absent.
std::set<std::string> measured_before(const std::string& path) {
  std::set<std::string> names;
  std::ifstream in(path);
  for (std::string line; std::getline(in, line);) {
    const nlohmann::json record = nlohmann::json::parse(line, nullptr, false);
    if (record.is_object() && record.contains("case") && !record.contains("error")) {
      names.insert(record["case"].get<std::string>());
    }
  }
  return names;
}

nlohmann::json device_record(const ModelShape& shape) {
  cudaDeviceProp properties = {};
  check(cudaGetDeviceProperties(&properties, 0), "cudaGetDeviceProperties");
  int driver = 0;
  check(cudaDriverGetVersion(&driver), "cudaDriverGetVersion");
  return {{"device", properties.name},
          {"compute_capability", std::to_string(properties.major) + "." + std::to_string(properties.minor)},
          {"multiprocessors", properties.multiProcessorCount},
          {"driver", driver},
          {"model_shape", shape.name},
          {"is_emulated", kIsEmulated}};
}

int run(const Options& options) {
  const std::set<std::string> before = measured_before(options.out);
  std::ofstream file;
  if (!options.out.empty()) file.open(options.out, std::ios::app);
  std::ostream& out = options.out.empty() ? static_cast<std::ostream&>(std::cout) : file;
  const auto write = [&](const nlohmann::json& record) { out << '\n' << record.dump() << std::flush; };
  int failures = 0;
  write(device_record(options.shape));
  Timer timer;
  for (const KernelCase& kernel_case : kernel_cases(options.shape)) {
    if (!kernel_case.is_measured || before.contains(kernel_case.name())) continue;
    if (!options.only.empty() && kernel_case.op != options.only) continue;
    try {
      write(measure(kernel_case, timer, options.repetitions));
    } catch (const CudaFailure& failure) {
      write({{"case", kernel_case.name()}, {"error", failure.what()}});
      std::fprintf(stderr, "%s: %s\n", kernel_case.name().c_str(), failure.what());
      ++failures;
      // After anything but a lack of memory the device's context is lost; the next run takes up here.
      if (cudaGetLastError() != cudaErrorMemoryAllocation) break;
    }
  }
  out << '\n';
  return failures == 0 ? 0 : 1;
}

}  // namespace
}  // namespace sextant::bench

int main(int argc, char** argv) {
  using namespace sextant::bench;
  Options options;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string flag = argv[i], value = argv[i + 1];
    if (flag == "--shape" && value == "tiny")
      options.shape = tiny_shape();
    else if (flag == "--shape" && value == "llama-8b")
      options.shape = llama_8b_shape();
    else if (flag == "--out")
      options.out = value;
    else if (flag == "--only")
      options.only = value;
    else if (flag == "--repetitions" && std::atoi(value.c_str()) > 0)
      options.repetitions = std::atoi(value.c_str());
    else
      argc = 0;
  }
  if (argc % 2 == 0) {
    std::fprintf(stderr, "usage: kernels_bench [--shape llama-8b|tiny] [--out FILE] [--only OP] [--repetitions N]\n");
    return 2;
  }
  try {
    return run(options);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "kernels_bench: %s\n", error.what());
    return 1;
  }
}
