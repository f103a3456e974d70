// One self-contained HTML page of a matrix of measurements: throughput and latencies against the load, one chart per pair of lengths,
// one line per server setting, and all figures in a table. From records alone, so that it can be drawn before all is measured. Pure.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "bench/record/benchmark_record.h"

namespace sextant::bench {

struct MatrixRow {
  std::string settings;  // "max_num_seqs 16"; empty where all servers are alike
  std::string lengths;   // "128 in, 64 out"
  std::optional<int64_t> concurrency;
  double request_rate = 0;                // where there is no concurrency
  std::optional<BenchmarkRecord> record;  // absent: not measured yet
};

std::string html_matrix_report(const std::vector<MatrixRow>& rows);

}  // namespace sextant::bench
