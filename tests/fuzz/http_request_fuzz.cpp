// Reads the input as an HTTP request, whole and byte by byte: both must come to the same request or the same refusal.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "server/http/request_reader.h"

namespace {

using sextant::http::Limits;
using sextant::http::RequestReader;

struct Outcome {
  RequestReader::State state;
  std::string what;  // the request, or the refusal's status
};

Outcome read(std::string_view bytes, size_t piece_bytes, const Limits& limits) {
  RequestReader reader(limits);
  std::string held;
  while (true) {
    const std::string_view piece = bytes.substr(0, piece_bytes);
    held += piece;
    bytes.remove_prefix(piece.size());
    for (size_t taken = 1; taken > 0 && !held.empty();) {
      if (reader.state() == RequestReader::State::kComplete || reader.state() == RequestReader::State::kError) break;
      taken = reader.feed(held);
      if (taken > held.size()) abort();
      held.erase(0, taken);
    }
    const bool ended =
        reader.state() == RequestReader::State::kComplete || reader.state() == RequestReader::State::kError;
    if (ended || bytes.empty()) break;
  }
  Outcome outcome{reader.state(), {}};
  if (outcome.state == RequestReader::State::kError) {
    outcome.what = std::to_string(reader.error().status);
    if (reader.error().message.empty() || reader.error().status < 400) abort();
  } else if (outcome.state == RequestReader::State::kComplete) {
    const auto& request = reader.head().request;
    outcome.what = request.method + " " + request.path + "?" + request.query;
    for (const auto& header : request.headers) outcome.what += "\n" + header.name + ": " + header.value;
    outcome.what += "\n\n" + reader.take_body();
    if (outcome.what.size() > limits.max_header_bytes * 2 + limits.max_body_bytes) abort();
  }
  return outcome;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Limits limits;
  limits.max_body_bytes = 4096;
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const Outcome whole = read(bytes, std::max<size_t>(size, 1), limits);
  const Outcome pieces = read(bytes, 1, limits);
  if (whole.state != pieces.state || whole.what != pieces.what) abort();
  return 0;
}
