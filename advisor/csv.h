// CSV as spreadsheets write it (RFC 4180): a header line, quoted fields, doubled quotes. Strict: a row of another length,
// bytes that are not UTF-8 or a quote that never closes is an error that names its line. Pure; any thread.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "engine/base/result.h"

namespace sextant::advisor {

struct CsvTable {
  std::string source;  // the file's name, for messages
  std::vector<std::string> header;
  std::vector<std::vector<std::string>> rows;
  std::vector<int> lines;  // of each row, counted from 1

  // Index of a column, or -1.
  int column(std::string_view name) const;
};

// At most `kMaxCsvBytes` and `kMaxCsvRows`: an import is a file of measurements, not a dump.
inline constexpr size_t kMaxCsvBytes = 64u << 20;
inline constexpr size_t kMaxCsvRows = 200'000;

Result<CsvTable> parse_csv(std::string_view text, std::string_view source);

// Reads a whole file; kNotFound when there is none, kTooLarge above the limit.
Result<std::string> read_text_file(const std::string& path, size_t max_bytes = kMaxCsvBytes);

// Well-formed UTF-8 without NUL.
bool is_text(std::string_view text);

// The field as a finite number within [low, high]; the error names `what` and the range.
Result<double> parse_number(std::string_view field, std::string_view what, double low, double high);

}  // namespace sextant::advisor
