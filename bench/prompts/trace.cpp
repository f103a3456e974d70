#include "bench/prompts/trace.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>

#include <nlohmann/json.hpp>

namespace sextant::bench {
namespace {

constexpr int64_t kMostTokens = int64_t{1} << 24;
constexpr size_t kMostLineBytes = size_t{16} << 20;
constexpr double kMostTime_s = 1e11;
constexpr double kLongest_s = 30 * 366 * 86400.0;

// As std::getline, but of a line that is too long only its begin is read: a file without line breaks is refused, not loaded.
bool next_line(std::istream& file, std::string* line) {
  line->clear();
  std::streambuf& bytes = *file.rdbuf();
  int c = bytes.sbumpc();
  if (c == std::char_traits<char>::eof()) return false;
  for (; c != std::char_traits<char>::eof() && c != '\n' && line->size() <= kMostLineBytes; c = bytes.sbumpc()) {
    *line += static_cast<char>(c);
  }
  return true;
}

Status bad_line(const std::string& path, size_t line, const std::string& why) {
  return invalid_argument("dataset_path: " + path + ":" + std::to_string(line) + ": " + why, "dataset_path");
}

Result<std::vector<TraceEntry>> in_order(std::vector<TraceEntry> entries, const std::string& path) {
  if (entries.empty()) return invalid_argument("dataset_path: " + path + " holds no requests", "dataset_path");
  std::stable_sort(entries.begin(), entries.end(),
                   [](const TraceEntry& a, const TraceEntry& b) { return a.time_s < b.time_s; });
  const double begin_s = entries.front().time_s;
  if (entries.back().time_s - begin_s > kLongest_s) {
    return invalid_argument("dataset_path: " + path + " spans more than 30 years: are its times in the right unit?",
                            "dataset_path");
  }
  for (TraceEntry& entry : entries) entry.time_s -= begin_s;
  return entries;
}

}  // namespace

Result<std::vector<TraceEntry>> read_mooncake(const std::string& path) {
  std::ifstream file(path);
  if (!file) return invalid_argument("dataset_path cannot be read: " + path, "dataset_path");
  return read_mooncake(file, path);
}

Result<std::vector<TraceEntry>> read_mooncake(std::istream& file, const std::string& path) {
  std::vector<TraceEntry> entries;
  std::string line;
  for (size_t number = 1; next_line(file, &line); ++number) {
    if (line.size() > kMostLineBytes) return bad_line(path, number, "is longer than 16 MiB: this is no trace");
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    const nlohmann::json json = nlohmann::json::parse(line, nullptr, false);
    const auto count = [&](const char* key, int64_t* value) {
      const auto it = json.find(key);
      if (it == json.end() || !it->is_number_integer() || it->get<int64_t>() < 0 || it->get<int64_t>() > kMostTokens)
        return false;
      *value = it->get<int64_t>();
      return true;
    };
    TraceEntry entry;
    if (!json.is_object() || !json.contains("timestamp") || !json["timestamp"].is_number() ||
        !count("input_length", &entry.input_tokens) || !count("output_length", &entry.output_tokens)) {
      return bad_line(path, number, "is no Mooncake entry {\"timestamp\": ms, \"input_length\", \"output_length\"}");
    }
    entry.time_s = json["timestamp"].get<double>() / 1000;
    if (!(std::abs(entry.time_s) <= kMostTime_s)) return bad_line(path, number, "timestamp is beyond all time");
    if (const auto ids = json.find("hash_ids"); ids != json.end()) {
      if (!ids->is_array()) return bad_line(path, number, "hash_ids is no list");
      for (const nlohmann::json& id : *ids) {
        if (!id.is_number_integer()) return bad_line(path, number, "hash_ids holds something that is no whole number");
        entry.block_ids.push_back(id.get<int64_t>());
      }
    }
    entries.push_back(std::move(entry));
  }
  return in_order(std::move(entries), path);
}

Result<std::vector<TraceEntry>> read_burstgpt(const std::string& path) {
  std::ifstream file(path);
  if (!file) return invalid_argument("dataset_path cannot be read: " + path, "dataset_path");
  return read_burstgpt(file, path);
}

Result<std::vector<TraceEntry>> read_burstgpt(std::istream& file, const std::string& path) {
  std::vector<TraceEntry> entries;
  std::string line;
  int columns[3] = {-1, -1, -1};
  constexpr const char* kNames[] = {"Timestamp", "Request tokens", "Response tokens"};
  for (size_t number = 1; next_line(file, &line); ++number) {
    if (line.size() > kMostLineBytes) return bad_line(path, number, "is longer than 16 MiB: this is no trace");
    if (line.ends_with('\r')) line.pop_back();
    if (line.empty()) continue;
    std::vector<std::string> fields(1);
    for (const char c : line) {
      if (c == ',') {
        fields.emplace_back();
      } else if (c != '"') {
        fields.back() += c;
      }
    }
    if (number == 1) {
      for (size_t i = 0; i < fields.size(); ++i) {
        for (size_t k = 0; k < 3; ++k) {
          if (fields[i] == kNames[k]) columns[k] = static_cast<int>(i);
        }
      }
      for (size_t k = 0; k < 3; ++k) {
        if (columns[k] < 0) return bad_line(path, 1, std::string("has no column '") + kNames[k] + "'");
      }
      continue;
    }
    double values[3];
    for (size_t k = 0; k < 3; ++k) {
      const auto column = static_cast<size_t>(columns[k]);
      char* end = nullptr;
      values[k] = column < fields.size() ? std::strtod(fields[column].c_str(), &end) : NAN;
      if (column >= fields.size() || end == fields[column].c_str() || !(values[k] >= 0) || values[k] > kMostTime_s) {
        return bad_line(path, number, std::string("'") + kNames[k] + "' is no number");
      }
    }
    if (values[2] < 1 || values[1] < 1) continue;
    entries.push_back({values[0],
                       static_cast<int64_t>(std::min(values[1], double{kMostTokens})),
                       static_cast<int64_t>(std::min(values[2], double{kMostTokens})),
                       {}});
  }
  return in_order(std::move(entries), path);
}

}  // namespace sextant::bench
