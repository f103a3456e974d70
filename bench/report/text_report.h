// The summary of a run for a terminal. Pure.
#pragma once

#include <string>

#include "bench/report/json_report.h"

namespace sextant::bench {

std::string point_text(const BenchResult& result, const BenchPoint& point, const ReportOptions& options);
// One line per point, for sweeps and searches.
std::string table_text(const BenchResult& result, const ReportOptions& options);
std::string formulas_text();

// "12.3", "1234", "0.00123": four significant digits.
std::string short_number(double value);

}  // namespace sextant::bench
