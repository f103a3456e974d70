// What `sextant bench` reads from outside, chosen by the input's first byte: a server's answer, a streamed chunk, trace files,
// benchmark records. However an answer is cut, the outcome is the same; a chunk that is accepted is JSON; a record that is
// accepted is written as it was read.
#include <openssl/evp.h>
#include <cstdint>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <string_view>

#include "bench/client/chunk_scanner.h"
#include "bench/client/stream_reader.h"
#include "bench/prompts/trace.h"
#include "bench/record/benchmark_record.h"

namespace {

using namespace sextant;
using namespace sextant::bench;

RequestOutcome read_answer(std::string_view bytes, size_t piece) {
  StreamReader reader(true);
  RequestOutcome outcome;
  reader.begin(&outcome);
  int64_t now_ns = 1;
  bool goes_on = true;
  for (size_t at = 0; at < bytes.size() && goes_on && !reader.done(); at += piece) {
    goes_on = reader.append(bytes.substr(at, piece), ++now_ns);
  }
  if (goes_on && !reader.done()) reader.close(++now_ns);
  reader.finish(++now_ns);
  return outcome;
}

void check_answer(std::string_view bytes) {
  if (bytes.empty()) return;
  const RequestOutcome whole = read_answer(bytes, bytes.size());
  if (whole.kind == OutcomeKind::kNotSent || whole.kind == OutcomeKind::kInterrupted) abort();
  if (whole.kind != OutcomeKind::kFinished && whole.message.empty()) abort();
  for (const size_t piece : {size_t{1}, size_t{7}}) {
    const RequestOutcome cut = read_answer(bytes, piece);
    // Bytes behind an answer's end are seen only where they came with it.
    if (cut.kind != whole.kind && whole.kind != OutcomeKind::kMalformed) abort();
    if (cut.kind == OutcomeKind::kFinished && whole.kind == OutcomeKind::kFinished &&
        (cut.text != whole.text || cut.num_events != whole.num_events || cut.token_ids != whole.token_ids)) {
      abort();
    }
    if (cut.first_ns > cut.last_ns || cut.last_ns > cut.end_ns) abort();
  }
}

void check_chunk(std::string_view bytes) {
  ChunkFacts facts;
  if (!scan_chunk(bytes, &facts)) return;
  if (facts.num_token_ids < 0) abort();
  for (const std::string_view inside : {facts.text, facts.finish_reason, facts.error}) {
    if (!inside.empty() &&
        (inside.data() < bytes.data() || inside.data() + inside.size() > bytes.data() + bytes.size()))
      abort();
  }
}

void check_trace(const Result<std::vector<TraceEntry>>& trace) {
  if (!trace.ok()) {
    if (trace.status().message().empty()) abort();
    return;
  }
  double before_s = 0;
  if (trace->empty() || trace->front().time_s != 0) abort();
  for (const TraceEntry& entry : *trace) {
    if (!(entry.time_s >= before_s) || entry.time_s > 1e9 || entry.input_tokens < 0 || entry.output_tokens < 0) abort();
    before_s = entry.time_s;
  }
}

void check_records(std::string_view text) {
  const auto records = read_records(text, "fuzz");
  if (!records.ok()) {
    if (records.status().message().empty()) abort();
    return;
  }
  for (const BenchmarkRecord& record : *records) {
    const auto again = read_records(to_line(record), "again");
    if (!again.ok() || again->size() != 1 || to_line(again->front()) != to_line(record)) abort();
    (void)to_planner_json(record);
  }
}

// A record's id is a hash that no fuzzer finds: it is made true first.
std::string with_true_id(std::string_view line) {
  nlohmann::json json = nlohmann::json::parse(line, nullptr, false);
  if (!json.is_object() || !json.contains("record_id")) return std::string(line);
  json.erase("record_id");
  const std::string canonical = json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  unsigned char digest[32];
  EVP_Digest(canonical.data(), canonical.size(), digest, nullptr, EVP_sha256(), nullptr);
  std::string id;
  for (const unsigned char byte : digest) {
    id += "0123456789abcdef"[byte >> 4];
    id += "0123456789abcdef"[byte & 15];
  }
  json["record_id"] = id;
  return json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view rest(reinterpret_cast<const char*>(data) + 1, size - 1);
  std::istringstream file{std::string(rest)};
  switch (data[0]) {
    case 'h': check_answer(rest); break;
    case 's': check_answer("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + std::string(rest)); break;
    case 'c': check_chunk(rest); break;
    case 'm': check_trace(read_mooncake(file, "fuzz")); break;
    case 'b': check_trace(read_burstgpt(file, "fuzz")); break;
    case 'r': check_records(rest); break;
    case 'i': check_records(with_true_id(rest)); break;
    default: break;
  }
  return 0;
}
