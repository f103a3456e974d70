// KernelRun: the CPU's ops on one thread, each timed alone beside what the machine can do just then: the rate at which a thread
// reads memory and the rate of its widest fp32 multiply-adds. For `sextant bench kernels`. One thread. Knows kernels/ alone.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace sextant::bench {

struct KernelRunOptions {
  std::string filter;                                         // part of the names of the cases that run; empty: all
  std::vector<std::string> isas;                              // instruction sets by name; empty: the widest
  double min_time_s = 0.2;                                    // of each case, at least
  std::function<void(const std::string& name)> on_name = {};  // of each case that the filter leaves; may be empty
  std::function<bool()> is_stopped = {};                      // true: ends after the case under way; may be empty
};

struct KernelRoofs {
  double read_gb_per_s = 0;     // one thread, from memory
  double fp32_gflop_per_s = 0;  // one thread, multiply-adds in registers
};

struct KernelResult {
  std::string name;              // "matmul/avx512/q4_1/T=1,K=4096,N=4096"
  std::string op, isa, weights;  // `weights` empty where there are none
  std::vector<std::pair<std::string, int64_t>> shape;
  int64_t bytes = 0;           // of one call: each operand read or written once
  int64_t flops = 0;           // multiplies and adds; 0: not an op that is counted so
  std::vector<double> call_s;  // sorted; each the mean of `calls_per_sample` calls
  int64_t calls_per_sample = 0;
  // Of the slower of bytes at read_gb_per_s and flops at fp32_gflop_per_s; absent where neither is a bound (operands that stay in
  // a cache, products of integers).
  std::optional<double> roof_pct;

  double median_s() const { return call_s[call_s.size() / 2]; }
  double gb_per_s() const { return static_cast<double>(bytes) / median_s() * 1e-9; }
  double gflop_per_s() const { return static_cast<double>(flops) / median_s() * 1e-9; }
};

// The instruction sets that this CPU has, the widest last: "generic", "avx2"...
std::vector<std::string> kernel_isas();

KernelRoofs measure_kernel_roofs();

// Each result as it comes. Returns how many cases the filter left.
int64_t run_kernels(const KernelRunOptions& options, const KernelRoofs& roofs,
                    const std::function<void(const KernelResult&)>& on_result);

}  // namespace sextant::bench
