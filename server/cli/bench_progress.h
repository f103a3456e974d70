// BenchProgress: how far a benchmark is, on stderr: one line redrawn on a terminal, a plain line every few seconds elsewhere. One
// thread. Must not know what is measured.
#pragma once

#include <cstdint>
#include <cstdio>
#include <string>

#include "bench/run/serve_bench.h"

namespace sextant::cli {

class BenchProgress {
 public:
  BenchProgress(std::FILE* out, bool is_terminal, bool quiet) : out_(out), is_terminal_(is_terminal), quiet_(quiet) {}
  ~BenchProgress() { clear(); }

  void note(const std::string& text);
  void update(const bench::BenchPoint& point, size_t point_number, const bench::LiveCounts& counts);
  void clear();  // ends the redrawn line

  // "poisson 4 req/s: 120/1000 done, 14 running, 0 failed, 3.9 req/s, TTFT 41 ms, 30 s, about 3 min left"
  static std::string text(const bench::BenchPoint& point, const bench::LiveCounts& counts);

 private:
  std::FILE* out_;
  const bool is_terminal_;
  const bool quiet_;
  int64_t last_shown_ns_ = 0;
  size_t shown_width_ = 0;
};

}  // namespace sextant::cli
