// llm-d's benchmark report 0.2.1 (llm-d-benchmark, llmdbenchmark/analysis/benchmark_report): the last point of a result. Pure.
#pragma once

#include <nlohmann/json.hpp>

#include "bench/report/json_report.h"

namespace sextant::bench {

nlohmann::ordered_json llmd_report(const BenchResult& result, const ReportOptions& options);

}  // namespace sextant::bench
