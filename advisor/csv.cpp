#include "advisor/csv.h"

#include <charconv>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <sstream>

namespace sextant::advisor {
namespace {

std::string at(std::string_view source, int line) { return std::string(source) + ", line " + std::to_string(line); }

std::string shortest(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%g", value);
  return text;
}

// Length of the well-formed sequence that begins at `i`, or 0 (Unicode 15, table 3-7).
size_t sequence_length(std::string_view text, size_t i) {
  const auto byte = [&](size_t k) { return k < text.size() ? static_cast<unsigned char>(text[k]) : 0u; };
  const auto tail = [&](size_t k, unsigned low = 0x80, unsigned high = 0xBF) {
    return byte(k) >= low && byte(k) <= high;
  };
  const unsigned first = byte(i);
  if (first == 0) return 0;
  if (first < 0x80) return 1;
  if (first >= 0xC2 && first <= 0xDF) return tail(i + 1) ? 2 : 0;
  if (first >= 0xE0 && first <= 0xEF) {
    const unsigned low = first == 0xE0 ? 0xA0 : 0x80;
    const unsigned high = first == 0xED ? 0x9F : 0xBF;
    return tail(i + 1, low, high) && tail(i + 2) ? 3 : 0;
  }
  if (first >= 0xF0 && first <= 0xF4) {
    const unsigned low = first == 0xF0 ? 0x90 : 0x80;
    const unsigned high = first == 0xF4 ? 0x8F : 0xBF;
    return tail(i + 1, low, high) && tail(i + 2) && tail(i + 3) ? 4 : 0;
  }
  return 0;
}

}  // namespace

int CsvTable::column(std::string_view name) const {
  for (size_t i = 0; i < header.size(); ++i)
    if (header[i] == name) return static_cast<int>(i);
  return -1;
}

bool is_text(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const size_t length = sequence_length(text, i);
    if (length == 0) return false;
    i += length;
  }
  return true;
}

Result<CsvTable> parse_csv(std::string_view text, std::string_view source) {
  if (text.size() > kMaxCsvBytes) return Status(StatusCode::kTooLarge, std::string(source) + ": more than 64 MiB");
  if (!is_text(text)) return invalid_argument(std::string(source) + ": not UTF-8 text");
  if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);
  CsvTable table;
  table.source = source;
  int line = 1;
  size_t i = 0;
  while (i < text.size()) {
    const int first_line = line;
    std::vector<std::string> fields(1);
    bool quoted = false;
    bool ended = false;
    while (i < text.size() && !ended) {
      const char c = text[i++];
      if (quoted) {
        if (c == '\n') ++line;
        if (c != '"') {
          fields.back() += c;
        } else if (i < text.size() && text[i] == '"') {
          fields.back() += '"';
          ++i;
        } else {
          quoted = false;
        }
      } else if (c == '"' && fields.back().empty()) {
        quoted = true;
      } else if (c == ',') {
        fields.emplace_back();
      } else if (c == '\n') {
        ++line;
        ended = true;
      } else if (c != '\r' || (i < text.size() && text[i] != '\n')) {
        fields.back() += c;
      }
    }
    if (quoted) return invalid_argument(at(source, first_line) + ": a quoted field never ends");
    if (fields.size() == 1 && fields[0].empty()) continue;
    if (table.header.empty()) {
      table.header = std::move(fields);
      continue;
    }
    if (fields.size() != table.header.size())
      return invalid_argument(at(source, first_line) + ": " + std::to_string(fields.size()) +
                              " fields where the header has " + std::to_string(table.header.size()));
    if (table.rows.size() == kMaxCsvRows)
      return Status(StatusCode::kTooLarge,
                    std::string(source) + ": more than " + std::to_string(kMaxCsvRows) + " rows");
    table.rows.push_back(std::move(fields));
    table.lines.push_back(first_line);
  }
  if (table.header.empty()) return invalid_argument(std::string(source) + ": empty; a header line is the least");
  return table;
}

Result<std::string> read_text_file(const std::string& path, size_t max_bytes) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return not_found("cannot read " + path);
  std::string text;
  char buffer[1 << 16];
  while (file.read(buffer, sizeof buffer) || file.gcount() > 0) {
    text.append(buffer, static_cast<size_t>(file.gcount()));
    if (text.size() > max_bytes)
      return Status(StatusCode::kTooLarge, path + ": larger than " + std::to_string(max_bytes) + " bytes");
  }
  if (file.bad()) return not_found("cannot read " + path);
  return text;
}

Result<double> parse_number(std::string_view field, std::string_view what, double low, double high) {
  double value = 0;
  const auto [end, error] = std::from_chars(field.data(), field.data() + field.size(), value);
  if (error != std::errc() || end != field.data() + field.size() || !std::isfinite(value) || value < low ||
      value > high)
    return invalid_argument(std::string(what) + " is '" + std::string(field.substr(0, 40)) + "'; a number from " +
                                shortest(low) + " to " + shortest(high) + " is needed",
                            std::string(what));
  return value;
}

}  // namespace sextant::advisor
