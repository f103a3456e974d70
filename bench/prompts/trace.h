// Traces of real traffic: when requests came and how long they were. Pure but for reading the file.
#pragma once

#include <cstdint>
#include <istream>
#include <string>
#include <vector>

#include "engine/base/result.h"

namespace sextant::bench {

struct TraceEntry {
  double time_s = 0;  // from the first entry
  int64_t input_tokens = 0;
  int64_t output_tokens = 0;
  std::vector<int64_t> block_ids;  // Mooncake's hash_ids: equal ids are equal blocks of kTraceBlockTokens
};

inline constexpr int64_t kTraceBlockTokens = 512;

// Each also from an open stream; `path` then only names it in messages. A line of more than 16 MiB, a time beyond 10^11 s and a
// trace of more than 30 years are refused.
// Mooncake: JSON lines {"timestamp": ms, "input_length", "output_length", "hash_ids"}.
Result<std::vector<TraceEntry>> read_mooncake(const std::string& path);
Result<std::vector<TraceEntry>> read_mooncake(std::istream& file, const std::string& path);
// BurstGPT: CSV with the columns Timestamp (s), Request tokens, Response tokens; rows without an answer are left out.
Result<std::vector<TraceEntry>> read_burstgpt(const std::string& path);
Result<std::vector<TraceEntry>> read_burstgpt(std::istream& file, const std::string& path);

}  // namespace sextant::bench
